"""In-SRAM compute: small layers whose weights lie in arrays that multiply them in place.

Arrays hold every weight of a step of at most ``sram_compute.largest`` bytes, if all of these
together fit into them. Such a product streams its input past the arrays, one row after the other:

    t = latency + m x weight bytes / bandwidth

and reads no weights from anywhere else. It takes this way where that is faster.

Source: N. Verma et al., "In-memory computing: advances and prospects", IEEE Solid-State Circuits
Magazine 11(3), 2019, doi:10.1109/MSSC.2019.2922889.

Left out: bytes by level (which still count these weights where they would be without the arrays),
precision of analog arrays, the first fill, layers cut over several arrays, arithmetic
other than products.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models.cost import Cost
from npusim.workload import Operations

Array = NDArray[np.float64]

PARAMETERS = (
    "sram_compute.capacity",
    "sram_compute.largest",
    "sram_compute.bandwidth",
    "sram_compute.latency",
)


def in_place(cost: Cost, operations: Operations, designs: Designs) -> Cost:
    """Return the cost of products, in place where the arrays hold their weights and are faster.

    Parameters
    ----------
    cost : Cost
        What they cost on the compute units, each (U, D) [s].
    operations : Operations
        U products.
    designs : Designs
        D designs; without ``sram_compute.capacity`` nothing changes.
    """
    if PARAMETERS[0] not in designs or not designs[PARAMETERS[0]].any():
        return cost
    capacity, largest, bandwidth, latency = (designs[path] for path in PARAMETERS)
    sizes = operations.reuse.weights
    held = np.concatenate([[0.0], np.cumsum(sizes)])[np.searchsorted(sizes, largest, "right")]
    weight = operations["read_weight"][:, None]
    fits = (held > 0) & (held <= capacity) & (weight > 0) & (weight <= largest)
    passes = np.maximum(operations["batch"], 1) * np.maximum(operations["m"], 1)
    time = passes[:, None] * weight / bandwidth
    taken = fits & (latency + time < cost.time)
    return replace(
        cost,
        floor=np.where(taken, latency, cost.floor),
        memory=np.where(taken, 0.0, cost.memory),
        compute=np.where(taken, time, cost.compute),
        channel=np.where(taken, 0.0, cost.channel),
        ahead=np.where(taken, 0.0, cost.ahead),
        gain=np.where(taken, 0.0, cost.gain),
    )
