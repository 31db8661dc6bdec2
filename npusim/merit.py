"""Figures of merit of designs: power, energy x delay, area, cost, and what a token costs.

    power_w           = energy_j / wall_s
    edp_js            = energy_j x wall_s
    area_mm2          = area of the die
    area_delay_mm2s   = area_mm2 x wall_s
    cost_usd          = die, test, package and memory
    usd_per_mtoken    = cost of the seconds and joules of a million tokens
    g_per_mtoken      = carbon of the same (`npusim.models.service_cost`)

Steps or pages a joule (performance per watt) are 1 / energy_j, tokens a joule 1 / j_per_token, and
performance per mm2 is 1 / area_delay_mm2s: small is better in all of them.

Figures of a token are those of the steps that decode: what a prompt or an image takes is no part of
them.

Left out: design and masks, margin, boards, hosts, cooling and buildings.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from npusim.arch import Designs
from npusim.models.area import die_area, has_area
from npusim.models.die_cost import machine_cost
from npusim.models.service_cost import carbon, money

_MILLION = 1e6

# Figures of a design that a designer may want small, with the unit of their column.
MERITS = MappingProxyType({
    "wall_s": "s", "s_per_token": "s", "energy_j": "J", "movement_j": "J", "j_per_token": "J",
    "power_w": "W", "edp_js": "Js", "area_mm2": "mm2", "area_delay_mm2s": "mm2 s",
    "cost_usd": "USD", "usd_per_mtoken": "USD", "g_per_mtoken": "g",
})  # fmt: skip


def figures_of_merit(table: pd.DataFrame, designs: Designs) -> dict[str, Any]:
    """Return columns that follow from those of a sweep: those that its machine has.

    Parameters
    ----------
    table : DataFrame
        D designs with ``wall_s``; ``energy_j`` and ``s_per_token`` where they have them.
    designs : Designs
        The same designs.

    Examples
    --------
    >>> import npusim as ns
    >>> table = pd.DataFrame({"wall_s": [0.5], "energy_j": [100.0]})
    >>> found = figures_of_merit(table, Designs(ns.load_arch("h200")))
    >>> float(found["power_w"][0]), float(found["edp_js"][0]), "usd_per_mtoken" in found
    (200.0, 50.0, False)
    """
    found: dict[str, Any] = {}
    if "energy_j" in table:
        found["power_w"] = table["energy_j"] / table["wall_s"]
        found["edp_js"] = table["energy_j"] * table["wall_s"]
    if not has_area(designs):
        return found
    found["area_mm2"] = die_area(designs) * 1e6
    found["area_delay_mm2s"] = found["area_mm2"] * table["wall_s"].to_numpy()
    found["cost_usd"] = np.broadcast_to(machine_cost(designs), len(designs))
    if "j_per_token" in table:
        seconds, joules = (table[f"{unit}_per_token"].to_numpy() for unit in ("s", "j"))
        found["usd_per_mtoken"] = money(seconds, joules, designs) * _MILLION
        found["g_per_mtoken"] = carbon(seconds, joules, designs) * 1e3 * _MILLION
    return found
