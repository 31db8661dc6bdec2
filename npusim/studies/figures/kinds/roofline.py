"""The kernels of a step as predicted on a machine, below its roof and those of others."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from npusim import study_plots as plots
from npusim.arch import Designs
from npusim.durations import durations
from npusim.fusion.program import program
from npusim.load import traced_arch
from npusim.plots import roof
from npusim.studies import work
from npusim.studies.bench import Case, Lot
from npusim.studies.decide import Answer
from npusim.studies.figures.fields import ArchName, Batch, Launch, Model, OfWork
from npusim.studies.figures.picture import Picture
from npusim.studies.figures.words import alike
from npusim.sweeps.evaluate import with_changes
from npusim.workload import Workload

_TERA = 1e12


class Options(OfWork):
    """Machines, the first of which runs the kernels, and the work.

    Attributes
    ----------
    machines : list of str
    model, batch, launch, work
    """

    machines: Annotated[list[ArchName], Field(min_length=1, max_length=6)]
    model: Model = "paddleocr_vl"
    batch: Batch = 1
    launch: Launch = "graph"
    work: Literal["decode", "vision", "prefill", "step"] = "decode"


def pictures(
    options: Options, answer: Answer
) -> Generator[list[Lot], list[pd.DataFrame], list[Picture]]:
    """Draw what the machines sustain, and where the kernels lie."""
    yield []
    case = Case(options.model, options.work, options.batch, options.launch)
    archs = [work.machine(name) for name in options.machines]
    roofs = {}
    for arch in archs:
        slope, top, _ = roof(arch)
        roofs[arch.title.split(" (")[0]] = (slope * _TERA, top * _TERA)
    (loaded,) = work.workloads(case.model, case.work, case.batch)
    (w,) = with_changes([loaded], work.change(case.work, case.batch))
    designs = Designs(archs[0])
    ran = program(w, designs, case.launch, "model")
    time = durations(ran, designs, "model", traced_arch(w))
    table, drawn = kernels(ran, time.table[time.row, 0] * time.scale)
    title = f"Kernels below the roofs: {alike([case])}, on {next(iter(roofs))}"
    caption = (
        "Roofs are what the machines sustain. A marker is a kind and shape of kernel as predicted "
        f"on the first machine, as large as its share of the device time; {drawn:.1%} of that time "
        "is shown, the rest has no FLOP or no known shape. Bytes count once: what a cache holds "
        "may lie above a roof."
    )
    draw = partial(plots.roofline, machines=roofs, kernels=table)
    return [Picture("roofline", title, caption, table, draw, 4.0)]


def kernels(w: Workload, seconds: np.ndarray) -> tuple[pd.DataFrame, float]:
    """Return kernels with FLOP, one row a kind and shape, and their share of the device time.

    Parameters
    ----------
    w : Workload
        K operations.
    seconds : array, shape (K,)
        Predicted time of each [s].
    """
    rows, inverse = w.unique()
    used = w.classified & (w["flop"] > 0) & (w.bytes_moved > 0) & (seconds > 0)
    count = np.bincount(inverse[used], minlength=len(rows))
    time = np.bincount(inverse[used], seconds[used], len(rows))[count > 0]
    count, rows = count[count > 0], rows[count > 0]
    share = time / seconds.sum()
    table = pd.DataFrame({
        "kind": w.text("kind")[rows], "intensity": w["flop"][rows] / w.bytes_moved[rows],
        "flop_rate": w["flop"][rows] * count / time, "time_share": share,
    })  # fmt: skip
    return table, float(share.sum())
