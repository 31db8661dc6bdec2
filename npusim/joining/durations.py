"""Durations under a counter profiler beside those of a timeline, and what explains the difference.

A counter profiler may fix the clocks, may empty the caches or find them warm, and runs kernels one
at a time. Which of these happened is read from the counters; nothing is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim import units
from npusim.load import traced_arch
from npusim.workload import Workload

Array = NDArray[np.float64]

_SAME = 0.03  # clocks and ratios closer than this are called the same
_WARM, _COLD = 0.1, 0.9  # share of the weights read from DRAM
_FEWEST = 8  # kernels, to compare short ones with long ones


def durations(
    timeline: Workload, counters: Mapping[str, Array], exact: NDArray[np.bool_]
) -> dict[str, Any]:
    """Return how profiled durations relate to those of the timeline.

    Parameters
    ----------
    timeline : Workload
        K kernels.
    counters : mapping of str to array, shape (K,)
        What one profile measured of them, ``profiled_s`` at least.
    exact : array of bool, shape (K,)
        Kernels that were profiled themselves.

    Returns
    -------
    dict
        ``kernels``, ``profiled_s`` and ``timeline_s`` in all, ``time_weighted_ratio`` of these two,
        ``median_ratio``, ``p10_ratio``, ``p90_ratio`` over kernels, and ``explanation``: one
        sentence for each thing that the counters say of clock, cache and short kernels. Ratios are
        profiled over timeline, None without kernels.
    """
    known = exact & (timeline["duration_s"] > 0) & (counters["profiled_s"] > 0)
    theirs, ours = counters["profiled_s"][known], timeline["duration_s"][known]
    ratio = theirs / ours
    found = np.quantile(ratio, [0.1, 0.5, 0.9]).tolist() if known.any() else [None] * 3
    explanation = (
        _clock(timeline, counters, known),
        _cache(timeline, counters, exact, known),
        _short(theirs, ours),
    )
    return {
        "kernels": int(known.sum()),
        "profiled_s": float(theirs.sum()),
        "timeline_s": float(ours.sum()),
        "time_weighted_ratio": float(theirs.sum() / ours.sum()) if known.any() else None,
        "p10_ratio": found[0],
        "median_ratio": found[1],
        "p90_ratio": found[2],
        "explanation": [sentence for sentence in explanation if sentence],
    }


def _clock(w: Workload, counters: Mapping[str, Array], known: NDArray[np.bool_]) -> str:
    """Say how the clock under the profiler relates to the machine's boost clock."""
    clock = counters.get("sm_clock", np.full(len(w), np.nan))
    known = known & ~np.isnan(clock)
    if not known.any():
        return ""
    seen = float(np.average(clock[known], weights=counters["profiled_s"][known]))
    text = f"clock of the compute units under the profiler: {units.show(seen, 'Hz')}"
    arch = traced_arch(w)
    if arch is None or not seen:
        return f"{text}; the boost clock of the device is not known"
    boost = arch["units.clock"]
    if abs(seen / boost - 1) < _SAME:
        return f"{text}, the boost clock: clocks explain no difference in duration"
    return (
        f"{text}, {seen / boost:.2f} of the boost clock {units.show(boost, 'Hz')}: kernels that "
        f"the clock limits take {boost / seen:.2f} times as long as at boost"
    )


def is_warm(w: Workload, counters: Mapping[str, Array], exact: NDArray[np.bool_]) -> bool:
    """Return whether kernels found their weights in cache, as a replay of each leaves them."""
    known = _with_weights(w, counters, exact)
    weights = float(w["read_weight"][known].sum())
    return weights > 0 and float(counters["dram_read"][known].sum()) < _WARM * weights


def _with_weights(
    w: Workload, counters: Mapping[str, Array], known: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return the kernels that read weights and of which the bytes read of DRAM were counted."""
    read = counters.get("dram_read", np.full(len(w), np.nan))
    return known & ~np.isnan(read) & (w["read_weight"] > 0)


def _cache(
    w: Workload,
    counters: Mapping[str, Array],
    exact: NDArray[np.bool_],
    timed: NDArray[np.bool_],
) -> str:
    """Say whether the profiled kernels found their weights in cache, from bytes read of DRAM.

    It is judged by the kernels that `is_warm` judges by, with times or without; `timed` are those
    whose durations can be compared.
    """
    known = _with_weights(w, counters, exact)
    if not known.any():
        return ""
    weights, dram = (
        float(w["read_weight"][known].sum()), float(counters["dram_read"][known].sum()),
    )  # fmt: skip
    both = known & timed
    theirs, ours = counters["profiled_s"][both].sum(), w["duration_s"][both].sum()
    ratio = float(theirs / ours) if both.any() else 0.0
    text = (
        f"{int(known.sum())} kernels with {units.show(weights, 'B')} of weights read "
        f"{units.show(dram, 'B')} of DRAM ({dram / weights:.1%})"
    )
    if dram < _WARM * weights:
        beside = f"; durations are {ratio:.2f} of the timeline's" if ratio else ""
        return f"{text}: the operands were in L2 (warm replay), so what it counted of DRAM " \
               f"and L2 hits is left out{beside}"  # fmt: skip
    if dram < _COLD * weights:
        return f"{text}: part of the operands was in cache"
    slower = f", and take {ratio:.2f} times as long as in the run" if ratio > 1 + _SAME else ""
    return f"{text}: the weights came from DRAM (cold cache){slower}"


def _short(profiled: Array, timeline: Array) -> str:
    """Say whether short kernels are off by a fixed time rather than by a factor."""
    if len(timeline) < _FEWEST:
        return ""
    order = np.argsort(timeline, kind="stable")
    short, long = order[: len(order) // 2], order[-max(len(order) // 10, 1) :]
    extra = float(np.median(profiled[short] - timeline[short]))
    times = float(np.median(profiled[short] / timeline[short]))
    others = float(profiled[long].sum() / timeline[long].sum())
    text = (
        f"the shorter half of the kernels (up to {units.show(float(timeline[short].max()), 's')}) "
        f"takes {times:.2f} times as long under the profiler at the median "
        f"({units.show(extra, 's')} more), the longest tenth {others:.2f} times"
    )
    if extra <= 0 or times < others * (1 + _SAME):
        return text
    return f"{text}: a cost per kernel, as it is run alone, not a slower kernel"
