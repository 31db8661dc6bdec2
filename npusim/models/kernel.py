"""Device time of a kernel: a floor, and transfers and arithmetic that overlap.

Each kind of operation goes to the model that knows it; each of these says what it leaves out.

A product may have several places: the compute units, the GEMV unit and the matrix array of a
machine. It goes where it is fastest, or where ``products.place`` sends it if that unit takes it.
Where a machine has arrays they stand in place of the matrix units: a product in a type that they
take does not run on compute units.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import (
    attention,
    attention_combine,
    collective,
    fused,
    gemm,
    gemv_unit,
    hierarchy,
    routine,
    stream,
    systolic,
)
from npusim.models.cost import PLACES, Cost
from npusim.units import CHOICES
from npusim.workload import KINDS, Operations

PARAMETERS = ("products.place",)

_CELLS = 500_000  # operations times designs at once, which bounds memory
_NOTHING = 1e-9  # share of hits
BOUNDS = ("floor", "memory", "compute")
_AHEAD = ("channel", "ahead", "gain")

Array = NDArray[np.float64]

_Which = Callable[[Operations, Designs], NDArray[np.bool_]]
_Model = tuple[_Which, Collection[str], Callable[[Operations, Designs], Cost]]


def _of(*kinds: str) -> _Which:
    return lambda operations, _: np.isin(operations.kind, kinds)


# The first that takes an operation costs it.
_MODELS: tuple[_Model, ...] = (
    (collective.known, collective.READS, collective.collective_cost),
    (fused.known, fused.READS, fused.fused_cost),
    (routine.known, routine.READS, routine.routine_cost),
    (_of(*attention.KINDS), attention.READS, attention.attention_cost),
    (attention_combine.known, attention_combine.READS, attention_combine.combine_cost),
    (_of(*gemm.KINDS), gemm.READS, gemm.gemm_cost),
    (_of(*KINDS), stream.READS, stream.stream_cost),
)


# What may take products off compute units: arrays stand in their place, so they come first.
_BESIDE: dict[str, _Model] = {
    "array": (systolic.takes, systolic.READS, systolic.systolic_cost),
    "gemv_unit": (gemv_unit.takes, gemv_unit.READS, gemv_unit.gemv_unit_cost),
}


def reads() -> frozenset[str]:
    """Return every parameter on which the time of some operation may depend."""
    models = [*_MODELS, *_BESIDE.values()]
    return frozenset({*PARAMETERS, "prefetch.depth", *(p for _, known, _ in models for p in known)})


def kernel_cost(operations: Operations, designs: Designs) -> Cost:
    """Return what each operation costs on each design, each (U, D) [s].

    Designs that differ in nothing a model reads are costed once.
    """
    parts: tuple[str, ...] = BOUNDS
    if "prefetch.depth" in designs:  # what could come early does not depend on how deep it is
        parts = (*BOUNDS, *_AHEAD)
        designs = designs.changed({"prefetch.depth": np.ones(len(designs))})
    whole = {name: np.zeros((len(operations), len(designs))) for name in parts}
    left = np.ones(len(operations), dtype=bool)
    for takes, reads, model in _MODELS:
        rows = left & takes(operations, designs)
        if not rows.any():
            continue
        left &= ~rows
        for at, found in _costed(model, reads, operations, rows, designs):
            for name in parts:
                whole[name][at] = found(name)
    return Cost(**whole, place=_placed(whole, operations, designs))


def _costed(
    model: Callable[[Operations, Designs], Cost], reads: Collection[str],
    operations: Operations, rows: NDArray[np.bool_], designs: Designs,
) -> Iterator[tuple[NDArray[np.intp], Callable[[str], Array]]]:  # fmt: skip
    """Yield blocks of some of the operations: which they are, and each part of their cost."""
    part, at = operations.take(rows), np.flatnonzero(rows)
    few, which = _as_felt(part, designs).distinct({*reads, "prefetch.depth"})
    size = max(_CELLS // len(few), 1)
    for start in range(0, len(at), size):
        found = model(part.take(slice(start, start + size)), few)

        def on_all(name: str, found: Cost = found) -> Array:
            every: Array = np.broadcast_to(getattr(found, name), found.floor.shape)[:, which]
            return every

        yield at[start : start + size], on_all


def _placed(whole: dict[str, Array], operations: Operations, designs: Designs) -> Array | float:
    """Put what operations cost on units beside where they run there, and return which place it is.

    `whole` are the parts of what they cost on compute units; these are changed.
    """
    offers = [(place, *unit) for place, unit in _BESIDE.items()
              if unit[0](operations, designs).any()]  # fmt: skip
    if not offers:
        return 0.0
    place = np.zeros((len(operations), len(designs)))
    least = _wished(Cost(*(whole[name] for name in BOUNDS)).time, "units", designs)
    for name, takes, reads, model in offers:
        rows = takes(operations, designs)
        for at, found in _costed(model, reads, operations, rows, designs):
            time = Cost(*(found(part) for part in BOUNDS)).time
            wish = _wished(time, name, designs)
            here = wish < least[at]
            if name == "array":  # in place of compute units: what asks for them asks for it
                here |= np.isfinite(time) & (place[at] == 0)
                wish = np.where(least[at] == 0, 0.0, wish)
            least[at] = np.where(here, wish, least[at])
            for part, table in whole.items():
                table[at] = np.where(here, found(part), table[at])
            place[at] = np.where(here, PLACES.index(name), place[at])
    return place


def _wished(time: Array, place: str, designs: Designs) -> Array:
    """Return times by which places are compared: 0 for the one that the designs ask for, (U, D)."""
    path = PARAMETERS[0]
    if path not in designs:
        return time
    asked = designs[path] == CHOICES["products"].index(place)
    return np.where(asked & np.isfinite(time), 0.0, time)


def _as_felt(operations: Operations, designs: Designs) -> Designs:
    """Return designs with the caches of the first of them if these operations feel no other."""
    if hierarchy.is_felt(operations, designs, _NOTHING):
        return designs
    columns = {path: np.full_like(column, column[0]) if path in hierarchy.READS else column
               for path, column in designs.columns.items()}  # fmt: skip
    return designs.of(columns)


def kernel_time(operations: Operations, designs: Designs) -> NDArray[np.float64]:
    """Return the device time of each operation on each design, shape (U, D) [s].

    Examples
    --------
    >>> import npusim as ns
    >>> w, h200 = ns.load_workload("paddleocr_vl_decode"), Designs(ns.load_arch("h200"))
    >>> kernel_time(w.operations(), h200).shape == (len(w), 1)
    True
    """
    return kernel_cost(operations, designs).time


def parts(operations: Operations, designs: Designs) -> dict[str, NDArray[np.float64]]:
    """Return what each operation's time is made of, each (U, D) [s]; the sum is `kernel_time`."""
    cost = kernel_cost(operations, designs)
    return {name: getattr(cost, name) for name in BOUNDS}


def bound(operations: Operations, designs: Designs) -> NDArray[np.object_]:
    """Return which of `BOUNDS` is the largest part of each operation's time, shape (U, D)."""
    stacked = np.stack(list(parts(operations, designs).values()))
    names: NDArray[np.object_] = np.array(BOUNDS, dtype=object)[np.argmax(stacked, axis=0)]
    return names
