"""What an operation does that only its neighbours in the step tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from npusim.importers.describe import HELPERS
from npusim.importers.products import with_router
from npusim.importers.tensors import Call
from npusim.importers.work import Work

_PRODUCTS = ("gemv", "gemm")
_AMOUNTS = ("flop", "read_weight", "read_kv", "read_activation", "write_kv", "write_activation")


def with_neighbours(
    works: Sequence[Work],
    calls: Sequence[Call | None],
    blocks: Sequence[int],
    instances: Sequence[int],
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
    """
    works = _reduced(_shared(works, instances, blocks), instances)
    kinds = {work.kind for work in works}
    routed = _routed(works, calls) if {"topk", "grouped_gemm"} <= kinds else works
    cached = [w for w in routed if w.kind == "attention" and w.read_kv]
    if not cached or "cat" not in kinds:
        return list(routed)
    caches = {(w.batch, w.kv_heads, w.k) for w in cached}
    lengths = {w.n for w in cached}
    return [
        _as_cache(w) if _grows(w, call, caches, lengths) else w
        for w, call in zip(routed, calls, strict=True)
    ]


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


def _shared(works: Sequence[Work], instances: Sequence[int], blocks: Sequence[int]) -> list[Work]:
    """Share the work of a call among the kernels that do the same for it, by thread blocks."""
    groups: dict[tuple[int, str], list[int]] = {}
    several = {call for call, count in Counter(instances).items() if count > 1 and call >= 0}
    for i, (work, call) in enumerate(zip(works, instances, strict=True)):
        if call in several and work.basis == "shape" and work.kind not in HELPERS:
            groups.setdefault((call, work.kind), []).append(i)
    found = list(works)
    made: dict[tuple[int, float], Work] = {}  # most calls share as others do
    for members in groups.values():
        total = sum(blocks[i] for i in members)
        for i in members if len(members) > 1 else ():
            share = blocks[i] / total if total else 1 / len(members)
            key = (id(works[i]), share)
            if key not in made:
                amounts = {name: getattr(works[i], name) * share for name in _AMOUNTS}
                made[key] = replace(works[i], **amounts)
            found[i] = made[key]
    return found


def _reduced(works: Sequence[Work], instances: Sequence[int]) -> list[Work]:
    """Say of each product whether another kernel of its call sums the parts of its result."""
    summed = {c for w, c in zip(works, instances, strict=True) if w.kind == "splitk_reduce"}
    made: dict[tuple[int, bool], Work] = {}  # most products are as others are
    found = []
    for work, call in zip(works, instances, strict=True):
        if work.kind in _PRODUCTS and not work.routine and call >= 0:
            key = id(work), call in summed
            if key not in made:
                made[key] = replace(work, routine="split" if key[1] else "whole")
            found.append(made[key])
        else:
            found.append(work)
    return found


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
