"""What stands out among the designs of a sweep: the Pareto front, the best, axes without effect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.axes import ARCH, LAUNCH
from npusim.errors import InputError
from npusim.sweeps.dominance import unbeaten
from npusim.sweeps.ends import ends
from npusim.sweeps.space import Space

_SAME = 1e-9


def pareto(table: pd.DataFrame, objectives: Sequence[str], bands: bool = False) -> pd.DataFrame:
    """Return the rows that no other row beats: smaller is better in every objective.

    Parameters
    ----------
    table : DataFrame
        N designs.
    objectives : sequence of str
        Columns to make small.
    bands : bool
        Whether a row goes only if another is surely better: if the other's high ends are at most
        its low ends in every objective, and below in one (`npusim.sweeps.ends`). The bands of
        two designs are taken to be free of each other, which they are not, since one model made
        both: it keeps too many rather than too few.

    Returns
    -------
    DataFrame
        The front, sorted by the first objective. Rows that tie in all objectives all stay; rows
        that are not a number in one never do.

    Raises
    ------
    InputError
        No objective, a column that is not there or holds no numbers, or no band.

    Examples
    --------
    >>> t = pd.DataFrame({"wall_s": [1.0, 2.0, 2.0], "cost": [2.0, 1.0, 3.0]})
    >>> pareto(t, ["wall_s", "cost"]).index.tolist()
    [0, 1]
    >>> t = t.assign(wall_low_s=t["wall_s"] - 0.6, wall_high_s=t["wall_s"] + 0.6)
    >>> pareto(t, ["wall_s", "cost"], bands=True).index.tolist()
    [0, 1, 2]
    """
    values = figures(table, objectives)
    if bands:
        low, high = (np.column_stack(end) for end in
                     zip(*(ends(table, name) for name in objectives), strict=True))  # fmt: skip
        low[np.isnan(values)] = np.nan
    else:
        low = high = values
    kept = np.flatnonzero(unbeaten(low, high))
    return table.iloc[kept[np.lexsort(values[kept].T[::-1])]]


def figures(table: pd.DataFrame, objectives: Sequence[str]) -> NDArray[np.float64]:
    """Return the objectives of N designs, shape (N, K).

    Raises
    ------
    InputError
        No objective, or a column that is not there or holds no numbers.

    Examples
    --------
    >>> figures(pd.DataFrame({"launch": ["graph"], "wall_s": [1.0]}), ["launch"])
    Traceback (most recent call last):
    npusim.errors.InputError: not an objective: 'launch' (allowed: wall_s)
    """
    numbers = [str(c) for c in table.columns if table[c].dtype.kind in "fiub"]
    wrong = [name for name in objectives if name not in numbers]
    if wrong or not len(objectives):
        # those of single workloads are objectives, too, but would be too many to tell
        raise InputError("not an objective", value=", ".join(wrong),
                         allowed=", ".join(c for c in numbers if "[" not in c))  # fmt: skip
    return table[list(objectives)].to_numpy(dtype=float).copy()


class Front:
    """The front of designs that come block by block; the front of all of them at any time.

    What one block beats need not be kept: whatever beats the beater beats it, too.

    Parameters
    ----------
    objectives : sequence of str
        Columns to make small.
    bands : bool
        See `pareto`.

    Attributes
    ----------
    table : DataFrame
        The front so far, as `pareto` returns it; empty without columns before the first block.
    seen : int
        How many designs were added.

    Examples
    --------
    >>> front = Front(["wall_s", "cost"])
    >>> for times in ([3.0, 2.0], [1.0, 4.0]):
    ...     front.add(pd.DataFrame({"wall_s": times, "cost": [1.0, 2.0]}))
    >>> front.table["wall_s"].tolist(), front.seen
    ([1.0], 4)
    """

    def __init__(self, objectives: Sequence[str], bands: bool = False) -> None:
        self.objectives = tuple(objectives)
        self.bands = bands
        self.table = pd.DataFrame()
        self.seen = 0

    def add(self, block: pd.DataFrame) -> None:
        """Take in more designs.

        Raises
        ------
        InputError
            As `pareto`.
        """
        own = pareto(block, self.objectives, self.bands)
        self.seen += len(block)
        if len(self.table.columns) and len(own):
            both = pd.concat([self.table, own])
            self.table = pareto(both, self.objectives, self.bands)
        elif not len(self.table.columns):
            self.table = own


def without_effect(space: Space, table: pd.DataFrame) -> tuple[str, ...]:
    """Return the axes that never change step time or time per token, whatever the others are.

    Only designs that differ in an axis alone say something of it: an axis for which there are none
    is not returned.

    Parameters
    ----------
    space : Space
    table : DataFrame
        What `sweep` returned for it.

    Examples
    --------
    >>> import npusim as ns
    >>> axes = {"matrix.fp8.rate": [4096, 8192], "host.sync": [1e-6, 2e-6]}
    >>> space = Space(ns.load_arch("h200"), axes, ["graph"])
    >>> without_effect(space, ns.sweep(space, ns.load_workload("paddleocr_vl_decode")))
    ('matrix.fp8.rate',)
    """
    times = [table[name].to_numpy(float) for name in ("wall_s", "s_per_token") if name in table]
    names = [name for name in (ARCH, LAUNCH, *space.axes) if name in table]
    codes = {name: pd.factorize(table[name], use_na_sentinel=False)[0] for name in names}

    def same(path: str) -> bool:
        others = _numbered([code for name, code in codes.items() if name != path])
        order = np.argsort(others, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(others[order]) > 0])
        if len(starts) == len(order):
            return False
        spans = ((np.minimum.reduceat(t[order], starts), np.maximum.reduceat(t[order], starts))
                 for t in times)  # fmt: skip
        return all(bool((most - least <= _SAME * least).all()) for least, most in spans)

    return tuple(p for p, values in space.axes.items() if len(values) > 1 and same(p))


def _numbered(codes: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return one number for each row, equal where all codes are."""
    number, size = np.zeros(len(codes[0]), dtype=np.int64), 1
    for code in codes:
        wide = int(code.max()) + 1
        if size * wide > 1 << 62:  # as of samples, no two of which share a value
            number = np.unique(number, return_inverse=True)[1].astype(np.int64)
            size = int(number.max()) + 1
        number, size = number * wide + code, size * wide
    return number


def objective(table: pd.DataFrame) -> str:
    """Return the time to make small: that per token where designs differ in tokens, else of a step.

    Examples
    --------
    >>> objective(pd.DataFrame({"wall_s": [1.0, 1.5], "tokens": [1.0, 2.0]}))
    's_per_token'
    """
    differ = "tokens" in table and np.ptp(table["tokens"].to_numpy()) > 0
    return "s_per_token" if differ else "wall_s"


def best(table: pd.DataFrame, costs: Sequence[str]) -> pd.Series[float]:
    """Return the fastest design; of several as fast, the one that costs least, cost by cost."""
    time = objective(table)
    ranked = table.assign(**{time: table[time].round(15)}).sort_values(
        [time, *costs], kind="stable"
    )
    row: pd.Series[float] = table.loc[ranked.index[0]]
    return row
