"""What an operation does that only its neighbours in the step tell."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from npusim.importers.coded import Coded, Codes, used
from npusim.importers.describe import HELPERS
from npusim.importers.products import with_router
from npusim.importers.tensors import Call
from npusim.importers.work import Work

_PRODUCTS = ("gemv", "gemm")
_INDEX = "aten::index"
_INDEXED = 512  # elements of a block of advanced indexing: 128 threads of four
_AMOUNTS = ("flop", "read_weight", "read_kv", "read_activation", "write_kv", "write_activation")


class Made:
    """The works of a trace by number, and those made from them, each once: steps repeat each other.

    Attributes
    ----------
    works : list of Work
        What the numbers stand for; equal ones may have several.
    """

    def __init__(self) -> None:
        self.works: list[Work] = []
        self._numbers: dict[int, int] = {}  # by `id`, which stays its own: works are held here
        self._made: dict[tuple[int, Hashable], int] = {}

    def number(self, work: Work) -> int:
        """Return the number of a work, a new one for a new object."""
        number = self._numbers.setdefault(id(work), len(self.works))
        if number == len(self.works):
            self.works.append(work)
        return number

    def of(self, number: int, how: Hashable, make: Callable[[Work], Work]) -> int:
        """Return what becomes of a work in some way; `how` tells the way apart from others."""
        key = number, how
        if key not in self._made:
            self._made[key] = self.number(make(self.works[number]))
        return self._made[key]

    def rows(self, codes: Codes, *kinds: str) -> list[int]:
        """Return which operations do one of some kinds of work."""
        among = [code for code in used(codes).tolist() if self.works[code].kind in kinds]
        return np.flatnonzero(np.isin(codes, among)).tolist() if among else []


def with_neighbours(
    works: Sequence[Work],
    calls: Sequence[Call | None],
    blocks: Sequence[int],
    instances: Sequence[int],
) -> list[Work]:
    """Return the works of a step as its operations together do them.

    Parameters
    ----------
    works : sequence of Work
        What each operation of a step does, taken alone.
    calls : sequence of Call or None
        The operator that launched each.
    blocks : sequence of int
        Thread blocks of each, 0 if unknown.
    instances : sequence of int
        Tells calls of one operator apart; negative where the call is unknown.
    """
    made, rows = Made(), np.arange(len(works))
    codes = np.array([made.number(work) for work in works], dtype=np.int64)
    found = among_neighbours(made, codes, Coded(calls, rows), Coded(blocks, rows),
                             np.array(instances, dtype=np.int64), np.zeros_like(rows))  # fmt: skip
    return list(Coded(made.works, found))


def among_neighbours(
    made: Made, works: Codes, calls: Coded[Call | None], blocks: Coded[int], instances: Codes,
    step: Codes,
) -> Codes:  # fmt: skip
    """Return the works of some steps, by number, as the operations of each together do them.

    An operator that launches several kernels shares its work among them; a product is split or
    whole as its call sums parts or does not; experts are those that the router chose; a
    concatenation may make the KV cache grow.

    Parameters
    ----------
    made : Made
        The works of the trace; it takes those that are new.
    works, calls, blocks, instances
        As of `with_neighbours`.
    step : array of int, shape (K,)
        The step of each operation, ascending.

    Returns
    -------
    array, shape (K,)
    """
    top = int(instances.max(initial=0)) + 1
    instances = np.where(instances >= 0, step * top + instances, -1)
    works = _reduced(made, _shared(made, works, instances, blocks), instances)
    works = _indexed(made, works, calls, blocks, instances)
    kinds = {made.works[code].kind for code in used(works).tolist()}
    if not {"topk", "grouped_gemm"} <= kinds and not {"attention", "cat"} <= kinds:
        return works
    rows = np.split(np.arange(len(works)), np.flatnonzero(np.diff(step)) + 1)
    return np.concatenate(
        [_in_step(made, works[own], Coded(calls.table, calls.codes[own])) for own in rows]
    )


def _in_step(made: Made, works: Codes, calls: Coded[Call | None]) -> Codes:
    """Return the works of one step as its router and its caches have them."""
    kinds = {made.works[code].kind for code in used(works).tolist()}
    if {"topk", "grouped_gemm"} <= kinds:
        works = _routed(made, works, calls)
    cached = [w for code in used(works).tolist()
              if (w := made.works[code]).kind == "attention" and w.read_kv]  # fmt: skip
    if not cached or "cat" not in kinds:
        return works
    caches = {(w.batch, w.kv_heads, w.k) for w in cached}
    lengths = {w.n for w in cached}
    found = works.copy()
    for row in made.rows(works, "cat"):
        if _grows(calls[row], caches, lengths):
            found[row] = made.of(int(works[row]), "cache", _as_cache)
    return found


def _routed(made: Made, works: Codes, calls: Coded[Call | None]) -> Codes:
    """Return works whose grouped products read the experts that their router chose."""
    found = works.copy()
    router: dict[int, tuple[int, int]] = {}  # experts -> (tokens, experts a token)
    for row in made.rows(works, "topk", "grouped_gemm"):
        work, call = made.works[works[row]], calls[row]
        if work.kind == "topk" and call is not None:
            router[work.n] = (work.m, (call.numbers(1) or [0])[0])
        elif work.kind == "grouped_gemm" and work.groups in router:
            tokens, chosen = router[work.groups]
            found[row] = made.of(int(works[row]), (tokens, chosen),
                                 partial(with_router, tokens=tokens, chosen=chosen))  # fmt: skip
    return found


def _shared(made: Made, works: Codes, instances: Codes, blocks: Coded[int]) -> Codes:
    """Share the work of a call among the kernels that do the same for it, by thread blocks."""
    ordered = np.sort(instances[instances >= 0])
    several = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(several):
        return works
    found = works.copy()
    groups: dict[tuple[int, str], list[int]] = {}
    for row in np.flatnonzero(np.isin(instances, several)).tolist():
        work = made.works[works[row]]
        if work.basis == "shape" and work.kind not in HELPERS:
            groups.setdefault((int(instances[row]), work.kind), []).append(row)
    for members in groups.values():
        total = sum(blocks[i] for i in members)
        for i in members if len(members) > 1 else ():
            share = blocks[i] / total if total else 1 / len(members)
            found[i] = made.of(int(works[i]), share, partial(_part, share=share))
    return found


def _part(work: Work, share: float) -> Work:
    return replace(work, **{name: getattr(work, name) * share for name in _AMOUNTS})


def _reduced(made: Made, works: Codes, instances: Codes) -> Codes:
    """Say of each product whether another kernel of its call sums the parts of its result."""
    products = [code for code in used(works).tolist()
                if (w := made.works[code]).kind in _PRODUCTS and not w.routine]  # fmt: skip
    if not products:
        return works
    known = instances >= 0
    sums = made.rows(works, "splitk_reduce")
    summed = known & np.isin(instances, instances[sums]) if sums else np.zeros_like(known)
    works = _as_routine(made, works, products, "whole", known & ~summed)
    return _as_routine(made, works, products, "split", summed) if sums else works


def _indexed(
    made: Made, works: Codes, calls: Coded[Call | None], blocks: Coded[int], instances: Codes
) -> Codes:
    """Return works of which those of advanced indexing have the size of what is made of them.

    The size of an index is not recorded, and a grid leaves it open by the elements of a block. The
    next operator reads the result: the one tensor of that type and a size that the grid allows.
    """
    found = works.copy()
    for row in made.rows(works, "gather"):
        work, call = made.works[works[row]], calls[row]
        after = row + 1
        if call is None or call.name != _INDEX or work.basis != "launch" or not blocks[row]:
            continue
        while after < len(works) and instances[after] == instances[row]:
            after += 1
        reader = calls[after] if after < len(works) else None
        most = blocks[row] * _INDEXED
        sizes = {
            t.elements
            for t in (reader.tensors if reader else ())
            if t.shape and t.dtype == work.dtype and most - _INDEXED < t.elements <= most
        }
        if len(sizes) == 1:
            size = sizes.pop()
            found[row] = made.of(int(works[row]), ("indexed", size), partial(_of_size, size=size))
    return found


def _of_size(work: Work, size: int) -> Work:
    """Return a gather of so many elements."""
    share = size / (work.m * work.n)
    width = min(work.n, size)
    return replace(_part(work, share), m=max(size // width, 1), n=width)


def _as_routine(
    made: Made, works: Codes, products: Sequence[int], routine: str, rows: NDArray[np.bool_]
) -> Codes:
    """Return works of which the products in some rows are done in one way."""
    become = np.arange(len(made.works))
    for code in products:
        become[code] = made.of(code, routine, partial(replace, routine=routine))
    return np.where(rows, become[works], works)


def _grows(call: Call | None, caches: set[tuple[int, int, int]], lengths: set[int]) -> bool:
    """Return whether a concatenation makes what attention then reads as its cache."""
    tensors = call.tensors if call is not None else ()
    if len(tensors) != 2 or any(len(t.shape) != 4 for t in tensors):
        return False
    batch, heads, _, size = tensors[0].shape
    return (batch, heads, size) in caches and sum(t.shape[2] for t in tensors) in lengths


def _as_cache(work: Work) -> Work:
    return replace(
        work,
        read_kv=work.read_activation,
        write_kv=work.write_activation,
        read_activation=0.0,
        write_activation=0.0,
    )
