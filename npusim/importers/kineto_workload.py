"""The workload of a Kineto trace: its steps, what the host did in them, and where it comes from."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from npusim.errors import InputError
from npusim.importers import kineto_ranges
from npusim.importers.assembly import assemble
from npusim.importers.kineto_capture import Capture, capture_of
from npusim.importers.kineto_events import Codes
from npusim.importers.kineto_host import calls_of, host_costs
from npusim.importers.kineto_scan import Trace
from npusim.importers.kineto_steps import steps_of
from npusim.workload import Workload


def workload(path: Path, name: str, trace: Trace, aside: bool = False) -> Workload:
    """Return the workload of a trace.

    Parameters
    ----------
    path : Path
        Where it was read.
    name : str
    trace : Trace
    aside : bool
        Whether a second thread may compute.

    Raises
    ------
    InputError
        No device operations, or none in a step; steps that overlap.
    """
    counted = len(trace.device) == 0 and len(trace.ranges) > 0
    if counted:
        trace = kineto_ranges.as_device(trace)
    if not len(trace.device):
        cut = ", and the file is cut short" if trace.repaired else ""
        hint = "copy it again" if cut else "trace with ProfilerActivity.CUDA"
        raise InputError(f"no device operations{cut}", file=path, place="traceEvents",
                         value=f"{trace.events} events, {len(trace.operators)} operators of the "
                         "CPU", hint=hint)  # fmt: skip
    calls = calls_of(trace)
    trace = replace(trace, operators=trace.operators.none())  # a third of a large trace
    try:
        capture = capture_of(trace, calls)
        costs = partial(host_costs, calls, trace.names, capture.spans)
        with ThreadPoolExecutor(1) as pool:  # numpy mostly lets two threads compute at once
            early = pool.submit(costs) if aside else None
            steps, rows, notes = steps_of(capture)
            about = {**_meta(path, capture), **notes}
            if trace.ranges and not counted:  # a trace with times: its counters stand for no kernel
                about["counter_ranges_left_out"] = len(trace.ranges)
            w = assemble(name, steps, about, early.result() if early else costs())
    except InputError as error:
        raise InputError(str(error), file=path) from None
    return kineto_ranges.with_counters(w, trace.ranges, rows) if counted else w


def _shared_ids(runtime: Codes, device: Codes) -> int | None:
    """Return how many calls carry the id of another that launched something, None if none do."""
    ids = np.sort(runtime[runtime >= 0])
    again = ids[1:][ids[1:] == ids[:-1]]
    return int(np.isin(again, device).sum()) or None if len(again) else None


def _meta(path: Path, c: Capture) -> dict[str, Any]:
    def first(field: str) -> Any:
        return next((v for a in c.trace.about if (v := getattr(a, field)) is not None), None)

    properties = first("deviceProperties")
    listed = properties if isinstance(properties, list) else []
    devices = [str(p.get("name", "")) for p in listed if isinstance(p, dict)]
    units = next((n for p in listed if isinstance(p, dict)
                  and isinstance(n := p.get("numSms"), int) and n > 0), None)  # fmt: skip
    ranks = first("distributedInfo")
    rank = ranks.get("rank") if isinstance(ranks, dict) else None
    world = ranks.get("world_size") if isinstance(ranks, dict) else None
    graphs = np.array(["GraphLaunch" in n for n in c.trace.names], dtype=bool)
    known = c.launch >= 0
    in_graphs = int(graphs[c.trace.runtime.name[c.launch[known]]].sum())
    count = len(c.device)
    meta = {
        "format": "kineto",
        "file": path.name,
        "device": devices[0] if devices else "",
        "cuda_driver": str(first("cuda_driver_version") or ""),
        "cuda_runtime": str(first("cuda_runtime_version") or ""),
        "marked_steps": len(c.marks),
        "launch": "graph" if in_graphs > 0.5 * count else "eager",
        "host": "measured" if int(c.own.sum()) >= 0.9 * count else "unknown",
    }
    hip = first("hip_driver_version")
    optional = {
        "hip_driver": str(hip) if hip is not None else None,
        "units": units, "rank": rank, "world_size": world,
        "lost_events": c.trace.lost if c.trace.repaired else None,
        "devices": len({s.device for s in c.trace.sizes}),
        "launches_of_one_id": _shared_ids(c.trace.runtime.correlation, c.device.correlation),
    }  # fmt: skip
    return meta | {k: v for k, v in optional.items() if v is not None}
