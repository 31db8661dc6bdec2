"""The best design of a study's sweep that takes no more area and no more power than a machine.

Area is that of the die. Power is a budget: no step of the work (vision, prompt, decode) may take
more in the mean than the power limit of the machine's board. Of the designs that keep both the one
is taken that does the work of the sweep in the least time.

Limits: the best of the grid; what lies between its values is not looked at. That a design is the
best on nominal numbers does not say that it is the best on all: compare it with its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.errors import InputError
from npusim.job import Job, read_job
from npusim.merit import machine_figures
from npusim.studies.work import machine
from npusim.sweeps.run import sweep

Array = NDArray[np.float64]

LAUNCH = "queue"


@dataclass(frozen=True)
class Chosen:
    """The best design at the area and power of a machine.

    Attributes
    ----------
    settings : dict of str to float
        Its value on each axis [SI].
    number : int
        Its row in the sweep.
    row : Series
        What it does, see `npusim.sweeps`.
    area : float
        Of the die of the machine [mm2].
    power : float
        Power limit of the machine [W].
    allowed, designs : int
        How many designs keep both, and how many there are.
    """

    settings: dict[str, float]
    number: int
    row: pd.Series[float]
    area: float
    power: float
    allowed: int
    designs: int


@lru_cache(maxsize=4)
def designs_of(study: str) -> tuple[Job, pd.DataFrame]:
    """Return the sweep of a study and what its designs do."""
    job = read_job(study, (), (), {})
    if job.changes or job.space.beside or job.space.launch != (LAUNCH,):
        raise InputError("has no one machine in a hardware queue to choose designs of", file=study,
                         place="sweep")  # fmt: skip
    return job, sweep(job.space, job.workloads, counts=job.counts)


def highest_power(job: Job, table: pd.DataFrame) -> Array:
    """Return the mean power of the step that takes most, (D,) [W]."""
    each = [table[f"energy_j[{w.name}]"] / table[f"wall_s[{w.name}]"] for w in job.workloads]
    found: Array = np.max(each, axis=0)
    return found


@lru_cache(maxsize=16)
def best(study: str, like: str) -> Chosen:
    """Return the best design of a study's sweep at the area and power of a machine.

    Parameters
    ----------
    study : str
        Name or path of a study with a sweep of one machine in a hardware queue.
    like : str
        Name of a machine.

    Raises
    ------
    InputError
        No such sweep, or no design that keeps both.

    Examples
    --------
    >>> found = best("best_decode_npu", "h200")
    >>> bool(found.row["area_mm2"] <= found.area)
    True
    """
    job, table = designs_of(study)
    other = machine(like)
    area = float(machine_figures(Designs(other)).get("area_mm2", [np.nan])[0])
    if "power.limit" not in other.values or not area > 0:  # noqa: PD011
        raise InputError("has no power limit and area to keep", file=like)
    power = other["power.limit"]
    fits = (table["area_mm2"] <= area) & (highest_power(job, table) <= power)
    if not fits.any():
        raise InputError(f"no design takes as little area and power as {like}", file=study,
                         hint="give the sweep smaller designs")  # fmt: skip
    rows = np.flatnonzero(fits)
    number = int(rows[np.argmin(table["wall_s"].to_numpy()[rows])])
    row = table.iloc[number]
    settings = {path: float(row[path]) for path in job.space.axes}
    return Chosen(settings, number, row, area, power, int(fits.sum()), len(table))
