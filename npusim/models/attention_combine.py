"""Kernels that combine parts of the keys of decode attention, where it is known how many.

A part is a result of each query head in fp32 with what its softmax summed to. The kernel takes what
combining takes in a call of the library (`npusim.models.attention`), and the transfer of the parts:

    t = floor.attention x combine + parts x part / clock + max(transfer, arithmetic)

Source: as `npusim.models.attention`; the combining kernel of cuDNN on an H200, traced, takes 1.72
us for 4 parts and 1.85 us for 8, this 1.58 and 1.76 us.

Left out: grids that do not fill the machine. Kernels of a trace whose parts are not known (a trace
records none: ``k`` is 0) stream (`npusim.models.stream`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import attention, hierarchy, roofline, transfer
from npusim.models.attention_library import library_of
from npusim.models.cost import Cost, overlapped
from npusim.workload import Operations

PARAMETERS = ()  # those of the libraries are attention's

READS = {*attention.PARAMETERS, *roofline.PARAMETERS, *transfer.READS}


def known(operations: Operations, designs: Designs) -> NDArray[np.bool_]:
    """Return which operations combine a known number of parts, shape (U,)."""
    found: NDArray[np.bool_] = (operations.kind == "attention_combine") & (operations["k"] > 0)
    return found


def combine_cost(operations: Operations, designs: Designs) -> Cost:
    """Return the cost of kernels that combine ``k`` parts of the keys, each (U, D) [s]."""
    floor = np.zeros((len(operations), len(designs)))
    libraries = np.array([library_of(name).name for name in operations.library], dtype=object)
    for name in sorted(set(libraries)):
        rows = np.flatnonzero(libraries == name)
        combine, part = (designs[f"library.{name}_decode.{n}"] for n in ("combine", "part"))
        each = operations["k"][rows, None] * part / designs["units.clock"]
        floor[rows] = designs["floor.attention"] * combine + each
    memory = transfer.transfer_time(operations, designs["units.count"][None, :], designs)
    compute = roofline.compute_time(operations, designs)
    dram = hierarchy.Traffic(operations, designs).moved("dram") / roofline.bandwidth(designs)
    return overlapped(floor, memory, compute, np.maximum(memory, compute),
                      np.minimum(dram, memory))  # fmt: skip
