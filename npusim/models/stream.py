"""Operations that stream: a floor, then the longer of their transfers and their arithmetic.

Used for every kind without a model of its own, with all units at work.

Left out: parallelism, instructions.
"""

from __future__ import annotations

import numpy as np

from npusim.arch import Designs
from npusim.models import floor, roofline, transfer
from npusim.models.cost import Cost, overlapped
from npusim.models.hierarchy import Traffic
from npusim.workload import Operations

PARAMETERS = ()  # reads none itself

READS = {*floor.PARAMETERS, *roofline.PARAMETERS, *transfer.READS}


def stream_cost(operations: Operations, designs: Designs) -> Cost:
    """Return the cost of operations that stream, each (U, D) [s]."""
    compute = roofline.compute_time(operations, designs)
    memory = transfer.transfer_time(operations, designs["units.count"][None, :], designs)
    dram = Traffic(operations, designs).moved("dram") / roofline.bandwidth(designs)
    return overlapped(floor.floor_time(operations, designs), memory, compute,
                      np.maximum(compute, memory), np.minimum(dram, memory))  # fmt: skip
