"""Small workloads made by hand, for tests that know the answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from npusim.workload import COLUMNS, LABELS, Steps, Workload

DEFAULTS: dict[str, Any] = {
    "kernel": "k", "operator": "aten::op", "library": "ATen", "routine": "", "kind": "pointwise",
    "dtype": "fp32", "phase": "decode", "basis": "shape", "origin": "measured",
    "layer": -1, "stream": 7,
}  # fmt: skip


def workload(
    *rows: dict[str, Any],
    wall: tuple[float, ...] = (1.0,),
    tail: tuple[float, ...] | None = None,
    host: str = "measured",
    device: str = "",
    name: str = "made",
    edges: Any = None,
) -> Workload:
    """Return a workload of the given rows; what a row does not say is zero or a default."""
    full = [{**dict.fromkeys(COLUMNS, 0), **DEFAULTS, **row} for row in rows]
    labels = {c: list(dict.fromkeys(str(r[c]) for r in full)) for c in LABELS}
    columns = {
        c: np.array([labels[c].index(str(r[c])) if c in LABELS else r[c] for r in full])
        for c in COLUMNS
    }
    steps = Steps(np.array(wall), np.array(tail if tail is not None else (0.0,) * len(wall)))
    meta = {"host": host, "device": device, "launch": "eager", "marked_steps": len(wall)}
    return Workload(name, columns, labels, steps, edges, meta)


def timed(duration: float, **more: Any) -> dict[str, Any]:
    """Return a row without shapes: replay carries its measured duration over unchanged."""
    return {"kind": "unknown", "basis": "none", "duration_s": duration, **more}


def kernel(
    name: str, microseconds: float = 1.0, blocks: int = 8, threads: int = 128, **more: Any
) -> dict[str, Any]:
    """Return a row of a kernel with its launch."""
    return {"kernel": name, "duration_s": microseconds * 1e-6, "blocks": blocks,
            "threads": threads, **more}  # fmt: skip


def gemv(microseconds: float, k: int = 8, weight: float = 1e6, **more: Any) -> dict[str, Any]:
    """Return a row of a product that reads weights."""
    return kernel("void gemv<(int)2>(T1)", microseconds, kind="gemv", m=1, n=4, k=k,
                  read_weight=weight, **more)  # fmt: skip


def profile(
    *rows: dict[str, Any], form: str = "ncu raw csv", device: str = "", **counters: Any
) -> Workload:
    """Return what a counter profiler makes of some rows; a list of values for each counter."""
    w = workload(*rows, name="profile", device=device)
    values = {k: np.array(v, dtype=float) for k, v in counters.items()}
    return Workload(w.name, w.columns, w.labels, w.steps, w.edges, {**w.meta, "format": form},
                    values)  # fmt: skip
