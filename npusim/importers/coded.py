"""Many items of which few are distinct, as numbers into those few.

A step of a trace launches the same kernels over and over: what is asked of an item is asked of
each distinct one once, and what remains for a million of them is arithmetic on numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]
T = TypeVar("T")
_SPARSE = 8  # how many times larger than their count numbers may be for a table of all


@dataclass(frozen=True)
class Coded(Generic[T]):
    """Items by their numbers.

    Attributes
    ----------
    table : sequence
        What the numbers stand for; it may hold more than is used.
    codes : array of int, shape (N,)
        Number of each item.

    Examples
    --------
    >>> Coded("abc", np.array([2, 0, 2])).distinct()
    ['a', 'c']
    """

    table: Sequence[T]
    codes: Codes

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: int) -> T:
        """Return one item."""
        return self.table[int(self.codes[row])]

    def __iter__(self) -> Iterator[T]:
        return map(self.table.__getitem__, self.codes.tolist())

    def distinct(self) -> list[T]:
        """Return what is used of the table, in its order."""
        return [self.table[code] for code in used(self.codes).tolist()]


def by_identity(items: Sequence[T]) -> Coded[T]:
    """Return items by numbers, each object one."""
    numbers: dict[int, int] = {}
    codes = [numbers.setdefault(id(item), len(numbers)) for item in items]
    found = np.array(codes, dtype=np.int64)
    first = np.flatnonzero(np.diff(np.maximum.accumulate(found), prepend=-1))
    return Coded([items[i] for i in first.tolist()], found)


def joined(parts: Sequence[Sequence[T] | Coded[T]]) -> Coded[T]:
    """Return the items of all parts, numbered in order of appearance."""
    coded = [p for p in parts if isinstance(p, Coded)]
    if not coded or len(coded) < len(parts) or any(p.table is not coded[0].table for p in coded):
        return by_identity([item for part in parts for item in part])
    order, codes = by_appearance(np.concatenate([p.codes for p in coded]))
    return Coded([coded[0].table[code] for code in order.tolist()], codes)


def used(codes: NDArray[Any]) -> NDArray[np.intp]:
    """Return which numbers of a table occur, ascending."""
    return np.flatnonzero(np.bincount(codes))


def by_appearance(codes: NDArray[Any]) -> tuple[Codes, Codes]:
    """Return the numbers that occur in order of their first appearance, and each one's place there.

    Parameters
    ----------
    codes : array of int, shape (N,)
        Of a table, from 0.

    Examples
    --------
    >>> by_appearance(np.array([7, 2, 2, 7, 5]))
    (array([7, 2, 5]), array([0, 1, 1, 0, 2]))
    """
    place = np.full(int(codes.max(initial=-1)) + 1, -1, dtype=np.int64)
    place[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)  # of equal ones the first is put last
    found = np.flatnonzero(place >= 0)
    order = found[np.argsort(place[found])]
    place[order] = np.arange(len(order))
    return order, place[codes]


def distinct(numbers: Codes) -> tuple[Codes, Codes]:
    """Return which numbers there are, ascending, and each one's place among them.

    As `numpy.unique` does, which sorts; where no number is much larger than there are numbers, a
    table is quicker.

    Parameters
    ----------
    numbers : array of int, shape (N,)
        From 0.

    Examples
    --------
    >>> distinct(np.array([7, 2, 7]))
    (array([2, 7]), array([1, 0, 1]))
    """
    top = int(numbers.max(initial=-1)) + 1
    if top > _SPARSE * len(numbers) or numbers.min(initial=0) < 0:
        found, place = np.unique(numbers, return_inverse=True)
        return found, place.reshape(-1)
    found = np.flatnonzero(np.bincount(numbers, minlength=top))
    table = np.zeros(top, dtype=np.int64)
    table[found] = np.arange(len(found))
    return found, table[numbers]
