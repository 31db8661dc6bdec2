"""DRAM bytes of decode steps: counters of Nsight Compute beside the memory model, as Markdown.

PYTHONPATH=. python benchmarks/dram_counters.py

Reads ../shared/baselines/h200. A profiler that needs several passes over a kernel first saves all
memory that the kernel can reach (``profiler__replayer_bytes_mem_backed_up``: 4.0 and 12.3 GB), and
that copy goes through the last-level cache:

- ``dram_*`` (three passes, bytes of the first): caches are those that the copy leaves, emptied but
  for the end of it, in which 9 of 24 cache copies and 1 of 84 products of PaddleOCR-VL found their
  data. That is ``caches="cold"``. The code of a kernel is read too, 3 to 70 KB, which is most of
  what small kernels read and is not modelled.
- ``ncu_*`` (dozens of passes): each kernel finds its own data. That is ``caches="warm"``.
- One pass saves nothing: caches are those of the running step, ``caches="step"``. `ONE_PASS` is
  such a measurement.

Of what a kernel writes, next to nothing reaches DRAM before it ends; the rest is counted by nobody
where memory is saved, and as part of later kernels where it is not.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import npusim as ns
from npusim.arch import Designs
from npusim.kernel_match import align, numbered
from npusim.load import load_workload
from npusim.measured import read_axes
from npusim.measured.period import predicted
from npusim.models.hierarchy import Traffic
from npusim.models.kernel import kernel_time
from npusim.transforms import set_context

H200 = Path(__file__).resolve().parents[2] / "shared" / "baselines" / "h200"
CASES = {
    "paddleocr_vl_decode": "paddle_decode_b1_c628",
    "deepseek_ocr_decode": "dsocr_decode_b1_c1024",
}
GEMVS = (*CASES, "deepseek_ocr_decode_grouped", "deepseek_ocr_decode_grouped_b16")
GROUPS = ("weight products", "attention", "KV cache copies", "the rest")
PROTOCOLS = ("step", "cold", "warm")

# One pass (dram__bytes_read.sum, dram__bytes_write.sum; --cache-control none) over a fourth step in
# a row of 18 layers with the products, attention and growing cache of paddleocr_vl_decode at 636
# keys, random weights: H200, ncu 2025.3.1, driver 580.159.04, PyTorch 2.11, 2026-11. Its 379 other
# kernels are not those of the workload; its attention counts the combine. Bytes read [B].
ONE_PASS = dict(zip(GROUPS, (721.782e6, 0.127e6, 11.732e6, 0.574e6), strict=True))
ONE_PASS_WRITTEN = 22.426e6
ONE_PASS_KEYS = 636


@dataclass(frozen=True)
class Profile:
    """Profiled kernels, a row each: counters, measured times [us] and what the model says.

    Attributes
    ----------
    rows : DataFrame
        ``read``, ``written`` and ``profiled`` of the profile, ``traced``; for each of `PROTOCOLS`
        the predicted ``read_step``, ``written_step``, ``time_step`` and so on.
    kernels : int
        Kernels of the profile; those that the workload does not have have no row.
    keys : int
        Length of the context that was profiled.
    clock : float
        Median clock of the units [Hz], not-a-number if not counted.
    """

    rows: pd.DataFrame
    kernels: int
    keys: int
    clock: float


def group(w):
    """Return which of `GROUPS` each operation is in, shape (K,)."""
    found = np.full(len(w), GROUPS[3], dtype=object)
    found[w.mask("kind", "gemv", "gemm", "grouped_gemm") & (w["read_weight"] > 0)] = GROUPS[0]
    found[w.mask("kind", "attention")] = GROUPS[1]
    found[w.mask("kind", "cat") & (w["read_kv"] > 0)] = GROUPS[2]
    return found


def matched(w, profile):
    """Return the operations of the first step that were profiled, and the rows of the profile."""
    a, b = numbered(w, profile)
    rows = np.flatnonzero(w["step"] == 0)
    of, at = align(b, a[rows])  # the profile first: its kernels take the earliest places
    return rows[at], of


def keys(w, profile, at, of):
    """Return the context of a profile: the grid of copies of the cache grows with it."""
    copies = group(w)[at] == GROUPS[2]
    ratio = np.median(profile["blocks"][of[copies]] / w["blocks"][at[copies]])
    attends = w.mask("kind", "attention") & (w["step"] == 0)
    return int(np.rint(ratio * np.median(w["n"][attends])))


def profiled(name, kind):
    """Return the kernels of a profile (``dram`` or ``ncu``) of a workload."""
    traced = ns.load_workload(name)
    profile = load_workload(H200 / "ncu" / f"{kind}_{CASES[name]}.csv.gz")
    at, of = matched(traced, profile)
    context = keys(traced, profile, at, of)
    w = set_context(traced, context)
    found = {
        "group": group(w)[at], "kernel": w.text("kernel")[at],
        "m": w["m"][at], "n": w["n"][at], "k": w["k"][at],
        "weights": w["read_weight"][at],
        "read": profile.counters["dram_read"][of],
        "written": profile.counters["dram_write"][of],
        "profiled": profile["duration_s"][of] * 1e6,
        "traced": traced["duration_s"][at] * 1e6,
    }  # fmt: skip
    for caches in PROTOCOLS:
        found |= modelled(w, at, caches)
    clock = profile.counters.get("sm_clock", np.full(1, np.nan))
    return Profile(pd.DataFrame(found), len(profile), context, float(np.median(clock)))


def modelled(w, at, caches):
    """Return DRAM bytes and times of some operations under a protocol, on an H200."""
    designs = Designs(ns.load_arch("h200"))
    operations = w.renamed(w.name, caches=caches).operations(at)
    traffic = Traffic(operations, designs)
    return {
        f"read_{caches}": traffic.read("dram")[:, 0],
        f"written_{caches}": traffic.written("dram")[:, 0],
        f"time_{caches}": kernel_time(operations, designs)[:, 0] * 1e6,
    }


def sums(rows):
    """Return the sums of each group, and of all."""
    found = rows.groupby("group").sum(numeric_only=True).reindex(GROUPS, fill_value=0.0)
    found["count"] = rows.groupby("group").size().reindex(GROUPS, fill_value=0)
    found.loc["all"] = found.sum()
    return found


def running_step():
    """Return bytes read from DRAM in a whole step by group: measured in one pass, and predicted."""
    w = set_context(ns.load_workload("paddleocr_vl_decode"), ONE_PASS_KEYS)
    at = np.flatnonzero(w["step"] == 0)
    both = {**modelled(w, at, "step"), **modelled(w, at, "cold")}
    found = sums(pd.DataFrame({"group": group(w)[at], **both}))
    found["read"] = pd.Series(ONE_PASS)
    found.loc["all", "read"] = sum(ONE_PASS.values())
    return found


def gemvs():
    """Return weight products of traced steps beside cold ones of the same shape, times in us.

    A measured `F.linear` in a graph is its kernels and the interval behind each: so much is added
    to the traced kernels, and to the product the one that sums its parts.
    """
    axes = read_axes(H200 / "axes.json")
    reuse = axes.operations.reuse
    cold = np.isinf(reuse.windows[reuse.window["read_weight"][:, 0], 0])
    bf16 = axes.operations.dtype == "bf16"
    axes = axes.take((axes.op == "linear") & np.isnan(axes.units) & cold & bf16)
    designs = Designs(ns.load_arch("h200"))
    told = predicted(axes, designs)[:, 0] * 1e6
    shapes = [tuple(int(axes.operations[c][i]) for c in "mnk") for i in range(len(axes))]
    known = pd.DataFrame({"cold": axes.seconds * 1e6, "model": told},
                         index=pd.MultiIndex.from_tuples(shapes))  # fmt: skip
    known = known.groupby(level=[0, 1, 2]).median()
    between = designs["launch.graph.interval"] + designs["launch.graph.node"]
    interval = between[0] * 1e6
    found = []
    for name in GEMVS:
        rows = traced_products(ns.load_workload(name), designs, interval)
        rows.insert(0, "workload", name)
        joined = rows.join(known, on=["m", "n", "k"])
        joined.loc[joined.dtype != "bf16", ["cold", "model"]] = np.nan
        found.append(joined)
    return pd.concat(found, ignore_index=True)


def traced_products(w, designs, interval):
    """Return the median times of the weight products of a workload by shape [us]."""
    at = np.flatnonzero((group(w) == GROUPS[0]) & ~w.mask("kind", "grouped_gemm"))
    after = np.minimum(at + 1, len(w) - 1)
    split = w.mask("routine", "split")[at] & w.mask("kind", "splitk_reduce")[after]
    alone, behind = (w["duration_s"][rows] * 1e6 for rows in (at, after))
    behind = np.where(split, behind + interval, 0.0)
    rows = pd.DataFrame({
        "m": w["m"][at], "n": w["n"][at], "k": w["k"][at], "dtype": w.text("dtype")[at],
        "kernel": alone, "call": alone + interval + behind,
        "predicted": kernel_time(w.operations(at), designs)[:, 0] * 1e6,
    })  # fmt: skip
    by = rows.groupby(["m", "n", "k", "dtype"])
    found = by.median()
    found["count"] = by.size()
    return found.reset_index()


def error(predicted_, measured):
    """Return an error as text."""
    return f"{predicted_ / measured - 1:+.1%}" if measured > 0 else ""


def bytes_table(found):
    yield "| kernels | n | measured | emptied before each | error | running step | error |"
    yield "|---|---|---|---|---|---|---|"
    for name, r in found.iterrows():
        cold, step = (
            f"{told / 1e6:.2f} | {error(told, r.read)}" for told in (r.read_cold, r.read_step)
        )
        yield f"| {name} | {r['count']:.0f} | {r.read / 1e6:.2f} | {cold} | {step} |"


def worst_table(rows, count=8):
    yield "| kernel | n | measured a kernel, KB | emptied | off in all, MB |"
    yield "|---|---|---|---|---|"
    rows = rows.assign(off=rows.read_cold - rows.read, kernel=rows.kernel.str.slice(0, 60))
    by = rows.groupby("kernel").agg(n=("off", "size"), read=("read", "mean"),
                                    cold=("read_cold", "mean"), off=("off", "sum"))  # fmt: skip
    for name, r in by.sort_values("off", key=np.abs, ascending=False).head(count).iterrows():
        each = f"{r.read / 1e3:.1f} | {r.cold / 1e3:.1f}"
        yield f"| `{name.replace('|', '')}` | {r.n:.0f} | {each} | {r.off / 1e6:+.2f} |"


def warm_table(rows):
    """Yield bytes and durations of a warm replay; each profiled kernel takes its extra cost."""
    found, extra = sums(rows), overhead(rows)
    yield (
        "| kernels | n | DRAM read, KB | predicted | profiled, µs | predicted warm | "
        "with the profiler's cost | error |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for name, r in found.iterrows():
        told = r.time_warm + r["count"] * extra
        yield (
            f"| {name} | {r['count']:.0f} | {r.read / 1e3:.0f} | {r.read_warm / 1e3:.0f} | "
            f"{r.profiled:.1f} | {r.time_warm:.1f} | {told:.1f} | {error(told, r.profiled)} |"
        )


def overhead(rows):
    """Return what the profiler adds to a kernel [us]: of those whose data were in cache anyway."""
    rest = rows[rows.group == GROUPS[3]]
    return float((rest.profiled - rest.traced).median())


def gemv_table(rows):
    yield (
        "| workload | m, n, k | type | n | traced kernel | model | error | traced call | "
        "cold axis | error | model of the axis | error |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    for r in rows.itertuples():
        axis = "| | | | |"
        if np.isfinite(r.cold):
            axis = (
                f"| {r.cold:.2f} | {error(r.call, r.cold)} | {r.model:.2f} | "
                f"{error(r.model, r.cold)} |"
            )
        yield (
            f"| {r.workload} | {r.m}, {r.n}, {r.k} | {r.dtype} | {r.count} | {r.kernel:.2f} | "
            f"{r.predicted:.2f} | {error(r.predicted, r.kernel)} | {r.call:.2f} {axis}"
        )


def report():
    for name in CASES:
        p = profiled(name, "dram")
        covered = f"{len(p.rows)} of {p.kernels} kernels"
        yield f"\n## {name}, {covered}, {p.keys} keys: MB read from DRAM\n"
        yield from bytes_table(sums(p.rows))
        yield "\nWorst against emptied caches:\n"
        yield from worst_table(p.rows)
        all_of_them = p.rows.sum(numeric_only=True) / 1e6
        yield (
            f"\nWritten to DRAM before the kernel ends: {all_of_them.written:.2f} MB measured; "
            f"{all_of_them.written_step:.2f} MB (step) are evicted some time."
        )
    yield "\n## A running step, one pass: MB read from DRAM\n"
    yield from bytes_table(running_step())
    step = running_step().loc["all"]
    yield (
        f"\nWritten: {ONE_PASS_WRITTEN / 1e6:.1f} MB measured, with what the profiler writes "
        f"between kernels; {step.written_step / 1e6:.1f} MB predicted."
    )
    for name in CASES:
        p = profiled(name, "ncu")
        yield (
            f"\n## {name}, each kernel again and again: {len(p.rows)} kernels, median clock "
            f"{p.clock / 1e9:.2f} GHz, {overhead(p.rows):.2f} µs more a kernel under the profiler\n"
        )
        yield from warm_table(p.rows)
    yield "\n## Weight products of traced steps, µs\n"
    yield from gemv_table(gemvs())


if __name__ == "__main__":
    for line in report():
        print(line, flush=True)
