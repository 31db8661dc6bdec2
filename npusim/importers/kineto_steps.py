"""The steps of a Kineto trace: what each operation does, and the host's work around it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.importers import kernel_names
from npusim.importers.assembly import StepColumns, no_host
from npusim.importers.coded import Coded
from npusim.importers.describe import describe
from npusim.importers.host_lane import host_lane
from npusim.importers.host_parts import OF_FRAMEWORK, Threads
from npusim.importers.kineto_capture import Capture, Span
from npusim.importers.kineto_events import Codes, Floats
from npusim.importers.neighbours import Made, among_neighbours
from npusim.importers.work import Launch

_WAITS = ("Synchronize",)


def steps_of(c: Capture) -> tuple[list[StepColumns], Codes, dict[str, Any]]:
    """Return the steps of a capture, the operations in them, and what lay outside."""
    spans = c.spans
    starts, stops = np.array(spans).T
    step = np.searchsorted(starts, c.issued, "right") - 1
    inside = (step >= 0) & (c.issued <= stops[np.maximum(step, 0)])
    if not inside.any():
        raise InputError("no device operation lies inside a step", place="user_annotation",
                         value=f"{len(spans)} steps")  # fmt: skip
    about = _Describer(c)
    rows = np.flatnonzero(inside)
    step = step[rows]  # ascending, as operations are in order
    bounds = [0, *(np.flatnonzero(np.diff(step)) + 1).tolist(), len(rows)]
    parts = [slice(*pair) for pair in pairwise(bounds)]
    columns = _columns(c, rows, parts, [spans[step[part.start]] for part in parts], about)
    outside = {"outside_steps": int((~inside).sum()),
               "outside_steps_s": float(c.device.length[~inside].sum()) * 1e-6}  # fmt: skip
    return columns, rows, outside


class _Describer:
    """What operations do, each distinct one looked at once."""

    def __init__(self, c: Capture) -> None:
        device, sizes, names = c.device, c.trace.sizes, c.trace.names
        key = (c.chain + 1) * len(names) + device.name
        _, row, self.kind = np.unique(key * len(sizes) + device.detail, return_index=True,
                                      return_inverse=True)  # fmt: skip
        self.calls = [c.operators[k] if k >= 0 else None for k in c.chain[row].tolist()]
        self.sizes = [sizes[k] for k in device.detail[row].tolist()]
        self.launches = [
            Launch(names[k], size.grid, size.threads, size.nbytes)
            for k, size in zip(device.name[row].tolist(), self.sizes, strict=True)
        ]
        self.blocks = [x.blocks for x in self.launches]
        self.made = Made()
        self.works = np.array([
            self.made.number(describe(c, x))
            for c, x in zip(self.calls, self.launches, strict=True)
        ])  # fmt: skip
        # Streams of one device keep their numbers; those of others get numbers of their own.
        first = min(s.device for s in sizes)
        top = max(s.stream for s in sizes) + 1
        self.streams = np.array([s.stream + top * (s.device - first) for s in self.sizes])
        self.registers = np.array([s.registers for s in self.sizes])
        self.shared_memory = np.array([s.shared_memory for s in self.sizes])
        self.operators = [c.name if c is not None else "unknown" for c in self.calls]
        # Calls of copies may wait: those to or from the host, not those on the device.
        self.blocking = np.array([
            size.category == "gpu_memcpy" and "DtoD" not in x.kernel
            for x, size in zip(self.launches, self.sizes, strict=True)
        ])  # fmt: skip
        runtime = c.trace.runtime
        self.returns = runtime.start + np.nan_to_num(runtime.length)
        idle = np.array([n.endswith(_WAITS) for n in names], dtype=bool)[runtime.name]
        idle &= np.isfinite(runtime.start) & np.isfinite(runtime.length)
        waits = np.column_stack([runtime.start, runtime.stop])[idle]
        self.waits = waits[np.argsort(waits[:, 0], kind="stable")]
        others = [kernel_names.library(x.kernel) not in OF_FRAMEWORK for x in self.launches]
        plans = c.instance[np.array(others)[self.kind] & (c.instance >= 0)]
        self.threads = Threads(c.calls, plans, runtime.thread[c.launch[c.launch >= 0]])


def _columns(
    c: Capture, rows: Codes, parts: list[slice], spans: list[Span], about: _Describer
) -> list[StepColumns]:
    """Return steps: what each operation does, and the host's work around it.

    Parameters
    ----------
    rows : array of int, shape (K,)
        The operations of all steps.
    parts, spans
        Which of these are of each step, and its times.
    """
    kind, device = about.kind[rows], c.device[rows]
    step = np.repeat(np.arange(len(parts)), [part.stop - part.start for part in parts])
    works = among_neighbours(
        about.made, about.works[kind], Coded(about.calls, kind), Coded(about.blocks, kind),
        c.instance[rows], step,
    )  # fmt: skip
    host, tails = _host(c, rows, device.stop, parts, spans, about)
    measured = {
        "start_s": np.maximum(device.start - np.array([start for start, _ in spans])[step], 0.0)
        * 1e-6,
        "duration_s": device.length * 1e-6,
        "stream": about.streams[kind],
        "registers": about.registers[kind],
        "shared_memory": about.shared_memory[kind],
        **host,
    }
    return [
        StepColumns(
            Coded(about.launches, kind[part]), Coded(about.made.works, works[part]),
            Coded(about.operators, kind[part]),
            {name: column[part] for name, column in measured.items()},
            (stop - start) * 1e-6, tail * 1e-6, start * 1e-6,
        )
        for part, (start, stop), tail in zip(parts, spans, tails, strict=True)
    ]  # fmt: skip


def _host(
    c: Capture, rows: Codes, done: Floats, parts: list[slice], spans: list[Span],
    about: _Describer,
) -> tuple[dict[str, NDArray[Any]], list[float]]:  # fmt: skip
    """Return the host's columns of steps, and its work after the last operation of each [us]."""
    found = no_host(len(rows))
    since, work = np.zeros((2, len(rows)))
    launch, runtime = c.launch[rows], c.trace.runtime
    tails = []
    for part, span in zip(parts, spans, strict=True):
        known = part.start + np.flatnonzero(launch[part] >= 0)
        if not len(known):
            tails.append(0.0)
            continue
        at = launch[known]
        calls = np.column_stack([runtime.start[at], about.returns[at]])
        first = np.searchsorted(about.waits[:, 0], span[0], "left")
        last = np.searchsorted(about.waits[:, 0], span[1], "right")
        lane = host_lane(*span, calls, done[known], about.waits[first:last],
                         about.blocking[about.kind[rows[known]]])  # fmt: skip
        since[known], work[known], tail = lane.since, lane.work, lane.tail
        tails.append(tail)
        found["presync_s"][known], found["sync"][known] = lane.presync * 1e-6, lane.sync
        found["thread"][known] = thread = runtime.thread[at]
        found["records"][known] = about.threads.records(thread, calls[:, 0], span)
    known = np.flatnonzero(launch >= 0)
    split = about.threads.parts(found["thread"][known], since[known], work[known])
    for column, spent in split.items():
        found[column][known] = spent * 1e-6
    return found, tails
