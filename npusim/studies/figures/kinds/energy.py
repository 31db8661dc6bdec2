"""Joules by block, design by design."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from npusim import study_plots as plots
from npusim.studies.bench import Lot
from npusim.studies.decide import Answer
from npusim.studies.figures.fields import Cases, Design
from npusim.studies.figures.picture import Picture
from npusim.studies.figures.replays import figure_of, one
from npusim.studies.figures.words import alike, apart
from npusim.studies.outcomes import JOULES
from npusim.study_plots.bands import bands

_BARS = 12


class Options(Cases):
    """Designs and cases: a bar for each design on each case.

    Attributes
    ----------
    designs : dict of str to design
    models, batch, launch, work
    """

    designs: Annotated[dict[str, Design], Field(min_length=1, max_length=_BARS)]


def pictures(
    options: Options, answer: Answer
) -> Generator[list[Lot], list[pd.DataFrame], list[Picture]]:
    """Draw the energy of the work by block, with the band of the total."""
    of = [(name, side, case) for case in options.cases() for name, side in options.designs.items()]
    tables = yield [one(answer, side, case) for _, side, case in of]
    names = apart([case for _, _, case in of], [name for name, _, _ in of])
    found = pd.concat(tables, ignore_index=True)
    total = figure_of(found, "energy_j", "figures.energy")
    blocks = found[[c for c in found if str(c).startswith(JOULES)]].fillna(0.0)
    blocks = blocks.rename(columns=lambda name: name.removeprefix(JOULES).replace("_", " "))
    blocks = blocks.loc[:, (blocks > 0).any()].set_axis(names, axis=0)
    low, high = bands(found, "energy_j")
    ends = pd.DataFrame({"low": np.minimum(low, total), "high": np.maximum(high, total)})
    table = blocks.rename_axis("design").reset_index()
    table = table.assign(energy_j=total, low=ends["low"], high=ends["high"])
    cases = [case for _, _, case in of]
    title = f"Where the energy goes: {alike(cases)}"
    caption = "Joules by block of the machine. Bands are those of the model, of each total."
    draw = partial(plots.energy, table=blocks, bands=ends)
    return [Picture("energy", title, caption, table, draw, plots.tall(len(of)) + 0.5)]
