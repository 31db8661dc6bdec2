"""A front without evaluating a whole space: NSGA-II over the places of values.

A design is a list of whole numbers: its machine, its launch mode and the place of its value on each
axis. Each
generation makes as many children of good designs as there are designs; of both, those of the best
front stay, and within a front those with most room around them. Designs that break constraints
come behind all that do not, those that break them least first.

Sources: K. Deb, A. Pratap, S. Agarwal, T. Meyarivan, "A fast and elitist multiobjective genetic
algorithm: NSGA-II", IEEE Trans. Evol. Comput. 6(2), 2002, doi:10.1109/4235.996017; as implemented
by J. Blank, K. Deb, "pymoo: Multi-Objective Optimization in Python", IEEE Access 8, 2020,
doi:10.1109/ACCESS.2020.2990567.

Limits: a heuristic; nothing says how far the front found is from the true one. With more than three
objectives most designs beat each other in something, and the search has little to go by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.search.choices import Choices
from npusim.search.limits import Limits
from npusim.search.points import Points, Progress
from npusim.sweeps.front import figures, pareto

Array = NDArray[np.float64]

_SPREAD = 3.0  # of children around parents: small, so that a place can change by more than one


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes
    ----------
    table : DataFrame
        Every design that was evaluated, with ``allowed``: whether it meets the constraints.
    front : DataFrame
        Those of the allowed ones that no other beats.
    objectives : tuple of str
    """

    table: pd.DataFrame
    front: pd.DataFrame
    objectives: tuple[str, ...]

    @property
    def evaluations(self) -> int:
        """How many distinct designs were evaluated."""
        return len(self.table)


def judged(points: Points, objectives: Sequence[str], limits: Limits) -> Found:
    """Return all that some points have evaluated, and the front of what is allowed of it.

    Raises
    ------
    InputError
        An objective that designs do not have.
    """
    table = points.table.assign(allowed=limits.allowed(points.table))
    return Found(table, pareto(table[table["allowed"]], objectives), tuple(objectives))


def nsga2(
    choices: Choices,
    points: Points,
    objectives: Sequence[str],
    limits: Limits | None = None,
    population: int = 48,
    generations: int = 25,
    seed: int = 0,
    progress: Progress | None = None,
) -> Found:
    """Search for designs that no other beats.

    Parameters
    ----------
    choices : Choices
        Where to search.
    points : Points
        What evaluates designs; what it knows already costs nothing and is part of the result.
    objectives : sequence of str
        Columns to make small.
    limits : Limits, optional
        What designs must keep.
    population, generations : int
        Designs of a generation, and generations, the first included: at most population x
        generations designs are evaluated.
    seed : int
        Equal seeds give equal searches.
    progress : callable, optional
        Called with (generations done, generations in all).

    Raises
    ------
    InputError
        pymoo is not installed, no axis with two values, or an objective that designs lack.

    Examples
    --------
    >>> import npusim as ns
    >>> axes = {"units.count": [33, 66, 132], "host.sync": [1e-6, 3e-6]}
    >>> choices = Choices.of(ns.Space(ns.load_arch("h200"), axes, ["graph"]))
    >>> points = Points(ns.load_arch("h200"), list(axes),
    ...                 [ns.load_workload("paddleocr_vl_decode")])
    >>> found = nsga2(choices, points, ["wall_s", "units.count"], population=4, generations=4)
    >>> sorted(set(found.front["units.count"]))
    [33.0, 66.0, 132.0]
    """
    limits = limits or Limits()
    free = [i for i, size in enumerate(choices.sizes) if size > 1]
    if not free:
        raise InputError("no axis with two values to search")
    if population < 2 or generations < 1:
        raise InputError("too small", value=f"{population} x {generations}",
                         allowed="populations from 2, generations from 1")  # fmt: skip
    algorithm, evaluated = _algorithm(choices, free, len(objectives), len(limits.constraints),
                                      population, generations, seed)  # fmt: skip
    done = 0
    while done < generations and algorithm.has_next():
        asked = algorithm.ask()
        if asked is None or not len(asked):
            break  # every neighbour of the population is known
        places = np.zeros((len(asked), len(choices.sizes)), dtype=np.intp)
        places[:, free] = np.rint(asked.get("X").astype(float)).astype(np.intp)
        table = points(choices.points(places))
        algorithm.tell(infills=evaluated(asked, *_scores(table, objectives, limits)))
        done += 1
        if progress is not None:
            progress(done, generations)
    return judged(points, objectives, limits)


def _scores(table: pd.DataFrame, objectives: Sequence[str], limits: Limits) -> tuple[Array, Array]:
    """Return objectives and how far each constraint is broken; no number is a broken one."""
    values = figures(table, objectives)
    lost = ~np.isfinite(values).all(axis=1)
    values[lost] = 0.0  # compared by what they break alone
    return values, np.column_stack([limits.excess(table), 1.0 * lost])


def _algorithm(
    choices: Choices, free: Sequence[int], objectives: int, constraints: int, population: int,
    generations: int, seed: int,
) -> tuple[Any, Any]:  # fmt: skip
    """Return pymoo's NSGA-II, and what hands it scores."""
    try:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.evaluator import Evaluator
        from pymoo.core.problem import Problem
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import IntegerRandomSampling
        from pymoo.problems.static import StaticProblem
    except ImportError:
        raise InputError("needs pymoo", place="search",
                         hint='pip install "npusim[search]"') from None  # fmt: skip
    top = np.array([choices.sizes[i] - 1 for i in free])
    problem = Problem(n_var=len(free), n_obj=objectives, n_ieq_constr=constraints + 1,
                      xl=np.zeros(len(free), dtype=int), xu=top, vtype=int)  # fmt: skip
    whole = {"eta": _SPREAD, "vtype": float, "repair": RoundingRepair()}
    algorithm = NSGA2(pop_size=population, sampling=IntegerRandomSampling(),
                      crossover=SBX(prob=1.0, **whole), mutation=PM(prob=1.0, **whole),
                      eliminate_duplicates=True)  # fmt: skip
    algorithm.setup(problem, termination=("n_gen", generations), seed=seed, verbose=False)

    def evaluated(asked: Any, values: Array, broken: Array) -> Any:
        Evaluator().eval(StaticProblem(problem, F=values, G=broken), asked)
        return asked

    return algorithm, evaluated
