"""What happens when in a replay: the host's work and waits, and the operations of each stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from npusim.workload import Workload

Array = NDArray[np.float64]


class Span(NamedTuple):
    """A piece of the host's time [s].

    ``what`` is ``work`` (before a launch or a wait), ``submit`` (of a graph or a queue), ``sync``
    (return of a wait), ``tail`` (after the last launch), ``wait`` (for the device) or ``full``
    (for room in a queue); ``operation`` the one that it is for.
    """

    what: str
    operation: int
    start: float
    end: float


@dataclass
class Timeline:
    """One replay of a workload on one design, its steps one after another [s].

    Attributes
    ----------
    workload : Workload
        K operations in S steps.
    spans : list of Span
        The host's, in order; pieces of no length are left out.
    issued, start, end : list of float, length K
        When the host had issued each operation, and when it ran.
    steps : list of float, length S + 1
        Where each step begins, and the last one ends.
    """

    workload: Workload
    spans: list[Span] = field(default_factory=list)
    issued: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=lambda: [0.0])

    def host(self, what: str, operation: int, start: Array, end: Array) -> None:
        """Add a piece of the host's time in the step that runs."""
        began, ended = float(start.flat[0]), float(end.flat[0])
        if ended > began:
            base = self.steps[-1]
            self.spans.append(Span(what, operation, base + began, base + ended))

    def device(self, operation: int, issued: Array, start: Array, end: Array) -> None:
        """Add the next operation; they come in the order of the workload."""
        base = self.steps[-1]
        for times, at in ((self.issued, issued), (self.start, start), (self.end, end)):
            times.append(base + float(at.flat[0]))

    def close(self, wall: Array) -> None:
        """End the step that runs."""
        if len(self.steps) > 1 or self.start:
            self.steps.append(self.steps[-1] + float(wall.flat[0]))
