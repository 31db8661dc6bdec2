"""Products of one row on vector units: kernels that stream weights past, without tiles.

A library has such kernels for one row (or one column) beside those that fill tiles; in types that
matrix units lack it takes them always. Threads load weights into registers, multiply and add, and
sum over the threads of a block as a reduction does, so the smallest takes what that takes:

    t      = floor.reduction + share from DRAM x (DRAM latency - L2 latency)
             + max(DRAM bytes / B, bytes / min(pull, L2 bandwidth), arithmetic)
    pull   = units x miss_rate x clock,  units = min(units.count, blocks)
    B      = (min(pull, bytes in flight / latency)^-3 + DRAM bandwidth^-3)^(-1/3)

A block has 4 results; at most 128 results of more than 512 products each have 16 blocks each.
Loads of threads pass the L1 as misses, from the cache behind it too: 20 B a clock and unit of an
H200, where engines that copy tiles get 64. Nothing here was fitted: the numbers are those of
reductions and of streams.

Source: kernels ``gemvx``, ``gemv2T`` and ``dot_kernel`` of cuBLAS, fp32 on the H200, their grids
and their times (workloads/experiments/h200_one_row.md).

Left out: which of its vector kernels the library takes, and whether it takes one (a machine says so
in ``gemm.vector_row``); a second kernel that sums what blocks leave; rows from 2 to 4, for which
there are others in fp32.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import hierarchy, memory, prefetch, roofline
from npusim.models.cost import Cost, overlapped, smooth_min
from npusim.models.hierarchy import Traffic
from npusim.workload import Operations

Array = NDArray[np.float64]

PARAMETERS = ("gemm.vector_row", "floor.reduction")

READS = {*PARAMETERS, *memory.PARAMETERS, *hierarchy.READS, *roofline.PARAMETERS}

_COLUMNS = 4.0  # of weights, in a block
_CUT = 512  # the longest reduction of few results that is not cut
_FEW, _PARTS = 128, 16  # results, and blocks for each of them where it is
_KINDS = ("gemv", "gemm")
_FIELDS = ("floor", "memory", "compute", "channel", "ahead", "gain")


def takes(operations: Operations, designs: Designs) -> NDArray[np.bool_]:
    """Return which products the library computes on vector units on which design, (U, D) or (U, 1).

    Examples
    --------
    The library of an RTX 5090 does so with one row in any type, that of an H200 in fp32:

    >>> import npusim as ns
    >>> from npusim.measured.shapes import linear, operations
    >>> layers = operations([linear("bf16", 1, 1280, 1280), linear("bf16", 2, 1280, 1280),
    ...                      linear("fp32", 1, 1280, 1280)])
    >>> [takes(layers, Designs(ns.load_arch(name)))[:, 0].tolist() for name in ("rtx_5090", "h200")]
    [[True, False, True], [False, False, True]]
    """
    one = np.minimum(operations["m"], operations["n"]) == 1
    plain = np.isin(operations.kind, _KINDS) & (operations["groups"] == 0)
    one = one & plain
    lacking = np.array([roofline.unit_of(kind, dtype, designs) == "vector"
                        for kind, dtype in zip(operations.kind, operations.dtype, strict=True)],
                       dtype=bool)  # fmt: skip
    path = PARAMETERS[0]
    has = designs[path] if path in designs else np.zeros(1)
    found: NDArray[np.bool_] = one[:, None] & (lacking[:, None] | (has >= 1))
    return found


def where_faster(cost: Cost, operations: Operations, designs: Designs) -> Cost:
    """Return the cost of products, on vector units where that is faster and the library does so.

    Parameters
    ----------
    cost : Cost
        What they cost in kernels that fill tiles, each (U, D) [s].
    operations : Operations
        U products.
    designs : Designs
        D designs.
    """
    possible = takes(operations, designs)
    rows = np.flatnonzero(possible.any(axis=1))
    if not rows.size:
        return cost
    shape = cost.floor.shape
    here = vector_cost(operations.take(rows), designs)
    before = {name: np.broadcast_to(getattr(cost, name), shape) for name in _FIELDS}
    faster = possible[rows] & (here.time < cost.time[rows])
    parts = {}
    for name, table in before.items():
        parts[name] = table.copy()
        parts[name][rows] = np.where(faster, getattr(here, name), table[rows])
    return replace(cost, **parts)


def vector_cost(operations: Operations, designs: Designs) -> Cost:
    """Return what products of one row or column cost on vector units, each (U, D) [s].

    Parameters
    ----------
    operations : Operations
        U products; ``batch`` problems of one row each.
    designs : Designs
        D designs.

    Examples
    --------
    64 results of 1,280 products in fp32 on an H200 (measured, cold: 2.26 us):

    >>> import npusim as ns
    >>> from npusim.measured.shapes import linear, operations
    >>> router = operations([linear("fp32", 1, 64, 1280)])
    >>> cost = vector_cost(router, Designs(ns.load_arch("h200")))
    >>> bool(0.9 < cost.time.item() / 2.26e-6 < 1.1)
    True
    """
    shape = len(operations), len(designs)
    active = np.minimum(_blocks(operations), designs["units.count"])
    traffic = Traffic(operations, designs)
    far, moved = traffic.moved("dram"), np.maximum(operations.bytes_moved, 1.0)[:, None]
    pull = active * designs["units.miss_rate"] * designs["units.clock"]
    passing = moved / np.minimum(pull, memory.l2_bandwidth(active, designs))
    passing = np.maximum(passing, memory.own_time(traffic, active, designs))
    flying = active * (designs["memories.dram.in_flight"] / designs["memories.dram.latency"])
    reach = smooth_min(np.minimum(pull, flying), roofline.bandwidth(designs), memory.STREAM)
    wait, rest = memory.miss_wait(designs) * far / moved, prefetch.part_left(traffic, far, designs)
    stream = far / reach
    compute = operations["flop"][:, None] / (
        roofline.vector_peak(designs) * designs["vector.efficiency"]
    )
    transfers = wait + np.maximum(passing, stream)
    busy = np.broadcast_to(np.maximum(transfers, compute), shape)
    there = np.maximum(wait * rest + np.maximum(passing, stream * rest), compute)
    dram = wait + stream
    return overlapped(designs["floor.reduction"], transfers, compute, busy,
                      dram, dram * (1.0 - rest), busy - there)  # fmt: skip


def _blocks(operations: Operations) -> Array:
    """Return the thread blocks of each product, (U, 1)."""
    batch, m, n, k = (np.maximum(operations[c], 1)[:, None] for c in ("batch", "m", "n", "k"))
    results = (batch * m * n).astype(np.float64)
    cut = (results <= _FEW) & (k > _CUT)
    blocks: Array = np.where(cut, _PARTS * results, np.ceil(results / _COLUMNS))
    return blocks
