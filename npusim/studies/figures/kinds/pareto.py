"""The designs of a study's sweep: what they cost and what they give."""

from __future__ import annotations

from collections.abc import Generator
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationInfo, model_validator

from npusim import study_plots as plots
from npusim.errors import InputError
from npusim.job import Job, read_job
from npusim.merit import MERITS
from npusim.parameters import PARAMETERS
from npusim.references import baseline, nominal_design
from npusim.studies.bench import Lot
from npusim.studies.best import LAUNCH, designs_of
from npusim.studies.decide import Answer
from npusim.studies.figures.about import About
from npusim.studies.figures.fields import FigureName, wrong
from npusim.studies.figures.picture import Picture
from npusim.studies.figures.words import called, upper
from npusim.sweep_block import Strict
from npusim.sweeps.ends import ends
from npusim.sweeps.front import pareto
from npusim.sweeps.run import sweep

_MOST = 20_000


class Options(Strict):
    """What is paid and what is had.

    Attributes
    ----------
    x : str
        A figure, or an axis of the sweep.
    y : str
        A figure.
    """

    x: str
    y: FigureName = "wall_s"

    @model_validator(mode="after")
    def _swept(self, info: ValidationInfo) -> Options:
        if self.x not in MERITS and self.x not in PARAMETERS:
            raise wrong("x: no figure of a design and no parameter", value=self.x,
                        allowed=f"an axis of the sweep, {', '.join(MERITS)}")  # fmt: skip
        about = info.context
        if isinstance(about, About):
            if about.designs is None:
                raise wrong("needs a sweep block")
            if about.designs > _MOST:
                raise wrong("too many designs for a figure", value=about.designs,
                            allowed=f"up to {_MOST}")  # fmt: skip
        return self


def pictures(
    options: Options, answer: Answer
) -> Generator[list[Lot], list[pd.DataFrame], list[Picture]]:
    """Draw all designs, those that none beats with bands, the nominal one and the baseline."""
    yield []
    job, table = _swept(answer.question.file)
    x, y = options.x, options.y
    for name in (x, y):
        if name not in table:
            raise InputError("the sweep has no such column", place="figures.pareto", value=name,
                             allowed=", ".join(_columns(table)))  # fmt: skip
    front = pareto(table, [x, y])
    named: dict[str, Any] = {"nominal": nominal_design(job)}
    beside = baseline(job)
    if beside is not None:
        for launch in job.space.launch:
            named[f"{beside['arch']}, {launch}"] = beside["predicted"][launch]
    named = {text: row for text, row in named.items() if _has(row, x) and _has(row, y)}
    known = table[[x, y]].notna().all(axis=1)
    told = _told(front, x, y, job.space.axes)
    title = f"{upper(called(y))} against {called(x)}: the sweep of this study"
    caption = (
        f"{len(table):,} designs on {', '.join(w.name for w in job.workloads)}; those that no "
        "other beats in both are joined, with the bands of the model. The table holds these."
    )
    draw = partial(plots.pareto, table=table.loc[known, _columns(table)], x=x, y=y,
                   front=front[_columns(table)], named=named)  # fmt: skip
    return [Picture("pareto", title, caption, told, draw, 4.0)]


@lru_cache(maxsize=4)
def _swept(study: str) -> tuple[Job, pd.DataFrame]:
    """Return the sweep of a study and what its designs do."""
    job = read_job(study, (), (), {})
    if job.space.launch == (LAUNCH,) and not job.space.beside:
        return designs_of(study)  # which claims ask for, too
    return job, sweep(job.space, job.workloads, counts=job.counts)


def _has(row: Any, name: str) -> bool:
    value = row.get(name)
    return value is not None and bool(np.isfinite(value))


def _columns(table: pd.DataFrame) -> list[str]:
    """Return the columns of the whole work, which a figure and its bands need."""
    return [str(c) for c in table.columns if "[" not in str(c)]


def _told(front: pd.DataFrame, x: str, y: str, axes: Any) -> pd.DataFrame:
    columns = dict.fromkeys(["launch", *axes, x, y])
    table = front[[c for c in columns if c in front]].copy()
    for name in (x, y):
        try:
            low, high = ends(front, name)
        except (InputError, KeyError):  # no band of it
            continue
        if (low < high).any():
            table[f"{name} low"], table[f"{name} high"] = low, high
    return table
