"""Operations that stream: a floor, then the roofline of their bytes and arithmetic.

Used for every kind without a model of its own.

Left out: caches, parallelism, instructions.
"""

from __future__ import annotations

import numpy as np

from npusim.arch import Designs
from npusim.models import floor, roofline
from npusim.models.cost import Cost, overlapped
from npusim.workload import Operations

PARAMETERS = ()  # reads none itself

READS = {*floor.PARAMETERS, *roofline.PARAMETERS}


def stream_cost(operations: Operations, designs: Designs) -> Cost:
    """Return the cost of operations that stream, each (U, D) [s]."""
    compute = roofline.compute_time(operations, designs)
    memory = roofline.memory_time(operations, designs)
    return overlapped(floor.floor_time(operations, designs), memory, compute,
                      np.maximum(compute, memory))  # fmt: skip
