"""Utilisation: which share of a step each unit of a machine would be at work, at its peak rate.

    share = sum over the operations of min(work on the unit / its peak, time of the operation)
            / wall time

The peak is that of the datasheet: rate, count and clock, without an efficiency. A matrix unit that
is busy for 3 % of a step has done what 3 % of the step would have been enough for. A unit is at
work for no operation longer than that runs: where the library's measured cycles leave less time
than the peak of a changed machine asks for, the share is that of the time.

- ``matrix``, ``vector``: FLOP by the unit that computes them (`npusim.models.roofline.unit_of`), on
  ``vector`` also the special functions that it evaluates as polynomials;
- ``special``: special functions, or whole elements (`npusim.models.special`), on a machine that
  says how fast they are;
- ``gemv_unit``, ``array``, ``sram_compute``: products that run there;
- ``dram``, ``l2``: bytes that they serve, against what they give.

Of an operation whose shapes are not known no work is known, and no share.

Left out: tiles that a cache gives to units again and again, work for padding and for rows that are
computed and thrown away (attention's are not counted), copy engines, concurrency: operations of
streams that overlap may ask for more than there is, and shares then exceed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.durations import Durations
from npusim.models import special, sram_compute
from npusim.models.cost import PLACES, Cost
from npusim.models.hierarchy import Traffic
from npusim.models.kernel import kernel_cost
from npusim.models.memory import l2_peak
from npusim.models.roofline import matrix_clock, matrix_peak, unit_of, vector_peak
from npusim.workload import BYTES_OF, Operations, Workload

Array = NDArray[np.float64]

BESIDE = PLACES[1:]  # units that compute products in place of compute units
UNITS = ("matrix", "vector", "special", *BESIDE, "sram_compute", "dram", "l2")

_CELLS = 500_000  # operations times designs at once, which bounds memory
_ON_LANES = ("conv_vector",)  # routines of products that lanes compute


def utilisation(
    workload: Workload, designs: Designs, time: Durations, wall: Array
) -> dict[str, Array]:
    """Return the share of a step in which each unit would be at work at its peak rate.

    Parameters
    ----------
    workload : Workload
        S steps of K operations in all.
    designs : Designs
        D designs.
    time : Durations
        Device time of every operation on every design.
    wall : array, shape (D,)
        Wall time of a step, the mean over the steps [s].

    Returns
    -------
    dict of str to array, shape (D,)
        For each of `UNITS` that some design has.

    Examples
    --------
    A decode step reads each weight once and multiplies it once: matrix units have hardly anything
    to do, and DRAM is at work for a small part of its kernels' time, which is mostly floors.

    >>> import npusim as ns
    >>> from npusim.durations import durations
    >>> w, h200 = ns.load_workload("paddleocr_vl_decode"), Designs(ns.load_arch("h200"))
    >>> time = durations(w, h200)
    >>> found = utilisation(w, h200, time, time.busy() / len(w.steps))
    >>> bool(found["matrix"][0] < 0.01), bool(0.05 < found["dram"][0] < 0.2)
    (True, True)
    """
    rows, inverse = workload.unique()
    needed = times_at_peak(workload.operations(rows), designs)
    total = {unit: np.zeros(len(designs)) for unit in needed}
    size = max(_CELLS // len(designs), 1)
    for start in range(0, len(workload), size):
        part = slice(start, start + size)
        took = time.table[time.row[part]] * time.scale[part, None]
        for unit, least in needed.items():
            total[unit] += np.minimum(least[inverse[part]], took).sum(axis=0)
    all_of_it = np.maximum(wall, np.finfo(float).tiny) * len(workload.steps)
    return {unit: at_work / all_of_it for unit, at_work in total.items()}


def times_at_peak(operations: Operations, designs: Designs) -> dict[str, Array]:
    """Return how long each unit needs for operations at its peak rate, each (U, D) [s]."""
    cost = kernel_cost(operations, designs)
    in_place = in_place_share(operations, designs, cost)
    single, whole, on_lanes = functions(operations, designs, cost)
    flop = arithmetic(operations, designs, cost, in_place, whole)
    times = {
        "matrix": np.zeros(flop["matrix"].shape),
        "vector": flop["vector"] / vector_peak(designs),
    }
    for dtype in set(operations.dtype):
        of = operations.dtype == dtype
        if f"matrix.{dtype}.rate" in designs:
            times["matrix"][of] = flop["matrix"][of] / matrix_peak(designs, dtype)
    if special.PARAMETERS[0] in designs:
        rate = designs["special.rate"] * designs["units.count"] * designs["units.clock"]
        times["special"] = (single + whole) / rate
        if "special.emulated" in designs:
            each = designs["special.emulated"] / vector_peak(designs)
            times["vector"] = times["vector"] + on_lanes * each
    for unit in BESIDE:
        if flop[unit].any():
            times[unit] = flop[unit] / _peak_beside(unit, operations, designs)
    if in_place.any():
        passes = np.maximum(operations["batch"], 1) * np.maximum(operations["m"], 1)
        moved = passes[:, None] * operations["read_weight"][:, None]
        times["sram_compute"] = in_place * moved / designs["sram_compute.bandwidth"]
    return times | _levels(operations, designs, in_place)


def arithmetic(
    operations: Operations, designs: Designs, cost: Cost, in_place: Array, whole: Array
) -> dict[str, Array]:
    """Return the FLOP of operations by what computes them, each (U, D); they add up to all FLOP.

    Parameters
    ----------
    operations : Operations
        U operations.
    designs : Designs
        D designs.
    cost : Cost
        What the operations cost there.
    in_place : array, shape (U, D)
        1 where arrays that hold their weights compute them.
    whole : array, shape (U, D)
        Elements of those that the special unit does whole, 0 elsewhere.
    """
    flop = np.broadcast_to(operations["flop"][:, None].astype(float), cost.floor.shape)
    pairs = zip(operations.kind, operations.dtype, operations.routine, strict=True)
    matrix = np.array([unit_of(kind, dtype, designs) == "matrix" and routine not in _ON_LANES
                       for kind, dtype, routine in pairs])[:, None]  # fmt: skip
    beside = {unit: cost.at(unit) * (1.0 - in_place) for unit in BESIDE}
    beside |= {"sram_compute": in_place, "special": (whole > 0).astype(float)}
    left = flop * (1.0 - np.sum(list(beside.values()), axis=0))
    return {unit: flop * there for unit, there in beside.items()} | {
        "matrix": np.where(matrix, left, 0.0),
        "vector": np.where(matrix, 0.0, left),
    }


def functions(operations: Operations, designs: Designs, cost: Cost) -> tuple[Array, Array, Array]:
    """Return functions on the special unit, elements that it does whole, functions on lanes.

    Each has shape (U, D). Where operations may run where they are fastest, those that take no
    longer on the special unit are there.

    Parameters
    ----------
    operations : Operations
        U operations.
    designs : Designs
        D designs; without ``special.rate`` instructions do all of them, and none is counted.
    cost : Cost
        What the operations cost there.
    """
    needed, elements = special.evaluations(operations), special.whole_elements(operations)
    single, whole, on_lanes = (np.zeros(cost.floor.shape) for _ in range(3))
    at = np.flatnonzero((needed > 0) | (elements > 0))
    if special.PARAMETERS[0] not in designs or not len(at):
        return single, whole, on_lanes
    few, took = operations.take(at), cost.time[at]
    ways = (_sent(designs), _sent(designs, {"special.whole": 0.0}))  # whole units as they may
    at_best, apart = (kernel_cost(few, way).time <= took for way in ways)
    as_whole = at_best & (special.value("special.whole", designs) > 0) & (elements[at, None] > 0)
    place = special.value("special.place", designs)
    lanes = (place == special.PLACES.index("vector")) | (
        (place == special.PLACES.index("fastest")) & ~(at_best | apart)
    )
    whole[at] = np.where(as_whole & ~lanes, elements[at, None], 0.0)
    single[at] = np.where(as_whole | lanes, 0.0, needed[at, None])
    on_lanes[at] = np.where(lanes, needed[at, None], 0.0)
    return single, whole, on_lanes


def _sent(designs: Designs, more: Mapping[str, float] = MappingProxyType({})) -> Designs:
    """Return designs that send all special functions to their special unit."""
    to = {"special.place": float(special.PLACES.index("special")), **more}
    columns = {path: np.full(len(designs), value) for path, value in to.items()}
    return designs.changed(columns)


def in_place_share(operations: Operations, designs: Designs, cost: Cost) -> Array:
    """Return 1 where arrays that hold their weights compute operations, (U, D)."""
    path = sram_compute.PARAMETERS[0]
    if path not in designs or not designs[path].any():
        return np.zeros(cost.floor.shape)
    without = kernel_cost(operations, designs.changed({path: np.zeros(len(designs))}))
    changed = (cost.at("gemv_unit") == 0) & (without.time != cost.time)
    return np.where(changed, 1.0, 0.0)


def _peak_beside(unit: str, operations: Operations, designs: Designs) -> Array:
    """Return what a unit beside matrix and vector units does of each type, (U, D) [FLOP/s]."""
    if unit == "gemv_unit":
        lanes = designs["gemv.count"] * designs["gemv.lanes"] * designs["units.clock"]
    else:
        lanes = designs["array.rows"] * designs["array.columns"] * matrix_clock(designs)
        lanes = lanes * designs["units.count"]
    values = 2.0 / np.array([BYTES_OF.get(d, 2.0) for d in operations.dtype])  # of 16 bits
    return np.maximum(2.0 * lanes * values[:, None], 1.0)  # a design without the unit has no work


def _levels(operations: Operations, designs: Designs, in_place: Array) -> dict[str, Array]:
    """Return how long DRAM and the last-level cache need for what they serve, each (U, D) [s]."""
    traffic = Traffic(operations, designs)
    rates = {"dram": designs["memories.dram.bandwidth"]}
    if "memories.l2.capacity" in designs:
        rates["l2"] = l2_peak(designs)
    return {level: (traffic.moved(level) - in_place * traffic.bytes(level, "read_weight")) / rate
            for level, rate in rates.items()}  # fmt: skip
