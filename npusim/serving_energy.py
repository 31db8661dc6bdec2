"""Energy of a run: power of a step by the tokens that enter, and resting boards between steps.

    energy = sum over engines of chips x (sum over steps of watts(tokens) x time + rest x idle time)

Left out: what contexts, images and links add to the power of a step; a band.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from npusim.arch import Arch
from npusim.clock_modes import sleeping
from npusim.serving import Outcome, Pool
from npusim.step_times import GridTimes, Line


@dataclass(frozen=True)
class Chips:
    """The chips of some engines: how many of each, their power in steps and between them [W]."""

    engines: int
    tensor: int
    watts: Line | None
    idle_w: float | None


def chips_of(pool: Pool, tensor: int, arch: Arch) -> Chips:
    """Return the chips of some engines.

    Parameters
    ----------
    pool : Pool
    tensor : int
        Chips of an engine.
    arch : Arch
    """
    watts = pool.times.watts if isinstance(pool.times, GridTimes) else None
    return Chips(pool.engines, tensor, watts, None if watts is None else sleeping(arch))


def joules(o: Outcome, chips: Sequence[Chips]) -> float | None:
    """Return the energy of a run [J], None where that of a machine is not known.

    Parameters
    ----------
    o : Outcome
    chips : sequence of Chips
        In the order of `Outcome.engines`.
    """
    total, courses = 0.0, iter(o.engines)
    for some in chips:
        if some.watts is None or some.idle_w is None:
            return None
        for course in itertools.islice(courses, some.engines):
            power = np.interp(course.tokens, some.watts.x, some.watts.y)
            idle = max(o.end_s - course.busy_s, 0.0) * some.idle_w
            total += some.tensor * (float(power @ course.seconds) + idle)
    return total
