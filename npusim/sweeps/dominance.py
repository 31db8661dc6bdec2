"""Which of many points no other beats, exactly, in far fewer steps than pairs of points.

A point beats another if it is as small in every objective and smaller in one. After duplicates are
put aside and the rest is sorted, a point is only ever beaten by an earlier one, so that the second
half of a list has to be compared with the front of the first, and in one objective less: the first
is sorted. Two objectives left are a running minimum; more are split at their median again.

Source: divide and conquer as in H. T. Kung, F. Luccio, F. P. Preparata, "On finding the maxima of a
set of vectors", J. ACM 22(4), 1975, doi:10.1145/321906.321910: N log N steps for 2 and 3
objectives, N (log N)^(K-2) for K.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_FEW = 128  # points: below it, comparing all pairs is faster than another split
_PAIRS = 1 << 16
_MANY = 4096  # points of which it pays to sort some out first
_FAVOUR = 10.0  # by how much a good point may be one in one objective


def unbeaten(low: Array, high: Array) -> Mask:
    """Return which points no other point surely beats.

    Parameters
    ----------
    low, high : array, shape (N, K)
        Ends of each point in K objectives; the same array twice where they are known exactly.

    Returns
    -------
    array of bool, shape (N,)
        False where another point's high ends are at most the low ends of this one in every
        objective, and below it in one. A point that is not a number somewhere is False, and beats
        none.

    Examples
    --------
    >>> points = np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 3.0], [1.0, 2.0]])
    >>> unbeaten(points, points).tolist()
    [True, True, False, True]
    >>> unbeaten(points - 0.6, points + 0.6).tolist()
    [True, True, True, True]
    """
    known: Mask = np.asarray(~(np.isnan(low) | np.isnan(high)).any(axis=1))
    if len(low) > _MANY:
        known &= _worth(low, high, known)
    distinct, which = _distinct(high[known])
    on = np.zeros(len(distinct), dtype=bool)
    on[_front(distinct)] = True
    kept = np.zeros(len(low), dtype=bool)
    if low is high:
        kept[known] = on[which]
        return kept
    winners = distinct[on]
    # What equals a winner is beaten by none: a second winner that beats it would beat the first.
    beaten = covered(low[known], winners)
    beaten[beaten] = ~_among(low[known][beaten], winners)
    kept[known] = ~beaten
    return kept


def _worth(low: Array, high: Array, known: Mask) -> Mask:
    """Return which points a few good ones do not beat: of many points most go here.

    What a point beats beats nothing that the point does not.
    """
    kept = known.copy()
    least = high[known].min(axis=0, initial=np.inf)
    span = high[known].max(axis=0, initial=-np.inf) - least
    scaled = (high - least) / np.where(span > 0, span, 1.0)
    weights = [np.ones(high.shape[1]), *(1.0 + _FAVOUR * np.eye(high.shape[1]))]
    for weight in weights:
        sums = np.where(kept, scaled @ weight, np.inf)
        one = high[int(np.argmin(sums))]
        beaten = (low >= one).all(axis=1) & (low > one).any(axis=1)
        kept &= ~beaten
    return kept


def covered(points: Array, by: Array) -> Mask:
    """Return for which points some point of another set is as small in every objective.

    Parameters
    ----------
    points : array, shape (N, K)
    by : array, shape (M, K)

    Examples
    --------
    >>> covered(np.array([[1.0, 1.0], [3.0, 0.0]]), np.array([[2.0, 0.0], [0.0, 2.0]])).tolist()
    [False, True]
    """
    count = points.shape[1]
    if not len(points) or not len(by):
        return np.zeros(len(points), dtype=bool)
    if count == 0:
        return np.ones(len(points), dtype=bool)
    if count == 1:
        single: Mask = points[:, 0] >= by[:, 0].min()
        return single
    if count == 2:
        return _below_stairs(points, by)
    if len(points) * len(by) <= _PAIRS or len(by) <= 8:
        return _all_pairs(points, by)
    return _split(points, by)


def _split(points: Array, by: Array) -> Mask:
    """Compare on both sides of the median of the last objective, and across it without it."""
    own, other = points[:, -1], by[:, -1]
    middle = np.partition(other, len(other) // 2)[len(other) // 2]
    found = np.zeros(len(points), dtype=bool)
    above, below = np.flatnonzero(own >= middle), np.flatnonzero(own < middle)
    found[above] = covered(points[above, :-1], by[other <= middle, :-1])
    left = above[~found[above]]
    found[left] = covered(points[left], by[other > middle])
    found[below] = covered(points[below], by[other < middle])
    return found


def _all_pairs(points: Array, by: Array) -> Mask:
    found = np.zeros(len(points), dtype=bool)
    if len(by) <= 8:  # few against many: one pass each
        for row in by:
            found |= (points >= row).all(axis=1)
        return found
    pairs: Mask = np.all(by[None, :, :] <= points[:, None, :], axis=2)
    return np.asarray(pairs.any(axis=1), dtype=bool)


def _below_stairs(points: Array, by: Array) -> Mask:
    """Two objectives: the lowest second one among all whose first one is as small."""
    order = np.argsort(by[:, 0], kind="stable")
    lowest = np.minimum.accumulate(by[order, 1])
    last = np.searchsorted(by[order, 0], points[:, 0], side="right") - 1
    found: Mask = (last >= 0) & (lowest[last] <= points[:, 1])
    return found


def _front(points: Array) -> NDArray[np.intp]:
    """Return which of sorted, distinct points no other beats."""
    size, count = points.shape
    if size <= 1 or count == 1:
        return np.arange(min(size, 1))
    if count == 2:
        best = np.minimum.accumulate(points[:, 1])
        return np.flatnonzero(np.r_[True, points[1:, 1] < best[:-1]])
    if size <= _FEW:
        beats: Mask = np.all(points[:, None, :] <= points[None, :, :], axis=2)
        np.fill_diagonal(beats, False)
        return np.flatnonzero(~beats.any(axis=0))
    half = size // 2
    first = _front(points[:half])
    rest = half + np.flatnonzero(~covered(points[half:, 1:], points[first, 1:]))
    return np.concatenate([first, rest[_front(points[rest])]])


def _distinct(points: Array) -> tuple[Array, NDArray[np.intp]]:
    """Return the distinct points, sorted, and for each point which it is."""
    order = np.lexsort(points.T[::-1])
    ordered = points[order]
    fresh = np.ones(len(points), dtype=bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    which = np.empty(len(points), dtype=np.intp)
    which[order] = np.cumsum(fresh) - 1
    return ordered[fresh], which


def _among(points: Array, those: Array) -> Mask:
    """Return which points are equal to one of some others."""
    _, which = _distinct(np.concatenate([those, points]))
    found: Mask = np.isin(which[len(those) :], which[: len(those)])
    return found
