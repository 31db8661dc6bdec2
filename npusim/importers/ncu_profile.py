"""Kernels that a counter profiler measured one by one, with their counters, as a workload.

The profiler lets one kernel run at a time, several times over, so there is no time line: kernels
follow each other in the order of their numbers, each for as long as the profiler measured.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.counters import COUNTERS
from npusim.errors import InputError
from npusim.importers import files
from npusim.importers import ncu_metrics as metrics
from npusim.importers.assembly import Operation, Step, assemble
from npusim.importers.describe import describe
from npusim.importers.ncu_metrics import Arithmetic, Source
from npusim.importers.work import Launch
from npusim.workload import Workload

_SHOWN = 20
_MOST_BLOCKS = 2**53
_ROUNDING = 1e-12  # relative error of a product of a few doubles, generously

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Kernel:
    """One profiled kernel; its process and its number tell it from all others of a file."""

    process: int
    number: int
    name: str
    device: str = ""
    context: int = 0
    stream: int = 0
    grid: tuple[int, int, int] = (0, 0, 0)
    threads: int = 0


class Profile:
    """The kernels of a file and what was measured of each.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    kernels : list of Kernel
    unknown : set of str
        Metrics of the file that no counter takes.
    repeated : int
        Metrics of a kernel that came again with another value; the first one counts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kernels: list[Kernel] = []
        self.unknown: set[str] = set()
        self.repeated = 0
        self._at: dict[tuple[int, int], int] = {}
        self._values: dict[Source, array[float]] = {}
        self._resolution: dict[Source, float] = {}

    def find(self, process: int, number: int) -> int | None:
        """Return where a kernel is in the list, None if it is not."""
        return self._at.get((process, number))

    def add(self, kernel: Kernel) -> int:
        """Append a kernel that is not in the list, and return where it is."""
        if len(self.kernels) == files.MOST_OPERATIONS:
            raise files.too_many(self.path)
        if math.prod(kernel.grid) > _MOST_BLOCKS or kernel.threads > _MOST_BLOCKS:
            raise InputError("launch is too large", file=self.path,
                             place=f"kernel {kernel.number}", value=(*kernel.grid, kernel.threads),
                             allowed=f"up to {_MOST_BLOCKS} blocks and threads")  # fmt: skip
        self.kernels.append(kernel)
        return self._at.setdefault((kernel.process, kernel.number), len(self.kernels) - 1)

    def put(self, at: int, source: Source, value: float, resolution: float = 0.0) -> None:
        """Keep a value of a kernel, and by how much it may be off for being rounded [SI]."""
        column = self._values.setdefault(source, array("d"))
        column.extend([np.nan] * (len(self.kernels) - len(column)))
        if np.isnan(column[at]):
            column[at] = value
            self._resolution[source] = max(self._resolution.get(source, 0.0), resolution)
        elif column[at] != value:
            self.repeated += 1

    def has(self, source: Source) -> bool:
        """Return whether any kernel has a metric."""
        return source in self._values

    def first(self, sources: Iterable[Source]) -> Source | None:
        """Return the first of some metrics that the file has."""
        return next((s for s in sources if self.has(s)), None)

    def column(self, source: Source | None) -> Floats:
        """Return a metric of all kernels, shape (K,) [SI]; not-a-number where there is none."""
        values = np.full(len(self.kernels), np.nan)
        if source is not None:
            found = self._values.get(source, ())
            values[: len(found)] = found
        return values

    def resolution(self, source: Source) -> float:
        """Return by how much the values of a metric may be off [SI]."""
        return self._resolution.get(source, 0.0)


def workload(profile: Profile, name: str, about: Mapping[str, Any]) -> Workload:
    """Return the kernels of a profile as one step of a workload, with their counters.

    Parameters
    ----------
    profile : Profile
    name : str
        What to call the workload.
    about : mapping
        What else is known of the file.

    Returns
    -------
    Workload
        Kernels without a duration are left out and counted.

    Raises
    ------
    InputError
        No kernel has a duration, or a value that no workload may have.
    """
    seconds, basis = _durations(profile)
    rows = np.argsort([k.number for k in profile.kernels], kind="stable")
    rows = rows[~np.isnan(seconds[rows])]
    if not len(rows):
        hint = "collect gpu__time_duration.sum or the section SpeedOfLight"
        raise InputError("no kernel has a duration", file=profile.path, hint=hint)
    counters, sources = _counters(profile, seconds)
    meta = {
        "file": profile.path.name, "device": "", "launch": "eager", "host": "unknown",
        "marked_steps": 0, "outside_steps": 0, "outside_steps_s": 0.0, **about,
        **_meta(profile), "duration_basis": "profiler replay", "duration_from": basis,
        "untimed": len(seconds) - len(rows), "counter_sources": sources,
    }  # fmt: skip
    kept = {c: values[rows] for c, values in counters.items() if not np.isnan(values[rows]).all()}
    meta["shares_above_one"] = {c: n for c, values in kept.items() if (n := _above_one(c, values))}
    try:
        w = assemble(name, [_step(profile, rows, seconds[rows])], meta)
        return Workload(name, w.columns, w.labels, w.steps, w.edges, w.meta, kept)
    except InputError as error:
        raise InputError(str(error), file=profile.path) from None


def _durations(profile: Profile) -> tuple[Floats, str]:
    """Return how long each kernel took, shape (K,) [s], and which metrics say so."""
    if (known := profile.first(metrics.DURATION)) is not None:
        return profile.column(known), known.name
    for cycles, rate in metrics.CYCLES:
        if profile.has(cycles) and profile.has(rate):
            a_second = profile.column(rate)
            a_second[a_second == 0] = np.nan
            return profile.column(cycles) / a_second, f"{cycles.name} / {rate.name}"
    return profile.column(None), ""


def _counters(profile: Profile, seconds: Floats) -> tuple[dict[str, Floats], dict[str, str]]:
    """Return every counter that the file can fill, shape (K,) each, and from which metrics."""
    counters, sources = {"profiled_s": seconds}, {}
    for counter, choices in metrics.COUNTER_SOURCES.items():
        if (chosen := profile.first(choices)) is not None:
            in_sectors = COUNTERS[counter].unit == "B" and chosen.dimension == "count"
            counters[counter] = profile.column(chosen) * (metrics.SECTOR if in_sectors else 1.0)
            sources[counter] = chosen.name
    for counter, forms in metrics.FLOP.items():
        whole = [f for f in forms if all(map(profile.has, f.parts))
                 and (f.rate is None or profile.has(f.rate))]  # fmt: skip
        if whole:
            counters[counter] = _flop(profile, whole[0], seconds)
            sources[counter] = " + ".join(part.name for part in whole[0].parts) + " (twice)"
    return counters, sources


def _flop(profile: Profile, form: Arithmetic, seconds: Floats) -> Floats:
    """Return adds, multiplications and twice the fused pairs, shape (K,) [FLOP]."""
    add, mul, fma = (
        profile.column(part) if form.rate is None else _total(profile, part, form.rate, seconds)
        for part in form.parts
    )
    return add + mul + 2 * fma


def _total(profile: Profile, part: Source, rate: Source, seconds: Floats) -> Floats:
    """Return how many there were, shape (K,), from how many there were a cycle.

    A number of instructions is whole. So the product is only taken where its rounding error leaves
    one whole number to choose, and it agrees with that: counts and cycles of different passes
    would not.
    """
    a_second = profile.column(rate)
    cycles = a_second * seconds
    total = profile.column(part) * cycles
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = profile.resolution(rate) / a_second + _ROUNDING
        relative += max((profile.resolution(s) for s in metrics.DURATION), default=0.0) / seconds
        error = cycles * profile.resolution(part) + total * relative
        exact = (error < 0.5) & (np.abs(total - np.rint(total)) <= error)
    return np.where(exact, np.rint(total), np.nan)


def _above_one(counter: str, values: Floats) -> int:
    return int((values > 1).sum()) if COUNTERS[counter].is_share else 0


def _step(profile: Profile, rows: NDArray[np.intp], seconds: Floats) -> Step:
    """Return the kernels of some rows one after the other."""
    kernels = [profile.kernels[i] for i in rows]
    asked = {what: np.nan_to_num(profile.column(profile.first(choices))[rows])
             for what, choices in metrics.LAUNCH.items()}  # fmt: skip
    ends = np.cumsum(seconds)
    streams = _streams(kernels)
    operations = []
    for i, kernel in enumerate(kernels):
        grid = kernel.grid if any(kernel.grid) else (int(asked["blocks"][i]), 1, 1)
        launch = Launch(kernel.name, grid, kernel.threads or int(asked["threads"][i]))
        shared = asked["shared_static"][i] + asked["shared_dynamic"][i]
        operations.append(
            Operation(launch, describe(None, launch), float(ends[i] - seconds[i]),
                      float(seconds[i]), stream=streams[i],
                      registers=int(asked["registers"][i]), shared_memory=float(shared))
        )  # fmt: skip
    return Step(operations, float(ends[-1]))


def _streams(kernels: list[Kernel]) -> list[int]:
    """Return the stream of each kernel: its own number, unless two contexts could share it."""
    contexts = {(k.process, k.device, k.context) for k in kernels}
    if len(contexts) == 1:
        return [k.stream for k in kernels]
    lanes = files.Numbering()
    return [lanes[k.process, k.device, k.context, k.stream] for k in kernels]


def _meta(profile: Profile) -> dict[str, Any]:
    """Return what can be counted of a profile."""
    unknown = sorted(profile.unknown)
    passes = profile.column(profile.first(metrics.LAUNCH["passes"]))
    known_passes = passes[~np.isnan(passes)]
    return {
        "kernels": len(profile.kernels),
        "processes": len({k.process for k in profile.kernels}),
        "devices": len({k.device for k in profile.kernels}),
        "streams": len(set(_streams(profile.kernels))),
        "metrics_unknown": {"count": len(unknown), "first": unknown[:_SHOWN]},
        "metrics_repeated": profile.repeated,
        **({"most_passes": int(known_passes.max())} if len(known_passes) else {}),
    }
