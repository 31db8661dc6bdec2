"""Area: the silicon of each block of a die, from what the machine has and the node it is made in.

Logic is counted in transistors and divided by their density in the node, memory in bytes of SRAM in
large banks; analog PHYs do not shrink. With N = units.count + units.spare:

    matrix     = N x mac x max over types (rate x width of the type / 16 bits) / 2
    vector     = N x (fp32 x fp32 rate + int32 x int32 rate) / 2
    fp64       = N x fp64 x max(matrix rate, vector rate) / 2
    special    = N x special x rate
    registers  = N x 4 B x registers x area of a byte of register file
    l1         = N x capacity x area of a byte of L1
    control, noc, rest = N x transistors of each
    gemv_unit  = engines x lanes x (mac + rows x accumulator)
    array      = N x rows x columns x element
    fusion     = N x (control of it, and its buffer as L1)
    l2, victim, kv_sram, weight_sram, prefetch = capacity x area of a byte
    sram_compute = capacity x area of a byte that multiplies in place
    dram_phy, link, host_link = number x (PHY + controller)

A matrix unit is as large as its fastest type takes: types share its multipliers. A tf32 operand is
two of 16 bits wide, a product of fp32 is four of halves. DRAM sites are those that are there, or as
many as the bandwidth takes; links as many as ``link.bandwidth`` takes, and spare ones. The die is
the sum of its blocks.

Source: the method and most counts are those of LLMCompass (H. Zhang et al., ISCA 2024,
doi:10.1109/ISCA59077.2024.00082); each constant in ``archs/technology`` names its own. One has
none, ``area.rest``: it is set from two dies, AD102 and GB202.

Left out: area that bandwidth takes in caches and crossbar, tags, conversion units, several dies in
one package, a node of its own for SRAM, the aspect and pad limits of a die.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import technology
from npusim.models.systolic_tiles import VALUES
from npusim.models.technology import of_choice, of_node
from npusim.technology import AREA, DRAM_TYPES, LINK_TYPES, NODES

Array = NDArray[np.float64]

# Operands of 16 bits that one operand takes.
_WIDTHS = {"fp32": 4.0, "tf32": 2.0, **{dtype: 1.0 / n for dtype, n in VALUES.items()}}
_BANKS = {name: f"memories.{name}.capacity" for name in ("victim", "kv_sram", "weight_sram")} | {
    "prefetch": "prefetch.depth"
}
_COUNTS = (
    *(f"matrix.{dtype}.rate" for dtype in (*_WIDTHS, "fp64")),
    *(f"vector.{dtype}.rate" for dtype in ("fp32", "fp64", "int32")),
    "units.count", "units.spare", "units.registers", "special.rate", "memories.l1.capacity",
    "gemv.count", "gemv.lanes", "gemv.batch", "array.rows", "array.columns", "fusion.chain",
    "fusion.buffer", "memories.l2.capacity", "memories.l2.spare", *_BANKS.values(),
    "sram_compute.capacity", "memories.dram.bandwidth", "memories.dram.sites", "link.bandwidth",
    "link.spare", "host.lanes",
)  # fmt: skip

PARAMETERS = (
    *technology.PARAMETERS,
    *_COUNTS,
    *(f"area.{name}" for name in AREA),
    *(f"node.{node}.{number}" for node in NODES for number in ("logic", "sram")),
    *(f"dram_type.{name}.{n}" for name in DRAM_TYPES for n in ("phy", "control", "bandwidth")),
    *(f"link_type.{name}.{n}" for name in LINK_TYPES for n in ("phy", "control", "bandwidth")),
)

# Without one of these nothing can be said of the area of a machine.
NEEDED = ("technology.node", "technology.memory", "units.registers", "memories.l1.capacity")

# Blocks that each compute unit has: one that a defect hits can be left out if the die has spares.
IN_UNITS = ("matrix", "vector", "fp64", "special", "registers", "l1", "control", "array", "fusion")
BLOCKS = (
    *IN_UNITS, "gemv_unit", "l2", *_BANKS, "sram_compute", "noc", "dram_phy", "link", "host_link",
    "rest",
)  # fmt: skip

_REGISTER = 4.0  # bytes


def missing(designs: Designs) -> tuple[str, ...]:
    """Return the parameters without which there is no area.

    Examples
    --------
    >>> import npusim as ns
    >>> missing(Designs(ns.load_arch("h200"))), missing(Designs(ns.load_arch("mi300x")))[:1]
    ((), ('technology.node',))
    """
    return tuple(path for path in NEEDED if path not in designs)


def has_area(designs: Designs) -> bool:
    """Return whether the machine says enough of itself to have an area."""
    return not missing(designs)


def die_area(designs: Designs) -> Array:
    """Return the area of the die, (D,) [m2]; not a number where the machine has none.

    Parameters
    ----------
    designs : Designs
        D designs.

    Examples
    --------
    GH100, published with 814 mm2:

    >>> import npusim as ns
    >>> bool(0.85 < die_area(Designs(ns.load_arch("h100"))).item() / 814e-6 < 1.15)
    True
    """
    total: Array = sum(block_areas(designs).values(), np.zeros(len(designs)))
    return total


def block_areas(designs: Designs) -> dict[str, Array]:
    """Return the area of each of `BLOCKS`, each (D,) [m2]; they sum to `die_area`.

    Parameters
    ----------
    designs : Designs
        D designs. Blocks that the machine does not have take none; a machine that lacks one of
        `NEEDED` has no area at all: not a number.
    """
    if not has_area(designs):
        return {name: np.full(len(designs), np.nan) for name in BLOCKS}
    units = designs["units.count"] + _given("units.spare", designs)
    tr, byte = 1.0 / of_node("logic", designs), of_node("sram", designs)
    in_units = _in_units(tr, byte, designs)
    areas = {name: units * area for name, area in in_units.items()}
    areas |= {name: units * designs[f"area.{name}"] * tr for name in ("noc", "rest")}
    areas["gemv_unit"] = _gemv_unit(tr, designs)
    areas["l2"] = byte * (_given("memories.l2.capacity", designs)
                          + _given("memories.l2.spare", designs))  # fmt: skip
    areas |= {name: byte * _given(path, designs) for name, path in _BANKS.items()}
    in_place = byte * designs["area.sram_compute"]
    areas["sram_compute"] = in_place * _given("sram_compute.capacity", designs)
    areas["dram_phy"] = sites(designs) * _connected("technology.memory", tr, designs)
    areas["link"] = links(designs) * _connected("technology.link", tr, designs)
    lanes = _given("host.lanes", designs)
    areas["host_link"] = lanes * _connected("technology.host", tr, designs)
    return {name: np.broadcast_to(areas[name], (len(designs),)) for name in BLOCKS}


def sites(designs: Designs) -> Array:
    """Return the DRAM interfaces on the die, (D,) or (1,).

    Examples
    --------
    >>> import npusim as ns
    >>> rates = Designs(ns.load_arch("decode_npu"),
    ...                 {"memories.dram.bandwidth": np.array([2.4e12, 2.5e12])})
    >>> sites(rates).tolist()  # of 1.23 TB/s at most
    [2.0, 3.0]
    """
    fastest = of_choice("technology.memory", "bandwidth", designs)
    needed = np.ceil(designs["memories.dram.bandwidth"] / fastest)
    there: Array = np.maximum(needed, _given("memories.dram.sites", designs))
    return there


def links(designs: Designs) -> Array:
    """Return the links to other chips on the die, (D,) or (1,); PCIe counts as host link alone."""
    path = "technology.link"
    if path not in designs or "link.bandwidth" not in designs:
        return np.zeros(1)
    there: Array = np.ceil(designs["link.bandwidth"] / of_choice(path, "bandwidth", designs))
    return there + _given("link.spare", designs)


def _in_units(tr: Array, byte: Array, designs: Designs) -> dict[str, Array]:
    """Return the area of each block of one compute unit, (D,) or (1,) [m2]."""
    cost = {name: designs[f"area.{name}"] for name in AREA}
    register = _REGISTER * designs["units.registers"] * cost["registers"]
    lanes = {name: _given(f"vector.{name}.rate", designs) / 2.0 for name in ("fp32", "int32")}
    wide = np.maximum(_given("matrix.fp64.rate", designs), _given("vector.fp64.rate", designs))
    elements = _given("array.rows", designs) * _given("array.columns", designs)
    fuses = _given("fusion.chain", designs) > 0
    buffer = _given("fusion.buffer", designs) * cost["l1"] * byte
    return {
        "matrix": macs(designs) * cost["mac"] * tr,
        "vector": sum((n * cost[name] for name, n in lanes.items()), np.zeros(1)) * tr,
        "fp64": wide / 2.0 * cost["fp64"] * tr,
        "special": _given("special.rate", designs) * cost["special"] * tr,
        "registers": register * byte,
        "l1": designs["memories.l1.capacity"] * cost["l1"] * byte,
        "control": cost["control"] * tr,
        "array": elements * cost["element"] * tr,
        "fusion": np.where(fuses, cost["fusion"] * tr + buffer, 0.0),
    }


def macs(designs: Designs) -> Array:
    """Return the multiply-accumulates of 16 bits in a unit's matrix unit, (D,) or (1,).

    Examples
    --------
    >>> import npusim as ns
    >>> macs(Designs(ns.load_arch("h200"))).item()
    2048.0
    """
    rates = [width * _given(f"matrix.{dtype}.rate", designs) for dtype, width in _WIDTHS.items()]
    largest: Array = np.maximum.reduce(np.broadcast_arrays(*rates))
    return largest / 2.0


def _gemv_unit(tr: Array, designs: Designs) -> Array:
    """Return the area of all engines of the GEMV unit, (D,) or (1,) [m2]."""
    lanes = _given("gemv.count", designs) * _given("gemv.lanes", designs)
    rows = _given("gemv.batch", designs)
    found: Array = lanes * (designs["area.mac"] + rows * designs["area.accumulator"]) * tr
    return found


def _connected(path: str, tr: Array, designs: Designs) -> Array:
    """Return the area of one site or link with its controller, (D,) or (1,) [m2]."""
    if path not in designs:
        return np.zeros(1)
    return of_choice(path, "phy", designs) + of_choice(path, "control", designs) * tr


def _given(path: str, designs: Designs) -> Array:
    """Return a column of the designs, or zero: what a machine does not give it does not have."""
    return designs[path] if path in designs else np.zeros(1)
