"""The tables that say what changed between two captures.

Every table adds up: what its rows gained and lost is what the whole gained or lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

_SAME = 0.01  # relative change below which a row counts as unchanged


@dataclass(frozen=True)
class Change:
    """One group of operations in both captures, a step.

    Attributes
    ----------
    name : str
        Kernel (as the first capture that has it spells it), kind, library, operator, with shape.
    count_a, count_b : float
        Operations a step.
    seconds_a, seconds_b : float
        Device time a step [s].
    """

    name: str
    count_a: float
    count_b: float
    seconds_a: float
    seconds_b: float

    @property
    def seconds(self) -> float:
        """Time gained (or lost, below 0) from a to b [s]."""
        return self.seconds_b - self.seconds_a

    @property
    def by_count(self) -> float:
        """Part of `seconds` that a change in number explains, at the average time of a [s]."""
        if not self.count_a or not self.count_b:
            return self.seconds
        return (self.count_b - self.count_a) * self.seconds_a / self.count_a

    @property
    def by_duration(self) -> float:
        """The other part of `seconds`: operations took longer or shorter each [s]."""
        return self.seconds - self.by_count

    @property
    def status(self) -> str:
        """What explains most of `seconds`.

        ``added`` or ``gone``; ``same`` (within 1 %); ``more`` or ``fewer`` operations; or
        ``slower`` or ``faster`` ones.
        """
        if not self.count_a or not self.count_b:
            return "gone" if self.count_a else "added"
        if abs(self.seconds) <= _SAME * max(self.seconds_a, self.seconds_b):
            return "same"
        if abs(self.by_count) > abs(self.by_duration):
            return "more" if self.by_count > 0 else "fewer"
        return "slower" if self.by_duration > 0 else "faster"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        computed = {c: getattr(self, c) for c in ("status", "seconds", "by_count", "by_duration")}
        return {**asdict(self), **computed}


@dataclass(frozen=True)
class Total:
    """One figure of both captures, a step."""

    name: str
    unit: str
    a: float
    b: float


@dataclass(frozen=True)
class CounterShift:
    """A hardware counter in both captures.

    Attributes
    ----------
    counter, unit : str
    a, b : float
        Mean weighted by device time, over the operations that have it.
    mean_a, mean_b : float
        Mean over these operations.
    time_share_a, time_share_b : float
        Their share of device time [1].
    """

    counter: str
    unit: str
    a: float
    b: float
    mean_a: float
    mean_b: float
    time_share_a: float
    time_share_b: float


@dataclass(frozen=True)
class Difference:
    """What changed from a to b.

    Attributes
    ----------
    a, b : str
        Names of the captures.
    totals : tuple of Total
    changes : mapping of str to tuple of Change
        For each of `npusim.difference.LEVELS` the groups, largest change first.
    common_share : mapping of str to float
        For each level the share of busy time in groups that both have, of the capture where it is
        less [1]; what is of unknown operator or kind is in no group here.
    compared_by : str
        The level that tells most: kernels if names are common, else one that does not need them.
    host : tuple of Change
        Host calls and the time in them alone; empty if a capture does not tell.
    counters : tuple of CounterShift
        Counters that both have.
    classes : tuple of Change
        What holds kernels back, by counters if both have them, else by shapes if both machines are
        known; empty otherwise.
    class_rule : str
        How classes were told, in words.
    notes : tuple of str
    """

    a: str
    b: str
    totals: tuple[Total, ...]
    changes: Mapping[str, tuple[Change, ...]]
    common_share: Mapping[str, float]
    compared_by: str
    host: tuple[Change, ...]
    counters: tuple[CounterShift, ...]
    classes: tuple[Change, ...]
    class_rule: str
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values in SI units."""
        return {
            "a": self.a,
            "b": self.b,
            "totals": {t.name: {"unit": t.unit, "a": t.a, "b": t.b} for t in self.totals},
            "compared_by": self.compared_by,
            "common_share": dict(self.common_share),
            "changes": {level: [c.as_dict() for c in rows] for level, rows in self.changes.items()},
            "host": [c.as_dict() for c in self.host],
            "counters": [asdict(c) for c in self.counters],
            "classes": [c.as_dict() for c in self.classes],
            "class_rule": self.class_rule,
            "notes": list(self.notes),
        }


def largest(changes: Sequence[Change], most: int) -> list[Change]:
    """Return the largest changes and the sum of all others, so that a short table adds up.

    Examples
    --------
    >>> rows = [Change("x", 1, 1, 5.0, 1.0), Change("y", 1, 0, 2.0, 0.0), Change("z", 0, 1, 0, 1.0)]
    >>> [(c.name, c.seconds) for c in largest(rows, 1)]
    [('x', -4.0), ('2 others', -1.0)]
    """
    if len(changes) <= most + 1:
        return list(changes)
    rest = changes[most:]
    amounts = ("count_a", "count_b", "seconds_a", "seconds_b")
    sums = (sum(getattr(c, amount) for c in rest) for amount in amounts)
    return [*changes[:most], Change(f"{len(rest)} others", *sums)]
