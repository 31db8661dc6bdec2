"""All figures of some studies: what they ask for goes to the bench together, round by round."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from npusim import catalog
from npusim.config import read_study
from npusim.errors import InputError
from npusim.studies import figures
from npusim.studies.bench import Bench, Lot
from npusim.studies.claim import Question
from npusim.studies.decide import Answer
from npusim.studies.figures.about import About
from npusim.studies.figures.picture import Picture

Asking = Generator[list[Lot], list[pd.DataFrame], list[Picture]]
_ALWAYS = "verdicts"


def pictures(answers: Sequence[Answer], bench: Bench) -> list[Picture]:
    """Return the figures of some studies, each with its verdicts first.

    Parameters
    ----------
    answers : sequence of Answer
    bench : Bench
        What replays designs: once for what all figures ask for, and once more for what some of them
        ask for then.

    Raises
    ------
    InputError
        A figure that a machine or its work does not have, with the study.
    """
    asking: dict[int, tuple[str, Asking]] = {}
    of = [(answer, figure) for answer in answers for figure in _asked(answer.question)]
    found: dict[int, list[Picture]] = {}
    lots: dict[int, list[Lot]] = {}
    for i, (answer, figure) in enumerate(of):
        ((kind, given),) = figure.items()
        about = _about(answer.question)
        options = figures.options(kind, given, about)
        asking[i] = (answer.question.name, figures.find(kind).pictures(options, answer))
    answered: dict[int, list[pd.DataFrame] | None] = dict.fromkeys(asking)
    while asking:
        for i, tables in answered.items():
            name, figure_asking = asking[i]
            try:
                lots[i] = figure_asking.send(tables)  # type: ignore[arg-type]
            except StopIteration as done:
                found[i] = [replace(picture, study=name) for picture in done.value]
                lots.pop(i, None)
                del asking[i]
            except InputError as error:
                raise InputError(str(error), place=f"study {name}") from None
        wanted = [lot for i in asking for lot in lots[i]]
        flat = bench(wanted) if wanted else []
        answered, at = {}, 0
        for i in asking:
            answered[i] = flat[at : at + len(lots[i])]
            at += len(lots[i])
    return [picture for i in sorted(found) for picture in found[i]]


def _asked(question: Question) -> list[dict[str, Any]]:
    """Return what a study asks for, and its verdicts where it does not ask for them."""
    asked = [dict(figure) for figure in question.figures]
    if any(_ALWAYS in figure for figure in asked):
        return asked
    return [{_ALWAYS: {}}, *asked]


def _about(question: Question) -> About:
    """Return what the figures of a study may refer to."""
    claims = tuple(claim.id for claim in question.claims)
    if not question.has_sweep:
        return About(claims, None)
    sweep = read_study(catalog.find("studies", question.file)).sweep
    return About(claims, math.prod(map(len, sweep.axes.values())) * len(sweep.launch))
