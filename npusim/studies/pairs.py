"""The two designs of a claim on one case: what to ask the bench for, and what it comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.studies.bench import Case, Lot
from npusim.studies.best import best
from npusim.studies.claim import Claim, Compare, Question, Side
from npusim.studies.draws import counts, doubts, perturbed, samples
from npusim.studies.value import Doubt
from npusim.studies.work import machine as load_machine
from npusim.sweeps.space import unmodelled

Array = NDArray[np.float64]
Tables = tuple[pd.DataFrame, pd.DataFrame]  # of the design and of what it is compared with


@dataclass(frozen=True)
class Pair:
    """A claim on one case.

    Attributes
    ----------
    claim : Claim
        One that compares.
    test : Compare
        Its test.
    case : Case
    sides : (Side, Side)
        Design and what it is compared with: each with its machine, and with what is set beside
        the study (`--set`).
    """

    claim: Claim
    test: Compare
    case: Case
    sides: tuple[Side, Side]

    @property
    def labels(self) -> dict[str, str]:
        """What tells the case from others of the claim."""
        c = self.case
        return {"launch": c.launch, "batch": str(c.batch), "model": c.text().split(",")[0]}

    @property
    def is_one_machine(self) -> bool:
        """Whether both sides are variants of one machine, which share what is not known of it."""
        return self.sides[0].arch == self.sides[1].arch

    @property
    def fixed(self) -> frozenset[str]:
        """Parameters that a side sets, which are not varied."""
        return frozenset(self.sides[0].machine) | frozenset(self.sides[1].machine)

    def called(self, key: tuple[str, str]) -> str:
        """Return what a number is called: its path, with its machine where the sides have two."""
        return key[1] if self.is_one_machine else f"{key[1]} of {key[0]}"

    def doubts(self) -> dict[tuple[str, str], Doubt]:
        """Return what is assumed of the machines, by machine and parameter."""
        archs = dict.fromkeys(side.arch for side in self.sides)
        launches = {side.launch or self.case.launch for side in self.sides}
        return {
            (arch, path): doubt
            for arch in archs
            for path, doubt in doubts(arch).items()
            if path not in self.fixed and counts(path, arch, self.test.figure, launches)
        }

    def lots(self, varied: Mapping[tuple[str, str], Array], size: int) -> list[Lot]:
        """Return what to evaluate: both sides with some parameters varied together.

        Parameters
        ----------
        varied : mapping of (str, str) to array, shape (size,)
            Values by machine and parameter [SI].
        size : int
        """
        return [self._lot(side, varied, size) for side in self.sides]

    def _lot(self, side: Side, varied: Mapping[tuple[str, str], Array], size: int) -> Lot:
        case = replace(self.case, launch=side.launch or self.case.launch, lowering=side.lowering)
        columns = {path: np.full(size, value) for path, value in side.machine.items()}
        columns |= {path: column for (arch, path), column in varied.items() if arch == side.arch}
        return Lot(side.arch, case, side.work, columns, size)

    def drawn(self, draws: int) -> list[Lot]:
        """Return both sides as they are (row 0) and with all that is assumed drawn."""
        varied = {}
        for arch in dict.fromkeys(side.arch for side in self.sides):
            nominal = load_machine(arch)
            for path, column in samples(arch, self.fixed, draws).items():
                varied[arch, path] = np.concatenate([[nominal[path]], column])
        return self.lots(varied, draws + 1)

    def ratio(self, tables: Tables) -> Array:
        """Return the figure of the design over that of what it is compared with, (N,)."""
        design, against = (self._figure(table).to_numpy() for table in tables)
        found: Array = design / against
        return found

    def _figure(self, table: pd.DataFrame) -> pd.Series[float]:
        if self.test.figure not in table:
            raise InputError("the machine or work has no such figure", place=self.claim.id,
                             value=self.test.figure)  # fmt: skip
        return table[self.test.figure].astype(float)

    def perturbed_ratio(self, tables: Tables) -> Array:
        """Return the same if the model is off by what its residuals say, a draw a row, (N,)."""
        design, against = tables
        archs = [side.arch for side in self.sides]
        like = against if self.is_one_machine else None
        figure = self.test.figure
        found: Array = perturbed(design, archs[0], figure, like) / perturbed(
            against, archs[1], figure)  # fmt: skip
        return found


def pairs(
    claim: Claim, question: Question, machine: Mapping[str, float], work: Mapping[str, float]
) -> list[Pair]:
    """Return a claim that compares on each of its cases, the one that decides first.

    Parameters
    ----------
    claim : Claim
    question : Question
        The study that it is of.
    machine, work : mapping of str to float
        What is set of that machine, and of the workloads, beside what the claim says [SI].

    Raises
    ------
    InputError
        A parameter that no model reads.
    """
    test = claim.test
    if not isinstance(test, Compare):
        raise TypeError("a claim that does not compare has no pairs")
    sides = tuple(_with(side, question, machine, work) for side in (test.design, test.against))
    for side in sides:
        wrong = unmodelled([*side.machine, *side.work])
        if wrong:
            raise InputError(str(wrong[0]), place=f"claims.{claim.id}")
    return [
        Pair(claim, test, Case(model, test.work, batch, launch), (sides[0], sides[1]))
        for launch in test.launches
        for batch in test.batches
        for model in test.models
    ]


def _with(
    side: Side, question: Question, machine: Mapping[str, float], work: Mapping[str, float]
) -> Side:
    own = machine if side.arch in ("", question.arch) else {}
    chosen = best(question.file, side.best).settings if side.best else {}
    return replace(
        side, arch=side.arch or question.arch, machine={**chosen, **own, **side.machine},
        work={**work, **side.work},
    )  # fmt: skip


def split_rows(tables: Sequence[pd.DataFrame]) -> tuple[Tables, Tables]:
    """Return the first row of two tables, and all others."""
    first = tuple(table.iloc[:1].reset_index(drop=True) for table in tables)
    rest = tuple(table.iloc[1:].reset_index(drop=True) for table in tables)
    return (first[0], first[1]), (rest[0], rest[1])
