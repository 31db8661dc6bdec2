"""What an operation of a routine works on: its amount of work, and how many results it writes.

The amount is in what the routine counts (`npusim.library.ROUTINES`): elements, bytes, threads or
products (two FLOP each). A concatenation counts what it moves, as the columns of its size are
those of its largest input. Results are as many as what is written has room for: positions, of
``reduce_arg``, are integers of 8 B whatever they are positions of.

Left out: results of another type than the input (comparisons, sums of booleans).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.library import ROUTINES
from npusim.workload import Operations

Array = NDArray[np.float64]

PARAMETERS = ()  # reads none itself

_ITEM = {"bf16": 2.0, "fp16": 2.0, "fp64": 8.0, "int64": 8.0, "int16": 2.0,
         "fp8": 1.0, "int8": 1.0, "uint8": 1.0, "bool": 1.0}  # fmt: skip
_ITEM_ELSE = 4.0  # fp32, int32 and what is unknown
_POSITION = 8.0  # int64


def amount(operations: Operations) -> Array:
    """Return the work of each operation in what its routine counts, shape (U,)."""
    counted = np.array([ROUTINES[r] for r in operations.routine], dtype=object)
    elements = np.prod([np.maximum(operations[c], 1) for c in ("batch", "m", "n")],
                       axis=0, dtype=float)  # fmt: skip
    cats = operations.kind == "cat"  # m x n is its largest input
    elements[cats] = np.maximum(operations.bytes_moved[cats] / (2.0 * items(operations)[cats]), 1)
    return np.select(
        [counted == "elements", counted == "bytes", counted == "threads"],
        [elements, operations.bytes_moved,
         operations["blocks"] * operations["threads"].astype(float)],
        operations["flop"] / 2.0,
    )  # fmt: skip


def results(operations: Operations) -> Array:
    """Return how many results each operation writes, 0 where that is not known, shape (U,)."""
    item = np.where(operations.routine == "reduce_arg", _POSITION, items(operations))
    found: Array = operations["write_activation"] / item
    return found


def items(operations: Operations) -> Array:
    """Return the bytes of an element of each operation [B]."""
    return np.array([_ITEM.get(d, _ITEM_ELSE) for d in operations.dtype])
