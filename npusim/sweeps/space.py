"""The space of a sweep: which designs it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from npusim.arch import Arch, Designs, check, parameter
from npusim.errors import InputError, InputErrors
from npusim.models import modelled
from npusim.models.launch import LAUNCHES
from npusim.transforms import TRANSFORMABLE, split
from npusim.units import parse

_MOST = 2_000_000


def unmodelled(paths: Sequence[str]) -> list[InputError]:
    """Return one error for each parameter that neither a cost model nor a transform reads.

    Examples
    --------
    >>> [str(e) for e in unmodelled(["units.count", "area.die"])]
    ['area.die: no cost model of this version reads it, so it cannot be swept or set']
    """
    known = {*modelled(), *TRANSFORMABLE}
    return [
        InputError(
            "no cost model of this version reads it, so it cannot be swept or set", place=path
        )
        for path in paths
        if parameter(path) and path not in known
    ]


@dataclass(frozen=True)
class Space:
    """Every combination of the values of some axes, on a machine.

    Parameters
    ----------
    arch : Arch
        What all designs share.
    axes : mapping of str to sequence of float or str
        Values of each dotted path [SI], of the machine or of the workload (``workload.*``), or
        texts with a unit or a name (``"2 TB/s"``, ``"weight"``).
    launch : sequence of str
        Launch modes.

    Attributes
    ----------
    designs : Designs
        Combinations of the axes of the machine.
    changes : tuple of mapping
        Combinations of the axes of the workload, one without any if there are none.

    Raises
    ------
    InputError, InputErrors
        An axis without values or without a model, a value out of bounds, or too many designs.

    Examples
    --------
    >>> import npusim as ns
    >>> space = Space(ns.load_arch("h200"), {"units.count": [66, 132]}, ["graph", "queue"])
    >>> len(space)
    4
    """

    arch: Arch
    axes: Mapping[str, Sequence[float]]
    launch: Sequence[str] = ("eager",)
    designs: Designs = field(init=False, repr=False)
    changes: tuple[Mapping[str, float], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        errors = unmodelled(list(self.axes))
        axes = {path: [_number(path, v) for v in given] for path, given in self.axes.items()}
        object.__setattr__(self, "axes", axes)
        errors += [
            InputError("axis without values", place=p) for p, v in self.axes.items() if not len(v)
        ]
        errors += [
            InputError("value given twice", place=p)
            for p, v in self.axes.items()
            if len(set(v)) < len(v)
        ]
        errors += [
            InputError("unknown launch mode", value=mode, allowed=", ".join(LAUNCHES))
            for mode in self.launch
            if mode not in LAUNCHES
        ]
        if errors:
            raise errors[0] if len(errors) == 1 else InputErrors(errors)
        count = int(np.prod([float(len(v)) for v in self.axes.values()])) * len(self.launch)
        if count > _MOST or count == 0:
            raise InputError("too many or no designs", value=count, allowed=f"1 to {_MOST}",
                             hint="use fewer values an axis")  # fmt: skip
        of_machine, of_workload = split(self.axes)
        grids = np.meshgrid(
            *(np.asarray(v, dtype=float) for v in of_machine.values()), indexing="ij"
        )
        columns = {path: grid.reshape(-1) for path, grid in zip(of_machine, grids, strict=True)}
        object.__setattr__(self, "designs", Designs(self.arch, columns))
        values = [[check(path, v) for v in given] for path, given in of_workload.items()]
        changes = tuple(dict(zip(of_workload, each, strict=True)) for each in product(*values))
        object.__setattr__(self, "changes", changes)

    def __len__(self) -> int:
        """Return the number of designs, launch modes counted."""
        return len(self.changes) * len(self.designs) * len(self.launch)


def _number(path: str, value: float | str) -> float:
    """Return a value of an axis, or a text with its unit or name [SI]."""
    try:
        return parse(value, parameter(path).unit) if isinstance(value, str) else float(value)
    except InputError as error:
        raise InputError(str(error), place=path) from None
