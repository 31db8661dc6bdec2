"""Pipeline depth of a matrix product: how many k-steps of its tiles a unit has on the way.

A block holds ``gemm.stages`` k-steps at most: one is computed while the others are loaded. The
local memory of a unit has room for F of them, which its blocks share, as many as serve best:

    flying = max over b of min(b x stages, F) - b,    1 <= b <= blocks a unit, flying >= 1

With L bytes a k-step that a block loads itself (`npusim.models.gemm`), Little's law bounds a unit:

    a k-step takes at least (latency of the last-level cache) / flying
    bytes in flight to DRAM = min(memories.dram.in_flight, flying x L)

More stages never make a product slower, and more local memory does not either. Without
``gemm.stages`` nothing is bounded so: bytes in flight are what ``memories.dram.in_flight`` says.

Source: J. Little, "A proof for the queuing formula L = lambda W", Operations Research 9(3), 1961,
doi:10.1287/opre.9.3.383; multistage pipelines as in NVIDIA CUTLASS, which gives a block as many
stages as fit. Names of cuBLAS kernels on an H200 say 16 (``nvjet_sm90_tst_64x8_64x16``), with 165
of 228 KiB of shared memory.

Left out: what a stage costs beside its memory (barriers, registers), stages of attention kernels,
loads that a unit without stages keeps in flight by its threads (`npusim.models.occupancy`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs

Array = NDArray[np.float64]

STAGES = "gemm.stages"
PARAMETERS = (STAGES, "memories.l1.capacity", "memories.l2.latency", "memories.dram.latency")


def flying(step: Array, blocks: Array, designs: Designs) -> Array:
    """Return how many k-steps a unit has on the way, (U, D).

    Parameters
    ----------
    step : array, shape (U, D) or (U, 1)
        What a k-step of a tile takes of the local memory [B].
    blocks : array, shape (U, D)
        Blocks that the busiest unit computes, one after the other or side by side.
    designs : Designs
        D designs that have ``gemm.stages``.

    Examples
    --------
    128 KiB hold 8 steps of 16 KiB: one block of 4 stages has 3 on the way, two have 6; of 16
    stages one has 7, and a second would only take room.

    >>> import npusim as ns
    >>> deep = Designs(ns.load_arch("decode_npu"), {STAGES: np.array([4.0, 16.0])})
    >>> [flying(np.array([[16384.0]]), np.array([[n]]), deep).tolist() for n in (1.0, 2.0)]
    [[[3.0, 7.0]], [[6.0, 7.0]]]
    """
    stages, l1 = np.round(designs[STAGES]), "memories.l1.capacity"
    room = np.floor(designs[l1] / step) if l1 in designs else np.full(step.shape, np.inf)
    full = np.floor(room / stages)  # blocks that have all their stages
    best: Array = np.ones(1)  # the smallest tile must do even where two steps of it do not fit
    for more in (0.0, 1.0):
        beside = np.clip(full + more, 1.0, np.maximum(blocks, 1.0))
        best = np.maximum(best, np.minimum(beside * stages, room) - beside)
    return best
