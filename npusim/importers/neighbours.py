"""What an operation does that only its neighbours in the step tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from npusim.importers.products import with_router
from npusim.importers.tensors import Call
from npusim.importers.work import Work


def with_neighbours(works: Sequence[Work], calls: Sequence[Call | None]) -> list[Work]:
    """Return the works of a step: experts as its router chose them, the KV cache as it grows.

    Parameters
    ----------
    works : sequence of Work
        What each operation of a step does, taken alone.
    calls : sequence of Call or None
        The operator that launched each.
    """
    routed: list[Work] = []
    router: dict[int, tuple[int, int]] = {}  # experts -> (tokens, experts a token)
    for work, call in zip(works, calls, strict=True):
        if work.kind == "topk" and call is not None:
            router[work.n] = (work.m, (call.numbers(1) or [0])[0])
        known = work.kind == "grouped_gemm" and work.groups in router
        routed.append(with_router(work, *router[work.groups]) if known else work)
    cached = [w for w in routed if w.kind == "attention" and w.read_kv]
    caches = {(w.batch, w.kv_heads, w.k) for w in cached}
    lengths = {w.n for w in cached}
    return [
        _as_cache(w) if _grows(w, call, caches, lengths) else w
        for w, call in zip(routed, calls, strict=True)
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
