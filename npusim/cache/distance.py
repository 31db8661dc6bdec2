"""LRU stack distances of a stream of accesses, and the misses of every capacity from them.

The distance of an access is what was used since the last access of the same block, the block
itself included. A fully associative LRU cache hits where it is no more than the capacity, exactly
if blocks are of equal size: one pass over the stream answers for all capacities (R. Mattson et al.,
"Evaluation techniques for storage hierarchies", IBM Syst. J. 9(2), 1970, doi:10.1147/sj.92.0078).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npusim.cache import slots
from npusim.cache.compiled import compiled
from npusim.errors import InputError

MOST_ACCESSES = 2**30
SMALLEST_TABLE = 2**12
SPREAD = 4  # a table of all numbers between the lowest and the highest, up to as many times N


def stack_distances(
    blocks: ArrayLike, sizes: ArrayLike | None = None, *, bypass: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return the LRU stack distance of each access, shape (N,) [B]; inf for a first use.

    Parameters
    ----------
    blocks : array of int, shape (N,)
        What each access uses: a line, a tile, a tensor.
    sizes : int or array of int, shape (N,), optional
        Bytes of the block that an access uses, the same each time [B]; 1 if left out.
    bypass : array of bool, shape (N,), optional
        Which accesses stream past: they have a distance, but no part in that of any other, as in
        a cache where they bring nothing in and leave the order of replacement as it is.

    Raises
    ------
    InputError
        If an array has the wrong shape or type, a size is below 1 or changes, there are more than
        2^30 accesses, or numba is not installed.

    Examples
    --------
    >>> stack_distances([7, 8, 7, 9, 8], 128).tolist()
    [inf, inf, 256.0, inf, 384.0]
    >>> stack_distances([1, 2, 1, 1], [10, 500, 10, 10]).tolist()
    [inf, inf, 510.0, 10.0]
    """
    stream = whole_numbers(blocks, "blocks")
    if stream.ndim != 1 or stream.size > MOST_ACCESSES:
        raise InputError("blocks are not a list of accesses", value=f"shape {stream.shape}",
                         allowed=f"one dimension, up to {MOST_ACCESSES}")  # fmt: skip
    ids, count = numbered(stream)
    unit, weights = _sizes(sizes, ids, count)
    passing = np.zeros(0, np.bool_) if bypass is None else np.asarray(bypass)
    if bypass is not None and (passing.shape != stream.shape or passing.dtype != np.bool_):
        raise InputError("bypass is not a flag for each access", value=f"shape {passing.shape}",
                         allowed=f"bool of shape {stream.shape}")  # fmt: skip
    found = np.empty(stream.size)
    sums = np.int32 if weights.dtype == np.uint8 else np.int64
    room = max(min(2 * count, stream.size), 1)  # accesses that all fit never move down
    rows = -(-room // 64)
    parts = -(-rows // 64)
    wholes = -(-parts // 64)
    compiled(slots.distances, *slots.HELPERS)(
        ids, weights, np.ascontiguousarray(passing), np.zeros(rows * 64, weights.dtype),
        np.zeros(parts * 64, sums), np.zeros(wholes * 64, sums), np.zeros(wholes, np.int64),
        np.empty(room, np.int32), np.full(count, slots.UNUSED, np.int32), found,
    )  # fmt: skip
    return found * unit if unit != 1 else found


def numbered(stream: NDArray[np.int64]) -> tuple[NDArray[np.int32], int]:
    """Return blocks renumbered from 0 in the order of first use, and how many there are."""
    ids = np.empty(stream.size, np.int32)
    first, last = (int(stream.min()), int(stream.max())) if stream.size else (0, 0)
    if last - first < SPREAD * stream.size:
        named = np.full(last - first + 1, slots.UNUSED, np.int32)
        return ids, compiled(slots.number_near)(stream, first, named, ids)
    places, count = SMALLEST_TABLE, slots.UNUSED
    while count < 0:
        keys, named = np.empty(places, np.int64), np.full(places, slots.UNUSED, np.int32)
        count = compiled(slots.number_far)(stream, keys, named, ids)
        places *= 8
    return ids, count


def _sizes(sizes: ArrayLike | None, ids: NDArray[np.int32], count: int) -> tuple[int, NDArray[Any]]:
    """Return the unit [B] and the size of each block in it: bytes hold ones, if all are equal."""
    given = whole_numbers(1 if sizes is None else sizes, "sizes")
    if given.shape not in ((), ids.shape):
        raise InputError("sizes are not one for each access", value=f"shape {given.shape}",
                         allowed=f"a number or shape {ids.shape}")  # fmt: skip
    if given.size and given.min() < 1:
        raise InputError("a block has no size", value=given.min(), allowed="1 byte or more")
    if given.ndim == 0:
        return int(given), np.ones(count, np.uint8)
    each = np.empty(count, np.int64)
    each[ids[::-1]] = given[::-1]  # the first use of a block says its size
    changed = np.flatnonzero(each[ids] != given)
    if changed.size:
        raise InputError("the size of a block changes", place=f"access {changed[0]}",
                         value=given[changed[0]],
                         allowed=f"{each[ids[changed[0]]]}, as before")  # fmt: skip
    return 1, each


def whole_numbers(given: ArrayLike, name: str) -> NDArray[np.int64]:
    """Return what was given as an array of int64, or say that it is not of whole numbers."""
    array: NDArray[Any] = np.asarray(given)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{name} are not whole numbers", value=array.dtype, allowed="int64")
    return np.ascontiguousarray(array, np.int64).reshape(array.shape)


@dataclass(frozen=True, eq=False)
class Profile:
    """What misses at each capacity, as steps: it never rises with the capacity.

    Attributes
    ----------
    distances : array, shape (K,)
        Distances in rising order, the infinite last [B].
    missing : array, shape (K + 1,)
        Bytes of the accesses from each distance on [B].
    """

    distances: NDArray[np.float64]
    missing: NDArray[np.float64]

    def miss_bytes(self, capacity: ArrayLike) -> NDArray[np.float64]:
        """Return the bytes that miss in a fully associative LRU cache [B].

        Parameters
        ----------
        capacity : array, any shape
            Bytes of the cache [B].

        Returns
        -------
        array, the shape of `capacity`
        """
        return self.missing[np.searchsorted(self.distances, capacity, side="right")]


def profile(distances: ArrayLike, weights: ArrayLike | None = None) -> Profile:
    """Return the profile of a stream from its stack distances.

    Parameters
    ----------
    distances : array, shape (N,)
        As :func:`stack_distances` returns them [B].
    weights : array, shape (N,), optional
        Bytes of each access [B]; 1 if left out, so that what is counted is accesses.

    Raises
    ------
    InputError
        If the shapes differ, a distance is no number or a weight is negative.

    Examples
    --------
    >>> p = profile([np.inf, np.inf, 256.0, 384.0], [128, 128, 128, 128])
    >>> p.miss_bytes([0, 255, 256, 384, 1e9]).tolist()
    [512.0, 512.0, 384.0, 256.0, 256.0]
    """
    far = np.asarray(distances, float)
    weight = np.ones(far.shape) if weights is None else np.asarray(weights, float)
    if far.ndim != 1 or weight.shape != far.shape:
        raise InputError("weights are not one for each distance", value=f"shape {weight.shape}",
                         allowed=f"one dimension, shape {far.shape}")  # fmt: skip
    if np.isnan(far).any() or not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise InputError("a distance is no number, or a weight not 0 or more")
    order = np.argsort(far, kind="stable")
    ordered, weighed = far[order], weight[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if far.size else order
    steps = np.add.reduceat(weighed, starts) if far.size else weighed
    missing = np.append(np.cumsum(steps[::-1])[::-1], 0.0)
    return Profile(ordered[starts], missing)
