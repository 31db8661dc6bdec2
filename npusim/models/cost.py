"""What the device time of a kernel is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PARAMETERS = ()  # reads none itself

# What computes an operation: compute units with their matrix and vector units, or a unit beside.
PLACES = ("units", "gemv_unit", "array")


@dataclass(frozen=True)
class Cost:
    """Device time of U operations on D designs, by what it is spent on, each (U, D) [s].

    Attributes
    ----------
    floor : array
        Latency that neither bandwidth nor arithmetic explains.
    memory, compute : array
        Transfers and arithmetic. They overlap: what both take counts to the longer one.
    channel : array or float
        How long DRAM is at work for it, whatever else overlaps.
    ahead : array or float
        The part of `channel` that loads weights, which could be there before the kernel starts.
    gain : array or float
        How much shorter it is if all of them are.
    place : array or float
        Which unit computes it, by its place in `PLACES`.
    """

    floor: Array
    memory: Array
    compute: Array
    channel: Array | float = 0.0
    ahead: Array | float = 0.0
    gain: Array | float = 0.0
    place: Array | float = 0.0

    @property
    def time(self) -> Array:
        """Their sum, shape (U, D) [s]."""
        return self.floor + self.memory + self.compute

    def at(self, place: str) -> Array:
        """Return 1 where an operation is computed by one of `PLACES`, 0 elsewhere, (U, D)."""
        there: Array = np.equal(self.place, PLACES.index(place)).astype(np.float64)
        return np.broadcast_to(there, self.floor.shape)


def overlapped(
    floor: Array, memory: Array, compute: Array, busy: Array, channel: Array | float = 0.0,
    ahead: Array | float = 0.0, gain: Array | float = 0.0,
) -> Cost:  # fmt: skip
    """Return the cost of a kernel that is busy for `busy` seconds beside its floor.

    Examples
    --------
    >>> one, two, three = (np.array([[x]]) for x in (1.0, 2.0, 3.0))
    >>> cost = overlapped(one, two, three, busy=np.array([[3.5]]))
    >>> cost.memory.item(), cost.compute.item(), cost.time.item()
    (0.0, 3.5, 4.5)
    """
    longer = memory >= compute
    shape = busy.shape
    return Cost(
        np.broadcast_to(floor, shape), np.where(longer, busy, 0.0), np.where(longer, 0.0, busy),
        channel, ahead, gain,
    )  # fmt: skip


def smooth_max(a: Array, b: Array, power: Array) -> Array:
    """Return ``(a^p + b^p)^(1/p)``: the sum for p = 1, the larger one for large p.

    Examples
    --------
    >>> smooth_max(np.array([3.0]), np.array([4.0]), np.array([2.0])).item()
    5.0
    """
    larger = np.maximum(a, b)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(larger > 0, np.minimum(a, b) / larger, 0.0)
    result: Array = larger * (1.0 + ratio**power) ** (1.0 / power)
    return result


def lapped(a: Array, b: Array, most: Array) -> Array:
    """Return the larger of two times, and what two resources lose that overlap but for their ends.

    What is lost is ``sqrt(a^2 + b^2) - max(a, b)`` while it is short, and never more than `most`,
    which is finite.

    Examples
    --------
    >>> three, four = np.array([3.0]), np.array([4.0])
    >>> [lapped(three, four, np.array([most])).item() for most in (0.0, 1.0, 1e30)]
    [4.0, 4.5, 5.0]
    """
    larger, smaller = np.maximum(a, b), np.minimum(a, b)
    ratio = np.divide(smaller, larger, out=np.zeros(larger.shape),
                      where=(larger > 0) & np.isfinite(larger))  # fmt: skip
    lost = np.where(ratio > 0, smaller, 0.0) * ratio  # no difference of large numbers
    lost = lost / (1.0 + np.sqrt(1.0 + ratio**2))
    both = lost + most
    kept: Array = np.divide(lost * most, both, out=np.zeros(both.shape), where=both > 0)
    return larger + kept


def smooth_min(a: Array, b: Array, power: float) -> Array:
    """Return ``(a^-p + b^-p)^(-1/p)``: well below both where they meet, the smaller one elsewhere.

    Examples
    --------
    >>> smooth_min(np.array([1.0]), np.array([1.0]), 1.0).item()
    0.5
    """
    slower = np.minimum(a, b)
    result: Array = slower / (1.0 + (slower / np.maximum(a, b)) ** power) ** (1.0 / power)
    return result
