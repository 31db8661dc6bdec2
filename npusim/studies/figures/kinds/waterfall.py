"""From one machine to another, step by step."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from npusim import study_plots as plots
from npusim.studies.bench import Case, Lot
from npusim.studies.claim import Side
from npusim.studies.decide import Answer
from npusim.studies.figures.fields import Batch, Design, FigureName, Model, OfWork, Work
from npusim.studies.figures.picture import Picture
from npusim.studies.figures.replays import figure_of, one
from npusim.studies.figures.words import alike, called, upper
from npusim.study_plots.axis import unit_of
from npusim.study_plots.bands import bands
from npusim.sweep_block import Strict

_START = "eager"


class Step(Strict):
    """What a step changes.

    Attributes
    ----------
    name : str
    set : design
        May name another machine (parameters of the one before are then left behind), a launch mode,
        a lowering, and parameters.
    """

    name: Annotated[str, Field(min_length=1)]
    set: Design = Side()


class Options(OfWork):
    """Steps, each on top of those before; the first is where it starts.

    Attributes
    ----------
    model, batch, work
        The case; launched one by one (eager) until a step says otherwise.
    figure : str
    steps : list of Step
    """

    model: Model = "paddleocr_vl"
    batch: Batch = 1
    work: Work = "decode"
    figure: FigureName = "wall_s"
    steps: Annotated[list[Step], Field(min_length=2, max_length=16)]

    def sides(self) -> list[Side]:
        """Return the design of each step, with all that steps before it set."""
        found, side = [], Side(launch=_START)
        for step in self.steps:
            side = after(side, step.set)
            found.append(side)
        return found


def after(side: Side, step: Side) -> Side:
    """Return a design with a step taken.

    Examples
    --------
    >>> base = Side(arch="h200", machine={"units.count": 66.0}, work={"workload.context": 512.0})
    >>> dict(after(base, Side(arch="decode_npu")).machine)
    {}
    """
    other = step.arch and step.arch != side.arch
    machine = step.machine if other else {**side.machine, **step.machine}
    return Side(
        arch=step.arch or side.arch, lowering=step.lowering or side.lowering,
        launch=step.launch or side.launch, best=step.best or ("" if other else side.best),
        machine=machine, work={**side.work, **step.work}, text=step.text,
    )  # fmt: skip


def pictures(
    options: Options, answer: Answer
) -> Generator[list[Lot], list[pd.DataFrame], list[Picture]]:
    """Draw the total after each step, with the band of the model."""
    case = Case(options.model, options.work, options.batch, _START)
    tables = yield [one(answer, side, case) for side in options.sides()]
    found = pd.concat(tables, ignore_index=True)
    total = figure_of(found, options.figure, "figures.waterfall")
    low, high = bands(found, options.figure)
    steps = pd.DataFrame({
        "label": [step.name for step in options.steps], "total_s": total,
        "low_s": np.minimum(low, total), "high_s": np.maximum(high, total),
    })  # fmt: skip
    what, unit = called(options.figure, options.work), unit_of(options.figure)
    draw = partial(plots.waterfall, steps=steps, what=what, unit=unit)
    told = steps.set_axis(["step", options.figure, "low", "high"], axis=1)
    told.insert(1, "set", [step.set.text for step in options.steps])
    model = alike([case]).removesuffix(f", {_START}")
    title = f"{upper(what)}, step by step: {model}"
    caption = (
        "Each step keeps those before it. Bands are those of the model, of each total by itself."
    )
    return [Picture("waterfall", title, caption, told, draw, plots.tall(len(steps) + 1))]
