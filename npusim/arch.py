"""An accelerator as numbers: `Arch` is one machine, `Designs` are many of them as columns.

Every number that a design could change is a `Parameter` in the table below, declared once with
its dotted path, unit, bounds and meaning. The same path is the key in YAML, the ``--set`` flag,
the column of a result and the label of an axis. Values are floats in SI units.

A parameter may be declared before a cost model reads it. Which parameters have a model is asked
of the models (:func:`npusim.models.modelled`), not written here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from npusim import units
from npusim.errors import InputError

Array = NDArray[np.float64]

KINDS = {
    "datasheet": "published by the vendor, or computed from what is",
    "measured": "read from a measurement of this machine",
    "calibrated": "fitted to measurements of this machine",
    "assumed": "nobody published it; carries a range",
}


@dataclass(frozen=True)
class Parameter:
    """One number of a machine, declared once.

    Attributes
    ----------
    path : str
        Dotted path, the one name used everywhere.
    unit : str
        Unit of the value; inside npusim always its SI form.
    low, high : float
        Bounds that any real or imagined machine respects [SI].
    meaning : str
        What it is, in a sentence.
    required : bool
        Whether every machine must give it. What is not required and not given does not exist on
        that machine (an FP8 rate, a GEMV unit).
    """

    path: str
    unit: str
    low: float
    high: float
    meaning: str
    required: bool = False


_DTYPE_NAMES = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8", "int4")
_FLOOR = "time from start to end that even the smallest {} takes on the device"
_FLOORS = {
    "matmul": "matrix product (GEMV, GEMM, grouped GEMM, convolution)",
    "attention": "fused attention kernel",
    "pointwise": "pointwise kernel, cast, copy or fill",
    "reduction": "reduction, softmax or normalisation",
    "gather": "gather, scatter, index or concatenation",
    "sort": "sort, top-k or scan",
    "memcpy": "copy or fill by the copy engine",
}

PARAMETERS: Mapping[str, Parameter] = MappingProxyType({p.path: p for p in (
    Parameter("units.count", "1", 1, 1e6, "compute units enabled (SM, CU, AP, core)", True),
    Parameter("units.clock", "Hz", 1e6, 1e11, "boost clock of the compute units", True),
    Parameter("units.base_clock", "Hz", 1e6, 1e11,
              "clock that the units hold under the power limit", True),
    Parameter("units.load_rate", "B/clock", 1, 1e6,
              "what one compute unit takes in from the last-level cache, at most", True),
    Parameter("matrix.clock", "Hz", 1e6, 1e11,
              "clock at which the matrix peak is quoted", True),
    Parameter("matrix.efficiency", "1", 1e-3, 1,
              "share of the matrix unit's cycles that a large GEMM uses, at the clock it runs at",
              True),
    Parameter("matrix.boost_share", "1", 0, 1,
              "where between base and boost clock a large GEMM settles under the power limit",
              True),
    *(Parameter(f"matrix.{d}.rate", "FLOP/clock", 1, 1e9,
                f"dense {d} matrix throughput of one compute unit (multiply and add are two)")
      for d in _DTYPE_NAMES),
    Parameter("vector.fp32.rate", "FLOP/clock", 1, 1e9,
              "fp32 vector throughput of one compute unit (multiply and add are two)", True),
    Parameter("vector.efficiency", "1", 1e-3, 1,
              "share of the vector peak that a long vector kernel sustains", True),
    Parameter("special.rate", "OP/clock", 1, 1e9,
              "special functions (exp, GELU, SiLU, rsqrt) of one compute unit"),
    Parameter("memories.dram.bandwidth", "B/s", 1e6, 1e18, "DRAM bandwidth of the datasheet",
              True),
    Parameter("memories.dram.efficiency", "1", 1e-3, 1,
              "share of the DRAM bandwidth that a long stream reaches", True),
    Parameter("memories.dram.capacity", "B", 1e6, 1e18, "DRAM capacity", True),
    Parameter("memories.dram.latency", "s", 1e-9, 1e-3, "latency of a DRAM access", True),
    Parameter("memories.dram.in_flight", "B", 32, 1e9,
              "bytes that one compute unit keeps in flight to DRAM", True),
    Parameter("memories.l2.capacity", "B", 1e3, 1e15, "capacity of the last-level cache"),
    Parameter("memories.l2.usable", "1", 0.05, 1,
              "share of its capacity that reused data can fill"),
    Parameter("memories.l2.ways", "1", 1, 4096,
              "effective associativity: how sharply hits end where data no longer fits"),
    Parameter("memories.l2.rate", "B/clock", 0.1, 1e6,
              "what the last-level cache gives each compute unit while all of them pull"),
    Parameter("memories.l1.capacity", "B", 1e3, 1e12,
              "L1 cache and shared memory of one compute unit"),
    Parameter("memories.victim.capacity", "B", 0, 1e15, "victim cache between L1 and L2"),
    Parameter("memories.kv_sram.capacity", "B", 0, 1e15, "SRAM that holds the KV cache"),
    Parameter("memories.kv_sram.bandwidth", "B/s", 1e6, 1e18, "bandwidth of the KV SRAM"),
    Parameter("gemm.start", "1", 0, 1e6,
              "clock cycles of a matrix product beside its streaming: first tile in, last one out",
              True),
    Parameter("gemm.reduce", "s", 0, 1e-3,
              "time of the second kernel of a split-K product, beside its transfers", True),
    Parameter("gemm.cluster", "1", 1, 64,
              "thread blocks that share what one of them loads (multicast; 1: none)", True),
    Parameter("gemm.tile_step", "1", 8, 256,
              "granularity of tile sizes in the library of matrix products", True),
    Parameter("gemm.overlap", "1", 1, 16,
              "how well a product overlaps transfers and arithmetic (1: not at all)", True),
    Parameter("gemv.count", "1", 0, 1e6, "GEMV units (0: none)"),
    Parameter("gemv.lanes", "1", 1, 1e6, "multiply-accumulate lanes of one GEMV unit"),
    Parameter("gemv.latency", "s", 0, 1e-3, "start latency of the GEMV unit"),
    Parameter("fusion.chain", "1", 0, 1e4,
              "longest chain of operations that the fusion engine runs as one (0: none)"),
    Parameter("fusion.buffer", "B", 0, 1e12, "buffer that a fused chain may use in one unit"),
    Parameter("link.bandwidth", "B/s", 1e6, 1e18, "bandwidth to other chips, both directions"),
    Parameter("power.limit", "W", 1e-3, 1e6, "board power limit"),
    Parameter("power.idle", "W", 0, 1e6, "board power with nothing to do"),
    Parameter("area.die", "mm2", 1e-7, 1, "die area"),
    *(Parameter(f"floor.{name}", "s", 0, 1e-3, _FLOOR.format(text), True)
      for name, text in _FLOORS.items()),
    Parameter("launch.eager.host", "s", 0, 1e-2,
              "host time of one eager launch, framework included, where no trace gives it", True),
    Parameter("launch.eager.latency", "s", 0, 1e-2,
              "time from the host's launch call to the start on an idle device", True),
    Parameter("launch.eager.copy_latency", "s", 0, 1e-2,
              "time from the host's copy call to the start on an idle device", True),
    Parameter("launch.eager.interval", "s", 0, 1e-3,
              "idle time of the device between two operations launched one by one", True),
    Parameter("launch.graph.submit", "s", 0, 1e-1,
              "time from the host's graph launch to the first operation", True),
    Parameter("launch.graph.interval", "s", 0, 1e-3,
              "idle time of the device between two operations of a graph", True),
    Parameter("launch.queue.submit", "s", 0, 1e-1,
              "time from the host's doorbell to the first operation of a hardware queue", True),
    Parameter("launch.queue.interval", "s", 0, 1e-3,
              "idle time of the device between two operations of a hardware queue", True),
    Parameter("host.speed", "1", 1e-3, 1e3,
              "speed of the host relative to the host of the trace", True),
    Parameter("host.sync", "s", 0, 1e-2,
              "host time from the end of the device's work to the return of a sync", True),
)})  # fmt: skip


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
    """

    name: str
    title: str
    values: Mapping[str, float]
    provenance: Mapping[str, Provenance]
    devices: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

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
    >>> siblings("power.limti")
    'power.limit, power.idle'
    """
    group = path.split(".", 1)[0]
    near = [p for p in PARAMETERS if p.split(".", 1)[0] == group]
    return (
        ", ".join(near)
        if near
        else "one of " + ", ".join(dict.fromkeys(p.split(".", 1)[0] + ".*" for p in PARAMETERS))
    )


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
    if path.endswith(".count") and value != math.floor(value):
        raise InputError("not a whole number", place=path, value=value)
    return value


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
    p = parameter(path)
    if isinstance(value, str):
        try:
            value = units.parse(value, p.unit)
        except InputError as error:
            raise InputError(str(error), place=path) from None
    number = check(path, float(value))
    mark = Provenance("set by the user", "assumed", number, number)
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
            parameter(path)
            for value in np.unique(column):
                check(path, float(value))
        object.__setattr__(self, "columns", MappingProxyType(dict(self.columns)))

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
            return Designs(self.base), np.zeros(len(self), dtype=np.intp)
        table, which = np.unique(np.stack(list(columns.values())), axis=1, return_inverse=True)
        return Designs(self.base, dict(zip(columns, table, strict=True))), which.reshape(-1)

    def blocks(self, size: int) -> Iterator[Designs]:
        """Yield the designs in blocks of at most `size`."""
        for start in range(0, len(self), size):
            part = {p: c[start : start + size] for p, c in self.columns.items()}
            yield Designs(self.base, part)
