"""Operations of a trace, whatever its format, put together into a workload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from npusim import __version__
from npusim.importers import kernel_names
from npusim.importers.layers import layers
from npusim.importers.work import Launch, Work
from npusim.workload import COLUMNS, LABELS, Steps, Workload

_FROM_WORK = [f.name for f in fields(Work)]


@dataclass(frozen=True)
class Operation:
    """One device operation as an importer found it; times in seconds from the start of its step.

    The host fields are explained in `npusim.importers.host_lane`; zero where a format has none.
    """

    launch: Launch
    work: Work
    start_s: float
    duration_s: float
    operator: str = "unknown"
    stream: int = 0
    registers: int = 0
    shared_memory: float = 0.0
    host_s: float = 0.0
    sync: bool = False
    presync_s: float = 0.0


@dataclass(frozen=True)
class Step:
    """One step of a capture: its operations in issue order, wall time and host tail [s]."""

    operations: Sequence[Operation]
    wall_s: float
    tail_s: float = 0.0


def assemble(name: str, steps: Sequence[Step], meta: Mapping[str, Any]) -> Workload:
    """Return the workload of some steps; phase and layers follow from the operations.

    Raises
    ------
    InputError
        Values that no workload may have.
    """
    rows: list[dict[str, Any]] = []
    for number, step in enumerate(steps):
        works = [o.work for o in step.operations]
        phase = _phase(works)
        for o, layer in zip(step.operations, layers(works), strict=True):
            rows.append({**_row(o), "step": number, "phase": phase, "layer": layer})
    labels = {column: list(dict.fromkeys(row[column] for row in rows)) for column in LABELS}
    codes = {column: {text: i for i, text in enumerate(labels[column])} for column in LABELS}
    columns = {
        column: np.array(
            [codes[column][r[column]] if column in LABELS else r[column] for r in rows]
        )
        for column in COLUMNS
    }
    times = Steps(np.array([s.wall_s for s in steps]), np.array([s.tail_s for s in steps]))
    return Workload(name, columns, labels, times, meta={**meta, "npusim": __version__})


def _row(o: Operation) -> dict[str, Any]:
    row: dict[str, Any] = {field: getattr(o.work, field) for field in _FROM_WORK}
    return row | {
        "kernel": o.launch.kernel,
        "operator": o.operator,
        "library": kernel_names.library(o.launch.kernel),
        "stream": o.stream,
        "blocks": o.launch.blocks,
        "threads": o.launch.threads,
        "registers": o.registers,
        "shared_memory": o.shared_memory,
        "start_s": o.start_s,
        "duration_s": o.duration_s,
        "host_s": o.host_s,
        "sync": o.sync,
        "presync_s": o.presync_s,
    }


def _phase(works: Sequence[Work]) -> str:
    """Tell decode (one query), prefill (causal) and encode (all against all) apart."""
    attention = [w for w in works if w.kind == "attention" and w.n > 1]
    if not attention:
        return "unknown"
    if any(w.m == 1 for w in attention):
        return "decode"
    causal = any(w.flop < 3.5 * w.batch * w.heads * w.m * w.n * w.k for w in attention)
    return "prefill" if causal else "encode"
