"""Two halves of a step that take turns, so that collectives of one run while the other computes.

Each half is a list of operators that ends in collectives here and there. Up to a collective one
half computes, then the other; collectives are a stream of their own:

    stream 0   A1 B1 A2 B2 ...
    stream 1      a1 b1 a2 ...      A2 waits for a1, a1 for A1

A kernel waits for the one before it on its stream and for the one before it in its half. The
halves read the weights one after the other: that is what overlap costs.

Source: DeepSeek-V3, arXiv:2412.19437, sections 3.2.1 and 3.4 (two micro-batches whose attention
and experts run beside the all_to_all of the other); SGLang's two-batch overlap.

Left out: kernels that run side by side share memories and compute units, which slows both down;
units that collectives take for themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from npusim.templates.operators import COLLECTIVES, Operator
from npusim.workload import stream_order

Int = NDArray[np.int64]


def interleaved(parts: Sequence[Sequence[Operator]]) -> Iterator[Operator]:
    """Yield the operators of several parts in turns, changing behind each collective.

    Examples
    --------
    >>> from npusim.templates.operators import operator
    >>> sum_ = operator("all_reduce", rows=1, width=8, chips=2)
    >>> one = [operator("head", rows=1, inner=8, width=8), sum_]
    >>> [(o.name, o.half) for o in interleaved([one, one])]
    [('head', 1), ('all_reduce', 1), ('head', 2), ('all_reduce', 2)]
    """
    for turn in zip_longest(*(_segments(part) for part in parts), fillvalue=[]):
        for half, segment in enumerate(turn, 1):
            for each in segment:
                yield replace(each, half=half)


def _segments(operators: Sequence[Operator]) -> list[list[Operator]]:
    """Return operators cut behind each collective."""
    segments: list[list[Operator]] = [[]]
    for each in operators:
        segments[-1].append(each)
        if each.name in COLLECTIVES:
            segments.append([])
    return segments


def lanes(half: Int, collective: NDArray[np.bool_], step: Int) -> tuple[Int, tuple[Int, Int]]:
    """Return the stream of each kernel and what it waits for, in CSR form.

    Parameters
    ----------
    half : array, shape (K,)
        Which part each kernel works on, 0 for all.
    collective : array, shape (K,)
    step : array, shape (K,)

    Examples
    --------
    >>> half, step = np.array([1, 1, 2, 2, 1]), np.zeros(5, dtype=np.int64)
    >>> collective = np.array([False, True, False, True, False])
    >>> stream, (indptr, indices) = lanes(half, collective, step)
    >>> stream.tolist(), indptr.tolist(), indices.tolist()
    ([0, 1, 0, 1, 0], [0, 0, 1, 2, 4, 6], [0, 0, 1, 2, 1, 2])
    """
    stream = (collective & (half > 0)).astype(np.int64)
    pairs = [_pairs(*stream_order(by, step)) for by in (stream, half)]
    found = np.unique(np.concatenate(pairs), axis=0)
    counts = np.bincount(found[:, 0], minlength=len(half))
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return stream, (indptr, found[:, 1])


def _pairs(indptr: Int, indices: Int) -> Int:
    """Return each kernel with what it waits for, shape (N, 2)."""
    later = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    return np.column_stack([later, indices])
