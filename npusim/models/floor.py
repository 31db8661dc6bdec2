"""The floor: what even the smallest kernel of a kind takes on the device.

Filling the machine with threads, the first access to memory and the drain at the end take
microseconds that no bandwidth explains: a GEMV of 8 MB that already sits in the L2 of an H200
takes 5.0 us. The floor is added to the roofline time, so a kernel is never faster than it.

Kernels of a library of products that sum its parts have a floor of their own where the machine says
so (``floor.splitk_reduce``): they take less than those that reduce rows.

Source: measured; see the floors in the architecture files.

Left out: dependence on launch mode, grid size and clock.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.workload import KINDS, Operations

Array = NDArray[np.float64]

_GROUPS = {
    "matmul": ("gemv", "gemm", "grouped_gemm", "conv"),
    "attention": ("attention",),
    "reduction": ("reduction", "softmax", "norm", "splitk_reduce", "attention_combine"),
    "gather": ("gather", "scatter", "cat"),
    "sort": ("sort", "topk"),
    "memcpy": ("memcpy", "memset"),
}
_GROUP_OF = {kind: group for group, kinds in _GROUPS.items() for kind in kinds}

_OWN = {"splitk_reduce": "floor.splitk_reduce"}  # where given

PARAMETERS = (*(f"floor.{group}" for group in (*_GROUPS, "pointwise")), *_OWN.values())


def floor_path(kind: str) -> str:
    """Return the parameter that holds the floor of a kind of operation.

    Examples
    --------
    >>> floor_path("gemv"), floor_path("cast")
    ('floor.matmul', 'floor.pointwise')
    """
    return "floor." + _GROUP_OF.get(kind, "pointwise")


def floor_time(operations: Operations, designs: Designs) -> Array:
    """Return the floor of each operation, shape (U, D) [s]."""
    time = np.zeros((len(operations), len(designs)))
    for kind in KINDS:
        rows = operations.kind == kind
        if rows.any():
            path = _OWN.get(kind)
            time[rows] = designs[path if path and path in designs else floor_path(kind)]
    return time
