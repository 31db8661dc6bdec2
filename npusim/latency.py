"""Latencies of requests, and what a published summary of them says about a single slow one.

Percentiles are those of `numpy.percentile` with its default, linear interpolation: of n samples in
order, percentile q lies at index ``q / 100 x (n - 1)``, between the two samples around it. Of few
samples a high percentile is thus no sample at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Latency:
    """What is usually told of many latencies.

    Attributes
    ----------
    count : int
    mean_s, p50_s, p95_s, p99_s, most_s : float
        Mean, median, 95th and 99th percentile and the largest [s].
    """

    count: int
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    most_s: float


def summary(seconds: Sequence[float] | Array) -> Latency:
    """Return mean and percentiles of some latencies.

    Parameters
    ----------
    seconds : sequence of float, shape (N,)
        Latencies [s].

    Raises
    ------
    InputError
        No latencies, or one that is negative or no number.

    Examples
    --------
    >>> summary(range(21))
    Latency(count=21, mean_s=10.0, p50_s=10.0, p95_s=19.0, p99_s=19.8, most_s=20.0)
    """
    values = np.asarray(seconds, dtype=np.float64)
    if values.size == 0:
        raise InputError("no latencies", allowed="at least one")
    wrong = values[~(np.isfinite(values) & (values >= 0))]
    if wrong.size:
        raise InputError("not a latency", value=float(wrong[0]), allowed="0 s or more")
    p50, p95, p99 = (float(p) for p in np.percentile(values, [50, 95, 99]))
    return Latency(values.size, float(values.mean()), p50, p95, p99, float(values.max()))


def slow_one(count: int, mean_s: float, usual_s: float) -> float:
    """Return the one latency that differs, if all others are as usual and the mean is known [s].

    The mean of n samples, n - 1 of them u and one s, is ``((n - 1) u + s) / n``; solved for s.

    Parameters
    ----------
    count : int
        Samples, the slow one included.
    mean_s, usual_s : float
        Mean of all; each of the others [s].

    Raises
    ------
    InputError
        No samples, numbers that are none, or a mean that no slow sample makes.

    Examples
    --------
    A run of ten requests with a median of 0.3333 s and a mean of 1.7370 s:

    >>> round(slow_one(10, 1.7370, 0.3333), 2)
    14.37
    """
    if count < 1:
        raise InputError("no samples", value=count, allowed="1 or more")
    slow = count * mean_s - (count - 1) * usual_s
    if not (math.isfinite(slow) and 0 <= usual_s <= slow):
        raise InputError("no single slow sample makes this mean", value=f"{mean_s:g} s",
                         allowed=f"{usual_s:g} s (the usual) or more")  # fmt: skip
    return slow


def with_slow_one(count: int, mean_s: float, usual_s: float) -> Latency:
    """Return the summary of samples that are all as usual but for one, given their mean.

    What else was published (a percentile, say) tells whether there was one slow sample, and of
    how many.

    Examples
    --------
    >>> round(with_slow_one(10, 1.7370, 0.3333).p95_s, 3)
    8.054
    """
    return summary([*[usual_s] * (count - 1), slow_one(count, mean_s, usual_s)])
