"""Measured operations: what each of them does, and how long it took.

They come from a table with one operation a row, from the natural experiments of
``npusim capture``, or from the kernels of a trace. Cost models are fitted to them and held against
them.
"""

from __future__ import annotations

from pathlib import Path

from npusim.errors import InputError
from npusim.measured.data import Measured, from_workload
from npusim.measured.experiments import is_experiments, read_axes
from npusim.measured.table import is_table, read_table

__all__ = ["Measured", "from_workload", "is_measured", "read", "read_axes", "read_table"]


def is_measured(path: Path) -> bool:
    """Return whether a file is a table or experiments, not a trace; never raises."""
    return is_table(path) or is_experiments(path)


def read(path: Path) -> Measured:
    """Read a table or experiments.

    Raises
    ------
    InputError, InputErrors
        Neither, or what is wrong in it.
    """
    if is_experiments(path):
        return read_axes(path)
    if is_table(path):
        return read_table(path)
    raise InputError("not a table of measured operations", file=path,
                     allowed="CSV with op, dtype and latency_us, or axes.json of npusim capture",
                     )  # fmt: skip
