"""Machines that a sweep is put beside: the nominal one, those of constraints, and the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from npusim.arch import Designs
from npusim.beside import measured_content
from npusim.compare import measured
from npusim.constraints import NOMINAL
from npusim.job import Job
from npusim.load import load_arch
from npusim.sweeps.evaluate import evaluate, with_changes
from npusim.transforms import TRANSFORMABLE, present
from npusim.workload import Workload


def nominal_design(job: Job) -> pd.Series[float]:
    """Return the machine as its file gives it, under the last launch mode of the sweep.

    An axis over something that the machine itself lacks has no nominal value, nor has one over
    something in which the workloads differ: NaN.
    """
    machine, launch = Designs(job.arch), job.space.launch[-1]
    workloads = with_changes(job.workloads, job.changes)
    table = evaluate(machine, workloads, launch, counts=job.counts)
    own = pd.Series({path: _own(path, machine, workloads) for path in job.space.axes})
    values: pd.Series[float] = pd.concat([own, table.iloc[0]])
    return values


def _own(path: str, machine: Designs, workloads: Sequence[Workload]) -> float:
    """Return the value that a parameter has before it is swept, or NaN."""
    if path in TRANSFORMABLE:
        found = {value for w in workloads if (value := present(w, path)) is not None}
        return found.pop() if len(found) == 1 else np.nan
    return float(machine[path][0]) if path in machine else np.nan


def references(job: Job) -> dict[str, dict[str, float]]:
    """Return the figures of the machines that constraints compare with, by name.

    They run as the last launch mode has it, with what ``--set`` changes of the work.
    """
    found = {}
    workloads = with_changes(job.workloads, job.changes)
    for name in dict.fromkeys(one.like for one in job.constraints if one.like):
        machine = job.arch if name == NOMINAL else load_arch(name)
        row = evaluate(Designs(machine), workloads, job.space.launch[-1], counts=job.counts).iloc[0]
        figures = {str(k): float(v) for k, v in row.items() if isinstance(v, (int, float))}
        found[name] = {**machine.values, **figures}  # noqa: PD011
    return found


def baseline(job: Job) -> dict[str, Any] | None:
    """Return the baseline machine: predicted under each launch mode, and measured."""
    if job.baseline is None:
        return None
    predicted, workloads = {}, with_changes(job.workloads, job.changes)
    for launch in dict.fromkeys(("eager", *job.space.launch)):
        table = evaluate(Designs(job.baseline), workloads, launch, counts=job.counts)
        predicted[launch] = plain(table.iloc[0])
    figures = {w.name: [measured_content(m) for m in measured(w)] for w in job.workloads}
    return {
        "arch": job.baseline.name,
        "launch": "eager",
        "wall_s": predicted["eager"]["wall_s"],
        "device_busy_s": predicted["eager"]["device_busy_s"],
        "predicted": predicted,
        "measured_wall_s": {
            "traced": _whole(job, traced=True),
            "unprofiled": _whole(job, traced=False),
        },
        "measured": figures,
    }


def _whole(job: Job, *, traced: bool) -> float | None:
    """Return the measured eager wall time of all steps on the baseline, or None if one lacks it."""
    devices = job.baseline.devices if job.baseline is not None else ()
    total = 0.0
    for w, count in zip(job.workloads, job.counts, strict=True):
        found = [
            m.value_s
            for m in measured(w)
            if m.device in devices and (m.launch, m.quantity, m.traced) == ("eager", "wall", traced)
        ]
        if not found:
            return None
        total += count * found[0]
    return total


def plain(row: pd.Series[float]) -> dict[str, Any]:
    """Return a row as plain values; what is undefined becomes None."""
    content: dict[str, Any] = {}
    for key, value in row.items():
        undefined = isinstance(value, (float, np.floating)) and not np.isfinite(value)
        plain = value.item() if isinstance(value, np.generic) else value
        content[str(key)] = None if undefined else plain
    return content
