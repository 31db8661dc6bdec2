"""What a timeline shows one beside the other: a workload as it was traced, and as predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from npusim.arch import SET_BY_USER, Arch, Designs, parameter
from npusim.durations import as_measured, durations
from npusim.fusion.program import program
from npusim.gaps import gaps, laid_out
from npusim.lanes import timeline
from npusim.load import traced_arch
from npusim.models.hierarchy import LEVELS, Traffic
from npusim.models.kernel import BOUNDS, parts
from npusim.timeline import Timeline
from npusim.transforms import changes, refuse_changed, told
from npusim.units import show
from npusim.workload import Workload

Array = NDArray[np.float64]

CARRIED_OVER = "measured"  # what bounds an operation whose shapes are not known
_SLIGHT = 0.01


@dataclass(frozen=True)
class Side:
    """One of the two: when everything happens, and what the models say of it.

    Attributes
    ----------
    title : str
        Machine, launch mode, and how long a step takes.
    launch : str
        How operations reach the device.
    timeline : Timeline
        K operations. Without pieces of the host's time, and without times of issue, where the
        host is not known.
    predicted_s : array, shape (K,)
        Time of each operation on this machine by the models, not-a-number where they have none
        [s].
    bound : array of str, shape (K,)
        ``floor``, ``memory``, ``compute``, or `CARRIED_OVER`; empty where the machine is not known.
    served : mapping of str to array, shape (K,)
        Bytes that each level of the memory reads and writes for each operation [B].
    """

    title: str
    launch: str
    timeline: Timeline
    predicted_s: Array
    bound: NDArray[np.object_]
    served: Mapping[str, Array]

    @property
    def has_host(self) -> bool:
        """Whether it is known when the host issued each operation."""
        return bool(self.timeline.issued)


def before(workload: Workload) -> Side | None:
    """Return a workload as it was traced, None if nothing was measured.

    An eager trace that tells what the host did, from a machine that ships, is replayed there with
    the kernel times that were measured. Of any other only the device is shown, at the times of the
    trace.

    Parameters
    ----------
    workload : Workload
        Not changed (`npusim.transforms`). If its profiler is to be taken out of predictions, it
        is in here nevertheless.

    Examples
    --------
    >>> import npusim as ns
    >>> before(ns.load_workload("paddleocr_vl_decode")).title
    'before: NVIDIA H200, eager, as traced: 54.97 ms a step'
    """
    if workload.meta.get("measured") is False or changes(workload) or "left_out" in workload.meta:
        return None
    w = workload.renamed(workload.name, profiler="in") if "profiler" in workload.meta else workload
    arch, launch = traced_arch(w), str(w.meta.get("launch", "eager"))
    known = arch is not None and launch == "eager" and w.meta.get("host") == "measured"
    measured = float(w.steps.wall_s.mean())
    took = f"{show(measured, 's')} a step"
    if arch is not None and known:
        designs = Designs(arch)
        found = timeline(w, designs, as_measured(w), launch)
        each = found.steps[-1] / len(w.steps)
        if abs(each - measured) > _SLIGHT * measured:
            took = f"{show(each, 's')} a step replayed, {show(measured, 's')} measured"
    else:
        found = _device_alone(w)
        why = "the machine is not known" if arch is None else "the host was not measured"
        took += f", no host lane: {why}"
        took += "; kernels end to end: no times of day" if laid_out(w, gaps(w)) else ""
    part = w.meta.get("steps_of_trace")  # of the steps that the trace has
    took += f" (steps {', '.join(str(i) for i in part)} of the trace)" if part else ""
    title = f"before: {w.meta.get('device') or 'unknown device'}, {launch}, as traced: {took}"
    return _side(title, launch, found, arch)


def after(workload: Workload, arch: Arch, launch: str = "eager", mode: str = "model") -> Side:
    """Return the prediction of `npusim.predict.replay`.

    Raises
    ------
    InputError
        As there.

    Examples
    --------
    >>> import npusim as ns
    >>> w, h200 = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    >>> side = after(w, h200, "queue")
    >>> float(np.round(side.timeline.steps[-1] / 3 / ns.replay(w, h200, "queue").wall_s, 9))
    1.0
    """
    if mode == "transfer":
        refuse_changed(workload, "transfer")
    designs = Designs(arch)
    ran = program(workload, designs, launch, mode)
    time = durations(ran, designs, mode, traced_arch(workload))
    found = timeline(ran, designs, time, launch)
    each = show(found.steps[-1] / len(workload.steps), "s")
    changed = [f"{path}={show(arch[path], parameter(path).unit)}"
               for path, p in arch.provenance.items() if p.source == SET_BY_USER]  # fmt: skip
    changed += [told(changes(workload))] if changes(workload) else []
    changed += ["without the profiler"] if workload.meta.get("profiler") == "out" else []
    what = f"{arch.title} ({', '.join(changed)})" if changed else arch.title
    side = _side(f"after: {what}, {launch}, {mode} mode: {each} a step", launch, found, arch)
    took = np.array(found.end) - np.array(found.start)  # as transferred, and with loads ahead
    return replace(side, predicted_s=np.where(ran.classified, took, np.nan))


def _side(title: str, launch: str, found: Timeline, arch: Arch | None) -> Side:
    """Return a timeline with what the models of a machine say of its operations."""
    w = found.workload
    if arch is None:
        unknown = np.full(len(w), "", dtype=object)
        return Side(title, launch, found, np.full(len(w), np.nan), unknown, {})
    rows, inverse = w.unique()
    operations, designs = w.operations(rows), Designs(arch)
    stacked = np.stack([part[:, 0] for part in parts(operations, designs).values()])
    names = np.array(BOUNDS, dtype=object)
    known, moved = w.classified, Traffic(operations, designs)
    return Side(
        title, launch, found,
        np.where(known, stacked.sum(axis=0)[inverse], np.nan),
        np.where(known, names[np.argmax(stacked, axis=0)][inverse], CARRIED_OVER),
        {level: moved.moved(level)[inverse, 0] for level in LEVELS},
    )  # fmt: skip


def _device_alone(w: Workload) -> Timeline:
    """Return operations at their measured times, steps one after another without a gap."""
    step, end = w["step"], w["start_s"] + w["duration_s"]
    extent = w.steps.wall_s.copy()
    np.maximum.at(extent, step, end)
    steps, step = np.unique(step, return_inverse=True)
    begins = np.concatenate([[0.0], np.cumsum(extent[steps])])
    start, end = (begins[step] + times for times in (w["start_s"], end))
    return Timeline(w, start=start.tolist(), end=end.tolist(), steps=begins.tolist())
