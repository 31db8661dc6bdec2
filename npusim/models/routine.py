"""Device time of a library's routines: pointwise, copies, gathers, reductions, scans, sorts.

    time  = floor + waited + (memory^p + issue^p)^(1/p)
    issue = ceil(blocks / units) x (block + work of a block x element) / clock

- floor: what the smallest kernel of the routine takes, in floors of that kind of the machine, so
  that a machine that starts kernels sooner starts these sooner;
- chain [cycle]: from one load of a thread to its next where the second waits for the first (for an
  address that a load gives, or for a store that a load may not overtake); mostly,
  ``waited = links x chain / clock`` with as many links as `npusim.models.links` says;
- block [cycle]: what a compute unit spends on starting, synchronising and ending a block;
- element [cycle]: what it spends on the instructions of one element (byte, thread, product:
  `npusim.library.ROUTINES`) with as many threads as it holds.

Blocks start at a rate, on one unit after the other (`npusim.models.dispatch`). Special functions,
where the machine says how fast they are, take their time beside the issue, or a
whole unit does the kernel in its place (`npusim.models.special`).

Memory and issue overlap almost fully where no thread waits at a barrier of its block and loads do
not hang on what was loaded before (`INDEPENDENT`, p = 5): a unit that has many such threads mostly
finds one that is ready. All others, and a compiler's kernels, of which it was not measured, overlap
in part: p = 2 lies half-way between one after the other and one behind the other. Blocks go to
units evenly, a unit that has one more decides; a grid that is not known is taken to fill all units.
A product's arithmetic on the matrix unit is a third that overlaps.

Kernels that convert types as they load and store (`CONVERTING`) choose the type of each access as
they run, and wait for each access before the next: a chain is that of a load and a store, and 3/2
of it with two inputs. Blocks that reduce rows (`npusim.models.links.FOURS`) load, wait and add. So
each wave of blocks of these waits as the first one does, and for DRAM besides:

    wait  = (waited + links x miss) x (max(blocks / (units x resident), 1) - 1)
    miss  = share of what is read that comes from DRAM x (DRAM's latency - L2's latency)

with the blocks that a unit holds at once (`npusim.models.occupancy`); two inputs miss side by side.
What the first wave waits for DRAM comes on top (`npusim.models.first_wait`).
It overlaps issue and transfers as they overlap each other, ``(memory^p + issue^p + wait^p)^(1/p)``
with p = 5 for conversions: what their threads wait for is counted by itself.

The numbers of a routine come with its code, so every machine has the same (``library.*``); those
that it does not have are zero. Copies to and from the host go by its link (``host.bandwidth``), not
by DRAM.

Source: issue and latency bounds after V. Volkov, "Understanding latency hiding on GPUs", UC
Berkeley EECS-2016-143, 2016; numbers fitted to workloads/experiments/h200_routines.parquet.

Left out: what fewer threads than a unit holds mean for instructions, atomics that meet, clocks
under a power limit, how the chosen elements of a mask lie, pageable memory of the host beyond the
megabyte or so that is staged at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.library import HOST_COPIES, NUMBERS, ROUTINES
from npusim.models import (
    dispatch,
    first_wait,
    floor,
    hierarchy,
    occupancy,
    roofline,
    special,
    transfer,
)
from npusim.models.amount import amount
from npusim.models.cost import Cost, overlapped, smooth_max
from npusim.models.floor import floor_time
from npusim.models.hierarchy import Traffic
from npusim.models.links import FOURS, chained, full_blocks, links, share_results
from npusim.models.memory import miss_wait
from npusim.models.prefetch import part_left
from npusim.workload import Operations

Array = NDArray[np.float64]

PARAMETERS = (
    "units.count",
    "units.clock",
    "host.bandwidth",
    *(f"library.{routine}.{number}" for routine in ROUTINES for number in NUMBERS),
)

READS = {
    *PARAMETERS,
    *floor.PARAMETERS,
    *dispatch.PARAMETERS,
    *first_wait.READS,
    *occupancy.READS,
    *transfer.READS,
    *roofline.PARAMETERS,
    *special.PARAMETERS,
}

_MATRIX = ("grouped_matrix",)

# No thread of these waits at a barrier of its block, no load for what another load gives.
INDEPENDENT = ("vectorized", "special", "fill", "unrolled", "cat_vectorized", "gather_vectorized",
               "copy_engine", "fill_engine", "layout", "softmax_warp", "index_large")  # fmt: skip
CONVERTING = ("unrolled_cast",)
COMPILED = ("fused_steps", "fused_rows", "fused_passes")  # with all that their blocks take
_OVERLAP, _PARTLY = 5.0, 2.0  # p; calls measured fit from 4 to 8 about as well
_STARTS = np.array(8.0)  # p of starting blocks beside all else, which is ready when they are
_TWO_INPUTS = 1.5  # three accesses where a conversion has two


@dataclass(frozen=True)
class Shape:
    """What a routine's numbers are multiplied by, each (U, D) or (U, 1).

    Attributes
    ----------
    depth : array
        Links of a thread's chain (0: not known); of a kernel that converts two inputs 3/2 of them.
    full : array
        Elements of a thread in full blocks of vectors, 0 where there are none.
    loading : array
        Cycles of a link that are for its load.
    rounds : array
        Blocks on the busiest unit, and one more where blocks share a result.
    part : array
        Part of the operation on the busiest unit.
    share : array
        Work on the busiest unit [element].
    memory : array
        Time of the transfers alone [s].
    matrix : array
        Time of a matrix product's arithmetic alone [s].
    again : array
        Times that all threads of a unit wait for a chain once more, after the first wave of blocks.
    missed : array
        What they wait for DRAM besides, in all of those together [s].
    power : array
        How well memory and issue overlap.
    starting, stagger : array
        How long it takes to hand all blocks to units, and the first one to each [s].
    first : array
        What the first loads wait for DRAM [s].
    """

    depth: Array
    full: Array
    loading: Array
    rounds: Array
    part: Array
    share: Array
    memory: Array
    matrix: Array
    again: Array
    missed: Array
    power: Array
    starting: Array
    stagger: Array
    first: Array


def known(operations: Operations, designs: Designs) -> NDArray[np.bool_]:
    """Return which operations have a routine whose numbers the designs have, shape (U,)."""
    costed = [r for r in ROUTINES if f"library.{r}.floor" in designs]
    return np.isin(operations.routine, costed)


def routine_cost(operations: Operations, designs: Designs) -> Cost:
    """Return the cost of operations whose routine is `known`, each (U, D) [s].

    Parameters
    ----------
    operations : Operations
        U operations: ``batch`` x m x n elements, bytes, reuse distances, ``blocks`` and
        ``threads`` (0 where unknown).
    designs : Designs
        D designs.
    """
    shape = routine_shape(operations, designs)
    floor, element, block, chain = (_number(name, operations, designs) for name in NUMBERS)
    clock = designs["units.clock"]
    issue = (shape.rounds * block + shape.share * element) / clock
    issue = special.beside(issue, operations, shape.part, designs)
    links_time = chained(shape.depth, shape.full, chain, shape.loading) / clock
    wait = links_time * shape.again + shape.missed
    compute = np.hypot(issue, shape.matrix)
    if wait.any():
        compute = smooth_max(compute, wait, shape.power)
    least = floor * floor_time(operations, designs) + links_time + shape.stagger + shape.first
    busy = with_starts(smooth_max(shape.memory, compute, shape.power), shape)
    if "prefetch.depth" not in designs:
        return overlapped(least, shape.memory, compute, busy)
    traffic = Traffic(operations, designs)
    dram = traffic.moved("dram")
    channel = np.minimum(dram / roofline.bandwidth(designs), shape.memory)
    ahead = channel * (1.0 - part_left(traffic, dram, designs))
    there = smooth_max(shape.memory - ahead, compute, shape.power)
    gain = busy - with_starts(there, shape)
    return overlapped(least, shape.memory, compute, busy, channel, ahead, gain)


def with_starts(busy: Array, shape: Shape) -> Array:
    """Return how long blocks are at work that cannot start all at once, (U, D) [s]."""
    return smooth_max(busy, shape.starting, _STARTS) if shape.starting.any() else busy


def routine_shape(operations: Operations, designs: Designs) -> Shape:
    """Return how the work of operations with a routine lies on the units of the designs."""
    units = designs["units.count"]
    work = amount(operations)[:, None]
    launched = operations["blocks"][:, None].astype(float)
    blocks = np.where(launched > 0, launched, units)
    rounds = np.ceil(blocks / units)
    last = share_results(operations)[:, None]  # which works again
    depth = loads = links(operations, work)
    moved = transfer_time(operations, np.minimum(blocks, units), designs)
    again, missed = _waits(operations, depth, designs)
    converting = np.isin(operations.routine, CONVERTING) & (operations.kind != "cast")
    depth = depth * np.where(converting, _TWO_INPUTS, 1.0)[:, None]
    free = np.isin(operations.routine, (*INDEPENDENT, *CONVERTING))
    power = np.where(free, _OVERLAP, _PARTLY)[:, None]
    handed = np.where(np.isin(operations.routine, COMPILED)[:, None], 0.0, launched)
    return Shape(depth, full_blocks(operations, work), _loading(operations, designs), rounds + last,
                 rounds / blocks, rounds * work / blocks, moved, _matrix_time(operations, designs),
                 again, missed, power, dispatch.rate_time(handed, designs),
                 dispatch.stagger_time(handed, designs),
                 first_wait.first_wait(operations, loads, designs))  # fmt: skip


def transfer_time(operations: Operations, active: Array, designs: Designs) -> Array:
    """Return the time of loads and stores by `active` units, (U, D) [s]; see `transfer`.

    It is no less than what threads wait for them (`npusim.models.occupancy`). Copies between device
    and host go by the link.
    """
    time = transfer.transfer_time(operations, active, designs)
    wait = occupancy.waiting_time(operations, designs)
    wait[np.isin(operations.routine, _MATRIX)] = 0.0  # tiles do not come a load a thread
    time = np.maximum(time, wait)
    to_host = np.isin(operations.routine, HOST_COPIES)
    over = operations.bytes_moved[to_host, None] / 2.0  # read on one side, written on the other
    time[to_host] = over / designs["host.bandwidth"]
    return time


def _waits(operations: Operations, depth: Array, designs: Designs) -> tuple[Array, Array]:
    """Return how often threads wait after the first wave of blocks, and what DRAM adds to it.

    Both are zero where later waves are not felt, (U, D); the second is a time [s]. `depth` are
    the links of a thread, (U, 1).
    """
    again, missed = np.zeros((2, len(operations), len(designs)))
    rows = np.isin(operations.routine, (*CONVERTING, *FOURS))
    if rows.any():
        these = operations.take(rows)
        traffic = Traffic(these, designs)
        read = sum(traffic.read(level) for level in hierarchy.LEVELS)
        far = traffic.read("dram") / np.maximum(read, 1.0)
        held = designs["units.count"] * occupancy.occupancy(these, designs).resident
        again[rows] = np.maximum(these["blocks"][:, None] / held, 1.0) - 1.0
        missed[rows] = depth[rows] * far * miss_wait(designs) * again[rows]
    return again, missed


def _matrix_time(operations: Operations, designs: Designs) -> Array:
    """Return the time of the arithmetic of matrix products, 0 for all else, (U, D) [s]."""
    time = np.zeros((len(operations), len(designs)))
    rows = np.isin(operations.routine, _MATRIX)
    if rows.any():
        time[rows] = roofline.compute_time(operations.take(rows), designs)
    return time


def _loading(operations: Operations, designs: Designs) -> Array:
    """Return the chain of kernels that load vectors and compute next to nothing, (U, D)."""
    path = "library.vectorized.chain"
    if path not in designs:
        return np.full((len(operations), len(designs)), np.inf)
    itself = operations.routine == "vectorized"
    return np.where(itself[:, None], np.inf, designs[path])


def _number(name: str, operations: Operations, designs: Designs) -> Array:
    """Return a number of each operation's routine, 0 where it has none, (U, D)."""
    found = np.zeros((len(operations), len(designs)))
    for routine in set(operations.routine):
        path = f"library.{routine}.{name}"
        if path in designs:
            found[operations.routine == routine] = designs[path]
    return found
