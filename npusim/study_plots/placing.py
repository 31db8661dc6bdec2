"""Where labels go so that none hides another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_POINTS = 72.0  # an inch
_INSIDE = 0.72  # of the height of an axes that titles and labels leave of it, at least
_OF_CELL = 0.8  # of the width of its cell that an axes has before the layout
_NAME = 7.5  # size of the names of rows [pt]
_LETTER, _LINE = 0.62, 1.3  # width of a letter and height of a line, in sizes of the font
_RINGS = (1.0, 2.5, 4.5)  # distances of labels from their points, in gaps
_FAR = 15.0  # what a gap more counts as, in pt2 that are covered
_AROUND = ((1, 0), (1, 1), (1, -1), (-1, 0), (-1, 1), (-1, -1), (0, 1), (0, -1))


def spread(places: ArrayLike, gap: float, low: float, high: float) -> Array:
    """Return places that lie a gap apart and as close as can be to where they were.

    Least squares of the shifts: with i gaps taken from the i-th place in order, what remains is to
    be put in order, which pooling neighbours does (isotonic regression).

    Parameters
    ----------
    places : array_like, shape (N,)
    gap, low, high : float
        In the same unit. Where N gaps do not fit between the ends, they shrink.

    Examples
    --------
    >>> spread([0.5, 0.5, 0.9], 0.1, 0.0, 1.0).round(3).tolist()
    [0.45, 0.55, 0.9]
    >>> spread([0.99, 1.0], 0.1, 0.0, 1.0).round(3).tolist()
    [0.9, 1.0]
    """
    wanted = np.asarray(places, dtype=float)
    if not len(wanted):
        return wanted
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(wanted))
    pools: list[tuple[float, int]] = []  # mean, and of how many
    for value in wanted[order] - steps:
        pools.append((float(value), 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, n), (b, m) = pools[-2:]
            pools[-2:] = [((a * n + b * m) / (n + m), n + m)]
    flat = np.concatenate([np.full(count, mean) for mean, count in pools])
    placed = np.empty_like(wanted)
    placed[order] = np.clip(flat, low, high - steps[-1]) + steps
    return placed


def line_height(ax: Axes, size: float) -> float:
    """Return how much of the height of an axes a line of text takes, at most, as a share.

    Of a figure whose layout is still to come the axes may shrink: the share allows for that.
    """
    height = ax.get_window_extent().height / ax.figure.dpi * _POINTS
    return _LINE * size / (_INSIDE * height)


def text_width(text: str, size: float) -> float:
    """Return about how wide a line of text of a size is, rather too wide [pt]."""
    return _LETTER * size * len(text)


def axes_width(ax: Axes, names: Sequence[str]) -> float:
    """Return about how wide an axes is once the names of its rows stand beside it [pt]."""
    whole = ax.get_window_extent().width / ax.figure.dpi * _POINTS / _OF_CELL
    most = max((text_width(line, _NAME) for name in names for line in name.splitlines()), default=0)
    return float(max(whole - most - 25.0, 0.2 * whole))


def beside(
    points: Sequence[tuple[float, float]], texts: Sequence[str], size: float,
    box: tuple[float, float, float, float], taken: Sequence[tuple[float, float]] = (),
    gap: float = 6.0,
) -> list[tuple[float, float]]:  # fmt: skip
    """Return where labels start beside their points so that they hide as little as can be.

    Greedy: each label takes the place around its point that covers least of the labels before it,
    of all points and of what lies outside of the box.

    Parameters
    ----------
    points : sequence of (float, float)
        What is labelled [pt].
    texts : sequence of str
    size : float
        Of the font [pt].
    box : (left, bottom, right, top)
        Of the axes [pt].
    taken : sequence of (float, float)
        Other points that labels should not cover [pt].
    gap : float
        Between point and label [pt].

    Returns
    -------
    list of (float, float)
        Lower left corner of each label, from its point [pt].

    Examples
    --------
    >>> beside([(10.0, 50.0), (90.0, 50.0)], ["a", "b"], 10.0, (0.0, 0.0, 100.0, 100.0))
    [(6.0, -6.5), (-12.2, -6.5)]
    """
    marks = np.array([*points, *taken], dtype=float).reshape(-1, 2)
    boxes: list[tuple[float, float, float, float]] = []
    found = []
    for point, text in zip(points, texts, strict=True):
        lines = text.splitlines()
        width, height = max(text_width(line, size) for line in lines), _LINE * size * len(lines)
        best, least = (0.0, 0.0), np.inf
        for ring, (across, up) in product(_RINGS, _AROUND):
            far = ring * gap * (1.0 if across == 0 or up == 0 else 0.8)
            x = far if across > 0 else -far - width if across < 0 else -width / 2
            y = far if up > 0 else -far - height if up < 0 else -height / 2
            corner = (point[0] + x, point[1] + y)
            own = (*corner, corner[0] + width, corner[1] + height)
            cost = _cost(own, boxes, marks, box) + _FAR * (ring - 1)
            if cost < least - 1e-9:
                best, least = (x, y), cost
        boxes.append((point[0] + best[0], point[1] + best[1],
                      point[0] + best[0] + width, point[1] + best[1] + height))  # fmt: skip
        found.append((round(best[0], 3), round(best[1], 3)))
    return found


def _cost(
    own: tuple[float, float, float, float],
    boxes: Sequence[tuple[float, float, float, float]],
    marks: Array,
    box: tuple[float, float, float, float],
) -> float:
    """Return what a label covers, as area: labels and margins count in full, marks as 25 pt2."""
    area = (own[2] - own[0]) * (own[3] - own[1])
    covered = sum(10 * _overlap(own, other) for other in boxes)
    inside = (own[0] <= marks[:, 0] + 3) & (marks[:, 0] - 3 <= own[2])
    inside &= (own[1] <= marks[:, 1] + 3) & (marks[:, 1] - 3 <= own[3])
    return covered + 20 * (area - _overlap(own, box)) + 25.0 * float(inside.sum())


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)
