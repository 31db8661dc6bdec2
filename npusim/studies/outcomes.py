"""What designs do with some work, taken apart: time by kind of operation, joules by block.

Beside the columns of a sweep (`npusim.sweeps`) there are ``kind NAME`` [s], ``joules BLOCK`` [J],
``standing`` [J], what the machine takes whatever it does, and ``follows``: how many seconds the
wall grows by when the device takes a second longer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.error_band import kind_seconds
from npusim.fusion.program import programs
from npusim.sweeps.evaluate import Ran, assemble, run_program, summed, totals_of
from npusim.tokens import repeated
from npusim.workload import Workload

Array = NDArray[np.float64]

KIND, JOULES = "kind ", "joules "
STANDING, FOLLOWS = "standing", "follows"


def outcomes(
    designs: Designs, workloads: Sequence[Workload], launch: str, counts: Sequence[float]
) -> pd.DataFrame:
    """Evaluate designs on some work, with what it is made of.

    Parameters
    ----------
    designs : Designs
        D designs.
    workloads : sequence of Workload
    launch : str
    counts : sequence of float
        How many steps of each workload make the work.

    Returns
    -------
    DataFrame
        D rows, see the head of this module.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> found = outcomes(Designs(ns.load_arch("h200")), [w], "graph", [1.0]).iloc[0]
    >>> kinds = sum(found[name] for name in found.index if name.startswith(KIND))
    >>> bool(np.isclose(kinds, found["device_busy_s"])), bool(found["follows"] > 0.9)
    (True, True)
    """
    steps, extras = [], []
    for w in workloads:
        parts = [(part, times, _totals(designs, part, launch)) for part, times in repeated(w)]
        step = summed(parts)
        steps.append(step)
        extras.append({n: v for n, v in step.totals.items()
                       if n.startswith((KIND, JOULES)) or n == STANDING})  # fmt: skip
    with np.errstate(invalid="ignore"):  # a die that no wafer yields costs without end
        found = assemble(designs, [w.name for w in workloads], steps, counts)
    names = dict.fromkeys(name for extra in extras for name in extra)
    zero = np.zeros(len(designs))
    for name in names:
        each = zip(extras, counts, strict=True)
        found[name] = sum((count * extra.get(name, zero) for extra, count in each), zero)
    busy = found["device_busy_high_s"] - found["device_busy_low_s"]
    wall = found["wall_high_s"] - found["wall_low_s"]
    known = np.isfinite(busy) & (busy > 0)
    found[FOLLOWS] = np.where(known, np.clip(wall / np.where(known, busy, 1.0), 0.0, 1.0), 1.0)
    return pd.DataFrame(found)


def _totals(designs: Designs, w: Workload, launch: str) -> dict[str, Array]:
    """Return the totals of a step with what they are made of; a block not there takes nothing."""
    totals: defaultdict[str, Array] = defaultdict(lambda: np.zeros(len(designs)))
    for program, part, rows in programs(w, designs, launch):
        ran = run_program(part, program, launch, "model")
        for name, values in (*totals_of(ran), *_apart(ran)):
            totals[name][rows] = values
    return totals


def _apart(ran: Ran) -> Iterator[tuple[str, Array]]:
    for kind, seconds in kind_seconds(ran.workload, ran.settled.time).items():
        yield KIND + kind, seconds / len(ran.workload.steps)
    if ran.spent is None:
        return
    for block, joules in ran.spent.by_block().items():
        yield JOULES + block, joules
    static = [part.joules for part in ran.spent.parts if part.kind != "dynamic"]
    yield STANDING, np.add.reduce(static, axis=0)
