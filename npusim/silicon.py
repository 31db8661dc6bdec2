"""What a machine takes in silicon, money and carbon, with bands and what is published beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from npusim import units
from npusim.arch import Arch, Designs
from npusim.constants import quadrature
from npusim.errors import InputError
from npusim.models import area, carbon, die_cost
from npusim.technology import DRAM_TYPES, LINK_TYPES, NODES, TABLES

Array = NDArray[np.float64]

RETICLE = 858e-6  # the largest field of a scanner, 26 mm x 33 mm [m2]

READ = {*area.PARAMETERS, *die_cost.PARAMETERS, *carbon.PARAMETERS}
_CONSTANTS = tuple(path for path in sorted(READ) if path.rsplit(".", 1)[0] in TABLES)
_CHOSEN = {
    "technology.node": ("node", NODES), "technology.memory": ("dram_type", DRAM_TYPES),
    "technology.link": ("link_type", LINK_TYPES), "technology.host": ("link_type", LINK_TYPES),
}  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A figure with the band of the constants behind it.

    Attributes
    ----------
    value, low, high : float
        In the unit of the figure [SI, USD].
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Silicon:
    """What one machine takes.

    Attributes
    ----------
    arch : str
        Name of the machine.
    missing : tuple of str
        Parameters without which there is no area; then all below is empty.
    node : str
        Process node, or empty.
    blocks, shares : mapping of str to Figure
        Area of each block that the machine has [m2], and its share of the die.
    figures : mapping of str to Figure
        ``die`` [m2], ``dies_per_wafer``, ``yield``, ``die_cost``, ``package_cost``,
        ``memory_cost``, ``cost`` [USD] and ``embodied`` [kg].
    published : float or None
        Area of the die as published [m2].
    """

    arch: str
    missing: tuple[str, ...]
    node: str
    blocks: Mapping[str, Figure]
    shares: Mapping[str, Figure]
    figures: Mapping[str, Figure]
    published: float | None

    @property
    def error(self) -> float | None:
        """Return how far the die is from the published one, as a share of it."""
        if self.published is None or "die" not in self.figures:
            return None
        return self.figures["die"].value / self.published - 1.0


def silicon(arch: Arch) -> Silicon:
    """Return what a machine takes in silicon, money and carbon.

    Raises
    ------
    InputError
        A die so large that a wafer does not hold two of them.

    Examples
    --------
    >>> import npusim as ns
    >>> gh100 = silicon(ns.load_arch("h100"))
    >>> gh100.node, abs(gh100.error) < 0.15
    ('n4', True)
    """
    designs, published = Designs(arch), arch.values.get("area.die")
    missing = area.missing(designs)
    if missing:
        return Silicon(arch.name, missing, "", {}, {}, {}, published)
    _refuse_giants(designs)
    blocks, shares = _banded(area.BLOCKS, designs, _areas, _shares)
    (figures,) = _banded(tuple(_FIGURES), designs, _figures)
    blocks = {name: block for name, block in blocks.items() if block.value}
    return Silicon(arch.name, (), NODES[int(arch["technology.node"])], blocks,
                   {name: shares[name] for name in blocks}, figures, published)  # fmt: skip


def constants(arch: Arch) -> tuple[str, ...]:
    """Return the constants of technology behind the silicon of a machine.

    Examples
    --------
    >>> import npusim as ns
    >>> [path for path in constants(ns.load_arch("h100")) if path.endswith(".wafer")]
    ['node.n4.wafer']
    """
    chosen = {f"{group}.{names[int(arch[path])]}" for path, (group, names) in _CHOSEN.items()
              if path in arch.values} | {"area", "cost", "carbon"}  # fmt: skip
    return tuple(path for path in _CONSTANTS if path.rsplit(".", 1)[0] in chosen)


def of_others(arch: Arch) -> frozenset[str]:
    """Return the constants of nodes, memories and links that a machine does not use.

    Examples
    --------
    >>> import npusim as ns
    >>> others = of_others(ns.load_arch("h100"))
    >>> [path in others for path in ("node.n7.logic", "node.n4.logic", "energy.dram.gddr6")]
    [True, False, True]
    """
    used = {f"{group}.{names[int(arch[path])]}" for path, (group, names) in _CHOSEN.items()
            if path in arch.values}  # fmt: skip
    if "energy.node" in arch.values:
        used.add(f"node.{NODES[int(arch['energy.node'])]}")
    kinds = {f"energy.dram.{one.split('.')[1]}" for one in used if one.startswith("dram_type.")}
    of_kinds = tuple(f"{group}." for group in ("node", "dram_type", "link_type", "energy.dram"))
    return frozenset(
        path for path in arch.values
        if path.startswith(of_kinds) and path.rsplit(".", 1)[0] not in used and path not in kinds
    )  # fmt: skip


def _refuse_giants(designs: Designs) -> None:
    """Refuse a die of which, at the high end of its band, a wafer may hold no whole one."""
    _, high = quadrature(area.die_area, designs, constants(designs.base))
    if die_cost.dies_per_wafer(high, designs).item() < 2.0:
        raise InputError("too large for a wafer", file=designs.base.name,
                         value=units.show(area.die_area(designs).item(), "mm2"))  # fmt: skip


def _areas(designs: Designs) -> Array:
    areas = area.block_areas(designs)
    return np.stack([areas[name] for name in area.BLOCKS])


def _shares(designs: Designs) -> Array:
    areas = _areas(designs)
    shares: Array = areas / areas.sum(axis=0)
    return shares


def _yield(designs: Designs) -> Array:
    areas = area.block_areas(designs)
    return die_cost.die_yield(area.die_area(designs), die_cost.in_units(areas), designs)


_FIGURES: Mapping[str, Callable[[Designs], Array]] = MappingProxyType({
    "die": area.die_area,
    "dies_per_wafer": lambda d: die_cost.dies_per_wafer(area.die_area(d), d),
    "yield": _yield,
    "die_cost": die_cost.die_cost,
    "package_cost": die_cost.package_cost,
    "memory_cost": die_cost.memory_cost,
    "cost": die_cost.machine_cost,
    "embodied": carbon.embodied,
})  # fmt: skip


def _figures(designs: Designs) -> Array:
    return np.stack([figure(designs) for figure in _FIGURES.values()])


def _banded(
    names: tuple[str, ...], designs: Designs, *values: Callable[[Designs], Array]
) -> list[dict[str, Figure]]:
    """Return some sets of figures of one machine with their bands."""

    def together(d: Designs) -> Array:
        return np.stack([value(d) for value in values])

    low, high = quadrature(together, designs, constants(designs.base))
    found = np.stack([together(designs), np.maximum(low, 0.0), high])[..., 0]
    return [{name: Figure(*map(float, ends)) for name, ends in zip(names, one.T, strict=True)}
            for one in found.swapaxes(0, 1)]  # fmt: skip
