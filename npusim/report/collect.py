"""A profiling report of any workload, as plain data.

The parts are those an engineer writes after a profile: what was measured, where the time goes,
what holds kernels back, how they spread, where they stand on the roofline, what launches and the
host cost, and how steps differ. What a trace lacks is said where it would have stood.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from npusim.arch import Arch
from npusim.gaps import Gaps, gaps, laid_out
from npusim.inspection import inspection
from npusim.load import traced_arch
from npusim.report.data import NO_TIMES, Report, Section, Table
from npusim.report.kernels import (
    bases,
    class_section,
    kernel_table,
    launch_table,
    longest_section,
    time_section,
)
from npusim.report.spread import histogram_section, roofline_section
from npusim.report.timeline import SHORT_S, below, host_section, launch_section, step_section
from npusim.units import show
from npusim.workload import Workload

# Of the provenance, what a reader looks for first, in this order; the rest follows.
_FIRST = ("device", "format", "file", "launch", "marked_steps")


def collect(w: Workload, arch: Arch | None = None) -> Report:
    """Return the profiling report of a workload.

    Parameters
    ----------
    w : Workload
        Of any source: a full trace, kernels alone, sums of kernels, counters.
    arch : Arch, optional
        The machine it ran on; by default the shipped one that lists the traced device, if any.

    Returns
    -------
    Report

    Examples
    --------
    >>> import npusim as ns
    >>> report = collect(ns.load_workload("paddleocr_vl_decode"))
    >>> report.machine, [s.name for s in report.sections][:3]
    ('h200', ['measured', 'time', 'classes'])
    >>> bool(abs(report.table("kernels")["time_share"].sum() - 1) < 1e-9)
    True
    """
    machine = arch if arch is not None else traced_arch(w)
    totals, idle = inspection(w), gaps(w)
    classes = bases(w, machine)
    launches = launch_table(w, classes)
    kernels = kernel_table(launches)
    sections = (
        _measured(w, totals, machine, idle),
        time_section(launches, kernels),
        class_section(w, launches, classes, machine),
        longest_section(launches, kernels),
        histogram_section(w),
        roofline_section(w, launches, machine),
        launch_section(w, idle),
        host_section(w, launches, idle),
        step_section(w, idle),
        _names(kernels),
    )
    found = tuple(_findings(w, totals, kernels, launches, idle, sections))
    return Report(w.name, machine.name if machine is not None else "", found, sections, totals)


def _measured(w: Workload, totals: Mapping[str, Any], machine: Arch | None, g: Gaps) -> Section:
    """Return what was measured, on what and how."""
    steps = len(w.steps)
    marked = f"{steps}" if totals["steps"] else "none marked: the capture counts as one"
    wall, timed = totals["wall_s"], totals["device_busy_s"] > 0
    ordered = timed and not laid_out(w, g)
    unknown = "not known: the file says how long kernels take, not when they run"
    if not timed:
        unknown = "not known: no device times"
    rows = [
        ("workload", w.name),
        ("machine", machine.title if machine is not None else "not known to npusim"),
        ("phase", ", ".join(totals["phase"])),
        ("steps", marked),
        ("launches", f"{len(w):,} ({len(w) / steps:,.0f} a step)"),
        ("different kernels", f"{len(set(w['kernel'].tolist())):,}"),
        ("wall", f"{show(wall, 's')} ({show(wall / steps, 's')} a step)" if ordered else unknown),
        ("device-busy (sum over kernels)", show(totals["device_busy_s"], "s")),
        ("device active (at least one runs)",
         show(totals["device_active_s"], "s") if ordered else unknown),
        ("idle, of wall", f"{totals['idle_share']:.1%}" if ordered else unknown),
        ("FLOP, from shapes", show(totals["flop"], "FLOP")),
        ("bytes, from shapes", show(sum(totals["bytes"].values()), "B")),
        ("device time with FLOP and bytes", f"{totals['classified_busy_share']:.1%}"),
        ("hardware counters", f"{len(w.counters)}" if w.counters else "none"),
    ]  # fmt: skip
    left = {k: v for k, v in w.meta.items() if k not in _FIRST and k != "npusim"}
    meta = {**{k: w.meta[k] for k in _FIRST if k in w.meta}, **left}
    lacks = [] if w.meta.get("device") else ["the trace does not name its device"]
    return Section("measured", "What was measured", notes=tuple(totals["notes"]),
                   lacks=tuple(lacks), tables=(
        Table("summary", "Summary", _pairs(rows), (), 40),
        Table("provenance", "Provenance", _pairs(list(_flat(meta))), (), 24),
    ))  # fmt: skip


def _flat(meta: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield provenance as text by dotted path, what is empty left out.

    Examples
    --------
    >>> list(_flat({"device": "", "lost": {"kernels": 2}, "ranks": [0, 1]}))
    [('lost.kernels', '2'), ('ranks', '0, 1')]
    """
    for key, value in meta.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        elif isinstance(value, (list, tuple)):
            yield path + str(key), ", ".join(map(str, value))
        elif value not in ("", None):
            yield path + str(key), str(value)


def _pairs(rows: Sequence[tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["quantity", "value"])


def _names(kernels: pd.DataFrame) -> Section:
    """Return the full names behind the readable ones."""
    return Section("names", "Full names of kernels", tables=(
        Table("names", "Readable and full names, most device time first",
              kernels[["rank", "label", "kernel"]], (), 40),
    ))  # fmt: skip


def _findings(
    w: Workload, totals: Mapping[str, Any], kernels: pd.DataFrame, launches: pd.DataFrame,
    g: Gaps, sections: Sequence[Section],
) -> Iterator[str]:  # fmt: skip
    """Yield what matters most."""
    if w.meta.get("measured") is False:
        yield NO_TIMES
        return
    top = kernels.head(3)
    listed = "; ".join(f"{r.label} {r.time_share:.1%}" for r in top.itertuples())
    yield f"Most device time: {listed}."
    kinds = launches.groupby("kind")["duration_s"].sum().sort_values(ascending=False)
    total = totals["device_busy_s"] or 1.0
    parts = ", ".join(f"{k} {v / total:.1%}" for k, v in kinds.head(4).items())
    yield f"By kind: {parts}."
    for basis in ("counters", "shapes"):
        table = next(t for s in sections for t in s.tables if t.name == f"classes_{basis}").frame
        if len(table):
            parts = ", ".join(f"{c} {t:.1%} ({n:.1%} of launches)" for c, t, n in
                              zip(table["class"], table["time_share"], table["count_share"],
                                  strict=True) if c != "all")  # fmt: skip
            yield f"Device time by class, from {basis}: {parts}."
    count, time = below(w["duration_s"], SHORT_S)
    yield (
        f"{count:.1%} of launches are shorter than {show(SHORT_S, 's')}; they hold {time:.1%} of "
        "device-busy time."
    )
    if not laid_out(w, g) and totals["wall_s"] > 0:
        whole = "" if totals["steps"] else " of the whole capture (no step is marked)"
        yield f"The device idles {totals['idle_share']:.1%} of wall time{whole}."
    calls = next(t for s in sections for t in s.tables if t.name == "host_calls").frame
    if len(calls):
        yield f"Most host time of its own: {calls['name'].iloc[0]}."
