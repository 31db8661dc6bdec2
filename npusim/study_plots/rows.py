"""What a figure is given, checked: columns that are there and numbers that can be drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.errors import InputError

Array = NDArray[np.float64]


def numbers(table: pd.DataFrame, names: Sequence[str]) -> list[Array]:
    """Return columns as numbers, each (N,).

    Raises
    ------
    InputError
        No rows, a column that is not there, or a value that is not a finite number.

    Examples
    --------
    >>> [c.tolist() for c in numbers(pd.DataFrame({"wall_s": [1, 2]}), ["wall_s"])]
    [[1.0, 2.0]]
    >>> numbers(pd.DataFrame({"wall_s": [1, 2]}), ["energy_j"])
    Traceback (most recent call last):
    npusim.errors.InputError: no such column: 'energy_j' (allowed: wall_s)
    """
    need(table, names)
    found = []
    for name in names:
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float)
        if not np.isfinite(values).all():
            at = int(np.flatnonzero(~np.isfinite(values))[0])
            raise InputError("not a finite number", place=f"{name}, row {at}",
                             value=table[name].iloc[at])  # fmt: skip
        found.append(values)
    return found


def banded(table: pd.DataFrame, names: tuple[str, str, str]) -> tuple[Array, Array, Array]:
    """Return value, low and high end of N rows, each (N,).

    Raises
    ------
    InputError
        As `numbers`; a value outside of its band.

    Examples
    --------
    >>> t = pd.DataFrame({"value": [1.0], "low": [1.1], "high": [1.2]})
    >>> banded(t, ("value", "low", "high"))
    Traceback (most recent call last):
    npusim.errors.InputError: row 0: outside of its own band: 1.0 (allowed: from 1.1 to 1.2)
    """
    value, low, high = numbers(table, names)
    slack = 1e-9 * np.abs(value)
    wrong = np.flatnonzero((low > value + slack) | (high < value - slack))
    if len(wrong):
        i = int(wrong[0])
        raise InputError("outside of its own band", place=f"row {i}", value=float(value[i]),
                         allowed=f"from {low[i]:g} to {high[i]:g}")  # fmt: skip
    return value, np.minimum(low, value), np.maximum(high, value)


def above_zero(values: Array, what: str) -> None:
    """Refuse values of which no factor can be told.

    Raises
    ------
    InputError
        A value that is zero or less.
    """
    wrong = np.flatnonzero(values <= 0)
    if len(wrong):
        i = int(wrong[0])
        raise InputError("no factor can be told", place=f"{what}, row {i}", value=float(values[i]),
                         allowed="above zero")  # fmt: skip


def need(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse a table without rows or without some columns.

    Raises
    ------
    InputError
        No rows, or a column that is not there.
    """
    for name in names:
        if name not in table:
            known = ", ".join(map(str, table.columns))
            raise InputError("no such column", value=name, allowed=known)
    if table.empty:
        raise InputError("nothing to draw", hint="the table has no rows")
