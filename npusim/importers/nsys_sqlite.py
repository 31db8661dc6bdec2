"""Nsight Systems reports exported to SQLite (``nsys export --type sqlite``).

Kernels, copies and fills come with launch sizes, streams and the host calls that issued them.
Steps are NVTX ranges ``step#N`` or ``ProfilerStep#N``; without any, the capture is one step of
each process, for every process has a host lane of its own. Shapes and operators are not in it.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npusim.errors import InputError
from npusim.importers.assembly import StepColumns, assemble
from npusim.importers.describe import describe
from npusim.importers.device_lane import Timed, inside, step_of
from npusim.importers.sqlite_tables import Tables, is_sqlite
from npusim.importers.work import Launch
from npusim.workload import Workload

FORMAT = "Nsight Systems SQLite"
ENDINGS = (".sqlite",)

_KERNEL, _MEMCPY, _MEMSET, _RUNTIME = (
    f"CUPTI_ACTIVITY_KIND_{name}" for name in ("KERNEL", "MEMCPY", "MEMSET", "RUNTIME")
)
_GRAPH = "CUPTI_ACTIVITY_KIND_GRAPH_TRACE"
_OWN = {_KERNEL, _MEMCPY, _RUNTIME, "TARGET_INFO_SESSION_START_TIME", "ANALYSIS_DETAILS"}
_NOT_EXPORTED = (".nsys-rep", ".qdrep")
_COPIES = {1: "HtoD", 2: "DtoH", 3: "HtoA", 4: "AtoH", 5: "AtoA", 6: "AtoD", 7: "DtoA", 8: "DtoD",
           9: "HtoH", 10: "PtoP"}  # fmt: skip

# PyTorch's emit_nvtx adds ", op_id = N" and more
_STEP = re.compile(r"(?:ProfilerStep|step)#\d+(?:, .*)?", re.DOTALL)
_WAIT = re.compile(r"Synchronize(?:_pt[sd][zs])?(?:_v\d+)?$")
_MOST_ROWS = 2_000_000
_LONGEST_NS = 10**15
_LATEST_NS = 2**62


def sniff(path: Path) -> bool:
    """Return whether the file is SQLite with a table of Nsight Systems, or claims to be."""
    try:
        if not is_sqlite(path):
            return path.suffix in (".sqlite", *_NOT_EXPORTED)
        with closing(Tables(path)) as db:
            return bool(_OWN & db.tables)
    except InputError:
        return True
    except OSError:
        return False


def read(path: Path, name: str) -> Workload:
    """Read an export.

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
        Not SQLite, damaged, without kernels, or with values that are none.
    """
    if path.suffix in _NOT_EXPORTED and not is_sqlite(path):
        raise InputError("a report that is not exported", file=path,
                         hint="run nsys export --type sqlite on it")  # fmt: skip
    with closing(Tables(path)) as db:
        capture = _Capture(db)
        notes = _notes(db, capture)
    try:
        steps, outside = _steps(capture)
        return assemble(name, steps, {**_meta(path, capture), **notes, **outside})
    except InputError as error:
        raise InputError(str(error), file=path) from None


# ---------------------------------------------------------------- what is in it


@dataclass
class _Device:
    """One device operation: times in ns, its process, and the host call that issued it."""

    start: int
    end: int
    launch: Launch
    process: int
    correlation: int | None
    device: int
    stream: int
    registers: int = 0
    shared_memory: int = 0
    in_graph: bool = False
    call: tuple[int, int] | None = None
    thread: int = -1

    @property
    def issued(self) -> int:
        """When the host launched it, or when it started if that is unknown."""
        return self.call[0] if self.call is not None else self.start


class _Capture:
    """The device operations, host calls and marks of an export, put together."""

    def __init__(self, db: Tables) -> None:
        self._db = db
        if not db.columns(_KERNEL):
            graphs = bool(db.columns(_GRAPH))
            raise InputError("no CUDA kernels were recorded", file=db.path, place=_KERNEL,
                             hint="run nsys profile with --cuda-graph-trace=node" if graphs
                             else "run nsys profile with --trace=cuda,nvtx")  # fmt: skip
        db.need(_KERNEL, "start", "end")
        db.need("StringIds", "id", "value")
        kernels = self._kernel_rows()
        self._names, waits, marks = self._texts({row[-1] for _, row in kernels})
        self.device = [self._kernel(number, row) for number, row in kernels]
        kernels.clear()
        self._copies()
        if not self.device:
            raise InputError("no device operations", file=db.path, place=_KERNEL)
        self.waits: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.steps: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self._calls(waits)
        self._marks(marks)
        self.device.sort(key=lambda o: (o.issued, o.start))

    def _kernel_rows(self) -> list[tuple[int, tuple[Any, ...]]]:
        """Return the rows of the kernel table, the name of each (or its number) last."""
        names = [c for c in ("demangledName", "shortName", "mangledName", "name")
                 if c in self._db.columns(_KERNEL)]  # fmt: skip
        if not names:
            self._db.need(_KERNEL, "demangledName")
        columns = [*_TIMES, "graphNodeId", "registersPerThread", "staticSharedMemory",
                   "dynamicSharedMemory", *_SIZES, names[0]]  # fmt: skip
        return list(self._limited(_KERNEL, columns))

    def _limited(self, table: str, columns: Sequence[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
        for number, row in self._db.rows(table, columns):
            if number > _MOST_ROWS:
                raise InputError("too many operations", file=self._db.path, place=table,
                                 allowed=f"up to {_MOST_ROWS}",
                                 hint="export a shorter range")  # fmt: skip
            yield number, row

    def _texts(self, wanted: set[Any]) -> tuple[dict[int, str], set[int], set[int]]:
        """Return the texts that are names of kernels, and which are waits and which steps."""
        names: dict[int, str] = {}
        waits, marks = set(), set()
        for _, (at, text) in self._db.rows("StringIds", ("id", "value")):
            if not isinstance(at, int) or not isinstance(text, str):
                continue
            if at in wanted:
                names[at] = text
            if _WAIT.search(text):
                waits.add(at)
            if _STEP.fullmatch(text):
                marks.add(at)
        return names, waits, marks

    def _kernel(self, number: int, row: tuple[Any, ...]) -> _Device:
        *times, node, registers, static, dynamic, gx, gy, gz, bx, by, bz, named = row
        text = self._names.get(named) if isinstance(named, int) else named
        if not isinstance(text, str) or not text:
            raise InputError("name is not in StringIds", file=self._db.path,
                             place=f"{_KERNEL}, row {number}", value=named)  # fmt: skip
        grid = _whole(gx, 2**31), _whole(gy, 2**31), _whole(gz, 2**31)
        threads = math.prod((_whole(bx, 2**12), _whole(by, 2**12), _whole(bz, 2**12)))
        o = self._operation(_KERNEL, number, times, Launch(text, grid, threads))
        o.registers = _whole(registers, 2**16)
        o.shared_memory = _whole(static, 2**40) + _whole(dynamic, 2**40)
        o.in_graph = bool(node)
        return o

    def _copies(self) -> None:
        for table, kind in ((_MEMCPY, "copyKind"), (_MEMSET, "memKind")):
            columns = [*_TIMES, "graphNodeId", "bytes", kind]
            for number, (*times, node, size, which) in self._limited(table, columns):
                way = _COPIES.get(which, "") if isinstance(which, int) else ""
                name = f"Memcpy {way}".strip() if table == _MEMCPY else "Memset"
                launch = Launch(name, nbytes=float(_whole(size, 2**50)))
                o = self._operation(table, number, times, launch)
                o.in_graph = bool(node)
                self.device.append(o)

    def _operation(self, table: str, number: int, times: list[Any], launch: Launch) -> _Device:
        start, end, process, correlation, device, stream = times
        start, end = self._span(table, number, start, end)
        known = correlation if isinstance(correlation, int) and correlation > 0 else None
        return _Device(start, end, launch, _process(process), known,
                       _whole(device, 2**16), _whole(stream, 2**31))  # fmt: skip

    def _span(self, table: str, number: int, start: Any, end: Any) -> tuple[int, int]:
        place = f"{table}, row {number}"
        for label, value in (("start", start), ("end", end)):
            if not isinstance(value, int) or not -_LATEST_NS <= value <= _LATEST_NS:
                raise InputError("not a time", file=self._db.path, place=f"{place}, {label}",
                                 value=value, allowed="whole nanoseconds")  # fmt: skip
        if not 0 <= end - start <= _LONGEST_NS:
            raise InputError("not a duration", file=self._db.path, place=place,
                             value=end - start, allowed=f"0 to {_LONGEST_NS} ns")  # fmt: skip
        return start, end

    def _calls(self, waits: set[int]) -> None:
        """Give every operation its host call, and keep the calls that wait for the device."""
        by_process = "globalPid" in self._db.columns(_KERNEL)
        ours: dict[tuple[int, int], list[_Device]] = defaultdict(list)
        for o in self.device:
            if o.correlation is not None:
                ours[o.process, o.correlation].append(o)
        columns = ("start", "end", "globalTid", "correlationId", "nameId")
        for number, (start, end, thread, correlation, name) in self._db.rows(_RUNTIME, columns):
            process = _process(thread) if by_process else 0
            launched = ours.get((process, correlation)) if isinstance(correlation, int) else None
            if launched is None and name not in waits:
                continue
            span = self._span(_RUNTIME, number, start, end)
            for o in launched or ():
                o.call, o.thread = span, thread if isinstance(thread, int) else -1
            if name in waits:
                self.waits[process].append(span)
        self.shared = sum(len(group) for group in ours.values() if len(group) > 1)

    def _marks(self, marks: set[int]) -> None:
        by_process = "globalPid" in self._db.columns(_KERNEL)
        columns = ("start", "end", "globalTid", "textId", "text")
        for number, (start, end, thread, at, text) in self._db.rows("NVTX_EVENTS", columns):
            named = isinstance(text, str) and _STEP.fullmatch(text)
            if end is not None and (named or (isinstance(at, int) and at in marks)):
                span = self._span("NVTX_EVENTS", number, start, end)
                self.steps[_process(thread) if by_process else 0].append(span)


_TIMES = ("start", "end", "globalPid", "correlationId", "deviceId", "streamId")
_SIZES = ("gridX", "gridY", "gridZ", "blockX", "blockY", "blockZ")


def _process(identity: Any) -> int:
    """Return the process of a global process or thread id: all but its last 24 bits."""
    return identity >> 24 if isinstance(identity, int) else 0


def _whole(value: Any, most: int) -> int:
    """Return a number that only describes, 0 where it is none."""
    return value if isinstance(value, int) and 0 <= value < most else 0


# ---------------------------------------------------------------- steps


def _steps(c: _Capture) -> tuple[list[StepColumns], dict[str, Any]]:
    """Return the steps of a capture in order of time, and what lay outside them."""
    processes: dict[int, list[_Device]] = defaultdict(list)
    for o in c.device:
        processes[o.process].append(o)
    found: list[tuple[tuple[int, int], int, list[_Device]]] = []
    outside: list[_Device] = []
    for process, group in processes.items():
        spans = sorted(c.steps[process]) if c.steps else [_whole_span(group)]
        members, rest = inside(group, lambda o: o.issued, spans)
        outside += rest
        found += [(s, process, m) for s, m in zip(spans, members, strict=True) if m]
    if not found:
        raise InputError("no device operation lies inside a step", place="NVTX_EVENTS",
                         value=f"{sum(map(len, c.steps.values()))} steps")  # fmt: skip
    found.sort(key=lambda step: step[:2])
    steps = [step_of([_timed(o) for o in members], 10**9, span, sorted(c.waits[process]))
             for span, process, members in found]  # fmt: skip
    seconds = sum(o.end - o.start for o in outside) / 1e9
    return steps, {"outside_steps": len(outside), "outside_steps_s": seconds}


def _whole_span(group: list[_Device]) -> tuple[int, int]:
    return min(o.issued for o in group), max(o.end for o in group)


def _timed(o: _Device) -> Timed:
    stream = o.device * 1_000_000 + o.stream
    return Timed(o.launch, o.start, o.end - o.start, describe(None, o.launch), stream,
                 o.registers, float(o.shared_memory), o.call, thread=o.thread)  # fmt: skip


# ---------------------------------------------------------------- where it comes from


def _meta(path: Path, c: _Capture) -> dict[str, Any]:
    count = len(c.device)
    with_host = sum(o.call is not None for o in c.device) - c.shared
    in_graphs = sum(o.in_graph for o in c.device)
    return {
        "format": "nsys_sqlite",
        "file": path.name,
        "launch": "graph" if max(in_graphs, c.shared) > 0.5 * count else "eager",
        "host": "measured" if with_host >= 0.9 * count else "unknown",
        "marked_steps": sum(map(len, c.steps.values())),
        "processes": len({o.process for o in c.device}),
        "devices": len({o.device for o in c.device}),
    }


def _notes(db: Tables, c: _Capture) -> dict[str, Any]:
    """Return the device, its driver, the version of nsys, and graphs that have no kernels."""
    used = Counter(o.device for o in c.device).most_common(1)[0][0]
    rows = [row for _, row in db.rows("TARGET_INFO_GPU", ("id", "name"))]
    names = [str(n) for at, n in rows if at == used] + [str(n) for _, n in rows]
    known = {}
    for table, key, label in (
        ("TARGET_INFO_SYSTEM_ENV", "NvDriverVersion", "cuda_driver"),
        ("META_DATA_EXPORT", "EXPORT_PRODUCT_VERSION", "nsys"),
    ):
        found = (str(v) for _, (k, v) in db.rows(table, ("name", "value")) if k == key)
        known[label] = next(found, "")
    graphs = sum(1 for _ in db.rows(_GRAPH, ("start",)))
    return {"device": names[0] if names else "", **known,
            **({"graphs_without_kernels": graphs} if graphs else {})}  # fmt: skip
