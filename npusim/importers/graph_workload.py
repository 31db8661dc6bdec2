"""The workload that an execution graph makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from npusim.errors import InputError
from npusim.importers import files
from npusim.importers.assembly import Operation, Step, assemble
from npusim.importers.graph_edges import dependencies
from npusim.importers.graph_nodes import Node
from npusim.importers.graph_work import Task
from npusim.importers.neighbours import with_neighbours
from npusim.workload import Workload

NOTE = "execution trace without device times: every duration is 0"


def graph_workload(
    path: Path, name: str, nodes: Sequence[Node], tasks: Sequence[Task],
    skipped: Counter[str], meta: Mapping[str, Any],
) -> Workload:  # fmt: skip
    """Return the workload of a graph.

    Parameters
    ----------
    path : Path
    name : str
    nodes : sequence of Node
        In an order in which each follows those it waits for.
    tasks : sequence of Task
        Those that work on the device, at least one, in the same order and that of their steps.
    skipped : Counter of str
        How many nodes do not count, by reason.
    meta : mapping
        What the format adds.

    Raises
    ------
    InputError
        Too many operations or dependencies, or values that no workload may have.
    """
    if len(tasks) > files.MOST_OPERATIONS:
        raise files.too_many(path)
    waits = dependencies(path, nodes, {t.node.id: t for t in tasks})
    starts = _starts(tasks, waits)
    ends = [i for i in range(1, len(tasks)) if tasks[i].step != tasks[i - 1].step]
    steps = [_step(tasks[i:j], starts[i:j]) for i, j in pairwise((0, *ends, len(tasks)))]
    measured = any(t.node.duration_s > 0 for t in tasks)
    about = {
        "file": path.name, "device": "", "launch": "eager", "host": "unknown",
        "measured": measured, "nodes": len(nodes), "skipped": dict(+skipped),
        "outside_steps": 0, "outside_steps_s": 0.0, "marked_steps": 0,
    }  # fmt: skip
    if measured:
        recorded = all(t.node.start_us is not None for t in tasks)
        about["starts"] = "recorded" if recorded else "as soon as what they wait for has ended"
    else:
        about["note"] = NOTE
    indptr = np.cumsum([0, *map(len, waits)], dtype=np.int64)
    indices = np.array([j for group in waits for j in sorted(group)], dtype=np.int64)
    try:
        w = assemble(name, steps, {**about, **meta})
        return Workload(name, w.columns, w.labels, w.steps, (indptr, indices), w.meta)
    except InputError as error:
        raise InputError(str(error), file=path) from None


def check_work(path: Path, tasks: Sequence[Task], skipped: Counter[str], nodes: int) -> None:
    """Refuse a graph without computation on a device, and say what its nodes are instead.

    Raises
    ------
    InputError
        Nothing but communication, host operators and annotations.
    """
    if any(t.work.kind != "collective" for t in tasks):
        return
    counts = {"communication": len(tasks), **skipped}
    parts = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
    raise InputError(f"no computation on a device among {nodes} nodes ({parts or 'none'})",
                     file=path, hint="trace a program that runs on an accelerator")  # fmt: skip


def _step(tasks: Sequence[Task], starts: Sequence[float]) -> Step:
    calls = [t.call for t in tasks]
    numbers = files.Numbering()
    works = with_neighbours(
        [t.work for t in tasks], calls, [t.launch.blocks for t in tasks],
        [-1 if c is None else numbers[id(c)] for c in calls],
    )  # fmt: skip
    zero = min(starts)
    operations = [
        Operation(t.launch, work, start - zero, t.node.duration_s,
                  operator=t.call.name if t.call is not None else "unknown",
                  stream=t.stream, sync=t.sync)
        for t, work, start in zip(tasks, works, starts, strict=True)
    ]  # fmt: skip
    return Step(operations, max(o.start_s + o.duration_s for o in operations))


def _starts(tasks: Sequence[Task], waits: Sequence[Collection[int]]) -> list[float]:
    """Return when tasks start [s]: as recorded, or as soon as what they wait for has ended."""
    recorded = [s for t in tasks if (s := t.node.start_us) is not None]
    if len(recorded) == len(tasks):
        return [(s - recorded[0]) * 1e-6 for s in recorded]
    ends: list[float] = []
    free: dict[tuple[int, int], float] = {}
    starts: list[float] = []
    for task, group in zip(tasks, waits, strict=True):
        lane = (task.step, task.stream)
        start = max([free.get(lane, 0.0), *(ends[j] for j in group)])
        starts.append(start)
        free[lane] = start + task.node.duration_s
        ends.append(free[lane])
    return starts
