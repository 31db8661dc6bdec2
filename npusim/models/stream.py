"""Operations that stream: a floor, then the longer of their transfers and their arithmetic.

Used for every kind without a model of its own, with all units at work. Special functions are
beside the arithmetic where the machine says how fast they are (`npusim.models.special`).

Transfers take no less than the threads of a grid that is known wait for them
(`npusim.models.occupancy`).

Left out: units without a block, instructions.
"""

from __future__ import annotations

import numpy as np

from npusim.arch import Designs
from npusim.models import floor, occupancy, roofline, special, transfer
from npusim.models.cost import Cost, overlapped
from npusim.models.hierarchy import Traffic
from npusim.workload import Operations

PARAMETERS = ()  # reads none itself

READS = {
    *floor.PARAMETERS,
    *occupancy.READS,
    *roofline.PARAMETERS,
    *transfer.READS,
    *special.PARAMETERS,
}


def stream_cost(operations: Operations, designs: Designs) -> Cost:
    """Return the cost of operations that stream, each (U, D) [s]."""
    each = 1.0 / designs["units.count"][None, :]
    compute = special.beside(roofline.compute_time(operations, designs), operations, each, designs)
    memory = transfer.transfer_time(operations, designs["units.count"][None, :], designs)
    memory = np.maximum(memory, occupancy.waiting_time(operations, designs))
    dram = Traffic(operations, designs).moved("dram") / roofline.bandwidth(designs)
    return overlapped(floor.floor_time(operations, designs), memory, compute,
                      np.maximum(compute, memory), np.minimum(dram, memory))  # fmt: skip
