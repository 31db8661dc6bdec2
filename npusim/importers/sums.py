"""Sums of kernels laid out as operations.

A sum says how often a kernel ran and for how long in all, not when. It is laid out as that many
operations of the average time, end to end, so that totals and counts hold; order, spread, gaps
and the host are not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from npusim.errors import InputError
from npusim.importers.assembly import Operation, Step, assemble
from npusim.importers.describe import describe
from npusim.importers.unit_rows import LONGEST_NS
from npusim.importers.work import Launch
from npusim.workload import Steps, Workload

NOTE = "kernel sums: order and spread unknown"
MOST_CALLS = 1_000_000


@dataclass(frozen=True)
class Sum:
    """All calls of one kernel: how many, and their time in all [ns]."""

    place: str
    kernel: str
    calls: int
    total_ns: Decimal
    grid: tuple[int, int, int] = (0, 0, 0)
    threads: int = 0


def lay_out(path: Path, name: str, sums: Sequence[Sum], meta: Mapping[str, Any]) -> Workload:
    """Return sums as one step of operations, each of its kernel's average time, end to end.

    The average is rounded down to a picosecond and the last call takes the rest, so that the
    times of a kernel add up to its total.

    Raises
    ------
    InputError
        No kernels, more calls than can be laid out, or values that no workload may have.
    """
    _check_amount(path, sums)
    about = {"file": path.name, "device": "", "launch": "eager", "host": "unknown",
             "marked_steps": 0, "outside_steps": 0, "outside_steps_s": 0.0,
             "note": NOTE}  # fmt: skip
    launches = [Launch(s.kernel, s.grid, s.threads) for s in sums]
    once = Step([Operation(launch, describe(None, launch), 0.0, 0.0) for launch in launches], 0.0)
    try:
        w = assemble(name, [once], {**about, **meta})
    except InputError as error:
        raise InputError(str(error), file=path) from None
    calls = np.array([s.calls for s in sums])
    total = np.array([int(s.total_ns * 1000) for s in sums])
    time = np.repeat(total // calls, calls)
    time[np.cumsum(calls) - 1] += total % calls
    end = np.cumsum(time)
    columns = {c: np.repeat(values, calls) for c, values in w.columns.items()}
    columns |= {"start_s": (end - time) / 1e12, "duration_s": time / 1e12}
    columns["layer"] = np.full(len(time), -1)  # the order is ours, so none may be read from it
    steps = Steps(np.array([end[-1] / 1e12]), np.zeros(1))
    return Workload(name, columns, w.labels, steps, meta=w.meta)


def _check_amount(path: Path, sums: Sequence[Sum]) -> None:
    if not sums:
        raise InputError("no kernels", file=path, allowed="at least one row under the header")
    calls, time = 0, Decimal(0)
    for s in sums:
        calls, time = calls + s.calls, time + s.total_ns
        if calls > MOST_CALLS:
            raise InputError("too many kernel calls to lay out", file=path, place=s.place,
                             value=calls, allowed=f"up to {MOST_CALLS} in all")  # fmt: skip
        if time > LONGEST_NS:
            raise InputError("times add up to too much", file=path, place=s.place,
                             value=f"{time / 10**9} s", allowed="up to 1e6 s")  # fmt: skip
