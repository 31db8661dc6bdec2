"""Bounded least squares on the logarithm of predicted over measured time.

Each variable is one parameter of one machine, or of several machines that share its value. It is
fitted by its logarithm where it is above zero. All columns of the Jacobian are designs of one call
of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from npusim.arch import Arch, Designs
from npusim.measured import Measured
from npusim.measured.period import predicted

Array = NDArray[np.float64]

LOSSES = ("linear", "soft_l1", "huber", "cauchy", "arctan")
_CLOSE = 1e-5  # relative change of cost or values at which a fit ends: far below their errors
_LARGE_RESIDUAL = 0.1  # of the logarithm: beyond it a robust loss grows more slowly
_STEP = 1e-4  # of a variable, for differences
_PROBES = (0.9, 1.1)  # times the value, beside both bounds, to see whether it counts at all
_UNSEEN = 1e-12
_UNMOVED = 1e-9
_FAR = 1e3  # how far below its value a parameter is probed whose bound is zero
_INSIDE = 0.1  # of a variable and of its range: on a bound itself the search would stand still
_REACH = 10.0  # how far from its value another start may lie

Pair = tuple[Measured, Arch]


@dataclass(frozen=True)
class Variable:
    """What is fitted: one parameter of one or more machines.

    Attributes
    ----------
    path : str
        Dotted path.
    pairs : tuple of int
        Which of the pairs of measurements and machine it is a parameter of.
    low, start, high : float
        Bounds, and the value to begin with [SI].
    """

    path: str
    pairs: tuple[int, ...]
    low: float
    start: float
    high: float

    def value(self, x: Array) -> Array:
        """Return the parameter from the variable; rounding does not carry it over a bound."""
        return np.clip(np.exp(x) if self.start > 0 else x * self.high, self.low, self.high)

    def x(self, value: float) -> float:
        """Return the variable from the parameter: its logarithm, or a share of the upper bound."""
        if self.start > 0:
            return float(np.log(value)) if value > 0 else -np.inf
        return value / self.high

    def probes(self) -> list[float]:
        """Return values at which it can be seen whether it counts."""
        low = max(self.low, self.start / _FAR)
        near = (min(max(self.start * p, self.low), self.high) for p in _PROBES)
        return [low, *near, self.high]


@dataclass(frozen=True)
class Solution:
    """Where the fit ended.

    Attributes
    ----------
    values : array, shape (P,)
        Of the variables [SI].
    standard_error : array, shape (P,)
        Of each [SI], from the Jacobian and the robust cost at the end; not-a-number where the
        measurements do not tell.
    """

    values: Array
    standard_error: Array


class Fit:
    """Measured operations and the variables to explain them by."""

    def __init__(self, pairs: Sequence[Pair], variables: Sequence[Variable]) -> None:
        self.pairs = pairs
        self.variables = variables

    def residuals(self, values: Array) -> Array:
        """Return log(predicted / measured) of all N operations, pair after pair.

        Parameters
        ----------
        values : array, shape (P, D)
            D designs: the value of each variable in each [SI].

        Returns
        -------
        array, shape (N, D)
        """
        parts = []
        for i, (measured, arch) in enumerate(self.pairs):
            its = [j for j, v in enumerate(self.variables) if i in v.pairs]
            # Designs that differ in other machines' parameters only are one on this machine.
            few, which = np.unique(values[its], axis=1, return_inverse=True)
            paths = [self.variables[j].path for j in its]
            designs = Designs(arch, dict(zip(paths, few, strict=True)))
            log = np.log(predicted(measured, designs) / measured.seconds[:, None])
            parts.append(log[:, which.reshape(-1)])
        return np.concatenate(parts)

    def start(self) -> Array:
        """Return the values to begin with, shape (P,) [SI]."""
        return np.array([v.start for v in self.variables])

    def seen(self) -> NDArray[np.int64]:
        """Return how many operations each variable moves, alone and anywhere in its bounds."""
        moved = []
        for j, variable in enumerate(self.variables):
            probes = variable.probes()
            values = np.repeat(self.start()[:, None], 1 + len(probes), axis=1)
            values[j, 1:] = probes
            log = self.residuals(values)
            moved.append(int((np.ptp(log, axis=1) > _UNSEEN).sum()))
        return np.array(moved, dtype=np.int64)

    def solve(self, loss: str, starts: int, seed: int) -> Solution:
        """Return the best end of some starts: the first at the values given, others at random."""
        x_low, x_high = (np.array([v.x(b) for v, b in zip(self.variables, bounds, strict=True)])
                         for bounds in ([v.low for v in self.variables],
                                        [v.high for v in self.variables]))  # fmt: skip
        begins = list(self._starts(starts, seed, x_low, x_high))
        ends = [
            least_squares(
                lambda x: self.residuals(self._values(x[:, None]))[:, 0], x0,
                jac=lambda x: self._jacobian(x, x_low, x_high), bounds=(x_low, x_high),
                method="trf", x_scale="jac", loss=loss, f_scale=_LARGE_RESIDUAL,
                ftol=_CLOSE, xtol=_CLOSE,
            )
            for x0 in begins
        ]  # fmt: skip
        best = min(range(starts), key=lambda i: float(ends[i].cost))
        end, values = ends[best], self._values(ends[best].x[:, None])[:, 0]
        if best == 0:  # what no gradient moved stays as given, were it on its bound
            values = np.where(np.abs(end.x - begins[0]) < _UNMOVED, self.start(), values)
        return Solution(values, self._standard_error(end.jac, float(end.cost), values))

    def _values(self, x: Array) -> Array:
        """Return the parameters of D designs from the variables, both (P, D)."""
        return np.array([v.value(row) for v, row in zip(self.variables, x, strict=True)])

    def _starts(self, starts: int, seed: int, low: Array, high: Array) -> Iterator[Array]:
        first = np.array([v.x(v.start) for v in self.variables])
        random = np.random.default_rng(seed)
        far = np.array([np.log(_REACH) if v.start > 0 else 1.0 for v in self.variables])
        inside = np.minimum(_INSIDE, _INSIDE * (high - low))
        for number in range(starts):
            away = random.uniform(-far, far) if number else np.zeros(len(first))
            yield np.clip(first + away, low + inside, high - inside)

    def _jacobian(self, x: Array, low: Array, high: Array) -> Array:
        """Return d residual / d variable by central differences, one-sided at a bound, (N, P)."""
        count = len(x)
        up, down = np.minimum(x + _STEP, high), np.maximum(x - _STEP, low)
        designs = np.repeat(x[:, None], 2 * count, axis=1)
        designs[np.arange(count), np.arange(count)] = up
        designs[np.arange(count), np.arange(count) + count] = down
        log = self.residuals(self._values(designs))
        slope: Array = (log[:, :count] - log[:, count:]) / (up - down)
        return slope

    def _standard_error(self, jacobian: Array, cost: float, values: Array) -> Array:
        """Return sqrt(diag((J^T J)^-1) s^2) with s^2 = 2 cost / (N - P), per parameter [SI]."""
        count, free = jacobian.shape
        if count <= free:
            return np.full(free, np.nan)
        covariance = np.linalg.pinv(jacobian.T @ jacobian) * 2 * cost / (count - free)
        error = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        scale = [v if of.start > 0 else of.high
                 for v, of in zip(values, self.variables, strict=True)]  # fmt: skip
        return np.where(np.abs(jacobian).sum(axis=0) > 0, error * np.array(scale), np.nan)
