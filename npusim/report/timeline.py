"""The parts of a profiling report about time between kernels: launches, host, gaps and steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.gaps import Gaps, laid_out
from npusim.inspection import HOST_TIMES, host_times
from npusim.report.data import NO_TIMES, Figure, Section, Table, histogram
from npusim.units import show
from npusim.workload import HOST_PARTS, Workload

Array = NDArray[np.float64]

SHORT_S = 5e-6
_THRESHOLDS_S = (1e-6, 2e-6, 5e-6, 10e-6, 20e-6, 50e-6, 100e-6, 1e-3)
_CURVE_POINTS = 200
FEW_STEPS = 5
_OUTLIER = 3.5  # modified z-score
_SLIGHT = 0.05
STEP_RULE = (
    "A step is an outlier if it is slower than the median by more than 5% and by more than 3.5 "
    "times 1.4826 times the median absolute deviation (B. Iglewicz, D. Hoaglin, How to Detect and "
    "Handle Outliers, 1993). Outliers before the first ordinary step are cold start, later ones "
    "long tail."
)
LAID_OUT = "the file says how long kernels take, not when they run: no gaps between kernels"


def below(seconds: Array, threshold_s: float) -> tuple[float, float]:
    """Return the share of launches shorter than a duration, and their share of the time.

    Examples
    --------
    >>> below(np.array([1e-6, 1e-6, 2e-6, 4e-6]), 3e-6)
    (0.75, 0.5)
    """
    short, total = seconds < threshold_s, float(seconds.sum())
    return float(short.mean()), float(seconds[short].sum()) / total if total > 0 else 0.0


def _curve(seconds: Array) -> pd.DataFrame:
    """Return both shares of `below` on a logarithmic grid over the durations."""
    positive = seconds[seconds > 0]
    if not len(positive):
        return pd.DataFrame(columns=["below_s"])
    grid = np.geomspace(positive.min() * 0.9, positive.max() * 1.1, _CURVE_POINTS)
    ordered = np.sort(seconds)
    at = np.searchsorted(ordered, grid)
    time = np.concatenate([[0.0], np.cumsum(ordered)])
    return pd.DataFrame({"below_s": grid, "count_share": at / len(ordered),
                         "time_share": time[at] / time[-1]})  # fmt: skip


def launch_section(w: Workload, g: Gaps) -> Section:
    """Return how much of the device's time lies in launches too short to be worth one."""
    seconds, steps = w["duration_s"], len(w.steps)
    if not seconds.sum():
        return Section("launches", "Launch-bound share", lacks=(NO_TIMES,))
    count, time = below(seconds, SHORT_S)
    text = [
        f"{count:.1%} of launches are shorter than {show(SHORT_S, 's')} and hold {time:.1%} of "
        "device-busy time: for these the launch costs about as much as the work.",
        f"{len(w) / steps:,.0f} launches a step, {show(float(seconds.mean()), 's', 3)} each on "
        f"average, half of them under {show(float(np.median(seconds)), 's', 3)}.",
    ]
    lacks = []
    if laid_out(w, g):
        lacks.append(LAID_OUT)
    elif len(g.seconds):
        mean, median = float(g.seconds.mean()), float(np.median(g.seconds))
        text.append(
            f"{len(g.seconds):,} gaps between kernels in which no stream runs: mean "
            f"{show(mean, 's', 3)}, median {show(median, 's', 3)}, together "
            f"{show(float(g.seconds.sum()), 's', 3)}."
        )
    rows = [(t, *below(seconds, t)) for t in _THRESHOLDS_S]
    table = pd.DataFrame(rows, columns=["below_s", "count_share", "time_share"])
    return Section("launches", "Launch-bound share", text=tuple(text), lacks=tuple(lacks), tables=(
        Table("short", "Launches shorter than a duration", table),
    ), figures=(
        Figure("durations", "Share of launches, and of device-busy time, in launches shorter than "
               "a duration", _curve(seconds)),
    ))  # fmt: skip


def host_section(w: Workload, launches: pd.DataFrame, g: Gaps) -> Section:
    """Return what the host does between launches, and when the device waits for it."""
    wall, busy, active = (float(x) for x in (w.steps.wall_s.sum(), w["duration_s"].sum(),
                                             g.active_s.sum()))  # fmt: skip
    ordered = not laid_out(w, g)
    times = host_times(w)
    text, lacks = [], []
    if not busy:
        ordered = False
        lacks.append(NO_TIMES)
    elif ordered and wall > 0:
        text.append(
            f"The device is busy for {show(busy, 's', 3)} and active (at least one kernel runs) "
            f"for {show(active, 's', 3)} of {show(wall, 's', 3)} of wall time: "
            f"{active / wall:.1%}. It idles {show(float(g.seconds.sum()), 's', 3)} between "
            f"kernels, {show(float(g.lead_s.sum()), 's', 3)} before the first of a step and "
            f"{show(float(g.tail_s.sum()), 's', 3)} after the last."
        )
    elif not ordered:
        lacks.append(LAID_OUT)
    if times is not None:
        host = float(w["host_s"].sum() + w["presync_s"].sum() + w.steps.tail_s.sum())
        waits = int(w["sync"].sum())
        text.append(
            f"The host works {show(host, 's', 3)}, {host / (wall or 1.0):.1%} of wall, and waits "
            f"for the device {waits:,} times. Host times hold the profiler's own cost."
        )
    else:
        lacks.append("the trace holds no host times: no host work between launches")
    if w.host is None:
        lacks.append("the trace does not tell what the host called, or its importer does not read "
                     "it: no table of host operators")  # fmt: skip
    host_calls = _host_calls(w, wall)
    if len(host_calls):
        first = host_calls.iloc[0]
        text.append(f"Most host time of its own: {first['name']}, {show(first['self_s'], 's', 3)} "
                    f"in {first['calls']:,} calls.")  # fmt: skip
    gap_table = _gap_table(launches, g) if ordered else pd.DataFrame(columns=["gap_s"])
    spread = (histogram("gaps", "gap between kernels", "s", g.seconds, g.seconds, log=True),)
    return Section("host", "Host and idle time", text=tuple(text), lacks=tuple(lacks), tables=(
        Table("host_parts", "Where the host spends a step, the mean over steps", _parts(times)),
        Table("host_threads", "Host work before launches in a step, by launching thread",
              _threads(times)),
        Table("host_calls", "What the host called, by time of its own", host_calls),
        Table("host_launches", "Host work before launches, by launching operator",
              pd.DataFrame(columns=["operator"]) if times is None else _by_operator(w, launches)),
        Table("gaps", "Longest gaps between kernels", gap_table),
    ), figures=(
        Figure("gaps", "Gaps between kernels, by count and by idle time",
               spread if ordered and len(g.seconds) else ()),
    ))  # fmt: skip


def _parts(times: Mapping[str, Any] | None) -> pd.DataFrame:
    if times is None:
        return pd.DataFrame(columns=["quantity"])
    mean = np.array([times[time] for time in HOST_TIMES])
    return pd.DataFrame({"quantity": list(HOST_TIMES.values()), "mean_s": mean,
                         "wall_share": mean / (times["wall_s"] or 1.0)})  # fmt: skip


def _threads(times: Mapping[str, Any] | None) -> pd.DataFrame:
    """Return host work by thread, nothing where one thread launches everything."""
    columns = ["thread", "launches", *HOST_PARTS, "presync_s"]
    several = times["threads"] if times is not None and len(times["threads"]) > 1 else []
    return pd.DataFrame(several, columns=columns)


def _host_calls(w: Workload, wall: float) -> pd.DataFrame:
    if w.host is None:
        return pd.DataFrame(columns=["name"])
    table = pd.DataFrame({
        "name": w.host.names, "group": w.host.group, "calls": w.host.calls,
        "self_s": w.host.self_s, "total_s": w.host.total_s,
        "wall_share": w.host.self_s / (wall or 1.0),
    })  # fmt: skip
    return table.sort_values("self_s", ascending=False, kind="stable", ignore_index=True)


def _by_operator(w: Workload, launches: pd.DataFrame) -> pd.DataFrame:
    """Return host work in front of launches by the operator that launches."""
    frame = pd.DataFrame({
        "operator": launches["operator"], "host_s": w["host_s"], "presync_s": w["presync_s"],
        "syncs": w["sync"].astype(int), "busy_s": w["duration_s"], "launches": 1,
    })  # fmt: skip
    table = frame.groupby("operator", sort=False).sum().reset_index()
    table["mean_host_s"] = table["host_s"] / table["launches"]
    table["wall_share"] = (table["host_s"] + table["presync_s"]) / (w.steps.wall_s.sum() or 1.0)
    order = ["operator", "launches", "host_s", "mean_host_s", "presync_s", "syncs", "wall_share",
             "busy_s"]  # fmt: skip
    return table.sort_values("host_s", ascending=False, kind="stable", ignore_index=True)[order]


def _gap_table(launches: pd.DataFrame, g: Gaps) -> pd.DataFrame:
    """Return every gap, the longest first, with the kernels that end before and start after it."""
    order = np.argsort(-g.seconds, kind="stable")
    before, after = g.before[order], g.after[order]
    label, operator = launches["label"].to_numpy(), launches["operator"].to_numpy()
    return pd.DataFrame({
        "gap_s": g.seconds[order], "before": label[before], "after": label[after],
        "operator": operator[after], "step": launches["step"].to_numpy()[after],
        "start_s": launches["start_s"].to_numpy()[after] - g.seconds[order],
    })  # fmt: skip


def outliers(wall_s: Array) -> NDArray[np.bool_]:
    """Return which steps are slower than a robust rule allows, shape (S,).

    None is called so where there are fewer than `FEW_STEPS` steps.

    Examples
    --------
    >>> outliers(np.array([9.0, 1.0, 1.01, 0.99, 1.0, 1.02, 3.0])).tolist()
    [True, False, False, False, False, False, True]
    """
    if len(wall_s) < FEW_STEPS:
        return np.zeros(len(wall_s), dtype=bool)
    median = np.median(wall_s)
    spread = 1.4826 * np.median(np.abs(wall_s - median))
    slow: NDArray[np.bool_] = wall_s > median + np.maximum(_OUTLIER * spread, _SLIGHT * median)
    return slow


def step_classes(wall_s: Array) -> list[str]:
    """Return ``cold start``, ``long tail`` or ``ordinary`` for each step.

    Examples
    --------
    >>> step_classes(np.array([9.0, 1.0, 1.01, 0.99, 1.0, 1.02, 3.0]))[::3]
    ['cold start', 'ordinary', 'long tail']
    """
    slow = outliers(wall_s)
    first = int(np.argmin(slow)) if len(slow) else 0
    late = ["cold start" if i < first else "long tail" for i in range(len(slow))]
    return [name if is_slow else "ordinary" for name, is_slow in zip(late, slow, strict=True)]


def step_section(w: Workload, g: Gaps) -> Section:
    """Return how steps differ: medians, percentiles, cold start and long tail."""
    wall, count = w.steps.wall_s, len(w.steps)
    size = np.bincount(w["step"], minlength=count)
    busy = np.bincount(w["step"], w["duration_s"], count).astype(np.float64)
    kinds, known = step_classes(wall), not laid_out(w, g)
    with np.errstate(divide="ignore", invalid="ignore"):
        idle = np.clip(np.where(wall > 0, 1 - g.active_s / wall, np.nan), 0, 1)
    host = np.bincount(w["step"], w["host_s"] + w["presync_s"], count) + w.steps.tail_s
    table = pd.DataFrame({
        "step": np.arange(count), "wall_s": wall, "busy_s": busy, "active_s": g.active_s,
        "idle_share": idle, "launches": size, "host_s": host if host.any() else np.nan,
        "note": kinds,
    })  # fmt: skip
    if not known:
        table = table.drop(columns=["wall_s", "active_s", "idle_share"])
    lacks = [] if known else [LAID_OUT]
    if not w.meta.get("marked_steps"):
        lacks.append("no step is marked in the trace: the whole capture counts as one")
    if count < FEW_STEPS:
        steps = "1 step" if count == 1 else f"{count} steps"
        lacks.append(f"{steps}: percentiles of fewer than {FEW_STEPS} mean little, and none is "
                     "called cold start or long tail")  # fmt: skip
    text = []
    if count > 1 and known:
        median, p95 = float(np.median(wall)), float(np.quantile(wall, 0.95))
        text.append(f"{count} steps: wall {show(median, 's')} in the median, "
                    f"{show(p95, 's')} at the 95th percentile.")  # fmt: skip
    if count >= FEW_STEPS and known:
        cold, tail = kinds.count("cold start"), kinds.count("long tail")
        text.append(f"{cold} of them are cold start, {tail} long tail. {STEP_RULE}")
    return Section("steps", "Steps", text=tuple(text), lacks=tuple(lacks), tables=(
        Table("step_statistics", "Spread over steps", _statistics(
            {"wall": wall, "device-busy": busy, "device active": g.active_s} if known else
            {"device-busy": busy})),
        Table("steps", "Each step", table, (), 12),
    ), figures=(
        Figure("steps", "Wall and device-busy time of each step", table if count > 1 and known else
               pd.DataFrame(columns=["step"])),
    ))  # fmt: skip


def _statistics(quantities: Mapping[str, Array]) -> pd.DataFrame:
    rows = []
    for name, values in quantities.items():
        median, p95 = float(np.median(values)), float(np.quantile(values, 0.95))
        rows.append({"quantity": name, "steps": len(values), "mean_s": float(values.mean()),
                     "median_s": median, "p95_s": p95, "max_s": float(values.max()),
                     "tail_ratio": p95 / median if median > 0 else float("nan")})  # fmt: skip
    return pd.DataFrame(rows)
