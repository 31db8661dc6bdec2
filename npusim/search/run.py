"""Searches and sensitivities of a machine with a sweep block, or of a study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.axes import LAUNCH
from npusim.caveats import notes
from npusim.errors import InputError
from npusim.job import Job
from npusim.search.choices import Choices
from npusim.search.limits import limits_of
from npusim.search.nsga2 import Found, nsga2
from npusim.search.points import Points, Progress
from npusim.search.ranges import ranges
from npusim.search.refine import refine
from npusim.search.sensitivity import sobol
from npusim.search.tornado import tornado
from npusim.sweeps.front import objective
from npusim.transforms import split


@dataclass(frozen=True)
class Effort:
    """How hard to search.

    Attributes
    ----------
    population, generations, seed : int
        See `npusim.search.nsga2.nsga2`.
    budget : int
        New designs that refinement may evaluate, see `npusim.search.refine.refine`; 0 for none.
    halvings : int
        How often refinement halves steps.
    """

    population: int = 48
    generations: int = 25
    seed: int = 0
    budget: int = 0
    halvings: int = 0


@dataclass(frozen=True)
class Felt:
    """What moves a figure.

    Attributes
    ----------
    objective, launch : str
    nominal : float
        The figure of the nominal machine.
    alone : DataFrame
        Each axis from end to end, see `npusim.search.tornado.tornado`.
    indices : DataFrame or None
        Sobol indices, see `npusim.search.sensitivity.sobol`; None if none were asked for.
    evaluations : int
        Distinct designs evaluated.
    """

    objective: str
    launch: str
    nominal: float
    alone: pd.DataFrame
    indices: pd.DataFrame | None
    evaluations: int


def search(
    job: Job,
    objectives: Sequence[str] = (),
    effort: Effort | None = None,
    progress: Progress | None = None,
) -> Found:
    """Search the space of a job for designs that no other beats.

    Parameters
    ----------
    job : Job
    objectives : sequence of str
        Columns to make small; time and the costs of the job by default, as in a sweep.
    effort : Effort, optional
    progress : callable, optional
        Called with (steps done, steps in all).

    Raises
    ------
    InputError
        pymoo is not installed, an unknown objective, or no design that meets the constraints.

    Examples
    --------
    >>> from npusim.job import read_job
    >>> job = read_job("decode_npu", ["paddleocr_vl_decode"], ["queue"], {})
    >>> found = search(job, effort=Effort(population=8, generations=2))
    >>> found.objectives, found.evaluations < 20 < len(job.space)
    (('wall_s', 'memories.dram.bandwidth', 'matrix.bf16.rate'), True)
    """
    effort = effort or Effort()
    choices, limits = Choices.of(job.space), limits_of(job)
    points = Points(job.space.archs, list(job.space.axes), job.workloads, job.counts)
    wanted = tuple(objectives) or (_time(choices, points), *job.costs)
    if len(set(wanted)) < len(wanted):
        raise InputError("given twice", place="objective", value=", ".join(wanted))
    found = nsga2(choices, points, wanted, limits, effort.population, effort.generations,
                  effort.seed, progress)  # fmt: skip
    if found.front.empty:
        if found.table["allowed"].any():
            raise InputError("no design has a number for each", place="objective",
                             value=", ".join(wanted))  # fmt: skip
        raise InputError("no design that was found meets the constraints",
                         value=", ".join(one.column for one in job.constraints),
                         hint="search longer, or loosen them")  # fmt: skip
    if effort.budget:
        found = refine(found, choices, points, limits, effort.budget, effort.halvings, progress)
    return found


def _time(choices: Choices, points: Points) -> str:
    """Return the time to make small, from designs that differ in one axis of the workloads."""
    of_workload = [i for i, path in enumerate(choices.axes, 2) if path in split(choices.axes)[1]]
    rows = [np.zeros(len(choices.sizes), dtype=np.intp)]
    for axis in of_workload:
        for place in range(1, choices.sizes[axis]):
            rows.append(rows[0].copy())
            rows[-1][axis] = place
    return objective(points(choices.points(np.stack(rows))))


def sensitivity(
    job: Job,
    figure: str = "",
    samples: int = 512,
    seed: int = 0,
    progress: Progress | None = None,
) -> Felt:
    """Return what moves a figure of the first machine of a job, under its last launch mode.

    Parameters
    ----------
    job : Job
        Its axes give the ranges; its constraints do not count.
    figure : str
        Column of the figure, the time of a step by default.
    samples : int
        Base samples of the Sobol indices, a power of two; 0 for none.
    seed : int
    progress : callable, optional
        Called with (designs done, designs in all).

    Raises
    ------
    InputError
        SALib is not installed, an unknown figure, or no axis with two values.

    Examples
    --------
    >>> from npusim.job import read_job
    >>> job = read_job("decode_npu", ["paddleocr_vl_decode"], ["queue"], {})
    >>> felt = sensitivity(job, samples=0)
    >>> felt.launch, len(felt.alone), felt.indices
    ('queue', 9, None)
    """
    figure = figure or "wall_s"
    launch, elsewhere = job.space.launch[-1], _of_others(job)
    axes = {path: axis for path, axis in job.space.given.items() if path not in elsewhere}
    base = {path: value for path, value in nominal(job).items() if path not in elsewhere}
    points = Points(job.arch, list(axes), job.workloads, job.counts)
    alone = tornado(points, axes, base, launch, figure)
    indices = None
    if samples:
        varied = ranges(axes)

        def of_designs(drawn: pd.DataFrame) -> NDArray[np.float64]:
            fixed = {path: value for path, value in base.items() if path not in varied}
            table = points(drawn.assign(**{LAUNCH: launch}, **fixed), progress)
            return table[figure].to_numpy(float)

        indices = sobol(of_designs, varied, samples, seed)
    value = float(alone["nominal"].iloc[0])
    return Felt(figure, launch, value, alone, indices, len(points))


def _of_others(job: Job) -> set[str]:
    """Return the axes that count on machines of a job, but not on the first one."""
    here, there = set[str](), set[str]()
    for part in job.space.parts:
        used = here if part.arch.name == job.arch.name else there
        used.update(part.change, part.axes, part.points or ())
    return there - here


def nominal(job: Job) -> dict[str, float]:
    """Return the value of each axis on the nominal machine; where it has none, the middle one.

    Axes of the workloads are not-a-number, which leaves them as they are, but for what is set.

    Examples
    --------
    >>> from npusim.job import read_job
    >>> nominal(read_job("decode_npu", [], [], {"workload.weight_bits": 8.0}))["units.count"]
    70.0
    """
    found = {}
    for path, axis in job.space.given.items():
        ordered = sorted(axis.values)
        middle = ordered[(len(ordered) - 1) // 2]
        found[path] = job.arch.values.get(path, middle)  # noqa: PD011
    work = split(job.space.given)[1]
    return {**found, **dict.fromkeys(work, np.nan), **job.changes}


def size(job: Job) -> int:
    """Return how many designs a search chooses from.

    Of samples there are no fixed ones: all combinations of the values that axes have are counted.
    """
    return len(job.space) if job.space.samples is None else len(Choices.of(job.space))


def caveats(job: Job, given: Mapping[str, int] | None = None) -> list[str]:
    """Return what a reader should know before trusting a search of a job.

    Parameters
    ----------
    job : Job
    given : mapping of str to int, optional
        ``evaluations`` that a search took; none for a sensitivity.
    """
    launch = job.space.launch if given else job.space.launch[-1:]
    return list(dict.fromkeys(chain(_of_space(job, given or {}), _of_models(job, launch))))


def _of_space(job: Job, given: Mapping[str, int]) -> Iterator[str]:
    yield from job.space.notes
    if "evaluations" in given:
        count = size(job)
        if count <= 20 * given["evaluations"]:
            yield (f"the space holds {count} designs, few enough for npusim sweep, which finds the "
                   "true front")  # fmt: skip
        ends = [p for p, a in job.space.given.items() if not a.steps]
        if ends:
            yield f"ranges without steps have their ends alone as choices: {', '.join(ends)}"
        return
    elsewhere = _of_others(job)
    hanging = [p for p, a in job.space.given.items() if a.when and p not in elsewhere]
    if hanging:
        yield f"varied as if they always counted: {', '.join(hanging)}"
    if job.constraints:
        yield "constraints do not count: all designs do"
    if len(job.space.archs) > 1:
        without = ", ".join(p for p in job.space.given if p in _of_others(job))
        yield f"of {job.arch.name} alone" + (f", which has no {without}" if without else "")


def _of_models(job: Job, launch: Sequence[str]) -> Iterator[str]:
    for w in job.workloads:
        for mode in launch:
            for note in notes(w, job.arch, mode, "model"):
                yield note if len(job.workloads) == 1 else f"{w.name}: {note}"
