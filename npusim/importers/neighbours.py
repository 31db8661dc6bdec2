"""What an operation does that only its neighbours in the step tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from npusim.importers.describe import HELPERS
from npusim.importers.products import with_router
from npusim.importers.tensors import Call
from npusim.importers.work import Work

_PRODUCTS = ("gemv", "gemm")
_AMOUNTS = ("flop", "read_weight", "read_kv", "read_activation", "write_kv", "write_activation")


class Made:
    """Works made from others, each once: steps repeat each other, and equal ones stay one object.

    Every work is held with what was made of it, so that its `id` stays its own.
    """

    def __init__(self) -> None:
        self._shares: dict[tuple[int, float], tuple[Work, Work]] = {}
        self._products: dict[tuple[int, bool], tuple[Work, Work]] = {}

    def share(self, work: Work, share: float) -> Work:
        """Return a part of a work."""
        key = id(work), share
        if key not in self._shares:
            amounts = {name: getattr(work, name) * share for name in _AMOUNTS}
            self._shares[key] = work, replace(work, **amounts)
        return self._shares[key][1]

    def product(self, work: Work, split: bool) -> Work:
        """Return a product that is split or whole."""
        key = id(work), split
        if key not in self._products:
            self._products[key] = work, replace(work, routine="split" if split else "whole")
        return self._products[key][1]


def with_neighbours(
    works: Sequence[Work],
    calls: Sequence[Call | None],
    blocks: Sequence[int],
    instances: Sequence[int],
    made: Made | None = None,
) -> list[Work]:
    """Return the works of a step as its operations together do them.

    An operator that launches several kernels shares its work among them; a product is split or
    whole as its call sums parts or does not; experts are those that the router chose; a
    concatenation may make the KV cache grow.

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
    made : Made, optional
        What was made for other steps of the trace.
    """
    made = made if made is not None else Made()
    works = _reduced(_shared(works, instances, blocks, made), instances, made)
    distinct = _distinct(works)
    kinds = {work.kind for work in distinct}
    cached = [w for w in distinct if w.kind == "attention" and w.read_kv]
    if {"topk", "grouped_gemm"} <= kinds:
        works = _routed(works, calls)
    if not cached or "cat" not in kinds:
        return works
    caches = {(w.batch, w.kv_heads, w.k) for w in cached}
    lengths = {w.n for w in cached}
    return [
        _as_cache(w) if _grows(w, call, caches, lengths) else w
        for w, call in zip(works, calls, strict=True)
    ]


def _distinct(works: Iterable[Work]) -> Iterable[Work]:
    """Return each object once; a step has few, and asks much of each."""
    return {id(work): work for work in works}.values()


def _routed(works: Sequence[Work], calls: Sequence[Call | None]) -> list[Work]:
    """Return works whose grouped products read the experts that their router chose."""
    routed: list[Work] = []
    router: dict[int, tuple[int, int]] = {}  # experts -> (tokens, experts a token)
    for work, call in zip(works, calls, strict=True):
        if work.kind == "topk" and call is not None:
            router[work.n] = (work.m, (call.numbers(1) or [0])[0])
        known = work.kind == "grouped_gemm" and work.groups in router
        routed.append(with_router(work, *router[work.groups]) if known else work)
    return routed


def _shared(
    works: Sequence[Work], instances: Sequence[int], blocks: Sequence[int], made: Made
) -> list[Work]:
    """Share the work of a call among the kernels that do the same for it, by thread blocks."""
    found = list(works)
    several = {call for call, count in Counter(instances).items() if count > 1 and call >= 0}
    if not several:
        return found
    groups: dict[tuple[int, str], list[int]] = {}
    for i, (work, call) in enumerate(zip(works, instances, strict=True)):
        if call in several and work.basis == "shape" and work.kind not in HELPERS:
            groups.setdefault((call, work.kind), []).append(i)
    for members in groups.values():
        total = sum(blocks[i] for i in members)
        for i in members if len(members) > 1 else ():
            found[i] = made.share(works[i], blocks[i] / total if total else 1 / len(members))
    return found


def _reduced(works: Sequence[Work], instances: Sequence[int], made: Made) -> list[Work]:
    """Say of each product whether another kernel of its call sums the parts of its result."""
    distinct = _distinct(works)
    sums = {id(w) for w in distinct if w.kind == "splitk_reduce"}
    summed = {c for w, c in zip(works, instances, strict=True) if id(w) in sums} if sums else ()
    products = [w for w in distinct if w.kind in _PRODUCTS and not w.routine]
    whole = {id(w): made.product(w, split=False) for w in products}
    split = {id(w): made.product(w, split=True) for w in products} if sums else {}
    return [
        (split if c in summed else whole).get(id(w), w) if c >= 0 else w
        for w, c in zip(works, instances, strict=True)
    ]


def _grows(
    work: Work, call: Call | None, caches: set[tuple[int, int, int]], lengths: set[int]
) -> bool:
    """Return whether a concatenation makes what attention then reads as its cache."""
    tensors = call.tensors if call is not None and work.kind == "cat" else ()
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
