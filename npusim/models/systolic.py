"""The matrix array: a systolic array in each compute unit, in place of its matrix unit.

A product is cut into tiles of tm x tn results, and its reduction into s parts
(`npusim.models.systolic_tiles`); a unit takes one block (tile and part) after the other. With V
values of a type in an element of 16 bits (1 of 16 bits, 2 of 8, 4 of 4; they are neighbours along
k), K = k / s, and r blocks on the busiest unit (blocks / units, rounded up):

    t_array = cycles of r x folds of (tm, tn, K / V) / clock   (`npusim.models.systolic_cycles`)
    t_port  = r x bytes of a block / (units.load_rate x clock)
    t_l2    = (loads + results - what memories of their own give) / L2 bandwidth of active units
    t_dram  = bytes from and to DRAM / min(DRAM bandwidth, active units x units.miss_rate x clock)
    t       = array.latency + first operands + last results
              + max(t_array, t_port, t_l2, t_dram, own memories) + sum of parts

The array runs at the clock that the power limit allows for matrix work. Parts of k go to different
units at the price of `gemm.reduce` and of writing and reading them; of an operation that the traced
library had split too (routine ``split``) the sum is another operation, so its price is taken off.
That a library did not split it binds no other machine.

Products of a batch and experts of a grouped product are independent: each fills and drains the
array. With `array.side_by_side` of S, and double registers, the folds of up to S of them that one
unit has follow each other as those of one product do: their tags say which is which, and an array
fills and drains once for S of them. They do not share a fold: an element holds one operand.

Weights stored narrower than they are computed with are widened as a unit loads them, once in each
block: one more term of the maximum (`npusim.models.conversion`).

First operands come a latency of their level after the start, each level by its share; last results
take one of the last-level cache. This start stands in place of ``floor.matmul``, ``gemm.start``
and ``gemm.fill``.

Source: seed 004 section 4 (arrays of 128 columns rather than 256, deeper, weights that stay). No
machine here has such an array: nothing of it was measured.

Left out: attention (which stays on the matrix unit), products launched apart that could share a
chain, more rows of some experts than the mean, zeros.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import hierarchy, memory, sram_compute, systolic_tiles
from npusim.models.cost import Cost, overlapped
from npusim.models.hierarchy import Traffic
from npusim.models.memory import cache_latency
from npusim.models.prefetch import part_left
from npusim.models.sram_compute import in_place
from npusim.models.systolic_tiles import VALUES, fastest
from npusim.workload import Operations

Array = NDArray[np.float64]

PARAMETERS = (
    "array.rows",
    "array.latency",
    "memories.dram.latency",
    "memories.l2.latency",
    *(f"memories.{level}.latency" for level in memory.OWN),
)

READS = {*PARAMETERS, *systolic_tiles.READS, *hierarchy.READS, *sram_compute.PARAMETERS}

KINDS = ("gemv", "gemm", "grouped_gemm", "conv")


def takes(operations: Operations, designs: Designs) -> NDArray[np.bool_]:
    """Return which operations run on the arrays of designs that have them, shape (U,).

    These are products in a type of at most 16 bits.

    Examples
    --------
    >>> import npusim as ns
    >>> from npusim.arch import with_value
    >>> from npusim.measured.shapes import linear, operations
    >>> layers = operations([linear(dtype, 4, 1280, 1280) for dtype in ("bf16", "fp8", "fp32")])
    >>> npu = ns.load_arch("decode_npu")
    >>> takes(layers, Designs(with_value(npu, "array.rows", 8.0))).tolist()
    [True, True, False]
    >>> takes(layers, Designs(with_value(npu, "array.rows", 0.0))).any().item()
    False
    """
    if PARAMETERS[0] not in designs or not designs[PARAMETERS[0]].any():
        return np.zeros(len(operations), dtype=bool)
    of_kind: NDArray[np.bool_] = np.isin(operations.kind, KINDS)
    return of_kind & np.isin(operations.dtype, list(VALUES))


def systolic_cost(operations: Operations, designs: Designs) -> Cost:
    """Return the cost of products on the arrays, each (U, D) [s]; infinite where there is none.

    Parameters
    ----------
    operations : Operations
        U products that `takes` names.
    designs : Designs
        D designs.

    Examples
    --------
    A large product in bf16 on 70 arrays of 8 x 128: 95 % of their peak at least.

    >>> import npusim as ns
    >>> from npusim.arch import with_value
    >>> from npusim.measured.shapes import linear, operations
    >>> layer = operations([linear("bf16", 4096, 8960, 8192)])
    >>> npu = with_value(ns.load_arch("decode_npu"), "array.rows", 8.0)
    >>> cost = systolic_cost(layer, Designs(npu))
    >>> ideal = 4096 * 8960 * 8192 / (70 * 8 * 128 * 1.8e9)
    >>> bool(ideal < cost.time.item() < ideal / 0.95)
    True
    """
    traffic, found = Traffic(operations, designs), fastest(operations, designs)
    start = designs["array.latency"] + _first(operations, traffic, designs) + cache_latency(designs)
    floor = np.where(designs["array.rows"] > 0, start, np.inf)
    rest = part_left(traffic, traffic.moved("dram"), designs)
    longest = np.maximum(np.maximum(found.held, found.dram), found.compute)
    there = np.maximum(np.maximum(found.held, found.dram * rest), found.compute)
    cost = overlapped(floor, np.maximum(found.held, found.dram), found.compute, found.busy,
                      found.dram, found.dram * (1.0 - rest), longest - there)  # fmt: skip
    return in_place(cost, operations, designs)


def _first(operations: Operations, traffic: Traffic, designs: Designs) -> Array:
    """Return the latency of the first operands, each level by its share of what is read [s]."""
    read = np.maximum(operations.bytes_moved - operations["write_activation"], 1.0)[:, None]
    wait, left = np.zeros((1, 1)), np.ones((1, 1))
    for level in ("dram", *memory.OWN):
        share, path = traffic.read(level) / read, f"memories.{level}.latency"
        left = left - share
        if path in designs:
            wait = wait + share * designs[path]
    return wait + np.maximum(left, 0.0) * cache_latency(designs)
