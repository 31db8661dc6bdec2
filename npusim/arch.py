"""An accelerator as numbers: `Arch` is one machine, `Designs` are many of them as columns.

Every number that a design could change is declared once, in `npusim.parameters`.

A parameter may be declared before a cost model reads it. Which parameters have a model is asked
of the models (:func:`npusim.models.modelled`), not written here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim import units
from npusim.errors import InputError
from npusim.parameters import PARAMETERS, Parameter

Array = NDArray[np.float64]

SET_BY_USER = "set by the user"
_WHOLE = ("host.threads", "host.lanes", "launch.eager.depth", "array.rows", "array.columns",
          "array.side_by_side", "fusion.chain", "fusion.products", "fusion.recompute",
          "fusion.side_by_side", "special.whole", "units.spare", "memories.dram.sites",
          "link.spare", "gemm.vector_row")  # fmt: skip
KINDS = {
    "datasheet": "published by the vendor, or computed from what is",
    "measured": "read from a measurement of this machine",
    "calibrated": "fitted to measurements of this machine",
    "assumed": "nobody published it; carries a range",
}


@dataclass(frozen=True)
class Provenance:
    """Where a value comes from.

    Attributes
    ----------
    source : str
        Document, measurement or reasoning.
    kind : str
        One of `KINDS`.
    low, high : float
        Range in which the true value is believed to lie [SI]; the value itself where none is
        given.
    """

    source: str
    kind: str
    low: float
    high: float


@dataclass(frozen=True)
class Arch:
    """One machine: its parameters in SI units, each with its provenance.

    Attributes
    ----------
    name : str
        Name of the file without its suffix.
    title : str
        What people call the machine.
    values : mapping of str to float
        Value of each parameter given, by dotted path [SI].
    provenance : mapping of str to Provenance
        Source and kind of each.
    devices : tuple of str
        Names under which profilers report this machine.
    note : str
        What a reader should know before trusting it.
    calibration : mapping
        The record of `npusim calibrate`, where the machine's file has one.
    """

    name: str
    title: str
    values: Mapping[str, float]
    provenance: Mapping[str, Provenance]
    devices: tuple[str, ...] = ()
    note: str = ""
    calibration: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def __reduce__(self) -> tuple[type[Arch], tuple[Any, ...]]:
        """Return what makes the same machine in another process: read-only views do not travel."""
        plain = dict(self.values), dict(self.provenance)
        return Arch, (self.name, self.title, *plain, self.devices, self.note, self.calibration)

    def __getitem__(self, path: str) -> float:
        """Return the value of a parameter [SI]."""
        parameter(path)
        if path not in self.values:
            raise InputError("the machine does not have", file=self.name, value=path)
        return self.values[path]


def parameter(path: str) -> Parameter:
    """Return the declaration of a dotted path.

    Examples
    --------
    >>> parameter("units.count").unit
    '1'
    """
    if path not in PARAMETERS:
        raise InputError("unknown parameter", value=path, allowed=siblings(path))
    return PARAMETERS[path]


def siblings(path: str) -> str:
    """Return the paths that a misspelt one may have meant, as text for a message.

    Examples
    --------
    >>> siblings("voltage.clok")
    'voltage.clock, voltage.slope, voltage.least'
    """
    group = path.split(".", 1)[0]
    near = [p for p in PARAMETERS if p.split(".", 1)[0] == group]
    return (
        ", ".join(near)
        if near
        else "one of " + ", ".join(dict.fromkeys(p.split(".", 1)[0] + ".*" for p in PARAMETERS))
    )


def of_machine(path: str) -> Parameter:
    """Return the declaration of a dotted path that is a number of a machine.

    Examples
    --------
    >>> of_machine("workload.context")
    Traceback (most recent call last):
    npusim.errors.InputError: changes the workload, not the machine: 'workload.context'
    """
    if path.startswith("workload."):
        raise InputError("changes the workload, not the machine", value=path)
    return parameter(path)


def check(path: str, value: float) -> float:
    """Return a value of a parameter if it lies within the declared bounds [SI].

    Raises
    ------
    InputError
        Unknown path, or a value outside the bounds.

    Examples
    --------
    >>> check("matrix.efficiency", 0.75)
    0.75
    >>> check("memories.dram.bandwidth", -1.0)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    npusim.errors.InputError: memories.dram.bandwidth: out of bounds: -1 B/s (allowed: 1 MB/s to ...
    """
    p = parameter(path)
    if not (math.isfinite(value) and p.low <= value <= p.high):
        allowed = f"{_plain(p.low, p.unit)} to {_plain(p.high, p.unit)}"
        raise InputError("out of bounds", place=path, value=_Shown(value, p.unit), allowed=allowed)
    if is_whole(path) and value != math.floor(value):
        raise InputError("not a whole number", place=path, value=value,
                         hint="list whole numbers where a range has others")  # fmt: skip
    return value


def is_whole(path: str) -> bool:
    """Return whether a parameter is a number of things, or on or off.

    Examples
    --------
    >>> is_whole("units.count"), is_whole("units.clock")
    (True, False)
    """
    return path.endswith(".count") or path in _WHOLE


def _plain(value: float, unit: str) -> str:
    return units.show(value, unit)


@dataclass(frozen=True)
class _Shown:
    """A value that appears in a message with its unit."""

    value: float
    unit: str

    def __str__(self) -> str:
        return units.show(self.value, self.unit)


def with_value(arch: Arch, path: str, value: float | str) -> Arch:
    """Return a variant of a machine with one parameter changed.

    Parameters
    ----------
    arch : Arch
        The machine.
    path : str
        Dotted path of the parameter.
    value : float or str
        SI value, or text with a unit.

    Returns
    -------
    Arch
        A new machine; the parameter is marked ``assumed``.

    Raises
    ------
    InputError
        Unknown path, wrong unit, or out of bounds.

    Examples
    --------
    >>> import npusim as ns
    >>> slower = with_value(ns.load_arch("h200"), "memories.dram.bandwidth", "2.4 TB/s")
    >>> slower["memories.dram.bandwidth"]
    2400000000000.0
    """
    p = of_machine(path)
    if isinstance(value, str):
        try:
            value = units.parse(value, p.unit)
        except InputError as error:
            raise InputError(str(error), place=path) from None
    number = check(path, float(value))
    mark = Provenance(SET_BY_USER, "assumed", number, number)
    return replace(
        arch,
        values={**arch.values, path: number},
        provenance={**arch.provenance, path: mark},
    )


@dataclass(frozen=True)
class Designs:
    """Many machines that differ in a few parameters: one column an axis, one row a design.

    Attributes
    ----------
    base : Arch
        What all of them share.
    columns : mapping of str to array, shape (D,)
        The parameters that vary [SI].
    """

    base: Arch
    columns: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {len(column) for column in self.columns.values()}
        if len(lengths) > 1:
            raise InputError("columns of designs differ in length", value=sorted(lengths))
        for path, column in self.columns.items():
            of_machine(path)
            ends = [column.min(), column.max()] if len(column) else []  # not-a-number is both
            if is_whole(path):
                ends += column[column != np.floor(column)].tolist()
            for value in ends:
                check(path, float(value))
        object.__setattr__(self, "columns", MappingProxyType(dict(self.columns)))

    def __reduce__(self) -> tuple[type[Designs], tuple[Any, ...]]:
        """Return what makes the same designs in another process."""
        return Designs, (self.base, dict(self.columns))

    def __len__(self) -> int:
        """Return the number of designs D."""
        return len(next(iter(self.columns.values()))) if self.columns else 1

    def __contains__(self, path: str) -> bool:
        """Return whether every design has this parameter."""
        return path in self.columns or path in self.base.values

    def __getitem__(self, path: str) -> Array:
        """Return the column of a parameter, shape (D,) or (1,) [SI]."""
        if path in self.columns:
            return self.columns[path]
        return np.array([self.base[path]])

    def distinct(self, paths: Collection[str]) -> tuple[Designs, NDArray[np.intp]]:
        """Return the designs that differ in some parameters, and for each design which it is.

        Examples
        --------
        >>> import npusim as ns
        >>> d = Designs(ns.load_arch("h200"), {"units.count": np.array([66.0, 132.0, 66.0]),
        ...                                    "host.speed": np.array([1.0, 1.0, 2.0])})
        >>> few, which = d.distinct(["units.count", "units.clock"])
        >>> len(few), which.tolist()
        (2, [0, 1, 0])
        """
        columns = {path: c for path, c in self.columns.items() if path in paths}
        if not columns:
            return self.of({}), np.zeros(len(self), dtype=np.intp)
        table, which = np.unique(np.stack(list(columns.values())), axis=1, return_inverse=True)
        return self.of(dict(zip(columns, table, strict=True))), which.reshape(-1)

    def of(self, columns: Mapping[str, Array]) -> Designs:
        """Return designs of the same machine with other columns."""
        return Designs(self.base, columns)

    def changed(self, columns: Mapping[str, Array]) -> Designs:
        """Return the same designs with some columns changed or added.

        Examples
        --------
        >>> import npusim as ns
        >>> h200 = Designs(ns.load_arch("h200"))
        >>> h200.changed({"units.count": np.array([66.0])})["units.count"].tolist()
        [66.0]
        """
        return self.of({**self.columns, **columns})

    def blocks(self, size: int) -> Iterator[Designs]:
        """Yield the designs in blocks of at most `size`."""
        for start in range(0, len(self), size):
            yield self.of({p: c[start : start + size] for p, c in self.columns.items()})
