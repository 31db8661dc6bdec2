"""CSV reports of ``nsys stats``: kernel sums and the GPU trace, old and new column names.

``cuda_gpu_kern_sum`` (``gpukernsum``), its ``_gb_`` form with grid and block, and ``cuda_gpu_sum``
have no time line: see `npusim.importers.sums`. ``cuda_gpu_trace`` (``gputrace``) has one row a
device operation. Neither has the host. A file with several reports gives the first of these.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any

from npusim.errors import InputError
from npusim.importers.assembly import assemble
from npusim.importers.csv_rows import Header
from npusim.importers.describe import describe
from npusim.importers.device_lane import Timed, step_of
from npusim.importers.sums import Sum, lay_out
from npusim.importers.unit_rows import LATEST_NS, Record, Report, has_header
from npusim.importers.work import Launch
from npusim.workload import Workload

FORMAT = "nsys stats CSV"

_BANNER = re.compile(r"\s*(?:\*\* |Processing \[|Generating |Using )")
_DEVICE = re.compile(r"(.*?)\s*\((\d{1,4})\)")
_MOST_ROWS = 2_000_000


def sniff(path: Path) -> bool:
    """Return whether the file has the header of one of the reports."""
    return has_header(path, _wanted)


def read(path: Path, name: str) -> Workload:
    """Read a report.

    Parameters
    ----------
    path : Path
    name : str
        What to call the workload.

    Returns
    -------
    Workload
        One step.

    Raises
    ------
    InputError
        No such report, a damaged row, a number that is none, or too many operations.
    """
    rows = iter(Report(path, _wanted, _BANNER))
    first = next(rows, None)
    if first is None:
        raise InputError("no kernels", file=path, allowed="at least one row under the header")
    rows = chain([first], rows)
    return _sum(path, name, rows) if _is_sum(first.columns) else _trace(path, name, rows)


def _wanted(header: Header) -> bool:
    return _is_sum(header) or _is_trace(header)


def _is_sum(header: Header) -> bool:
    named = "name" in header or "operation" in header
    shared = "time" in header and header["time"].unit == "%"
    return named and shared and {"totaltime", "instances"} <= header.keys()


def _is_trace(header: Header) -> bool:
    own = header.keys() & {"corrid", "strm", "grdx", "regtrd"}
    return len(own) >= 2 and {"start", "duration", "name"} <= header.keys()


# ---------------------------------------------------------------- sums


def _sum(path: Path, name: str, rows: Iterator[Record]) -> Workload:
    percent = Decimal(0)
    sums = []
    for r in rows:
        percent += r.number("time", 0, 100, Decimal(0))
        kernel = r.name("name" if "name" in r.columns else "operation")
        sums.append(Sum(r.place, kernel, r.calls("instances"), r.time_ns("totaltime"),
                        _triple(r, "gridxyz"), math.prod(_triple(r, "blockxyz"))))  # fmt: skip
    meta = {"format": "nsys_csv", "report": "kernel sum", "listed_percent": float(percent)}
    return lay_out(path, name, sums, meta)


def _triple(r: Record, column: str) -> tuple[int, int, int]:
    """Return the three numbers of a cell, zeros where there is no such column."""
    if not (text := r.text(column)):
        return 0, 0, 0
    parts = text.split()
    if len(parts) != 3 or not all(re.fullmatch("[0-9]{1,10}", p) for p in parts):
        raise r.error("not a size", column, "three whole numbers")
    return int(parts[0]), int(parts[1]), int(parts[2])


# ---------------------------------------------------------------- the trace


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of a GPU trace; times in ns as the report counts them."""

    timed: Timed
    correlation: int
    device: str


def _trace(path: Path, name: str, rows: Iterator[Record]) -> Workload:
    found: list[_Row] = []
    for r in rows:
        if len(found) == _MOST_ROWS:
            raise InputError("too many operations", file=path, place=r.place,
                             allowed=f"up to {_MOST_ROWS}")  # fmt: skip
        found.append(_row(r))
    found.sort(key=lambda row: row.timed.start)
    numbers = _device_numbers(found)
    timed = [replace(row.timed, stream=numbers[row.device] * 1_000_000 + row.timed.stream)
             for row in found]  # fmt: skip
    try:
        return assemble(name, [step_of(timed, 10**9)], _meta(path, found))
    except InputError as error:
        raise InputError(str(error), file=path) from None


def _row(r: Record) -> _Row:
    grid = r.whole("grdx"), r.whole("grdy"), r.whole("grdz")
    threads = math.prod((r.whole("blkx"), r.whole("blky"), r.whole("blkz")))
    launch = Launch(r.name("name"), grid, threads, r.size("bytes"))
    timed = Timed(
        launch, r.time_ns("start", -LATEST_NS, LATEST_NS), r.time_ns("duration"),
        describe(None, launch), r.whole("strm"), r.whole("regtrd", high=2**16),
        r.size("stcsmem") + r.size("dymsmem"),
    )  # fmt: skip
    return _Row(timed, r.whole("corrid", high=2**53), r.text("device"))


def _device_numbers(rows: list[_Row]) -> dict[str, int]:
    """Return a number for each device: its own, or the order in which they turn up."""
    found: dict[str, int] = {}
    for row in rows:
        if row.device not in found:
            own = _DEVICE.fullmatch(row.device)
            found[row.device] = int(own.group(2)) if own else len(found)
    return found


def _meta(path: Path, rows: list[_Row]) -> dict[str, Any]:
    names = Counter(row.device for row in rows if row.device)
    name = names.most_common(1)[0][0] if names else ""
    own = _DEVICE.fullmatch(name)
    calls = Counter(row.correlation for row in rows if row.correlation)
    # the nodes of a graph share the correlation of the call that launched it
    in_graphs = sum(n for n in calls.values() if n > 1)
    return {
        "format": "nsys_csv",
        "report": "GPU trace",
        "file": path.name,
        "device": own.group(1) if own else name,
        "devices": max(len(names), 1),
        "launch": "graph" if in_graphs > 0.5 * len(rows) else "eager",
        "host": "unknown",
        "marked_steps": 0,
        "outside_steps": 0,
        "outside_steps_s": 0.0,
    }
