"""Which operations touch the same data: the accesses of a step, from sizes and order alone.

Traces have no addresses. What is known is how many bytes of which class every operation reads and
writes, and in which order; identity follows from that:

- the weights of an operation are its own, and the same in the next step;
- an attention reads the keys and values that were written since the last one, if these are as
  many bytes as it reads; else a cache of its own that stays from step to step;
- another operation that reads a KV cache (the concatenation of a growing one) reads what the
  operation in its place wrote in the step before;
- activations are matched by size with the latest results: one of just that size, two that make it
  up, the larger part of it (the rest is broadcast), a larger one of which it is a part. What
  matches nothing is a constant of that operation.

Results are put where a framework's allocator would put them: into the memory of the latest result
of the same size that nobody reads any more.

Left out: two weights that are one (tied embeddings), slices of weights, results that are read
again in a later step, frees that wait for another stream.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = ("weight", "kv", "activation")
# Columns of a workload that say what is read and written: the class of each, and whether it writes.
DATA: Mapping[str, tuple[str, bool]] = {
    "read_weight": ("weight", False),
    "read_kv": ("kv", False),
    "read_activation": ("activation", False),
    "write_kv": ("kv", True),
    "write_activation": ("activation", True),
}

_REACH = 64  # results looked back at for what an activation may be
_ROUND = 512.0  # sizes that an allocator tells apart [B]
_SAME = 0.005  # of a size: padding and indices that the columns count


@dataclass(frozen=True)
class Stream:
    """Accesses of a workload in order, A of them.

    Attributes
    ----------
    block : array of int, shape (A,)
        Which memory is touched.
    size : array, shape (A,)
        Bytes of that memory [B].
    kind : array of int, shape (A,)
        Class of what it holds, an index into `CLASSES`.
    operation, data : array of int, shape (A,)
        Which operation touches it, and as which column of `DATA`.
    moved : array, shape (A,)
        Bytes that the operation moves there [B].
    """

    block: NDArray[np.int64]
    size: NDArray[np.float64]
    kind: NDArray[np.int64]
    operation: NDArray[np.int64]
    data: NDArray[np.int64]
    moved: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.block)


@dataclass
class _Tensor:
    """Something that an operation wrote: its size, and the last operation that reads it."""

    size: float
    last: int
    kind: int
    block: int = -1

    @property
    def room(self) -> float:
        """Bytes of the memory that holds it [B]."""
        return -(-self.size // _ROUND) * _ROUND


@dataclass
class _Step:
    """What the operations of one step read and write, by tensor; constants are (name, size)."""

    reads: list[list[tuple[int, Any, float]]] = field(default_factory=list)
    writes: list[list[tuple[int, _Tensor]]] = field(default_factory=list)


def stream(kind: Sequence[str], moved: Mapping[str, NDArray[np.float64]], rounds: int) -> Stream:
    """Return the accesses of a step that is run some times over.

    Parameters
    ----------
    kind : sequence of str, length K
        Kind of each operation.
    moved : mapping of str to array, shape (K,)
        Bytes of each column of `DATA` [B].
    rounds : int
        How often the step runs.

    Examples
    --------
    A layer that is followed by an activation, twice: in each step the weight is read, the result
    written, read, and the next one put into other memory.

    >>> moved = {name: np.zeros(2) for name in DATA}
    >>> moved["read_weight"][0], moved["write_activation"][:] = 1000.0, 512.0
    >>> moved["read_activation"][1] = 512.0
    >>> stream(["gemv", "activation"], moved, 2).block.tolist()
    [0, 1, 1, 2, 0, 2, 2, 1]
    """
    step = _tensors(kind, moved)
    columns = list(zip(*_placed(step, rounds), strict=True)) or [()] * 6
    block, size, what, operation, data, moves = columns
    return Stream(
        np.array(block, dtype=np.int64), np.array(size, dtype=np.float64),
        np.array(what, dtype=np.int64), np.array(operation, dtype=np.int64),
        np.array(data, dtype=np.int64), np.array(moves, dtype=np.float64),
    )  # fmt: skip


def _tensors(kind: Sequence[str], moved: Mapping[str, NDArray[np.float64]]) -> _Step:
    """Return what every operation reads and writes."""
    found, recent, fresh = _Step(), _Recent(), list[_Tensor]()
    columns = {name: np.asarray(moved[name], dtype=np.float64).tolist() for name in DATA}
    for i, what in enumerate(kind):
        reads: list[tuple[int, Any, float]] = []
        if columns["read_weight"][i] > 0:
            reads.append((0, ("weight", i), columns["read_weight"][i]))
        if columns["read_kv"][i] > 0:
            reads += _cached(i, what, columns["read_kv"][i], columns["write_kv"][i], fresh)
        if columns["read_activation"][i] > 0:
            reads += recent.matched(i, columns["read_activation"][i])
        writes = []
        if columns["write_kv"][i] > 0:
            tensor = _Tensor(columns["write_kv"][i], i, 1)
            fresh.append(tensor)
            writes.append((3, tensor))
        if columns["write_activation"][i] > 0:
            tensor = _Tensor(columns["write_activation"][i], i, 2)
            recent.add(tensor)
            writes.append((4, tensor))
        found.reads.append(reads)
        found.writes.append(writes)
    return found


def _cached(
    i: int, kind: str, size: float, written: float, fresh: list[_Tensor]
) -> list[tuple[int, Any, float]]:
    """Return what is read of a KV cache: what was just written, or what stays."""
    if kind != "attention":
        # of the step before: what this operation wrote then, if it writes one anew
        name = ("grown", i) if written >= size * (1 - _SAME) else ("kv", i)
        return [(1, name, size)]
    taken, total = [], 0.0
    for tensor in reversed(fresh):
        if total >= size * (1 - _SAME):
            break
        taken.append(tensor)
        total += tensor.size
    fresh.clear()
    if not taken or abs(total - size) > _SAME * size:
        return [(1, ("kv", i), size)]
    for tensor in taken:
        tensor.last = i
    return [(1, tensor, tensor.size * size / total) for tensor in taken]


class _Recent:
    """The latest results, in which reads of activations are looked up by size."""

    def __init__(self) -> None:
        self._latest: list[_Tensor] = []

    def add(self, tensor: _Tensor) -> None:
        """Put a result on top."""
        self._latest.append(tensor)
        if len(self._latest) > 2 * _REACH:
            del self._latest[:_REACH]

    def matched(self, i: int, size: float) -> list[tuple[int, Any, float]]:
        """Return the results that operation `i` reads, with the bytes of each."""
        latest = self._latest[: -_REACH - 1 : -1]
        parts = self._whole(latest, size) or self._pair(latest, size) or self._part(latest, size)
        for tensor, _ in parts:
            tensor.last = i
        rest = size - sum(moved for _, moved in parts)
        found: list[tuple[int, Any, float]] = [(2, tensor, moved) for tensor, moved in parts]
        if rest > _SAME * size:
            found.append((2, ("constant", i), rest))
        return found

    @staticmethod
    def _whole(latest: list[_Tensor], size: float) -> list[tuple[_Tensor, float]]:
        for tensor in latest:
            if abs(tensor.size - size) <= _SAME * size:
                return [(tensor, size)]
        return []

    @staticmethod
    def _pair(latest: list[_Tensor], size: float) -> list[tuple[_Tensor, float]]:
        seen: dict[float, _Tensor] = {}
        for tensor in latest:
            other = seen.get(size - tensor.size)
            if other is not None:
                return [(other, other.size), (tensor, tensor.size)]
            seen.setdefault(tensor.size, tensor)
        for tensor in latest:  # two of one size, with little beside them: a mask, a query
            other = seen[tensor.size]
            if other is not tensor and 0 <= size - 2 * tensor.size <= _SAME * size:
                return [(other, other.size), (tensor, tensor.size)]
        return []

    @staticmethod
    def _part(latest: list[_Tensor], size: float) -> list[tuple[_Tensor, float]]:
        for tensor in latest:
            if size / 2 <= tensor.size < size:
                return [(tensor, tensor.size)]
        for tensor in latest:
            if tensor.size > size:
                return [(tensor, size)]
        return []


def _placed(step: _Step, rounds: int) -> Iterator[tuple[int, float, int, int, int, float]]:
    """Yield the accesses: (block, its size, class, operation, column, bytes moved)."""
    number = count()
    constants: dict[Any, tuple[int, float]] = {}
    free: dict[float, list[int]] = defaultdict(list)
    grown: dict[int, _Tensor] = {}
    for _ in range(rounds):
        ends: dict[int, list[_Tensor]] = defaultdict(list)
        for i, (reads, writes) in enumerate(zip(step.reads, step.writes, strict=True)):
            before = grown.get(i)
            for data, what, moved in reads:
                if isinstance(what, _Tensor):
                    yield what.block, what.room, data, i, data, moved
                elif what[0] == "grown" and before is not None:
                    yield before.block, before.room, data, i, data, moved
                else:
                    block, size = constants.setdefault(what, (next(number), moved))
                    yield block, size, data, i, data, moved
            for data, tensor in writes:
                room = free[tensor.room]
                tensor.block = room.pop() if room else next(number)
                yield tensor.block, tensor.room, tensor.kind, i, data, tensor.size
                if tensor.kind == 1:
                    grown[i] = replace(tensor)
                else:
                    ends[tensor.last].append(tensor)
            if before is not None:
                free[before.room].append(before.block)
            for tensor in ends.pop(i, ()):
                free[tensor.room].append(tensor.block)
