"""A figure over two parameters, as a ratio to one design."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial

import pandas as pd
from pydantic import Field, model_validator

from npusim import study_plots as plots
from npusim.studies import work
from npusim.studies.bench import Lot
from npusim.studies.claim import Side
from npusim.studies.decide import Answer
from npusim.studies.figures.fields import (
    Along,
    Design,
    FigureName,
    OneCase,
    Parameter,
    refuse_both,
    wrong,
)
from npusim.studies.figures.picture import Picture
from npusim.studies.figures.replays import Array, Grid, figure_of, grid
from npusim.studies.figures.words import alike, over, ratio, upper

_BESIDE = "beside"


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
    both : list of str
        Parameters of the map that this design takes as well (a context, say).
    limit : float, optional
        Where the ratio crosses this there is a thick line.
    """

    x: Along
    y: Along
    figure: FigureName = "wall_s"
    design: Design = Side()
    over: Design = Side()
    both: list[Parameter] = Field([])
    limit: float | None = None

    @model_validator(mode="after")
    def _maps(self) -> Options:
        names = [self.x.parameter, self.y.parameter]
        if len(set(names)) < len(names):
            raise wrong("two axes of one parameter", value=names[0])
        refuse_both(names, self.both, self.over)
        return self


def pictures(
    options: Options, answer: Answer
) -> Generator[list[Lot], list[pd.DataFrame], list[Picture]]:
    """Draw the ratio over the grid."""
    case, values = (
        options.case(),
        {axis.parameter: axis.points() for axis in (options.x, options.y)},
    )
    designs = grid(answer, options.design, case, values)
    others = grid(answer, options.over, case, {path: values[path] for path in options.both})
    tables = yield [*designs.lots, *others.lots]
    name, count = ratio(options.figure, options.over, options.work), len(designs.lots)
    table = designs.points.assign(**{name: _figures(designs, tables[:count], options)})
    beside = others.points.assign(**{_BESIDE: _figures(others, tables[count:], options)})
    table = table.merge(beside, on=options.both) if options.both else table.merge(beside, "cross")
    table[name] /= table.pop(_BESIDE)
    x, y = options.x.parameter, options.y.parameter
    draw = partial(plots.heat, table=table, x=x, y=y, value=name, limit=options.limit,
                   nominal=_nominal(options, answer))  # fmt: skip
    title = f"{upper(name)} by {x} and {y}: {alike([case])}"
    rest = "as it is" if options.design.text == "nominal" else options.design.text
    caption = (
        f"On {options.design.arch or answer.question.arch}, all else {rest}. "
        f"{over(options.over, options.both)}Below 1 a design takes less than that one. "
        "Without bands: what the model is off by is for the most part common to both."
    )
    return [Picture("heat", title, caption, table, draw, 3.8)]


def _figures(of: Grid, tables: Sequence[pd.DataFrame], options: Options) -> Array:
    return figure_of(of.figures(tables), options.figure, "figures.heat")


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
