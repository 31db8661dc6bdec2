"""AMD rocprofv3 JSON (``*_results.json``): dispatches, copies and HIP calls, in nanoseconds.

With ``--hip-trace`` every dispatch has the runtime call that launched it, by correlation; roctx
ranges called ``step#N`` or ``ProfilerStep#N`` are steps. Grid sizes are in threads.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from npusim.errors import InputError
from npusim.importers import files
from npusim.importers.assembly import StepColumns, assemble
from npusim.importers.describe import describe
from npusim.importers.device_lane import Span, Timed, inside, span_of, step_of
from npusim.importers.work import Launch
from npusim.workload import Workload

FORMAT = "rocprofv3 JSON, .json or .json.gz"

LATEST_NS = 2**62
LONGEST_NS = 10**15
MOST_THREADS = 2**32

_STEP = re.compile(r"(?:ProfilerStep|step)#\d+")
_COPIES = {
    "HOST_TO_HOST": "Memcpy HtoH (Host -> Host)",
    "HOST_TO_DEVICE": "Memcpy HtoD (Host -> Device)",
    "DEVICE_TO_HOST": "Memcpy DtoH (Device -> Host)",
    "DEVICE_TO_DEVICE": "Memcpy DtoD (Device -> Device)",
}


class _Handle(msgspec.Struct, frozen=True):
    handle: int = 0


class _Axes(msgspec.Struct, frozen=True):
    x: int = 0
    y: int = 0
    z: int = 0


class _Correlation(msgspec.Struct, frozen=True):
    internal: int = 0


class _Dispatch(msgspec.Struct):
    kernel_id: int
    agent_id: _Handle = _Handle()
    queue_id: _Handle = _Handle()
    group_segment_size: int = 0
    workgroup_size: _Axes = _Axes()
    grid_size: _Axes = _Axes()


class _Record(msgspec.Struct):
    """A record of any buffer: what only some of them have is empty in the others."""

    start_timestamp: int
    end_timestamp: int
    kind: int = 0
    operation: int = 0
    thread_id: int = -1
    correlation_id: _Correlation = _Correlation()
    stream_id: _Handle | None = None
    dispatch_info: _Dispatch | None = None
    dst_agent_id: _Handle = _Handle()
    src_agent_id: _Handle = _Handle()
    bytes: int = 0


class _Buffers(msgspec.Struct):
    kernel_dispatch: list[_Record] = []
    memory_copy: list[_Record] = []
    hip_api: list[_Record] = []
    marker_api: list[_Record] = []


class _Symbol(msgspec.Struct):
    kernel_id: int
    kernel_name: str = ""
    formatted_kernel_name: str = ""
    arch_vgpr_count: int = 0
    accum_vgpr_count: int = 0


class _Agent(msgspec.Struct):
    id: _Handle = _Handle()
    type: int = 0
    name: str = ""
    product_name: str = ""


class _Kind(msgspec.Struct):
    kind: str = ""
    operations: list[str] = []


class _Marker(msgspec.Struct):
    key: int
    value: str


class _Strings(msgspec.Struct):
    buffer_records: list[_Kind] = []
    marker_api: list[_Marker] = []


class _Tool(msgspec.Struct):
    buffer_records: _Buffers
    agents: list[_Agent] = []
    kernel_symbols: list[_Symbol] = []
    strings: _Strings = msgspec.field(default_factory=_Strings)
    metadata: Any = None


class _File(msgspec.Struct):
    tools: list[_Tool] = msgspec.field(name="rocprofiler-sdk-tool")


def sniff(path: Path) -> bool:
    """Return whether the file is what rocprofv3 writes."""
    return b'"rocprofiler-sdk-tool"' in files.head(path, 4096)


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
        Steps are roctx ranges; without any, the capture is one step.

    Raises
    ------
    InputError
        Not JSON, cut short, too large, without dispatches, or with times that are none.
    """
    decoded = files.decode_json(path, files.whole(path), _File)
    if len(decoded.tools) != 1:
        raise InputError("not the trace of one process", file=path, place="rocprofiler-sdk-tool",
                         value=len(decoded.tools), allowed="1")  # fmt: skip
    capture = _Capture(path, decoded.tools[0])
    if not capture.timed:
        raise InputError("no kernel dispatches", file=path, hint="run rocprofv3 --kernel-trace")
    try:
        steps, notes = _steps(capture)
        return assemble(name, steps, {**capture.meta(), **notes})
    except InputError as error:
        raise InputError(str(error), file=path) from None


def blocks(grid: Sequence[int], group: Sequence[int]) -> tuple[tuple[int, int, int], int]:
    """Return blocks along each axis, and threads in each of them.

    Examples
    --------
    >>> blocks([1024, 6, 1], [256, 4, 1])
    ((4, 2, 1), 1024)
    >>> blocks([0, 0, 0], [0, 0, 0])
    ((0, 0, 0), 0)
    """
    x, y, z = (-(-g // w) if w else 0 for g, w in zip(grid, group, strict=True))
    return (x, y, z), math.prod(group)


def lane_of(agent: object, queue: object, stream: object) -> tuple[object, ...]:
    """Return what tells the lanes of dispatches apart: a stream may move from queue to queue.

    Stream 0 stands for all that the tool did not see being made; those are told apart by queue.

    Examples
    --------
    >>> lane_of(4, 1, 7) == lane_of(4, 2, 7), lane_of(4, 1, 0) == lane_of(4, 2, 0)
    (True, False)
    """
    known = stream not in (0, "", "0")
    return (agent, "stream", stream) if known else (agent, "queue", queue)


class _Capture:
    """The operations of a file with the calls that launched them, in the order of those calls."""

    def __init__(self, path: Path, tool: _Tool) -> None:
        self.path = path
        self.tool = tool
        self.symbols = {s.kernel_id: s for s in tool.kernel_symbols}
        self.streams = files.Numbering()
        self.untimed = self.unnamed = 0
        buffers = tool.buffer_records
        if len(buffers.kernel_dispatch) + len(buffers.memory_copy) > files.MOST_OPERATIONS:
            raise files.too_many(path)
        self.calls = {
            r.correlation_id.internal: self._span(r, "hip_api", i)
            for i, r in enumerate(buffers.hip_api)
            if r.correlation_id.internal > 0
        }
        self.waits = sorted(
            self._span(r, "hip_api", i)
            for i, r in enumerate(buffers.hip_api)
            if self._operation(r).endswith("Synchronize")
        )
        found = [*self._each("kernel_dispatch", buffers.kernel_dispatch),
                 *self._each("memory_copy", buffers.memory_copy)]  # fmt: skip
        found.sort(key=lambda item: (item[0], item[1].start))
        self.timed = [t for _, t in found]
        graphs = sum("GraphLaunch" in self._operation(r) for r in buffers.hip_api)
        self.in_graphs = graphs > 0 and self.kernels_a_call() > 4

    def kernels_a_call(self) -> float:
        """Return how many operations a launch call makes on average."""
        calls = {t.call for t in self.timed if t.call is not None}
        return sum(t.call is not None for t in self.timed) / len(calls) if calls else 0.0

    def _operation(self, r: _Record) -> str:
        kinds = self.tool.strings.buffer_records
        names = kinds[r.kind].operations if 0 <= r.kind < len(kinds) else []
        return names[r.operation] if 0 <= r.operation < len(names) else ""

    def _span(self, r: _Record, buffer: str, i: int) -> tuple[int, int]:
        start, end = r.start_timestamp, r.end_timestamp
        if not (0 <= start <= LATEST_NS and 0 <= end - start <= LONGEST_NS):
            raise InputError("not a time", file=self.path, place=f"buffer_records.{buffer}[{i}]",
                             value=f"{start} to {end}",
                             allowed=f"an end 0 to {LONGEST_NS} ns after the start")  # fmt: skip
        return start, end

    def _each(self, buffer: str, records: list[_Record]) -> list[tuple[int, Timed]]:
        """Return the operations of one buffer with the order in which they were issued."""
        found = []
        for i, r in enumerate(records):
            if r.start_timestamp == r.end_timestamp == 0:  # the tool could not read the clock
                self.untimed += 1
                continue
            start, end = self._span(r, buffer, i)
            sizes = self._sizes(r, f"buffer_records.{buffer}[{i}]")
            issued = r.correlation_id.internal
            call = self.calls.get(issued)
            timed = self._timed(r, sizes, (start, end), call)
            found.append((issued, timed))
        return found

    def _sizes(self, r: _Record, place: str) -> tuple[list[int], list[int]]:
        """Return grid and workgroup of a dispatch, checked like every size that is used."""
        d = r.dispatch_info or _Dispatch(0)
        grid = [d.grid_size.x, d.grid_size.y, d.grid_size.z]
        group = [d.workgroup_size.x, d.workgroup_size.y, d.workgroup_size.z]
        for value in (*grid, *group, d.group_segment_size):
            if not 0 <= value <= MOST_THREADS:
                raise InputError("not a launch size", file=self.path, place=place, value=value,
                                 allowed=f"0 to {MOST_THREADS}")  # fmt: skip
        if not 0 <= r.bytes <= 2**50:
            raise InputError("not a size", file=self.path, place=place, value=r.bytes,
                             allowed="0 to 2^50 bytes")  # fmt: skip
        return grid, group

    def _timed(
        self, r: _Record, sizes: tuple[list[int], list[int]], span: Span, call: Span | None
    ) -> Timed:
        start, end = span
        d = r.dispatch_info
        if d is None:
            launch = Launch(self._copy_name(r), nbytes=float(r.bytes))
            stream = self.streams["copy", r.src_agent_id.handle, r.dst_agent_id.handle]
            return Timed(launch, start, end - start, describe(None, launch), stream, call=call,
                         thread=r.thread_id)  # fmt: skip
        symbol = self.symbols.get(d.kernel_id)
        if symbol is None:
            self.unnamed += 1
            symbol = _Symbol(d.kernel_id, f"kernel {d.kernel_id}")
        text = symbol.formatted_kernel_name or symbol.kernel_name.removesuffix(".kd")
        launch = Launch(text or "unknown", *blocks(*sizes))
        registers = max(symbol.arch_vgpr_count, 0) + max(symbol.accum_vgpr_count, 0)
        hip = r.stream_id.handle if r.stream_id is not None else 0
        stream = self.streams[lane_of(d.agent_id.handle, d.queue_id.handle, hip)]
        return Timed(launch, start, end - start, describe(None, launch), stream,
                     min(registers, 2**16), float(d.group_segment_size), call,
                     thread=r.thread_id)  # fmt: skip

    def _copy_name(self, r: _Record) -> str:
        direction = self._operation(r).removeprefix("MEMORY_COPY_")
        return _COPIES.get(direction, "Memcpy")

    def marks(self) -> list[tuple[int, int]]:
        """Return the roctx ranges that are called like steps, in order."""
        names = {m.key: m.value for m in self.tool.strings.marker_api}
        return sorted(
            self._span(r, "marker_api", i)
            for i, r in enumerate(self.tool.buffer_records.marker_api)
            if _STEP.fullmatch(names.get(r.correlation_id.internal, ""))
        )

    def meta(self) -> dict[str, Any]:
        """Return what is known of the capture as a whole."""
        used = {d.dispatch_info.agent_id.handle for d in self.tool.buffer_records.kernel_dispatch
                if d.dispatch_info is not None}  # fmt: skip
        agents = [a for a in self.tool.agents if a.id.handle in used]
        with_host = sum(t.call is not None for t in self.timed)
        own = 0.9 * len(self.timed) <= with_host and not self.in_graphs
        return {
            "format": "rocprofv3 json", "file": self.path.name,
            "device": (agents[0].product_name or agents[0].name) if agents else "",
            "architecture": agents[0].name if agents else "",
            "launch": "graph" if self.in_graphs else "eager",
            "host": "measured" if own else "unknown",
            "devices": len(used), "streams": len(self.streams),
            "untimed": self.untimed, "unnamed_kernels": self.unnamed,
        }  # fmt: skip


def _steps(c: _Capture) -> tuple[list[StepColumns], dict[str, Any]]:
    """Return the steps of a capture, and what lay outside them."""
    marks = c.marks()
    spans: list[Span] = [*marks] or [span_of(c.timed)]
    members, outside = inside(c.timed, lambda t: t.issued, spans)
    if not any(members):
        raise InputError("no dispatch lies inside a step", place="marker_api",
                         value=f"{len(spans)} steps")  # fmt: skip
    steps = [step_of(group, 10**9, span, c.waits)
             for group, span in zip(members, spans, strict=True) if group]  # fmt: skip
    return steps, {"marked_steps": len(marks), "outside_steps": len(outside),
                   "outside_steps_s": float(sum(t.duration for t in outside)) / 1e9}  # fmt: skip
