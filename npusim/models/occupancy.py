"""Occupancy: how many threads a compute unit holds, and what waiting with few of them costs.

A unit holds as many thread blocks as its scarcest resource allows. With w = ceil(threads / 32)
warps a block, r registers a thread and s bytes of shared memory a block, those are

    threads:        floor(units.threads / 32 / w)
    blocks:         units.blocks
    registers:      floor(W / w), W = units.registers / (32 r rounded up to 256), down to fours
    shared memory:  floor(units.shared_memory / (s + 1 KiB rounded up to 128 B))

and one at least: what does not fit would be compiled otherwise. Fewer are there where a grid gives
a unit fewer. Each thread keeps ``units.thread_in_flight`` bytes in flight and waits a latency for
them, so a kernel that reads R bytes with N threads on the machine waits

    t = latency x max(R / (N x thread_in_flight) - 1, 0)        (Little's law)

with the mean latency of the levels that serve R. The first latency is in the floor, which is that
of the smallest kernel. It bounds transfers from below, beside the bytes that a unit keeps in flight
whatever runs (``memories.dram.in_flight``). Without ``units.thread_in_flight``, or for a grid that
is not known, nothing is added; no machine that ships has it.

Source: CUDA C++ Programming Guide, technical specifications of compute capabilities; rules and
granularities of NVIDIA's occupancy calculator, the same for compute capability 8.0 to 12.0; its
numbers for 754 kernels in Nsight Compute on an H200. J. Little, "A proof for the queuing formula
L = lambda W", Operations Research 9(3), 1961, doi:10.1287/opre.9.3.383.

Left out: clusters (whose blocks must find room together), barriers, shared memory configured
smaller than it could be, threads that end before their block does, stores (which nobody waits for);
products and attention, which load tiles by other means than one load a thread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import hierarchy
from npusim.models.hierarchy import Traffic
from npusim.workload import Operations

Array = NDArray[np.float64]

LIMITS = ("threads", "blocks", "registers", "shared_memory")

PARAMETERS = (*(f"units.{limit}" for limit in LIMITS), "units.thread_in_flight")

READS = {*PARAMETERS, *hierarchy.READS, "units.count", "memories.dram.latency"} | {
    f"memories.{level}.latency" for level in ("l2", "kv_sram", "weight_sram")
}

_WARP = 32.0  # threads
_REGISTERS = 256.0  # that a warp is given at a time
_QUARTERS = 4.0  # of a unit, each with its registers
_RESERVED, _SHARED = 1024.0, 128.0  # bytes a block for the system, and granularity


@dataclass(frozen=True)
class Occupancy:
    """What of U operations compute units of D designs hold at once, each (U, D).

    Attributes
    ----------
    limits : dict of str to array
        Blocks a unit by each of `LIMITS`; infinite where the machine or the operation does not say.
    resident : array
        Blocks that a unit holds, if there are so many; infinite if nothing limits them.
    blocks : array
        Blocks on a unit that has any, on average; not-a-number where the grid is not known.
    threads : array
        Threads of all units together that are there at once; not-a-number likewise.
    """

    limits: dict[str, Array]
    resident: Array
    blocks: Array
    threads: Array

    @property
    def decides(self) -> NDArray[np.object_]:
        """What keeps more threads away: one of `LIMITS`, ``grid``, or nothing where unknown."""
        tables = np.stack([self.limits[limit] for limit in LIMITS])
        names: NDArray[np.object_] = np.array(LIMITS, dtype=object)[np.argmin(tables, axis=0)]
        names = np.where(self.blocks < self.resident, "grid", names)
        return np.where(np.isnan(self.blocks), "", names)


def occupancy(operations: Operations, designs: Designs) -> Occupancy:
    """Return how many blocks and threads compute units hold at once.

    Parameters
    ----------
    operations : Operations
        U operations: ``blocks``, ``threads``, ``registers`` and ``shared_memory`` of their launch.
    designs : Designs
        D designs.

    Examples
    --------
    On an H200, 64 registers each leave room for 8 blocks of 128 threads, 1024 threads in all; a
    grid of 66 blocks gives half of the 132 units one each:

    >>> import npusim as ns
    >>> from dataclasses import replace
    >>> w, h200 = ns.load_workload("deepseek_ocr_decode"), Designs(ns.load_arch("h200"))
    >>> launch = {"blocks": np.array([66]), "threads": np.array([128]), "registers": np.array([64])}
    >>> found = occupancy(replace(w.operations(np.array([0])), columns=launch), h200)
    >>> found.resident.item(), found.blocks.item(), found.decides.item()
    (8.0, 1.0, 'grid')
    """
    limits = block_limits(operations, designs)
    resident = np.minimum.reduce([limits[limit] for limit in LIMITS])
    launched, threads = (_launch(operations, name) for name in ("blocks", "threads"))
    known = (launched > 0) & (threads > 0)
    units = designs["units.count"]
    each = np.minimum(launched / np.minimum(np.maximum(launched, 1.0), units), resident)
    there = np.minimum(launched, units * resident) * threads
    return Occupancy(limits, resident, np.where(known, each, np.nan),
                     np.where(known, there, np.nan))  # fmt: skip


def block_limits(operations: Operations, designs: Designs) -> dict[str, Array]:
    """Return the blocks that each resource of a compute unit allows, each (U, D)."""
    warps = np.maximum(np.ceil(_launch(operations, "threads") / _WARP), 1.0)
    registers = _up(_launch(operations, "registers") * _WARP, _REGISTERS)
    shared = _up(_launch(operations, "shared_memory") + _RESERVED, _SHARED)
    with np.errstate(divide="ignore"):  # nothing asked for
        fitting = _have("registers", designs) / registers
    by_registers = np.floor(fitting / _QUARTERS) * _QUARTERS
    found = {
        "threads": _have("threads", designs) / _WARP / warps,
        "blocks": _have("blocks", designs),
        "registers": by_registers / warps,
        "shared_memory": _have("shared_memory", designs) / shared,
    }
    shape = len(operations), len(designs)
    return {limit: np.broadcast_to(np.maximum(np.floor(blocks), 1.0), shape)
            for limit, blocks in found.items()}  # fmt: skip


def waiting_time(operations: Operations, designs: Designs) -> Array:
    """Return how long threads wait for what they read, after the first latency, (U, D) [s].

    Parameters
    ----------
    operations : Operations
        U operations.
    designs : Designs
        D designs; nobody waits where they do not say what a thread keeps in flight.
    """
    path = "units.thread_in_flight"
    if path not in designs:
        return np.zeros((len(operations), 1))
    traffic = Traffic(operations, designs)
    read, weighted = np.zeros((2, len(operations), len(designs)))
    for level in hierarchy.LEVELS:
        served = traffic.read(level)
        read, weighted = read + served, weighted + served * _latency(level, designs)
    threads = np.nan_to_num(occupancy(operations, designs).threads, nan=np.inf)
    latency = weighted / np.maximum(read, 1.0)
    trips = read / (threads * designs[path])
    time: Array = latency * np.maximum(trips - 1.0, 0.0)
    return time


def _latency(level: str, designs: Designs) -> Array:
    """Return the latency of a level of the memory, (D,) or (1,) [s]; a victim cache as the next."""
    path = f"memories.{'l2' if level == 'victim' else level}.latency"
    if path in designs:
        return designs[path]
    return np.zeros(1) if level.endswith("_sram") else designs["memories.dram.latency"]


def _launch(operations: Operations, column: str) -> Array:
    """Return what an operation was launched with, (U, 1); 0 where it does not say."""
    given = operations.columns.get(column)
    none = np.zeros(len(operations))
    found: Array = (none if given is None else given.astype(np.float64))[:, None]
    return found


def _have(limit: str, designs: Designs) -> Array:
    """Return what a compute unit has of a resource, (D,) or (1,); infinite if nobody says."""
    path = f"units.{limit}"
    return designs[path] if path in designs else np.full(1, np.inf)


def _up(asked: Array, granularity: float) -> Array:
    rounded: Array = np.ceil(asked / granularity) * granularity
    return rounded
