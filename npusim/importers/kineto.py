"""PyTorch profiler (Kineto) Chrome traces, plain or gzipped.

An eager trace with ``record_shapes=True`` gives every kernel its operator and shapes. A graph or
compiled replay has kernels but no operators: they import with what their names tell. Steps are
the annotations ``step#N`` or ``ProfilerStep#N``; without any, the capture is one step.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.importers import files, kernel_names, kineto_ranges, nesting
from npusim.importers.assembly import StepColumns, assemble, no_host
from npusim.importers.describe import describe
from npusim.importers.host_lane import host_lane
from npusim.importers.host_parts import OF_FRAMEWORK, Threads
from npusim.importers.kineto_events import Codes, Floats, Spans
from npusim.importers.kineto_host import Calls, calls_of, host_costs
from npusim.importers.kineto_scan import Tick, Trace, scan
from npusim.importers.neighbours import Made, with_neighbours
from npusim.importers.tensors import Call, read_call
from npusim.importers.work import Launch
from npusim.workload import Workload

FORMAT = "PyTorch profiler (Kineto) JSON, .json or .json.gz"
GENERIC = True

_STEP = re.compile(r"(?:ProfilerStep|step)#\d+")
_WAITS = ("Synchronize",)
_OVERLAP_US = 1.0  # old traces are in whole microseconds

Span = tuple[float, float]


def sniff(path: Path) -> bool:
    """Return whether the file starts like a Chrome trace with an object around its events."""
    return files.head(path).lstrip()[:1] in (b"{", b"[") or ".json" in path.suffixes


def read(path: Path, name: str, workers: int = 1, tick: Tick | None = None) -> Workload:
    """Read a trace.

    Parameters
    ----------
    path : Path
    name : str
        What to call the workload.
    workers : int
        Processes that decode a large trace.
    tick : function, optional
        Called with bytes done and bytes in all (0 if not known).

    Returns
    -------
    Workload

    Raises
    ------
    InputError
        Not a trace, damaged before its end, without device operations, or with times that are
        none. A trace that was cut short imports up to there; ``meta`` counts what is lost.
    """
    trace = scan(path, workers, tick)
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
        capture = _capture(trace, calls)
        spans = capture.marks or [_whole(capture)]
        steps, rows, notes = _steps(capture, spans)
        about = {**_meta(path, capture), **notes}
        if trace.ranges and not counted:  # a trace with times: its counters stand for no kernel
            about["counter_ranges_left_out"] = len(trace.ranges)
        w = assemble(name, steps, about, host_costs(calls, trace.names, spans))
    except InputError as error:
        raise InputError(str(error), file=path) from None
    return kineto_ranges.with_counters(w, trace.ranges, rows) if counted else w


@dataclass(frozen=True)
class _Capture:
    """A trace put together; device operations in the order in which they were issued.

    Attributes
    ----------
    launch : array, shape (K,)
        Row of the runtime call that launched each, -1 if unknown.
    issued : array, shape (K,)
        When that was; the start on the device where it is unknown [us].
    own : array of bool, shape (K,)
        Whether it is the only one of its launch.
    instance : array, shape (K,)
        The host's call that launched it, -1 if unknown.
    chain : array, shape (K,)
        Number of that call in `operators`, -1 if unknown.
    marks : list of (start, stop)
        Marked steps [us].
    """

    trace: Trace
    device: Spans
    calls: Calls
    launch: Codes
    issued: Floats
    own: NDArray[np.bool_]
    instance: Codes
    chain: Codes
    operators: list[Call]
    marks: list[Span]


def _capture(trace: Trace, calls: Calls) -> _Capture:
    device, runtime = trace.device, trace.runtime
    # A call without a time cannot say when it launched anything.
    timed = np.where(np.isfinite(runtime.start), runtime.correlation, -1)
    launch, own = _launches(device.correlation, timed)
    issued = device.start.copy()
    known = launch >= 0
    issued[known] = runtime.start[launch[known]]
    order = np.lexsort((device.start, issued))
    device, launch, issued, own = device[order], launch[order], issued[order], own[order]
    instance = _instances(calls, launch, len(runtime))
    chain, links = nesting.chains(calls.parent, _labels(calls, trace), instance[instance >= 0])
    return _Capture(
        trace, device, calls, launch, issued, own, instance,
        np.append(chain, -1)[instance], _operators(trace, links),
        _marks(trace),
    )  # fmt: skip


def _launches(device: Codes, runtime: Codes) -> tuple[Codes, NDArray[np.bool_]]:
    """Return the runtime call of each device operation, and whether it launched no other."""
    launch = np.full(len(device), -1, dtype=np.int64)
    rows = np.flatnonzero(runtime >= 0)
    rows = rows[np.argsort(runtime[rows], kind="stable")]
    at = np.searchsorted(runtime[rows], device, "right") - 1  # of several with one id the last
    found = (at >= 0) & (device >= 0)
    found[found] = runtime[rows[at[found]]] == device[found]
    launch[found] = rows[at[found]]
    _, code, count = np.unique(device, return_inverse=True, return_counts=True)
    return launch, found & (count[code.reshape(-1)] == 1)


def _shared_ids(runtime: Codes, device: Codes) -> int | None:
    """Return how many calls carry the id of another that launched something, None if none do."""
    ids = np.sort(runtime[runtime >= 0])
    again = ids[1:][ids[1:] == ids[:-1]]
    return int(np.isin(again, device).sum()) or None


def _instances(calls: Calls, launch: Codes, runtime: int) -> Codes:
    """Return the innermost operator around the launch of each device operation, -1 for none."""
    around = np.full(runtime + 1, -1, dtype=np.int64)
    is_call = ~calls.is_operator
    around[calls.row[is_call]] = calls.parent[is_call]
    return around[launch]  # the last entry stands for launches that are unknown


def _labels(calls: Calls, trace: Trace) -> Codes:
    """Return a number for name and arguments of each call."""
    return calls.name.astype(np.int64) * (len(trace.shapes) + 1) + calls.shape + 1


def _operators(trace: Trace, links: list[tuple[int, int]]) -> list[Call]:
    """Return the operator of each chain, with those around it; arguments are read once each."""
    arguments: dict[int, Any] = {}
    found: list[Call] = []
    for label, around in links:
        name, shape = divmod(label, len(trace.shapes) + 1)
        if shape not in arguments:
            arguments[shape] = _decoded(trace.shapes[shape - 1] if shape else b"")
        parents = (*found[around].parents, found[around]) if around >= 0 else ()
        found.append(read_call(trace.names[name], arguments[shape], parents))
    return found


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw) if raw else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError("an operator's arguments cannot be read", place="args",
                         value=str(error)) from None  # fmt: skip


def _marks(trace: Trace) -> list[Span]:
    """Return the marked steps in order; one's own marks come before the profiler's."""
    marks = trace.marks
    named = [(i, trace.names[n]) for i, n in enumerate(marks.name.tolist())]
    steps = [
        (i, name) for i, name in named if _STEP.fullmatch(name) and marks.start[i] == marks.start[i]
    ]
    own = [i for i, name in steps if not name.startswith("Profiler")]
    chosen = own or [i for i, _ in steps]
    length = np.nan_to_num(marks.length)
    found = sorted({(float(marks.start[i]), float(marks.start[i] + length[i])) for i in chosen})
    for (_, stop), (start, _) in pairwise(found):
        if start < stop - _OVERLAP_US:
            raise InputError("steps overlap", place="user_annotation",
                             value=f"one begins {stop - start:.3f} us before another ends",
                             allowed="steps one after the other")  # fmt: skip
    return found


def _whole(c: _Capture) -> Span:
    return float(c.issued.min()), float(c.device.stop.max())


def _steps(c: _Capture, spans: list[Span]) -> tuple[list[StepColumns], Codes, dict[str, Any]]:
    """Return the steps of a capture, the operations in them, and what lay outside."""
    starts, stops = np.array(spans).T
    step = np.searchsorted(starts, c.issued, "right") - 1
    inside = (step >= 0) & (c.issued <= stops[np.maximum(step, 0)])
    if not inside.any():
        raise InputError("no device operation lies inside a step", place="user_annotation",
                         value=f"{len(spans)} steps")  # fmt: skip
    step = np.where(inside, step, -1)
    about = _Describer(c)
    rows = np.flatnonzero(inside)
    members = np.split(rows, np.flatnonzero(np.diff(step[rows])) + 1)  # operations are in order
    columns = [_step(c, m, spans[step[m[0]]], about) for m in members]
    outside = {"outside_steps": int((~inside).sum()),
               "outside_steps_s": float(c.device.length[~inside].sum()) * 1e-6}  # fmt: skip
    return columns, rows, outside


class _Describer:
    """What operations do, each distinct one looked at once."""

    def __init__(self, c: _Capture) -> None:
        device, sizes, names = c.device, c.trace.sizes, c.trace.names
        key = (c.chain + 1) * len(names) + device.name
        _, row, self.kind = np.unique(key * len(sizes) + device.detail, return_index=True,
                                      return_inverse=True)  # fmt: skip
        self.calls = [c.operators[k] if k >= 0 else None for k in c.chain[row].tolist()]
        self.sizes = [sizes[k] for k in device.detail[row].tolist()]
        self.launches = [
            Launch(names[k], size.grid, size.threads, size.nbytes)
            for k, size in zip(device.name[row].tolist(), self.sizes, strict=True)
        ]
        self.blocks = [x.blocks for x in self.launches]
        self.works = [describe(c, x) for c, x in zip(self.calls, self.launches, strict=True)]
        self.made = Made()
        # Streams of one device keep their numbers; those of others get numbers of their own.
        first = min(s.device for s in sizes)
        top = max(s.stream for s in sizes) + 1
        self.streams = np.array([s.stream + top * (s.device - first) for s in self.sizes])
        self.registers = np.array([s.registers for s in self.sizes])
        self.shared_memory = np.array([s.shared_memory for s in self.sizes])
        self.operators = [c.name if c is not None else "unknown" for c in self.calls]
        # Calls of copies may wait: those to or from the host, not those on the device.
        self.blocking = np.array([
            size.category == "gpu_memcpy" and "DtoD" not in x.kernel
            for x, size in zip(self.launches, self.sizes, strict=True)
        ])  # fmt: skip
        runtime = c.trace.runtime
        self.returns = runtime.start + np.nan_to_num(runtime.length)
        idle = np.array([n.endswith(_WAITS) for n in names], dtype=bool)[runtime.name]
        idle &= np.isfinite(runtime.start) & np.isfinite(runtime.length)
        waits = np.column_stack([runtime.start, runtime.stop])[idle]
        self.waits = waits[np.argsort(waits[:, 0], kind="stable")]
        others = [kernel_names.library(x.kernel) not in OF_FRAMEWORK for x in self.launches]
        plans = c.instance[np.array(others)[self.kind] & (c.instance >= 0)]
        self.threads = Threads(c.calls, plans, runtime.thread[c.launch[c.launch >= 0]])


def _step(c: _Capture, rows: Codes, span: Span, about: _Describer) -> StepColumns:
    """Return one step: what each operation does, and the host's work around it."""
    kind = about.kind[rows]
    kinds = kind.tolist()
    works = with_neighbours(
        [about.works[k] for k in kinds], [about.calls[k] for k in kinds],
        [about.blocks[k] for k in kinds], c.instance[rows].tolist(), about.made,
    )  # fmt: skip
    launches, operators = [about.launches[k] for k in kinds], [about.operators[k] for k in kinds]
    device = c.device[rows]
    host, tail = _host(c, rows, device.stop, span, about)
    measured = {
        "start_s": np.maximum(device.start - span[0], 0.0) * 1e-6,
        "duration_s": device.length * 1e-6,
        "stream": about.streams[kind],
        "registers": about.registers[kind],
        "shared_memory": about.shared_memory[kind],
        **host,
    }
    wall = (span[1] - span[0]) * 1e-6
    return StepColumns(launches, works, operators, measured, wall, tail * 1e-6, span[0] * 1e-6)


def _host(
    c: _Capture, rows: Codes, done: Floats, span: Span, about: _Describer
) -> tuple[dict[str, NDArray[Any]], float]:
    """Return the host's columns of a step, and its work after the last operation [us]."""
    start, stop = span
    known = c.launch[rows] >= 0
    found = no_host(len(rows))
    if not known.any():
        return found, 0.0
    launched = rows[known]
    runtime, at = c.trace.runtime, c.launch[launched]
    calls = np.column_stack([runtime.start[at], about.returns[at]])
    first = np.searchsorted(about.waits[:, 0], start, "left")
    last = np.searchsorted(about.waits[:, 0], stop, "right")
    lane = host_lane(start, stop, calls, done[known], about.waits[first:last],
                     about.blocking[about.kind[launched]])  # fmt: skip
    thread = runtime.thread[at]
    parts = about.threads.parts(thread, lane.since, lane.work)
    for column, spent in {"presync_s": lane.presync, **parts}.items():
        found[column][known] = spent * 1e-6
    found["sync"][known], found["thread"][known] = lane.sync, thread
    found["records"][known] = about.threads.records(thread, calls[:, 0], span)
    return found, lane.tail


def _meta(path: Path, c: _Capture) -> dict[str, Any]:
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
