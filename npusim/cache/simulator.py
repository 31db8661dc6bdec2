"""An exact simulator of one level of cache: sets, replacement, sectors, victim cache, writes.

It is the oracle for profiles of reuse distance and their corrections (:mod:`npusim.cache.distance`,
:mod:`npusim.cache.corrections`), and a tool where no profile will do.

An access touches one sector: split wider ones. A write covers its sector whole, so that a write
that allocates fetches nothing ("write-validate": N. Jouppi, "Cache write policies and performance",
ISCA 1993, doi:10.1109/ISCA.1993.698560).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npusim.cache import replay
from npusim.cache.compiled import compiled
from npusim.errors import InputError

POLICIES = {"lru": replay.LRU, "random": replay.RANDOM, "srrip": replay.SRRIP}
MOST_LINES = 2**27
MOST_SECTORS = 16
LONGEST_ADDRESS = 2**62


@dataclass(frozen=True)
class Cache:
    """One level of cache.

    Parameters
    ----------
    capacity : int
        Bytes of data, a multiple of ``line x ways`` [B].
    line : int
        Bytes of a line [B].
    ways : int
        Ways of a set; 0 is fully associative.
    policy : {"lru", "random", "srrip"}
        What is replaced. "srrip" is static re-reference interval prediction, 2 bits, hit priority,
        lines enter at 2 (A. Jaleel et al., ISCA 2010, doi:10.1145/1815961.1815971); it has to
        scan a set, and so needs ways. Empty ways fill first, whatever the policy.
    sector : int
        Bytes fetched and written at a time [B], 1 to 16 of them in a line; 0 is the whole line.
    hashed : bool
        Whether the set is a hash of the line number rather than its remainder.
    victim : int
        Bytes of a fully associative LRU victim cache [B]; it takes what the cache evicts, and a
        hit in it moves the line back (N. Jouppi, ISCA 1990, doi:10.1145/325164.325162).
    write_back : bool
        True: writes allocate, and are written to memory on eviction. False: each write goes to
        memory and allocates nothing.
    seed : int
        Of the random policy.

    Examples
    --------
    >>> Cache(capacity=32 * 2**20, line=128, ways=16).sets
    16384
    >>> Cache(capacity=1000, line=128, ways=4)
    Traceback (most recent call last):
    npusim.errors.InputError: a cache cannot have this capacity: 1000 (allowed: 1 to 33554432 \
times line x ways, 512 B)
    """

    capacity: int
    line: int = 128
    ways: int = 16
    policy: Literal["lru", "random", "srrip"] = "lru"
    sector: int = 0
    hashed: bool = False
    victim: int = 0
    write_back: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("capacity", "line", "ways", "sector", "victim", "seed"):
            self._check(field, _whole(getattr(self, field)), "a whole number, 0 or more")
        if self.policy not in POLICIES:
            self._check("policy", False, ", ".join(POLICIES))
        for field in ("hashed", "write_back"):
            self._check(field, isinstance(getattr(self, field), bool), "true or false")
        self._check("line", self.line > 0, "1 or more bytes")
        self._check("ways", self.ways > 0 or self.policy != "srrip", "1 or more where srrip scans")
        unit = self.line * max(self.ways, 1)
        most = MOST_LINES // max(self.ways, 1)
        self._check("capacity", self.capacity % unit == 0 and 0 < self.capacity // unit <= most,
                    f"1 to {most} times line x ways, {unit} B")  # fmt: skip
        count, rest = divmod(self.line, self.sector or self.line)
        self._check("sector", rest == 0 and count <= MOST_SECTORS,
                    f"0, or the line of {self.line} B divided by 1 to {MOST_SECTORS}")  # fmt: skip
        spares, rest = divmod(self.victim, self.line)
        self._check("victim", rest == 0 and spares <= MOST_LINES,
                    f"up to {MOST_LINES} lines of {self.line} B")  # fmt: skip

    def _check(self, field: str, passed: bool, allowed: str) -> None:
        if not passed:
            raise InputError(f"a cache cannot have this {field}", value=getattr(self, field),
                             allowed=allowed)  # fmt: skip

    @property
    def sets(self) -> int:
        """How many sets there are; 1 if the cache is fully associative."""
        return self.capacity // (self.line * self.ways) if self.ways else 1

    @property
    def lines(self) -> int:
        """How many lines it holds, the victim cache aside."""
        return self.capacity // self.line


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


@dataclass(frozen=True, eq=False)
class Traffic:
    """What a stream of accesses did to a cache; main, victim hits and misses add up to accesses.

    Attributes
    ----------
    accesses, hits, victim_hits, misses : int
        A miss is an access that memory serves, also where the line is there and its sector not.
    bytes_read_from_memory : int
        Sectors that reads fetched [B].
    bytes_written_to_memory : int
        Sectors written through, past the cache, or back on eviction [B].
    dirty : int
        Sectors left in the cache that a final flush would write [B].
    levels : array of uint8, shape (accesses,)
        What served each access: 0 the cache, 1 the victim cache, 2 memory.
    """

    accesses: int
    hits: int
    victim_hits: int
    misses: int
    bytes_read_from_memory: int
    bytes_written_to_memory: int
    dirty: int
    levels: NDArray[np.uint8]

    @property
    def hit_rate(self) -> float:
        """The share of accesses that the cache or its victim cache serves; 0 without any."""
        return 1.0 - self.misses / self.accesses if self.accesses else 0.0


def simulate(
    addresses: ArrayLike,
    cache: Cache,
    *,
    writes: ArrayLike | None = None,
    bypass: ArrayLike | None = None,
) -> Traffic:
    """Return what a stream of accesses does to a cache that is empty at first.

    Parameters
    ----------
    addresses : array of int, shape (N,)
        Byte addresses, in order [B].
    cache : Cache
    writes : array of bool, shape (N,), optional
        Which accesses write; none if left out.
    bypass : array of bool, shape (N,), optional
        Which accesses stream past: they hit what is there, in the victim cache too, but bring
        nothing in and leave the order of replacement as it is.

    Raises
    ------
    InputError
        If an array has the wrong shape or type, an address is negative or addresses lie too far
        apart, or numba is not installed.

    Examples
    --------
    Two lines in a cache of two, then a third that evicts the first:

    >>> import numpy as np
    >>> t = simulate(np.array([0, 64, 0, 64, 128, 0]), Cache(capacity=128, line=64, ways=0))
    >>> t.levels.tolist(), t.hits, t.misses, t.bytes_read_from_memory
    ([2, 2, 0, 0, 2, 2], 2, 4, 256)
    """
    stream = _addresses(addresses)
    flags = [_flags(given, name, stream.size)
             for given, name in ((writes, "writes"), (bypass, "bypass"))]  # fmt: skip
    shape = _geometry(stream, cache)
    main = np.full(cache.lines if cache.ways else 0, replay.ABSENT, _narrowest(stream, shape))
    full = replay.listed(0 if cache.ways else min(cache.lines, stream.size))
    victim = replay.listed(min(cache.victim // cache.line, stream.size))
    random = np.array([(2 * cache.seed + 1) % 2**64], np.uint64)  # odd: xorshift never leaves 0
    levels, sectors = np.empty(stream.size, np.uint8), np.zeros(2, np.int64)
    run = compiled(replay.replay, *replay.HELPERS)
    run(stream, flags[0], flags[1], shape, main, *full, *victim, random, levels, sectors)

    hits, victim_hits = (int(np.count_nonzero(levels == at)) for at in (0, 1))
    return Traffic(
        accesses=stream.size,
        hits=hits,
        victim_hits=victim_hits,
        misses=stream.size - hits - victim_hits,
        bytes_read_from_memory=int(sectors[replay.READ]) * shape.sector,
        bytes_written_to_memory=int(sectors[replay.WRITTEN]) * shape.sector,
        dirty=shape.sector
        * sum(_dirty(words, shape.sectors) for words in (main, full[0][:-1, 0], victim[0][:-1, 0])),
        levels=levels,
    )


def _addresses(given: ArrayLike) -> NDArray[np.int64]:
    array: NDArray[Any] = np.asarray(given)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise InputError("addresses are not a list of whole numbers",
                         value=f"{array.dtype} of shape {array.shape}",
                         allowed="one dimension of int64")  # fmt: skip
    for end in (array.min(), array.max()) if array.size else ():
        if not 0 <= int(end) < LONGEST_ADDRESS:
            raise InputError("an address is out of range", value=end, allowed="0 to 2^62 - 1")
    return np.ascontiguousarray(array, np.int64)


def _flags(given: ArrayLike | None, name: str, accesses: int) -> NDArray[np.bool_]:
    """Return flags as an array, empty if none were given."""
    if given is None:
        return np.empty(0, np.bool_)
    array: NDArray[Any] = np.asarray(given)
    if array.shape != (accesses,) or (array.size and array.dtype != np.bool_):
        raise InputError(f"{name} are not a flag for each access",
                         value=f"{array.dtype} of shape {array.shape}",
                         allowed=f"bool of shape ({accesses},)")  # fmt: skip
    return np.ascontiguousarray(array, np.bool_)


def _geometry(stream: NDArray[np.int64], cache: Cache) -> replay.Geometry:
    sector = cache.sector or cache.line
    sectors = cache.line // sector
    first, last = (int(end) // cache.line for end in ((stream.min(), stream.max())
                                                      if stream.size else (0, 0)))  # fmt: skip
    most = 2 ** (63 - 2 * sectors - 2)  # what a word has left for the tag
    if last - first >= most:
        raise InputError("addresses lie too far apart for so many sectors", value=sectors,
                         allowed=f"lines within {most} of one another")  # fmt: skip
    bits = cache.line.bit_length() - 1
    line_bits = bits if cache.line == 1 << bits else -1
    return replay.Geometry(cache.line, line_bits, sector, sectors, cache.sets, cache.ways, first,
                           POLICIES[cache.policy], int(cache.hashed),
                           int(cache.write_back))  # fmt: skip


def _narrowest(stream: NDArray[np.int64], shape: replay.Geometry) -> type[np.signedinteger[Any]]:
    """Return the type of a word: 32 bits where the tags fit, for twice as many stay near."""
    last = int(stream.max()) // shape.line - shape.first if stream.size else 0
    return np.int32 if last < 2 ** (31 - 2 * shape.sectors - 2) else np.int64


def _dirty(words: NDArray[Any], sectors: int) -> int:
    held = words[words >= 0] >> sectors
    return sum(int(np.count_nonzero((held >> at) & 1)) for at in range(sectors))
