"""Windows: the distinct bytes that are touched between two uses of a block, by class of data.

A fully associative LRU cache hits exactly if the window of an access, its own block included, is
no larger than the cache. With p(i) the access before i to the same block, the blocks of a window
are those whose first access after p(i) lies before i:

    window(i) = size(i) + sum of size(j) over p(i) < j < i with p(j) <= p(i)

Every j <= p(i) has p(j) < p(i), so the sum is that over all j < i with p(j) <= p(i), less that over
all j <= p(i). The former counts smaller keys to the left, for all i at once, bit by bit.

Source: R. Mattson et al., "Evaluation techniques for storage hierarchies", IBM Systems Journal
9(2), 1970, doi:10.1147/sj.92.0078.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def windows(block: NDArray[np.int64], size: Array) -> Array:
    """Return the window of every access, shape (A, C) [B]; ``inf`` where a block is new.

    Parameters
    ----------
    block : array of int, shape (A,)
        Which block each access touches.
    size : array, shape (A, C)
        Its bytes in each class of data; the same for every access to a block [B].

    Returns
    -------
    array, shape (A, C)
        Its sum over the classes is the LRU stack distance.

    Examples
    --------
    Blocks of 1, 2 and 4 bytes, all of one class, in the order 0 1 2 1 0:

    >>> size = np.array([[1.0], [2.0], [4.0], [2.0], [1.0]])
    >>> windows(np.array([0, 1, 2, 1, 0]), size).ravel().tolist()
    [inf, inf, inf, 6.0, 7.0]
    """
    before = previous(block)
    total = np.vstack([np.zeros((1, size.shape[1])), np.cumsum(size, axis=0)])
    between = _smaller_before(before, size) - total[before + 1]
    return np.where(before[:, None] >= 0, between + size, np.inf)


def previous(block: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of the access before each to the same block, -1 where there is none.

    Examples
    --------
    >>> previous(np.array([7, 8, 7, 7])).tolist()
    [-1, -1, 0, 2]
    """
    order = np.argsort(block, kind="stable")
    before = np.full(len(block), -1, dtype=np.int64)
    same = np.flatnonzero(np.diff(block[order]) == 0)
    before[order[same + 1]] = order[same]
    return before


def _smaller_before(key: NDArray[np.int64], size: Array) -> Array:
    """Return the sum of sizes of all j < i with key(j) <= key(i), for every i, (A, C).

    All are sorted by key. Of two that differ first, from the top, in a bit of their index, the one
    without it came before: bit by bit it is counted for those with it, and both go to their half.
    """
    count = len(key)
    found = np.zeros_like(size)
    order = np.argsort(key, kind="stable")
    for bit in reversed(range(max(count - 1, 1).bit_length())):
        late = (order >> bit & 1).astype(bool)
        early = np.where(late[:, None], 0.0, size[order])
        so_far = np.cumsum(early, axis=0)
        group = order >> (bit + 1)
        opens = np.flatnonzero(np.diff(group, prepend=-1))
        base = np.vstack([np.zeros((1, size.shape[1])), so_far])[opens]
        lengths = np.diff(np.append(opens, count))
        found[order[late]] += (so_far - np.repeat(base, lengths, axis=0))[late]
        order = order[np.argsort(order >> bit, kind="stable")]
    return found
