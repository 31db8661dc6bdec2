"""What the first loads of a kernel wait longer for where DRAM has to serve them.

A kernel's first threads find nothing under way: each load that waits for the one before takes what
DRAM's latency is above the cache's, `miss_wait` of `npusim.models.memory`, beside all that later
threads hide. The operand of which DRAM serves most decides; how large it is does not: a norm's cold
weights, 2 KB, hold up the whole kernel.

    wait = waits x miss_wait x max over what is read (share that DRAM serves)
    waits = 1                                                       where all loads leave at once
    waits = ceil(links x threads of a block x bytes of an element / 512 B)       at most the links

for kernels that take one element after the other (`npusim.models.links`): what a block loads next
lies beside what it has loaded, and DRAM gives 512 B of it at once.

Source: kernels of 128 to 512 full blocks on an H200, cold less warm
(workloads/experiments/h200_small_kernels.md): 0.6 us where all loads leave at once, 0.9 us with two
links of 1 KB, 1.6 us with four of 512 B. Kernels that scale 32 rows by a norm's weights, four links
of 256 B, take 2.7 us in a step (paddleocr_vl_decode_b32), others of 64 blocks 1.8 us repeated.

Left out: what DRAM gives at once where rows are shorter than that, that one block waits for half of
it, misses of later blocks (`npusim.models.routine` has those of reductions and conversions), what a
prefetch saves of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import hierarchy
from npusim.models.amount import amount, items
from npusim.models.hierarchy import Traffic
from npusim.models.memory import miss_wait
from npusim.reuse import DATA
from npusim.workload import Operations

Array = NDArray[np.float64]

PARAMETERS = ("memories.dram.latency", "memories.l2.latency")

READS = (*PARAMETERS, *hierarchy.READS)

_AT_ONCE = 512.0  # bytes
_ONE_BY_ONE = ("strided", "strided_4d", "strided_5d", "strided_cast", "transposed", "unrolled",
               "unrolled_cast")  # fmt: skip


def first_wait(operations: Operations, links: Array, designs: Designs) -> Array:
    """Return how much later kernels end whose first loads come from DRAM, (U, D) [s].

    Parameters
    ----------
    operations : Operations
        U operations.
    links : array, shape (U, 1)
        Loads that a thread takes one after the other; 0 where its launch is not known.
    designs : Designs
        D designs.

    Examples
    --------
    A norm's weights that an H200 reads from DRAM; the rest has just been written:

    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode_b32")
    >>> scaled = w.operations(np.array([23]))
    >>> wait = first_wait(scaled, np.array([[4.0]]), Designs(ns.load_arch("h200")))
    >>> (wait * 1e6).round(2).item()
    0.8
    """
    traffic = Traffic(operations, designs)
    share = np.zeros((len(operations), len(designs)))
    for name, (_, writes) in DATA.items():
        read = operations[name] > 0
        if not writes and read.any():
            found = traffic.share("dram", name)
            share = np.where(read[:, None], np.maximum(share, found), share)
    bytes_of_a_link = (operations["threads"] * _loaded(operations))[:, None]
    waits = np.clip(np.ceil(links * bytes_of_a_link / _AT_ONCE), 1.0, np.maximum(links, 1.0))
    apart = np.isin(operations.routine, _ONE_BY_ONE)[:, None]
    time: Array = np.where(apart, waits, 1.0) * miss_wait(designs) * share
    return time


def _loaded(operations: Operations) -> Array:
    """Return the bytes of an element that is loaded: of the narrower type where one is cast [B]."""
    read = sum(operations[name] for name, (_, writes) in DATA.items() if not writes)
    elements = np.maximum(amount(operations), 1.0)
    narrow: Array = np.minimum(items(operations), np.maximum(read / elements, 1.0))
    return narrow
