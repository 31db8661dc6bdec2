"""Where the GEMV unit of the decode NPU wins and where it loses: rows, sizes, lanes, ports.

PYTHONPATH=. python benchmarks/gemv_unit.py

Prints Markdown tables, the first three for docs/models.md. Nothing here is measured: no machine
has such a unit.
"""

import npusim as ns
from npusim.arch import Arch, Designs, with_value
from npusim.measured.shapes import linear, operations
from npusim.models.gemm import gemm_cost
from npusim.models.gemv_unit import gemv_unit_cost
from npusim.workload import Workload

ROWS = (1, 2, 4, 8, 12, 16)
LAYERS = ((1280, 1280), (6848, 1280), (129280, 1280))
STEPS = ("deepseek_ocr_decode_grouped", "deepseek_ocr_decode", "paddleocr_vl_decode")
US = 1e6


def by_rows(arch: Arch, copies: int) -> str:
    """Return a table of both units, for weights of which so many operand sets are taken in turn."""
    wide = Designs(with_value(arch, "gemv.batch", 64.0))
    head = "| rows | " + " | ".join(f"{n} x {k}" for n, k in LAYERS) + " |\n|---|---|---|---|\n"
    lines = []
    for rows in ROWS:
        work = operations([linear("bf16", rows, n, k, copies=copies) for n, k in LAYERS])
        times = (cost(work, wide).time[:, 0] for cost in (gemv_unit_cost, gemm_cost))
        pairs = zip(*times, strict=True)
        cells = (f"{a * US:.2f}, {b * US:.2f}" + (" (loses)" if a >= b else "") for a, b in pairs)
        lines.append(f"| {rows} | " + " | ".join(cells) + " |")
    return head + "\n".join(lines) + "\n"


def of_steps(arch: Arch) -> str:
    """Return a table of decode steps with and without the unit."""
    lines = [
        "| step, hardware queue | without [ms] | with [ms] | floors: without, with | on the unit |",
        "|---|---|---|---|---|",
    ]
    for name in STEPS:
        w = ns.load_workload(name)
        without, with_it = step(w, with_value(arch, "gemv.count", 0.0)), step(w, arch)
        share = with_it.products["gemv_unit"] / sum(with_it.products.values())
        lines.append(
            f"| {name} | {without.wall_s * 1e3:.2f} | {with_it.wall_s * 1e3:.2f} | "
            f"{without.limits['floor']:.0%}, {with_it.limits['floor']:.0%} | {share:.0%} |"
        )
    return "\n".join(lines) + "\n"


def step(w: Workload, arch: Arch) -> ns.Result:
    """Return a step in a hardware queue."""
    return ns.replay(w, arch, "queue")


def of_designs(arch: Arch) -> str:
    """Return a table of the step of DeepSeek-OCR with other units."""
    w = ns.load_workload(STEPS[0])
    lines = ["| changed | step [ms] |", "|---|---|"]
    for changes in (
        {}, {"gemv.latency": 5e-8}, {"gemv.latency": 1e-6}, {"gemv.width": 32.0},
        {"gemv.width": 256.0}, {"gemv.port": 1.0}, {"gemv.port": 1.0, "gemv.width": 256.0},
        {"gemv.lanes": 32.0}, {"gemv.lanes": 8.0}, {"gemv.count": 35.0}, {"gemv.count": 8.0},
    ):  # fmt: skip
        changed = arch
        for path, value in changes.items():
            changed = with_value(changed, path, value)
        told = ", ".join(f"`{p}` {v:g}" for p, v in changes.items()) or "nothing"
        lines.append(f"| {told} | {step(w, changed).wall_s * 1e3:.3f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    npu = ns.load_arch("decode_npu")
    for text in (by_rows(npu, 1000), by_rows(npu, 1), of_steps(npu), of_designs(npu)):
        print(text)
