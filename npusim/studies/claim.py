"""Claims as data: what is said, by whom, and the rule that decides it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from npusim.studies.value import Doubt

LAUNCHES = ("queue", "graph", "eager")
MODELS = ("deepseek_ocr", "paddleocr_vl")
BATCHES = (1, 8)


@dataclass(frozen=True)
class Rule:
    """Where a claim holds: its figure lies from `least` to `most`.

    Examples
    --------
    >>> Rule(most=1.05).margin(1.0) > 0 > Rule(least=2.0).margin(1.9)
    True
    """

    least: float = -math.inf
    most: float = math.inf
    why: str = ""

    def margin(self, value: float) -> float:
        """Return how far inside of the rule a value lies; below zero it is outside."""
        return min(value - self.least, self.most - value)

    def text(self, what: str) -> str:
        """Return the rule in words."""
        ends = [f"at least {self.least:g}"] if math.isfinite(self.least) else []
        ends += [f"at most {self.most:g}"] if math.isfinite(self.most) else []
        return f"{what} {' and '.join(ends)}"


@dataclass(frozen=True)
class Side:
    """One of two designs that are compared.

    Attributes
    ----------
    arch, lowering, launch : str
        Machine, lowering of the model's template, launch mode, where they differ from those of the
        study and the case; else empty.
    best : str
        A machine: the side is the best design of the study's sweep at its area and power
        (`npusim.studies.best`), changed by what else the side says.
    machine, work : mapping of str to float
        Parameters of the machine and changes of the workload [SI].
    text : str
        The side as the file says it.
    """

    arch: str = ""
    lowering: str = ""
    launch: str = ""
    best: str = ""
    machine: Mapping[str, float] = field(default_factory=dict)
    work: Mapping[str, float] = field(default_factory=dict)
    text: str = "nominal"


@dataclass(frozen=True)
class Compare:
    """The figure of one design over that of another, in replays of some cases."""

    figure: str
    design: Side
    against: Side
    work: str = "decode"
    models: tuple[str, ...] = MODELS
    batches: tuple[int, ...] = BATCHES
    launches: tuple[str, ...] = LAUNCHES


@dataclass(frozen=True)
class Measure:
    """A quantity that no replay gives: its name, its options by case, and its doubts by hand."""

    quantity: str
    cases: Mapping[str, Any]
    doubts: Mapping[str, Doubt] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """What somebody says, and how it is tested.

    Attributes
    ----------
    id, says, source, note : str
    rule : Rule
    test : Compare or Measure
    """

    id: str
    says: str
    source: str
    rule: Rule
    test: Compare | Measure
    note: str = ""


@dataclass(frozen=True)
class Flip:
    """A change of an input after which the verdict of a claim must be another one."""

    claim: str
    settings: Mapping[str, Any]
    to: str
    because: str


@dataclass(frozen=True)
class Question:
    """A study with claims: one question, and the name or path of its file."""

    file: str
    name: str
    title: str
    question: str
    source: str
    arch: str
    claims: tuple[Claim, ...]
    flips: Flip | None
    figures: tuple[Mapping[str, Any], ...]
    has_sweep: bool
