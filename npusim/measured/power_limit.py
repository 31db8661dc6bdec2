"""What the power limit of a board makes of an operation that a benchmark repeats.

A board lets a load take more than its limit for a while and then lowers the clock of its units
until the load takes ``power.brief``, what it holds loads of less than half a second at:

    time(t) = time at full clock + g(t) (time at that clock - time at full clock)
    g(t)    = clip(t / power.window - 1/2, 0, 1)

t is how long the operation has been repeated. The board looks at its power at ticks of its own, so
a load is held from anywhere between half a window and one and a half: g is the mean over where
the ticks fall, and one measurement is off it by up to what the limit takes.

Source: h200_power_window.json: fourteen products, twelve times each, after rests of different
lengths.

Left out: how far above it the load is (all that is above it waits as long), what power it took
before, temperature, loads of half a second and more, which end at ``power.limit``. Rows whose
benchmark is not known (`Measured.sets`), eager loops and machines without both parameters run at
full clock.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.energy import Standing, spent, work_done
from npusim.graph_timing import load
from npusim.models.cost import Cost
from npusim.models.energy import has_energy
from npusim.models.hierarchy import served
from npusim.models.kernel import kernel_cost
from npusim.models.voltage import clocked
from npusim.workload import Operations

Array = NDArray[np.float64]

_CLOCKS = np.linspace(1.0, 0.4, 13)  # of the full clock: no board goes lower


def slowed(operations: Operations, period: Array, sets: Array, designs: Designs) -> Array:
    """Return how many times as long operations take after what their benchmark did before, (N, D).

    Parameters
    ----------
    operations : Operations
        N operations.
    period : array, shape (N, D)
        Time from one to the next at full clock, above 0 [s].
    sets : array, shape (N,)
        Operand sets in turn; not-a-number where it is not known how they were repeated.
    designs : Designs
        D designs.

    Returns
    -------
    array, shape (N, D)
        From 1.

    Examples
    --------
    A board of an H200 holds a product of 4096 x 8192 x 8192, and not one of 16 rows:

    >>> import npusim as ns
    >>> from npusim.measured.shapes import linear, operations
    >>> two = operations([linear("bf16", m, 8192, 8192) for m in (16, 4096)])
    >>> h200, period = Designs(ns.load_arch("h200")), np.array([[35e-6], [690e-6]])
    >>> slowed(two, period, np.array([3.0, 3.0]), h200).round(1).ravel().tolist()
    [1.0, 1.1]
    """
    factor = np.ones(period.shape)
    if not all(p in designs for p in ("power.brief", "power.window")) or not has_energy(designs):
        return factor
    part = _held_part(period, sets, designs)
    rows = np.flatnonzero((part > 0).any(axis=1))
    over = watts(operations.take(rows), period[rows], designs) > designs["power.brief"]
    rows = rows[over.any(axis=1)]
    if len(rows):
        held = at_limit(operations.take(rows), period[rows], designs)
        factor[rows] += part[rows] * (held - 1.0)
    return factor


def _held_part(period: Array, sets: Array, designs: Designs) -> Array:
    """Return how much of what the limit takes is there when the median is, 0 to 1, (N, D)."""
    lasted = np.zeros(period.shape)
    for row in np.flatnonzero(~np.isnan(sets)):
        lasted[row] = [load(one, int(sets[row])) for one in period[row]]
    window = np.maximum(designs["power.window"], np.finfo(float).tiny)
    part: Array = np.clip(lasted / window - 0.5, 0.0, 1.0)
    return part


def at_limit(operations: Operations, period: Array, designs: Designs) -> Array:
    """Return how many times as long operations take where ``power.brief`` holds them, (N, D).

    Parameters
    ----------
    operations : Operations
        N operations.
    period : array, shape (N, D)
        Time from one to the next at full clock [s].
    designs : Designs
        D designs with ``power.brief``.
    """
    count = len(_CLOCKS)
    many = designs.of({path: np.repeat(c, count) for path, c in designs.columns.items()})
    slower = clocked(many, np.tile(_CLOCKS, len(designs)))
    time = kernel_cost(operations, slower).time.reshape(*period.shape, count)
    time = period[..., None] + time - time[..., :1]
    power = watts(operations, time.reshape(len(period), -1), slower).reshape(time.shape)
    limit = np.broadcast_to(designs["power.brief"], len(designs))
    # Power falls with the clock: `np.interp` asks for what rises.
    held = [[np.interp(-limit[d], -power[n, d], time[n, d]) for d in range(len(designs))]
            for n in range(len(period))]  # fmt: skip
    return np.array(held).reshape(period.shape) / period


def watts(operations: Operations, period: Array, designs: Designs) -> Array:
    """Return the mean power of designs that repeat one operation at a time, (N, D) [W]."""
    cost, standing = kernel_cost(operations, designs), Standing.of(designs)
    power = np.empty(period.shape)
    for row in range(len(period)):
        one, its = operations.take(np.array([row])), _of_row(cost, row)
        work = work_done(one, np.ones(1), its.time, designs, its)
        moved: dict[str, dict[str, Array]] = {}
        for (level, data), amount in served(one, designs).items():
            moved.setdefault(level, {})[data] = amount
        power[row] = spent(work, moved, designs, period[row], standing).watts
    return power


def _of_row(cost: Cost, row: int) -> Cost:
    """Return the cost of one operation."""
    parts = {f.name: np.asarray(getattr(cost, f.name)) for f in fields(cost)}
    return Cost(**{name: p[row : row + 1] if p.ndim else p for name, p in parts.items()})
