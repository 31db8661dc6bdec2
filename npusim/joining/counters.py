"""Hardware counters on a timeline: which kernel of a step each profiled kernel is.

A counter profiler measures the first kernels of a step, or some of every kind, one at a time. A
timeline has them all, with true durations. A kernel of the timeline takes the counters of the
profiled kernel with its name and launch at its place in the step; where the profile does not reach,
the median of the profiled kernels with its name, launch and shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.counters import COUNTERS
from npusim.joining.durations import durations, is_warm
from npusim.joining.shapes import duration_share
from npusim.kernel_match import Ints, Numbered, align, listed, numbered
from npusim.workload import Workload

EXACT, BY_KIND, NONE = 2, 1, 0
_OF_THE_RUN = ("dram_read", "dram_write", "dram_bandwidth", "dram_throughput", "l2_hit_rate")
Array = NDArray[np.float64]


def is_profile(w: Workload) -> bool:
    """Return whether a capture is that of a counter profiler, without a timeline."""
    return bool(w.counters) and str(w.meta.get("format", "")).startswith(("ncu", "rocprof compute"))


def with_counters(
    timeline: Workload, profiles: Sequence[Workload]
) -> tuple[Workload, dict[str, Any], tuple[str, ...]]:
    """Return a timeline with the counters of one or more profiles of the same step.

    Parameters
    ----------
    timeline : Workload
        K kernels with their durations.
    profiles : sequence of Workload
        Each from the beginning of a step or of single kernels. Where two have the same counter of
        one kernel, the profile that comes first counts.

    Returns
    -------
    workload : Workload
        The timeline, its counters not-a-number where a kernel has none.
    summary : dict
        How many kernels have counters, ``exact`` and ``by_kind``; kernels that only one side has;
        ``durations`` of each profile (`npusim.joining.durations.durations`); and ``counters``: the
        mean of each weighted by time, over the kernels of the timeline, and over the profiled ones.
    notes : tuple of str
    """
    counters: dict[str, Array] = {
        name: np.array(values) for name, values in timeline.counters.items()
    }
    how = np.full(len(timeline), NONE)
    times: list[dict[str, Any]] = []
    absent: list[dict[str, Any]] = []
    elsewhere: list[dict[str, Any]] = []
    for profile in profiles:
        numbers = numbered(timeline, profile)
        donor = _donors(timeline, *numbers)
        found, of_profile = _spread(timeline, profile, numbers, donor)
        how = np.maximum(how, of_profile)
        exact = of_profile == EXACT
        times.append({"profile": profile.name, **durations(timeline, found, exact)})
        # A warm replay reads hardly any DRAM, whatever the running step does.
        left = _OF_THE_RUN if is_warm(timeline, found, exact) else ()
        for name, values in found.items():
            if name in left:
                continue
            own = counters.setdefault(name, np.full(len(timeline), np.nan))
            own[:] = np.where(np.isnan(own), values, own)
        named = np.isin(numbers[1].name, numbers[0].name)
        launched = np.isin(numbers[1].launch, numbers[0].launch)
        absent += listed(profile, ~named)
        elsewhere += listed(profile, named & ~launched)
    made = Workload(timeline.name, timeline.columns, timeline.labels, timeline.steps,
                    timeline.edges, _meta(timeline, profiles, how), counters,
                    timeline.host)  # fmt: skip
    summary = {
        "timeline": timeline.name,
        "profiles": [p.name for p in profiles],
        "profiled": sum(len(p) for p in profiles),
        "kernels": len(timeline),
        "exact": int((how == EXACT).sum()),
        "by_kind": int((how == BY_KIND).sum()),
        "exact_share": duration_share(timeline, how == EXACT),
        "by_kind_share": duration_share(timeline, how == BY_KIND),
        "only_profiled": absent,
        "other_launch": elsewhere,
        "only_timeline": listed(timeline, how == NONE),
        "durations": times,
        "counters": _means(made, profiles),
    }
    return made, summary, tuple(_notes(timeline, profiles, summary))


def _meta(timeline: Workload, profiles: Sequence[Workload], how: Ints) -> dict[str, Any]:
    return {
        **timeline.meta,
        "counters_from": [str(p.meta.get("file", p.name)) for p in profiles],
        "counters_exact": int((how == EXACT).sum()),
        "counters_by_kind": int((how == BY_KIND).sum()),
    }


def _donors(timeline: Workload, a: Numbered, b: Numbered) -> Ints:
    """Return the profiled kernel at the place of each kernel of the timeline, -1 if none.

    A profile no longer than a step is held against every step; a longer one against the whole
    timeline, so that each of its kernels is used once.
    """
    steps = [np.flatnonzero(timeline["step"] == s) for s in range(len(timeline.steps))]
    if len(b) > max(len(rows) for rows in steps):
        steps = [np.arange(len(timeline))]
    donor = np.full(len(timeline), -1)
    known: dict[bytes, tuple[Ints, Ints]] = {}
    for rows in steps:
        part = a[rows]
        key = part.launch.tobytes()
        if key not in known:
            known[key] = align(b, part)  # the profile first: its kernels take the earliest places
        of, at = known[key]
        donor[rows[at]] = of
    found = np.flatnonzero(donor >= 0)
    donor[found[a.launch[found] != b.launch[donor[found]]]] = -1
    return donor


def _spread(
    timeline: Workload, profile: Workload, numbers: Sequence[Numbered], donor: Ints
) -> tuple[dict[str, Array], Ints]:
    """Return the counters of one profile for every kernel, and how each kernel came by them."""
    a, b = numbers
    measured = pd.DataFrame(_counters(profile))
    exact = donor >= 0
    values = measured.iloc[np.where(exact, donor, 0)].to_numpy(copy=True)
    values[~exact] = np.nan
    how = np.where(exact, EXACT, NONE)
    launch, shape = a.launch, timeline.unique()[1]
    group = np.unique(np.column_stack([launch, shape]), axis=0, return_inverse=True)[1].reshape(-1)
    medians = pd.DataFrame(values[exact], columns=measured.columns).groupby(group[exact]).median()
    rest = medians.reindex(group[~exact]).to_numpy()
    # profiled kernels at no place of their own serve where their launch stands for one shape only
    spare = ~np.isin(np.arange(len(profile)), donor)
    shapes = pd.Series(shape).groupby(launch).nunique()
    alone = shapes.reindex(launch[~exact]).to_numpy() == 1
    loose = measured[spare].groupby(b.launch[spare]).median().reindex(launch[~exact]).to_numpy()
    rest = np.where(np.isnan(rest) & alone[:, None], loose, rest)
    values[~exact] = rest
    how[~exact] = np.where(np.isnan(rest).all(axis=1), NONE, BY_KIND)
    return {str(name): values[:, i] for i, name in enumerate(measured.columns)}, how


def _counters(profile: Workload) -> dict[str, Array]:
    """Return the counters of a profile; a profiler's durations are its own."""
    return {"profiled_s": profile["duration_s"], **profile.counters}


def _means(made: Workload, profiles: Sequence[Workload]) -> dict[str, Any]:
    """Return three means of each counter: weighted by time, of the timeline, of the profiles."""
    found = {}
    for name, values in made.counters.items():
        known = ~np.isnan(values)
        seconds = made["duration_s"][known]
        own = [c[name] for p in profiles if name in (c := _counters(p))]
        profiled = np.concatenate(own)[~np.isnan(np.concatenate(own))] if own else np.array([])
        if not known.any():
            continue
        weighted = np.average(values[known], weights=seconds) if seconds.sum() else None
        found[name] = {
            "unit": COUNTERS[name].unit,
            "time_weighted": float(weighted) if weighted is not None else None,
            "mean": float(values[known].mean()),
            "profiled_mean": float(profiled.mean()) if len(profiled) else None,
            "kernels": int(known.sum()),
            "time_share": duration_share(made, known),
        }
    return found


def _notes(timeline: Workload, profiles: Sequence[Workload], summary: dict[str, Any]) -> list[str]:
    notes = [
        f"{d['profile']}: {sentence}" for d in summary["durations"] for sentence in d["explanation"]
    ]
    with_any = summary["exact"] + summary["by_kind"]
    notes.append(
        f"{with_any} of {summary['kernels']} kernels have counters: {summary['exact']} were "
        f"profiled, {summary['by_kind']} equal one that was"
    )
    for what, entries in (
        ("profiled kernels are not in the timeline", summary["only_profiled"]),
        ("profiled kernels are in the timeline with another grid or block only",
         summary["other_launch"]),
    ):  # fmt: skip
        if entries:
            notes.append(f"{sum(e['count'] for e in entries)} {what}")
    devices = {str(w.meta.get("device", "")) for w in (timeline, *profiles)} - {""}
    if len(devices) > 1:
        notes.append(f"captures of different devices: {', '.join(sorted(devices))}")
    return notes
