"""Matrix products: tiles over compute units, split-K, and the bytes they load.

A library cuts the result into tiles of tm x tn, and the reduction into s parts where there are
fewer tiles than units; it takes what is fastest, so does the model. A unit with b blocks of
k-steps of 64:

    t_units  = b x steps x max(2 tm tn 64 / matrix rate, step bytes / load rate)
    t_l2     = bytes of all steps / L2 bandwidth
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
of a GEMV are not shared, each of its columns lies in one block. The matrix unit runs at a clock
between base and boost, as its power limit allows. Weights stored narrower than they are computed
with are widened meanwhile, each once in every tile of rows: a third term of a step's maximum
(`npusim.models.conversion`). Products on vector units (fp32) are cut the same way.

Source: tile quantisation and split-K as in NVIDIA, "Matrix multiplication background user's
guide" (DU-08939); rates and floors from the architecture file.

Left out: rasterisation order (how much of the operands an L2 holds across waves), stream-K,
skewed k-steps, epilogues, alignment; kernels of m <= 4 that a library writes apart.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import conversion, hierarchy, memory, pipeline, roofline, sram_compute
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
    "gemm.tile_step",
    "gemm.ramp",
    "memories.l1.capacity",
)

READS = {
    *PARAMETERS, *memory.PARAMETERS, *hierarchy.READS, *pipeline.PARAMETERS, *roofline.PARAMETERS,
    *conversion.PARAMETERS, *sram_compute.PARAMETERS,
}  # fmt: skip

_STEP = 64  # length of a k-step
_LEAST = 8  # rows of the smallest matrix instruction
_SIDES = (64, 128, 256)
_SMALLEST = (64, 64)
_STAGES = 2  # of a k-step: one is computed while the next is loaded
_LARGEST = 128 * 256  # what registers and accumulators of a unit hold
_SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_BLOCK = 16384  # products times designs
_ACCUMULATOR = 4.0  # bytes of a partial result


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
    return in_place(cost, operations, designs)


def _ends(designs: Designs) -> Array:
    """Return how long transfers and arithmetic of a product do not overlap at most, (D,) [s]."""
    longest: Array = designs["gemm.ramp"] / designs["units.clock"]
    return longest


def _fastest(rows: _Rows) -> tuple[Array, Array, Array]:
    """Return busy time, time in units and L2, and time of DRAM with the best tile and split."""
    designs, shape = rows.designs, rows.dram.shape
    kept = np.full(shape, np.inf), np.zeros(shape), np.zeros(shape)
    for tile in _tiles(designs):
        for split, chosen in rows.worth(tile):
            rows.improve(kept, chosen, tile, split)
    return kept


def _tiles(designs: Designs) -> list[tuple[int, int]]:
    """Return the tiles of all libraries: one side of 64, 128 or 256, the other too or in steps."""
    steps = np.unique(np.round(designs["gemm.tile_step"]))
    others = [n for n in range(64, 257) if n in _SIDES or (n % steps == 0).any()]
    both = [(side, n) for side in _SIDES for n in others]
    return sorted({t for m, n in both for t in ((m, n), (n, m)) if m * n <= _LARGEST})


class _Rows:
    """The products as columns (U, 1), and what does not depend on the tile."""

    def __init__(self, operations: Operations, designs: Designs) -> None:
        batch, self.m, self.n, self.k = (
            np.maximum(operations[c].astype(np.float64), 1.0)[:, None]
            for c in ("batch", "m", "n", "k")
        )
        self.batch = batch
        self.designs = designs
        self.routine = operations.routine
        self.element = np.array([BYTES_OF.get(t, 2.0) for t in operations.dtype])[:, None]
        whole = (operations["read_weight"] > 0) & (operations["groups"] == 0)
        stored = np.minimum(operations["read_weight"] / (self.n * self.k)[:, 0], self.element[:, 0])
        self.weight = np.where(whole, stored, self.element[:, 0])[:, None]
        self.units = designs["units.count"]
        self.grain = np.round(designs["gemm.tile_step"])
        l1 = "memories.l1.capacity"
        self.room = designs[l1] if l1 in designs else np.full(1, np.inf)
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

    def worth(self, tile: tuple[int, int]) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """Yield the splits of K that are worth a look with a tile, each with the products."""
        tm, tn = tile
        wide = np.maximum(self.m, _SIDES[0]), np.maximum(self.n, _SIDES[0])
        fits = (tm <= wide[0]) & (tn <= wide[1]) & ((tm == _SIDES[0]) | (self.m > _SIDES[0]))
        if not fits.any():
            return
        whole = np.flatnonzero(fits[:, 0] & (self.routine != "split"))
        if whole.size:
            yield 1, whole
        idle = fits & (self._tiles(tile) < self.units.max()) & (self.routine != "whole")[:, None]
        for split in _SPLITS[1:]:
            long = idle & (self.k >= 2 * _STEP * split) | (fits & self._in_two(split))
            if long.any():
                yield split, np.flatnonzero(long[:, 0])

    def _in_two(self, split: int) -> NDArray[np.bool_]:
        """Return which products are cut in two whatever the machine: those known to be split."""
        known: NDArray[np.bool_] = (self.routine == "split")[:, None] & (split == _SPLITS[1])
        return known

    def _tiles(self, tile: tuple[int, int]) -> Array:
        count: Array = self.batch * np.ceil(self.m / tile[0]) * np.ceil(self.n / tile[1])
        return count

    def _loads(self, rows: NDArray[np.intp] | slice, used: Array, tile: tuple[int, int]) -> Array:
        """Return the bytes a unit of K that a block loads itself: a cluster shares one side.

        Blocks of a cluster lie along one side, or half along each, and share what they have in
        common, as far as there are so many of them; the library takes what is least.
        """
        first, second = used * self.element[rows], tile[1] * self.weight[rows]
        columns, lines = np.ceil(self.n[rows] / tile[1]), np.ceil(self.m[rows] / tile[0])
        together = self.designs["gemm.cluster"]
        least: Array = first + second
        for along in (1.0, 0.5, 0.0):
            across = np.minimum(together**along, columns)
            down = np.minimum(together ** (1.0 - along), lines)
            least = np.minimum(least, first / across + second / down)
        return least

    def improve(
        self, kept: tuple[Array, Array, Array], chosen: NDArray[np.intp], tile: tuple[int, int],
        split: int,
    ) -> None:  # fmt: skip
        """Put the times with a tile and a split where they are the best so far.

        `kept` are busy time, time in units and L2, and time of DRAM, each (U, D) [s].
        """
        d, (tm, tn) = self.designs, tile
        rows = slice(None) if len(chosen) == len(self.m) else chosen  # a view where it can be
        steps = np.ceil(self.k[rows] / _STEP / split)
        tiles = self._tiles(tile)[rows]
        blocks = tiles * split
        used = np.minimum(tm, np.ceil(self.m[rows] / _LEAST) * _LEAST)
        active = np.minimum(blocks, self.units)
        loads = self._loads(rows, used, tile) * _STEP
        arithmetic = 2.0 * used * tn * _STEP / self.rate[rows]
        step = np.maximum(arithmetic, loads / (d["units.load_rate"] * d["units.clock"]))
        step = np.maximum(step, np.minimum(tn, self.n[rows]) * _STEP * self.widening[rows])
        rounds = np.ceil(blocks / self.units)
        flying: Array | float = np.inf  # bytes, in a unit
        if pipeline.STAGES in d:
            held = _STEP * (used * self.element[rows] + tn * self.weight[rows])
            under_way = pipeline.flying(held, rounds, d)
            step = np.maximum(step, cache_latency(d) / under_way)
            flying = under_way * loads
        core = rounds * d["gemm.fill"] / d["units.clock"] + np.maximum(
            rounds * steps * step, blocks * steps * loads / l2_bandwidth(active, d)
        )
        reach = np.minimum(dram_bandwidth(active, d, TILES, flying), self.reach)
        dram = self.wait[rows] + self.dram[rows] / reach
        memory = np.maximum(dram, self.own[rows])
        apart: Array = np.zeros(1)
        if split > 1:
            parts = (self.batch * self.m * self.n)[rows] * (2.0 * _ACCUMULATOR * split)
            sums = d["gemm.reduce"] + parts / l2_bandwidth(self.units[None, :], d)
            elsewhere = np.where((self.routine[rows] == "split")[:, None], self.summing, 0.0)
            apart = np.maximum(sums - elsewhere, 0.0)
            idle = (tiles < self.units) | self._in_two(split)[rows]  # of a design, beside others
            apart = np.where(idle, apart, np.inf)
        for side in set(tile).difference(_SIDES):
            apart = np.where(side % self.grain == 0, apart, np.inf)
        if tile != _SMALLEST:  # which must do where the memory of a unit holds no larger one
            staged = _STAGES * _STEP * (tm * self.element[rows] + tn * self.weight[rows])
            apart = np.where(staged <= self.room, apart, np.inf)
        best = kept[0][rows]
        if not (np.maximum(core, memory) + apart < best).any():
            return  # even with perfect overlap: most of them end here
        busy = lapped(core, memory, self.ends) + apart
        better = busy < best
        for old, new in zip(kept, (busy, core, dram), strict=True):
            old[rows] = np.where(better, new, old[rows])
