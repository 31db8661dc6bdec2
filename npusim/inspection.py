"""What a workload holds, as plain numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from npusim.workload import BYTES, Workload


def inspection(w: Workload) -> dict[str, Any]:
    """Return totals of a workload over the whole capture, in SI units.

    Returns
    -------
    dict
        ``kernels``, ``steps``, ``layers`` (0 if not known), ``wall_s``, ``device_busy_s``,
        ``classified_busy_share``,
        ``host_share`` (of wall), ``flop``, ``bytes`` by tensor class, ``kinds`` (count, seconds),
        ``unclassified`` (count and seconds by kernel).

    Examples
    --------
    >>> import npusim as ns
    >>> found = inspection(ns.load_workload("paddleocr_vl_decode"))
    >>> found["kernels"], found["steps"]
    (2346, 3)
    """
    seconds = w["duration_s"]
    wall, busy = float(w.steps.wall_s.sum()), float(seconds.sum())
    return {
        "name": w.name,
        "device": w.meta.get("device", ""),
        "phase": sorted(set(w.text("phase").tolist())),
        "kernels": len(w),
        "steps": len(w.steps) if w.meta.get("marked_steps") else 0,
        "distinct_operations": len(w.unique()[0]),
        "layers": int(w["layer"].max()) + 1,
        "wall_s": wall,
        "device_busy_s": busy,
        "host_share": max(0.0, 1 - busy / wall) if wall > 0 else 0.0,
        "syncs": int(w["sync"].sum()),
        "classified_busy_share": w.classified_busy_share,
        "flop": float(w["flop"].sum()),
        "bytes": {c: float(w[c].sum()) for c in BYTES},
        "kinds": _by(w, "kind", np.ones(len(w), dtype=bool)),
        "unclassified": _by(w, "kernel", ~w.classified),
        "outside_steps": {"count": w.meta.get("outside_steps", 0),
                          "seconds": w.meta.get("outside_steps_s", 0.0)},
    }  # fmt: skip


def _by(w: Workload, column: str, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Any]:
    """Return count and seconds by label, most seconds first."""
    codes, size = w[column][chosen], len(w.labels[column])
    count = np.bincount(codes, minlength=size)
    seconds = np.bincount(codes, w["duration_s"][chosen], size)
    order = np.argsort(-seconds, kind="stable")
    return {
        w.labels[column][i]: {"count": int(count[i]), "seconds": float(seconds[i])}
        for i in order
        if count[i]
    }
