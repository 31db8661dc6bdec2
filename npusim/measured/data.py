"""N measured operations as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.measured.shapes import Measurable, operations
from npusim.transforms import refuse_changed
from npusim.workload import Operations, Workload

Array = NDArray[np.float64]

LAUNCHES = ("graph", "kernel", "eager")


@dataclass(frozen=True)
class Measured:
    """N measured operations.

    Attributes
    ----------
    operations : Operations
        What each of them does, N rows.
    seconds : array, shape (N,)
        Measured time [s].
    op : array of str, shape (N,)
        What a table calls it (``linear``, ``decode_attention``, ``prefill_attention``,
        ``pointwise``, ``stream``); of a trace the kind of the kernel.
    launch : array of str, shape (N,)
        What `seconds` is: of ``graph`` and ``eager`` the period of back-to-back launches, of
        ``kernel`` the time on the device alone.
    units : array, shape (N,)
        Compute units that it may use; not-a-number for all of them.
    sets : array, shape (N,)
        Operand sets that a graph of ``npusim capture`` takes in turn, which says how long it was
        repeated (`npusim.graph_timing`); not-a-number where that is not known.
    row : array of int, shape (N,)
        Line of a table, row of a file of experiments (from 1), or number of the operation in a
        trace (from 0).
    source : str
        Where they come from.
    notes : tuple of str
        What was left out or taken for granted.
    """

    operations: Operations
    seconds: Array
    op: NDArray[np.object_]
    launch: NDArray[np.object_]
    units: Array
    sets: Array
    row: NDArray[np.int64]
    source: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of measured operations N."""
        return len(self.seconds)

    def take(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> Measured:
        """Return some of the operations, by index or by mask."""
        columns = ("seconds", "op", "launch", "units", "sets", "row")
        arrays = {c: getattr(self, c)[chosen] for c in columns}
        return replace(self, operations=self.operations.take(chosen), **arrays)

    def labelled(
        self, rows: NDArray[np.bool_], library: str | None = None, routine: str | None = None
    ) -> Measured:
        """Return the same with what ran some of the operations, where the source does not say."""
        o = self.operations

        def put(old: NDArray[np.object_], new: str | None) -> NDArray[np.object_]:
            return old if new is None else np.where(rows, np.array(new, dtype=object), old)

        labels = put(o.library, library), put(o.routine, routine)
        return replace(self, operations=replace(o, library=labels[0], routine=labels[1]))


@dataclass
class Gathered:
    """Measured operations as they are read, one after the other."""

    what: list[Measurable] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    op: list[str] = field(default_factory=list)
    launch: list[str] = field(default_factory=list)
    units: list[float] = field(default_factory=list)
    sets: list[float] = field(default_factory=list)
    row: list[int] = field(default_factory=list)

    def add(
        self, row: int, op: str, what: Measurable, us: float,
        launch: str = "graph", units: float = np.nan, sets: float = np.nan,
    ) -> None:  # fmt: skip
        """Add one operation and its time [us]."""
        self.what.append(what)
        self.seconds.append(us / 1e6)
        self.op.append(op)
        self.launch.append(launch)
        self.units.append(units)
        self.sets.append(sets)
        self.row.append(row)

    def done(self, path: Path, notes: Sequence[str]) -> Measured:
        """Return all of them.

        Raises
        ------
        InputError
            There are none.
        """
        if not self.what:
            raise InputError("no measured operations", file=path)
        op, launch = (np.array(texts, dtype=object) for texts in (self.op, self.launch))
        return Measured(operations(self.what), np.array(self.seconds), op, launch,
                        np.array(self.units), np.array(self.sets), np.array(self.row),
                        path.name, tuple(notes))  # fmt: skip


def from_workload(workload: Workload) -> Measured:
    """Return the kernels of a trace whose FLOP and bytes are known and that took any time.

    Raises
    ------
    InputError
        There are none, the trace has no device times, or the workload is not as it was traced.

    Examples
    --------
    >>> import npusim as ns
    >>> m = from_workload(ns.load_workload("paddleocr_vl_decode"))
    >>> set(m.launch), len(m) > 2000
    ({'kernel'}, True)
    """
    refuse_changed(workload, "a measured time")
    known = workload.classified & (workload["duration_s"] > 0)
    if workload.meta.get("measured") is False or not known.any():
        raise InputError("no kernel with known shapes and a measured time", file=workload.name)
    row = np.flatnonzero(known)
    left = len(workload) - len(row)
    notes = (f"kernels without shapes or time, left out: {left} of {len(workload)}",) * (left > 0)
    unknown = np.full(len(row), np.nan)
    return Measured(workload.operations(row), workload["duration_s"][row],
                    workload.text("kind")[row], np.full(len(row), "kernel", dtype=object),
                    unknown, unknown, row, workload.name, notes)  # fmt: skip
