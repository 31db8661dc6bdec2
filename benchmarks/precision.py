"""What precision costs and brings: the axis of the H200, casts, types of products, conversion.

PYTHONPATH=. python benchmarks/precision.py [AXES.json] [SUMMARY.csv]

Prints the Markdown tables of docs/precision.md. Only the first two are held against measurements;
no traced step computes in 8 or 4 bits. Given the axes of another capture it prints the first table
of those, and given the kernel summary of an nsys profile (``nsys stats --report cuda_gpu_kern_sum
--format csv``) what share of it are casts.
"""

import csv
import json
import sys
from pathlib import Path

import calibrate_machines
import numpy as np

import npusim as ns
from npusim.arch import Arch, Designs, with_value
from npusim.measured.experiments import read_axes
from npusim.measured.period import predicted
from npusim.transforms import applies, transformed
from npusim.units import CHOICES
from npusim.workload import Workload

AXES = Path(__file__).parent.parent / "workloads" / "experiments" / "h200_axes.json"
ASKED = 0.10
STEPS = (
    "paddleocr_vl_decode", "paddleocr_vl_decode_b32", "paddleocr_vl_prefill", "paddleocr_vl_vision",
    "deepseek_ocr_decode", "deepseek_ocr_decode_grouped", "deepseek_ocr_prefill",
    "deepseek_ocr_vision",
)  # fmt: skip
TYPED = ("paddleocr_vl_decode", "deepseek_ocr_decode_grouped", "paddleocr_vl_prefill")
RATES = (128.0, 64.0, 32.0, 16.0, 8.0)
TO_FP32, TO_BF16 = "direct_copy_kernel_cuda", "bfloat16_copy_kernel_cuda"


def axis(axes: Path = AXES) -> str:
    """Return the measured products of the axis: times, errors, and how fp8 compares to bf16."""
    numbers = [
        i for i, row in enumerate(json.loads(axes.read_text()), 1) if row["axis"] == "precision"
    ]
    table = read_axes(axes)
    table = table.take(np.isin(table.row, numbers))
    o, said = table.operations, predicted(table, Designs(ns.load_arch("h200")))[:, 0]
    error = said / table.seconds - 1
    lines = [
        "| m | n = k | fp8 [µs], said | error | bf16 [µs], said | error | fp8 / bf16, said |",
        "|---|---|---|---|---|---|---|",
    ]
    ratios = []
    for a, b in zip(*(np.flatnonzero(o.dtype == t) for t in ("fp8", "bf16")), strict=True):
        cells = [
            f"{table.seconds[i] * 1e6:.2f}, {said[i] * 1e6:.2f} | {error[i]:+.1%}" for i in (a, b)
        ]
        ratio = table.seconds[a] / table.seconds[b], said[a] / said[b]
        ratios.append(ratio[1] / ratio[0] - 1)
        lines.append(
            f"| {o['m'][a]} | {o['n'][a]} | {' | '.join(cells)} | {ratio[0]:.2f}, {ratio[1]:.2f} |"
        )
    for what, errors in (("times", error), ("ratios", np.array(ratios))):
        e = np.abs(errors)
        lines.append(
            f"\n{what}: median {np.median(e):.1%}, worst {e.max():.1%}, "
            f"{(e <= ASKED).sum()} of {len(e)} within {ASKED:.0%}"
        )
    if axes == AXES:
        held = np.isin(table.row, calibrate_machines.h200_tables()[1][0].row)
        e = np.abs(error[held])
        lines.append(
            f"\nof these no fit saw {held.sum()} times: median {np.median(e):.1%}, worst "
            f"{e.max():.1%}, {(e <= ASKED).sum()} within {ASKED:.0%}"
        )
    return "\n".join(lines) + "\n"


def casts() -> str:
    """Return what casts take of each shipped trace, and what a step gains without them."""
    npu = ns.load_arch("decode_npu")
    plain = with_value(npu, "fusion.chain", 0.0)  # its fusion engine takes casts in as well
    machines = ((ns.load_arch("h200"), "graph"), (plain, "queue"), (npu, "queue"))
    lines = [
        "| trace | casts a step | share of launches | share of kernel time | "
        "H200, graph [ms] | decode_npu without fusion, queue [ms] | decode_npu, queue [ms] |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in STEPS:
        w = ns.load_workload(name)
        cast = w.mask("kind", "cast")
        time = w["duration_s"]
        folded = transformed(w, {"workload.casts": 0}) if applies(w, "workload.casts") else w
        cells = []
        for arch, launch in machines:
            before, after = (ns.replay(v, arch, launch).wall_s for v in (w, folded))
            cells.append(f"{before * 1e3:.2f} → {after * 1e3:.2f} ({after / before - 1:+.1%})")
        left = folded.mask("kind", "cast").sum() / len(w.steps)
        lines.append(
            f"| {name} | {cast.sum() / len(w.steps):.0f}, {left:.0f} stay | {cast.mean():.1%} | "
            f"{time[cast].sum() / time.sum():.1%} | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def profiled(path: Path) -> str:
    """Return the share of casts in the kernel summary of a profile."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    total = sum(float(r["Total Time (ns)"]) for r in rows)
    of = {
        what: sum(float(r["Total Time (ns)"]) for r in rows
                  if what in r["Name"] and r["Name"].startswith(kernels))
        for what, kernels in (
            (TO_FP32, "void at::native::unrolled_elementwise_kernel"),
            (TO_BF16, "void at::native::vectorized_elementwise_kernel"),
        )
    }  # fmt: skip
    told = ", ".join(f"{what} {t / total:.1%}" for what, t in of.items())
    return f"{path.name}: {told}, together {sum(of.values()) / total:.1%} of kernel time\n"


def settings() -> list[dict[str, float]]:
    """Return what is asked of products, one row of the table each."""
    fp8, int4 = (float(CHOICES["arithmetic"].index(t)) for t in ("fp8_e4m3", "int4"))
    native = {"workload.quantize": 1.0}
    rows = {"workload.scales": 1.0}
    return [
        {},
        {"workload.weight_bits": 8},
        {"workload.weight_bits": 4, "workload.weight_group": 128},
        {"workload.arithmetic": fp8},
        {"workload.arithmetic": fp8, **rows},
        {"workload.arithmetic": fp8, **native},
        {"workload.arithmetic": fp8, "workload.weight_bits": 4, "workload.weight_group": 128,
         **native},
        {"workload.arithmetic": int4, **native},
    ]  # fmt: skip


def types() -> str:
    """Return what steps take with products in other types, in ms of wall time."""
    machines = ((ns.load_arch("h200"), "graph"), (ns.load_arch("decode_npu"), "queue"))
    head = [f"{w}, {a.name}" for w in TYPED for a, _ in machines]
    lines = ["| changed | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for asked in settings():
        cells = []
        for name in TYPED:
            w = transformed(ns.load_workload(name), asked)
            for arch, launch in machines:
                has = asked.get("workload.arithmetic", 0) < 6 or "matrix.int4.rate" in arch.values
                cells.append(f"{ns.replay(w, arch, launch).wall_s * 1e3:.2f}" if has else "no rate")
        lines.append(f"| {told(asked)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def told(asked: dict[str, float]) -> str:
    """Return settings by name."""
    names = {p: CHOICES[p.rsplit(".", 1)[-1]] for p in asked if p.rsplit(".", 1)[-1] in CHOICES}
    text = [f"`{p.split('.')[1]}={names[p][int(v)] if p in names else f'{v:g}'}`"
            for p, v in asked.items()]  # fmt: skip
    return " ".join(text) or "nothing"


def conversion() -> str:
    """Return what steps with weights of 8 and 4 bits take by how fast these are widened."""
    machines = ((ns.load_arch("h200"), "graph"), (ns.load_arch("decode_npu"), "queue"))
    lines = [
        "| step, weights | machine | free | " + " | ".join(f"{r:.0f}" for r in RATES) + " |",
        "|---" * (3 + len(RATES)) + "|",
    ]
    for name in ("paddleocr_vl_decode", "paddleocr_vl_decode_b32", "deepseek_ocr_decode"):
        for bits, group in ((8, 0), (4, 128)):
            asked = {"workload.weight_bits": bits, "workload.weight_group": group}
            w = transformed(ns.load_workload(name), asked)
            for arch, launch in machines:
                cells = [f"{wall(w, without(arch), launch):.2f}"]
                cells += [
                    f"{wall(w, with_value(arch, 'conversion.rate', r), launch):.2f}" for r in RATES
                ]
                lines.append(f"| {name}, {bits} bits | {arch.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def wall(w: Workload, arch: Arch, launch: str) -> float:
    """Return the wall time of a step [ms]."""
    return ns.replay(w, arch, launch).wall_s * 1e3


def without(arch: Arch) -> Arch:
    """Return a machine that widens weights as fast as they come."""
    return with_value(arch, "conversion.rate", 1e6)


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    if not given:
        for make in (axis, casts, types, conversion):
            print(make())
    for path in given:
        print(axis(path) if path.suffix == ".json" else profiled(path))
