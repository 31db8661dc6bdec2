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

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models.area import die_area, has_area
from npusim.models.carbon import operational
from npusim.models.die_cost import machine_cost
from npusim.models.service_cost import carbon, money

Array = NDArray[np.float64]

_MILLION = 1e6

# Figures of a design that a designer may want small, with the unit of their column.
MERITS = MappingProxyType({
    "wall_s": "s", "s_per_token": "s", "energy_j": "J", "movement_j": "J", "j_per_token": "J",
    "power_w": "W", "edp_js": "Js", "area_mm2": "mm2", "area_delay_mm2s": "mm2 s",
    "cost_usd": "USD", "usd_per_mtoken": "USD", "g_per_mtoken": "g",
})  # fmt: skip


def machine_figures(designs: Designs) -> dict[str, Array]:
    """Return what follows from the machines alone, each (D,); nothing without an area.

    Returns
    -------
    dict of str to array
        ``area_mm2`` and ``cost_usd``; ``usd_per_s`` and ``usd_per_j``, what a second and a joule
        cost; ``g_per_s`` and ``g_per_j``, the carbon of them.

    Examples
    --------
    >>> import npusim as ns
    >>> found = machine_figures(Designs(ns.load_arch("h100")))
    >>> bool(found["cost_usd"][0] > found["usd_per_s"][0] > 0)
    True
    """
    if not has_area(designs):
        return {}
    one, none = np.ones(len(designs)), np.zeros(len(designs))
    cost = np.broadcast_to(machine_cost(designs), len(designs))
    return {
        "area_mm2": die_area(designs) * 1e6,
        "cost_usd": cost,
        "usd_per_s": money(one, none, designs, cost),
        "usd_per_j": money(none, one, designs, cost),
        "g_per_s": carbon(one, none, designs) * 1e3,
        "g_per_j": operational(one, designs) * 1e3,
    }


def figures_of_merit(
    table: Mapping[str, Array], designs: Designs, machines: Mapping[str, Array] | None = None
) -> dict[str, Array]:
    """Return columns that follow from those of a sweep: those that its machine has.

    Parameters
    ----------
    table : mapping of str to array, shape (D,)
        D designs with ``wall_s``; ``energy_j`` and ``s_per_token`` where they have them.
    designs : Designs
        The same designs.
    machines : mapping of str to array, shape (D,), optional
        Their `machine_figures`, if these are known already.

    Examples
    --------
    >>> import npusim as ns
    >>> table = {"wall_s": np.array([0.5]), "energy_j": np.array([100.0])}
    >>> found = figures_of_merit(table, Designs(ns.load_arch("h200")))
    >>> float(found["power_w"][0]), float(found["edp_js"][0]), "usd_per_mtoken" in found
    (200.0, 50.0, False)
    """
    found: dict[str, Array] = {}
    if "energy_j" in table:
        found["power_w"] = table["energy_j"] / table["wall_s"]
        found["edp_js"] = table["energy_j"] * table["wall_s"]
    of = machine_figures(designs) if machines is None else machines
    if not of:
        return found
    found["area_mm2"] = of["area_mm2"]
    found["area_delay_mm2s"] = of["area_mm2"] * table["wall_s"]
    found["cost_usd"] = of["cost_usd"]
    if "j_per_token" in table:
        seconds, joules = (table[f"{unit}_per_token"] for unit in ("s", "j"))
        for name, unit in (("usd_per_mtoken", "usd"), ("g_per_mtoken", "g")):
            each = seconds * of[f"{unit}_per_s"] + joules * of[f"{unit}_per_j"]
            found[name] = each * _MILLION
    return found
