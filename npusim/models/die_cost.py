"""Die cost: dies of a wafer, how many of them work, and what a chip with its memory costs.

Dies of a wafer, for square dies of area A with a scribe line s, on a diameter d without its edge:

    dies = pi d2 / 4 A' - pi d / sqrt(2 A'),   A' = (sqrt A + s)2

Defects fall on a die as a Poisson number with a mean that differs from die to die: a gamma
distribution of shape alpha (``cost.clustering``) around D0 A. A die without spares works with the
negative binomial (1 + D0 A / alpha)^-alpha. A die with spare compute units works if nothing is hit
outside its units, and no more units are hit than it has spare ones. Given a mean of l defects a m2,

    works(l) = exp(-l A_outside) P(at most `spare` of N units are hit), each 1 - exp(-l A_unit)

which is averaged over the gamma distribution. A die that works costs wafer / (dies x yield).
The machine is the die, its test, package, and memory: prices of parts, without board, cooling,
design, masks and margin.

Source: dies of a wafer: D. K. de Vries, "Investigation of gross die per wafer formulas", IEEE
Trans. Semiconductor Manufacturing 18(1), 2005, doi:10.1109/TSM.2004.836656. Yield: C. H. Stapper,
"Modeling of integrated circuit defect sensitivities", IBM J. Research and Development 27(6), 1983;
blocks that can be left out: I. Koren, Z. Koren, "Defect tolerance in VLSI circuits", Proc. IEEE
86(9), 1998.

Left out: repair of SRAM and spare slices of the last-level cache, yield of package and memory
stacks, dies sold with fewer units, dies larger than a reticle (26 x 33 mm), oblong dies.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, gamma, roots_genlaguerre

from npusim.arch import Designs
from npusim.models import area as silicon
from npusim.models.technology import of_choice, of_node
from npusim.technology import DRAM_TYPES, NODES

Array = NDArray[np.float64]

PARAMETERS = (
    "technology.node", "technology.memory", "units.count", "units.spare",
    "memories.dram.capacity",
    "cost.wafer_diameter", "cost.edge", "cost.scribe", "cost.clustering", "cost.package",
    "cost.test",
    *(f"node.{node}.{number}" for node in NODES for number in ("wafer", "defects")),
    *(f"dram_type.{name}.{number}" for name in DRAM_TYPES for number in ("price", "package")),
)  # fmt: skip

_NODES = 32  # of Gauss-Laguerre quadrature


def dies_per_wafer(area: Array, designs: Designs) -> Array:
    """Return the whole dies that a wafer gives, good or bad, (D,).

    Parameters
    ----------
    area : array, shape (D,)
        Area of a die [m2].
    designs : Designs
        D designs.

    Examples
    --------
    Some 60 dies as large as GH100:

    >>> import npusim as ns
    >>> round(dies_per_wafer(np.array([814e-6]), Designs(ns.load_arch("h100"))).item(), 1)
    60.0
    """
    side = np.sqrt(area) + designs["cost.scribe"]
    diameter = np.maximum(designs["cost.wafer_diameter"] - 2.0 * designs["cost.edge"], 0.0)
    whole = np.pi * diameter**2 / (4.0 * side**2) - np.pi * diameter / (np.sqrt(2.0) * side)
    found: Array = np.maximum(whole, 0.0)
    return found


def die_yield(area: Array, in_units: Array, designs: Designs) -> Array:
    """Return the share of dies that work, with as many units as are enabled, (D,).

    Parameters
    ----------
    area : array, shape (D,)
        Area of a die [m2].
    in_units : array, shape (D,)
        What of it lies in compute units, spare ones included [m2].
    designs : Designs
        D designs.
    """
    spare = designs["units.spare"] if "units.spare" in designs else np.zeros(1)
    units = designs["units.count"] + spare
    defects, shape = of_node("defects", designs), designs["cost.clustering"]
    area, in_units, units, spare, defects, shape = np.broadcast_arrays(
        area, in_units, units, spare, defects, shape
    )
    found: Array = (1.0 + defects * area / shape) ** -shape
    few = np.flatnonzero(spare > 0)
    if few.size:
        found[few] = _with_spares(*(x[few] for x in (area, in_units, units, spare, defects, shape)))
    return found


def _with_spares(
    area: Array, in_units: Array, units: Array, spare: Array, defects: Array, shape: Array
) -> Array:
    """Return the share of dies that work where units can be left out, (D,)."""
    outside, each = defects * (area - in_units), defects * in_units / units
    found = np.zeros(len(area))
    for alpha in np.unique(shape):
        for rate, weight in _gamma(float(alpha)):
            well = np.exp(-rate * each)
            working = np.exp(-rate * outside) * betainc(units - spare, spare + 1.0, well)
            found = found + np.where(shape == alpha, weight * working, 0.0)
    return np.minimum(found, 1.0)  # weights sum to one but for rounding


@cache
def _gamma(shape: float) -> list[tuple[float, float]]:
    """Return points of a gamma distribution of mean 1, each with its weight."""
    nodes, weights = roots_genlaguerre(_NODES, shape - 1.0)
    return list(zip((nodes / shape).tolist(), (weights / gamma(shape)).tolist(), strict=True))


def die_cost(designs: Designs) -> Array:
    """Return the cost of a die that works, (D,) [USD]; not a number without an area."""
    if not silicon.has_area(designs):
        return np.full(len(designs), np.nan)
    areas = silicon.block_areas(designs)
    area = sum(areas.values(), np.zeros(len(designs)))
    good = dies_per_wafer(area, designs) * die_yield(area, in_units(areas), designs)
    with np.errstate(divide="ignore"):  # not one on a wafer
        cost: Array = of_node("wafer", designs) / good
    return cost


def in_units(areas: dict[str, Array]) -> Array:
    """Return what of a die lies in compute units, (D,) [m2]."""
    found: Array = sum((areas[name] for name in silicon.IN_UNITS), np.zeros(1))
    return found


def memory_cost(designs: Designs) -> Array:
    """Return the cost of the DRAM, (D,) [USD]; not a number where its kind is not known."""
    if "technology.memory" not in designs:
        return np.full(len(designs), np.nan)
    price = of_choice("technology.memory", "price", designs)
    return np.broadcast_to(designs["memories.dram.capacity"] * price, (len(designs),))


def package_cost(designs: Designs) -> Array:
    """Return the cost of package, assembly and test, (D,) [USD]; not a number without an area."""
    if not silicon.has_area(designs):
        return np.full(len(designs), np.nan)
    of_memory = silicon.sites(designs) * of_choice("technology.memory", "package", designs)
    own = designs["cost.package"] + designs["cost.test"]
    return np.broadcast_to(own + of_memory, (len(designs),))


def machine_cost(designs: Designs) -> Array:
    """Return the cost of a chip and its memory, (D,) [USD]; not a number without an area.

    Parameters
    ----------
    designs : Designs
        D designs.

    Examples
    --------
    Bills of materials of an H100 are estimated at 2,500 to 3,300 USD, board included:

    >>> import npusim as ns
    >>> bool(2000 < machine_cost(Designs(ns.load_arch("h100"))).item() < 3300)
    True
    """
    return die_cost(designs) + package_cost(designs) + memory_cost(designs)
