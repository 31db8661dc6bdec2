"""Energy: what an operation, a byte, a launch and a second of a machine cost.

    operation   e x node x V^2                    for each FLOP, special function, clock of a unit
    byte        e x node x V^2 x sqrt(capacity / quoted capacity)       of a level on the die
                e                                                       of DRAM, the whole path
    leakage     leakage.density x area x leakage of the node x V^2      of each block
    clocks      clocks.density x area x energy of the node x V^2 x clock / voltage.clock

V is the voltage at the clock of the units (`npusim.models.voltage`), node the energy of a node over
that of the node in which energies are quoted. A byte of a larger memory travels farther: wires are
as long as the side of the memory. Matrix units work in whole tiles: rows that only fill one are
multiplied too, at ``energy.padding`` of what data costs (zeros switch less).

An operation of the matrix unit holds what brings its operands from the last-level cache through
shared memory and registers, in tiles of `_TILE` rows and columns as in the product that energies
are quoted for. The bytes that an operation reads once are counted with the level that serves them,
their way to the units included: it would be counted twice. An element's way takes as much as `_WAY`
operations (56 pJ a byte beside 1.03 pJ in bf16, 0.59 in fp8), so a product has the energy of

    FLOP - 100 x (weights x min(1, rows / 256) + inputs x min(1, columns / 256))

With fewer rows than a tile a weight serves fewer operations, which hold less of its way. Twelve
products of an H200 that its board holds at 700 W take 667 to 741 W by this, and up to 821 if the
way counts twice (h200_power_window.json).

Source: energy of wires and memories with their size, M. Horowitz, ISSCC 2014,
doi:10.1109/ISSCC.2014.6757323; constants in ``archs/technology/energy.yaml``, most of them from the
counter of an H200 board (docs/energy.md).

Left out: what data does beside padding (zeros take 0.4 of random numbers in a product),
temperature, voltages of their own of caches and DRAM, energy of the host.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models.area import block_areas
from npusim.models.area import missing as without_area
from npusim.models.hierarchy import LEVELS
from npusim.models.roofline import MATRIX_DTYPES
from npusim.models.technology import of_node
from npusim.models.voltage import PARAMETERS as OF_VOLTAGE
from npusim.models.voltage import voltage
from npusim.technology import DRAM_TYPES, NODES
from npusim.workload import BYTES_OF, Operations

Array = NDArray[np.float64]

ON_DIE = tuple(level for level in LEVELS if level != "dram")
OPERATIONS = (*(f"energy.matrix.{dtype}" for dtype in MATRIX_DTYPES), "energy.vector",
              "energy.special", "energy.engine", "energy.cycle", "energy.launch",
              "energy.host_copy")  # fmt: skip

# Those of limits, sleep and gating are read by what evaluates steps (`npusim.power`,
# `npusim.energy`, `npusim.clock_modes`).
PARAMETERS = (
    "power.limit", "power.sleep", "gating.clocks", "gating.leakage", "gating.wake",
    *OPERATIONS, "energy.padding", "energy.cache", "energy.cache_quoted", "energy.node",
    *(f"energy.dram.{name}" for name in DRAM_TYPES), "power.rest", "power.idle", "power.clocks",
    "leakage.density", "clocks.density", *(f"memories.{level}.energy" for level in LEVELS),
    *(f"memories.{level}.quoted" for level in ON_DIE),
    *(f"memories.{level}.capacity" for level in ON_DIE), *OF_VOLTAGE,
    *(f"node.{node}.{number}" for node in NODES for number in ("energy", "leakage")),
)  # fmt: skip

# Without one of these nothing can be said of the energy of a machine; of the two ways to say what
# it takes without work, the first needs the area of its die.
NEEDED = ("technology.node", "technology.memory", "energy.node")
BY_AREA, BY_POWER = ("power.rest",), ("power.idle", "power.clocks")

# Rows of the smallest tile of a matrix unit: of a kernel for grouped products, the M of its
# instruction and tile (CUTLASS names both: 64x128x16); else the N of the smallest (PTX: wgmma n8).
_ROWS = {"grouped_matrix": 64.0}
_LEAST_ROWS = 8.0
# Rows and columns of operands that units share: blocks of 128 x 256 in pairs (nvjet kernel names of
# products of 8192 on an H200).
_TILE = 256.0
_WAY = 100.0  # FLOP an element: 81 in int8, 94 in fp8, 108 in bf16, 114 in tf32


def missing(designs: Designs) -> tuple[str, ...]:
    """Return the parameters without which there is no energy.

    Examples
    --------
    >>> import npusim as ns
    >>> missing(Designs(ns.load_arch("h200"))), missing(Designs(ns.load_arch("mi300x")))[:1]
    ((), ('technology.node',))
    """
    lacks = tuple(path for path in NEEDED if path not in designs)
    by_area = (*without_area(designs), *(p for p in BY_AREA if p not in designs))
    if by_area and all(path in designs for path in BY_POWER):
        return lacks
    return tuple(dict.fromkeys((*lacks, *by_area)))


def has_energy(designs: Designs) -> bool:
    """Return whether the machine says enough of itself to have an energy."""
    return not missing(designs)


def factor(designs: Designs) -> Array:
    """Return what the node and the voltage make of a quoted energy, (D,) or (1,)."""
    quoted = int(designs["energy.node"][0])
    node = of_node("energy", designs) / designs[f"node.{NODES[quoted]}.energy"]
    scaled: Array = node * voltage(designs) ** 2
    return scaled


def scales(path: str, designs: Designs) -> tuple[str, ...]:
    """Return the constants of the node that an energy or density of its own is multiplied by.

    Examples
    --------
    >>> import npusim as ns
    >>> a100 = Designs(ns.load_arch("a100"))
    >>> scales("energy.vector", a100), scales("energy.dram.hbm2e", a100)
    (('node.n7.energy',), ())
    """
    if "technology.node" not in designs:
        return ()
    node, quoted = (int(designs[p][0]) for p in ("technology.node", "energy.node"))
    if path == "leakage.density":
        return (f"node.{NODES[node]}.leakage",)
    apart = path.startswith(("power.", "energy.dram.")) or path == "memories.dram.energy"
    return () if apart or node == quoted else (f"node.{NODES[node]}.energy",)


def of_operation(path: str, designs: Designs) -> Array:
    """Return the energy of one operation of a design, (D,) or (1,) [J].

    Parameters
    ----------
    path : str
        One of `OPERATIONS`. What a machine does not give takes none.
    designs : Designs
        D designs.
    """
    return designs[path] * factor(designs) if path in designs else np.zeros(1)


def of_byte(level: str, designs: Designs) -> dict[str, Array]:
    """Return the energy of a byte that a level serves, by constant, (D,) or (1,) each [J/B].

    DRAM that does not say its own takes what its kind does, and on the way to the units what the
    last-level cache takes that energies are quoted for; a last-level cache takes what that one
    does. Another memory that does not say what a byte takes has none: not a number.

    Examples
    --------
    Four times the cache, twice the way:

    >>> import npusim as ns
    >>> sizes = {"memories.l2.capacity": np.array([60, 240]) * 2.0**20}
    >>> one, four = of_byte("l2", Designs(ns.load_arch("h200"), sizes))["memories.l2.energy"]
    >>> round(float(four / one), 6)
    2.0
    """
    path, quoted = f"memories.{level}.energy", f"memories.{level}.quoted"
    if level == "dram" and path in designs:
        return {path: designs[path]}
    if level == "dram":
        return {**_of_kind(designs), "energy.cache": designs["energy.cache"] * factor(designs)}
    if level == "l2" and path not in designs:
        path, quoted = "energy.cache", "energy.cache_quoted"
    if path not in designs:
        return {path: np.full(1, np.nan)}
    energy = designs[path] * factor(designs)
    if quoted in designs:
        energy = energy * np.sqrt(designs[f"memories.{level}.capacity"] / designs[quoted])
    return {path: energy}


def _of_kind(designs: Designs) -> dict[str, Array]:
    """Return the energy of a byte of the kind of DRAM of each design, by constant, (D,) [J/B]."""
    kinds = designs["technology.memory"]
    return {
        path: np.where(kinds == i, designs[path], 0.0)
        for i in np.unique(kinds).astype(int)
        for path in [f"energy.dram.{DRAM_TYPES[i]}"]
    }


def leakage_power(designs: Designs) -> dict[str, Array]:
    """Return the leakage of each block at the voltage of the units, each (D,) [W].

    Of a machine whose area is not known nothing is known by block: there is none.
    """
    if without_area(designs):
        return {}
    each = designs["leakage.density"] * of_node("leakage", designs) * voltage(designs) ** 2
    return {block: area * each for block, area in block_areas(designs).items()}


def clock_power(designs: Designs) -> dict[str, Array]:
    """Return the power of the clocks of each block while nothing gates them, each (D,) [W].

    Of a machine whose area is not known it is that of the whole ``die``.
    """
    turns = designs["units.clock"] / designs["voltage.clock"] if "voltage.clock" in designs else 1.0
    if without_area(designs):
        whole = designs["power.clocks"] * voltage(designs) ** 2 * turns
        return {"die": np.broadcast_to(whole, len(designs))}
    each = designs["clocks.density"] * factor(designs) * turns
    return {block: area * each for block, area in block_areas(designs).items()}


def resting(designs: Designs) -> tuple[Array, dict[str, Array]]:
    """Return what the board takes beside its die, and the leakage of each block, (D,) [W].

    Where the idle power of a run is given (``power.idle``, clocks down), both add up to it at the
    lowest voltage, in proportion.
    """
    leaks = leakage_power(designs)
    if not leaks:
        return np.broadcast_to(designs["power.idle"], len(designs)), {}
    rest = np.broadcast_to(designs["power.rest"], len(designs))
    if "power.idle" not in designs:
        return rest, leaks
    part = designs["power.idle"] / (rest + asleep(designs, leaks))
    return rest * part, {block: power * part for block, power in leaks.items()}


def asleep(designs: Designs, leaks: Mapping[str, Array]) -> Array:
    """Return the leakage of a die whose clocks are down, at its lowest voltage, (D,) [W]."""
    least = designs["voltage.least"] if "voltage.least" in designs else np.ones(1)
    total = sum(leaks.values(), np.zeros(len(designs)))
    return total * (least / voltage(designs)) ** 2


def padded(operations: Operations) -> Array:
    """Return the FLOP of rows that only fill tiles of a matrix unit, shape (U,).

    Examples
    --------
    A product of 12 rows fills two tiles of 8, four rows for nothing:

    >>> from npusim.measured.shapes import linear, operations
    >>> one = operations([linear("bf16", 12, 1280, 1280)])
    >>> (padded(one) / one["flop"]).round(3).tolist()
    [0.333]
    """
    product = np.isin(operations.kind, ("gemm", "grouped_gemm"))
    each = _rows_of_each(operations)
    tile = np.array([_ROWS.get(routine, _LEAST_ROWS) for routine in operations.routine])
    filled = np.ceil(each / tile) * tile
    return np.where(product, operations["flop"] * (filled / each - 1.0), 0.0)


def of_way(operations: Operations) -> Array:
    """Return the FLOP whose energy is that of operands' way from the cache, shape (U,).

    It is counted with the level that serves them.

    Examples
    --------
    A product of 64 rows and many columns: a quarter of its weights, and its inputs:

    >>> from npusim.measured.shapes import linear, operations
    >>> one = operations([linear("bf16", 64, 4096, 1024)])
    >>> bool(np.isclose(of_way(one)[0], 100 * 1024 * (4096 / 4 + 64)))
    True
    """
    product = np.isin(operations.kind, ("gemv", "gemm", "grouped_gemm"))
    rows, columns = (np.minimum(n / _TILE, 1.0)
                     for n in (_rows_of_each(operations), operations["n"]))  # fmt: skip
    width = np.array([BYTES_OF.get(dtype, 2.0) for dtype in operations.dtype])
    moved = operations["read_weight"] * rows + operations["read_activation"] * columns
    return np.where(product, np.minimum(_WAY * moved / width, operations["flop"]), 0.0)


def _rows_of_each(operations: Operations) -> Array:
    """Return the rows of a product, of those of a group the mean, shape (U,), from 1."""
    rows = np.maximum(operations["m"], 1.0)
    groups = np.where(operations.kind == "grouped_gemm", np.maximum(operations["groups"], 1.0), 1.0)
    each: Array = rows / np.minimum(groups, rows)
    return each
