"""Seed 002's changes of the vision path: what they save alone, and in a service.

Two estimates of one request. CODE: what the changes remove, counted in the public code, at the
host cost of a launch of the machine. TRACE: the same kinds of work removed from a measured vision
step (the H200 trace of another implementation of the model), replayed on the machine.
"""

import host_studies_figures as study
import numpy as np

import npusim as ns
from npusim.leave_out import leave_out
from npusim.workload import Workload

WORKLOAD = "paddleocr_vl_vision"
DEVICE = (1, 4, 8, 16)  # times the H200's own device time


def measured():
    """Return the vision step of the H200 trace; its host is the one it is replayed on."""
    return ns.load_workload(WORKLOAD).renamed("vision", host="unknown")


def removable(w):
    """Return the operations of each change in the traced implementation: bool, shape (K,)."""
    operator, kind, layer = w.text("operator"), w.text("kind"), w["layer"]
    number = np.arange(len(w)) - np.searchsorted(w["step"], w["step"])  # within its step
    inside = layer >= 0
    before, after = (np.zeros(len(w), dtype=bool) for _ in range(2))
    for step in range(len(w.steps)):
        rows = np.flatnonzero(w["step"] == step)
        first, last = np.flatnonzero(inside[rows])[[0, -1]]
        before[rows[:first]], after[rows[last + 1 :]] = True, True
    upload = _first(w, before & (operator == "aten::copy_") & (kind == "memcpy") & w["sync"])
    angles = _first(w, before & (operator == "aten::cos"))
    size = _first(w, before & (kind == "conv")) + 2  # convolution and its bias
    casts = inside & (kind == "cast")
    return {
        1: after & np.isin(kind, ["memcpy", "pointwise", "reduction"]),
        2: before & (number >= upload) & (number < angles - 3),  # two casts and a product
        3: before & (number >= size) & (number < upload - 1),  # the sum of both stays
        4: inside & (kind == "memcpy") | inside & (operator == "aten::sub"),
        5: casts & (_nth(w, casts) == 0),
    }


def _first(w, rows):
    """Return where in a step the first of some operations stands (alike in all steps)."""
    found = np.flatnonzero(rows)[0]
    return int(found - np.searchsorted(w["step"], w["step"][found]))


def _nth(w, rows):
    """Return which of some operations of its layer and step each is, from 0."""
    seen: dict[tuple[int, int], int] = {}
    nth = np.full(len(w), -1)
    for i in np.flatnonzero(rows):
        key = (int(w["step"][i]), int(w["layer"][i]))
        nth[i] = seen[key] = seen.get(key, -1) + 1
    return nth


def launch_s(arch):
    return arch["launch.eager.host"]


def sync_s(arch):
    """Return what a copy to the host takes that is waited for, on an idle device [s]."""
    return arch["launch.eager.host"] + arch["launch.eager.copy_latency"] + arch["host.sync"]


def counted_s(change, arch):
    """Return what a change saves of one request, by CODE [s]."""
    return change.launches * launch_s(arch) + change.syncs * sync_s(arch)


def traced(arch):
    """Return launches, waits and seconds that each change saves of a request, by TRACE."""
    w = measured()
    rows = removable(w)
    rows[0] = np.logical_or.reduce(list(rows.values()))  # all of them
    whole, count = ns.replay(w, arch).wall_s, len(w.steps)
    return {
        number: (int(gone.sum()) // count, int(w["sync"][gone].sum()) // count,
                 whole - ns.replay(leave_out(w, gone, "seed 002"), arch).wall_s)
        for number, gone in rows.items()
    }  # fmt: skip


def waits_cost(arch):
    """Yield how long a vision step takes on slower devices, with its waits and without them.

    Device times are those measured on the H200, times a factor, so that the host or the device is
    the slower one; the copies to the host stay, only nobody waits for them.

    Yields
    ------
    device_s, wall_s, free_s : float
        Device time; wall with waits, and without [s].
    waits : float
        In a step.
    """
    w = measured()
    for factor in DEVICE:
        slower = _timed(w, factor, w["sync"])
        free = _timed(w, factor, np.zeros(len(w), dtype=bool))
        wall, none = (ns.replay(v, arch) for v in (slower, free))
        yield wall.device_busy_s, wall.wall_s, none.wall_s, w["sync"].sum() / len(w.steps)


def _timed(w, factor, sync):
    """Return a workload whose times are carried over as measured, times a factor."""
    columns = {**w.columns, "duration_s": w["duration_s"] * factor, "sync": sync,
               "basis": np.zeros(len(w), dtype=np.int32)}  # fmt: skip
    labels = {**w.labels, "basis": ("none",)}
    return Workload(w.name, columns, labels, w.steps, w.edges, w.meta)


def all_changes():
    return study.Change(0, "all", sum(c.launches for c in study.CHANGES),
                        sum(c.syncs for c in study.CHANGES))  # fmt: skip
