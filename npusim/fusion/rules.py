"""When operations may run as one: limits of a fusion engine, and the spaces that chains work on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.fusion.dataflow import Dataflow, dataflow
from npusim.fusion.macro_ops import JOIN, PRODUCT, ROW, MacroOps
from npusim.library import HOST_COPIES
from npusim.transforms.sequences import element
from npusim.workload import Workload

_PARTS = 4
_LONGEST = 32_768  # elements of a row that one unit reduces; more are shared by several


@dataclass(frozen=True)
class Limits:
    """What an engine may fuse.

    Attributes
    ----------
    chain : int
        Longest chain of operations.
    buffer : float
        Bytes of a row that are alive at once [B].
    products : bool
        Whether matrix products hand their results to the engine.
    recompute : int
        Most operations that a chain does again though others do them too.
    side_by_side : int
        Whether neighbours that do not read each other run as one: 0 none, 1 those that read the
        same, 2 all of one iteration space.
    """

    chain: int
    buffer: float = math.inf
    products: bool = False
    recompute: int = 0
    side_by_side: int = 0


class Rules:
    """What the rules of fusion need to know of a workload.

    Parameters
    ----------
    w : Workload
    table : MacroOps
    limits : Limits

    Attributes
    ----------
    workload, limits
        As given.
    flow : Dataflow
        Who reads what of whom.
    kinds : list of str
        Class of each operation in the table, empty if it stays as it is.
    where : list of tuple
        Step, stream, and piece of a step between waits of the host: nothing is fused across.
    """

    def __init__(self, w: Workload, table: MacroOps, limits: Limits) -> None:
        self.workload, self.limits, self.flow = w, limits, dataflow(w)
        self._table = table
        kinds = np.array([table.classes.get(kind, "") for kind in w.labels["kind"]], dtype=object)
        found = kinds[w["kind"]]
        usable = w.classified & ~w["sync"] & ~w.mask("routine", *HOST_COPIES)
        usable &= (found != ROW) | _in_one_unit(w)
        usable &= (found != PRODUCT) | (limits.products & ~w.mask("routine", "split"))
        self.kinds: list[str] = np.where(usable, found, "").tolist()
        self._size = _elements(w, self.kinds, self.flow)
        self._width, self._made = w["n"].tolist(), w["write_activation"].tolist()
        closes = w["sync"] | ~w.classified
        piece: NDArray[np.int64] = np.cumsum(closes) - closes  # what the host has issued by then
        self.where = list(zip(*(x.tolist() for x in (w["step"], w["stream"], piece)), strict=True))
        self._awaited = _awaited(w)

    def is_legal(self, members: Sequence[int]) -> bool:
        """Return whether operations may run as one at the place of the last."""
        return (
            self.is_covered(members)
            and not self._is_read_before_its_end(members)
            and not self.is_awaited(members[:-1])
        )

    def is_covered(self, members: Sequence[int]) -> bool:
        """Return whether one instruction covers operations, of one space that fits."""
        return (
            len(members) <= self.limits.chain
            and bool(self.name(members))
            and self._is_one_space(members)
            and self.held(members) <= self.limits.buffer
        )

    def is_awaited(self, members: Sequence[int]) -> bool:
        """Return whether operations of other streams wait for one of these."""
        return not self._awaited.isdisjoint(members)

    def name(self, members: Sequence[int]) -> str:
        """Return the macro-op that covers operations, empty if none does."""
        return self._table.name([self.kinds[m] for m in members])

    def largest(self, members: Sequence[int]) -> int:
        """Return the elements of the largest result."""
        return max(self._size[m] for m in members)

    def space(self, members: Sequence[int]) -> tuple[int, int]:
        """Return rows and width of a chain."""
        largest = self.largest(members)
        rows = [m for m in members if self.kinds[m] == ROW]
        width = max((self._width[m] for m in rows), default=0)
        return (largest // width, width) if width > 0 else (1, largest)

    def is_of_rows(self, members: Sequence[int]) -> bool:
        """Return whether a chain reduces rows."""
        return any(self.kinds[m] == ROW for m in members)

    def held(self, members: Sequence[int]) -> float:
        """Return the bytes of a row that are alive at once, 0 without a reduction [B]."""
        if not self.is_of_rows(members):
            return 0.0
        rows, own = self.space(members)[0], set(members)
        most = 0.0
        for end in members:
            alive = (m for m in members if m <= end
                     and any(r in own and r > end for r in self.flow.readers[m]))  # fmt: skip
            most = max(most, sum(self._made[m] for m in alive) / rows)
        return most

    def _is_one_space(self, members: Sequence[int]) -> bool:
        largest = self.largest(members)
        rows, width = self.space(members)
        ordered = [m for m in members if self.kinds[m] == ROW]
        if ordered and (rows * width != largest or any(self._size[m] != largest for m in ordered)):
            return False
        for m in members:
            size = self._size[m]
            behind = bool(ordered) and m > ordered[0] and size == rows
            part = largest % size == 0 and largest // size <= _PARTS
            if not (size in (1, largest) or behind or part):
                return False
        return True

    def _is_read_before_its_end(self, members: Sequence[int]) -> bool:
        own, end = set(members), members[-1]
        return any(m < reader < end and reader not in own
                   for m in members for reader in self.flow.readers[m])  # fmt: skip


def _in_one_unit(w: Workload) -> NDArray[np.bool_]:
    """Return which operations reduce each row in one unit, as far as their grid tells, (K,)."""
    rows = np.maximum(w["batch"], 1) * np.maximum(w["m"], 1)
    found: NDArray[np.bool_] = (w["n"] <= _LONGEST) & (w["blocks"] <= rows)
    return found


def _awaited(w: Workload) -> frozenset[int]:
    """Return what operations on other streams wait for."""
    indptr, indices = w.edges
    later = np.repeat(np.arange(len(w)), np.diff(indptr))
    return frozenset(indices[w["stream"][later] != w["stream"][indices]].tolist())


def _elements(w: Workload, classes: Sequence[str], flow: Dataflow) -> list[int]:
    """Return the elements of each result.

    Concatenations say their largest input, so what they write tells. Copies of plain bytes have as
    many as what they copy, or what reads them.
    """
    sizes: list[int] = np.prod(
        [np.maximum(w[c], 1) for c in ("batch", "m", "n")], axis=0
    ).tolist()  # fmt: skip
    written, item = w["write_activation"].tolist(), element(w)
    for i in np.flatnonzero([c == JOIN for c in classes]).tolist():
        sizes[i] = max(round(written[i] / item[i]), 1)
    copies = np.flatnonzero(w.mask("kind", "memcpy")).tolist()
    for i in reversed(copies):
        for j in flow.readers[i]:
            if flow.reads[j][i] == written[i]:
                sizes[i] = sizes[j]
    for i in copies:
        for j, part in flow.reads[i].items():
            if part == written[i]:
                sizes[i] = sizes[j]
    return sizes
