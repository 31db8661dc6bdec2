"""Which axes a figure of designs hangs on: Sobol indices, global over the ranges of all axes.

Every axis is drawn from its range (`npusim.search.ranges`), free of the others. The variance of the
figure is then split:

    first_i = Var(E[y | x_i]) / Var(y)                axis i alone
    total_i = 1 - Var(E[y | all but x_i]) / Var(y)    axis i and what it does with others

An axis whose total is 0 has no effect anywhere in the space; a total far above the first says that
its effect hangs on other axes. First indices sum to at most 1, totals to at least 1.

Sources: I. M. Sobol', "Global sensitivity indices for nonlinear mathematical models and their Monte
Carlo estimates", Math. Comput. Simul. 55, 2001, doi:10.1016/S0378-4754(00)00270-6; estimators of
A. Saltelli et al., "Variance based sensitivity analysis of model output", Comput. Phys. Commun.
181(2), 2010, doi:10.1016/j.cpc.2009.09.018; as implemented by J. Herman, W. Usher, "SALib: an
open-source Python library for sensitivity analysis", J. Open Source Softw. 2(9), 2017,
doi:10.21105/joss.00097.

Left out: indices of pairs; axes that hang on each other (each is drawn as if it always counted);
constraints (all designs count); axes of the workloads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.search.ranges import Range

Array = NDArray[np.float64]

_RESAMPLES = 200
_STILL = 1e-12  # relative spread: less of it is rounding


def sobol(
    figure: Callable[[pd.DataFrame], Array],
    ranges: Mapping[str, Range],
    samples: int = 512,
    seed: int = 0,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return first-order and total Sobol indices of a figure.

    Parameters
    ----------
    figure : callable
        From N designs, a column an axis, to their figures, shape (N,).
    ranges : mapping of str to Range
        Of A axes.
    samples : int
        Base samples, a power of two; (A + 2) times as many designs are evaluated.
    seed : int
    confidence : float
        Level of the intervals.

    Returns
    -------
    DataFrame
        One row an axis, the largest total first: ``axis``, ``first`` and ``total`` [1], and half
        widths of their confidence intervals ``first_conf``, ``total_conf`` (bootstrap). All zero
        where the figure never changes. Small indices may come out below 0, within their interval.

    Raises
    ------
    InputError
        SALib is not installed, no axis, samples that are no power of two, or a figure that is not a
        number somewhere.

    Examples
    --------
    y = 2 a + b, both even from 0 to 1: a has 4 / 5 of the variance.

    >>> even = {"a": Range((0.0, 1.0)), "b": Range((0.0, 1.0))}
    >>> found = sobol(lambda t: (2 * t["a"] + t["b"]).to_numpy(), even, samples=256)
    >>> found["axis"].tolist(), found["total"].round(1).tolist()
    (['a', 'b'], [0.8, 0.2])
    """
    if not ranges:
        raise InputError("no axis of the machine with two values to vary")
    if samples < 8 or samples & (samples - 1):
        raise InputError("not a number of samples", value=samples,
                         allowed="powers of two from 8")  # fmt: skip
    sampler, analyzer = _salib()
    names = list(ranges)
    problem = {"num_vars": len(names), "names": names, "bounds": [[0.0, 1.0]] * len(names)}
    shares = sampler.sample(problem, samples, calc_second_order=False, seed=seed)
    drawn = {path: ranges[path].at(share) for path, share in zip(names, shares.T, strict=True)}
    values = np.asarray(figure(pd.DataFrame(drawn)), dtype=float)
    if not np.isfinite(values).all():
        raise InputError("the figure is not a number for some designs",
                         value=f"{int((~np.isfinite(values)).sum())} of {len(values)}")  # fmt: skip
    columns = ("first", "first_conf", "total", "total_conf")
    if np.ptp(values) <= _STILL * np.abs(values).max():
        found: Any = dict.fromkeys(("S1", "S1_conf", "ST", "ST_conf"), np.zeros(len(names)))
    else:
        # SALib takes a seed of 0 for none
        found = analyzer.analyze(problem, values, calc_second_order=False, seed=seed + 1,
                                 num_resamples=_RESAMPLES, conf_level=confidence)  # fmt: skip
    table = pd.DataFrame({"axis": names, **{
        column: np.asarray(found[key], dtype=float)
        for column, key in zip(columns, ("S1", "S1_conf", "ST", "ST_conf"), strict=True)
    }})  # fmt: skip
    order = np.argsort(-table["total"].to_numpy(), kind="stable")
    return table.iloc[order].reset_index(drop=True)


def _salib() -> tuple[Any, Any]:
    try:
        from SALib.analyze import sobol as analyzer
        from SALib.sample import sobol as sampler
    except ImportError:
        raise InputError("needs SALib", place="sensitivity",
                         hint='pip install "npusim[search]", or leave Sobol indices '
                         "out") from None  # fmt: skip
    return sampler, analyzer
