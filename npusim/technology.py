"""Technology: nodes, memories and links that a chip can be made with, and what is known of each.

What a node, a memory or a link takes in area, money, energy and carbon is data of the technology,
kept in parameters ``node.NODE.NUMBER``, ``dram_type.MEMORY.NUMBER`` and ``link_type.LINK.NUMBER``;
what a block takes in ``area.BLOCK``. They are the same on every machine unless its file says
otherwise (``archs/technology``).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from npusim.units import CHOICES

NODES, DRAM_TYPES, LINK_TYPES = (CHOICES[name] for name in ("node", "dram_type", "link_type"))

# First words of the paths that files of archs/technology may give.
GROUPS = ("node", "area", "dram_type", "link_type", "cost", "carbon", "energy", "leakage", "clocks")

_Numbers = Mapping[str, tuple[str, float, float, str]]

# Number -> unit, bounds [SI] and meaning of its parameter.
NODE: _Numbers = MappingProxyType({
    "logic": ("Tr/mm2", 1e11, 1e16, "transistors of logic on an area"),
    "sram": ("mm2/MB", 1e-15, 1e-9, "SRAM in large banks, decoders and wiring of these included"),
    "wafer": ("USD", 1, 1e6, "price of a processed wafer"),
    "defects": ("1/cm2", 0, 1e6, "defects on an area that kill what they hit"),
    "fab_energy": ("kWh/cm2", 0, 1e13, "electricity that a fab takes for an area"),
    "fab_gas": ("kg/cm2", 0, 1e6, "greenhouse gases that a fab lets out for an area, as CO2"),
    "energy": ("1", 1e-3, 1e3, "energy of the same operation, n4 being 1"),
    "leakage": ("1", 1e-3, 1e3, "leakage power of the same area, n4 being 1"),
})  # fmt: skip
DRAM_TYPE: _Numbers = MappingProxyType({
    "phy": ("mm2", 0, 1, "PHY of one site: a stack of HBM (1024 bits), else 32 bits"),
    "control": ("Tr", 0, 1e12, "memory controller of one site"),
    "bandwidth": ("B/s", 1e6, 1e18, "the fastest site that is made"),
    "price": ("USD/GB", 0, 1, "price of memory"),
    "package": ("USD", 0, 1e6, "what a site adds to the package: interposer, substrate, assembly"),
    "carbon": ("g/GB", 0, 1, "carbon of making memory, as CO2"),
})  # fmt: skip
LINK_TYPE: _Numbers = MappingProxyType({
    "phy": ("mm2", 0, 1, "PHY of one link, or lane of PCIe"),
    "control": ("Tr", 0, 1e12, "controller of one link or lane"),
    "bandwidth": ("B/s", 1e3, 1e18, "bandwidth of one link or lane, both directions"),
})  # fmt: skip
AREA: _Numbers = MappingProxyType({
    "mac": ("Tr", 0, 1e12, "a multiply-accumulate of 16 bits into 32 of a matrix unit or engine"),
    "element": ("Tr", 0, 1e12, "a processing element of 16 bits of a systolic array"),
    "fp32": ("Tr", 0, 1e12, "a lane of fp32 multiply-adds"),
    "fp64": ("Tr", 0, 1e12, "a lane of fp64 multiply-adds"),
    "int32": ("Tr", 0, 1e12, "a lane of int32 multiply-adds, logic and addresses"),
    "special": ("Tr", 0, 1e12, "a lane of special functions"),
    "accumulator": ("Tr", 0, 1e12, "a register of 32 bits for the sums of one row of a lane"),
    "registers": ("1", 0.1, 100, "area of a byte of register file, in bytes of a large SRAM bank"),
    "l1": ("1", 0.1, 100, "area of a byte of L1 or fusion buffer, in bytes of a large SRAM bank"),
    "sram_compute": ("1", 0.1, 100,
                     "area of a byte that multiplies in place, in bytes of a large SRAM bank"),
    "control": ("Tr", 0, 1e12, "control of one compute unit: fetch, schedulers, load and store"),
    "fusion": ("Tr", 0, 1e12, "the fusion engine of one compute unit beside its buffer"),
    "noc": ("Tr", 0, 1e12, "what one compute unit takes of the crossbar"),
    "rest": ("Tr", 0, 1e12, "what else a die holds, for one compute unit"),
})  # fmt: skip
COST: _Numbers = MappingProxyType({
    "wafer_diameter": ("mm", 1e-2, 10, "diameter of a wafer"),
    "edge": ("mm", 0, 1, "rim of a wafer that no die may lie in"),
    "scribe": ("mm", 0, 1, "width of the line between two dies"),
    "clustering": ("1", 0.1, 100, "how evenly defects are spread over dies (large: evenly)"),
    "package": ("USD", 0, 1e6, "package and assembly of a chip without its memory"),
    "test": ("USD", 0, 1e6, "test of a chip"),
    "lifetime": ("s", 1, 1e10, "how long a machine serves"),
    "utilisation": ("1", 1e-3, 1, "share of that in which it is at work"),
    "electricity": ("USD/kWh", 0, 1, "price of electricity where it runs, cooling included"),
})  # fmt: skip
CARBON: _Numbers = MappingProxyType({
    "fab_grid": ("g/kWh", 0, 1e-3, "carbon of the electricity of the fab, as CO2"),
    "materials": ("kg/cm2", 0, 1e6, "carbon of the materials of an area, as CO2"),
    "package": ("g", 0, 1e3, "carbon of packaging one chip or memory site, as CO2"),
    "grid": ("g/kWh", 0, 1e-3, "carbon of the electricity where the machine runs, as CO2"),
})  # fmt: skip
ENERGY: _Numbers = MappingProxyType({
    "padding": ("1", 0, 1,
                "energy of an operation on rows that only fill a tile, in those of its type"),
    "vector": ("J/FLOP", 0, 1e-6, "energy of an operation of the vector lanes, operands included"),
    "special": ("J/OP", 0, 1e-6, "energy of a special function"),
    "engine": ("J/FLOP", 0, 1e-6, "energy of an operation of 16 bits of the GEMV unit, a systolic "
               "array or an array that computes in place"),
    "cycle": ("J/clock", 0, 1e-3, "energy of a clock of a compute unit that has a kernel, beside "
              "what that computes and moves"),
    "launch": ("J", 0, 1, "energy of a launch, on the device"),
    "host_copy": ("J/B", 0, 1e-6, "energy on the device of a byte copied from or to the host"),
    "cache": ("J/B", 0, 1e-6, "energy of a byte of a last-level cache that does not say its own, "
              "up to the compute units"),
    "cache_quoted": ("B", 1, 1e15, "capacity of the cache that takes that"),
    "node": ("node", 0, len(NODES) - 1,
             "node in which energies of operations and of bytes on the die are quoted"),
})  # fmt: skip
MATRIX_ENERGY: _Numbers = MappingProxyType({
    dtype: ("J/FLOP", 0, 1e-6, f"energy of a {dtype} operation of the matrix unit, operands from "
            "the last-level cache on")
    for dtype in ("fp32", "tf32", "fp16", "bf16", "fp8", "int8", "int4")
})  # fmt: skip
DRAM_ENERGY: _Numbers = MappingProxyType({
    name: ("J/B", 0, 1e-6, f"energy of a byte of {name}, device and PHY, where its machine gives "
           "no memories.dram.energy; transport on the die is that of the cache")
    for name in DRAM_TYPES
})  # fmt: skip
DENSITY: Mapping[str, _Numbers] = MappingProxyType({
    "leakage": {"density": ("W/mm2", 0, 1e9, "leakage of an area of the die in node n4, at the "
                            "voltage of voltage.clock")},
    "clocks": {"density": ("W/mm2", 0, 1e9, "power of the clocks of an area of the die in node n4 "
                           "that has nothing to do, at voltage.clock")},
})  # fmt: skip

TABLES: Mapping[str, _Numbers] = MappingProxyType({
    **{f"node.{name}": NODE for name in NODES},
    **{f"dram_type.{name}": DRAM_TYPE for name in DRAM_TYPES},
    **{f"link_type.{name}": LINK_TYPE for name in LINK_TYPES},
    "area": AREA, "cost": COST, "carbon": CARBON, "energy": ENERGY,
    "energy.matrix": MATRIX_ENERGY, "energy.dram": DRAM_ENERGY, **DENSITY,
})  # fmt: skip
