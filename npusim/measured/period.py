"""What a model says of measured operations, in the terms in which they were measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim import units as quantity
from npusim.arch import Designs
from npusim.errors import InputError
from npusim.measured.data import Measured
from npusim.measured.power_limit import slowed
from npusim.models.kernel import kernel_time
from npusim.models.routine import known

Array = NDArray[np.float64]


def predicted(measured: Measured, designs: Designs) -> Array:
    """Return the time that each measured operation should have taken on each design.

    With kernel time t, a period in a graph is ``t + launch.graph.interval + launch.graph.node``
    (the graph starts on an idle device, after its submission), or ``t + launch.graph.repeat`` where
    one kernel of a routine is repeated; one of eager launches is
    ``max(t + launch.eager.interval, launch.eager.host)``, whichever of device and host is slower; a
    time of the kernel alone is t. Rows with few compute units are of a machine that has no more of
    them. Where it is known how a graph was repeated, a power limit may have slowed it
    (`npusim.measured.power_limit`).

    Parameters
    ----------
    measured : Measured
        N operations.
    designs : Designs
        D designs.

    Returns
    -------
    array, shape (N, D)
        Times above zero [s].

    Raises
    ------
    InputError
        More compute units than a design has, or a time that is none.
    """
    time = np.empty((len(measured), len(designs)))
    for units in np.unique(measured.units):  # not-a-number once
        rows = np.flatnonzero(
            np.isnan(measured.units) if np.isnan(units) else measured.units == units
        )
        part = designs if np.isnan(units) else _limited(designs, units, measured, rows)
        time[rows] = kernel_time(measured.operations.take(rows), part)
    graph, eager = (measured.launch == launch for launch in ("graph", "eager"))
    again = known(measured.operations, designs)  # a benchmark's graph repeats that one kernel
    time[graph & again] += designs["launch.graph.repeat"]
    time[graph & ~again] += designs["launch.graph.interval"] + designs["launch.graph.node"]
    loop = time[eager] + designs["launch.eager.interval"]
    time[eager] = np.maximum(loop, designs["launch.eager.host"])
    if not (np.isfinite(time) & (time > 0)).all():
        row, design = np.argwhere(~(np.isfinite(time) & (time > 0)))[0]
        raise InputError("the model gives no time above zero", file=measured.source,
                         place=f"row {measured.row[row]}", value=time[row, design])  # fmt: skip
    sets = measured.sets[graph]
    time[graph] *= slowed(measured.operations.take(graph), time[graph], sets, designs)
    return time


def _limited(designs: Designs, units: float, measured: Measured, rows: NDArray[np.intp]) -> Designs:
    """Return designs that have so many compute units and no more."""
    least = float(designs["units.count"].min())
    if units > least:
        raise InputError("measured on more compute units than the machine has",
                         file=measured.source, place=f"row {measured.row[rows[0]]}, units",
                         value=int(units), allowed=f"up to {quantity.show(least, '1')}",
                         )  # fmt: skip
    column = np.full(len(designs), units)
    return Designs(designs.base, {**designs.columns, "units.count": column})
