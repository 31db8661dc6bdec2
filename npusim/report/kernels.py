"""The parts of a profiling report about kernels: where the time goes, classes, longest launches."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.arch import Arch
from npusim.classes import (
    CLASSES,
    COUNTER_RULE,
    SHAPE_RULE,
    by_counters,
    by_shapes,
    flop_peak,
)
from npusim.report.data import NO_TIMES, Section, Table
from npusim.report.labels import labels
from npusim.workload import LABELS, Workload

Array = NDArray[np.float64]

_TIME = ("launches", "total_s", "mean_s", "median_s", "time_share")
# Means that a table of classes gives, of the counters that there are.
_CLASS_MEANS = (
    "sm_throughput", "dram_throughput", "memory_throughput", "occupancy", "l1_hit_rate",
    "l2_hit_rate", "l1_throughput", "l2_throughput",
)  # fmt: skip
NO_MACHINE = (
    "no shipped machine lists the device of this trace ({device}), so there are no peaks, ridge "
    "and floors to hold kernels against; name the machine it ran on to have them"
)


def bases(w: Workload, arch: Arch | None) -> Mapping[str, NDArray[np.object_]]:
    """Return the class of every launch by each basis there is: ``counters``, ``shapes``."""
    found = {}
    if "sm_throughput" in w.counters and "dram_throughput" in w.counters:
        found["counters"] = by_counters(w.counters["sm_throughput"], w.counters["dram_throughput"])
    if arch is not None and w.classified.any():
        found["shapes"] = by_shapes(w, arch)
    return MappingProxyType(found)


def launch_table(w: Workload, classes: Mapping[str, NDArray[np.object_]]) -> pd.DataFrame:
    """Return one row a launch, all that tables and figures of a report are made of."""
    codes, first = np.unique(w["kernel"], return_index=True)
    names = [w.labels["kernel"][c] for c in codes]
    short = labels(names, w.text("dtype")[first].tolist(), w.text("library")[first].tolist())
    label = np.empty(len(w.labels["kernel"]), dtype=object)
    label[codes] = short
    frame = pd.DataFrame({"label": label[w["kernel"]]})
    for column in LABELS:
        frame[column] = w.text(column)
    for column in ("step", "stream", "blocks", "threads", "start_s", "duration_s", "flop"):
        frame[column] = w[column]
    layer = w["layer"]
    frame["layer"] = np.where(layer < 0, "unknown", layer.astype(str))
    frame["bytes"] = w.bytes_moved
    frame["class"] = next(iter(classes.values()), np.full(len(w), "unknown", dtype=object))
    for name, values in w.counters.items():
        frame[name] = values
    return frame


def grouped(launches: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """Return count and times of launches by some columns, most time first.

    Examples
    --------
    >>> t = pd.DataFrame({"kind": ["a", "b", "b"], "duration_s": [3.0, 1.0, 1.0]})
    >>> grouped(t, "kind").to_dict("list")["time_share"]
    [0.6, 0.4]
    """
    seconds = launches.groupby(list(keys), sort=False)["duration_s"]
    columns = {"launches": "count", "total_s": "sum", "mean_s": "mean", "median_s": "median"}
    found = pd.DataFrame({name: seconds.agg(how) for name, how in columns.items()})
    found["time_share"] = found["total_s"] / (float(launches["duration_s"].sum()) or 1.0)
    return found.sort_values("total_s", ascending=False, kind="stable").reset_index()


def dominant(launches: pd.DataFrame, column: str) -> pd.Series[str]:
    """Return by label the value of a column with most of its time."""
    time = launches.groupby(["label", column], sort=False)["duration_s"].sum().reset_index()
    top = time.sort_values("duration_s", ascending=False, kind="stable").drop_duplicates("label")
    chosen: pd.Series[str] = top.set_index("label")[column]
    return chosen


def kernel_table(launches: pd.DataFrame) -> pd.DataFrame:
    """Return one row a kernel, most time first; kind and class are those of most of its time."""
    table = grouped(launches, "label")
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    for column in ("library", "kind", "dtype", "class", "kernel"):
        table[column] = table["label"].map(dominant(launches, column))
    table["cumulative_share"] = table["time_share"].cumsum()
    return table


def time_section(launches: pd.DataFrame, kernels: pd.DataFrame) -> Section:
    """Return where device time goes."""
    phases = grouped(launches, "phase", "layer")
    number = pd.to_numeric(phases["layer"], errors="coerce")  # those unknown last
    phases = phases.assign(number=number).sort_values(["phase", "number"]).drop(columns="number")
    unknown = float(phases.loc[phases["layer"] == "unknown", "time_share"].sum())
    few = min(len(kernels), int((kernels["cumulative_share"] < 0.8 - 1e-12).sum()) + 1)
    text = [
        f"{len(kernels)} different kernels; {few} of them take 80% of device-busy time. Times are "
        "sums over all steps; shares are of device-busy time."
    ]
    lacks = []
    if not launches["duration_s"].sum():
        text, lacks = [f"{len(kernels)} different kernels, by count."], [NO_TIMES]
    if unknown > 0:
        what = "every launch" if unknown > 1 - 1e-9 else f"{unknown:.1%} of device time"
        lacks.append(f"the layer of {what} is not known (no rhythm of layers found, or outside it)")
    if (launches["operator"] == "unknown").all():
        lacks.append("the trace does not say which framework operator launched a kernel")
    shown = ("rank", "label", "library", "kind", *_TIME)
    return Section("time", "Where device time goes", text=tuple(text), lacks=tuple(lacks), tables=(
        Table("kernels", "Device time by kernel", kernels, shown, 20),
        Table("libraries", "By library", grouped(launches, "library"), ("library", *_TIME)),
        Table("kinds", "By kind of operation", grouped(launches, "kind"), ("kind", *_TIME), 30),
        Table("layers", "By phase and layer", phases, ("phase", "layer", *_TIME), 64),
        Table("operators", "By framework operator", grouped(launches, "operator"),
              ("operator", *_TIME)),
    ))  # fmt: skip


def class_section(
    w: Workload, launches: pd.DataFrame, classes: Mapping[str, NDArray[np.object_]],
    arch: Arch | None,
) -> Section:  # fmt: skip
    """Return what holds kernels back, by counters and by shapes."""
    text, lacks, tables = [], [], []
    empty = pd.DataFrame(columns=["class", "launches"])
    counted = means = weighted = shaped = empty
    if "counters" in classes:
        text.append(COUNTER_RULE)
        counted = _class_sizes(launches, classes["counters"])
        means, weighted = (_class_means(launches, classes["counters"], t) for t in (False, True))
    else:
        lacks.append("the trace has no hardware counters (SM and DRAM throughput): no classes by "
                     "counters")  # fmt: skip
    if "shapes" in classes and arch is not None:
        text.append(f"{SHAPE_RULE} The machine is {arch.title}.")
        shaped = _shape_classes(w, launches, classes["shapes"], arch)
    elif arch is None:
        lacks.append("no classes by shapes: " + NO_MACHINE.format(device=device(w)))
    else:
        lacks.append("no classes by shapes: no operation of the trace has shapes")
    tables = [
        Table("classes_counters", "Classes by counters", counted),
        Table("classes_counters_mean", "Classes by counters: means, each launch alike", means),
        Table("classes_counters_weighted", "Classes by counters: means weighted by time", weighted),
        Table("classes_shapes", "Classes by shapes and duration", shaped),
    ]
    return Section(
        "classes", "What holds kernels back", tuple(text), (), tuple(lacks), tuple(tables)
    )


def device(w: Workload) -> str:
    """Return the device of a trace in words."""
    return str(w.meta.get("device") or "not named in the trace")


def _class_sizes(launches: pd.DataFrame, classes: NDArray[np.object_]) -> pd.DataFrame:
    """Return launches and time by class, and of all; classes without launches are left out."""
    frame = pd.DataFrame({"class": classes, "label": launches["label"],
                          "duration_s": launches["duration_s"]})  # fmt: skip
    time = float(frame["duration_s"].sum()) or 1.0
    rows = []
    for name in (*CLASSES, "all"):
        part = frame if name == "all" else frame[frame["class"] == name]
        if part.empty:
            continue
        seconds = part["duration_s"]
        rows.append({
            "class": name, "kernels": part["label"].nunique(), "launches": len(part),
            "count_share": len(part) / len(frame), "total_s": float(seconds.sum()),
            "time_share": float(seconds.sum()) / time, "mean_s": float(seconds.mean()),
            "mean_by_time_s": _mean(seconds.to_numpy(), seconds.to_numpy()),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _mean(values: Array, weight: Array) -> float:
    """Return a weighted mean of what is known, not-a-number if nothing is."""
    known = np.isfinite(values)
    total = float(weight[known].sum())
    return float((values[known] * weight[known]).sum()) / total if total > 0 else float("nan")


def _class_means(
    launches: pd.DataFrame, classes: NDArray[np.object_], by_time: bool
) -> pd.DataFrame:
    """Return means of counters by class, each launch alike or weighted by its duration."""
    there = [c for c in _CLASS_MEANS if c in launches and launches[c].notna().any()]
    seconds = launches["duration_s"].to_numpy()
    rows = []
    for name in (*CLASSES, "all"):
        part = np.ones(len(classes), dtype=bool) if name == "all" else classes == name
        if not part.any():
            continue
        weight = seconds[part] if by_time else np.ones(int(part.sum()))
        row: dict[str, object] = {"class": name, "launches": int(part.sum())}
        row |= {c: _mean(launches[c].to_numpy()[part], weight) for c in there}
        rows.append(row | {"duration_s": _mean(seconds[part], weight)})
    return pd.DataFrame(rows)


def _shape_classes(
    w: Workload, launches: pd.DataFrame, classes: NDArray[np.object_], arch: Arch
) -> pd.DataFrame:
    """Return sizes of classes with what they achieve of the peaks, by count and by time."""
    table = _class_sizes(launches, classes)
    seconds = w["duration_s"]
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = {
            "byte_share": w.bytes_moved / seconds / arch["memories.dram.bandwidth"],
            "flop_share": w["flop"] / seconds / flop_peak(w, arch),
        }
    for name, share in shares.items():
        known = np.where(w.classified, share, np.nan)
        for suffix, weight in (("", np.ones(len(w))), ("_by_time", seconds)):
            table[name + suffix] = [
                _mean(known[part], weight[part])
                for c in table["class"]
                for part in [classes == c if c != "all" else np.ones(len(w), dtype=bool)]
            ]
    return table


def longest_section(launches: pd.DataFrame, kernels: pd.DataFrame) -> Section:
    """Return the longest single launches, and what the most expensive kernels achieve."""
    counters = [c for c in ("sm_throughput", "dram_throughput") if c in launches]
    columns = ["label", "class", "duration_s", "blocks", "threads", "operator", "step", *counters,
               "stream", "start_s", "library", "kind"]  # fmt: skip
    order = launches.sort_values("duration_s", ascending=False, kind="stable")[columns]
    shown = ("label", "class", "duration_s", "blocks", "threads", *counters, "operator", "step")
    text = (
        "A kernel is expensive because it is long or because it is launched often: the first "
        "table ranks kernels by their longest single launch, the last by their sum.",
    )
    lacks = () if (launches["blocks"] > 0).any() else ("the trace gives no launch grids",)
    return Section("longest", "Longest and most expensive kernels", text=text, lacks=lacks, tables=(
        Table("longest", "Longest launch of each kernel", order.drop_duplicates("label"), shown),
        Table("launches", "All launches, the longest first", order, shown, 10),
        Table("expensive", "Most expensive kernels and what they achieve",
              achieved(launches, kernels), (), 15),
    ))  # fmt: skip


def achieved(launches: pd.DataFrame, kernels: pd.DataFrame) -> pd.DataFrame:
    """Return kernels, most time first, with achieved rates and means of counters, by time."""
    known = launches[launches["basis"].isin(["shape", "launch"])]
    sums = known.groupby("label", sort=False)[["flop", "bytes", "duration_s"]].sum()
    table = kernels[["label", "class", "launches", "mean_s", "time_share", "cumulative_share"]]
    table = table.assign(**{c: table["label"].map(sums[c]) for c in ("flop", "bytes")})
    time = table["label"].map(sums["duration_s"]).replace(0.0, np.nan)
    table["intensity"] = table["flop"] / table["bytes"].replace(0.0, np.nan)
    table["flop_rate"], table["byte_rate"] = table["flop"] / time, table["bytes"] / time
    for name in _CLASS_MEANS[:4]:
        if name in launches:
            weight = launches["duration_s"].where(launches[name].notna())
            top = (launches[name] * weight).groupby(launches["label"], sort=False).sum(min_count=1)
            total = weight.groupby(launches["label"], sort=False).sum(min_count=1)
            table[name] = table["label"].map(top / total)
    return table.drop(columns=["flop", "bytes"]).dropna(axis="columns", how="all")
