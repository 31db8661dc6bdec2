"""Chains of operations that a fusion engine may run as one.

An operation joins the chain of what it reads if the whole is legal:

- a macro-op of the table covers it (`npusim.fusion.macro_ops`);
- it has at most ``fusion.chain`` operations;
- one iteration space: all have as many elements as the largest, or one for each of its rows behind
  a reduction, or one in all; slices and what is concatenated are a part of them, a quarter or more;
- nobody outside reads a result between the operation that made it and the end of the chain, where
  the chain now runs (a result that is read later is written as before), and nothing on another
  stream waits for it;
- neither a wait of the host nor an operation of which nothing is known lies in between: what comes
  behind the one is not issued yet, and the other may read or write anything;
- a row that is reduced lies in one unit: its kernel has no more blocks than rows, and the row no
  more than 32,768 elements;
- what is alive at once of one row fits ``fusion.buffer``, if the chain has a reduction: its rows
  are held. Without one a chain works on pieces of any size.

Source: seed 004 section 5; legality as in Z. Zheng et al., "AStitch: enabling a new
multi-dimensional optimization space for memory-intensive ML training and inference on modern SIMT
architectures", ASPLOS 2022, doi:10.1145/3503222.3507723 (element-wise steps, and row reductions
whose results stay on chip).

Left out: chains side by side that share an input alone, results kept for two readers in different
chains (the work is never done twice), loops over rows that do not fit the buffer.
"""

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
    """

    chain: int
    buffer: float = math.inf
    products: bool = False


@dataclass(frozen=True)
class Chain:
    """Operations that run as one, at the place of the last.

    Attributes
    ----------
    members : tuple of int
    name : str
        The macro-op.
    rows, width : int
        Rows and elements of a row; one row of all where no reduction tells.
    is_of_rows : bool
        Whether it reduces rows.
    """

    members: tuple[int, ...]
    name: str
    rows: int
    width: int
    is_of_rows: bool


def chains(w: Workload, table: MacroOps, limits: Limits) -> tuple[Chain, ...]:
    """Return the chains of at least two operations.

    Examples
    --------
    >>> import npusim as ns
    >>> from npusim.fusion.macro_ops import load_macro_ops
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> found = chains(w, load_macro_ops(), Limits(16))
    >>> sorted({c.name for c in found})
    ['norm', 'read by index and norm', 'rotary', 'steps']
    """
    search = _Search(w, table, limits)
    for i in range(len(w)):
        search.visit(i)
    return search.found()


class _Search:
    """Operations in order, each put into the chain of what it reads where that is legal."""

    def __init__(self, w: Workload, table: MacroOps, limits: Limits) -> None:
        self._table, self._limits, self._flow = table, limits, dataflow(w)
        kinds = np.array([table.classes.get(kind, "") for kind in w.labels["kind"]], dtype=object)
        self._class = kinds[w["kind"]]
        usable = w.classified & ~w["sync"] & ~w.mask("routine", *HOST_COPIES)
        usable &= (self._class != ROW) | _in_one_unit(w)
        usable &= (self._class != PRODUCT) | (limits.products & ~w.mask("routine", "split"))
        self._class = np.where(usable, self._class, "").tolist()
        self._size = _elements(w, self._class, self._flow)
        self._width, self._made = w["n"].tolist(), w["write_activation"].tolist()
        closes = w["sync"] | ~w.classified
        piece: NDArray[np.int64] = np.cumsum(closes) - closes  # what the host has issued by then
        self._where = list(zip(*(x.tolist() for x in (w["step"], w["stream"], piece)), strict=True))
        self._awaited = _awaited(w)
        self._chain_of: dict[int, tuple[int, ...]] = {}

    def visit(self, i: int) -> None:
        """Start a chain with an operation, or put it into those of what it reads."""
        if not self._class[i]:
            return
        self._chain_of[i] = (i,)
        # The latest first: what is not legal with all of them may be with the nearest.
        for j in sorted(self._flow.reads[i], reverse=True):
            if j not in self._chain_of or self._where[j] != self._where[i]:
                continue
            both = tuple(sorted({*self._chain_of[j], *self._chain_of[i]}))
            if self._is_legal(both):
                for member in both:
                    self._chain_of[member] = both

    def found(self) -> tuple[Chain, ...]:
        """Return all chains of two or more, by their last operation."""
        every = {members for members in self._chain_of.values() if len(members) > 1}
        return tuple(
            Chain(members, self._name(members), *self._space(members), self._is_of_rows(members))
            for members in sorted(every, key=lambda m: m[-1])
        )

    def _name(self, members: Sequence[int]) -> str:
        return self._table.name([self._class[m] for m in members])

    def _is_legal(self, members: tuple[int, ...]) -> bool:
        return (
            len(members) <= self._limits.chain
            and bool(self._name(members))
            and self._is_one_space(members)
            and not self._is_read_before_its_end(members)
            and self._awaited.isdisjoint(members[:-1])
            and self._held(members) <= self._limits.buffer
        )

    def _space(self, members: Sequence[int]) -> tuple[int, int]:
        """Return rows and width of a chain."""
        largest = max(self._size[m] for m in members)
        rows = [m for m in members if self._class[m] == ROW]
        width = max((self._width[m] for m in rows), default=0)
        return (largest // width, width) if width > 0 else (1, largest)

    def _is_of_rows(self, members: Sequence[int]) -> bool:
        return any(self._class[m] == ROW for m in members)

    def _is_one_space(self, members: Sequence[int]) -> bool:
        largest = max(self._size[m] for m in members)
        rows, width = self._space(members)
        ordered = [m for m in members if self._class[m] == ROW]
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
                   for m in members for reader in self._flow.readers[m])  # fmt: skip

    def _held(self, members: Sequence[int]) -> float:
        """Return the bytes of a row that are alive at once, 0 without a reduction."""
        if not self._is_of_rows(members):
            return 0.0
        rows, own = self._space(members)[0], set(members)
        most = 0.0
        for end in members:
            alive = (m for m in members if m <= end
                     and any(r in own and r > end for r in self._flow.readers[m]))  # fmt: skip
            most = max(most, sum(self._made[m] for m in alive) / rows)
        return most


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
