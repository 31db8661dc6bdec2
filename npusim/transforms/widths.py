"""How many bits a number of each type takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.workload import Workload

_BITS = {
    "fp64": 64, "int64": 64, "fp32": 32, "tf32": 32, "int32": 32, "bf16": 16, "fp16": 16,
    "int16": 16, "fp8": 8, "int8": 8, "uint8": 8, "fp4": 4, "int4": 4,
}  # fmt: skip


def own_bits(w: Workload, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the bits of a number in the type of some operations, one an operation [bit].

    Raises
    ------
    InputError
        A type whose width is not known.
    """
    by_label = np.array([_BITS.get(label, np.nan) for label in w.labels["dtype"]], dtype=np.float64)
    bits: NDArray[np.float64] = by_label[w["dtype"][rows]]
    unknown = np.isnan(bits)
    if unknown.any():
        label = w.labels["dtype"][w["dtype"][rows][int(np.argmax(unknown))]]
        raise InputError("a type of unknown width", file=w.name, place="dtype", value=label,
                         allowed=", ".join(_BITS))  # fmt: skip
    return bits


def usual(bits: NDArray[np.float64], amount: NDArray[np.float64]) -> float:
    """Return the width in which most of an amount is kept.

    Examples
    --------
    >>> usual(np.array([16.0, 32.0, 16.0]), np.array([2.0, 3.0, 2.0]))
    16.0
    """
    widths, which = np.unique(bits, return_inverse=True)
    return float(widths[np.argmax(np.bincount(which.reshape(-1), amount))])
