"""What a claim is decided by: a value with its band, and the assumed numbers it hangs on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Doubt:
    """An assumed number.

    Attributes
    ----------
    nominal, low, high : float
        What is assumed, and the range in which the true value is believed to lie [SI].
    unit : str
        Its unit.
    source : str
        What the assumption rests on.
    bounds : (float, float)
        What any real or imagined machine respects [SI]; break-evens are looked for in it.
    """

    nominal: float
    low: float
    high: float
    unit: str
    source: str
    bounds: tuple[float, float]


@dataclass(frozen=True)
class Value:
    """A measured quantity.

    Attributes
    ----------
    value, low, high : float
        The quantity, and the ends of its band [SI].
    reason : str
        Why it is what it is, in a sentence with figures.
    data : tuple of str
        Workloads, machines and files that it comes from.
    """

    value: float
    low: float
    high: float
    reason: str
    data: tuple[str, ...]
