"""Transfers: how long loads and stores take, each byte at the level that serves it.

    t = max(cache time + DRAM time, time of the memories of single classes)
    cache time = smooth_max(read / bandwidth, 2 x written / bandwidth)        (1.5-norm)

The last-level cache takes as long for a byte written as for two read, and the two go opposite ways:
resident data on an H200 are filled at 4.7 TB/s, copied at 6.3, sums of two written at 6.7, and read
at 9.1. A victim cache whose ``memories.victim.bandwidth`` is not given shares the rate of the
last-level cache; else it works beside it.

Left out: what several levels could serve at the same time, and when write-backs happen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import hierarchy, memory
from npusim.models.cost import smooth_max
from npusim.models.hierarchy import Traffic
from npusim.workload import Operations

Array = NDArray[np.float64]

PARAMETERS = ("memories.victim.bandwidth",)

READS = (*PARAMETERS, *memory.PARAMETERS, *hierarchy.READS)

_WRITE = 2.0


def transfer_time(operations: Operations, active: Array, designs: Designs) -> Array:
    """Return the time of loads and stores by `active` units, (U, D) [s].

    Parameters
    ----------
    operations : Operations
        U operations.
    active : array, shape (U, D) or (U, 1)
        Compute units that have work, >= 1.
    designs : Designs
        D designs.
    """
    traffic = Traffic(operations, designs)
    own = PARAMETERS[0] in designs  # a victim cache with a port of its own works beside the other
    time = _cache_time(traffic, ("l2",) if own else ("l2", "victim"),
                       memory.l2_bandwidth(active, designs))  # fmt: skip
    if own:
        time = np.maximum(time, _cache_time(traffic, ("victim",), designs[PARAMETERS[0]]))
    time = time + memory.dram_time(traffic.read("dram"), traffic.written("dram"), active, designs)
    return np.maximum(time, memory.own_time(traffic, active, designs))


def _cache_time(traffic: Traffic, levels: tuple[str, ...], bandwidth: Array) -> Array:
    """Return the time of what some levels serve together, (U, D) [s]."""
    read = np.sum([traffic.read(level) for level in levels], axis=0) / bandwidth
    written = np.sum([traffic.written(level) for level in levels], axis=0) / bandwidth
    return smooth_max(read, _WRITE * written, np.asarray(memory.CACHE))
