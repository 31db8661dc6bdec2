"""The error band of each design of a table, where it has one."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.study_plots.rows import numbers
from npusim.sweeps.ends import ends

Array = NDArray[np.float64]


def bands(table: pd.DataFrame, name: str) -> Array:
    """Return the ends of a figure of N designs, (2, N): the figure itself where it has no band.

    Parameters
    ----------
    table : DataFrame
        With the bands that a sweep has (`npusim.sweeps.ends`), some designs perhaps without.
    name : str
        Column of the figure.

    Raises
    ------
    InputError
        A column that is not there or holds no numbers.

    Examples
    --------
    >>> t = pd.DataFrame({"wall_s": [2.0, 3.0], "wall_low_s": [1.0, np.nan],
    ...                   "wall_high_s": [4.0, np.nan]})
    >>> bands(t, "wall_s").tolist()
    [[1.0, 3.0], [4.0, 3.0]]
    """
    if table.empty:
        return np.empty((2, 0))
    (value,) = numbers(table, [name])
    try:
        return np.array(ends(table, name))
    except InputError:  # of a machine that nobody has measured
        if len(table) > 1:
            return np.hstack([bands(table.iloc[[i]], name) for i in range(len(table))])
    except (KeyError, ValueError):  # the columns that the band follows from are not there
        pass
    return np.array([value, value])
