"""Carbon: what making a chip lets out, and what running it does.

    embodied    = A / yield x (fab electricity x its grid + gases + materials)
                  + memory x carbon of its kind + (1 + memory stacks) x package
    operational = energy x grid

in kg of CO2 equivalents, with the area A of the die, the electricity and gases of its node for an
area (``node.*.fab_energy``, ``node.*.fab_gas``) and the grid where the machine runs
(``carbon.grid``, an input). Memory outside the package counts without a package of its own.

Source: U. Gupta et al., "ACT: designing sustainable computer systems with an architectural carbon
modeling tool", ISCA 2022, doi:10.1145/3470496.3527408.

Left out: board, cooling and buildings, electricity that they take, transport, end of life, wafer
area that no die covers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import area as silicon
from npusim.models.die_cost import die_yield, in_units
from npusim.models.technology import of_choice, of_node
from npusim.technology import CARBON, DRAM_TYPES, NODES

Array = NDArray[np.float64]

PARAMETERS = (
    "technology.node", "technology.memory", "memories.dram.capacity",
    *(f"carbon.{name}" for name in CARBON),
    *(f"node.{node}.{number}" for node in NODES for number in ("fab_energy", "fab_gas")),
    *(f"dram_type.{name}.{number}" for name in DRAM_TYPES for number in ("carbon", "package")),
)  # fmt: skip


def embodied(designs: Designs) -> Array:
    """Return the carbon of making a chip and its memory, (D,) [kg]; not a number without an area.

    Examples
    --------
    >>> import npusim as ns
    >>> bool(20 < embodied(Designs(ns.load_arch("a100"))).item() < 60)
    True
    """
    if not silicon.has_area(designs):
        return np.full(len(designs), np.nan)
    areas = silicon.block_areas(designs)
    area = sum(areas.values(), np.zeros(len(designs)))
    of_area = (
        of_node("fab_energy", designs) * designs["carbon.fab_grid"]
        + of_node("fab_gas", designs)
        + designs["carbon.materials"]
    )
    die = area / die_yield(area, in_units(areas), designs) * of_area
    memory = designs["memories.dram.capacity"] * of_choice("technology.memory", "carbon", designs)
    stacked = of_choice("technology.memory", "package", designs) > 0
    packages = 1.0 + np.where(stacked, silicon.sites(designs), 0.0)
    carbon: Array = die + memory + packages * designs["carbon.package"]
    return carbon


def operational(energy: Array, designs: Designs) -> Array:
    """Return the carbon of an energy, (D,) [kg], of an energy [J].

    Examples
    --------
    A kilowatt-hour at 301 g:

    >>> import npusim as ns
    >>> operational(np.array([3.6e6]), Designs(ns.load_arch("h200"))).round(6).tolist()
    [0.301]
    """
    carbon: Array = energy * designs["carbon.grid"]
    return carbon
