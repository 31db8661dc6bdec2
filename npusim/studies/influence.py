"""Which assumed number a claim hangs on most, and from which value of it the claim would fall.

Every assumed number is moved alone to the ends of its range, all others nominal. From the one that
moves the figure most the break-even is looked for within what any real or imagined machine respects
(the bounds of `npusim.parameters`): values on a grid, then on a finer one between those that
disagree. If no value of it flips the claim, the one that moves the figure next is asked.

Limits: one number at a time. A break-even is of the figure itself, not of its band.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.arch import is_whole
from npusim.fusion.program import ENGINE
from npusim.studies.claim import Rule
from npusim.studies.value import Doubt
from npusim.units import CHOICES, show

Array = NDArray[np.float64]
Key = tuple[str, str]  # machine (or quantity) and dotted path

POINTS = 13
ASKED = 2  # of those that move the figure most
_STILL = 1e-6
_CHARTED = 10
_FAR = 100.0  # times the range, where bounds are wider


@dataclass(frozen=True)
class Influence:
    """An assumed number that a claim hangs on.

    Attributes
    ----------
    name : str
        Its dotted path.
    doubt : Doubt
    low, high : float
        The figure at the ends of its range.
    flips : float or None
        Value at which the claim would fall, or come to hold [SI]; None if none does.
    searched : (float, float)
        Where it was looked for [SI].
    tornado : tuple of (str, float, float, str, str)
        The numbers that move the figure most: name, figure at either end, and these ends in words.
    also : Influence or None
        Where no value of it flips the claim: what moves the figure next and does.
    """

    name: str
    doubt: Doubt
    low: float
    high: float
    flips: float | None
    searched: tuple[float, float]
    tornado: tuple[tuple[str, float, float, str, str], ...] = ()
    also: Influence | None = None

    def assumed(self) -> str:
        """Return what is assumed, in words."""
        d = self.doubt
        return f"{show(d.nominal, d.unit)} ({show(d.low, d.unit)} to {show(d.high, d.unit)})"

    def break_even(self) -> str:
        """Return where the claim flips, in words."""
        d = self.doubt
        if self.flips is None:
            if d.unit in CHOICES:
                return "none of its names flips it"
            ends = " to ".join(show(end, d.unit) for end in self.searched)
            return f"no value from {ends} flips it"
        if d.unit in CHOICES:
            return f"flips at {show(self.flips, d.unit)}"
        if self.name.split(" of ")[0] in ENGINE:
            return f"flips at {show(self.flips, d.unit, 3)}"
        side = "above" if self.flips > d.nominal else "below"
        return f"flips {side} {show(self.flips, d.unit, 3)}"

    def text(self) -> str:
        """Return break-even, and that of what moves the figure next where it has none."""
        if self.also is None:
            return self.break_even()
        return f"{self.break_even()}; {self.also.name} {self.also.break_even()}"


def ends(path: str, doubt: Doubt) -> tuple[float, float]:
    """Return between which values a break-even is looked for [SI]."""
    low, high = doubt.bounds
    if doubt.unit in CHOICES:
        return low, high
    reach = max(abs(doubt.high), abs(doubt.nominal))
    least = max(low, min(doubt.low, doubt.nominal) / _FAR)
    most = min(high, reach * _FAR)
    return (float(np.ceil(least)), float(np.floor(most))) if is_whole(path) else (least, most)


def grid(path: str, doubt: Doubt, low: float, high: float) -> Array:
    """Return values between two ends, or the few that are quickly asked, (P,) [SI]."""
    if doubt.unit in CHOICES:
        return np.arange(low, high + 1)
    if path in ENGINE:  # each value is another program, which takes a second to make
        return np.unique(np.array([doubt.low, doubt.nominal, doubt.high]))
    if low > 0 and high >= 10 * low:
        found = np.geomspace(low, high, POINTS)
    else:
        found = np.linspace(low, high, POINTS)
    found = np.clip(found, low, high)
    return np.unique(np.rint(found)) if is_whole(path) else found


def swings(figures: Mapping[Key, tuple[float, float]]) -> list[Key]:
    """Return the keys of what moves a figure, the widest swing first.

    Examples
    --------
    >>> swings({("m", "a"): (1.0, 1.0), ("m", "b"): (0.9, 1.2), ("m", "c"): (1.0, 0.6)})
    [('m', 'c'), ('m', 'b')]
    """
    moved = {name: abs(high - low) for name, (low, high) in figures.items()
             if abs(high - low) > _STILL * max(abs(low), abs(high))}  # fmt: skip
    return sorted(moved, key=lambda name: -moved[name])


def bracket(
    values: Array, figures: Array, nominal: float, rule: Rule, held: bool
) -> tuple[float, float] | None:
    """Return the values between which a claim flips, nearest to the nominal value, or None.

    Examples
    --------
    >>> bracket(np.array([1.0, 2.0, 3.0]), np.array([0.8, 0.9, 1.2]), 1.0, Rule(most=1.0), True)
    (2.0, 3.0)
    """
    holds = np.array([rule.margin(float(x)) >= 0 for x in figures])
    other = holds != held
    if not other.any():
        return None
    far = np.flatnonzero(other)
    at = int(far[np.argmin(np.abs(values[far] - nominal))])
    inner = at - 1 if values[at] > nominal else at + 1
    if not 0 <= inner < len(values) or holds[inner] == holds[at]:
        return float(nominal), float(values[at])
    return float(values[inner]), float(values[at])


def most_influential(
    called: Callable[[Key], str],
    doubts: Mapping[Key, Doubt],
    moved: Mapping[Key, tuple[float, float]],
    flips: Mapping[Key, float | None],
) -> Influence | None:
    """Return the assumed number that moves a figure most; None if none does.

    Parameters
    ----------
    called : callable
        From a key to its name in words.
    doubts : mapping of key to Doubt
    moved : mapping of key to (float, float)
        The figure at the ends of the range of each.
    flips : mapping of key to float or None
        Where the claim flips, of those that were asked.
    """
    order = swings(moved)
    if not order:
        return None
    rows = tuple((called(key), *moved[key], *_shown_ends(doubts[key])) for key in order[:_CHARTED])

    def made(key: Key, also: Influence | None) -> Influence:
        span = ends(key[1], doubts[key])
        return Influence(called(key), doubts[key], *moved[key], flips[key], span, rows, also)

    first = order[0]
    other = next((key for key in order[1:] if flips.get(key) is not None), None)
    return made(first, made(other, None) if flips[first] is None and other else None)


def _shown_ends(doubt: Doubt) -> tuple[str, str]:
    return show(doubt.low, doubt.unit), show(doubt.high, doubt.unit)
