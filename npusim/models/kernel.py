"""Device time of a kernel: floor + max(compute, memory).

Puts the effects of the other files together; each of them says what it leaves out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models.floor import floor_time
from npusim.models.roofline import compute_time, memory_time
from npusim.workload import Operations

PARAMETERS = ()  # reads none itself

BOUNDS = ("floor", "memory", "compute")


def kernel_time(operations: Operations, designs: Designs) -> NDArray[np.float64]:
    """Return the device time of each operation on each design, shape (U, D) [s].

    Examples
    --------
    >>> import npusim as ns
    >>> w, h200 = ns.load_workload("paddleocr_vl_decode"), Designs(ns.load_arch("h200"))
    >>> kernel_time(w.operations(), h200).shape == (len(w), 1)
    True
    """
    busy = np.maximum(compute_time(operations, designs), memory_time(operations, designs))
    return floor_time(operations, designs) + busy


def parts(operations: Operations, designs: Designs) -> dict[str, NDArray[np.float64]]:
    """Return what each operation's time is made of, each (U, D) [s]; the sum is `kernel_time`.

    Memory counts where it takes longer than the arithmetic beside it, and the other way round.
    """
    compute, memory = compute_time(operations, designs), memory_time(operations, designs)
    longer = memory >= compute
    return {
        "floor": floor_time(operations, designs),
        "memory": np.where(longer, memory, 0.0),
        "compute": np.where(longer, 0.0, compute),
    }


def bound(operations: Operations, designs: Designs) -> NDArray[np.object_]:
    """Return which of `BOUNDS` is the largest part of each operation's time, shape (U, D)."""
    stacked = np.stack([parts(operations, designs)[name] for name in BOUNDS])
    names: NDArray[np.object_] = np.array(BOUNDS, dtype=object)[np.argmax(stacked, axis=0)]
    return names
