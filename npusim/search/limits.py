"""Constraints in a search: by how much a design breaks each, so that a search can leave them.

The bounds are those of `npusim.constraints`. A sweep of which no design is allowed is
refused; a search may start among such designs and find its way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.constraints import Constraint
from npusim.errors import InputError
from npusim.job import Job
from npusim.references import references

Array = NDArray[np.float64]

_ROUNDING = 1e-9  # as in `npusim.constraints`
_NO_FIGURE = 1e6  # a design without the figure is farther off than any with it


@dataclass(frozen=True)
class Limits:
    """Constraints with the figures of the machines that they compare with.

    Attributes
    ----------
    constraints : tuple of Constraint
    references : mapping of str to mapping of str to float
        See `npusim.constraints.Constraint.bounds`.

    Examples
    --------
    >>> t = pd.DataFrame({"power_w": [100.0, 300.0]})
    >>> limits = Limits((Constraint("power_w", most=250.0),))
    >>> limits.excess(t).tolist(), limits.allowed(t).tolist()
    ([[0.0], [0.2]], [True, False])
    """

    constraints: tuple[Constraint, ...] = ()
    references: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def excess(self, table: pd.DataFrame) -> Array:
        """Return how far designs lie beyond each bound, as a share of it, shape (D, C).

        Raises
        ------
        InputError
            Designs do not have the figure.
        """
        found = np.zeros((len(table), len(self.constraints)))
        for i, one in enumerate(self.constraints):
            if one.column not in table:
                raise InputError("the designs do not have it", place=f"constraints.{one.column}")
            low, high = one.bounds(self.references)
            ends = [abs(end) for end in (low, high) if np.isfinite(end)]
            scale = max(ends, default=0.0)
            values = table[one.column].to_numpy(float)
            over = np.maximum(np.maximum(low - values, values - high), 0.0)
            over = np.where(over <= _ROUNDING * scale, 0.0, over / (scale or 1.0))
            found[:, i] = np.where(np.isnan(values), _NO_FIGURE, np.minimum(over, _NO_FIGURE))
        return found

    def allowed(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Return which designs meet all constraints, shape (D,)."""
        fits: NDArray[np.bool_] = (self.excess(table) == 0).all(axis=1)
        return fits


def limits_of(job: Job) -> Limits:
    """Return the constraints of a job; those that are like a machine with its figures.

    Raises
    ------
    InputError
        A machine does not have the figure.
    """
    found = references(job)
    limits = Limits(job.constraints, found)
    for one in limits.constraints:
        one.bounds(found)  # refuses a machine without the figure before the search
    return limits
