"""What stands out among the designs of a sweep: the Pareto front, the best, axes without effect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from npusim.errors import InputError
from npusim.sweeps.space import Space

_SAME = 1e-9


def pareto(table: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """Return the rows that no other row beats: smaller is better in every objective.

    Parameters
    ----------
    table : DataFrame
        N designs.
    objectives : sequence of str
        Columns to make small.

    Returns
    -------
    DataFrame
        The front, sorted by the first objective. Rows that tie in all objectives all stay.

    Raises
    ------
    InputError
        No objective, or a column that is not there.

    Examples
    --------
    >>> t = pd.DataFrame({"wall_s": [1.0, 2.0, 2.0], "cost": [2.0, 1.0, 3.0]})
    >>> pareto(t, ["wall_s", "cost"]).index.tolist()
    [0, 1]
    """
    missing = [name for name in objectives if name not in table.columns]
    if missing or not len(objectives):
        raise InputError("not an objective", value=", ".join(missing),
                         allowed=", ".join(map(str, table.columns)))  # fmt: skip
    values = table[list(objectives)].to_numpy(dtype=float)
    order = np.lexsort(values.T[::-1])
    front: list[int] = []
    kept = np.empty((0, values.shape[1]))
    for i in order:  # in this order a row can only be beaten by one that came before
        row = values[i]
        beaten = (kept <= row).all(axis=1) & (kept < row).any(axis=1)
        if not beaten.any():
            front.append(int(i))
            kept = np.vstack([kept, row])
    return table.iloc[front]


def without_effect(space: Space, table: pd.DataFrame) -> tuple[str, ...]:
    """Return the axes that never change step time or time per token, whatever the others are.

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
    >>> without_effect(space, sweep(space, ns.load_workload("paddleocr_vl_decode")))
    ('matrix.fp8.rate',)
    """
    sizes = [len(values) for values in space.axes.values()]
    times = [table[name].to_numpy().reshape(len(space.launch), *sizes)
             for name in ("wall_s", "s_per_token") if name in table]  # fmt: skip

    def same(axis: int) -> bool:
        spread = ((np.ptp(time, axis=axis), time.min(axis=axis)) for time in times)
        return all(bool(np.all(wide <= _SAME * least)) for wide, least in spread)

    return tuple(p for i, p in enumerate(space.axes) if sizes[i] > 1 and same(i + 1))


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
