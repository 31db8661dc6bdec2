"""Work a joule of machines, and what fewer matrix units and less bandwidth bring: Markdown tables.

PYTHONPATH=.:benchmarks python benchmarks/efficiency.py

The tables of docs/efficiency.md. TFLOP/s a watt are those of a bf16 product of 8192 x 8192 x 8192
that is repeated, at the clock that the power limit leaves; a page of DeepSeek-OCR is its vision
encoder, prompt and 64 tokens with grouped experts.
"""

import numpy as np
from energy import step_of

import npusim as ns
from npusim.arch import with_value

PAGE = {"deepseek_ocr_vision": 1, "deepseek_ocr_prefill": 1, "deepseek_ocr_decode_grouped": 64}
MACHINES = (("a100", "graph"), ("h100", "eager"), ("h100", "graph"), ("h100", "queue"),
            ("h200", "graph"), ("decode_npu", "graph"), ("decode_npu", "queue"))  # fmt: skip
HALF = "half of the matrix units"
CHANGES = {
    "as it is": {},
    HALF: {"matrix": 0.5},
    "a quarter of the matrix units": {"matrix": 0.25},
    "two thirds of the bandwidth": {"memories.dram.bandwidth": 2 / 3},
    "half of the units": {"units.count": 0.5},
    "half of the matrix units, two thirds of the bandwidth":
        {"matrix": 0.5, "memories.dram.bandwidth": 2 / 3},
    "90 % of the clocks of idle blocks gated": {"gating.clocks": 0.9},
    "70 % of the clock": {"units.clock": 0.7},
    "its products in fp8": {"workload.arithmetic": "fp8_e4m3"},
}  # fmt: skip


def changed(arch, changes):
    """Return a machine with numbers multiplied; gating is set."""
    for path, by in changes.items():
        if path == "matrix":
            for one in [p for p in arch.values if p.startswith("matrix.") and p.endswith(".rate")]:
                arch = with_value(arch, one, arch[one] * by)
        elif path.startswith("gating."):
            arch = with_value(arch, path, by)
        elif not path.startswith("workload."):
            arch = with_value(arch, path, round(arch[path] * by, 6))
    return arch


def page(arch, launch, changes):
    """Return time, energy with its ends, and FLOP of a page."""
    total = np.zeros(4)
    flop = 0.0
    for name, times in PAGE.items():
        w = ns.load_workload(name)
        work = {p: v for p, v in changes.items() if p.startswith("workload.")}
        if work:
            from npusim.transforms import applies, transformed  # noqa: PLC0415
            from npusim.units import parse  # noqa: PLC0415

            work = {p: parse(v, "arithmetic") for p, v in work.items() if applies(w, p)}
            w = transformed(w, work)
        r = ns.replay(w, arch, launch)
        total += times * np.array([r.wall_s, r.energy_j, *r.energy_band_j])
        flop += times * float(w["flop"].sum()) / len(w.steps)
    return total, flop


def product(arch):
    """Return TFLOP/s, watts and clock of a repeated product, and TFLOP/s a watt with its ends."""
    w = step_of("gemm_bf16")
    r = ns.replay(w, arch, "graph")
    flop = float(w["flop"].sum())
    low, high = r.energy_band_j
    return (flop / r.wall_s / 1e12, r.power_w, r.clock_share,
            *(flop / joules / 1e12 for joules in (r.energy_j, high, low)))  # fmt: skip


def machines():
    print("| machine | launch | product [TFLOP/s] | board [W] | clock | [TFLOP/s/W] | page [ms] | "
          "page [J] | useful GFLOP/J |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for name, launch in MACHINES:
        arch = ns.load_arch(name)
        rate, watts, clock, each, low, high = product(arch)
        (wall, joules, least, most), flop = page(arch, launch, {})
        of_page = f"{wall * 1e3:.0f} | {joules:.1f} ({least:.1f}-{most:.1f})"
        print(f"| {name} | {launch} | {rate:.0f} | {watts:.0f} | {clock:.0%} | {each:.2f} "
              f"({low:.2f}-{high:.2f}) | {of_page} | {flop / joules / 1e9:.0f} |")  # fmt: skip


def ablations(name, launch):
    base = ns.load_arch(name)
    print(f"| {name}, {launch} | [TFLOP/s/W] | page [ms] | page [J] | work a joule | die [mm2] |\n"
          "|---|---|---|---|---|---|")  # fmt: skip
    (_, reference, _, _), _ = page(base, launch, {})
    for label, changes in CHANGES.items():
        arch = changed(base, changes)
        each = "" if "workload.arithmetic" in changes else f"{product(arch)[3]:.2f}"
        (wall, joules, _, _), _ = page(arch, launch, changes)
        area = ns.replay(ns.load_workload("paddleocr_vl_decode"), arch, "graph").area_mm2
        print(f"| {label} | {each} | {wall * 1e3:.0f} | {joules:.1f} | {reference / joules:.2f} | "
              f"{area:.0f} |")  # fmt: skip


if __name__ == "__main__":
    machines()
    print()
    ablations("h100", "graph")
    print()
    ablations("decode_npu", "queue")
