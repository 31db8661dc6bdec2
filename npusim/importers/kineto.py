"""PyTorch profiler (Kineto) Chrome traces, plain or gzipped.

An eager trace with ``record_shapes=True`` gives every kernel its operator and shapes. A graph or
compiled replay has kernels but no operators: they import with what their names tell. Steps are
the annotations ``step#N`` or ``ProfilerStep#N``; without any, the capture is one step.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from npusim.errors import InputError
from npusim.importers import files
from npusim.importers.assembly import Operation, Step, assemble
from npusim.importers.describe import describe
from npusim.importers.device_lane import inside
from npusim.importers.host_lane import host_lane
from npusim.importers.neighbours import with_neighbours
from npusim.importers.tensors import Call, read_call
from npusim.importers.work import Launch
from npusim.workload import Workload

FORMAT = "PyTorch profiler (Kineto) JSON, .json or .json.gz"
GENERIC = True

_STEP = re.compile(r"(?:ProfilerStep|step)#\d+")
_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
_RUNTIME = ("cuda_runtime", "cuda_driver", "hip_runtime", "hip_driver", "runtime", "driver")
_WAITS = ("Synchronize",)
_LONGEST_US = 1e12
_LATEST_US = 1e20


class _Event(msgspec.Struct):
    ph: str = ""
    cat: str | None = None
    name: Any = ""
    ts: float | None = None
    dur: float | None = None
    pid: Any = 0
    tid: Any = 0
    args: Any = None


class _Trace(msgspec.Struct):
    traceEvents: list[_Event] | msgspec.UnsetType = msgspec.UNSET  # noqa: N815  (as in the file)
    deviceProperties: Any = None  # noqa: N815
    cuda_driver_version: Any = None
    cuda_runtime_version: Any = None


def sniff(path: Path) -> bool:
    """Return whether the file starts like a Chrome trace with an object around its events."""
    return files.head(path).lstrip()[:1] in (b"{", b"[") or ".json" in path.suffixes


def read(path: Path, name: str) -> Workload:
    """Read a trace.

    Parameters
    ----------
    path : Path
    name : str
        What to call the workload.

    Returns
    -------
    Workload

    Raises
    ------
    InputError
        Not JSON, cut short, too large, without device operations, or with times that are none.
    """
    trace, events = _decode(path)
    _check_times(path, events)
    capture = _Capture(events)
    if not capture.device:
        raise InputError("no device operations", file=path, place="traceEvents",
                         value=f"{len(events)} events",
                         hint="trace with ProfilerActivity.CUDA")  # fmt: skip
    try:
        steps, notes = _steps(capture)
        return assemble(name, steps, _meta(path, trace, capture, notes))
    except InputError as error:
        raise InputError(str(error), file=path) from None


def _decode(path: Path) -> tuple[_Trace, list[_Event]]:
    raw = files.whole(path)
    if raw[:1] == b"[" or not raw.strip():
        raise InputError("no traceEvents", file=path, allowed="an object with traceEvents")
    trace = files.decode_json(path, raw, _Trace)
    if isinstance(trace.traceEvents, msgspec.UnsetType):
        raise InputError("not a profiler trace: no traceEvents", file=path)
    return trace, trace.traceEvents


def _check_times(path: Path, events: list[_Event]) -> None:
    for i, e in enumerate(events):
        if e.ph != "X":
            continue
        for field, value, low, high in (
            ("ts", e.ts, -_LATEST_US, _LATEST_US),
            ("dur", e.dur, 0.0, _LONGEST_US),
        ):
            if value is None and e.cat not in _DEVICE:
                continue
            if value is None or not low <= value <= high:
                raise InputError("not a time", file=path, place=f"traceEvents[{i}].{field}",
                                 value=value, allowed="microseconds, finite"
                                 + (", from 0" if field == "dur" else ""))  # fmt: skip


@dataclass
class _Operation:
    """One device event with what launched it."""

    event: _Event
    launch: _Event | None
    call: Call | None
    own_launch: bool


class _Capture:
    """The events of a trace, put together."""

    def __init__(self, events: list[_Event]) -> None:
        self.device: list[_Operation] = []
        self.waits: list[_Event] = []
        marks: list[tuple[str, tuple[float, float]]] = []
        operators: list[_Event] = []
        runtime: list[_Event] = []
        device: list[_Event] = []
        for e in events:
            if e.ph != "X" or e.ts is None:
                continue
            if e.cat in _DEVICE:
                device.append(e)
            elif e.cat == "cpu_op":
                operators.append(e)
            elif e.cat in _RUNTIME:
                runtime.append(e)
                if str(e.name).endswith(_WAITS):
                    self.waits.append(e)
            elif e.cat == "user_annotation" and _STEP.fullmatch(str(e.name)):
                marks.append((str(e.name), (e.ts, e.ts + (e.dur or 0.0))))
        marked = [span for name, span in marks if not name.startswith("Profiler")]
        self.steps = sorted(marked or [span for _, span in marks])  # one's own marks come first
        self.waits.sort(key=lambda e: e.ts or 0.0)
        shared = Counter(c for e in device if (c := _correlation(e)) is not None)
        launches = {c: e for e in runtime if (c := _correlation(e)) in shared}
        calls = _operators_of(operators, list(launches.values()))
        for e in device:
            c = _correlation(e)
            launch = launches.get(c) if c is not None else None
            call = calls.get(id(launch)) if launch is not None else None
            own = launch is not None and c is not None and shared[c] == 1
            self.device.append(_Operation(e, launch, call, own))
        self.device.sort(key=lambda o: (_issued(o), o.event.ts))


def _issued(o: _Operation) -> float:
    """Return when the host launched an operation, or when it started if that is unknown."""
    time = o.launch.ts if o.launch is not None else o.event.ts
    return time if time is not None else 0.0


def _correlation(e: _Event) -> int | None:
    value = e.args.get("correlation") if isinstance(e.args, dict) else None
    return value if isinstance(value, int) else None


def _operators_of(operators: list[_Event], launches: list[_Event]) -> dict[int, Call]:
    """Return the innermost operator around each launch, by the identity of the launch.

    Most operators launch nothing (views, allocations): arguments are read only of those that do.
    """
    threads: dict[tuple[str, str], list[tuple[float, int, _Event]]] = defaultdict(list)
    for order, events in enumerate((operators, launches)):
        for e in events:
            threads[str(e.pid), str(e.tid)].append((e.ts or 0.0, order, e))
    found: dict[int, Call] = {}
    read: dict[int, Call] = {}
    for timeline in threads.values():
        timeline.sort(key=lambda t: (t[0], t[1], -(t[2].dur or 0.0)))
        stack: list[tuple[float, _Event]] = []
        for at, order, e in timeline:
            while stack and stack[-1][0] < at:
                stack.pop()
            if order == 0:
                stack.append((at + (e.dur or 0.0), e))
            elif stack:
                found[id(e)] = _call([operator for _, operator in stack], read)
    return found


def _call(stack: list[_Event], read: dict[int, Call]) -> Call:
    """Return the innermost of nested operators, reading each only once."""
    parents: tuple[Call, ...] = ()
    for e in stack:
        call = read.get(id(e))
        if call is None:
            call = read[id(e)] = read_call(str(e.name), e.args, parents)
        parents = (*parents, call)
    return parents[-1]


def _steps(c: _Capture) -> tuple[list[Step], dict[str, Any]]:
    """Return the steps of a capture, and what lay outside them."""
    spans = c.steps or [_whole(c)]
    members, outside = inside(c.device, _issued, spans)
    if not any(members):
        raise InputError("no device operation lies inside a step", place="user_annotation",
                         value=f"{len(spans)} steps")  # fmt: skip
    steps = [
        _step(group, span, c.waits) for group, span in zip(members, spans, strict=True) if group
    ]
    seconds = sum((o.event.dur or 0.0) * 1e-6 for o in outside)
    return steps, {"outside_steps": len(outside), "outside_steps_s": seconds}


def _whole(c: _Capture) -> tuple[float, float]:
    first = min(_issued(o) for o in c.device)
    last = max((o.event.ts or 0.0) + (o.event.dur or 0.0) for o in c.device)
    return first, last


def _step(group: list[_Operation], span: tuple[float, float], waits: list[_Event]) -> Step:
    """Return one step: what each operation does, and the host's work around it."""
    start, stop = span
    calls = [o.call for o in group]
    launches = [_launch(o.event) for o in group]
    alone = [describe(c, k) for c, k in zip(calls, launches, strict=True)]
    works = with_neighbours(alone, calls, [k.blocks for k in launches])
    known = np.array([o.launch is not None for o in group])
    issued = np.array([_span(o.launch or o.event) for o in group])
    done = np.array([_span(o.event)[1] for o in group])
    idle = np.array([_span(e) for e in waits if start <= (e.ts or 0.0) <= stop]).reshape(-1, 2)
    copies = np.array([_may_block(o.event) for o in group])
    lane = host_lane(start, stop, issued[known], done[known], idle, copies[known])
    work_us, presync_us, sync = np.zeros((3, len(group)))
    work_us[known], presync_us[known], sync[known] = lane.work, lane.presync, lane.sync
    operations = [
        Operation(
            launches[i],
            works[i],
            start_s=max((o.event.ts or 0.0) - start, 0.0) * 1e-6,
            duration_s=(o.event.dur or 0.0) * 1e-6,
            operator=o.call.name if o.call is not None else "unknown",
            stream=_stream(o.event.args),
            registers=int(_number(o.event.args, "registers per thread")),
            shared_memory=_number(o.event.args, "shared memory"),
            host_s=float(work_us[i]) * 1e-6,
            sync=bool(sync[i]),
            presync_s=float(presync_us[i]) * 1e-6,
        )
        for i, o in enumerate(group)
    ]
    return Step(operations, (stop - start) * 1e-6, lane.tail * 1e-6 if known.any() else 0.0)


def _may_block(e: _Event) -> bool:
    """Return whether the call of a copy may wait for it: to or from the host, not on the device."""
    return e.cat == "gpu_memcpy" and "DtoD" not in str(e.name)


def _span(e: _Event) -> tuple[float, float]:
    start = e.ts or 0.0
    return start, start + (e.dur or 0.0)


def _triple(value: Any) -> tuple[int, int, int]:
    ok = (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(v, int) and 0 <= v < 2**31 for v in value)
    )
    return (value[0], value[1], value[2]) if ok else (0, 0, 0)


def _number(args: Any, key: str) -> float:
    value = args.get(key) if isinstance(args, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0.0
    return float(value) if 0 <= value < 2**50 else 0.0


def _launch(e: _Event) -> Launch:
    args = e.args if isinstance(e.args, dict) else {}
    threads = math.prod(_triple(args.get("block")))
    return Launch(str(e.name), _triple(args.get("grid")), threads, _number(args, "bytes"))


def _stream(args: Any) -> int:
    """Return a number that tells streams apart, also those of several devices in one trace."""
    device, stream = _number(args, "device"), _number(args, "stream")
    return int(device) * 1_000_000 + int(stream)


def _meta(path: Path, trace: _Trace, c: _Capture, notes: dict[str, Any]) -> dict[str, Any]:
    properties = trace.deviceProperties if isinstance(trace.deviceProperties, list) else []
    devices = [str(p.get("name", "")) for p in properties if isinstance(p, dict)]
    with_host = sum(o.own_launch for o in c.device)
    in_graphs = sum(o.launch is not None and "GraphLaunch" in str(o.launch.name) for o in c.device)
    return {
        "format": "kineto",
        "file": path.name,
        "device": devices[0] if devices else "",
        "cuda_driver": str(trace.cuda_driver_version or ""),
        "cuda_runtime": str(trace.cuda_runtime_version or ""),
        "marked_steps": len(c.steps),
        "launch": "graph" if in_graphs > 0.5 * len(c.device) else "eager",
        "host": "measured" if with_host >= 0.9 * len(c.device) else "unknown",
        **notes,
    }
