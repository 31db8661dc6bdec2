"""Energy of a step: what each block of a machine takes, dynamic, clocks and leakage.

    E = sum over operations of (FLOP, functions, bytes, launches) x their energy
      + clocks of units that have a kernel
      + wall time x (clocks of each block + leakage of each block + the board beside the die)

Each part belongs to one block and is linear in its constants (an energy, a density, a power), so
that blocks add up to the total, and the band is that of the constants, in quadrature, with the
ends of the wall time beside them.

The clocks are taken to be up for the whole step, as on a GPU with work every few seconds. Blocks
that have nothing to do may be gated (``gating.*``): their clocks for as long as no operation uses
them, the leakage of units for products for as long as there are none; waking such a unit takes
``gating.wake`` before the operation that needs it (`wake_up`).

Left out: the host and its memory, power supplies, copies between devices, work and bytes of
operations whose shapes are not known (their time counts).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.durations import Durations
from npusim.library import HOST_COPIES
from npusim.models import special
from npusim.models.cost import Cost
from npusim.models.energy import (
    clock_power,
    has_energy,
    of_byte,
    of_operation,
    of_way,
    padded,
    resting,
    scales,
)
from npusim.models.hierarchy import LEVELS
from npusim.models.kernel import kernel_cost
from npusim.models.roofline import MATRIX_DTYPES
from npusim.traffic import traffic
from npusim.utilisation import BESIDE, arithmetic, in_place_share
from npusim.workload import Operations, Workload

Array = NDArray[np.float64]

KINDS = ("dynamic", "clocks", "leakage")
# Units for products: their leakage can be gated, and they wake.
PRODUCTS = ("matrix", *BESIDE, "sram_compute")
_IN_KERNELS = ("vector", "fp64", "special", "registers", "l1", "control", "fusion", "noc", "l2",
               "victim", "kv_sram", "weight_sram", "prefetch", "dram_phy")  # fmt: skip
KERNELS = "kernels"  # those blocks as one
_LUMPS = {**dict.fromkeys(_IN_KERNELS, KERNELS), **{unit: unit for unit in PRODUCTS}}


@dataclass(frozen=True)
class Part:
    """Energy of one block that is linear in each of its constants.

    Attributes
    ----------
    block : str
        One of `npusim.models.area.BLOCKS`, or ``dram``, ``units``, ``launch``, ``board``; ``die``
        where its area is not known.
    kind : str
        ``dynamic``, ``clocks`` or ``leakage``.
    paths : tuple of str
        The constants: one, or one and a factor on it.
    joules : array, shape (D,)
        Energy of a step [J].
    """

    block: str
    kind: str
    paths: tuple[str, ...]
    joules: Array


@dataclass(frozen=True)
class Spent:
    """Energy of a step on D designs.

    Attributes
    ----------
    parts : tuple of Part
    wall : array, shape (D,)
        Wall time of the step [s].
    """

    parts: tuple[Part, ...]
    wall: Array

    @property
    def joules(self) -> Array:
        """Energy of a step, shape (D,) [J]."""
        return _total([part.joules for part in self.parts])

    @property
    def watts(self) -> Array:
        """Mean power of a step, shape (D,) [W]."""
        return self.joules / np.maximum(self.wall, np.finfo(float).tiny)

    @property
    def movement(self) -> Array:
        """Energy of moving bytes between levels and units, shape (D,) [J]."""
        moving = [p.joules for p in self.parts if p.kind == "dynamic" and p.block in LEVELS]
        return _total(moving) if moving else np.zeros(len(self.wall))

    def by_block(self, kind: str | None = None) -> dict[str, Array]:
        """Return the energy of each block that takes any, each (D,) [J]; they sum to `joules`."""
        found: dict[str, Array] = {}
        for part in self.parts:
            if kind in (None, part.kind):
                found[part.block] = found.get(part.block, np.zeros(len(self.wall))) + part.joules
        return {block: joules for block, joules in found.items() if joules.any()}

    def band(self, designs: Designs, shorter: Array, longer: Array) -> tuple[Array, Array]:
        """Return the ends of the energy if constants and wall time are at theirs, (D,) each [J].

        Parameters
        ----------
        designs : Designs
            Their base says in which range each constant lies.
        shorter, longer : array, shape (D,)
            Ends of the wall time [s].
        """
        standing = [p.joules for p in self.parts if p.kind != "dynamic"]
        static = _total(standing) if standing else np.zeros(len(self.wall))
        power = static / np.maximum(self.wall, np.finfo(float).tiny)
        ends = []
        for end, wall in (("low", shorter), ("high", longer)):
            squares = (power * (wall - self.wall)) ** 2
            for path in dict.fromkeys(path for part in self.parts for path in part.paths):
                off = _off(path, end, designs)
                if off:
                    joules = _total([p.joules for p in self.parts if path in p.paths])
                    squares = squares + (joules * off) ** 2
            ends.append(np.sqrt(squares))
        return np.maximum(self.joules - ends[0], 0.0), self.joules + ends[1]


def _total(terms: Sequence[Array]) -> Array:
    """Return the sum of some terms, one by one: a stack of them would be copied first."""
    total: Array = reduce(np.add, terms)
    return total


def _off(path: str, end: str, designs: Designs) -> float:
    """Return how far an end of a constant lies from its value, as a share of it."""
    mark, value = designs.base.provenance.get(path), designs.base.values.get(path, 0.0)
    if mark is None or path in designs.columns or not value:
        return 0.0
    return float(getattr(mark, end)) / value - 1.0


def step_energy(workload: Workload, designs: Designs, time: Durations, wall: Array) -> Spent | None:
    """Return the energy of a step, the mean over the steps; None if the machine does not say.

    Parameters
    ----------
    workload : Workload
        S steps of K operations in all.
    designs : Designs
        D designs.
    time : Durations
        Device time of every operation on every design.
    wall : array, shape (D,)
        Wall time of a step [s].

    Returns
    -------
    Spent or None

    Examples
    --------
    A decode step of PaddleOCR-VL as a graph on an H200; measured 453 mJ:

    >>> import npusim as ns
    >>> from npusim.durations import durations
    >>> w, h200 = ns.load_workload("paddleocr_vl_decode"), Designs(ns.load_arch("h200"))
    >>> spent = step_energy(w, h200, durations(w, h200), np.array([2.4e-3]))
    >>> bool(0.35 < spent.joules[0] < 0.5)
    True
    """
    if not has_energy(designs):
        return None
    rows, inverse = workload.unique()
    operations, steps = workload.operations(rows), len(workload.steps)
    cost = kernel_cost(operations, designs) if time.cost is None else time.cost
    times = np.bincount(inverse, minlength=len(rows)) / steps
    took = _seconds(workload, time, inverse, len(rows)) / steps
    return spent(work_done(operations, times, took, designs, cost), traffic(workload, designs),
                 designs, wall)  # fmt: skip


def work_done(
    operations: Operations, times: Array, took: Array, designs: Designs, cost: Cost
) -> dict[str, Array]:
    """Return what a step does, summed over its operations, each (D,): what `spent` goes by.

    Sums of parts of the operations add up to those of all.

    Parameters
    ----------
    operations : Operations
        U operations.
    times : array, shape (U,)
        How often a step runs each.
    took : array, shape (U, D)
        Device time of each in a step, as often as it runs [s].
    designs : Designs
        D designs.
    cost : Cost
        What the operations cost there.

    Returns
    -------
    dict of str to array, shape (D,)
        FLOP of ``matrix.TYPE``, without those that stand for its operands' way, and, of rows that
        only fill its tiles, ``padding.TYPE``; of
        ``vector`` and the units beside; ``special`` functions, ``launch`` and ``copied`` [B];
        ``took`` of all operations and ``used.UNIT`` of those that run on a unit for products [s];
        ``at_work``, the time of compute units that have a kernel [unit x s].
    """
    flop, none = _flop(operations, designs, cost), np.zeros(len(designs))
    filling = padded(operations)[:, None] * (flop["matrix"] > 0)
    found = {unit: _sum(flop[unit], times) for unit in ("vector", *BESIDE, "sram_compute")}
    itself = np.maximum(flop["matrix"] - of_way(operations)[:, None], 0.0)
    for dtype in MATRIX_DTYPES:
        of = operations.dtype == dtype
        if of.any():
            found[f"matrix.{dtype}"] = _sum(itself[of], times[of])
            found[f"padding.{dtype}"] = _sum(filling[of], times[of])
    found["special"] = none + float(special.evaluations(operations) @ times)
    found["launch"] = none + times.sum()
    copied = np.isin(operations.routine, HOST_COPIES)
    moved = (operations["read_activation"] + operations["write_activation"])[copied] @ times[copied]
    found["copied"] = none + float(moved)
    units, blocks = designs["units.count"], operations["blocks"][:, None]
    at_work = np.where(blocks > 0, np.minimum(blocks, units), units)
    found["at_work"] = np.add.reduce(took * at_work, axis=0)
    found["took"] = took.sum(axis=0)
    for unit in PRODUCTS:
        found[f"used.{unit}"] = (took * (flop[unit] > 0)).sum(axis=0)
    return found


@dataclass(frozen=True)
class Standing:
    """What machines take whatever they do, each (D,) [W].

    Attributes
    ----------
    rest : array
        The board beside the die.
    leakage, clocks : mapping of str to array
        By block.
    """

    rest: Array
    leakage: Mapping[str, Array]
    clocks: Mapping[str, Array]

    @classmethod
    def of(cls, designs: Designs) -> Standing:
        """Return what D designs take."""
        rest, leaks = resting(designs)
        return cls(rest, leaks, clock_power(designs))

    def lumped(self) -> Standing:
        """Return the same with blocks that can be gated at the same times as one."""
        lumps: list[dict[str, Array]] = []
        for powers in (self.leakage, self.clocks):
            found: dict[str, Array] = {}
            for block, power in powers.items():
                name = _LUMPS.get(block, "die")
                found[name] = found[name] + power if name in found else power
            lumps.append(found)
        return Standing(self.rest, *lumps)


def spent(
    work: Mapping[str, Array], moved: Mapping[str, Mapping[str, Array]], designs: Designs,
    wall: Array, standing: Standing | None = None,
) -> Spent:  # fmt: skip
    """Return the energy of a step from what it does.

    Parameters
    ----------
    work : mapping of str to array, shape (D,)
        As `work_done` gives it.
    moved : mapping of str to mapping of str to array, shape (D,)
        Bytes by level and class of data, as `npusim.traffic.traffic` gives them [B].
    designs : Designs
        D designs of a machine that says what energy it takes.
    wall : array, shape (D,)
        Wall time of a step [s].
    standing : Standing, optional
        What the designs take whatever they do, if it is known already.
    """
    wall = np.broadcast_to(wall, len(designs)).astype(float)
    static = _static(work, designs, wall, standing or Standing.of(designs))
    parts = [*_computed(work, designs), *_moved(moved, designs), *static]
    return Spent(tuple(p for p in parts if p.joules.any()), wall)


def _seconds(workload: Workload, time: Durations, inverse: NDArray[np.intp], n: int) -> Array:
    """Return the device time of the operations of each kind, all steps together, (U, D) [s]."""
    known = time.row < n
    total = np.zeros((n, time.table.shape[1]))
    counts = np.bincount(inverse[known], time.scale[known], n)
    total += counts[:, None] * time.table[:n]
    unknown = np.bincount(inverse[~known], time.scale[~known], n)
    return total + unknown[:, None]


def _computed(work: Mapping[str, Array], designs: Designs) -> Iterator[Part]:
    """Yield what arithmetic, launches, copies and units at work take."""
    share = designs["energy.padding"] if "energy.padding" in designs else np.zeros(1)
    for dtype in MATRIX_DTYPES:
        path = f"energy.matrix.{dtype}"
        if f"matrix.{dtype}" in work:
            each = of_operation(path, designs)
            yield _part("matrix", path, work[f"matrix.{dtype}"] * each, designs)
            filled = work[f"padding.{dtype}"] * share * each
            yield _part("matrix", ("energy.padding", path), filled, designs)
    engines = dict.fromkeys((*BESIDE, "sram_compute"), "energy.engine")
    for name, path in {"vector": "energy.vector", "special": "energy.special", **engines,
                       "launch": "energy.launch"}.items():  # fmt: skip
        yield _part(name, path, work[name] * of_operation(path, designs), designs)
    copied = work["copied"] * of_operation("energy.host_copy", designs)
    yield _part("host_link", "energy.host_copy", copied, designs)
    cycles = work["at_work"] * designs["units.clock"]
    yield _part("units", "energy.cycle", cycles * of_operation("energy.cycle", designs), designs)


def _flop(operations: Operations, designs: Designs, cost: Cost) -> dict[str, Array]:
    """Return the FLOP of operations by what computes them, each (U, D)."""
    in_place = in_place_share(operations, designs, cost)
    return arithmetic(operations, designs, cost, in_place, np.zeros(cost.floor.shape))


def _sum(work: Array, times: Array) -> Array:
    """Return the sum over operations, (D,): not a matrix product, whose rounding moves."""
    total: Array = np.add.reduce(work * times[:, None], axis=0)
    return total


def _part(
    block: str, path: str | tuple[str, ...], joules: Array, designs: Designs, kind: str = "dynamic"
) -> Part:
    paths = (path,) if isinstance(path, str) else path
    paths = (*paths, *scales(paths[-1], designs))
    return Part(block, kind, paths, np.broadcast_to(joules, len(designs)))


def _moved(served: Mapping[str, Mapping[str, Array]], designs: Designs) -> Iterator[Part]:
    """Yield what moving bytes takes, by the level that serves them."""
    for level, groups in served.items():
        moved = sum(groups.values(), np.zeros(len(designs)))
        for path, each in of_byte(level, designs).items():
            yield _part(level, path, np.where(moved > 0, moved * each, 0.0), designs)


def _static(
    work: Mapping[str, Array], designs: Designs, wall: Array, standing: Standing
) -> Iterator[Part]:
    """Yield clocks and leakage of each block, and the board beside the die."""
    given = "power.idle" if "power.idle" in designs else ""
    used = _used(work, wall)
    saved = {kind: designs[f"gating.{kind}"] if f"gating.{kind}" in designs else np.zeros(1)
             for kind in ("clocks", "leakage")}  # fmt: skip
    for block, power in standing.leakage.items():
        idle = wall - used.get(block, wall)
        gated = saved["leakage"] * idle if block in PRODUCTS else 0.0
        yield _part(block, given or "leakage.density", power * (wall - gated), designs, "leakage")
    by_area = "clocks.density" if standing.leakage else "power.clocks"
    for block, power in standing.clocks.items():
        up = wall - saved["clocks"] * (wall - used.get(block, wall))
        yield _part(block, by_area, power * up, designs, "clocks")
    yield _part("board", given or "power.rest", standing.rest * wall, designs, "leakage")


def _used(work: Mapping[str, Array], wall: Array) -> dict[str, Array]:
    """Return for how long operations use each block that can be gated, each (D,) [s]."""
    found = dict.fromkeys((*_IN_KERNELS, KERNELS), np.minimum(work["took"], wall))
    return found | {unit: np.minimum(work[f"used.{unit}"], wall) for unit in PRODUCTS}


def wake_up(workload: Workload, designs: Designs) -> Array:
    """Return how long a step waits for units that were gated, the mean over the steps, (D,) [s].

    A unit for products sleeps while operations do not use it; the first one that does waits for it.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> gated = Designs(ns.load_arch("h200"), {"gating.leakage": np.array([0.0, 0.9]),
    ...                                        "gating.wake": np.array([1e-6, 1e-6])})
    >>> none, some = wake_up(w, gated)
    >>> float(none), bool(1e-5 < some < 1e-3)
    (0.0, True)
    """
    if "gating.wake" not in designs or "gating.leakage" not in designs:
        return np.zeros(len(designs))
    each = np.where(designs["gating.leakage"] > 0, designs["gating.wake"], 0.0)
    if not each.any():
        return np.zeros(len(designs))
    rows, inverse = workload.unique()
    operations = workload.operations(rows)
    flop = _flop(operations, designs, kernel_cost(operations, designs))
    opens = np.append(True, np.diff(workload["step"]) != 0)[:, None]
    wakes = np.zeros((len(workload), len(designs)), dtype=bool)
    for unit in PRODUCTS:
        now = np.broadcast_to(flop[unit] > 0, (len(rows), len(designs)))[inverse]
        before = np.vstack([np.zeros((1, now.shape[1]), dtype=bool), now[:-1]])
        wakes |= now & (opens | ~before)
    result: Array = each * wakes.sum(axis=0) / len(workload.steps)
    return result
