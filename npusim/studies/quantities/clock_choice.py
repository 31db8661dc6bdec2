"""Energy of some work at the clock that a latency allows, over that at the full clock.

Of all clocks at which the work is done within the latency (upper end of its band), the one with the
least energy is taken (`npusim.clock_modes`). Where a period is given, the board sleeps from the end
of the work to the end of the period, and that counts on both sides: to race and rest, or to pace.

Left out: the time and the energy of changing a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd

from npusim import units
from npusim.clock_modes import modes, over_period, sleeping
from npusim.errors import InputError
from npusim.load import load_arch, load_workload
from npusim.studies.assumed import with_settings
from npusim.studies.value import Doubt, Value
from npusim.sweep_block import Strict

UNIT = "1"
FIGURE = "energy at the chosen clock over that at the full clock"


class Options(Strict):
    """A step, a machine and how long it may take.

    Attributes
    ----------
    workload, arch : str
    launch : {"eager", "graph", "queue"}
    longer : float
        Latency, as a multiple of the time at the full clock; or 0 where `latency` is given.
    latency : str
    period : str
        How often the work is asked for; empty: the board is given away after it.
    """

    workload: str
    arch: str
    launch: Literal["eager", "graph", "queue"] = "queue"
    longer: float = 0.0
    latency: str = ""
    period: str = ""


def doubts(options: Options) -> dict[str, Doubt]:
    """Return nothing: machines share what clocks and voltages are told by."""
    return {}


def measure(options: Options, settings: Mapping[str, float]) -> Value:
    """Return the ratio.

    Raises
    ------
    InputError
        Both or none of ``longer`` and ``latency``, or no clock that is fast enough.

    Examples
    --------
    >>> asked = Options(workload="paddleocr_vl_decode", arch="decode_npu", longer=1.0)
    >>> measure(asked, {}).value
    1.0
    """
    table = _table(options.workload, options.arch, options.launch, tuple(sorted(settings.items())))
    full = table.iloc[-1]
    if (options.longer > 0) == bool(options.latency):
        raise InputError("needs one of longer and latency", place="clock_choice")
    if options.longer:
        column, limit = "wall_s", options.longer * float(full["wall_s"])
    else:
        column, limit = "wall_high_s", units.parse(options.latency, "s")
    energy = {end: _energy(table, end, options) for end in ("energy_j", "energy_low_j",
                                                           "energy_high_j")}  # fmt: skip
    allowed = (table[column] <= limit * (1 + 1e-9)) & energy["energy_j"].notna()
    if not allowed.any():
        raise InputError("no clock is fast enough", place="latency", value=units.show(limit, "s"))
    best = int(np.nanargmin(energy["energy_j"].where(allowed)))
    ratios = [float(e.iloc[best] / e.iloc[-1]) for e in energy.values()]
    chosen = table.iloc[best]
    reason = (
        f"at {chosen['share']:.0%} of the clock and {chosen['voltage']:.2f} V it takes "
        f"{1e3 * chosen['wall_s']:.3g} ms and {energy['energy_j'].iloc[best]:.3g} J, at the full "
        f"clock {1e3 * full['wall_s']:.3g} ms and {energy['energy_j'].iloc[-1]:.3g} J"
    )
    return Value(ratios[0], min(ratios), max(ratios), reason, (options.workload, options.arch))


def _energy(table: pd.DataFrame, end: str, options: Options) -> pd.Series[float]:
    if not options.period:
        return table[end]
    own = table.assign(energy_j=table[end])
    return over_period(own, units.parse(options.period, "s"), sleeping(load_arch(options.arch)))


@lru_cache(maxsize=32)
def _table(
    workload: str, arch: str, launch: str, settings: tuple[tuple[str, float], ...]
) -> pd.DataFrame:
    shares = [float(s) for s in np.round(np.arange(0.4, 1.001, 0.05), 2)]
    return modes(load_workload(workload), with_settings(load_arch(arch), dict(settings)), launch,
                 shares)  # fmt: skip
