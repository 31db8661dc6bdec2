"""Clock modes: what each clock of a machine makes of time and energy, and which one to choose.

A step may run fast and rest, or run slowly: what is better depends on what a second costs without
work. Over a period T in which one step is asked for, at clock f,

    E(f) = energy of the step at f + (T - wall(f)) x power of a board asleep,     wall(f) <= T

Race-to-idle is the highest clock, slow-and-steady the lowest that meets T. A policy takes, for each
phase of a request (vision, prompt, decode), the clock at which all of them together take the least
energy within a latency: one clock for all, or one for each.

Source: race-to-idle and pacing, as in S. Albers, "Energy-efficient algorithms", CACM 53(5), 2010,
doi:10.1145/1735223.1735245. Left out: the time and energy of changing the clock or falling asleep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.arch import Arch, Designs
from npusim.compare import replay_with_band
from npusim.energy import step_energy
from npusim.error_band import band_factors
from npusim.errors import InputError
from npusim.fusion.program import program
from npusim.load import traced_arch
from npusim.models.energy import asleep, missing, resting
from npusim.models.voltage import clocked, voltage
from npusim.power import held
from npusim.tokens import repeated
from npusim.workload import Workload

Array = NDArray[np.float64]

_SUMS = ("wall_s", "wall_high_s", "energy_j", "energy_low_j", "energy_high_j")
SHARES = tuple(float(s) for s in np.round(np.arange(0.4, 1.001, 0.05), 2))
_MOST_COMBINATIONS = 1_000_000


@dataclass(frozen=True)
class Choice:
    """Clocks chosen for the phases of a request.

    Attributes
    ----------
    shares : mapping of str to float
        Clock of each phase, as a share of what the machine runs at.
    wall_s, energy_j : float
        Of all phases together, as often as each is counted [s], [J].
    """

    shares: Mapping[str, float]
    wall_s: float
    energy_j: float


def modes(
    workload: Workload, arch: Arch, launch: str, shares: Sequence[float] = SHARES
) -> pd.DataFrame:
    """Return time and energy of a step at each clock.

    Parameters
    ----------
    workload : Workload
    arch : Arch
    launch : {"eager", "graph", "queue"}
    shares : sequence of float
        Clocks, as shares of the machine's own, above 0.

    Returns
    -------
    DataFrame
        A row for each: ``share``, ``held`` (which part of that clock a power limit allows),
        ``clock_hz`` and ``voltage`` (at the clock that is left), ``wall_s``, ``wall_high_s``
        (upper end of the band), ``energy_j``, ``energy_low_j``, ``energy_high_j``, ``power_w``,
        ``edp_js``.

    Raises
    ------
    InputError
        A machine that does not say what it takes, or a share out of bounds.

    Examples
    --------
    >>> import npusim as ns
    >>> w, h200 = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    >>> table = modes(w, h200, "graph", [0.5, 1.0])
    >>> bool(table["wall_s"][0] > table["wall_s"][1])
    True
    """
    lacks = missing(Designs(arch))
    if lacks:
        raise InputError("says too little for its energy", file=arch.name, value=", ".join(lacks))
    for share in shares:
        if not 0.05 <= share <= 2.0:
            raise InputError("no share of a clock", value=share, allowed="0.05 to 2")
    designs = clocked(Designs(arch), np.asarray(shares, dtype=float))
    sums = {name: np.zeros(len(designs)) for name in (*_SUMS, "held_s")}
    for part, times in repeated(workload):
        for name, values in _of_step(part, designs, launch).items():
            sums[name] = sums[name] + times * values
    left = sums.pop("held_s") / sums["wall_s"]
    ran = clocked(designs, left)
    table = pd.DataFrame({"share": list(shares), "held": left, "clock_hz": ran["units.clock"]})
    table["voltage"] = np.broadcast_to(voltage(ran), len(designs))
    table = table.assign(**sums)
    table["power_w"] = table["energy_j"] / table["wall_s"]
    table["edp_js"] = table["energy_j"] * table["wall_s"]
    return table


def _of_step(workload: Workload, designs: Designs, launch: str) -> dict[str, Array]:
    """Return time and energy of a step at each clock, (D,) each [s], [J]."""
    ran = program(workload, designs, launch)
    settled = held(ran, designs, launch, "model", traced_arch(workload))
    factors = band_factors(ran, settled.designs, settled.time)
    banded = replay_with_band(ran, settled.designs, settled.time, launch, factors)
    wall = banded.middle.wall_s
    ends = [wall if end is None else end.wall_s for end in (banded.low, banded.high)]
    spent = step_energy(ran, settled.designs, settled.time, wall)
    if spent is None:  # `missing` says before what it lacks
        raise InputError("says too little for its energy", file=designs.base.name)
    low, high = spent.band(settled.designs, *ends)
    found = (wall, ends[1], spent.joules, low, high)
    return {**dict(zip(_SUMS, found, strict=True)), "held_s": settled.share * wall}


def sleeping(arch: Arch) -> float:
    """Return the power of a board between requests [W].

    That is ``power.sleep`` if it is given, else the board with clocks down.

    Examples
    --------
    >>> import npusim as ns
    >>> 75 < sleeping(ns.load_arch("h200")) < 82
    True
    """
    if "power.sleep" in arch.values:  # noqa: PD011
        return arch["power.sleep"]
    rest, leaks = resting(Designs(arch))
    return float((rest + asleep(Designs(arch), leaks))[0])


def over_period(table: pd.DataFrame, period: float, sleep: float) -> pd.Series[float]:
    """Return the energy of a period with one step, the rest asleep; NaN if too slow [J].

    Parameters
    ----------
    table : DataFrame
        Of `modes`.
    period : float
        [s].
    sleep : float
        Power of the board meanwhile [W].

    Examples
    --------
    Where a board asleep takes nothing it is best to be done soon only if that costs no more:

    >>> t = pd.DataFrame({"wall_s": [2.0, 1.0], "energy_j": [3.0, 4.0]})
    >>> over_period(t, 2.0, 0.0).tolist(), over_period(t, 2.0, 10.0).tolist()
    ([3.0, 4.0], [3.0, 14.0])
    """
    total = table["energy_j"] + (period - table["wall_s"]) * sleep
    return total.where(table["wall_s"] <= period)


def choose(
    tables: Mapping[str, pd.DataFrame],
    counts: Mapping[str, int],
    latency: float | None = None,
    together: bool = False,
) -> Choice:
    """Return the clocks with the least energy within a latency.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Of `modes`, for each phase, all with the same shares.
    counts : mapping of str to int
        How many steps of each phase a request has.
    latency : float, optional
        Of the request, upper end of the band [s]; without it energy alone counts.
    together : bool
        One clock for all phases.

    Raises
    ------
    InputError
        No clock is fast enough, or too many combinations.

    Examples
    --------
    >>> fast = pd.DataFrame({"share": [0.5, 1.0], "wall_s": [2.0, 1.0], "wall_high_s": [2.0, 1.0],
    ...                      "energy_j": [1.0, 2.0]})
    >>> same = fast.assign(wall_s=1.0, wall_high_s=1.0)
    >>> choose({"a": fast, "b": same}, {"a": 1, "b": 1}, 2.5).shares
    {'a': 1.0, 'b': 0.5}
    >>> choose({"a": fast, "b": same}, {"a": 1, "b": 1}, 2.5, together=True).shares
    {'a': 1.0, 'b': 1.0}
    """
    names, n = list(tables), len(next(iter(tables.values())))
    picks = [(i,) * len(names) for i in range(n)] if together else None
    if picks is None and n ** len(names) > _MOST_COMBINATIONS:
        raise InputError("too many combinations of clocks", value=n ** len(names),
                         allowed=f"up to {_MOST_COMBINATIONS}", hint="fewer --shares")  # fmt: skip
    best: Choice | None = None
    wanted = ("share", "wall_s", "wall_high_s", "energy_j")
    columns = {m: {c: table[c].to_numpy() for c in wanted} for m, table in tables.items()}
    for pick in picks or product(range(n), repeat=len(names)):

        def total(column: str, pick: tuple[int, ...] = pick) -> float:
            return float(sum(counts[name] * columns[name][column][i]
                             for name, i in zip(names, pick, strict=True)))  # fmt: skip

        energy = total("energy_j")
        if latency is not None and total("wall_high_s") > latency:
            continue
        if best is None or energy < best.energy_j:
            shares = {name: float(columns[name]["share"][i])
                      for name, i in zip(names, pick, strict=True)}  # fmt: skip
            best = Choice(shares, total("wall_s"), energy)
    if best is None:
        fastest = sum(counts[m] * float(t["wall_high_s"].min()) for m, t in tables.items())
        raise InputError("no clock is fast enough", place="--latency", value=f"{latency:g} s",
                         allowed=f"{fastest:.6g} s or more (upper end of the band)")  # fmt: skip
    return best
