"""Why a design has the figure that it has: what changed, kind by kind, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from npusim.merit import MERITS
from npusim.studies.outcomes import JOULES, KIND
from npusim.studies.pairs import Pair, Tables
from npusim.units import show

_NAMED = 3
_LEAST = 0.02  # of the change, to be named
_IDLE = 0.2
_UNITS = {"s": "s", "bytes": "B"}  # of columns that are no figures of merit, by their end
_ENERGY = ("energy_j", "j_per_token", "power_w", "movement_j")


def reason(pair: Pair, tables: Tables, eager: Tables | None = None) -> str:
    """Return what the designs of a claim do, and what differs most.

    Parameters
    ----------
    pair : Pair
    tables : (DataFrame, DataFrame)
        One row each, of both sides.
    eager : (DataFrame, DataFrame), optional
        The same with eager launches, where the host hides what the claim says.
    """
    design, against = (table.iloc[0] for table in tables)
    figure = pair.test.figure
    unit = MERITS.get(figure) or _UNITS.get(figure.rsplit("_", 1)[-1], "1")
    first, second = (_shown(float(row[figure]), unit) for row in (design, against))
    text = f"{pair.case.text()}: {first} against {second}"
    more = _changes(design, against, JOULES if figure in _ENERGY else KIND) if _timed(unit) else ""
    text += f" ({more})" if more else ""
    idle = float(against["idle_share"])
    if idle > _IDLE and eager is None:
        text += f"; the device is idle for {idle:.0%} of the wall"
    if eager is not None:
        idle = float(eager[1]["idle_share"].iloc[0])
        text += (
            f"; with eager launches the device is idle for {idle:.0%} of the wall, which hides it"
        )
    return text


def _timed(unit: str) -> bool:
    """Return whether a figure is made of the times of kernels, or of joules."""
    return unit not in ("B", "mm2", "USD", "1")


def _shown(value: float, unit: str) -> str:
    if unit in ("s", "J", "W", "B"):
        return show(value, unit, 3)
    return f"{value:.3g}" if unit == "1" else f"{value:.3g} {unit}"


def _changes(design: pd.Series[float], against: pd.Series[float], prefix: str) -> str:
    """Return the parts that change most, in words."""
    parts = dict.fromkeys(
        str(n) for n in (*design.index, *against.index) if str(n).startswith(prefix)
    )
    change = {part.removeprefix(prefix): _of(design, part) - _of(against, part) for part in parts}
    whole = sum(abs(x) for x in change.values())
    largest = sorted(change, key=lambda part: -abs(change[part]))[:_NAMED]
    unit = "J" if prefix == JOULES else "s"
    named = [f"{part.replace('_', ' ')} {_signed(change[part], unit)}" for part in largest
             if whole and abs(change[part]) > _LEAST * whole]  # fmt: skip
    return ", ".join(named)


def _of(row: Mapping[str, float] | pd.Series[float], name: str) -> float:
    return float(row[name]) if name in row else 0.0


def _signed(value: float, unit: str) -> str:
    return ("+" if value > 0 else "\u2212") + show(abs(value), unit, 3)
