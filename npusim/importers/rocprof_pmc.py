"""Counter tables of ROCm Compute Profiler (``pmc_perf.csv``, Omniperf): one dispatch a row.

The tool runs a program once for each group of counters and joins the runs: times are means over the
runs, so they give durations and no time line. Counters are taken where their meaning is that of
`npusim.counters`: what leaves L2 is not, since on some GPUs another cache lies before the DRAM.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.importers import csv_rows, files
from npusim.importers.assembly import Operation, Step, assemble
from npusim.importers.csv_rows import Row
from npusim.importers.describe import describe
from npusim.importers.rocprof_json import LATEST_NS, LONGEST_NS, MOST_THREADS, blocks
from npusim.importers.work import Launch
from npusim.workload import Workload

FORMAT = "ROCm Compute Profiler pmc_perf.csv"

_START, _END = "Start_Timestamp", "End_Timestamp"
_NEEDED = ("Dispatch_ID", "GPU_ID", "Kernel_Name", _START, _END, "Grid_Size", "Workgroup_Size")
_HITS, _MISSES, _INSTRUCTIONS = "TCC_HIT_sum", "TCC_MISS_sum", "SQ_INSTS"
# counters of all channels of a block, and not of one as in TCC_HIT[3]
_COUNTER = re.compile(r"(?:SQC?|T[AD]|TC[CP]|SPI|CP[CF]|GRBM)_\w+")
_SOURCES = {"l2_hit_rate": f"{_HITS} / ({_HITS} + {_MISSES})", "instructions": _INSTRUCTIONS}
_SHOWN = 20
_MOST = 1e20


def sniff(path: Path) -> bool:
    """Return whether the header is that of a joined counter table."""
    return set(_NEEDED[:4]) <= set(csv_rows.header(path))


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
        One step, dispatches in the order of their numbers, each for its mean duration.

    Raises
    ------
    InputError
        A column is missing, a row is damaged, or there are no dispatches.
    """
    table = csv_rows.Table(path)
    for column in _NEEDED:
        table.need(column)
    found: dict[tuple[int, str], _Dispatch] = {}
    gpus = files.Numbering()
    for row in table:
        key = row.whole("Dispatch_ID", high=LATEST_NS), row.text("GPU_ID")
        if key in found:
            raise row.error("dispatch is listed twice", "Dispatch_ID", "one row a dispatch")
        found[key] = _dispatch(row, gpus[key[1]])
        if len(found) > files.MOST_OPERATIONS:
            raise files.too_many(path)
    if not found:
        raise InputError("no kernel dispatches", file=path, allowed="at least one row")
    dispatches = [found[key] for key in sorted(found, key=lambda key: key[0])]
    unknown = sorted(c for c in table.columns if _COUNTER.fullmatch(c)
                     and c not in (_HITS, _MISSES, _INSTRUCTIONS))  # fmt: skip
    meta = {
        "format": "rocprof compute csv", "file": path.name, "device": "", "launch": "eager",
        "host": "unknown", "marked_steps": 0, "outside_steps": 0, "outside_steps_s": 0.0,
        "kernels": len(dispatches), "devices": len(gpus),
        "duration_basis": "profiler replay", "counter_sources": dict(_SOURCES),
        "repaired": table.lost > 0, "lost_events": table.lost,
        "metrics_unknown": {"count": len(unknown), "first": unknown[:_SHOWN]},
    }  # fmt: skip
    try:
        w = assemble(name, [_end_to_end([d.operation for d in dispatches])], meta)
        return Workload(name, w.columns, w.labels, w.steps, w.edges, w.meta, _counters(dispatches))
    except InputError as error:
        raise InputError(str(error), file=path) from None


@dataclass(frozen=True, slots=True)
class _Dispatch:
    """One dispatch, and its counters; not-a-number where there are none."""

    operation: Operation
    l2_hit_rate: float
    instructions: float


def _dispatch(row: Row, gpu: int) -> _Dispatch:
    """Return what a row says."""
    group = [row.whole("Workgroup_Size", high=MOST_THREADS), 1, 1]
    grid = [row.whole("Grid_Size", high=MOST_THREADS), 1, 1]  # in threads, of all axes
    launch = Launch(row.text("Kernel_Name") or "unknown", *blocks(grid, group))
    registers = row.whole("Arch_VGPR", high=2**16) + row.whole("Accum_VGPR", high=2**16)
    operation = Operation(
        launch, describe(None, launch), 0.0, _seconds(row), stream=gpu, registers=registers,
        shared_memory=float(row.whole("LDS_Per_Workgroup", high=2**40)),
    )  # fmt: skip
    hits, misses = _count(row, _HITS), _count(row, _MISSES)
    lookups = hits + misses
    return _Dispatch(operation, hits / lookups if lookups else np.nan, _count(row, _INSTRUCTIONS))


def _seconds(row: Row) -> float:
    """Return the mean duration of a dispatch [s]."""
    start, end = row.number(_START, 0, LATEST_NS), row.number(_END, 0, LATEST_NS)
    for column, time in ((_START, start), (_END, end)):
        if int(time.as_tuple().exponent) > 0:  # 8.1097E+14 ns is a time to the nearest 10 seconds
            raise row.error("time has lost its last digits", column,
                            "nanoseconds, as the tool wrote them")  # fmt: skip
    if not 0 <= end - start <= LONGEST_NS:
        raise row.error("not a duration", _END, f"0 to {LONGEST_NS} ns after {_START}",
                        end - start)  # fmt: skip
    return float(end - start) / 1e9


def _count(row: Row, column: str) -> float:
    """Return a counter, not-a-number where there is none."""
    if column not in row.columns or row.is_missing(column):
        return np.nan
    return float(row.number(column, 0, _MOST))


def _end_to_end(operations: Sequence[Operation]) -> Step:
    """Return operations one after the other."""
    ends = np.cumsum([o.duration_s for o in operations])
    laid = [replace(o, start_s=float(end - o.duration_s))
            for o, end in zip(operations, ends, strict=True)]  # fmt: skip
    return Step(laid, float(ends[-1]))


def _counters(dispatches: Sequence[_Dispatch]) -> dict[str, NDArray[np.float64]]:
    """Return the counters that any dispatch has, shape (K,) each."""
    found = {
        "profiled_s": np.array([d.operation.duration_s for d in dispatches]),
        "l2_hit_rate": np.array([d.l2_hit_rate for d in dispatches]),
        "instructions": np.array([d.instructions for d in dispatches]),
    }
    return {counter: values for counter, values in found.items() if not np.isnan(values).all()}
