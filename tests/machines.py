"""A machine of round numbers and operations made by hand, for tests that know the answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from npusim.arch import Arch, Provenance
from npusim.reuse import alone
from npusim.workload import BYTES, Operations

DISTANCES = ("distance_weight", "distance_kv", "distance_activation")  # between two uses [B]

# Four units at 1 GHz, each 1,024 FLOP and 64 B from the last-level cache a clock; a DRAM that
# costs nothing unless a test says what it gives.
ROUND: dict[str, float] = {
    "units.count": 4, "units.clock": 1e9, "units.base_clock": 1e9, "units.powered": 4,
    "units.load_rate": 64, "units.miss_rate": 1e6,
    "matrix.clock": 1e9, "matrix.efficiency": 1, "matrix.boost_share": 0,
    "matrix.bf16.rate": 1024, "vector.fp32.rate": 64, "vector.efficiency": 1,
    "memories.dram.bandwidth": 1e18, "memories.dram.efficiency": 1,
    "memories.dram.capacity": 1e9, "memories.dram.latency": 1e-9, "memories.dram.in_flight": 1e9,
    "memories.l2.capacity": 1e6, "memories.l2.usable": 1, "memories.l2.ways": 16,
    "memories.l2.slices": 4, "memories.l2.slice_width": 1e6, "memories.l2.clock": 1e9,
    "memories.l2.latency": 1e-9, "launch.graph.repeat": 0,
    "gemm.start": 500, "gemm.fill": 100, "gemm.reduce": 1e-6, "gemm.cluster": 1,
    "gemm.tile_step": 64, "gemm.ramp": 0,
    "floor.matmul": 1e-6, "floor.attention": 2e-6, "floor.pointwise": 3e-6,
    "floor.reduction": 8e-7, "floor.gather": 5e-6, "floor.sort": 6e-6, "floor.memcpy": 7e-6,
    "launch.graph.interval": 1.5e-7, "launch.graph.node": 5e-8,
}  # fmt: skip


def machine(**changes: float) -> Arch:
    """Return the machine of round numbers with some of them changed; dots are written ``__``."""
    values = {**ROUND, **{path.replace("__", "."): value for path, value in changes.items()}}
    marks = {path: Provenance("made by hand", "measured", v, v) for path, v in values.items()}
    return Arch("round", "Round numbers", values, marks)


def operations(*rows: dict[str, Any], **same: Any) -> Operations:
    """Return operations of the given rows; nothing that they read stays in a cache by default."""
    texts = {"kind": "gemm", "dtype": "bf16", "library": "", "routine": ""}
    numbers = dict.fromkeys(
        ("batch", "m", "n", "k", "heads", "kv_heads", "groups", "blocks", "threads", "flop"), 0
    )
    full = [{**texts, **numbers, **dict.fromkeys(BYTES, 0.0), **dict.fromkeys(DISTANCES, np.inf),
             **same, **row} for row in rows or ({},)]  # fmt: skip
    columns = {c: np.array([r[c] for r in full]) for c in full[0] if c not in texts}
    reuse = alone(*(columns.pop(c) for c in DISTANCES))
    return Operations(*(np.array([r[c] for r in full], object) for c in texts), columns, reuse)


def distance(operations: Operations, what: str) -> Any:
    """Return the bytes between two uses of the weights, cache or activations read, (U,) [B]."""
    reuse = operations.reuse
    return reuse.windows[reuse.window[f"read_{what}"][:, 0]].sum(axis=1)
