"""In which order features are worth building: at each step the one that gains most is added.

Greedy: the order is by the nominal model, so two features that help only together come late. What a
feature takes of the die is told for it on top of those before it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from npusim import study_plots as plots
from npusim.errors import InputError
from npusim.studies.bench import Lot
from npusim.studies.claim import Side
from npusim.studies.decide import Answer
from npusim.studies.figures.fields import Design, FigureName, OneCase
from npusim.studies.figures.picture import Picture
from npusim.studies.figures.replays import banded, compared, figure_of, one
from npusim.studies.figures.words import SHARED, alike, called, upper

_DRAWS = 64
Chosen = frozenset[str]


class Options(OneCase):
    """A plain machine and what could be added to it.

    Attributes
    ----------
    model, batch, launch, work
    base : design
        The machine without any feature.
    features : dict of str to design
        What each sets; not the machine.
    figure : str
        What is made small.
    """

    base: Design = Side()
    features: Annotated[dict[str, Design], Field(min_length=2, max_length=7)]
    figure: FigureName = "wall_s"


def pictures(
    options: Options, answer: Answer
) -> Generator[list[Lot], list[pd.DataFrame], list[Picture]]:
    """Draw what features make of the work one after another, with bands and area."""
    case, names = options.case(), list(options.features)
    sets = [frozenset(c) for n in range(len(names) + 1) for c in combinations(names, n)]
    tables = yield [one(answer, built(options, chosen), case) for chosen in sets]
    value = {chosen: float(figure_of(table, options.figure, "figures.build_order")[0])
             for chosen, table in zip(sets, tables, strict=True)}  # fmt: skip
    area = {chosen: float(table["area_mm2"].iloc[0]) if "area_mm2" in table else np.nan
            for chosen, table in zip(sets, tables, strict=True)}  # fmt: skip
    path = [
        frozenset(order[: i + 1]) for order in [greedy(names, value)] for i in range(len(order))
    ]
    base = built(options, frozenset())
    pairs = [
        compared(answer, options.figure, built(options, chosen), base, case) for chosen in path
    ]
    drawn = yield [lot for pair in pairs for lot in pair.drawn(_DRAWS)]
    rows, before = [], frozenset[str]()
    for i, (chosen, pair) in enumerate(zip(path, pairs, strict=True)):
        ratio, low, high = banded(pair, drawn[2 * i : 2 * i + 2])
        (label,) = chosen - before
        rows.append({"label": label, "factor": 1 / ratio, "low": 1 / high, "high": 1 / low,
                     "area_mm2": area[chosen] - area[before],
                     options.figure: value[chosen]})  # fmt: skip
        before = chosen
    table = pd.DataFrame(rows)
    if table["area_mm2"].isna().any():
        raise InputError("the machine has no area", place="figures.build_order",
                         value=options.base.arch or answer.question.arch)  # fmt: skip
    title = f"In which order features pay: {called(options.figure)} of {alike([case])}"
    caption = (
        f"From {options.base.text} on {options.base.arch or answer.question.arch}; at each step "
        f"the feature that gains most is added. Bands are from p10 to p90 of {_DRAWS} draws: "
        f"{SHARED}."
    )
    what = (
        "speed-up" if options.figure == "wall_s" else f"{upper(called(options.figure))}, times less"
    )
    draw = partial(plots.build_order, rows=table, what=what)
    return [Picture("build_order", title, caption, table, draw, plots.tall(len(table), 2))]


def built(options: Options, chosen: Chosen) -> Side:
    """Return the plain machine with some features, in the order of the file."""
    side = options.base
    for name, feature in options.features.items():
        if name in chosen:
            side = added(side, feature)
    return side


def added(side: Side, feature: Side) -> Side:
    """Return a design with a feature.

    Raises
    ------
    InputError
        A feature that is another machine.
    """
    if feature.arch or feature.best:
        raise InputError("a feature changes a machine, it is none", place="figures.build_order",
                         value=feature.arch or feature.best)  # fmt: skip
    return Side(
        arch=side.arch, lowering=feature.lowering or side.lowering,
        launch=feature.launch or side.launch, best=side.best,
        machine={**side.machine, **feature.machine}, work={**side.work, **feature.work},
        text=f"{side.text}, {feature.text}",
    )  # fmt: skip


def greedy(names: Sequence[str], value: Mapping[Chosen, float]) -> list[str]:
    """Return names in the order in which each makes the value smallest.

    Examples
    --------
    >>> of = {frozenset(): 9.0, frozenset("a"): 8.0, frozenset("b"): 7.0, frozenset("ab"): 5.0}
    >>> greedy(["a", "b"], of)
    ['b', 'a']
    """
    order = list[str]()
    while len(order) < len(names):
        left = [name for name in names if name not in order]
        order.append(min(left, key=lambda name: value[frozenset([*order, name])]))
    return order
