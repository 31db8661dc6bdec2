"""Device times of the operations of a workload, on many designs at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Arch, Designs
from npusim.errors import InputError
from npusim.models.cost import Cost
from npusim.models.kernel import kernel_cost, kernel_time
from npusim.models.prefetch import depth
from npusim.transforms import refuse_without_rate
from npusim.workload import Workload

Array = NDArray[np.float64]

MODES = ("model", "transfer")


@dataclass(frozen=True)
class Durations:
    """Device time of K operations on D designs: ``table[row[k]] * scale[k]`` [s].

    Attributes
    ----------
    table : array, shape (U + 1, D)
        One row a distinct operation, and a last one of ones for times that are carried over.
    row : array of int, shape (K,)
        Which row each operation takes.
    scale : array, shape (K,)
        What its row is multiplied by.
    cost : Cost, optional
        What the table is made of, where models made it.
    early : array, shape (3, U + 1, D), optional
        Where a machine loads weights ahead: ``channel``, ``ahead`` and ``gain`` of
        `npusim.models.cost.Cost` for each row [s]. `table` is without it.
    """

    table: Array
    row: NDArray[np.intp]
    scale: Array
    early: Array | None = None
    cost: Cost | None = None

    def scaled(self, factor: Array | float) -> Durations:
        """Return modelled durations times a factor, one or of shape (D,); measured ones stay."""
        table = self.table.copy()
        table[:-1] *= factor
        if self.early is None:
            return Durations(table, self.row, self.scale)
        early = self.early.copy()
        early[:, :-1] *= factor
        return Durations(table, self.row, self.scale, early)

    def block(self, designs: slice) -> Durations:
        """Return those of some of the designs."""
        early = None if self.early is None else self.early[:, :, designs]
        return Durations(self.table[:, designs], self.row, self.scale, early)

    def early_of(self, operation: int) -> Array:
        """Return channel, ahead and gain of one operation, shape (3, D) [s]."""
        if self.early is None:
            return np.zeros((3, 1))
        times: Array = self.early[:, self.row[operation]] * self.scale[operation]
        return times

    def of(self, operation: int) -> Array:
        """Return the time of one operation, shape (D,) [s]."""
        time: Array = self.table[self.row[operation]] * self.scale[operation]
        return time

    def busy(self) -> Array:
        """Return the sum over operations, shape (D,) [s]."""
        counts = np.bincount(self.row, self.scale, len(self.table))
        # Not a matrix product: there the rounding of a column depends on where it stands, and
        # designs that are equally fast would seem to differ.
        total: Array = np.add.reduce(counts[:, None] * self.table, axis=0)
        return total


def durations(
    workload: Workload, designs: Designs, mode: str = "model", traced: Arch | None = None
) -> Durations:
    """Return the device time of every operation on every design.

    Parameters
    ----------
    workload : Workload
        K operations.
    designs : Designs
        D designs.
    mode : {"model", "transfer"}
        ``model`` uses shapes and the machine alone. ``transfer`` multiplies the measured time by
        the ratio of modelled times, so that the measured utilisation of each kernel is carried
        over. Operations without shapes keep their measured time in both.
    traced : Arch, optional
        The machine that was traced; ``transfer`` needs it.

    Returns
    -------
    Durations

    Raises
    ------
    InputError
        An unknown mode, ``transfer`` without the traced machine, or products in a type that the
        workload was put into and the machine has no rate for.
    """
    refuse_without_rate(workload, designs)
    rows, inverse = workload.unique()
    operations = workload.operations(rows)
    cost = kernel_cost(operations, designs)
    table = cost.time
    scale = np.ones(len(workload))
    if mode == "transfer":
        if workload.meta.get("measured") is False:
            raise InputError("nothing to transfer: the trace has no device times",
                             file=workload.name, hint="use --mode model")  # fmt: skip
        if traced is None:
            raise InputError("transfer needs the machine that was traced", file=workload.name,
                             value=workload.meta.get("device", ""),
                             hint="use --mode model")  # fmt: skip
        scale = workload["duration_s"] / kernel_time(operations, Designs(traced))[inverse, 0]
    elif mode != "model":
        raise InputError("unknown mode", value=mode, allowed=", ".join(MODES))
    # One more row of ones: times that no model can give are carried over as measured.
    table = np.vstack([table, np.ones((1, table.shape[1]))])
    kept = ~workload.classified
    row = np.where(kept, len(rows), inverse)
    early = None
    if depth(designs) is not None:
        early = np.zeros((3, *table.shape))
        early[:, :-1] = cost.channel, cost.ahead, cost.gain
        early[0, -1] = 1.0  # what nobody knows may need DRAM all the time
    return Durations(table, row, np.where(kept, workload["duration_s"], scale), early, cost)


def as_measured(workload: Workload) -> Durations:
    """Return the measured time of every operation, to be carried over to one design.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> round(float(as_measured(w).busy()[0] / w["duration_s"].sum()), 9)
    1.0
    """
    return Durations(
        np.ones((1, 1)), np.zeros(len(workload), dtype=np.intp), workload["duration_s"]
    )
