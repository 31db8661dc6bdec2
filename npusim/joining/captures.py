"""Captures of one workload by several profilers, joined into one.

Each profiler sees a part: a graph replay has true times and no shapes, an eager trace has both but
a slow host, a counter profiler sees single kernels without a timeline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from npusim.errors import InputError
from npusim.joining.counters import is_profile, with_counters
from npusim.joining.shapes import has_operators, with_shapes
from npusim.kernel_match import common_codes, keys
from npusim.workload import COLUMNS, LABELS, Steps, Workload

CAN = (
    "counter profiles alone; one timeline and counter profiles; one timeline with operators, one "
    "of the same step without, and counter profiles if there are any"
)

_LEAST = 0.5  # share of kernels that must match: a static cache or a mask adds a fifth
_KEPT = ("launch", "host", "marked_steps", "outside_steps", "outside_steps_s", "cc",
         "duration_basis", "counter_sources")  # fmt: skip


@dataclass(frozen=True)
class Joined:
    """Captures joined into one.

    Attributes
    ----------
    workload : Workload
    summary : dict
        ``shapes``: see `npusim.joining.shapes.with_shapes`; ``counters``: see
        `npusim.joining.counters.with_counters`; ``where`` (see `where`): which of the profiled
        kernels the timeline has. None for what was not joined.
    notes : tuple of str
        What a user should know of the result.
    """

    workload: Workload
    summary: dict[str, Any]
    notes: tuple[str, ...] = ()


def join(workloads: Sequence[Workload]) -> Joined:
    """Join captures of one workload.

    Parameters
    ----------
    workloads : sequence of Workload
        Counter profiles alone (they are laid end to end); or a timeline with any of: a second one
        of the same step that knows the operators, and counter profiles.

    Returns
    -------
    Joined

    Raises
    ------
    InputError
        Captures that cannot be joined.
    """
    profiles = [w for w in workloads if is_profile(w)]
    timelines = [w for w in workloads if not is_profile(w)]
    if len(workloads) < 2:
        raise InputError("nothing to join", value=f"{len(workloads)} capture", allowed=CAN)
    if not timelines:
        return Joined(*_laid_end_to_end(profiles))
    if len(timelines) > 2:
        raise InputError("too many timelines to join", value=[w.name for w in timelines],
                         allowed=CAN)  # fmt: skip
    workload, notes = timelines[0], tuple[str, ...]()
    summary: dict[str, Any] = {"shapes": None, "counters": None, "where": None}
    if len(timelines) == 2:
        workload, summary["shapes"], notes = with_shapes(*_timed_and_described(timelines))
        shapes = summary["shapes"]
        _check_match(shapes["matched"], shapes["kernels"], "kernels have a counterpart",
                     workloads)  # fmt: skip
    if profiles:
        workload, summary["counters"], more = with_counters(workload, profiles)
        summary["where"] = _where_rows(profiles, workload)
        counted = summary["counters"]
        away = sum(e["count"] for e in (*counted["only_profiled"], *counted["other_launch"]))
        _check_match(counted["profiled"] - away, counted["profiled"],
                     "profiled kernels are in the timeline", workloads)  # fmt: skip
        notes += more
    return Joined(workload, summary, notes)


def _check_match(matched: int, of: int, what: str, workloads: Sequence[Workload]) -> None:
    """Refuse captures that are hardly of the same step."""
    if matched < _LEAST * of:
        names = " and ".join(w.name for w in workloads)
        raise InputError(f"not captures of one step: {matched} of {of} {what}", file=names,
                         allowed=f"from {_LEAST:.0%}",
                         hint="compare them with `npusim diff`")  # fmt: skip


def _timed_and_described(timelines: Sequence[Workload]) -> tuple[Workload, Workload]:
    """Return the timeline without operators and the one with them."""
    known = [has_operators(w) for w in timelines]
    if sum(known) != 1:
        both = "both timelines have operators" if all(known) else "no timeline has operators"
        raise InputError(both, value=[w.name for w in timelines], allowed=CAN,
                         hint="compare two timelines with `npusim diff`")  # fmt: skip
    return (timelines[1], timelines[0]) if known[0] else (timelines[0], timelines[1])


def _laid_end_to_end(
    profiles: Sequence[Workload],
) -> tuple[Workload, dict[str, Any], tuple[str, ...]]:
    """Return profiles as one, kernels in the order of the files."""
    columns: dict[str, Any] = {}
    labels: dict[str, list[str]] = {}
    for c in COLUMNS:
        parts = [w[c] for w in profiles]
        if c in LABELS:
            codes, labels[c] = common_codes([w.labels[c] for w in profiles])
            parts = [code[part] for code, part in zip(codes, parts, strict=True)]
        columns[c] = np.concatenate(parts)
    columns["step"] = np.zeros(len(columns["step"]), dtype=np.int64)
    columns["start_s"] = np.cumsum(columns["duration_s"]) - columns["duration_s"]
    names = dict.fromkeys(name for w in profiles for name in w.counters)
    counters = {
        name: np.concatenate([w.counters.get(name, np.full(len(w), np.nan)) for w in profiles])
        for name in names
    }
    wall = Steps(np.array([columns["duration_s"].sum()]), np.zeros(1))
    meta, notes = _common_meta(profiles)
    made = Workload(profiles[0].name, columns, labels, wall, None, meta, counters)
    summary = {"profiles": [w.name for w in profiles], "kernels": len(made),
               "kernels_of_each": [len(w) for w in profiles]}  # fmt: skip
    return made, summary, notes


def _common_meta(profiles: Sequence[Workload]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the provenance that profiles share, and notes on what they do not."""
    metas = [w.meta for w in profiles]
    devices = sorted({str(m.get("device", "")) for m in metas} - {""})
    meta = {k: metas[0][k] for k in _KEPT if all(k in m and m[k] == metas[0][k] for m in metas)}
    meta |= {
        "format": metas[0]["format"],
        "device": devices[0] if len(devices) == 1 else "",
        "files": [str(w.meta.get("file", w.name)) for w in profiles],
    }
    notes = []
    if len(devices) > 1:
        notes.append(f"profiles of different devices: {', '.join(devices)}")
    if any(m.get("counter_sources") != metas[0].get("counter_sources") for m in metas):
        notes.append("profiles take their counters from different metrics")
    return meta, tuple(notes)


# ---------------------------------------------------------------- where a kernel comes from


@dataclass(frozen=True)
class Where:
    """In which captures a profiled kernel occurs.

    Attributes
    ----------
    kernel : str
    blocks, threads : int
        Its launch, 0 if unknown.
    duration_s : float
        As profiled [s].
    named : mapping of str to int
        How many kernels of its name each capture has.
    launched : mapping of str to int
        How many of them have its launch; only captures that tell the launches of that name.
    """

    kernel: str
    blocks: int
    threads: int
    duration_s: float
    named: Mapping[str, int]
    launched: Mapping[str, int]

    @property
    def stages(self) -> tuple[str, ...]:
        """Captures that may hold it: by name and launch, by name where launches are unknown."""
        return tuple(s for s, count in self.named.items() if self.launched.get(s, count))

    @property
    def verdict(self) -> str:
        """``absent``, ``other launch``, ``only in NAME``, ``only in NAME by name``, ``several``."""
        if not any(self.named.values()):
            return "absent"
        if not self.stages:
            return "other launch"
        if len(self.stages) > 1:
            return "several"
        return f"only in {self.stages[0]}" + (" by name" if not self.by_launch else "")

    @property
    def by_launch(self) -> bool:
        """Whether the launch decided in every capture that has the name."""
        return all(s in self.launched for s, count in self.named.items() if count)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "kernel": self.kernel,
            "blocks": self.blocks,
            "threads": self.threads,
            "duration_s": self.duration_s,
            "named": dict(self.named),
            "launched": dict(self.launched),
            "verdict": self.verdict,
            "by_launch": self.by_launch,
        }


def _where_rows(profiles: Sequence[Workload], timeline: Workload) -> list[dict[str, Any]]:
    """Return where profiled kernels are, once for each name and launch, with their count."""
    found = [w for p in profiles for w in where(p, {timeline.name: timeline})]
    count = Counter((w.kernel, w.blocks, w.threads) for w in found)
    distinct = {(w.kernel, w.blocks, w.threads): w for w in reversed(found)}
    return [{"count": n, **distinct[launch].as_dict()} for launch, n in count.items()]


def where(counters: Workload, stages: Mapping[str, Workload]) -> list[Where]:
    """Tell in which captures each kernel of a counter profile occurs.

    A capture that tells grid and block of its kernels is held to them; one that does not (kernel
    sums) can only be asked for the name, and a name may occur in several stages.

    Parameters
    ----------
    counters : Workload
        K profiled kernels.
    stages : mapping of str to Workload
        Captures by name, for example those of the stages of a pipeline.

    Returns
    -------
    list of Where, length K
    """
    known = {stage: _launches(w) for stage, w in stages.items()}
    # Kernels of which a capture tells every launch.
    told_of = {stage: {name for name, c in launches.items() if all(map(all, c))}
               for stage, launches in known.items()}  # fmt: skip
    of_label = keys(counters)
    names, found = counters.text("kernel"), []
    for i, name in enumerate(names.tolist()):
        launch = int(counters["blocks"][i]), int(counters["threads"][i])
        kernel = of_label[counters["kernel"][i]]
        of = {stage: launches.get(kernel, Counter()) for stage, launches in known.items()}
        told = {s: c[launch] for s, c in of.items() if all(launch) and kernel in told_of[s]}
        found.append(Where(name, *launch, float(counters["duration_s"][i]),
                           {s: c.total() for s, c in of.items()}, told))  # fmt: skip
    return found


def _launches(w: Workload) -> dict[str, Counter[tuple[int, int]]]:
    """Return how often each kernel of a capture ran with which blocks and threads."""
    table = np.column_stack([w["kernel"], w["blocks"], w["threads"]])
    rows, counts = np.unique(table, axis=0, return_counts=True)
    labels, found = keys(w), dict[str, Counter[tuple[int, int]]]()
    for (kernel, blocks, threads), count in zip(rows.tolist(), counts.tolist(), strict=True):
        found.setdefault(labels[kernel], Counter())[blocks, threads] += count
    return found
