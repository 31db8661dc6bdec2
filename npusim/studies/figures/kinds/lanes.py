"""What host and device do over the time of a step, machine above machine."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from pydantic import Field

from npusim import study_plots as plots
from npusim.arch import Designs
from npusim.durations import durations
from npusim.fusion.program import program
from npusim.lanes import timeline
from npusim.load import traced_arch
from npusim.studies import work
from npusim.studies.bench import Case, Lot
from npusim.studies.decide import Answer
from npusim.studies.figures.fields import Batch, Design, Model, OfWork
from npusim.studies.figures.picture import Picture
from npusim.studies.figures.replays import one
from npusim.studies.figures.words import alike
from npusim.study_plots.lane_chart import parts
from npusim.sweeps.evaluate import with_changes
from npusim.timeline import Timeline

_START = "eager"


class Options(OfWork):
    """Designs to show above each other.

    Attributes
    ----------
    model, batch, work
        The case; launched one by one (eager) where a design does not say otherwise.
    designs : dict of str to design
    """

    model: Model = "paddleocr_vl"
    batch: Batch = 1
    work: Literal["decode", "vision", "prefill", "step"] = "decode"
    designs: Annotated[dict[str, Design], Field(min_length=1, max_length=4)]


@dataclass(frozen=True)
class _Drawn:
    """Draws timelines of one step."""

    spans: dict[str, Timeline]

    def __call__(self, ax: Axes) -> Any:
        return plots.lanes(ax, self.spans)


def pictures(
    options: Options, answer: Answer
) -> Generator[list[Lot], list[pd.DataFrame], list[Picture]]:
    """Draw the first step that was traced, as replayed on each design."""
    yield []
    case = Case(options.model, options.work, options.batch, _START)
    spans = {name: replayed(one(answer, side, case)) for name, side in options.designs.items()}
    rows = []
    for name, found in spans.items():
        wall, pieces = parts(found, 0)
        lengths = {f"{lane}_s": float(np.diff(p).sum()) for lane, p in pieces.items()}
        rows.append({"design": name, "wall_s": wall, **lengths})
    title = f"Host and device over a step: {alike([case]).removesuffix(f', {_START}')}"
    caption = (
        "The first of the steps that were traced. Device, launch and idle add up to the wall; a "
        "lane is as high as the share of each moment in which it is at work."
    )
    height = 0.5 + 1.35 * len(spans)
    return [Picture("lanes", title, caption, pd.DataFrame(rows), _Drawn(spans), height)]


def replayed(lot: Lot) -> Timeline:
    """Return when everything happens on the only design of a lot."""
    case = lot.case
    (loaded,) = work.workloads(case.model, case.work, case.batch, case.lowering)
    change = {**work.change(case.work, case.batch, case.lowering), **lot.change}
    (w,) = with_changes([loaded], change)
    designs = Designs(work.machine(lot.arch), lot.columns)
    ran = program(w, designs, case.launch, "model")
    return timeline(ran, designs, durations(ran, designs, "model", traced_arch(w)), case.launch)
