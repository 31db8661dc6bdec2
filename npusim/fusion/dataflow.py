"""Which operation's result each operation reads, as far as sizes tell.

Traces hold no addresses. An operation of one stream is taken to read results of those before it
whose sizes add up to the activations that it reads: first what nobody has read yet, the latest
first, alone or two together; then, the latest first, what has been read before or half of a result
(slices); then all that fits, latest first. What is left comes from elsewhere (constants, inputs of
the step, weights counted as activations).

Left out: other parts of a result than halves, results of several tensors, what an operation writes
in place; of two results of one size the later one is taken.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from weakref import WeakKeyDictionary

import numpy as np

from npusim.workload import Workload

_SCALARS = (0.0, 4.0, 8.0, 2.0, 12.0, 16.0)  # bytes of numbers that come with a call
_SIZES = 48  # of results that may be one of a pair
_PRODUCTS = ("gemv", "gemm", "grouped_gemm", "conv")
_LATEST = 256  # results that may be one of many

_Parts = tuple[tuple[float, float], ...]  # size of a result, and bytes of it that are read


@dataclass(frozen=True)
class Dataflow:
    """Edges between the operations of a workload.

    Attributes
    ----------
    reads : tuple of dict of int to float, length K
        For each operation whose results it reads, and their bytes [B].
    readers : tuple of tuple of int, length K
        For each operation which ones read its result, in order.
    """

    reads: tuple[dict[int, float], ...]
    readers: tuple[tuple[int, ...], ...]


def dataflow(w: Workload) -> Dataflow:
    """Return who reads what of whom, within each step and stream.

    Examples
    --------
    The sum of two vectors is cast, squared and averaged; the average is read as one number:

    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> norm = [i for i, o in enumerate(w.text("operator")) if o == "aten::mean"][1]
    >>> flow = dataflow(w)
    >>> [w.text("operator")[i] for i in (*flow.reads[norm], *flow.readers[norm])]
    ['aten::pow', 'aten::add']
    """
    if w not in _KNOWN:
        _KNOWN[w] = _dataflow(w)
    return _KNOWN[w]


# As long as somebody holds the workload.
_KNOWN: WeakKeyDictionary[Workload, Dataflow] = WeakKeyDictionary()


def _dataflow(w: Workload) -> Dataflow:
    reads: list[dict[int, float]] = [{} for _ in range(len(w))]
    readers: list[list[int]] = [[] for _ in range(len(w))]
    wanted, made = w["read_activation"].tolist(), w["write_activation"].tolist()
    least = np.where(w.mask("kind", "cat"), 2, 1).tolist()
    most = np.where(w.mask("kind", *_PRODUCTS) & (w["read_weight"] > 0), 1, 2).tolist()
    where = np.unique(np.stack([w["step"], w["stream"]]), axis=1, return_inverse=True)[1]
    for lane in range(int(where.max()) + 1 if len(w) else 0):
        results = _Results()
        for i in np.flatnonzero(where.reshape(-1) == lane).tolist():
            if wanted[i] > 0:
                reads[i] = results.taken(wanted[i], least[i], most[i])
                for j in reads[i]:
                    readers[j].append(i)
            if made[i] > 0:
                results.add(i, made[i])
    return Dataflow(tuple(reads), tuple(map(tuple, readers)))


class _Results:
    """Results so far of one stream, by size: those that somebody has read, and the others."""

    def __init__(self) -> None:
        self._unread: dict[float, list[int]] = defaultdict(list)
        self._read: dict[float, list[int]] = defaultdict(list)
        self._order: dict[float, None] = {}  # sizes that wait to be read, the latest last

    def add(self, i: int, size: float) -> None:
        """Put in a result."""
        self._unread[size].append(i)
        self._order.pop(size, None)
        self._order[size] = None

    def taken(self, wanted: float, least: int, most: int) -> dict[int, float]:
        """Return which results, one or two, are read by who wants so many bytes, and mark them."""
        found: dict[int, float] = {}
        for size, part in self._one_or_two(wanted, least, most) or self._many(wanted):
            found[self._take(size, part, found)] = part
        return found

    def _one_or_two(self, wanted: float, least: int, most: int) -> _Parts:
        for scalar in _SCALARS:
            left = wanted - scalar
            if left <= 0:
                continue
            found: _Parts = ()
            if self._unread.get(left) and least == 1:
                found = ((left, left),)
            elif most > 1 and (pair := self._pair(left)):
                found = pair
            elif (size := self._again(left)) and least == 1:
                found = ((size, left),)
            if found:
                number = self._read.get(scalar) and not self._unread.get(scalar)
                return (*found, *(((scalar, scalar),) if number else self._many(scalar)))
        return ()

    def _pair(self, wanted: float) -> _Parts:
        second: _Parts = ()
        for size in islice(reversed(self._order), _SIZES):
            other = wanted - size
            if other <= 0:
                continue
            if len(self._unread.get(other, ())) > (other == size):
                return (size, size), (other, other)
            if not second and (whole := self._again(other)):
                second = (size, size), (whole, other)
        return second

    def _again(self, wanted: float) -> float:
        """Return the size of the latest result that was read before or has such a half, or 0."""
        last = {size: max((*self._read[size][-1:], -1)) for size in (wanted, 2.0 * wanted)}
        last[2.0 * wanted] = max((last[2.0 * wanted], *self._unread[2.0 * wanted][-1:]))
        size = max(last, key=lambda size: last[size])
        return size if last[size] >= 0 else 0.0

    def _many(self, wanted: float) -> _Parts:
        """Return unread results that fit, the latest first."""
        sizes = islice(reversed(self._order), _LATEST)
        waiting = sorted(((i, size) for size in sizes for i in self._unread[size][-_LATEST:]),
                         reverse=True)  # fmt: skip
        found, left = [], wanted
        for _, size in waiting[:_LATEST]:
            if size <= left:
                found.append((size, size))
                left -= size
        return tuple(found)

    def _take(self, size: float, part: float, found: dict[int, float]) -> int:
        waiting, before = self._unread[size], self._read[size]
        if not waiting or (part != size and before and before[-1] > waiting[-1]):
            return next((i for i in reversed(before) if i not in found), before[-1])
        i = waiting.pop()
        before.append(i)
        if not waiting:
            self._order.pop(size, None)
        return i
