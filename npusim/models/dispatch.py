"""Handing thread blocks to compute units, which takes a kernel of many small blocks its time.

    t_rate    = blocks / (block_rate x clock)                    while others are at work
    t_stagger = (min(blocks, units) - 1) x stagger / clock       before the last unit has one

All units together start ``units.block_rate`` blocks a clock, however many units there are: that
bounds a kernel like its transfers do, and overlaps with all else (an 8-norm in
`npusim.models.routine`). The first block of the last unit starts ``units.stagger`` cycles a unit
after that of the first one; nothing hides it.

Source: kernels of 1 to 8,192 full blocks on an H200 (workloads/experiments/h200_small_kernels.md):
0.5 to 0.65 ns a block more, whether a block writes 2 KB or moves 6, and 0.07 us more on all 132
units than on one beside it.

Left out: larger blocks, which may take longer to start; clusters; what a unit does to start one,
which is a number of its routine (`npusim.models.routine`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs

Array = NDArray[np.float64]

PARAMETERS = ("units.block_rate", "units.stagger", "units.count", "units.clock")


def rate_time(blocks: Array, designs: Designs) -> Array:
    """Return how long it takes to start all blocks, (U, D) or (U, 1) [s].

    `blocks` are (U, 1), 0 where the launch is not known. A machine without ``units.block_rate``
    starts them at once.

    Examples
    --------
    >>> import npusim as ns
    >>> h200 = Designs(ns.load_arch("h200"))
    >>> (rate_time(np.array([[1024.0]]), h200) * 1e6).round(2).item()
    0.57
    """
    path = PARAMETERS[0]
    if path not in designs:
        return np.zeros(blocks.shape)
    time: Array = blocks / (designs[path] * designs["units.clock"])
    return time


def stagger_time(blocks: Array, designs: Designs) -> Array:
    """Return how much later the last unit has its first block than the first one, (U, D) [s].

    Examples
    --------
    >>> import npusim as ns
    >>> h200 = Designs(ns.load_arch("h200"))
    >>> (stagger_time(np.array([[1.0], [512.0]]), h200) * 1e6).round(2).ravel().tolist()
    [0.0, 0.07]
    """
    path = PARAMETERS[1]
    if path not in designs:
        return np.zeros(blocks.shape)
    others = np.maximum(np.minimum(blocks, designs["units.count"]) - 1.0, 0.0)
    time: Array = others * designs[path] / designs["units.clock"]
    return time
