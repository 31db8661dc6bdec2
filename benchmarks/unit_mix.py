"""Matrix, vector and special-function units of the decode NPU: what each brings to a page.

PYTHONPATH=. python benchmarks/unit_mix.py

Prints the Markdown tables of docs/unit_mix.md: steps and a page of DeepSeek-OCR with other units,
how much of each unit a step would use, the most that any such unit could bring, and how close
kernels measured on an H200 come to its special unit. Nothing of the NPU is measured.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

import npusim as ns
from npusim.arch import Arch, Designs, with_value
from npusim.durations import durations
from npusim.fusion.program import program
from npusim.lanes import replay
from npusim.library import ROUTINES
from npusim.models.special import evaluations
from npusim.utilisation import UNITS, utilisation
from npusim.workload import Workload

EXPERIMENTS = Path(__file__).resolve().parents[1] / "workloads" / "experiments"
TRACES = {"vision": "deepseek_ocr_vision", "prefill": "deepseek_ocr_prefill",
          "decode": "deepseek_ocr_decode_grouped"}  # fmt: skip
PAGE = {"vision": 1, "prefill": 1, "decode": 64}
MS = 1e3
Changes = Mapping[str, float | str]

WITHOUT: Changes = {"special.whole": 0.0}
MIXES: tuple[tuple[str, Changes], ...] = (
    ("as it is: matrix 2048, vector 256, special 64, whole", {}),
    ("matrix rates halved", {"matrix": 0.5}),
    ("matrix rates doubled", {"matrix": 2.0}),
    ("vector rate doubled", {"vector.fp32.rate": 512.0}),
    ("matrix rates halved, vector rate doubled", {"matrix": 0.5, "vector.fp32.rate": 512.0}),
    ("special 16, whole", {"special.rate": 16.0}),
    ("special 256, whole", {"special.rate": 256.0}),
    ("special 16, single functions", {**WITHOUT, "special.rate": 16.0}),
    ("special 64, single functions", WITHOUT),
    ("special 256, single functions", {**WITHOUT, "special.rate": 256.0}),
    ("all functions on the vector lanes", {**WITHOUT, "special.place": "vector"}),
)


def changed(arch: Arch, changes: Changes) -> Arch:
    """Return a machine with some parameters set; ``matrix`` scales all its matrix rates."""
    for path, value in changes.items():
        if path != "matrix":
            arch = with_value(arch, path, value)
            continue
        for rate in [p for p in arch.values if p.startswith("matrix.") and p.endswith(".rate")]:
            arch = with_value(arch, rate, arch[rate] * float(value))
    return arch


def without_instructions(arch: Arch) -> Arch:
    """Return a machine on which routines and arithmetic on lanes take no time at all.

    No mix of vector and special units brings more: floors, chains, transfers and products stay.
    """
    free = {f"library.{r}.{n}": 0.0 for r in ROUTINES for n in ("element", "block")}
    free = {path: value for path, value in free.items() if path in arch.values}
    return changed(arch, {**free, "vector.fp32.rate": 1e9, "special.rate": 1e9})


def walls(arch: Arch, steps: Mapping[str, Workload], launch: str) -> dict[str, float]:
    """Return the wall time of each step, and of a page of them [s]."""
    found = {name: ns.replay(step, arch, launch).wall_s for name, step in steps.items()}
    found["page"] = sum(found[name] * count for name, count in PAGE.items())
    return found


def of_mixes(arch: Arch, steps: Mapping[str, Workload], launch: str) -> str:
    """Return a table of steps and a page with other units."""
    mixes = [(title, changed(arch, changes)) for title, changes in MIXES]
    mixes.append(("the most: no instruction takes any time", without_instructions(arch)))
    lines = ["| units, " + launch + " launch | vision [ms] | prefill [ms] | decode [ms] "
             "| page [ms] | page |", "|---|---|---|---|---|---|"]  # fmt: skip
    base = walls(arch, steps, launch)
    for title, machine in mixes:
        found = walls(machine, steps, launch)
        cells = " | ".join(f"{found[name] * MS:.3f}" for name in (*PAGE, "page"))
        lines.append(f"| {title} | {cells} | {found['page'] / base['page'] - 1:+.1%} |")
    return "\n".join(lines) + "\n"


def of_shares(arch: Arch, steps: Mapping[str, Workload], launch: str) -> str:
    """Return a table of the share of a step in which each unit would be at work."""
    lines = [f"| {arch.name}, {launch} launch | " + " | ".join(UNITS) + " |",
             "|---|" + "---|" * len(UNITS)]  # fmt: skip
    designs = Designs(arch)
    for name, step in steps.items():
        ran = program(step, designs, launch, "model")
        time = durations(ran, designs)
        found = utilisation(ran, designs, time, replay(ran, designs, time, launch).wall_s)
        cells = (f"{found[unit][0]:.2%}" if unit in found else "" for unit in UNITS)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def of_measured() -> str:
    """Return a table of the special functions a clock and unit that an H200 was measured at."""
    h200 = ns.load_arch("h200")
    clocks = h200["units.count"] * h200["units.clock"]
    w = ns.load_workload(EXPERIMENTS / "h200_routines.parquet")
    rate = evaluations(w.operations()) / w["duration_s"] / clocks
    lines = ["| measured on an H200 | kernels | functions a clock and unit, at most | of 16 |",
             "|---|---|---|---|"]  # fmt: skip
    for title, rows in _groups(w):
        at = np.flatnonzero(rows)
        lines.append(row_of(title, len(at), float(rate[at].max())))
    axes = json.loads((EXPERIMENTS / "h200_axes.json").read_text())
    rows = [r for r in axes if r["axis"] == "prefill_attention"]
    most = max(r["h"] * (r["s"] ** 2 + r["s"]) / (r["us_per_op"] * 1e-6 * clocks) for r in rows)
    return "\n".join([*lines, row_of("attention, prefill (cuDNN)", len(rows), most)]) + "\n"


def _groups(w: Workload) -> Iterable[tuple[str, np.ndarray]]:
    for operator in ("sigmoid", "silu", "gelu", "cos", "_softmax"):
        rows = w.mask("operator", f"aten::{operator}")
        yield operator.lstrip("_"), rows & (evaluations(w.operations()) > 0)


def row_of(title: str, count: int, most: float) -> str:
    """Return a line of the table of measurements."""
    return f"| {title} | {count} | {most:.2f} | {most / 16:.0%} |"


if __name__ == "__main__":
    npu = ns.load_arch("decode_npu")
    traced = {name: ns.load_workload(trace) for name, trace in TRACES.items()}
    fused = {name: ns.template("deepseek_ocr", name, lowering="npu") for name in TRACES}
    apart = with_value(npu, "fusion.chain", 0.0)
    for launch in ("graph", "queue"):
        print("kernels as traced, no fusion engine\n\n" + of_mixes(apart, traced, launch))
    print("kernels as traced, fusion engine\n\n" + of_mixes(npu, traced, "queue"))
    print("kernels of lowering npu, no fusion engine\n\n" + of_mixes(apart, fused, "queue"))
    print(of_shares(apart, traced, "graph"))
    print(of_shares(apart, fused, "queue"))
    print(of_shares(ns.load_arch("h200"), traced, "graph"))
    print(of_measured())
