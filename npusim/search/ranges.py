"""From the values of an axis to the range that they span, and back from shares of it to values.

- A range of a file keeps its scale. A list of numbers is taken evenly from its lowest to its
  highest value, and evenly in the logarithm where that is ten times the lowest or more.
- Whole numbers between the ends are all as likely (with a ``log`` scale: as the logarithm rounds).
- Of names, those that the axis lists are all as likely.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.arch import is_whole
from npusim.axes import Axis
from npusim.search.choices import named
from npusim.transforms import TRANSFORMABLE

Array = NDArray[np.float64]

_WIDE = 10.0  # times the lowest value


@dataclass(frozen=True)
class Range:
    """What an axis may be.

    Attributes
    ----------
    values : tuple of float
        The lowest and the highest value [SI], or all names.
    kind : str
        ``linear``, ``log`` or ``names``.
    whole : bool
        Whether it takes whole numbers alone.

    Examples
    --------
    >>> Range((0.0, 2.0), "linear", True).at(np.array([0.1, 0.5, 0.9])).tolist()
    [0.0, 1.0, 2.0]
    >>> Range((1.0, 100.0), "log").at(np.array([0.5])).tolist()
    [10.0]
    """

    values: tuple[float, ...]
    kind: str = "linear"
    whole: bool = False

    def at(self, share: Array) -> Array:
        """Return the values at some shares of the range, 0 to 1, shape (N,)."""
        if self.kind == "names":
            place = np.minimum((share * len(self.values)).astype(int), len(self.values) - 1)
            names: Array = np.asarray(self.values, dtype=np.float64)[place]
            return names
        # A whole number stands for what lies half a step around it.
        half = 0.5 * self.whole
        low, high = self.values[0] - half, self.values[1] + half
        if self.kind == "log":
            found: Array = low * (high / low) ** share
        else:
            found = low + (high - low) * share
        found = np.rint(found) if self.whole else found
        found = np.minimum(np.maximum(found, self.values[0]), self.values[1])
        return found + 0.0  # no negative zero


def ranges(axes: Mapping[str, Axis]) -> dict[str, Range]:
    """Return the ranges of the axes of the machine that have more than one value.

    Examples
    --------
    >>> found = ranges({"units.count": Axis((60.0, 80.0, 70.0)), "host.sync": Axis((1e-6, 2e-5))})
    >>> found["units.count"], found["host.sync"].kind
    (Range(values=(60.0, 80.0), kind='linear', whole=True), 'log')
    """
    found = {}
    for path, axis in axes.items():
        if path in TRANSFORMABLE or len(axis.values) < 2:
            continue
        low, high = min(axis.values), max(axis.values)
        if named(path):
            found[path] = Range(tuple(axis.values), "names")
        else:
            wide = "log" if 0 < _WIDE * low <= high else "linear"
            found[path] = Range((low, high), axis.scale or wide, is_whole(path))
    return found
