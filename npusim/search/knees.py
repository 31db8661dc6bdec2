"""Knees of a front: where getting more of one objective begins to cost much of the other.

Both objectives are put on a scale from 0 to 1 between their ends on the front, in the logarithm
where all values are positive, so that a knee is where a percent of one begins to cost more percents
of the other. The chord from end to end is then x + y = 1, and how far a design lies below it is

    distance = (1 - x - y) / sqrt(2)

A local maximum of it is a knee if the distance falls by more than the mean step in x, times a
sensitivity, before the next maximum or the end.

Source: V. Satopaa, J. Albrecht, D. Irwin, B. Raghavan, "Finding a 'Kneedle' in a haystack:
detecting knee points in system behavior", ICDCS Workshops 2011, doi:10.1109/ICDCSW.2011.20, without
its smoothing, since a front has no noise. The farthest from the chord is the knee of I. Das, "On
characterizing the 'knee' of the Pareto curve based on normal-boundary intersection", Structural
Optimization 18, 1999, doi:10.1007/BF01195985.

Limits: two objectives; a knee hangs on where the front ends, so on the axes that were swept; a
front that bends the other way, or of fewer than three distinct points, has none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.sweeps.front import pareto

Array = NDArray[np.float64]

_LEAST = 1e-9  # distance: less of it is rounding


def knees(table: pd.DataFrame, objectives: Sequence[str], sensitivity: float = 1.0) -> pd.DataFrame:
    """Return the knees of the front of two objectives, the sharpest first.

    Parameters
    ----------
    table : DataFrame
        Designs; only their front counts, and of designs that tie in both objectives one.
    objectives : sequence of str
        Two columns to make small.
    sensitivity : float
        How much the distance must fall behind a knee, in mean steps; from 0, which takes every
        bend.

    Returns
    -------
    DataFrame
        Rows of `table` with ``knee``: the distance from the chord, 0 to 1 / sqrt(2).

    Raises
    ------
    InputError
        Not two objectives, or one that is not there.

    Examples
    --------
    >>> t = pd.DataFrame({"wall_s": [1.0, 1.1, 2.0, 4.0], "area_mm2": [800.0, 410.0, 400.0, 399.0]})
    >>> knees(t, ["wall_s", "area_mm2"]).index.tolist()
    [1]
    """
    if len(objectives) != 2:
        raise InputError("knees are of two objectives", value=", ".join(objectives))
    front = pareto(table, objectives).drop_duplicates(list(objectives))
    if len(front) < 3:
        return front.iloc[:0].assign(knee=np.zeros(0))
    x, y = (_scaled(front[name].to_numpy(float)) for name in objectives)
    distance = (1.0 - x - y) / np.sqrt(2.0)
    drop = sensitivity * float(np.diff(x).mean()) / np.sqrt(2.0)
    rows = [i for i in _peaks(distance) if _falls(distance, i, drop)]
    return front.iloc[rows].assign(knee=distance[rows]).sort_values("knee", ascending=False)


def _scaled(values: Array) -> Array:
    values = np.log(values) if (values > 0).all() else values
    scaled: Array = (values - values.min()) / np.ptp(values)
    return scaled


def _peaks(distance: Array) -> NDArray[np.intp]:
    inner = distance[1:-1]
    peak = (inner > _LEAST) & (inner > distance[:-2]) & (inner >= distance[2:])
    return np.flatnonzero(peak) + 1


def _falls(distance: Array, peak: int, drop: float) -> bool:
    """Return whether the distance falls far enough before it is as large again."""
    behind = distance[peak + 1 :]
    again = np.flatnonzero(behind > distance[peak])
    behind = behind[: again[0]] if len(again) else behind
    return bool(behind.min(initial=np.inf) <= max(distance[peak] - drop, 0.0) + _LEAST)
