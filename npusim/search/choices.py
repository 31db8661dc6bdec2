"""What a search can choose: machine, launch mode and the value on each axis, as whole numbers.

Axes of numbers are sorted, so that neighbouring places hold neighbouring values. An axis that does
not count in a design (`npusim.axes`) is not-a-number there, whatever its place: two lists of
places may be one design.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.axes import ARCH, LAUNCH, Axis, Condition, parents_first
from npusim.parameters import PARAMETERS
from npusim.sweeps.space import Space
from npusim.transforms import split
from npusim.units import CHOICES

Places = NDArray[np.intp]


@dataclass(frozen=True)
class Choices:
    """Machines, launch modes and the values of each axis.

    Attributes
    ----------
    archs : tuple of str
        Names of machines.
    launch : tuple of str
    axes : mapping of str to Axis
        By dotted path [SI], their values sorted where they are numbers.
    off : mapping of str to set of str
        Axes that never count on a machine.

    Examples
    --------
    >>> import npusim as ns
    >>> axes = {"units.count": [80, 60], "gemv.count": [0, 70]}
    >>> choices = Choices.of(ns.Space(ns.load_arch("decode_npu"), axes, ["graph", "queue"]))
    >>> choices.sizes, len(choices)
    ((1, 2, 2, 2), 8)
    >>> choices.points(np.array([[0, 1, 0, 1]])).to_dict("records")
    [{'arch': 'decode_npu', 'launch': 'queue', 'units.count': 60.0, 'gemv.count': 70.0}]
    """

    archs: tuple[str, ...]
    launch: tuple[str, ...]
    axes: Mapping[str, Axis]
    off: Mapping[str, set[str]]

    @classmethod
    def of(cls, space: Space) -> Choices:
        """Return the machines, launch modes and axes of a space; samples do not count."""
        axes = {p: Axis(_sorted(p, a.values), a.scale, a.steps, a.when)
                for p, a in space.given.items()}  # fmt: skip
        return cls(tuple(a.name for a in space.archs), space.launch, axes, _absent(space))

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many machines, launch modes and values of each axis there are."""
        return (len(self.archs), len(self.launch), *(len(a.values) for a in self.axes.values()))

    def __len__(self) -> int:
        """Return how many lists of places there are: as many designs, or more if axes are off."""
        return math.prod(self.sizes)

    def points(self, places: Places) -> pd.DataFrame:
        """Return designs by the places of their values.

        Parameters
        ----------
        places : array of int, shape (N, 2 + A)
            Of the machine, of the launch mode and of the value on each of A axes.
        """
        columns: dict[str, object] = {
            ARCH: np.array(self.archs, dtype=object)[places[:, 0]],
            LAUNCH: np.array(self.launch, dtype=object)[places[:, 1]],
        }
        for axis, place, path in zip(self.axes.values(), places.T[2:], self.axes, strict=True):
            columns[path] = np.asarray(axis.values)[place]
        return self.counting(pd.DataFrame(columns))

    def counting(self, points: pd.DataFrame) -> pd.DataFrame:
        """Return points with not-a-number on each axis that does not count there."""
        found = points.copy()
        for path in parents_first(self.axes):
            on = ~points[ARCH].isin([a for a in self.archs if path in self.off[a]]).to_numpy(bool)
            for parent, condition in self.axes[path].when.items():
                on &= _holds(found[parent], condition)
            found[path] = np.where(on, found[path].to_numpy(float), np.nan)
        return found


def named(path: str) -> bool:
    """Return whether the values of a parameter are names, without an order.

    Examples
    --------
    >>> named("array.dataflow"), named("units.count")
    (True, False)
    """
    return PARAMETERS[path].unit in CHOICES


def _holds(parent: pd.Series, condition: Condition) -> NDArray[np.bool_]:
    if parent.name in (ARCH, LAUNCH):
        return np.array([condition.holds(str(name)) for name in parent], dtype=bool)
    return condition.met(parent.to_numpy(float))  # not-a-number, an axis that is off, meets none


def _absent(space: Space) -> dict[str, set[str]]:
    """Return the axes of which a machine has nothing, but another of the space has."""
    off: dict[str, set[str]] = {arch.name: set() for arch in space.archs}
    for path in split(space.axes)[0]:
        group = path.rpartition(".")[0] + "."
        without = [a.name for a in space.archs
                   if not any(p.startswith(group) for p in a.values)]  # noqa: PD011  # fmt: skip
        if len(without) < len(space.archs):
            for name in without:
                off[name].add(path)
    return off


def _sorted(path: str, values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(v) for v in (values if named(path) else sorted(values)))
