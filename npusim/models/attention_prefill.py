"""Attention of many queries: tiles of queries over units, each walking over the keys.

A block holds a tile of query rows of one head and walks over tiles of keys; for each it does two
products and exponentiates what is between them. The two overlap, since some warps multiply while
others exponentiate:

    tile   = smooth_max(4 rows keys size / (matrix rate x share), rows keys / (softmax x clock))
    t_core = rounds x block + serial tiles x tile
    t      = floor + smooth_max(t_core, bytes not resident / DRAM bandwidth)

All blocks are alike without a causal mask: the slowest unit does ``ceil(blocks / slots)`` of them.
Under one they differ, and are given to units as they come: the slowest unit ends at most one
longest block after the average (Graham's bound), which is what is measured. Where a bias or mask is
read beside queries and keys nothing overlaps: a tile takes the sum of products, softmax and the
load of its part of the mask. Where the machine says how fast special functions are, exponentials
bound the softmax of a tile, and a whole unit does it instead (`npusim.models.special`).

Source: J. Shah, G. Bikshandi, Y. Zhang, V. Thakkar, P. Ramani, T. Dao, "FlashAttention-3", 2024,
arXiv:2407.08608 (overlap of products and softmax); R. Graham, "Bounds for certain multiprocessing
anomalies", Bell System Technical Journal 45(9), 1966, doi:10.1002/j.1538-7305.1966.tb01709.x.

Left out: clocks under the power limit (long products run 5 to 10 % slower), keys split over units,
sliding windows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import special
from npusim.models.attention_library import LIBRARIES, Library
from npusim.models.attention_shapes import Shapes
from npusim.models.cost import Cost, overlapped, smooth_max
from npusim.models.memory import TILES, dram_bandwidth, l2_bandwidth, own_time
from npusim.models.roofline import bandwidth

Array = NDArray[np.float64]

NUMBERS = ("start", "helpers", "block", "share", "softmax")

PARAMETERS = (
    "floor.attention",
    *(f"library.{library.name}_prefill.{number}" for library in LIBRARIES for number in NUMBERS),
)

_SHARPNESS = np.array(4.0)
_MASK = 0.5  # bytes an element of the least that counts as a mask


def prefill_cost(shapes: Shapes, designs: Designs, library: Library) -> Cost:
    """Return the cost of attention of many queries a sequence, each (U, D) [s]."""
    d, numbers = designs, {n: designs[f"library.{library.name}_prefill.{n}"] for n in NUMBERS}
    tile, units, clock = library.prefill, d["units.count"], d["units.clock"]
    blocks = shapes.batch * shapes.heads * np.ceil(shapes.m / tile.rows)
    resident = tile.blocks_per_unit(shapes.width)
    active = np.minimum(blocks, units)
    beside = np.clip(np.ceil(blocks / units), 1.0, resident)
    products = 4.0 * tile.rows * tile.keys * shapes.width / (shapes.matrix_rate * numbers["share"])
    scores = np.full((1, 1), float(tile.rows * tile.keys))
    softmax = special.unit_time(scores / (numbers["softmax"] * clock), scores, scores, d)
    pull = l2_bandwidth(active, d) / active
    plain = np.maximum(
        smooth_max(products, softmax, _SHARPNESS), tile.keys * shapes.row_bytes / pull
    )
    masked = products + softmax + tile.rows * tile.keys * shapes.element / pull
    one = np.where(shapes.extra >= _MASK * shapes.m * shapes.n, masked, plain) * beside
    rounds = np.ceil(blocks / (units * resident))
    core = rounds * beside * numbers["block"] / clock
    core = core + _serial_tiles(shapes, tile.keys, blocks, units * resident) * one
    memory = np.maximum(shapes.dram / dram_bandwidth(active, d, TILES),
                        own_time(shapes.traffic, active, d))  # fmt: skip
    floor = d["floor.attention"] * (numbers["start"] + shapes.is_call * numbers["helpers"])
    busy = smooth_max(core, memory, _SHARPNESS)
    channel = np.minimum(shapes.dram / bandwidth(d), busy)
    return overlapped(floor, memory, core, busy, channel)


def _serial_tiles(shapes: Shapes, keys: int, blocks: Array, slots: Array) -> Array:
    """Return how many tiles of keys the slowest slot walks over, one after the other, (U, D)."""
    most = np.ceil(shapes.n / keys)
    full = 4.0 * shapes.batch * shapes.heads * shapes.m * shapes.n * shapes.size
    share = np.where(shapes.flop > 0, np.minimum(shapes.flop / full, 1.0), 1.0)
    mean = np.minimum(share * most + 0.5, most)
    unequal = np.maximum(most, mean * blocks / slots + most * (1.0 - slots / blocks))
    even: Array = np.ceil(blocks / slots) * most
    return np.where(share < 1.0, np.minimum(unequal, even), even)
