"""Time of one decode step of a batch, from throughputs that were measured.

A step dispatches its operations once, whatever the batch, and does some work for each request:

    t(B) = a + b B

with a the time of dispatching a step (host-bound: launches) and b the work of a request in it
(sampling, its share of the device). Aggregate throughput is ``B / t(B)``.

A throughput says this only if B requests were decoding all the time: where answers end early, or
where prefill is part of what was timed, b holds that too. Then simulate the run
(`npusim.serving`) rather than read b off it.

Left out: steps that grow with context, batches large enough to bind on compute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from npusim.errors import InputError


@dataclass(frozen=True)
class StepCost:
    """Time of a decode step, linear in its batch.

    Attributes
    ----------
    dispatch_s : float
        Of a step, whatever the batch: a [s].
    request_s : float
        Of each request in it: b [s].

    Raises
    ------
    InputError
        A time that is negative or no number.
    """

    dispatch_s: float
    request_s: float

    def __post_init__(self) -> None:
        for place, value in (("dispatch_s", self.dispatch_s), ("request_s", self.request_s)):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and value >= 0):
                raise InputError("not a time", place=place, value=value, allowed="0 s or more")

    def time(self, batch: int) -> float:
        """Return the time of a step of so many requests [s]."""
        return self.dispatch_s + self.request_s * batch

    def tokens_per_s(self, batch: int) -> float:
        """Return the tokens a second of so many requests together."""
        return batch / self.time(batch)


def fit_step_cost(batches: Sequence[float], tokens_per_s: Sequence[float]) -> StepCost:
    """Fit the cost of a step to aggregate throughputs.

    Least squares on the times of steps, ``B / throughput``, with neither cost below zero.

    Parameters
    ----------
    batches : sequence of float, shape (N,)
        Requests that decode together.
    tokens_per_s : sequence of float, shape (N,)
        Tokens a second of all of them together.

    Returns
    -------
    StepCost
        Exact where two different batches are given and the larger one takes longer a step.

    Raises
    ------
    InputError
        Not as many throughputs as batches, fewer than two different batches, or a number that is
        not above zero.

    Examples
    --------
    >>> cost = fit_step_cost([1, 2], [45.9, 65.2])
    >>> [round(1e3 * t, 1) for t in (cost.dispatch_s, cost.request_s)]
    [12.9, 8.9]
    >>> round(cost.tokens_per_s(4), 1)
    82.6
    """
    batch = np.asarray(batches, dtype=np.float64)
    speed = np.asarray(tokens_per_s, dtype=np.float64)
    if batch.ndim != 1 or batch.shape != speed.shape:
        raise InputError("not one throughput a batch", value=f"{speed.size} for {batch.size}",
                         allowed="as many as batches")  # fmt: skip
    for what, values in (("batch", batch), ("throughput", speed)):
        wrong = values[~(np.isfinite(values) & (values > 0))]
        if wrong.size:
            raise InputError(f"not a {what}", value=float(wrong[0]), allowed="above 0")
    if np.unique(batch).size < 2:
        raise InputError("too few different batches to tell dispatch from work", value=batch.size,
                         allowed="2 or more")  # fmt: skip
    (dispatch, request), _ = nnls(np.column_stack([np.ones_like(batch), batch]), batch / speed)
    return StepCost(float(dispatch), float(request))
