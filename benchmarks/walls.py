"""Wall times of steps: predictions beside measurements, for each way to launch.

PYTHONPATH=.:benchmarks python benchmarks/walls.py

Traces and walls of the H200 are read from ../shared/baselines; without them there is nothing to do.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

import npusim as ns
from npusim.arch import Designs
from npusim.durations import as_measured
from npusim.lanes import replay
from npusim.transforms import transformed

BASELINES = Path(__file__).resolve().parents[2] / "shared" / "baselines" / "h200"
REPLAYED = ("_graph", "_compiled")
BATCHES = {"paddleocr_vl_decode": "paddle", "deepseek_ocr_decode_grouped": "dsocr_grouped"}
FITTED = "dsocr_grouped_decode_b1_c1024_graph"  # gave the H200 its launch.graph.interval
SLOTS = 64  # of the static caches, more than the context
STATIC = (
    ("paddleocr_vl_decode", "paddle:decode:1:628", 628),
    ("paddleocr_vl_decode_b8", "paddle:decode:8:628", 628),
    ("paddleocr_vl_decode_b32", "paddle:decode:32:628", 628),
    ("deepseek_ocr_decode_grouped", "dsocr_grouped:decode:1:1024", 1024),
    ("deepseek_ocr_decode_grouped_b16", "dsocr_grouped:decode:16:1024", 1024),
)


class Row(NamedTuple):
    """A step: what was measured and predicted [s], and whether a parameter was fitted to it."""

    case: str
    measured: float
    predicted: float
    fitted: bool = False

    @property
    def error(self):
        return self.predicted / self.measured - 1


def walls():
    """Return the rows of wall.jsonl."""
    with (BASELINES / "wall.jsonl").open() as lines:
        return [json.loads(line) for line in lines]


def trace(name):
    """Import a trace of the baselines."""
    return ns.import_trace(BASELINES / "kineto" / name)


def carried(w, launch):
    """Return the wall of a replay whose device times are the measured ones [s]."""
    return float(replay(w, Designs(ns.load_arch("h200")), as_measured(w), launch).wall_s[0])


def _case(file):
    return file.removeprefix("kineto_").removesuffix(".json.gz")


def traced():
    """Return eager steps as they were traced: the bookkeeping of the host lane."""
    rows = []
    for file, _ in _eager():
        w = trace(file)
        rows.append(Row(_case(file), float(w.steps.wall_s.mean()), carried(w, "eager")))
    return rows


def unprofiled():
    """Return eager steps without the profiler, from the profiled trace of the same process."""
    return [
        Row(_case(file), wall["median_ms"] * 1e-3, carried(ns.unprofiled(trace(file)), "eager"))
        for file, wall in _eager()
    ]


def graphs():
    """Return graph replays, from the kernels of traced replays."""
    rows = []
    for wall in walls():
        file = wall.get("same_process_trace", "")
        if any(way in file for way in REPLAYED):
            case, told = _case(file), carried(trace(file), "graph")
            rows.append(Row(case, wall["graph_min_ms"] * 1e-3, told, case == FITTED))
    return rows


def best(case):
    """Return the least wall of a case's graph replays over all runs, which repeat to 1 % [s]."""
    found = [w["graph_min_ms"] for w in walls()
             if w["case"] == case and "graph_min_ms" in w and not w.get("compiled")]  # fmt: skip
    return min(found) * 1e-3


def static():
    """Return graph replays with a static cache, from eager steps whose cache grows."""
    rows = []
    for name, case, context in STATIC:
        w = transformed(ns.load_workload(name), {"workload.static_cache": context + SLOTS})
        told = ns.replay(w, ns.load_arch("h200"), "graph").wall_s
        rows.append(Row(f"{name}, {context + SLOTS} slots", best(case), told))
    return rows


def batches():
    """Return graph replays at other batches and a context of 1,024, from steps of one sequence."""
    rows = []
    for name, model in BATCHES.items():
        for batch in (1, 4, 16, 64):
            changes = {"workload.context": 1024, "workload.batch": batch,
                       "workload.static_cache": 1024 + SLOTS}  # fmt: skip
            w = transformed(ns.load_workload(name), changes)
            told = ns.replay(w, ns.load_arch("h200"), "graph").wall_s
            rows.append(Row(f"{name}, batch {batch}", best(f"{model}:decode:{batch}:1024"), told))
    return rows


def _eager():
    for wall in walls():
        file = wall.get("same_process_trace", "")
        if file and not any(way in file for way in REPLAYED):
            yield file, wall


SECTIONS = (
    (traced, "Eager steps as traced, profiler included", "2 % each", """
The host lane takes the host of the trace apart into work and waits, and the replay puts it together
again, device times as measured: this checks the bookkeeping and predicts nothing.
"""),
    (unprofiled, "The same without the profiler", "10 % median, 20 % worst", """
Measured without it in the same process (median of 40 steps). `host.record` for each recorded
operator comes from other models in other processes
(`workloads/experiments/h200_profiled_steps.json`); the first traced step is left out.
"""),
    (graphs, "Graph and compiled replays from their own kernels", "4 % each", """
Kernel times of the traced replays; launch costs from axis `graph_size`, but for
`launch.graph.interval`, which was fitted to one row; that one is not counted.
"""),
    (static, "Graph replays from eager steps", "12 % each", """
Kernel times of the model, on the eager step changed by `workload.static_cache` (782 kernels become
933, 957 become 1,036; the measured graphs hold 930 and 1,033, without the argmax).
"""),
    (batches, "Graph replays at another batch and context", "12 % each", """
The same from the eager step of one sequence, changed by `workload.batch`, `workload.context` and
`workload.static_cache`.
"""),
)  # fmt: skip


def report():
    """Yield the lines of the page."""
    for made, title, asked, how in SECTIONS:
        rows = made()
        errors = np.abs([r.error for r in rows if not r.fitted])
        yield f"### {title}"
        yield how.rstrip()
        yield f"Asked: {asked}. Seen: {np.median(errors):.1%} median, {errors.max():.1%} worst."
        yield ""
        yield "| step | measured | predicted | error |"
        yield "|---|---|---|---|"
        for r in rows:
            case = f"{r.case} (fitted to)" if r.fitted else r.case
            yield (
                f"| {case} | {r.measured * 1e3:.3f} ms | {r.predicted * 1e3:.3f} ms | "
                f"{r.error:+.1%} |"
            )
        yield ""


if __name__ == "__main__":
    if not BASELINES.is_dir():
        sys.exit(f"error: {BASELINES}: the traces are not there")
    for line in report():
        print(line)
