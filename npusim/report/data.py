"""What a profiling report is made of: sections of sentences, tables and figures, as plain data.

Every column of a table is declared once, with its unit; the page, the CSV files and the JSON file
all read it there. Values are SI; the page alone scales them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.counters import COUNTERS
from npusim.inspection import HOST_TIMES

Array = NDArray[np.float64]

MOST_ROWS_IN_JSON = 1000  # of a table; the CSV file beside it has all of them
_BINS = 24
_CAPITALS = {
    "sm": "SM", "dram": "DRAM", "l1": "L1", "l2": "L2", "fp16": "FP16", "fp32": "FP32",
    "fp64": "FP64", "flop": "FLOP",
}  # fmt: skip


NO_TIMES = "the trace has no device times: counts, FLOP and bytes only"


@dataclass(frozen=True)
class Field:
    """One column of a table: what it is called on the page, and its unit.

    ``share`` is a part of some whole, ``count`` a whole number, ``text`` anything else.
    """

    label: str
    unit: str


def _counter_fields() -> dict[str, Field]:
    """Return a column for every counter."""
    found = {}
    for name, counter in COUNTERS.items():
        unit = "share" if counter.is_share else counter.unit
        words = [_CAPITALS.get(word, word) for word in name.split("_")]
        found[name] = Field(" ".join(words), unit)
    return found | {"profiled_s": Field("duration while profiled", "s")}


FIELDS: Mapping[str, Field] = MappingProxyType(_counter_fields() | {
    "label": Field("kernel", "text"),
    "kernel": Field("full name", "text"),
    "library": Field("library", "text"),
    "kind": Field("kind", "text"),
    "phase": Field("phase", "text"),
    "layer": Field("layer", "text"),
    "operator": Field("operator", "text"),
    "class": Field("class", "text"),
    "dtype": Field("type", "text"),
    "name": Field("name", "text"),
    "group": Field("group", "text"),
    "value": Field("value", "text"),
    "quantity": Field("quantity", "text"),
    "before": Field("after", "text"),
    "after": Field("before", "text"),
    "note": Field("note", "text"),
    "rank": Field("#", "count"),
    "step": Field("step", "count"),
    "stream": Field("stream", "count"),
    "thread": Field("thread", "count"),
    "blocks": Field("blocks", "count"),
    "threads": Field("threads", "count"),
    "launches": Field("launches", "count"),
    "kernels": Field("kernels", "count"),
    "calls": Field("calls", "count"),
    "syncs": Field("waits", "count"),
    "steps": Field("steps", "count"),
    "count_share": Field("of launches", "share"),
    "time_share": Field("of device-busy", "share"),
    "cumulative_share": Field("cumulative", "share"),
    "wall_share": Field("of wall", "share"),
    "idle_share": Field("idle, of wall", "share"),
    "duration_s": Field("duration", "s"),
    "total_s": Field("total", "s"),
    "mean_s": Field("mean", "s"),
    "median_s": Field("median", "s"),
    "p95_s": Field("p95", "s"),
    "max_s": Field("longest", "s"),
    "start_s": Field("start in its step", "s"),
    "gap_s": Field("gap", "s"),
    "wall_s": Field("wall", "s"),
    "busy_s": Field("device-busy", "s"),
    "active_s": Field("device active", "s"),
    "host_s": Field("host work", "s"),
    "mean_host_s": Field("host work a launch", "s"),
    "interpreter_s": Field(HOST_TIMES["interpreter_s"], "s"),
    "framework_s": Field(HOST_TIMES["framework_s"], "s"),
    "library_s": Field(HOST_TIMES["library_s"], "s"),
    "launch_s": Field(HOST_TIMES["launch_s"], "s"),
    "presync_s": Field("then before a wait", "s"),
    "self_s": Field("self", "s"),
    "below_s": Field("shorter than", "s"),
    "flop": Field("FLOP", "FLOP"),
    "bytes": Field("bytes", "B"),
    "intensity": Field("intensity", "FLOP/B"),
    "flop_rate": Field("achieved", "FLOP/s"),
    "byte_rate": Field("achieved", "B/s"),
    "flop_share": Field("of peak FLOP/s", "share"),
    "byte_share": Field("of peak DRAM", "share"),
    "flop_share_by_time": Field("of peak FLOP/s, by time", "share"),
    "byte_share_by_time": Field("of peak DRAM, by time", "share"),
    "mean_by_time_s": Field("mean, by time", "s"),
    "over_ridge": Field("intensity / ridge", "1"),
    "bin_low": Field("bin from, SI", "1"),
    "bin_high": Field("bin to, SI", "1"),
    "tail_ratio": Field("p95 / median", "1"),
})  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table: all rows in `frame`, the columns and the first rows that a page shows.

    Attributes
    ----------
    name : str
        Name of its CSV file.
    title : str
    frame : DataFrame
        Columns are those of `FIELDS`, in SI units.
    shown : tuple of str
        Columns on the page; all by default.
    rows : int
        Most rows on the page.
    """

    name: str
    title: str
    frame: pd.DataFrame
    shown: tuple[str, ...] = ()
    rows: int = 15


@dataclass(frozen=True)
class Histogram:
    """How launches, and their time, spread over the values of one quantity.

    Attributes
    ----------
    name, label, unit : str
    log : bool
        Whether the bins are of equal width on a logarithmic axis.
    edges : array, shape (B + 1,)
    launches, seconds : array, shape (B,)
        Launches in each bin and their durations in all [s].
    missing : int
        Launches without a value, in none of the bins.
    """

    name: str
    label: str
    unit: str
    log: bool
    edges: Array
    launches: Array
    seconds: Array
    missing: int


FigureData: TypeAlias = "pd.DataFrame | tuple[Histogram, ...]"


@dataclass(frozen=True)
class Figure:
    """A figure that `npusim.report.figures` draws, by name; without data it is not drawn."""

    name: str
    caption: str
    data: FigureData


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Attributes
    ----------
    name, title : str
    text : tuple of str
        Sentences.
    notes : tuple of str
        What makes figures other than they seem.
    lacks : tuple of str
        What cannot be said of this workload, and why.
    tables : tuple of Table
    figures : tuple of Figure
    """

    name: str
    title: str
    text: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class Report:
    """A profiling report.

    Attributes
    ----------
    name : str
        Of the workload.
    machine : str
        Name of the machine it is held against, empty if none is known.
    findings : tuple of str
        What matters most, one sentence each.
    sections : tuple of Section
    totals : mapping
        What `npusim.inspection.inspection` says of the workload.
    """

    name: str
    machine: str
    findings: tuple[str, ...]
    sections: tuple[Section, ...]
    totals: Mapping[str, Any] = field(default_factory=dict)

    def section(self, name: str) -> Section:
        """Return the section of a name."""
        return next(s for s in self.sections if s.name == name)

    def table(self, name: str) -> pd.DataFrame:
        """Return all rows of the table of a name."""
        return next(t.frame for s in self.sections for t in s.tables if t.name == name)


def histogram(
    name: str, label: str, unit: str, values: Array, seconds: Array, *, log: bool
) -> Histogram:
    """Return a histogram of values by count and by time; not-a-number and zero on a log axis miss.

    Parameters
    ----------
    values, seconds : array, shape (K,)
        The quantity and the duration of each launch [s].

    Examples
    --------
    >>> h = histogram("x", "x", "share", np.array([0.1, 0.11, 0.9, np.nan]), np.ones(4), log=False)
    >>> h.launches.sum(), h.missing, h.edges[[0, -1]].tolist()
    (np.float64(3.0), 1, [0.0, 1.0])
    """
    known = np.isfinite(values) & (values > 0 if log else values >= 0)
    used, weight = values[known], seconds[known]
    if not len(used):
        edges = np.array([1.0, 10.0]) if log else np.array([0.0, 1.0])
    elif log:
        low, high = np.floor(8 * np.log10(used.min())), np.ceil(8 * np.log10(used.max()))
        edges = 10 ** (np.linspace(low, max(high, low + 8), _BINS + 1) / 8)
        edges[[0, -1]] = min(edges[0], used.min()), max(edges[-1], used.max())
    else:
        edges = np.linspace(0, max(float(used.max()), 1.0 if unit == "share" else 1e-30), 21)
    launches = np.histogram(used, edges)[0].astype(np.float64)
    time = np.histogram(used, edges, weights=weight)[0].astype(np.float64)
    return Histogram(name, label, unit, log, edges, launches, time, int((~known).sum()))


def content(report: Report) -> dict[str, Any]:
    """Return a report as plain values for JSON, in SI units; what is undefined is None."""
    return {
        "name": report.name,
        "machine": report.machine,
        "findings": list(report.findings),
        "totals": dict(report.totals),
        "sections": {
            s.name: {
                "title": s.title,
                "text": list(s.text),
                "notes": list(s.notes),
                "lacks": list(s.lacks),
                "tables": {t.name: _table_content(t.frame) for t in s.tables},
                "figures": {f.name: {"caption": f.caption, "data": _data(f)} for f in s.figures},
            }
            for s in report.sections
        },
    }


def _data(figure: Figure) -> Any:
    if isinstance(figure.data, pd.DataFrame):
        return _table_content(figure.data)
    return [
        {"name": h.name, "unit": h.unit, "edges": h.edges.tolist(), "missing": h.missing,
         "launches": h.launches.tolist(), "seconds": h.seconds.tolist()}
        for h in figure.data
    ]  # fmt: skip


def _table_content(frame: pd.DataFrame) -> dict[str, Any]:
    units = {c: FIELDS[c].unit for c in frame.columns}
    some = frame.head(MOST_ROWS_IN_JSON)
    plain = some.astype(object).where(some.notna(), None)
    return {"rows_in_all": len(frame), "units": units, "rows": plain.to_dict("records")}
