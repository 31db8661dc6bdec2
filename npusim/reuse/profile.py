"""The reuse profile of a workload: for all that it reads and writes, the window since its last use.

It is found once. How much of the data a cache holds is then a look-up: the share of it whose
windows fit, for any capacity, with data of a class taken out of the windows where a memory of its
own holds them.

What is written is sent to DRAM if it is evicted before it is written again: the window of a write
is the largest one of any use of that memory since the write before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npusim.reuse.experts import last_used
from npusim.reuse.stream import CLASSES, DATA, Stream, stream
from npusim.reuse.windows import windows

Array = NDArray[np.float64]
Index = NDArray[np.intp]

_KEPT = ("weight", "kv")  # classes that stay from step to step
_FINE, _COARSE = 0.03, 1.4  # logarithms by which windows are told apart, of much data and little
_SMALL = 2.0**16  # what counts as little [B]


@dataclass(frozen=True)
class Reuse:
    """Windows of all that U operations read and write.

    Attributes
    ----------
    windows : array, shape (N, 3)
        Distinct windows: bytes of each class of `CLASSES` touched since the use before, the data
        itself included [B]; ``inf`` where there was none.
    kept : array, shape (N, 2)
        For each window, the bytes of weights and of KV cache that its workload keeps from step to
        step [B]: what a memory of their own would have to hold.
    share : mapping of str to array, shape (U, P)
        For each column of `DATA`, the parts that its bytes come in; they sum to one.
    window : mapping of str to array of int, shape (U, P)
        Index of the window of each part.
    weights : array, shape (W,)
        Sizes of the weights of a step, ascending [B]; empty for operations that run alone.
    """

    windows: Array
    kept: Array
    share: Mapping[str, Array]
    window: Mapping[str, Index]
    weights: Array = field(default_factory=lambda: np.zeros(0))

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Reuse:
        """Return that of some of the operations."""
        share = {name: part[rows] for name, part in self.share.items()}
        window = {name: part[rows] for name, part in self.window.items()}
        return replace(self, share=share, window=window)

    def used(self, *data: str) -> Index:
        """Return which windows the operations have, of some columns or of all."""
        chosen = [self.window[name][self.share[name] > 0] for name in data or DATA]
        return np.unique(np.concatenate(chosen))

    def is_new(self, data: str) -> NDArray[np.bool_]:
        """Return which operations have data of a column that nothing used before, shape (U,)."""
        never = np.flatnonzero(np.isinf(self.windows.sum(axis=1)))
        new = np.isin(self.window[data], never) & (self.share[data] > 0)
        result: NDArray[np.bool_] = np.any(new, axis=1)
        return result

    def signature(self) -> Array:
        """Return numbers in which operations agree whose windows agree, shape (U, Q)."""
        return np.hstack([part[name] for part in (self.share, self.window) for name in DATA])


def alone(weight: ArrayLike, kv: ArrayLike, activation: ArrayLike) -> Reuse:
    """Return the reuse of operations that each run alone, over and over.

    Parameters
    ----------
    weight, kv, activation : array-like, shape (U,)
        Bytes between two uses of the data of each class, all of that class, itself included [B];
        ``inf`` for data that is never used again.

    Examples
    --------
    >>> one = alone([3e6], [np.inf], [4096.0])
    >>> one.windows[one.window["read_weight"][0, 0]].tolist()
    [3000000.0, 0.0, 0.0]
    """
    distance = np.array([weight, kv, activation], dtype=np.float64)
    count = distance.shape[1]
    table = np.zeros((3, count, 3))
    for i in range(3):
        table[i, :, i] = distance[i]
    kept = np.broadcast_to(distance[:2].T, (3, count, 2))
    at = {name: np.arange(count)[:, None] + count * CLASSES.index(what)
          for name, (what, _) in DATA.items()}  # fmt: skip
    whole = np.ones((count, 1))
    return Reuse(table.reshape(-1, 3), kept.reshape(-1, 2), dict.fromkeys(DATA, whole), at)


@dataclass(frozen=True)
class Experts:
    """Which operations read experts that a router chooses, for K operations.

    Attributes
    ----------
    used : array, shape (K,)
        Experts that it reads of one layer in a step; 0 for all other operations.
    popularity : mapping of int to array, shape (E,)
        Popularity of experts by operation, for those with experts.
    """

    used: Array
    popularity: Mapping[int, Array]


def periodic(
    kind: Sequence[str], moved: Mapping[str, Array], step: NDArray[np.int64],
    experts: Experts | None = None,
) -> Reuse:  # fmt: skip
    """Return the reuse of a workload each of whose steps repeats itself.

    Parameters
    ----------
    kind : sequence of str, length K
        Kind of each operation.
    moved : mapping of str to array, shape (K,)
        Bytes of each column of `DATA` [B].
    step : array of int, shape (K,)
        The step of each, ascending.
    experts : Experts, optional
        Without it each operation reads the same weights in each step.

    Returns
    -------
    Reuse
        Of K operations. Windows of nearly the same size are one, see `_alike`.

    Examples
    --------
    Two layers of 1 and 2 MB: between two uses of a weight lie both.

    >>> moved = {name: np.zeros(2) for name in DATA}
    >>> moved["read_weight"] = np.array([1e6, 2e6])
    >>> r = periodic(["gemv", "gemv"], moved, np.zeros(2, dtype=np.int64))
    >>> r.windows[r.window["read_weight"][:, 0]].sum(axis=1).tolist()
    [3000000.0, 3000000.0]
    """
    found = _Parts(len(kind))
    known: dict[bytes, slice] = {}
    ends = np.flatnonzero(np.diff(step, append=step[-1] + 1)) + 1
    for start, stop in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        rows = slice(start, stop)
        kinds, part = kind[rows], {name: np.asarray(moved[name][rows]) for name in DATA}
        name = "\0".join(kinds).encode() + b"".join(part[c].tobytes() for c in DATA)
        if name in known:
            found.copy(known[name], rows)
        else:
            known[name] = rows
            found.step(kinds, part, start)
    if experts is not None and experts.popularity:
        return _routed(found.done(), np.asarray(moved["read_weight"]), step, experts)
    return found.done()


def _routed(reuse: Reuse, weights: Array, step: NDArray[np.int64], experts: Experts) -> Reuse:
    """Return reuse in which a router chooses experts anew in each step.

    Between two uses of an expert lie, beside all that a step touches anyway, the experts of all
    layers that are touched up to then.
    """
    steps = len(np.unique(step))
    rows = np.array(sorted(experts.popularity))
    each = weights[rows] / experts.used[rows]  # of one expert of its layer
    dense = reuse.windows[reuse.window["read_weight"][rows[0], 0]].copy()
    dense[0] -= weights[rows].sum() / steps
    mixtures = [last_used(experts.popularity[row], experts.used[row]) for row in rows.tolist()]
    parts = np.array([share for share, _ in mixtures])
    touched = np.array([count for _, count in mixtures])
    between = (each[:, None] * touched).sum(axis=0) / steps
    size = len(reuse.windows)
    windows = np.vstack([reuse.windows, dense + between[:, None] * [1.0, 0.0, 0.0]])
    every = sum(
        e * len(experts.popularity[row]) for e, row in zip(each, rows.tolist(), strict=True)
    )
    kept = np.empty((len(windows), len(_KEPT)))
    kept[:] = reuse.kept[0] + [every / steps - weights[rows].sum() / steps, 0.0]
    share = np.zeros((len(weights), max(parts.shape[1], reuse.share["read_weight"].shape[1])))
    index = np.zeros(share.shape, dtype=np.intp)
    before = reuse.share["read_weight"].shape[1]
    share[:, :before], index[:, :before] = reuse.share["read_weight"], reuse.window["read_weight"]
    share[rows], index[rows] = 0.0, 0
    share[rows[:, None], np.arange(parts.shape[1])] = parts
    index[rows[:, None], np.arange(parts.shape[1])] = size + np.arange(parts.shape[1])
    return Reuse(windows, kept, {**reuse.share, "read_weight": share},
                 {**reuse.window, "read_weight": index}, reuse.weights)  # fmt: skip


class _Parts:
    """Parts of what K operations move, gathered step by step."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._operation: list[Index] = []
        self._data: list[Index] = []
        self._moved: list[Array] = []
        self._window: list[Array] = []
        self._copies: list[tuple[slice, slice]] = []
        self._kept: list[Array] = []
        self._weights = np.zeros(0)

    def step(self, kind: Sequence[str], moved: Mapping[str, Array], start: int) -> None:
        """Add a step that begins with an operation."""
        rounds = 3 if np.any(moved["write_kv"] > 0) else 2  # a growing cache takes one to settle
        accesses = stream(kind, moved, rounds)
        last = slice(len(accesses) // rounds * (rounds - 1), None)
        size = np.zeros((len(accesses), len(CLASSES)))
        size[np.arange(len(accesses)), accesses.kind] = accesses.size
        window = _until_written(accesses, windows(accesses.block, size))
        self._operation.append(accesses.operation[last] + start)
        self._data.append(accesses.data[last])
        self._moved.append(accesses.moved[last])
        self._window.append(window[last])
        size_of = _sizes(accesses, last)
        self._kept.append(np.array([size_of[name].sum() for name in _KEPT]))
        self._weights = np.sort(size_of["weight"])

    def copy(self, known: slice, rows: slice) -> None:
        """Give some operations what others have."""
        self._copies.append((known, rows))

    def done(self) -> Reuse:
        operation, data = np.concatenate(self._operation), np.concatenate(self._data)
        moved, window = np.concatenate(self._moved), np.concatenate(self._window)
        table, at = _alike(window, moved)
        kept = np.broadcast_to(np.max(self._kept, axis=0), (len(table), len(_KEPT)))
        share, index = {}, {}
        for number, name in enumerate(DATA):
            rows = np.flatnonzero(data == number)
            share[name], index[name] = self._column(operation[rows], at[rows], moved[rows])
        return Reuse(table, kept, share, index, self._weights)

    def _column(self, operation: Index, window: Index, moved: Array) -> tuple[Array, Index]:
        """Return shares and windows of the parts of a column, each (K, P)."""
        order = np.argsort(operation, kind="stable")
        operation, window, moved = operation[order], window[order], moved[order]
        counts = np.bincount(operation, minlength=self._count)
        place = np.arange(len(operation)) - np.repeat(np.cumsum(counts) - counts, counts)
        share = np.zeros((self._count, max(int(counts.max(initial=0)), 1)))
        index = np.zeros(share.shape, dtype=np.intp)
        share[operation, place] = moved
        index[operation, place] = window
        for known, rows in self._copies:
            share[rows], index[rows] = share[known], index[known]
        total = share.sum(axis=1, keepdims=True)
        return np.divide(share, total, out=share, where=total > 0), index


def _until_written(accesses: Stream, window: Array) -> Array:
    """Return windows in which a write has the largest one since the write before it."""
    if not len(accesses):
        return window
    writes = np.array([w for _, w in DATA.values()])[accesses.data]
    order = np.argsort(accesses.block, kind="stable")
    distance = window.sum(axis=1)[order]
    before = np.cumsum(writes[order]) - writes[order]  # writes so far, of any block
    opens = np.append(True, (np.diff(accesses.block[order]) != 0) | (np.diff(before) != 0))
    starts = np.flatnonzero(opens)
    largest = np.maximum.reduceat(distance, starts)
    group = np.cumsum(opens) - 1
    is_largest = distance == largest[group]
    first = np.full(len(starts), len(order))
    np.minimum.at(first, group[is_largest], np.flatnonzero(is_largest))
    result = window.copy()
    at = np.flatnonzero(writes[order])
    result[order[at]] = window[order[first[group[at]]]]
    return result


def _sizes(accesses: Stream, last: slice) -> dict[str, Array]:
    """Return the sizes of the blocks that a step touches, each once, by class [B]."""
    _, at = np.unique(accesses.block[last], return_index=True)
    kind, size = accesses.kind[last][at], accesses.size[last][at]
    return {name: size[kind == i] for i, name in enumerate(CLASSES)}


def _alike(window: Array, moved: Array) -> tuple[Array, Index]:
    """Return windows, those that differ little as one, and which each is.

    One stands for all within 3 % (a factor of four for data so small that its place hardly
    matters) by its mean over the bytes.
    """
    total = window.sum(axis=1)
    known = np.isfinite(total)
    fine = np.where(moved < _SMALL, _COARSE, _FINE)
    level = np.round(np.log(np.where(known, np.maximum(total, _SMALL), 1.0)) / fine)
    key = np.column_stack([np.where(known, level, -1.0), fine])
    _, first, which = np.unique(key, axis=0, return_index=True, return_inverse=True)
    which = which.reshape(-1)
    weight = np.maximum(moved, 1.0)
    sums = np.zeros((len(first), window.shape[1]))
    np.add.at(sums, which, np.where(known[:, None], window, 0.0) * weight[:, None])
    mean = sums / np.bincount(which, weight)[:, None]
    return np.where(known[first][:, None], mean, np.inf), which
