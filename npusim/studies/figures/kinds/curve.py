"""A figure along one parameter, case by case."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from npusim import study_plots as plots
from npusim import units
from npusim.errors import InputError
from npusim.studies import work
from npusim.studies.bench import Case, Lot
from npusim.studies.claim import Side
from npusim.studies.decide import Answer
from npusim.studies.figures.fields import (
    BATCH,
    Along,
    Cases,
    Design,
    FigureName,
    Parameter,
    refuse_both,
    wrong,
)
from npusim.studies.figures.picture import Picture
from npusim.studies.figures.replays import DRAWS, Grid, banded, compared, figure_of, grid, moved
from npusim.studies.figures.words import SHARED, alike, apart, called, over, ratio, upper
from npusim.study_plots.axis import unit_of
from npusim.study_plots.bands import bands

Ask = Generator[list[Lot], list[pd.DataFrame], list[Picture]]
Mark = str | float | Annotated[list[str | float], Field(min_length=2, max_length=2)]
_LINE, _LINES = "line", 8


class Options(Along, Cases):
    """A parameter with its values, the figure, and what each line is of.

    Attributes
    ----------
    figure : str
    over : design, optional
        The figure is told as a ratio to that of this design on the same case.
    both : list of str
        The parameter, if this design takes it as well (a context, say).
    lines : dict of str to design
        Designs to draw beside each other; the nominal one alone by default.
    models, batch, launch, work
        Cases: each design is drawn on each.
    claimed : dict of str to value, or to two ends
        Marks on the parameter.
    level : dict of str to value
        Marks on the figure, in its unit.
    """

    figure: FigureName = "wall_s"
    over: Design | None = None
    both: list[Parameter] = Field([])
    lines: dict[str, Design] = Field({"": Side()}, min_length=1)
    claimed: dict[str, Mark] = Field({})
    level: dict[str, str | float] = Field({})

    @model_validator(mode="after")
    def _drawn(self) -> Options:
        lines = len(self.lines) * len(self.cases())
        if lines > _LINES:
            raise wrong("too many lines to be told apart", value=lines, allowed=f"up to {_LINES}")
        if self.over is not None:
            refuse_both([self.parameter], self.both, self.over)
        try:
            self.marks()
            self.levels()
        except InputError as error:
            raise wrong(str(error)) from None
        return self

    def marks(self) -> dict[str, float | tuple[float, float]]:
        """Return the marks on the parameter [SI]."""
        unit = unit_of(self.parameter)
        unit = unit if unit not in ("keys", "sequences", "bit") else "1"
        found: dict[str, float | tuple[float, float]] = {}
        for text, raw in self.claimed.items():
            if isinstance(raw, list):
                low, high = sorted(units.parse(end, unit) for end in raw)
                found[text] = (low, high)
            else:
                found[text] = units.parse(raw, unit)
        return found

    def levels(self) -> dict[str, float]:
        """Return the marks on the figure [SI]."""
        unit = "1" if self.over is not None else unit_of(self.figure)
        return {text: units.parse(raw, unit) for text, raw in self.level.items()}

    def drawn(self) -> list[tuple[str, Side, Case]]:
        """Return what each line is: its name, its design and its case."""
        of = [(text, side, case) for text, side in self.lines.items() for case in self.cases()]
        names = apart([case for _, _, case in of], [text for text, _, _ in of])
        return [(name, side, case) for name, (_, side, case) in zip(names, of, strict=True)]


def pictures(options: Options, answer: Answer) -> Ask:
    """Draw the lines with the band of the model, or of their ratio."""
    if options.over is None:
        table = yield from _absolute(options, answer)
        y, what = options.figure, called(options.figure, options.work)
        bandwidth = "Bands are those of the model"
    else:
        y = what = ratio(options.figure, options.over, options.work)
        table = yield from _ratio(options, answer, options.over, y)
        bandwidth = f"Bands are from p10 to p90 of {DRAWS} draws: {SHARED}"
    cases = [case for _, _, case in options.drawn()]
    same = alike(cases)
    if options.parameter == BATCH:
        same = same.replace(f", batch {cases[0].batch}", "")
    marks = _nominal(options, answer) | options.marks()
    title = f"{upper(what)} along {options.parameter}: {same}"
    told = over(options.over, options.both) if options.over is not None else ""
    caption = f"On {answer.question.arch}, all else as it is. {told}{bandwidth}."
    draw = partial(plots.curves, table=table, x=options.parameter, y=y, by=_LINE, upright=marks,
                   level=options.levels())  # fmt: skip
    return [Picture("curve", title, caption, table, draw)]


def _absolute(
    options: Options, answer: Answer
) -> Generator[list[Lot], list[pd.DataFrame], pd.DataFrame]:
    name, found = options.figure, list[pd.DataFrame]()
    lines = options.drawn()
    grids = [grid(answer, side, case, {options.parameter: options.points()})
             for _, side, case in lines]  # fmt: skip
    tables = yield [lot for g in grids for lot in g.lots]
    for (line, _, _), g in zip(lines, grids, strict=True):
        own, tables = tables[: len(g.lots)], tables[len(g.lots) :]
        found.append(_points(g, own, line, name))
    return pd.concat(found, ignore_index=True)


def _points(g: Grid, tables: list[pd.DataFrame], line: str, name: str) -> pd.DataFrame:
    table = g.figures(tables)
    values = figure_of(table, name, "figures.curve")
    low, high = bands(table, name)
    low, high = np.minimum(low, values), np.maximum(high, values)
    return g.points.assign(**{_LINE: line, name: values, "low": low, "high": high})


def _ratio(
    options: Options, answer: Answer, over: Side, y: str
) -> Generator[list[Lot], list[pd.DataFrame], pd.DataFrame]:
    of = []
    for line, side, case in options.drawn():
        for value in options.points():
            point = {options.parameter: float(value)}
            design, other = moved(side, case, point)
            against, _ = moved(over, case, point if options.both else {})
            pair = compared(answer, options.figure, design, against, other)
            of.append((line, value, pair))
    tables = yield [lot for _, _, pair in of for lot in pair.drawn(DRAWS)]
    rows = [
        {_LINE: line, options.parameter: value}
        | dict(zip((y, "low", "high"), banded(pair, tables[2 * i : 2 * i + 2]), strict=True))
        for i, (line, value, pair) in enumerate(of)
    ]
    return pd.DataFrame(rows)


def _nominal(options: Options, answer: Answer) -> dict[str, float | tuple[float, float]]:
    """Return what the machine of the study has, if that is on the axis and one for all lines."""
    if any(side.arch or options.parameter in side.machine for side in options.lines.values()):
        return {}
    path, points = options.parameter, options.points()
    has = {**work.machine(answer.question.arch).values, **answer.settings}  # noqa: PD011
    if path not in has or not points[0] <= has[path] <= points[-1]:
        return {}
    return {"nominal": float(has[path])}
