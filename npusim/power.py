"""Power limits: how far a board's clocks fall until the mean power of a step is below its limit.

Boards hold their power over tens of milliseconds, longer than most steps, by the clock of their
units. So the mean power of a step that is repeated counts, and the clock is the highest at which

    P(clock) = energy of a step at that clock / its wall time  <=  power.limit

Energy falls with the square of the voltage, and the step takes longer where the clock of the units
decides (`npusim.models.voltage`). Below the limit nothing changes, bit by bit.

Left out: limits of current and temperature, which hold some products of an H200 below their clock
at 400 W; single bursts, which a board lets through.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Arch, Designs
from npusim.durations import Durations, durations
from npusim.energy import step_energy, wake_up
from npusim.lanes import replay
from npusim.models.energy import has_energy
from npusim.models.voltage import clocked
from npusim.workload import Workload

Array = NDArray[np.float64]

LEAST = 0.05  # of the clock: no board goes lower
_HALVINGS = 15


@dataclass(frozen=True)
class Held:
    """Designs at the clocks that their power limit allows.

    Attributes
    ----------
    designs : Designs
        D designs, their clocks lowered where they must be.
    time : Durations
        Device time of every operation there.
    share : array, shape (D,)
        Clock as a share of what the design asks for.
    """

    designs: Designs
    time: Durations
    share: Array


def held(
    workload: Workload, designs: Designs, launch: str, mode: str = "model",
    traced: Arch | None = None,
) -> Held:  # fmt: skip
    """Return designs at the clocks that their power limit allows while they repeat a workload.

    Parameters
    ----------
    workload : Workload
        K operations.
    designs : Designs
        D designs; those without ``power.limit``, or of whose energy nothing is known, stay.
    launch, mode, traced
        As in `npusim.durations.durations` and `npusim.lanes.replay`.

    Examples
    --------
    A decode step is far from the limit of an H200; one of 100 W holds it down:

    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> limits = {"power.limit": np.array([700.0, 140.0])}
    >>> (held(w, Designs(ns.load_arch("h200"), limits), "graph").share < 1).tolist()
    [False, True]
    """
    time, share = durations(workload, designs, mode, traced), np.ones(len(designs))
    if "power.limit" not in designs or not has_energy(designs):
        return Held(designs, time, share)
    limit = np.broadcast_to(designs["power.limit"], len(designs))
    over = np.flatnonzero(mean_power(workload, designs, time, launch) > limit)
    if not len(over):
        return Held(designs, time, share)
    few = Designs(designs.base, {**{p: c[over] for p, c in designs.columns.items()},
                                 "power.limit": limit[over]})  # fmt: skip
    low, high = np.full(len(over), LEAST), np.ones(len(over))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        slower = clocked(few, middle)
        took = durations(workload, slower, mode, traced)
        fits = mean_power(workload, slower, took, launch) <= limit[over]
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    share[over] = low
    settled = clocked(designs, share)
    return Held(settled, durations(workload, settled, mode, traced), share)


def mean_power(workload: Workload, designs: Designs, time: Durations, launch: str) -> Array:
    """Return the mean power of a step on each design, (D,) [W]; NaN where it is not known."""
    wall = replay(workload, designs, time, launch).wall_s + wake_up(workload, designs)
    spent = step_energy(workload, designs, time, wall)
    return np.full(len(designs), np.nan) if spent is None else spent.watts
