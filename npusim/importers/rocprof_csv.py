"""AMD rocprofv3 kernel tables (``*_kernel_trace.csv``): one dispatch a row, times in nanoseconds.

Versions differ in their columns: group segment or LDS size, with registers and streams or without,
agents as ``4``, ``Agent 4`` or ``GPU 0``. Grid sizes are in threads, not in blocks.
"""

from __future__ import annotations

from pathlib import Path

from npusim.errors import InputError
from npusim.importers import csv_rows, files
from npusim.importers.assembly import assemble
from npusim.importers.describe import describe
from npusim.importers.device_lane import Timed, step_of
from npusim.importers.rocprof_json import LATEST_NS, LONGEST_NS, MOST_THREADS, blocks, lane_of
from npusim.importers.work import Launch
from npusim.workload import Workload

FORMAT = "rocprofv3 kernel_trace.csv"

_AXES = ("X", "Y", "Z")


def sniff(path: Path) -> bool:
    """Return whether the header is that of a rocprofv3 kernel trace (and not of its counters)."""
    names = csv_rows.header(path)
    return {"Kernel_Name", "Agent_Id"} <= set(names) and "Counter_Name" not in names


def read(path: Path, name: str) -> Workload:
    """Read a kernel trace.

    Parameters
    ----------
    path : Path
    name : str
        What to call the workload.

    Returns
    -------
    Workload
        One step; without host, since the table has no runtime calls.

    Raises
    ------
    InputError
        A column is missing, a row is damaged, or there are no dispatches.
    """
    table = csv_rows.Table(path)
    for column in ("Kernel_Name", "Start_Timestamp", "End_Timestamp"):
        table.need(column)
    streams = files.Numbering()
    found: list[tuple[int, Timed]] = []
    untimed, agents = 0, files.Numbering()
    for row in table:
        timed = _dispatch(row, streams)
        if timed is None:
            untimed += 1
            continue
        _ = agents[_agent(row)]
        found.append((row.whole("Dispatch_Id", "Correlation_Id", high=LATEST_NS), timed))
        if len(found) > files.MOST_OPERATIONS:
            raise files.too_many(path)
    if not found:
        raise InputError("no kernel dispatches", file=path, hint="run rocprofv3 --kernel-trace")
    found.sort(key=lambda item: (item[0], item[1].start))
    meta = {
        "format": "rocprofv3 csv", "file": path.name, "device": "", "launch": "eager",
        "host": "unknown", "marked_steps": 0, "outside_steps": 0, "outside_steps_s": 0.0,
        "agents": list(agents), "streams": len(streams), "untimed": untimed,
        "repaired": table.lost > 0, "lost_events": table.lost,
    }  # fmt: skip
    try:
        return assemble(name, [step_of([t for _, t in found], 10**9)], meta)
    except InputError as error:
        raise InputError(str(error), file=path) from None


def _agent(row: csv_rows.Row) -> str:
    """Return an agent in one spelling: older versions leave out the word."""
    text = row.text("Agent_Id")
    return f"Agent {text}" if text.isdigit() else text


def _dispatch(row: csv_rows.Row, streams: files.Numbering) -> Timed | None:
    """Return one dispatch, or None where the tool has no times for it (both are zero)."""
    start = row.whole("Start_Timestamp", high=LATEST_NS, default=-1)
    end = row.whole("End_Timestamp", high=LATEST_NS, default=-1)
    if start <= 0 and end <= 0 and start == end:
        return None
    if not 0 <= end - start <= LONGEST_NS or start < 0:
        raise row.error("not a duration", "End_Timestamp",
                        f"0 to {LONGEST_NS} ns after Start_Timestamp", end - start)  # fmt: skip
    group = [row.whole(f"Workgroup_Size_{a}", high=MOST_THREADS) for a in _AXES]
    grid = [row.whole(f"Grid_Size_{a}", high=MOST_THREADS) for a in _AXES]
    launch = Launch(row.text("Kernel_Name") or "unknown", *blocks(grid, group))
    registers = row.whole("VGPR_Count", high=2**16) + row.whole("Accum_VGPR_Count", high=2**16)
    shared = row.whole("LDS_Block_Size", "Group_Segment_Size", high=2**40)
    queue = streams[lane_of(_agent(row), row.text("Queue_Id"), row.text("Stream_Id"))]
    return Timed(
        launch, start, end - start, describe(None, launch), queue, registers, float(shared)
    )
