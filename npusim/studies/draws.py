"""What is not known of a machine nobody has built, drawn many times.

Two things are drawn, and both are shared by the designs that a claim compares:

- every assumed parameter that nobody chooses (latencies, floors, efficiencies, joules, costs of a
  launch), evenly over its range (evenly in the logarithm where the range spans a factor of ten), by
  Latin hypercube, so that few draws cover each range: M. D. McKay et al., "A
  comparison of three methods for selecting values of input variables", Technometrics 21(2), 1979,
  doi:10.2307/1268522;
- by what the model is off for each kind of operation: a two-piece normal through the quantiles of
  the residuals of machines that were left out of a fit, or of the machine's own calibration.

An error of a kind that both designs make falls out of their ratio. What the model says a design
*changes* is as uncertain as the time it changes, on a draw of its own: see `perturbed`.

What a designer chooses (how many units, how large a cache, which clock) is a proposal, not a doubt:
it stays nominal here. `npusim.studies.influence` moves it as well, one at a time.

Left out: errors that kinds share; correlations between parameters.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Mapping
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import qmc

from npusim.arch import is_whole
from npusim.bands import Residual
from npusim.error_band import LEAST, left_out, own
from npusim.fusion.program import CHAIN, ENGINE
from npusim.models import modelled
from npusim.parameters import PARAMETERS
from npusim.search.ranges import Range
from npusim.studies.claim import LAUNCHES
from npusim.studies.outcomes import FOLLOWS, KIND, STANDING
from npusim.studies.value import Doubt
from npusim.studies.work import machine
from npusim.units import CHOICES

Array = NDArray[np.float64]

DRAWS = 32
_WIDE = 10.0
# Models that say nothing of a time or of joules, and nothing of a time; one chip has no collective.
_OF_COST = frozenset({"carbon", "collective", "die_cost", "link", "service_cost"})
_OF_ENERGY = frozenset({"area", "energy", "technology", "voltage"})
_MONEY = ("area_mm2", "area_delay_mm2s", "cost_usd", "usd_per_mtoken", "g_per_mtoken")
_JOULES = ("energy_j", "movement_j", "j_per_token", "power_w", "edp_js")
# Numbers that somebody chooses, by the end of their path: how many, how large, how wide, whether.
_CHOSEN = re.compile(
    r"(\.(count|powered|rate|capacity|bandwidth|ways|slices|slice_width|quoted|clock|lanes|width|port|"
    r"batch|rows|columns|dataflow|buffer|side_by_side|chain|products|recompute|topology|reduces|place|"
    r"whole|threads|blocks|registers|shared_memory|cluster|tile_step|depth)|^technology\..*)$"
)
_QUANTILE = float(ndtri(0.9))


@cache
def doubts(arch: str) -> Mapping[str, Doubt]:
    """Return the parameters of a machine that are assumed, with their ranges.

    Examples
    --------
    >>> found = doubts("decode_npu")["floor.matmul"]
    >>> found.low < found.nominal < found.high
    True
    """
    base, known = machine(arch), set(modelled())
    return {
        path: Doubt(base[path], mark.low, mark.high, PARAMETERS[path].unit, mark.source,
                    (PARAMETERS[path].low, PARAMETERS[path].high))
        for path, mark in base.provenance.items()
        if mark.kind == "assumed" and mark.low < mark.high and path in known
    }  # fmt: skip


def is_chosen(path: str) -> bool:
    """Return whether a parameter is what a designer chooses, not what comes of it.

    Examples
    --------
    >>> [path for path in ("units.count", "matrix.bf16.rate", "floor.matmul", "units.miss_rate",
    ...                    "gemv.latency", "launch.graph.node") if is_chosen(path)]
    ['units.count', 'matrix.bf16.rate']
    """
    return _CHOSEN.search(path) is not None


def counts(path: str, arch: str, figure: str, launches: Collection[str]) -> bool:
    """Return whether a figure may hang on a parameter: on what its models read.

    Examples
    --------
    >>> counts("energy.vector", "decode_npu", "wall_s", ["queue"])
    False
    >>> counts("energy.vector", "decode_npu", "energy_j", ["queue"])
    True
    """
    if path in ENGINE and path != CHAIN:  # each value is another program; whether it fuses counts
        return False
    mode = path.split(".")[1] if path.startswith("launch.") else ""
    if mode in LAUNCHES and mode not in launches:
        return False
    readers = set(modelled()[path])
    if figure in _MONEY:
        return True
    if figure in _JOULES or "power.limit" in machine(arch).values:  # noqa: PD011
        return not readers <= _OF_COST
    return not readers <= _OF_COST | _OF_ENERGY


def samples(arch: str, fixed: Collection[str], draws: int = DRAWS) -> dict[str, Array]:
    """Return draws of the assumed parameters of a machine, (N,) each [SI].

    The same draws whoever asks, so that designs and claims can be compared draw by draw.

    Parameters
    ----------
    arch : str
    fixed : collection of str
        Parameters that a design sets, which are not drawn.
    draws : int
        N.
    """
    return {path: column for path, column in _samples(arch, draws).items() if path not in fixed}


@cache
def _samples(arch: str, draws: int) -> Mapping[str, Array]:
    of = {path: doubt for path, doubt in doubts(arch).items() if not is_chosen(path)}
    shares = qmc.LatinHypercube(len(of), seed=_seed(arch)).random(draws) if of else np.empty((0, 0))
    return {
        path: _range(path, doubt).at(shares[:, i]) for i, (path, doubt) in enumerate(of.items())
    }


def _range(path: str, doubt: Doubt) -> Range:
    if doubt.unit in CHOICES:
        return Range((doubt.low, doubt.high), "names")
    wide = 0 < _WIDE * doubt.low <= doubt.high
    return Range((doubt.low, doubt.high), "log" if wide else "linear", is_whole(path))


def _seed(text: str) -> int:
    return zlib.crc32(text.encode())


@cache
def off(arch: str, kind: str, draws: int, which: str) -> Array:
    """Return by what factor the model may be off for a kind of operation, (N,).

    Parameters
    ----------
    arch, kind : str
    draws : int
        N.
    which : str
        ``time``: of what designs have in common; ``change``: of what one changes.

    Examples
    --------
    >>> found = off("decode_npu", "gemv", 4000, "time")
    >>> r = left_out()[1]["gemv"]
    >>> bool(abs(np.quantile(found, 0.9) / r.p90 - 1) < 0.02)
    True
    """
    residuals = own(machine(arch)) or left_out()[1]
    r = residuals.get(kind) or _widest(residuals)
    normal = np.random.default_rng(_seed(f"{arch} {kind} {which}")).standard_normal(draws)
    scale = np.where(normal > 0, r.p90 - r.p50, r.p50 - r.p10) / _QUANTILE
    return np.maximum(r.p50 + normal * scale, LEAST)


def _widest(residuals: Mapping[str, Residual]) -> Residual:
    every = residuals.values()
    return Residual(0, min(r.p10 for r in every), float(np.median([r.p50 for r in every])),
                    max(r.p90 for r in every), {})  # fmt: skip


def perturbed(
    table: pd.DataFrame, arch: str, figure: str, like: pd.DataFrame | None = None
) -> Array:
    """Return a figure of designs if the model is off, one draw a row, (N,).

    With T the time of a kind, F and G its draws for time and change, and T0 the time of the design
    that it is compared with:  T' = F T0 + G (T - T0), and F T where there is none. The wall follows
    the device as far as it is what the wall waits for (column ``follows``); energy grows by what
    the machine takes whatever it does, for as long as the wall grows.

    Parameters
    ----------
    table : DataFrame
        N rows of `npusim.studies.outcomes`, one a draw of parameters.
    arch : str
        The machine whose residuals count.
    figure : str
        Column.
    like : DataFrame, optional
        The design that it is compared with, on the same draws and the same machine.
    """
    more = _slower(table, arch, like)
    grown = table[FOLLOWS].to_numpy() * more
    found: Array = table[figure].to_numpy() * _factor(figure, table, more, grown)
    return found


def _slower(table: pd.DataFrame, arch: str, like: pd.DataFrame | None) -> Array:
    """Return by how much longer the device takes, (N,) [s]."""
    more = np.zeros(len(table))
    every = [table, *([] if like is None else [like])]
    kinds = sorted({str(c) for t in every for c in t.columns if str(c).startswith(KIND)})
    # As one array: columns of a table one by one are slow to take.
    times = [t.reindex(columns=kinds, fill_value=0.0).to_numpy() for t in every]
    for i, column in enumerate(kinds):
        kind = column.removeprefix(KIND)
        first = off(arch, kind, len(table), "time") - 1
        time = times[0][:, i]
        if like is None:
            more += time * first
        else:
            base = times[1][:, i]
            more += base * first + (time - base) * (off(arch, kind, len(table), "change") - 1)
    return more


def _factor(figure: str, table: pd.DataFrame, more: Array, grown: Array) -> Array:
    """Return by what a figure changes if device and wall take longer, (N,)."""
    one = np.ones(len(table))
    slower = np.maximum(1 + grown / table["wall_s"].to_numpy(), LEAST)
    joules = one
    if STANDING in table:
        joules = 1 + table[STANDING].to_numpy() * (slower - 1) / table["energy_j"].to_numpy()
    busy = np.maximum(1 + more / table["device_busy_s"].to_numpy(), LEAST)
    factors: dict[str, Array] = {
        "wall_s": slower, "s_per_token": slower, "area_delay_mm2s": slower, "energy_j": joules,
        "j_per_token": joules, "power_w": joules / slower, "edp_js": joules * slower,
        "device_busy_s": busy,
    }  # fmt: skip
    return factors.get(figure, one)
