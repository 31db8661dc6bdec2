"""Matrix products: tiles over compute units, split-K, and the bytes they load.

A library cuts the result into tiles of tm x tn, and the reduction into s parts where there are
fewer tiles than units; it takes what is fastest, so does the model, unless the machine's file says
what its library does (`npusim.models.tiling`). A unit with b blocks of k-steps of 64:

    t_units  = b x steps x max(2 tm tn 64 / matrix rate, step bytes / load rate)
    t_l2     = bytes that all steps ask for / L2 bandwidth
    t_core   = b x fill / clock + max(t_units, t_l2)
    t_dram   = share not resident x (DRAM latency - L2 latency)
               + bytes not resident / DRAM bandwidth of the active units
    t_ends   = e ramp / (e clock + ramp),  e = sqrt(t_core^2 + t_dram^2) - max(t_core, t_dram)
    t        = floor + start / clock + max(t_core, t_dram) + t_ends [+ reduction of parts]

Tiles are loaded while others are computed; only at the ends of a product one waits for the other,
which takes as long however long the product is: ``gemm.ramp`` cycles at most, less in a short one.
Measured products of an L40S do not show that plateau (its ramp is longer than most of them).

Two k-steps of a tile must fit into the L1 of a unit (one is loaded while the other is computed);
the smallest tile always may. How many are on the way bounds what a unit loads, where the machine
says how deep its pipelines are (`npusim.models.pipeline`).

Blocks of a cluster share what they load of the side that they have in common (multicast): weights
of a GEMV are not shared, each of its columns lies in one block. That spares the cache requests, but
each unit takes in all that its tile needs: on an H200 k-steps of 12 to 27 KB come at 65 to 75 B a
clock and unit, whether 2 or 8 blocks share them (workloads/experiments/h200_tiles.md).

The matrix unit runs at a clock between base and boost, as its power limit allows. Weights stored
narrower than they are computed with are widened meanwhile, each once in every tile of rows: a third
term of a step's maximum (`npusim.models.conversion`). Products on vector units (fp32) are cut the
same way, but for those of one row, which have kernels without tiles (`npusim.models.vector_row`).

Exact sums of fp8 are moved to fp32 every 128 of K, one addition a result. Large tiles are shared by
two groups of warps, several tiles of a unit belong to one each: one moves while the other
multiplies. With one small tile in a unit nothing hides it, and it adds to the arithmetic of a step.

Source: tile quantisation and split-K as in NVIDIA, "Matrix multiplication background user's
guide" (DU-08939); rates and floors from the architecture file.

Left out: rasterisation order (how much of the operands an L2 holds across waves), stream-K,
skewed k-steps, epilogues, alignment; kernels for 2 to 4 rows of fp32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import (
    conversion,
    hierarchy,
    memory,
    pipeline,
    roofline,
    sram_compute,
    tiling,
    vector_row,
)
from npusim.models.cost import Cost, lapped, overlapped
from npusim.models.hierarchy import Traffic
from npusim.models.memory import (
    TILES,
    cache_latency,
    dram_bandwidth,
    l2_bandwidth,
    miss_bandwidth,
    miss_wait,
    own_time,
)
from npusim.models.prefetch import part_left
from npusim.models.roofline import throughput
from npusim.models.sram_compute import in_place
from npusim.models.tiling import STEP, Tiling, is_narrow
from npusim.workload import BYTES_OF, Operations

Array = NDArray[np.float64]

KINDS = ("gemv", "gemm", "grouped_gemm", "conv")

PARAMETERS = (
    "floor.matmul",
    "floor.reduction",
    "launch.graph.interval",
    "launch.graph.node",
    "gemm.start",
    "gemm.fill",
    "gemm.reduce",
    "gemm.cluster",
    "gemm.ramp",
    *tiling.PARAMETERS,
)

READS = {
    *PARAMETERS, *memory.PARAMETERS, *hierarchy.READS, *pipeline.PARAMETERS, *roofline.PARAMETERS,
    *conversion.PARAMETERS, *sram_compute.PARAMETERS, *vector_row.READS,
}  # fmt: skip

_LEAST = 8  # rows of the smallest matrix instruction
_BLOCK = 16384  # products times designs
_ACCUMULATOR = 4.0  # bytes of a partial result
_MOVED = 128  # of K, after which exact sums of fp8 products are moved to fp32
_TWO_GROUPS = 128 * 128  # results of a tile that two groups of warps share


def gemm_cost(operations: Operations, designs: Designs) -> Cost:
    """Return the cost of matrix products, each (U, D) [s].

    Parameters
    ----------
    operations : Operations
        U products: ``batch`` problems of m x n x k, their bytes and reuse distances. Routine
        ``split`` is a kernel whose parts another operation sums, and leaves that one out;
        ``whole`` is one that does not split; else the model chooses, and counts the sum.
    designs : Designs
        D designs.

    Examples
    --------
    A 4096 x 8192 x 8192 product in bf16 on an H200 (measured: 738 us):

    >>> import npusim as ns
    >>> from npusim.measured.shapes import linear, operations
    >>> layer = operations([linear("bf16", 4096, 8192, 8192)])
    >>> cost = gemm_cost(layer, Designs(ns.load_arch("h200")))
    >>> bool(0.9 < cost.time.item() / 738e-6 < 1.1)
    True
    """
    shape = len(operations), len(designs)
    best, core, dram, own, rest = (np.zeros(shape) for _ in range(5))
    rows = max(_BLOCK // len(designs), 1)  # of a block that stays in cache
    for start in range(0, len(operations), rows):
        part = slice(start, start + rows)
        block = _Rows(operations.take(part), designs)
        best[part], core[part], dram[part] = _fastest(block)
        own[part], rest[part] = block.own, block.rest
    floor = designs["floor.matmul"] + designs["gemm.start"] / designs["units.clock"]
    ahead = dram * (1.0 - rest)
    most = _ends(designs)
    there = lapped(core, np.maximum(dram * rest, own), most)
    memory = np.maximum(dram, own)
    gain = lapped(core, memory, most) - there
    cost = overlapped(floor, memory, core, best, dram, ahead, gain)
    return in_place(vector_row.where_faster(cost, operations, designs), operations, designs)


def _ends(designs: Designs) -> Array:
    """Return how long transfers and arithmetic of a product do not overlap at most, (D,) [s]."""
    longest: Array = designs["gemm.ramp"] / designs["units.clock"]
    return longest


def _fastest(rows: _Rows) -> tuple[Array, Array, Array]:
    """Return busy time, time in units and L2, and time of DRAM with the best tile and split."""
    shape = rows.dram.shape
    kept = np.full(shape, np.inf), np.zeros(shape), np.zeros(shape)
    for tile in rows.tiling.sizes():
        for split, chosen in rows.tiling.worth(tile):
            rows.improve(kept, chosen, tile, split)
    return kept


class _Rows:
    """The products as columns (U, 1), and what does not depend on the tile."""

    def __init__(self, operations: Operations, designs: Designs) -> None:
        self.tiling = Tiling(operations, designs)
        self.m, self.n, self.k = self.tiling.m, self.tiling.n, self.tiling.k
        self.designs = designs
        self.summed = (operations.routine == "split")[:, None]  # by another operation
        self.element = np.array([BYTES_OF.get(t, 2.0) for t in operations.dtype])[:, None]
        whole = (operations["read_weight"] > 0) & (operations["groups"] == 0)
        stored = np.minimum(operations["read_weight"] / (self.n * self.k)[:, 0], self.element[:, 0])
        self.weight = np.where(whole, stored, self.element[:, 0])[:, None]
        self.units = designs["units.count"]
        self.reach = miss_bandwidth(designs)
        between = designs["launch.graph.node"] + designs["launch.graph.interval"]
        self.summing = designs["floor.reduction"] + between
        self.rate = np.vstack([
            np.broadcast_to(throughput(kind, dtype, designs) / self.units, len(designs))
            for kind, dtype in zip(operations.kind, operations.dtype, strict=True)
        ])  # fmt: skip
        self.widening = conversion.weight_time(operations, designs)
        traffic = Traffic(operations, designs)
        self.dram = traffic.moved("dram")
        moved = np.maximum(operations.bytes_moved, 1.0)[:, None]
        self.wait = miss_wait(designs) * self.dram / moved
        self.ends = _ends(designs)
        self.own = np.broadcast_to(own_time(traffic, self.units, designs), self.dram.shape)
        self.rest = part_left(traffic, self.dram, designs)
        self.exact = (operations.dtype == "fp8")[:, None] & ("gemm.fp8_tile" in designs)

    def _loads(
        self, rows: NDArray[np.intp] | slice, used: Array, tile: tuple[int, int]
    ) -> tuple[Array, Array]:
        """Return the bytes a unit of K that come to a block, and that it asks the cache for.

        Blocks of a cluster lie along one side, or half along each, and share what they have in
        common, as far as there are so many of them; the library takes what is least. What one asks
        for comes to all of them.
        """
        first, second = used * self.element[rows], tile[1] * self.weight[rows]
        come: Array = first + second
        least = come
        if is_narrow(tile):
            return come, least  # what pads rows is written by each block for itself
        columns, lines = np.ceil(self.n[rows] / tile[1]), np.ceil(self.m[rows] / tile[0])
        together = self.designs["gemm.cluster"]
        for along in (1.0, 0.5, 0.0):
            across = np.minimum(together**along, columns)
            down = np.minimum(together ** (1.0 - along), lines)
            least = np.minimum(least, first / across + second / down)
        return come, least

    def improve(
        self, kept: tuple[Array, Array, Array], chosen: NDArray[np.intp], tile: tuple[int, int],
        split: int,
    ) -> None:  # fmt: skip
        """Put the times with a tile and a split where they are the best so far.

        `kept` are busy time, time in units and L2, and time of DRAM, each (U, D) [s].
        """
        d, (tm, tn) = self.designs, tile
        rows = slice(None) if len(chosen) == len(self.m) else chosen  # a view where it can be
        steps = np.ceil(self.k[rows] / STEP / split)
        blocks = self.tiling.count(tile)[rows] * split
        used = np.minimum(tm, np.ceil(self.m[rows] / _LEAST) * _LEAST)
        used = np.full_like(used, tm) if is_narrow(tile) else used
        active = np.minimum(blocks, self.units)
        rounds = np.ceil(blocks / self.units)
        come, asked = (STEP * of_k for of_k in self._loads(rows, used, tile))
        step = self._arithmetic(rows, used, tn, rounds)
        step = np.maximum(step, come / (d["units.load_rate"] * d["units.clock"]))
        step = np.maximum(step, np.minimum(tn, self.n[rows]) * STEP * self.widening[rows])
        flying: Array | float = np.inf  # bytes, in a unit
        if pipeline.STAGES in d:
            held = STEP * (used * self.element[rows] + tn * self.weight[rows])
            under_way = pipeline.flying(held, rounds, d)
            step = np.maximum(step, cache_latency(d) / under_way)
            flying = under_way * asked
        core = rounds * d["gemm.fill"] / d["units.clock"] + np.maximum(
            rounds * steps * step, blocks * steps * asked / l2_bandwidth(active, d)
        )
        reach = np.minimum(dram_bandwidth(active, d, TILES, flying), self.reach)
        dram = self.wait[rows] + self.dram[rows] / reach
        memory = np.maximum(dram, self.own[rows])
        apart = np.where(self.tiling.refused(tile, split, rows), np.inf, self._sums(rows, split))
        large = self.tiling.too_large(tile, self.element[rows], self.weight[rows])
        if large is not None:
            apart = np.where(large, np.inf, apart)
        best = kept[0][rows]
        if not (np.maximum(core, memory) + apart < best).any():
            return  # even with perfect overlap: most of them end here
        busy = lapped(core, memory, self.ends) + apart
        better = busy < best
        for old, new in zip(kept, (busy, core, dram), strict=True):
            old[rows] = np.where(better, new, old[rows])

    def _arithmetic(
        self, rows: NDArray[np.intp] | slice, used: Array, tn: int, rounds: Array
    ) -> Array:
        """Return how long the arithmetic of a k-step takes, with sums that are moved to fp32 [s].

        Two groups of warps share a large tile, or have tiles of their own: one moves sums while the
        other multiplies. With one small tile in a unit nothing hides it.
        """
        time: Array = 2.0 * used * tn * STEP / self.rate[rows]
        if not self.exact.any() or (used * tn).min() >= _TWO_GROUPS:
            return time
        d = self.designs
        adds = used * tn * (STEP / _MOVED) / (d["vector.fp32.rate"] / 2.0 * d["units.clock"])
        seen = self.exact[rows] & (rounds <= 1) & (used * tn < _TWO_GROUPS)
        return time + np.where(seen, adds, 0.0)

    def _sums(self, rows: NDArray[np.intp] | slice, split: int) -> Array:
        """Return how long it takes to sum the parts of a reduction, (rows, D) or (1,) [s]."""
        if split == 1:
            return np.zeros(1)
        results = (self.tiling.batch * self.m * self.n)[rows]
        parts = results * (2.0 * _ACCUMULATOR * split)
        sums = self.designs["gemm.reduce"] + parts / l2_bandwidth(self.units[None, :], self.designs)
        elsewhere = np.where(self.summed[rows], self.summing, 0.0)
        return np.maximum(sums - elsewhere, 0.0)
