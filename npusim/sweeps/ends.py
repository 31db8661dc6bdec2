"""Between which ends an objective of a design lies, from the bands that a sweep has.

A sweep gives ``wall_low_s`` and ``wall_high_s`` beside ``wall_s``, and likewise for
``device_busy_s`` and ``energy_j``. What is made of them has ends too:

    s_per_token       as far off as wall_s, relatively
    j_per_token       as far off as energy_j, relatively
    edp_js            energy_low x wall_low to energy_high x wall_high
    power_w           energy_low / wall_high to energy_high / wall_low
    area_delay_mm2s   as far off as wall_s, relatively
    usd_per_mtoken    as far off as the wider of wall_s and energy_j, relatively
    g_per_mtoken      the same

``s_per_token`` and ``j_per_token`` are exact where all workloads decode; beside prompts, whose
band may differ, they take that of the whole. Ends of power are wider than they need be: a longer
step also takes more energy. Those of money and carbon are wider, too: both are sums of a part in
time and a part in energy, the shares of which a table does not say. Wider ends err to the safe
side: a design that may not be worse is kept.

Left out: the bands of area, cost and movement energy, and what nobody has a band for (axes): they
count as exact.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.errors import InputError

Array = NDArray[np.float64]

_OWN = {"wall_s": "wall_{}_s", "device_busy_s": "device_busy_{}_s", "energy_j": "energy_{}_j"}
_AS = {
    "s_per_token": ("wall_s",), "j_per_token": ("energy_j",), "area_delay_mm2s": ("wall_s",),
    "usd_per_mtoken": ("wall_s", "energy_j"), "g_per_mtoken": ("wall_s", "energy_j"),
}  # fmt: skip


def ends(table: pd.DataFrame, objective: str) -> tuple[Array, Array]:
    """Return the low and the high end of an objective of each design, (N,) each.

    Raises
    ------
    InputError
        A design has the objective, but no band of it: on machines that nobody has measured.

    Examples
    --------
    >>> t = pd.DataFrame({"wall_s": [2.0], "wall_low_s": [1.0], "wall_high_s": [3.0],
    ...                   "s_per_token": [0.5], "area_mm2": [100.0]})
    >>> [end.tolist() for end in ends(t, "s_per_token")]
    [[0.25], [0.75]]
    >>> [end.tolist() for end in ends(t, "area_mm2")]
    [[100.0], [100.0]]
    """
    name, bracket, workload = objective.partition("[")
    suffix = bracket + workload
    value = table[objective].to_numpy(float)
    if name in _OWN:
        return _columns(table, name, suffix)
    if name in ("edp_js", "power_w"):
        (wall_low, wall_high), (low, high) = (_columns(table, n) for n in ("wall_s", "energy_j"))
        if name == "edp_js":
            return low * wall_low, high * wall_high
        return low / wall_high, high / wall_low
    if name in _AS:
        # Of one workload a sweep may lack the total that the figure of the workload follows.
        own = [n for n in _AS[name] if n in table]
        relative = [
            (low / total, high / total)
            for n in own
            for (low, high), total in [(_columns(table, n, suffix), table[n + suffix].to_numpy())]
        ]
        shrinks = np.min([low for low, _ in relative], axis=0)
        return value * shrinks, value * np.max([high for _, high in relative], axis=0)
    return value, value


def _columns(table: pd.DataFrame, name: str, suffix: str = "") -> tuple[Array, Array]:
    value = table[name + suffix].to_numpy(float)
    names = [_OWN[name].format(end) + suffix for end in ("low", "high")]
    missing = [n for n in names if n not in table or (table[n].isna() & ~np.isnan(value)).any()]
    if missing:
        raise InputError("designs without an error band", value=missing[0],
                         hint="leave bands out")  # fmt: skip
    low, high = (table[n].to_numpy(float) for n in names)
    return np.minimum(low, value), np.maximum(high, value)
