"""The parts of a profiling report about spread: histograms and rooflines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.arch import Arch
from npusim.classes import flop_peak
from npusim.counters import COUNTERS
from npusim.models.roofline import MATRIX_KINDS
from npusim.report.data import FIELDS, NO_TIMES, Figure, Histogram, Section, Table, histogram
from npusim.report.kernels import NO_MACHINE, device, dominant
from npusim.workload import Workload

Array = NDArray[np.float64]

# The counters whose spread a report shows, those that reports of counter profilers show first.
_SPREAD = (
    "sm_throughput", "dram_throughput", "memory_throughput", "dram_bandwidth", "l1_hit_rate",
    "l1_throughput", "l2_hit_rate", "l2_throughput", "occupancy", "occupancy_limit", "profiled_s",
    "memory_busy", "max_bandwidth", "tensor_pipe", "issue_active", "waves",
)  # fmt: skip


def histogram_section(w: Workload) -> Section:
    """Return how launches spread over durations, rates and counters."""
    seconds = w["duration_s"]
    counted = _filled(_of_counter(w, c) for c in _SPREAD if c in w.counters)
    shapes = _filled(
        histogram(name, label, unit, values, seconds, log=True)
        for name, (label, unit, values) in _of_shapes(w).items()
    )
    lacks = []
    if not counted:
        lacks.append("the trace has no hardware counters: no histograms of throughput, hit rates "
                     "and occupancy")  # fmt: skip
    absent = {"byte_rate", "flop_rate"} - {h.name for h in shapes}
    if absent:
        why = NO_TIMES if not seconds.sum() else "no operation has shapes"
        lacks.append(f"{why}: no achieved bandwidth and FLOP/s")
    if not (w["blocks"] > 0).any():
        lacks.append("the trace gives no launch grids: no histogram of blocks")
    text = (
        "Each panel has two distributions: of launches, each alike, and of device time. Where "
        "they differ, few long launches behave unlike the many short ones.",
    )
    rows = [_summary(h) for h in (*counted, *shapes)]
    return Section("histograms", "Histograms", text=text, lacks=tuple(lacks), tables=(
        Table("histograms", "Bins of all histograms", pd.concat(rows, ignore_index=True)
              if rows else pd.DataFrame(columns=["quantity"]), ("quantity",), 0),
    ), figures=(
        Figure("histograms_counters", "Spread of the hardware counters over launches", counted),
        Figure("histograms_shapes", "Spread of durations, and of what shapes and durations tell",
               shapes),
    ))  # fmt: skip


def _filled(found: Iterable[Histogram]) -> tuple[Histogram, ...]:
    return tuple(h for h in found if h.launches.any())


def _of_counter(w: Workload, name: str) -> Histogram:
    counter = COUNTERS[name]
    unit = "share" if counter.is_share else counter.unit
    return histogram(name, FIELDS[name].label, unit, w.counters[name], w["duration_s"],
                     log=not counter.is_share)  # fmt: skip


def _of_shapes(w: Workload) -> Mapping[str, tuple[str, str, Array]]:
    """Return label, unit and values of what durations, shapes and grids tell."""
    known, moved = w.classified, w.bytes_moved
    with np.errstate(divide="ignore", invalid="ignore"):
        byte_rate = np.where(known, moved / w["duration_s"], np.nan)
        flop_rate = np.where(known, w["flop"] / w["duration_s"], np.nan)
        intensity = np.where(known, w["flop"] / moved, np.nan)
    return {
        "duration_s": ("duration", "s", w["duration_s"]),
        "byte_rate": ("achieved bandwidth (shapes)", "B/s", byte_rate),
        "flop_rate": ("achieved FLOP/s (shapes)", "FLOP/s", flop_rate),
        "intensity": ("arithmetic intensity (shapes)", "FLOP/B", intensity),
        "blocks": ("thread blocks", "1", w["blocks"].astype(np.float64)),
    }


def _summary(h: Histogram) -> pd.DataFrame:
    return pd.DataFrame({
        "quantity": h.name, "note": h.unit, "bin_low": h.edges[:-1], "bin_high": h.edges[1:],
        "launches": h.launches.astype(int), "total_s": h.seconds,
    })  # fmt: skip


def roofline_section(w: Workload, launches: pd.DataFrame, arch: Arch | None) -> Section:
    """Return kernels under the roof of the machine, by shapes and by counters."""
    empty = pd.DataFrame(columns=["label"])
    if arch is None:
        why = "no rooflines: " + NO_MACHINE.format(device=device(w))
        points, counted, lacks = empty, empty, [why]
    else:
        points = _points(w, launches, arch, w.bytes_moved, w["flop"], w["duration_s"],
                         w.classified)  # fmt: skip
        counted, why = _counted(w, launches, arch)
        lacks = [why] if why else []
        if points.empty:
            lacks.append("no roofline by shapes: no operation has FLOP and bytes")
    text = []
    if not points.empty:
        share = float(points["time_share"].sum())
        text.append(
            "Bytes are those of each tensor once, so what lies in a cache may stand above the "
            f"memory roof. Kernels with FLOP, {share:.1%} of device-busy time, are drawn; copies "
            "and casts have none. Normalised: both axes are divided by the datasheet peak of the "
            "unit and type each kernel uses, so one roof holds for all."
        )
    if not counted.empty:
        text.append(
            "By counters: bytes are those measured at DRAM; FLOP are those of the shapes, or "
            "counted instructions where a kernel without shapes used no matrix unit."
        )
    shown = ("label", "launches", "time_share", "intensity", "flop_rate", "flop_share",
             "over_ridge")  # fmt: skip
    caption = "One marker a kernel, its area by share of device-busy time; the top ones are named"
    return Section("rooflines", "Rooflines", text=tuple(text), lacks=tuple(lacks), tables=(
        Table("roofline", "Kernels on the roofline, by shapes", points, shown),
        Table("roofline_counters", "Kernels on the roofline, by counters", counted, shown),
    ), figures=(
        Figure("roofline_physical", "Physical roofline: one marker a distinct kind and shape",
               points),
        Figure("roofline_normalised", "Normalised roofline: share of the peak against intensity "
               "over ridge", points),
        Figure("roofline_kernels", "Per-kernel roofline. " + caption, points),
        Figure("roofline_counters", "Per-kernel roofline by counters. " + caption, counted),
    ))  # fmt: skip


def _points(
    w: Workload, launches: pd.DataFrame, arch: Arch, moved: Array, flop: Array, seconds: Array,
    known: NDArray[np.bool_],
) -> pd.DataFrame:  # fmt: skip
    """Return kernels with FLOP and bytes: intensity, rate, and both against the peaks.

    The share of the peak is the time at the peaks over the time taken, and intensity over ridge
    is the time at the FLOP peak over that at the DRAM peak: both hold for kernels that run in
    several types.
    """
    used = known & (flop > 0) & (moved > 0) & (seconds > 0)
    frame = pd.DataFrame({
        "label": launches["label"], "duration_s": seconds, "flop": flop, "bytes": moved,
        "at_peak": flop / flop_peak(w, arch), "launches": 1,
    })[used]  # fmt: skip
    sums = frame.groupby("label", sort=False).sum().reset_index()
    if sums.empty:
        return pd.DataFrame(columns=["label"])
    at_memory = sums["bytes"] / arch["memories.dram.bandwidth"]
    table = pd.DataFrame({
        "label": sums["label"], "kind": sums["label"].map(dominant(launches, "kind")),
        "launches": sums["launches"], "total_s": sums["duration_s"],
        "time_share": sums["duration_s"] / seconds.sum(),
        "flop": sums["flop"], "bytes": sums["bytes"], "intensity": sums["flop"] / sums["bytes"],
        "flop_rate": sums["flop"] / sums["duration_s"],
        "flop_share": sums["at_peak"] / sums["duration_s"],
        "over_ridge": sums["at_peak"] / at_memory,
    })  # fmt: skip
    ordered = table.sort_values("total_s", ascending=False, kind="stable", ignore_index=True)
    return ordered.astype({"launches": int})


def _counted(w: Workload, launches: pd.DataFrame, arch: Arch) -> tuple[pd.DataFrame, str]:
    """Return kernels by measured DRAM bytes, or why there are none."""
    nothing = np.full(len(w), np.nan)

    def counter(name: str) -> Array:
        return w.counters.get(name, nothing)

    empty = pd.DataFrame(columns=["label"])
    if not w.counters:
        return empty, "no roofline by counters: the trace has none"
    seconds = np.where(np.isfinite(counter("profiled_s")), counter("profiled_s"), w["duration_s"])
    moved = counter("dram_read") + counter("dram_write")
    moved = np.where(np.isfinite(moved), moved, counter("dram_bandwidth") * seconds)
    parts = np.stack([counter(f"{t}_flop") for t in ("fp16", "fp32", "fp64")])
    executed = np.where(np.isfinite(parts).any(axis=0), np.nansum(parts, axis=0), np.nan)
    on_matrix = (counter("tensor_pipe") > 0) | (
        np.isnan(counter("tensor_pipe")) & w.mask("kind", *MATRIX_KINDS)
    )
    flop = np.where(w.classified, w["flop"], np.where(on_matrix, np.nan, executed))
    known = np.isfinite(moved) & np.isfinite(flop)
    if not known.any():
        return empty, (
            "no roofline by counters: no kernel has both measured DRAM bytes and FLOP (from "
            "shapes, or from instruction counters where no matrix unit is used)"
        )
    points = _points(w, launches, arch, np.nan_to_num(moved), np.nan_to_num(flop), seconds, known)
    return points, "" if len(points) else "no roofline by counters: no kernel has FLOP"
