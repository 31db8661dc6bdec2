"""Kineto traces of which the CUPTI range profiler took counters instead of times.

Each ``cuda_profiler_range`` event is one kernel with its counters; the times that it carries are
an equal share of the whole range and mean nothing. The kernels import without times, at the
launch calls they came from, with the counters that npusim knows.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from npusim.importers.kineto_events import Codes, Range, Spans
from npusim.importers.kineto_scan import Trace
from npusim.importers.kineto_sizes import Sizes
from npusim.workload import Workload

_MISSING = "__missing__"  # the profiler lost the name
_PREFIX = ("smsp__sass_thread_inst_executed_op_", "sm__sass_thread_inst_executed_op_")
_FLOP = {"fp16_flop": "h", "fp32_flop": "f", "fp64_flop": "d"}


def as_device(trace: Trace) -> Trace:
    """Return a trace whose ranges are device operations of unknown duration.

    Where there are as many launch calls as ranges, the one launched the other in that order.
    """
    names = list(trace.names)
    codes = {name: i for i, name in enumerate(names)}
    for r in trace.ranges:
        text = "unknown" if r.name == _MISSING else r.name
        if text not in codes:
            codes[text] = len(names)
            names.append(text)
    count = len(trace.ranges)
    is_launch = np.array([_is_launch(n) for n in trace.names], dtype=bool)[trace.runtime.name]
    launches = np.flatnonzero(is_launch & np.isfinite(trace.runtime.start))
    launches = launches[np.argsort(trace.runtime.start[launches], kind="stable")]
    runtime = trace.runtime
    start, correlation = np.arange(float(count)), np.full(count, -1, dtype=np.int64)
    if len(launches) == count:
        start = runtime.start[launches]
        numbered = np.full(len(runtime), -1, dtype=np.int64)
        numbered[launches] = correlation = np.arange(count)
        runtime = replace(runtime, correlation=numbered)
    which = [codes["unknown" if r.name == _MISSING else r.name] for r in trace.ranges]
    none = np.zeros(count, dtype=np.int32)
    name = np.array(which, dtype=np.int32)
    device = Spans(start, np.zeros(count), name, none, none, correlation)
    sizes = [Sizes((0, 0, 0), 0, 0.0, 0, 0, 0, 0.0, "kernel")]
    return replace(trace, runtime=runtime, device=device, names=names, sizes=sizes)


def _is_launch(name: str) -> bool:
    return "LaunchKernel" in name or "LaunchCooperativeKernel" in name


def with_counters(w: Workload, ranges: list[Range], rows: Codes) -> Workload:
    """Return a workload with the counters of its operations.

    Parameters
    ----------
    w : Workload
    ranges : list of Range
    rows : array, shape (K,)
        The range of each operation.
    """
    counters = {}
    for name, letter in _FLOP.items():
        values = np.array([_flop(r, letter) for r in ranges])[rows]
        if not np.isnan(values).all():
            counters[name] = values
    known = {p + f"{letter}{op}_pred_on.sum" for p in _PREFIX for letter in "hfd"
             for op in ("add", "mul", "fma")}  # fmt: skip
    unknown = sorted({c for r in ranges for c in r.counters} - known)
    meta = {**w.meta, "measured": False, "metrics_unknown": unknown,
            "note": "counters of CUPTI ranges: kernels have no times"}  # fmt: skip
    return Workload(w.name, w.columns, w.labels, w.steps, w.edges, meta, counters, w.host)


def _flop(r: Range, letter: str) -> float:
    """Return arithmetic from instruction counts: an FMA is two."""
    for prefix in _PREFIX:
        names = [f"{prefix}{letter}{op}_pred_on.sum" for op in ("add", "mul", "fma")]
        if all(name in r.counters for name in names):
            add, mul, fma = (r.counters[name] for name in names)
            return add + mul + 2 * fma
    return float("nan")
