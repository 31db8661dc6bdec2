"""Attention of one query over a cache: keys split into parts, waves of blocks, and their combine.

A library gives each sequence and key-value head to one block (grouped query heads share it, as
rows of one tile) and splits the keys into parts where that leaves units idle (see
`npusim.models.attention_library`). A block walks over its tiles of keys: one is loaded, then
multiplied and exponentiated. Blocks that share a unit do so in turn. With c blocks on a unit

    products = 4 rows keys size / (matrix rate x share)
    tile     = max(tile bytes / load rate + products, c x max(tile bytes / L2 rate, products))
    t_dram   = bytes not resident / DRAM bandwidth of the active units
    wave     = smooth_max(c x block + tiles x tile, t_dram)        (4-norm)
    t        = floor + waves [+ helpers + combine + parts x part]

The first block of a wave has nothing before it that could hide its start. Tiles are padded: one
query fills as many rows of the matrix unit as the tile has, and each of them is exponentiated: that
may bound the products of a tile (`npusim.models.special`). The numbers of a library
(``library.NAME_decode.*``) are the same on every machine; ``start``, ``helpers`` and ``combine``
are in floors of the machine, ``block`` and ``part`` in clock cycles.

An operation whose launch grid is known is a kernel of a trace, which lists its combine and helpers
apart; any other is a whole call and includes them. The library chooses the parts for the machine at
hand, whatever grid was traced, but where the routine says that so many are asked for (``split`` or
``whole``): there the grid tells them, and threads that are not known tell a whole call.

Source: T. Dao, D. Haziza, F. Massa, G. Sizov, "Flash-Decoding for long-context inference", 2023,
crfm.stanford.edu/2023/10/12/flashdecoding.html; waves as in NVIDIA DU-08939.

Left out: masks (an additive mask costs a decode kernel 1 to 2 us), page tables, sequences of
unequal length, the traffic of partial results in a call, parts that have no keys.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import attention_prefill, hierarchy, memory, roofline, special
from npusim.models.attention_library import LIBRARIES, Library, library_of
from npusim.models.attention_prefill import prefill_cost
from npusim.models.attention_shapes import ASKED, Shapes
from npusim.models.cost import Cost, overlapped, smooth_max
from npusim.models.memory import TILES, dram_bandwidth, l2_bandwidth, own_time
from npusim.workload import Operations

Array = NDArray[np.float64]

NUMBERS = ("start", "helpers", "block", "share", "combine", "part")

PARAMETERS = (
    "floor.attention",
    *(f"library.{library.name}_decode.{number}" for library in LIBRARIES for number in NUMBERS),
)

KINDS = ("attention",)
READS = {
    *PARAMETERS, *attention_prefill.PARAMETERS, *memory.PARAMETERS, *hierarchy.READS,
    *roofline.PARAMETERS, *special.PARAMETERS,
}  # fmt: skip

_SHARPNESS = np.array(4.0)


def attention_cost(operations: Operations, designs: Designs) -> Cost:
    """Return the cost of attention, each (U, D) [s].

    Parameters
    ----------
    operations : Operations
        U operations of kind ``attention``: ``batch`` sequences, ``m`` queries and ``n`` keys of
        each, head size ``k``, ``heads`` and ``kv_heads``, their bytes and reuse distances.
    designs : Designs
        D designs.

    Examples
    --------
    One token over 16,384 that lie in the L2 of an H200 (measured by cuDNN: 9.9 us):

    >>> import npusim as ns
    >>> from npusim.measured.shapes import decode_attention, operations
    >>> call = operations([decode_attention("bf16", 1, 16, 2, 128, 16384, copies=1)])
    >>> cost = attention_cost(call, Designs(ns.load_arch("h200")))
    >>> bool(0.9 < cost.time.item() / 9.9e-6 < 1.1)
    True
    """
    shape = len(operations), len(designs)
    parts = np.zeros((4, *shape))
    library = np.array([library_of(name).name for name in operations.library], dtype=object)
    decodes = (operations["m"] <= 1) | np.isin(operations.routine, ASKED)
    for known in LIBRARIES:
        for cost_of, asked in ((decode_cost, decodes), (prefill_cost, ~decodes)):
            rows = np.flatnonzero((library == known.name) & asked)
            if len(rows):
                cost = cost_of(Shapes(operations, rows, designs, known), designs, known)
                parts[:, rows] = cost.floor, cost.memory, cost.compute, cost.channel
    return Cost(*parts)


def decode_cost(shapes: Shapes, designs: Designs, library: Library) -> Cost:
    """Return the cost of attention of one query a sequence, each (U, D) [s]."""
    d, numbers = designs, {n: designs[f"library.{library.name}_decode.{n}"] for n in NUMBERS}
    units, clock = d["units.count"], d["units.clock"]
    packed = np.ceil(shapes.m * shapes.heads / shapes.kv_heads / library.split.rows)
    tiles = np.ceil(shapes.n / library.split.keys)
    parts, combined = library.parts(shapes.batch, shapes.kv_heads * packed, tiles, units)
    asked = np.rint(shapes.asked / (shapes.batch * shapes.kv_heads))
    parts, combined = np.where(asked > 0, asked, parts), np.where(asked > 0, asked > 1, combined)
    rows, keys, resident = _tile(library, combined, shapes.width)
    tiles = np.ceil(np.ceil(shapes.n / keys) / parts)
    blocks = shapes.batch * shapes.kv_heads * packed * parts
    products = 4.0 * rows * keys * shapes.width / (shapes.matrix_rate * numbers["share"])
    arithmetic = special.unit_time(products, rows * keys, np.zeros(1), d)

    def wave(count: Array) -> tuple[Array, Array, Array]:
        """Return what so many blocks at a time take: to start, for their tiles, from DRAM."""
        active = np.clip(count, 1.0, units)
        beside = np.ceil(count / units)
        alone = keys * shapes.row_bytes / (d["units.load_rate"] * clock)
        load = keys * shapes.row_bytes * shapes.through_l2 * active / l2_bandwidth(active, d)
        tile = np.maximum(alone + arithmetic, beside * np.maximum(load, arithmetic))
        dram = np.maximum(shapes.dram / dram_bandwidth(active, d, TILES),
                          own_time(shapes.traffic, active, d)) * count / blocks  # fmt: skip
        return beside * numbers["block"] / clock, tiles * tile, dram

    busy, compute, memory = _waves(wave, blocks, units * resident)
    apart = combined & shapes.is_call
    floors = numbers["start"] + shapes.is_call * numbers["helpers"] + apart * numbers["combine"]
    floor = d["floor.attention"] * floors + apart * parts * numbers["part"] / clock
    channel = np.minimum(shapes.dram / roofline.bandwidth(d), busy)
    return overlapped(floor, memory, compute, busy, channel)


def _tile(library: Library, combined: NDArray[np.bool_], width: Array) -> tuple[Array, ...]:
    """Return rows, keys and blocks a unit of the kernel that splits or of the other one."""
    split, whole = library.split, library.whole
    return (
        np.where(combined, float(split.rows), float(whole.rows)),
        np.where(combined, float(split.keys), float(whole.keys)),
        np.where(combined, split.blocks_per_unit(width), whole.blocks_per_unit(width)),
    )


def _waves(
    wave: Callable[[Array], tuple[Array, Array, Array]], blocks: Array, slots: Array
) -> tuple[Array, Array, Array]:
    """Return busy time of waves of blocks, and what of it units and DRAM ask for, each (U, D) [s].

    All waves but the last are full. Only in the first is the start of a block bare: later ones
    start while data for others flow.
    """
    full = np.floor(blocks / slots)
    last = blocks - full * slots
    start, tiles, dram = wave(slots)
    end_start, end_tiles, end_dram = wave(last)
    rest = np.maximum(full - 1.0, 0.0)
    first = np.where(full > 0, start + smooth_max(tiles, dram, _SHARPNESS), 0.0)
    between = rest * smooth_max(start + tiles, dram, _SHARPNESS)
    alone = end_start + smooth_max(end_tiles, end_dram, _SHARPNESS)
    behind = smooth_max(end_start + end_tiles, end_dram, _SHARPNESS)
    end = np.where(last > 0, np.where(full > 0, behind, alone), 0.0)
    compute = full * (start + tiles) + np.where(last > 0, end_start + end_tiles, 0.0)
    return first + between + end, compute, full * dram + np.where(last > 0, end_dram, 0.0)
