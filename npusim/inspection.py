"""What a workload holds, as plain numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from npusim.gaps import gaps
from npusim.workload import BYTES, HOST_PARTS, Workload

# Where the host spends a step, in the order of tables; together they are the wall time.
HOST_TIMES: Mapping[str, str] = MappingProxyType({
    "interpreter_s": "interpreter",
    "framework_s": "framework operators",
    "library_s": "library operators",
    "launch_s": "runtime calls",
    "presync_s": "before waits",
    "tail_s": "after the last launch",
    "waiting_s": "waiting for the device",
})  # fmt: skip


def inspection(w: Workload) -> dict[str, Any]:
    """Return totals of a workload over the whole capture, in SI units.

    Returns
    -------
    dict
        ``kernels``, ``steps``, ``layers`` (0 if not known), ``wall_s``, ``device_busy_s``,
        ``classified_busy_share``,
        ``device_busy_s`` (sum over kernels), ``device_active_s`` (time in which at least one runs),
        ``idle_share`` (of wall), ``flop``, ``bytes`` by tensor class, ``kinds``
        (count, seconds, FLOP and bytes),
        ``unclassified`` (count and seconds by kernel), ``host`` (see `host_times`), ``origins``
        (count and seconds by what operations are, see `npusim.columns`).

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
        "host": host_times(w),
        "classified_busy_share": w.classified_busy_share,
        "flop": float(w["flop"].sum()),
        "bytes": {c: float(w[c].sum()) for c in BYTES},
        "kinds": _by(w, "kind", np.ones(len(w), dtype=bool)),
        "unclassified": _by(w, "kernel", ~w.classified),
        "origins": _by(w, "origin", np.ones(len(w), dtype=bool)),
        "notes": list(_notes(w)),
        "outside_steps": {"count": w.meta.get("outside_steps", 0),
                          "seconds": w.meta.get("outside_steps_s", 0.0)},
    }  # fmt: skip


def host_times(w: Workload) -> dict[str, Any] | None:
    """Return where the host spends a step, the mean over steps; None if that was not measured.

    Returns
    -------
    dict
        ``steps``; ``wall_s`` and the times of `HOST_TIMES`, which add up to it [s]; ``launches``,
        ``waits`` and ``records`` (operators that the profiler recorded) of a step; ``threads``, the
        same of each thread that launches, but for what no thread has: wall, tail and waiting.

    Examples
    --------
    >>> import npusim as ns
    >>> host = host_times(ns.load_workload("paddleocr_vl_decode"))
    >>> f"{host['library_s'] / host['wall_s']:.0%}", host["launches"]
    ('66%', 782.0)
    """
    if w.meta.get("host") != "measured" or not w["host_s"].any():
        return None
    steps = len(w.steps)
    found = _host_of(w, np.ones(len(w), dtype=bool))
    wall, tail = float(w.steps.wall_s.sum()) / steps, float(w.steps.tail_s.sum()) / steps
    work = float(w["host_s"].sum() + w["presync_s"].sum()) / steps + tail
    threads = [{"thread": t} | _host_of(w, w["thread"] == t)
               for t in np.unique(w["thread"]).tolist() if t >= 0]  # fmt: skip
    return {"steps": steps, "wall_s": wall, **found, "tail_s": tail,
            "waiting_s": max(round(wall - work, 12), 0.0),  # sums are as exact as that
            "threads": threads}  # fmt: skip


def _host_of(w: Workload, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, float]:
    """Return host work around some launches, and how many these are, in a step."""
    sums = {part: w[part] for part in (*HOST_PARTS, "presync_s")}
    sums |= {"launches": chosen, "waits": w["sync"], "records": w["records"]}
    return {name: float(column[chosen].sum()) / len(w.steps) for name, column in sums.items()}


def _notes(w: Workload) -> Iterator[str]:
    """Yield what makes the totals of a capture other than they seem."""
    yield from w.meta.get("notes", ())
    if w.meta.get("measured") is False:
        lowering = w.meta.get("lowering")
        made = f"made from hyperparameters, with the kernels of {lowering}" if lowering else ""
        yield f"{made or 'no device times were recorded'}: every time here is 0"
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
    if w["launch_s"].any() and not w["records"].any():
        yield (
            "the trace shows no framework operators: all host work outside launches and waits "
            "counts as the interpreter's"
        )


def _by(w: Workload, column: str, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Any]:
    """Return count, seconds, FLOP and bytes by label, most seconds first."""
    codes, size = w[column][chosen], len(w.labels[column])
    count = np.bincount(codes, minlength=size)
    seconds, flop, moved = (
        np.bincount(codes, values[chosen], size)
        for values in (w["duration_s"], w["flop"], w.bytes_moved)
    )
    return {
        w.labels[column][i]: {"count": int(count[i]), "seconds": float(seconds[i]),
                              "flop": float(flop[i]), "bytes": float(moved[i])}
        for i in np.lexsort((-moved, -seconds)).tolist()
        if count[i]
    }  # fmt: skip
