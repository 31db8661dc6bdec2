"""The KV cache as blocks: who holds how many, and what of the free ones is still of use.

Blocks that nobody holds keep what was computed into them until they are taken again, the one that
was let go longest ago first, and of one request the last of its tokens first. So whoever comes back
finds a beginning of what it had, perhaps all of it. What it does not take then is of no use to
anyone.

A prefix that several requests share is held once, by all of them. Whoever finds only a part of it
computes the rest, which others find then. If some hold less of it than others, what is beyond is
let go, and forgotten, with the last one who holds that.

Source: PagedAttention, W. Kwon et al., SOSP 2023, doi:10.1145/3600006.3613165; order of eviction as
vLLM documents it (docs.vllm.ai, design: prefix caching).

Left out: contents that agree by chance or by several turns of a talk, unless the request names its
prefix; blocks of a prefix while another request is still computing it, and a second copy that was
computed meanwhile; swapping to the host.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

Key = int | str


@dataclass(slots=True)
class _Kept:
    """Blocks of one owner that nobody holds."""

    key: Key | None
    count: int


@dataclass(slots=True)
class _Prefix:
    """A prefix in blocks that requests hold together."""

    blocks: int
    holders: dict[int, int] = field(default_factory=dict)  # by how many blocks they hold

    def more(self, blocks: int) -> None:
        """Count somebody who holds so many blocks."""
        self.holders[blocks] = self.holders.get(blocks, 0) + 1

    def less(self, blocks: int) -> None:
        """Count somebody less."""
        self.holders[blocks] -= 1
        if not self.holders[blocks]:
            del self.holders[blocks]


@dataclass
class Pool:
    """Blocks of the KV cache of one engine.

    Attributes
    ----------
    size : int
        Blocks; 0: without end.
    keeps : bool
        Whether what free blocks hold can be found again.
    """

    size: int
    keeps: bool = True
    used: int = 0
    _free: deque[_Kept] = field(default_factory=deque)
    _kept: dict[Key, _Kept] = field(default_factory=dict)
    _prefixes: dict[str, _Prefix] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.size:
            self._free.append(_Kept(None, self.size))

    @property
    def free(self) -> float:
        """Blocks that nobody holds."""
        return self.size - self.used if self.size else float("inf")

    def take(self, count: int) -> None:
        """Take so many free blocks, which forget what they hold; there must be as many."""
        self.used += count
        if not self.size:
            return
        while count:
            oldest = self._free[0]
            part = min(count, oldest.count)
            oldest.count -= part
            count -= part
            if oldest.count == 0:
                self._free.popleft()
                if oldest.key is not None and self._kept.get(oldest.key) is oldest:
                    del self._kept[oldest.key]

    def give(self, count: int, key: Key | None = None, whole: int = 0) -> None:
        """Let go of so many blocks.

        Parameters
        ----------
        count : int
        key : int or str, optional
            Under which name what the first of them hold is looked for.
        whole : int
            How many of them are worth that: full ones, from the first.
        """
        self.used -= count
        if key is None or not self.keeps or not whole:
            self._let_go(_Kept(None, count))
            return
        self._let_go(_Kept(None, count - whole))  # the last are let go first
        kept = _Kept(key, whole)
        self._let_go(kept)
        self._kept[key] = kept

    def _let_go(self, kept: _Kept) -> None:
        if self.size and kept.count:
            self._free.append(kept)

    def kept(self, key: Key) -> int:
        """Return how many blocks of an owner are still there, of those that nobody holds."""
        found = self._kept.get(key)
        return found.count if found is not None else 0

    def take_kept(self, key: Key, count: int) -> None:
        """Take back so many blocks of those that are still there of an owner, and forget others."""
        found = self._kept.pop(key, None)
        if found is not None:
            self.used += count
            found.count -= count
            found.key = None

    def shared(self, prefix: str) -> int:
        """Return how many blocks of a prefix are there, held or kept."""
        entry = self._prefixes.get(prefix)
        if entry is not None:
            return entry.blocks
        return self.kept(f"prefix {prefix}")

    def held(self, prefix: str) -> bool:
        """Return whether anybody holds a prefix."""
        return prefix in self._prefixes

    def hold_prefix(self, prefix: str, blocks: int) -> None:
        """Hold so many blocks of a prefix, together with others who do; they must be there."""
        entry = self._prefixes.get(prefix)
        if entry is None:
            self.take_kept(f"prefix {prefix}", blocks)
            entry = self._prefixes[prefix] = _Prefix(blocks)
        entry.more(blocks)

    def publish_prefix(self, prefix: str, blocks: int, of_these: int) -> bool:
        """Make blocks that one request holds a prefix that others can hold too.

        Parameters
        ----------
        prefix : str
        blocks : int
        of_these : int
            How many of them are the prefix's already, held by the request.

        Returns
        -------
        bool
            Whether these are now the prefix's; not if there is as much of it already.
        """
        entry = self._prefixes.get(prefix)
        if not self.keeps or self.shared(prefix) > blocks:
            return False
        if entry is None:
            entry = self._prefixes[prefix] = _Prefix(blocks)
        elif of_these == entry.blocks:
            entry.blocks = blocks
            entry.less(of_these)
        else:
            return False
        entry.more(blocks)
        return True

    def let_go_prefix(self, prefix: str, blocks: int) -> None:
        """Hold so many blocks of a prefix no longer."""
        entry = self._prefixes[prefix]
        entry.less(blocks)
        if not entry.holders:
            del self._prefixes[prefix]
            self.give(entry.blocks, f"prefix {prefix}", entry.blocks)
            return
        most = max(entry.holders)
        self.give(entry.blocks - most)
        entry.blocks = most
