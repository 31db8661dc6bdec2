"""What the fusion engine predicts beside what was measured, and what it brings: Markdown tables.

PYTHONPATH=. python benchmarks/fusion.py [AXES.json ...]

The tables of docs/fusion.md. AXES.json are files of ``npusim capture experiments``; by default
that of workloads/experiments.
"""

import json
import sys
from pathlib import Path

import npusim as ns
from npusim.arch import with_value
from npusim.fusion.chains import Limits
from npusim.fusion.program import fused
from npusim.fusion.summary import summary
from npusim.measured.patterns import pattern
from npusim.transforms import transformed

LONG = Limits(64)
# Slots of the static cache; kernels, device time and wall time of the compiled step on an H200.
COMPILED = {
    "paddleocr_vl_decode": (691, 367, 1.240e-3, 1.356e-3),
    "deepseek_ocr_decode_grouped": (1088, 364, 1.331e-3, 1.448e-3),
}
STEPS = ("deepseek_ocr_decode", "deepseek_ocr_decode_grouped", "paddleocr_vl_decode",
         "deepseek_ocr_prefill", "deepseek_ocr_vision", "paddleocr_vl_vision")  # fmt: skip


def period_us(w):
    h200 = ns.load_arch("h200")
    r = ns.replay(w, h200, "graph")
    return (r.device_busy_s + r.launches * h200["launch.graph.interval"]) * 1e6


def pairs(axes):
    rows = [r for r in json.loads(Path(axes).read_text()) if r["axis"] == "fusion"]
    print("| expression | tokens | eager: predicted, measured [us] | fused: predicted, measured |\n"
          "|---|---|---|---|")  # fmt: skip
    for r in rows:
        w = pattern(r["pattern"], r["tokens"])
        cells = []
        for one, measured in ((w, r["eager_graph_us"]), (fused(w, LONG), r["fused_graph_us"])):
            us = period_us(one)
            cells.append(f"{us:.2f}, {measured:.2f} ({us / measured - 1:+.0%})")
        print(f"| {r['pattern']} | {r['tokens']} | {cells[0]} | {cells[1]} |")


def compiled():
    print("| step | recompute, side by side | kernels | device busy [ms] | wall [ms] |\n"
          "|---|---|---|---|---|")  # fmt: skip
    for name, (slots, kernels, busy, wall) in COMPILED.items():
        w = transformed(ns.load_workload(name), {"workload.static_cache": slots})
        for again, beside in ((0, 0), (30, 0), (0, 1), (30, 1), (30, 2)):
            engine = {"chain": 64.0, "recompute": float(again), "side_by_side": float(beside)}
            h200 = ns.load_arch("h200")
            for path, value in engine.items():
                h200 = with_value(h200, f"fusion.{path}", value)
            r = ns.replay(w, h200, "graph")
            cells = [f"{got:.{n}f}, {was:.{n}f} ({got / was - 1:+.1%})" for n, got, was in (
                (0, r.launches, kernels), (3, r.device_busy_s * 1e3, busy * 1e3),
                (3, r.wall_s * 1e3, wall * 1e3))]  # fmt: skip
            print(f"| {name} | {again}, {beside} | {cells[0]} | {cells[1]} | {cells[2]} |")


def brings():
    npu = ns.load_arch("decode_npu")
    lengths = (0, 2, 4, 8, 12, 16, 32)
    print("| step, hardware queue | " + " | ".join(map(str, lengths)) + " |\n"
          "|---|" + "---|" * len(lengths))  # fmt: skip
    for name in STEPS:
        w = ns.load_workload(name)
        found = [ns.replay(w, with_value(npu, "fusion.chain", float(n)), "queue") for n in lengths]
        cells = [f"{r.wall_s * 1e3:.3g} ms, {r.launches:.0f}" for r in found]
        print(f"| {name} | " + " | ".join(cells) + " |")


def shares():
    print("| step | operations in chains | their measured time, of the device's | left of "
          "activations |\n|---|---|---|---|")  # fmt: skip
    for name in STEPS:
        w = ns.load_workload(name)
        s = summary(w, Limits(16))
        covered = sum(u.times * len(u.operators) for u in s.uses)
        spent = sum(u.measured_s for u in s.uses) / (w["duration_s"].sum() / len(w.steps))
        print(f"| {name} | {covered:.0f} of {s.operations:.0f} ({covered / s.operations:.0%}) | "
              f"{spent:.0%} | {s.left_bytes / s.activation_bytes:.0%} |")  # fmt: skip


if __name__ == "__main__":
    for file in sys.argv[1:] or ["workloads/experiments/h200_fused_axes.json"]:
        print(file)
        pairs(file)
    compiled()
    brings()
    shares()
