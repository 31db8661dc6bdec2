"""Axes of a sweep: the values that each has, the range they stand for, and when they count.

An axis may hang on others (``when``): it counts where every one of these parents is what its
condition asks for. Where it does not count it is off: designs keep what the machine has, and are
not multiplied by its values. An axis whose parent is off is off itself. Parents are axes, the
launch mode (``launch``) and the machine (``arch``).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.arch import check, is_whole
from npusim.errors import InputError
from npusim.parameters import PARAMETERS
from npusim.units import CHOICES

LAUNCH, ARCH = "launch", "arch"
METHODS = ("sobol", "lhs", "random")
MOST_SAMPLES = 10_000_000
_SAME = 1e-9  # share by which a computed value of a range may be off what a condition names


@dataclass(frozen=True)
class Condition:
    """What a parent must be: one of some values, or between two ends.

    Attributes
    ----------
    values : tuple of float or str
        Any of these [SI]; names of launch modes and machines are text. Empty for any.
    least, most : float
        Ends, both included [SI].
    """

    values: tuple[float | str, ...] = ()
    least: float = -math.inf
    most: float = math.inf

    def holds(self, value: float | str) -> bool:
        """Return whether a parent of one value meets it.

        Examples
        --------
        >>> Condition(least=1.0).holds(70.0), Condition(("graph", "queue")).holds("eager")
        (True, False)
        """
        if isinstance(value, str):
            return value in self.values
        return bool(self.met(np.array([value]))[0])

    def met(self, column: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which of N values of a parent meet it, shape (N,)."""
        slack = _SAME * np.abs(column)
        fits = (column >= self.least - slack) & (column <= self.most + slack)
        if self.values:
            wanted = np.array([v for v in self.values if not isinstance(v, str)], dtype=float)
            fits &= (np.abs(column[:, None] - wanted) <= slack[:, None]).any(axis=1)
        return np.asarray(fits, dtype=np.bool_)


@dataclass(frozen=True)
class Axis:
    """One axis of a sweep.

    Attributes
    ----------
    values : tuple of float
        Values of a grid [SI]; of a range both ends are among them, first and last.
    scale : str
        ``linear`` or ``log`` of a range, empty of a list. Samples of a range lie anywhere on it.
    steps : bool
        Whether a grid can count it: a range without steps is for samples alone.
    when : mapping of str to Condition
        What each parent must be for the axis to count; all of it, always, if empty.
    """

    values: tuple[float, ...]
    scale: str = ""
    steps: bool = True
    when: Mapping[str, Condition] = field(default_factory=dict)


@dataclass(frozen=True)
class Samples:
    """How many designs to draw from a space, in place of its grid.

    Attributes
    ----------
    count : int
        Points drawn.
    method : str
        One of `METHODS`: a scrambled Sobol sequence, a Latin hypercube, or independent draws.
    seed : int
        The same seed draws the same points.

    Raises
    ------
    InputError
        A count, method or seed that cannot be.
    """

    count: int
    method: str = "sobol"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("count", "seed"):
            if type(getattr(self, name)) is not int:
                raise InputError("not a whole number", place=f"samples.{name}",
                                 value=getattr(self, name))  # fmt: skip
        if not 1 <= self.count <= MOST_SAMPLES:
            raise InputError("not a number of samples", place="samples.count", value=self.count,
                             allowed=f"1 to {MOST_SAMPLES}")  # fmt: skip
        if self.method not in METHODS:
            raise InputError("unknown method", place="samples.method", value=self.method,
                             allowed=", ".join(METHODS))  # fmt: skip
        if not 0 <= self.seed < 2**63:
            raise InputError("not a seed", place="samples.seed", value=self.seed,
                             allowed="a whole number from 0")  # fmt: skip


def discrete(path: str) -> bool:
    """Return whether a parameter has whole numbers or names alone.

    Examples
    --------
    >>> discrete("units.count"), discrete("gemv.port"), discrete("units.clock")
    (True, True, False)
    """
    return is_whole(path) or PARAMETERS[path].unit in CHOICES


def checked(path: str, value: float) -> float:
    """Return a value of an axis if the parameter can have it [SI].

    Raises
    ------
    InputError
        Out of bounds, or between two whole numbers or names.
    """
    check(path, value)
    if discrete(path) and value != math.floor(value):
        raise InputError("lies between two names", place=path, value=value,
                         hint="list names where a range has others")  # fmt: skip
    return value


def parents_first(axes: Mapping[str, Axis]) -> list[str]:
    """Return the axes so that each comes behind those that it hangs on; see `faults` for circles.

    Examples
    --------
    >>> axes = {"gemv.width": Axis((32.0,), when={"gemv.count": Condition(least=1.0)}),
    ...         "gemv.count": Axis((0.0, 70.0))}
    >>> parents_first(axes)
    ['gemv.count', 'gemv.width']
    """
    done: dict[str, None] = {}

    def visit(path: str) -> None:
        for parent in axes[path].when:
            if parent in axes and parent not in done:
                visit(parent)
        done[path] = None

    for path in axes:
        if path not in done:
            visit(path)
    return list(done)


def faults(
    axes: Mapping[str, Axis], others: Mapping[str, Collection[str]]
) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Yield what is wrong with conditions: axis, parent, problem, and the rest of an `InputError`.

    Parameters
    ----------
    axes : mapping of str to Axis
    others : mapping of str to collection of str
        Names that ``launch`` and ``arch`` can be, where they are known.
    """
    for path, axis in axes.items():
        for parent, condition in axis.when.items():
            if parent in (LAUNCH, ARCH):
                wrong = [v for v in condition.values if v not in others.get(parent, (v,))]
                if wrong:
                    yield path, parent, "never holds", {
                        "value": wrong[0], "allowed": ", ".join(others[parent])
                    }  # fmt: skip
            elif parent not in axes:
                yield path, parent, "hangs on what is no axis of this sweep", {
                    "value": parent, "allowed": ", ".join((LAUNCH, ARCH, *axes)),
                    "hint": "a condition names an axis, launch or arch",
                }  # fmt: skip
            elif circle := _circle(axes, path, parent):
                yield path, parent, "hangs on itself", {
                    "value": " -> ".join(circle), "hint": "leave one of these conditions out"
                }  # fmt: skip
            elif not _can_hold(parent, axes[parent], condition):
                ends = axes[parent].values
                yield path, parent, "never holds", {
                    "value": f"{parent} from {min(ends):.6g} to {max(ends):.6g}",
                    "hint": "no value of the parent meets it: the axis would never count",
                }  # fmt: skip


def _circle(axes: Mapping[str, Axis], path: str, parent: str) -> list[str]:
    """Return a way from a parent back to the axis itself, empty if there is none."""
    ways, seen = [[path, parent]], {parent}
    while ways:
        way = ways.pop()
        if way[-1] == path:
            return way
        new = [p for p in axes[way[-1]].when if p in axes and (p not in seen or p == path)]
        seen.update(new)
        ways += [[*way, p] for p in new]
    return []


def _can_hold(path: str, parent: Axis, condition: Condition) -> bool:
    if any(condition.holds(value) for value in parent.values):
        return True
    if parent.steps and not parent.scale:
        return False
    low, high = min(parent.values), max(parent.values)
    if condition.values:  # of a continuous range no value is ever drawn exactly
        inside = (isinstance(v, float) and low <= v <= high for v in condition.values)
        return discrete(path) and any(inside)
    return condition.least <= high and condition.most >= low
