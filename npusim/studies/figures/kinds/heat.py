"""A figure over two parameters, as a ratio to one design."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial

import pandas as pd

from npusim import study_plots as plots
from npusim.errors import InputError
from npusim.studies import work
from npusim.studies.bench import Lot
from npusim.studies.claim import Side
from npusim.studies.decide import Answer
from npusim.studies.figures.fields import Along, Design, FigureName, OneCase
from npusim.studies.figures.picture import Picture
from npusim.studies.figures.replays import figure_of, grid, one
from npusim.studies.figures.words import alike, over, ratio, upper


class Options(OneCase):
    """Two parameters, the figure, and what it is put beside.

    Attributes
    ----------
    x, y : parameter with values
    figure : str
    design : design
        What the parameters are set of; nominal by default.
    over : design
        What the figure is divided by; the nominal design by default.
    limit : float, optional
        Where the ratio crosses this there is a thick line.
    """

    x: Along
    y: Along
    figure: FigureName = "wall_s"
    design: Design = Side()
    over: Design = Side()
    limit: float | None = None


def pictures(
    options: Options, answer: Answer
) -> Generator[list[Lot], list[pd.DataFrame], list[Picture]]:
    """Draw the ratio over the grid."""
    x, y, case = options.x.parameter, options.y.parameter, options.case()
    if x == y:
        raise InputError("two axes of one parameter", place="figures.heat", value=x)
    beside = one(answer, options.over, case)
    axes = grid(
        answer, options.design, case, {p.parameter: p.points() for p in (options.x, options.y)}
    )
    against, *tables = yield [beside, *axes.lots]
    name = ratio(options.figure, options.over)
    values = figure_of(axes.figures(tables), options.figure, "figures.heat")
    nominal = figure_of(against, options.figure, "figures.heat")[0]
    table = axes.points.assign(**{name: values / nominal})
    draw = partial(plots.heat, table=table, x=x, y=y, value=name, limit=options.limit,
                   nominal=_nominal(options, answer))  # fmt: skip
    title = f"{upper(name)} by {x} and {y}: {alike([case])}"
    rest = "as it is" if options.design.text == "nominal" else options.design.text
    caption = (
        f"On {options.design.arch or answer.question.arch}, all else {rest}. "
        f"{over(options.over)}Below 1 a design takes less than that one. Without bands: what the model is off by is "
        "for the most part common to both."
    )
    return [Picture("heat", title, caption, table, draw, 3.8)]


def _nominal(options: Options, answer: Answer) -> tuple[float, float] | None:
    """Return where the machine of the study lies, if it lies on the map."""
    machine = work.machine(options.design.arch or answer.question.arch)
    has = {**machine.values, **answer.settings, **options.design.machine}  # noqa: PD011
    found = []
    for axis in (options.x, options.y):
        points = axis.points()
        if not points[0] <= has.get(axis.parameter, -1.0) <= points[-1]:
            return None
        found.append(float(has[axis.parameter]))
    return found[0], found[1]
