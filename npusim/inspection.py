"""What a workload holds, as plain numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from npusim.gaps import gaps
from npusim.workload import BYTES, Workload


def inspection(w: Workload) -> dict[str, Any]:
    """Return totals of a workload over the whole capture, in SI units.

    Returns
    -------
    dict
        ``kernels``, ``steps``, ``layers`` (0 if not known), ``wall_s``, ``device_busy_s``,
        ``classified_busy_share``,
        ``device_busy_s`` (sum over kernels), ``device_active_s`` (time in which at least one runs),
        ``idle_share`` (of wall), ``flop``, ``bytes`` by tensor class, ``kinds`` (count, seconds),
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
    active = float(gaps(w).active_s.sum())
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
        "device_active_s": active,
        "idle_share": max(0.0, 1 - active / wall) if wall > 0 else 0.0,
        "syncs": int(w["sync"].sum()),
        "classified_busy_share": w.classified_busy_share,
        "flop": float(w["flop"].sum()),
        "bytes": {c: float(w[c].sum()) for c in BYTES},
        "kinds": _by(w, "kind", np.ones(len(w), dtype=bool)),
        "unclassified": _by(w, "kernel", ~w.classified),
        "notes": list(_notes(w)),
        "outside_steps": {"count": w.meta.get("outside_steps", 0),
                          "seconds": w.meta.get("outside_steps_s", 0.0)},
    }  # fmt: skip


def _notes(w: Workload) -> Iterator[str]:
    """Yield what makes the totals of a capture other than they seem."""
    yield from w.meta.get("notes", ())
    if w.meta.get("measured") is False:
        yield "no device times were recorded: every time here is 0"
    if w.meta.get("duration_basis"):
        yield f"durations are those under the {w.meta['duration_basis']}, kernels one at a time"
    if w.meta.get("repaired", "lost_events" in w.meta):
        yield f"the trace was cut short: {w.meta.get('lost_events', 0)} events lost at its end"
    if int(w.meta.get("devices") or 1) > 1 or int(w.meta.get("processes") or 1) > 1:
        several = f"{w.meta.get('devices', 1)} devices, {w.meta.get('processes', 1)} processes"
        yield f"{several} in one capture: times are summed over them"
    if w.meta.get("launches_of_one_id"):
        yield (
            f"{w.meta['launches_of_one_id']} launch calls carry the correlation id of another "
            "(merged traces?): which of them launched a kernel is not certain"
        )
    if w.meta.get("world_size"):
        yield f"one rank of {w.meta['world_size']}: rank {w.meta.get('rank', 'unknown')}"
    if len(set(w["stream"].tolist())) > 1:
        yield "several streams: times of kernels that run at the same time are summed"
    late = np.zeros(len(w.steps))
    np.maximum.at(late, w["step"], w["start_s"] + w["duration_s"])
    count = int((late > w.steps.wall_s * (1 + 1e-6)).sum())
    if count:
        yield (
            f"in {count} of {len(w.steps)} steps the device works on after the step has ended: "
            "their wall times are the host's; synchronise at the end of a step"
        )
    if w.meta.get("host") == "measured":
        yield "wall and host times hold the profiler's own cost"


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
