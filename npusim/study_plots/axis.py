"""What an axis says: a name, a unit in which its values read well, plain numbers at its ticks."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike

from npusim import units
from npusim.merit import MERITS
from npusim.parameters import PARAMETERS

_SPAN = 10.0  # values further apart than this get a logarithmic axis
_WORDS: Mapping[str, str] = MappingProxyType({
    "wall_s": "step time", "s_per_token": "time per token", "energy_j": "energy of a step",
    "j_per_token": "energy per token", "device_busy_s": "device-busy time of a step",
    "power_w": "mean power", "area_mm2": "die area", "cost_usd": "cost of a machine",
    "usd_per_mtoken": "cost of a million tokens", "g_per_mtoken": "carbon of a million tokens",
    "edp_js": "energy x delay", "area_delay_mm2s": "area x delay",
})  # fmt: skip
_ENDINGS = {"_s": "s", "_j": "J", "_w": "W", "_bytes": "B"}
_OF_WORK = {"workload.context": "keys", "workload.batch": "sequences"}


def unit_of(name: str) -> str:
    """Return the SI unit of a parameter, a change of the workload or a column of a sweep.

    Examples
    --------
    >>> [unit_of(n) for n in ("memories.dram.bandwidth", "wall_s", "idle_share", "area_mm2")]
    ['B/s', 's', '1', 'mm2']
    >>> unit_of("workload.context"), unit_of("workload.kv_bits"), unit_of("dram_kv_bytes[page]")
    ('keys', 'bit', 'B')
    """
    own = name.partition("[")[0]
    if own.startswith("workload."):  # declared as plain numbers: of what, their names say
        return _OF_WORK.get(own, "bit" if own.endswith("_bits") else "1")
    if own in PARAMETERS:
        return PARAMETERS[own].unit
    if own in MERITS:
        return MERITS[own]
    return next((unit for ending, unit in _ENDINGS.items() if own.endswith(ending)), "1")


def scale(values: ArrayLike, unit: str) -> tuple[float, str]:
    """Return the factor and the name of the unit in which values read best.

    Parameters
    ----------
    values : array_like
        [SI]
    unit : str
        Their SI unit.

    Examples
    --------
    >>> scale([2e12, 4.8e12], "B/s"), scale([1.2e-3], "s"), scale([3.0], "1")
    ((1000000000000.0, 'TB/s'), (0.001, 'ms'), (1.0, '1'))
    >>> scale([800.0], "mm2"), scale([8.0], "keys")
    ((1.0, 'mm2'), (1.0, 'keys'))
    """
    if unit not in ("s", "J", "W", "B", "B/s", "Hz", "FLOP/s", "J/B", "FLOP"):
        return 1.0, unit
    largest = float(np.max(np.abs(np.asarray(values, dtype=float)), initial=0.0))
    shown = units.show(largest, unit).partition(" ")[2]
    return units.parse(f"1 {shown}", unit), shown


def label(name: str, unit: str) -> str:
    """Return what an axis is called, with its unit.

    Examples
    --------
    >>> label("wall_s", "ms"), label("units.count", "1"), label("wall_s[page]", "ms")
    ('step time [ms]', 'units.count [1]', 'step time of page [ms]')
    """
    own, _, of = name.partition("[")
    words = _WORDS.get(own, own) + (f" of {of.rstrip(']')}" if of else "")
    return f"{words} [{unit}]"


def wide(values: ArrayLike) -> bool:
    """Return whether values belong on a logarithmic axis: positive, and 10 times apart or more.

    Examples
    --------
    >>> wide([1, 10]), wide([1, 9]), wide([0, 10])
    (True, False, False)
    """
    found = np.asarray(values, dtype=float)
    low = float(found.min())
    return low > 0 and float(found.max()) >= _SPAN * low


def logarithmic(ax: Axes, which: str) -> None:
    """Make the x or the y axis logarithmic, with plain numbers at its ticks.

    Parameters
    ----------
    ax : Axes
        With its limits set.
    which : {"x", "y"}
    """
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    low, high = sorted(ax.get_xlim() if which == "x" else ax.get_ylim())
    plain(ax.xaxis if which == "x" else ax.yaxis, low, high)


def plain(axis: Axis, low: float, high: float) -> None:
    """Write ticks of a logarithmic axis from `low` to `high` as plain numbers."""
    decades = np.log10(high / low)
    if decades < 0.5:  # 1, 2 and 5 would leave it bare
        span = np.arange(1.0, 10.0, 0.25 if decades < 0.15 else 0.5)
        axis.set_major_locator(LogLocator(subs=tuple(span)))
    else:
        steps = (1, 1.5, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 2.5 else (1,)
        axis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())
