"""Huawei Ascend tables: ``kernel_details.csv`` (PyTorch) and ``op_summary_*.csv`` (msprof).

One device task a row, times in microseconds with decimals that are kept exactly. The type of the
operator gives its kind; the shapes of plain matrix products give FLOP and bytes where only one
reading of them fits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from npusim.errors import InputError
from npusim.importers import ascend_types, csv_rows, files
from npusim.importers.assembly import StepColumns, assemble
from npusim.importers.device_lane import Timed, step_of
from npusim.importers.work import Launch, Work
from npusim.workload import Workload

FORMAT = "Ascend kernel_details.csv or op_summary_*.csv"

# kernel_details calls a column like the first, op_summary like the second. Very old versions write
# "Task Start Time" without a unit: nobody says which it is, so they are refused.
_NAMES = ("Name", "Op Name")
_TYPES = ("Type", "OP Type")
_CORES = ("Accelerator Core", "Task Type")
_STARTS = ("Start Time(us)", "Task Start Time(us)")
_DURATIONS = ("Duration(us)", "Task Duration(us)")
_BLOCKS = ("Block Dim", "Block Num")
_STEPS = ("Step Id", "Step ID")
_LATEST_US, _LONGEST_US = 1e18, 1e12
_MISSING = ("", "N/A", "NA")
# Tasks that wait or mark; they take a row but do no work.
_WAITS = re.compile(r"(EVENT|NOTIFY|MODEL)_.*|PLACE_HOLDER.*|.*_?WAIT", re.IGNORECASE)


def sniff(path: Path) -> bool:
    """Return whether the header is that of one of the two tables."""
    names = set(csv_rows.header(path))
    times = names & {*_STARTS, *_DURATIONS}
    return bool(times and names & set(_CORES) and names & set(_NAMES))


def read(path: Path, name: str) -> Workload:
    """Read a table.

    Parameters
    ----------
    path : Path
    name : str
        What to call the workload.

    Returns
    -------
    Workload
        Steps are those of the column ``Step Id``; without it, the table is one step. No host.

    Raises
    ------
    InputError
        A column is missing, a row is damaged, or there are no tasks.
    """
    capture = _Capture(csv_rows.Table(path))
    if not capture.timed:
        raise InputError("no device tasks with times", file=path,
                         allowed="at least one row")  # fmt: skip
    steps, notes = _steps(capture.timed)
    meta = {
        "format": "ascend csv", "file": path.name, "device": "", "launch": "eager",
        "host": "unknown", **notes, **capture.meta(),
    }  # fmt: skip
    try:
        return assemble(name, steps, meta)
    except InputError as error:
        raise InputError(str(error), file=path) from None


class _Capture:
    """The tasks of a table in order of their start."""

    def __init__(self, table: csv_rows.Table) -> None:
        self.table = table
        self.name, self.start = table.need(*_NAMES), table.need(*_STARTS)
        self.duration = table.need(*_DURATIONS)
        table.need(*_TYPES)
        self.streams = files.Numbering()
        self.cores: Counter[str] = Counter()
        self.devices: Counter[str] = Counter()
        self.untimed = self.waits = 0
        self.timed: list[Timed] = []
        for row in table:
            self._add(row)
            if len(self.timed) > files.MOST_OPERATIONS:
                raise files.too_many(table.path)
        self.timed.sort(key=lambda t: t.start)

    def _add(self, row: csv_rows.Row) -> None:
        core = row.text(*_CORES)
        if _WAITS.fullmatch(core):
            self.waits += 1
            return
        if row.text(self.start) in _MISSING or row.text(self.duration) in _MISSING:
            self.untimed += 1
            return
        start = row.number(self.start, 0, _LATEST_US)
        duration = row.number(self.duration, 0, _LONGEST_US)
        kernel = row.text(self.name) or "unknown"
        device = row.text("Device_id", "Device ID")
        launch = Launch(kernel, (row.whole(*_BLOCKS), 1, 1))
        self.cores[core or "unknown"] += 1
        self.devices[device] += 1
        stream = self.streams[device, row.text("Stream ID", "Stream Id")]
        self.timed.append(Timed(launch, start, duration, _work(row, kernel), stream,
                                group=row.text(*_STEPS)))  # fmt: skip

    def meta(self) -> dict[str, Any]:
        """Return what is known of the capture as a whole."""
        return {
            "devices": len(self.devices), "streams": len(self.streams),
            "cores": dict(self.cores), "waits": self.waits, "untimed": self.untimed,
            "repaired": self.table.lost > 0, "lost_events": self.table.lost,
        }  # fmt: skip


def _work(row: csv_rows.Row, kernel: str) -> Work:
    """Return what a task does: from its shapes if only one reading fits, else from its type."""
    operator_type = row.text(*_TYPES)
    work = ascend_types.product(
        operator_type, row.text("Input Shapes"), row.text("Input Data Types"),
        row.text("Input Formats"), (row.text("Output Shapes"), row.text("Output Data Types")),
    )  # fmt: skip
    if work is not None:
        return work
    kind = ascend_types.kind(operator_type, kernel)
    return Work(kind, basis="name" if kind != "unknown" else "none")


def _steps(timed: Sequence[Timed]) -> tuple[list[StepColumns], dict[str, Any]]:
    """Return the steps of a capture, and what lay outside them."""
    groups: dict[str, list[Timed]] = {}
    for t in timed:
        groups.setdefault(t.group, []).append(t)
    marked = [g for g in groups if g not in _MISSING]
    outside = [t for g in groups if g in _MISSING for t in groups[g]] if marked else []
    chosen = [groups[g] for g in marked] or [list(timed)]
    notes = {"marked_steps": len(marked), "outside_steps": len(outside),
             "outside_steps_s": float(sum(t.duration for t in outside)) / 1e6}  # fmt: skip
    return [step_of(group, 10**6) for group in chosen], notes
