"""Parallelism and latency hiding: what occupancy is and why, and what decode gains from more of it.

PYTHONPATH=. python benchmarks/occupancy.py [NCU.csv.gz ...]

Prints the Markdown tables of docs/occupancy.md: first those of the raw pages of Nsight Compute that
are named, then those of the decode NPU, which nobody measured.
"""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

import npusim as ns
from npusim.arch import Arch, Designs, with_value
from npusim.models.occupancy import Occupancy, occupancy
from npusim.reuse import alone
from npusim.transforms import transformed
from npusim.workload import Operations

PAGE = {"deepseek_ocr_vision": 1, "deepseek_ocr_prefill": 1, "deepseek_ocr_decode": 64}
STEP = "deepseek_ocr_decode_grouped"
UNITS = (40, 60, 70, 80, 132)
# What one unit has, beside the caches that all of them share.
RATES = ("matrix.fp16.rate", "matrix.bf16.rate", "matrix.fp8.rate", "matrix.int8.rate",
         "matrix.int4.rate", "vector.fp32.rate", "special.rate", "units.load_rate",
         "units.miss_rate", "memories.dram.in_flight", "gemv.lanes", "gemv.width")  # fmt: skip
LIMITS = {"threads": "warps", "blocks": "blocks", "registers": "registers",
          "shared_memory": "shared_mem"}  # fmt: skip
MS = 1e3


def kernels(path: Path) -> pd.DataFrame:
    """Return launch, limits, occupancy (shares) and duration [s] of the kernels of a raw page."""
    page = pd.read_csv(path, low_memory=False)
    units, page = page.iloc[0], page.iloc[1:]

    def number(name: str) -> pd.Series:
        text = page[name].astype(str).str.replace(",", "")
        scale = {"Kbyte": 1e3, "us": 1e-6, "%": 1e-2}
        return pd.to_numeric(text) * scale.get(str(units[name]).split("/")[0], 1.0)

    shared = (number(f"launch__shared_mem_per_block_{how}") for how in ("static", "dynamic"))
    return pd.DataFrame({
        "kernel": page["Kernel Name"],
        "blocks": number("launch__grid_size"), "threads": number("launch__block_size"),
        "registers": number("launch__registers_per_thread"), "shared_memory": sum(shared),
        "configured": number("launch__shared_mem_config_size"),
        **{ours: number(f"launch__occupancy_limit_{theirs}") for ours, theirs in (
            (f"limit_{k}", v) for k, v in LIMITS.items())},
        "theory": number("sm__maximum_warps_per_active_cycle_pct"),
        "achieved": number("sm__warps_active.avg.pct_of_peak_sustained_active"),
        "duration_s": number("gpu__time_duration.sum"),
    }).reset_index(drop=True)  # fmt: skip


def held(launched: pd.DataFrame | ns.Workload, arch: Arch) -> Occupancy:
    """Return what the model says of the launches of a page or a trace."""
    columns = {c: np.asarray(launched[c])
               for c in ("blocks", "threads", "registers", "shared_memory")}  # fmt: skip
    none = np.array([""] * len(launched), dtype=object)
    far = np.full(len(launched), np.inf)
    return occupancy(Operations(none, none, none, none, columns, alone(far, far, far)),
                     Designs(arch))  # fmt: skip


def agreement(page: pd.DataFrame, arch: Arch) -> dict[str, int]:
    """Return how many kernels agree in each limit, and in the blocks and warps that are held.

    The driver gives shared memory no more than a kernel needs (``configured``), which its limit
    goes by; what is held goes by all that there is.
    """
    found, per_warp = held(page, arch), 32.0 / arch["units.threads"]
    same = {k: found.limits[k][:, 0] == page[f"limit_{k}"] for k in LIMITS if k != "shared_memory"}
    asked = np.ceil((page["shared_memory"] + 1024) / 128) * 128
    same["shared_memory"] = np.floor(page["configured"] / asked) == page["limit_shared_memory"]
    warps = np.ceil(page["threads"] / 32)
    resident = page[[f"limit_{k}" for k in LIMITS]].min(axis=1)
    same["resident"] = found.resident[:, 0] == resident
    same["theory"] = np.isclose(found.resident[:, 0] * warps * per_warp, page["theory"])
    return {name: int(agrees.sum()) for name, agrees in same.items()}


def of_grids(page: pd.DataFrame, arch: Arch) -> dict[str, float]:
    """Return mean occupancy measured, in theory, by the grid, each also weighted by time."""
    found = held(page, arch)
    warps = np.ceil(page["threads"] / 32) * 32.0 / arch["units.threads"]
    page = page.assign(law=found.blocks[:, 0] * warps, grid=found.decides[:, 0] == "grid")
    time = page["duration_s"] / page["duration_s"].sum()
    shares = {name: (page[name].mean(), (page[name] * time).sum())
              for name in ("achieved", "law", "theory", "grid")}  # fmt: skip
    return {f"{name}{how}": float(value) for name, pair in shares.items()
            for how, value in zip(("", " by time"), pair, strict=True)} | {
        "correlation": float(np.corrcoef(page["law"], page["achieved"])[0, 1]),
        "one wave": float((page["blocks"] <= arch["units.count"]).mean()),
    }  # fmt: skip


def measured(pages: list[Path]) -> str:
    """Return tables of raw pages of Nsight Compute on an H200."""
    arch, tables = ns.load_arch("h200"), [kernels(path) for path in pages]
    every = pd.concat(tables, ignore_index=True)
    lines = [f"{len(every)} kernels agree in: {agreement(every, arch)}", "",
             "| share | achieved | by the grid | in theory | grid decides | correlation |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    names = [*(path.name for path in pages), "all"]
    for name, page in zip(names, [*tables, every], strict=True):
        found = of_grids(page, arch)
        for how in ("", " by time"):
            cells = (found[f"{c}{how}"] for c in ("achieved", "law", "theory", "grid"))
            lines.append(f"| {name}{how} | " + " | ".join(f"{x:.1%}" for x in cells)
                         + f" | {found['correlation']:.3f} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def by_grid(arch: Arch) -> str:
    """Return the occupancy of shipped traces by their launches alone, on a machine."""
    lines = [
        "| trace | kernels with a grid | mean | by time | grid decides |",
        "|---|---|---|---|---|",
    ]
    for name in (*PAGE, STEP, "paddleocr_vl_decode", "paddleocr_vl_prefill"):
        w = ns.load_workload(name)
        found = held(w, arch)
        rows = ~np.isnan(found.blocks[:, 0])
        share = (
            found.blocks[rows, 0] * np.ceil(w["threads"][rows] / 32) * 32 / arch["units.threads"]
        )
        time = w["duration_s"][rows]
        lines.append(f"| {name} | {rows.sum()} | {share.mean():.1%} | "
                     f"{(share * time).sum() / time.sum():.1%} | "
                     f"{(found.decides[rows, 0] == 'grid').mean():.1%} |")  # fmt: skip
    return "\n".join(lines) + "\n"


@cache
def workload(name: str) -> ns.Workload:
    return ns.load_workload(name)


def changed(arch: Arch, changes: dict[str, float]) -> Arch:
    for path, value in changes.items():
        arch = with_value(arch, path, value)
    return arch


def cells(arch: Arch, settings: dict[str, float] | None = None) -> str:
    """Return the time of a page and of a decode step in a hardware queue, as cells [ms]."""

    def wall(name: str) -> float:
        w = workload(name)
        return ns.replay(transformed(w, settings) if settings else w, arch, "queue").wall_s

    page = sum(count * wall(name) for name, count in PAGE.items())
    return f"{page * MS:.1f} | {wall(STEP) * MS:.3f} |"


def of_units(arch: Arch) -> str:
    """Return a table of designs with other numbers of units."""
    lines = ["| units | page, rates a unit [ms] | step | page, rates in all [ms] | step |",
             "|---|---|---|---|---|"]  # fmt: skip
    for count in UNITS:
        own = {"units.count": float(count), "units.powered": float(count)}
        own["gemv.count"] = float(count)
        share = arch["units.count"] / count
        whole = own | {path: arch[path] * share for path in RATES if path in Designs(arch)}
        whole["gemv.width"] = max(whole["gemv.width"], 1.0)
        lines.append(f"| {count} | {cells(changed(arch, own))} {cells(changed(arch, whole))}")
    return "\n".join(lines) + "\n"


def of_machine(arch: Arch) -> str:
    """Return a table of designs with other pipelines and other bytes in flight."""
    flight = arch["memories.dram.in_flight"]
    lines = [
        "| changed | page [ms] | step [ms] | page, no GEMV unit | step |",
        "|---|---|---|---|---|",
    ]
    for changes in (
        {}, *({"gemm.stages": n} for n in (2.0, 3.0, 4.0, 8.0, 16.0)),
        *({"memories.dram.in_flight": flight * x} for x in (0.25, 0.5, 2.0)),
        *({"units.thread_in_flight": n} for n in (16.0, 32.0, 64.0)),
        {"units.thread_in_flight": 16.0, "units.registers": 16384.0},
        {"units.thread_in_flight": 16.0, "units.threads": 512.0},
    ):  # fmt: skip
        told = ", ".join(f"`{p}` {v:g}" for p, v in changes.items()) or "nothing"
        with_it = changed(arch, changes)
        without = with_value(with_it, "gemv.count", 0.0)
        lines.append(f"| {told} | {cells(with_it)} {cells(without)}")
    return "\n".join(lines) + "\n"


def of_blocks() -> str:
    """Return a table of larger blocks."""
    h200 = ns.load_arch("h200")
    npu = ns.with_value(ns.load_arch("decode_npu"), "fusion.chain", 0.0)
    lines = ["| block size x | page on decode_npu [ms] | step | page on h200 [ms] | step |",
             "|---|---|---|---|---|"]  # fmt: skip
    for times in (1.0, 2.0, 4.0, 8.0):
        settings = {"workload.block_scale": times}
        lines.append(f"| {times:g} | {cells(npu, settings)} {cells(h200, settings)}")
    return "\n".join(lines) + "\n"


def of_batches(arch: Arch) -> str:
    """Return a table of sequences one after another, merged by hardware, and in one batch."""
    lines = ["| step | sequences | each alone [us a token] | products merged | one batch |",
             "|---|---|---|---|---|"]  # fmt: skip
    for name in (STEP, "paddleocr_vl_decode"):
        w = workload(name)
        alone_s = ns.replay(w, arch, "queue").wall_s
        for n in (2, 4, 8, 16):
            times = (ns.replay(transformed(w, {path: float(n)}), arch, "queue").s_per_token
                     for path in ("workload.merged", "workload.batch"))  # fmt: skip
            merged, batch = (f"{(t or np.nan) * 1e6:.0f}" for t in times)
            lines.append(f"| {name} | {n} | {alone_s * 1e6:.0f} | {merged} | {batch} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:]:
        print(measured([Path(path) for path in sys.argv[1:]]))
    npu = ns.with_value(ns.load_arch("decode_npu"), "fusion.chain", 0.0)
    for machine in ("h200", "rtx_5090"):
        print(machine, by_grid(ns.load_arch(machine)), sep="\n\n")
    for text in (of_units(npu), of_machine(npu), of_blocks(), of_batches(npu)):
        print(text)
