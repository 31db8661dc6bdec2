"""The GEMV unit: engines that multiply-accumulate weights as they stream past, for a few rows.

Each of `gemv.count` engines takes an equal slice of the weights, and the whole input by broadcast;
it keeps ``gemv.batch`` rows of results side by side, so that weights come by once for all of them.
With W, X and Y the bytes of weights, input and results:

    t_mac   = multiply-accumulates / (count x lanes x values a lane x clock)
    t_port  = (X + (W + Y) / ports) / (width x clock)
    t_cache = bytes not in a memory of their own / smooth_min(ports x width x clock, slices)
    t_dram  = bytes from and to DRAM / min(DRAM bandwidth, ports x width x clock)
    t       = latency + first weights + last results
              + max(t_mac, t_port, t_cache, t_dram, time of the weight SRAM)

Weights stored narrower than they are computed with are widened as they pass, once: one more term
of the maximum (`npusim.models.conversion`).

A lane is 16 bits wide: it takes one value of 16 bits a clock, two of 8, four of 4. An engine with a
port of its own reads ahead as far as it takes, since it knows every address; one that shares the
port of a compute unit takes in what that does at most (``units.load_rate``, ``units.miss_rate``,
bytes in flight), and there are no more ports than units. First weights come a latency of their
level after the start, each level by its share; last results take one of the last-level cache.

This start stands in place of ``floor.matmul``, ``gemm.start``, ``gemm.fill`` and ``gemm.reduce``,
which are threads that fill the units, tiles that fill pipelines, blocks that drain and parts that
are summed: an engine has none of them. What lies between two operations (``launch.*.interval``)
stays. A product goes where it is faster, to the unit or to what computes it without one.

Source: seed 004 section 4 (a GEMV unit, batch 1, low latency, 128 columns). Engines that take their
weights at the rate at which they multiply, with the input broadcast from one buffer, are what
M. He et al. describe ("Newton", MICRO 2020, doi:10.1109/MICRO50266.2020.00040) and SK hynix built
(AiM, Hot Chips 35, 2023: 512 GB/s inside a memory chip at 1 GHz, 32 B a clock and bank). No machine
here has such a unit: nothing of it was measured.

Left out: columns that do not divide by engines and lanes, experts with more rows than the mean,
latency that a prefetch saves, the sum of a product that the traced library split (its kernel
stays), both units at work at the same time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import conversion, hierarchy, memory
from npusim.models.cost import Cost, overlapped, smooth_min
from npusim.models.hierarchy import Traffic
from npusim.models.memory import cache_latency
from npusim.models.prefetch import part_left
from npusim.models.roofline import bandwidth
from npusim.models.systolic_tiles import VALUES
from npusim.workload import Operations

Array = NDArray[np.float64]

PARAMETERS = (
    "gemv.count",
    "gemv.lanes",
    "gemv.width",
    "gemv.port",
    "gemv.batch",
    "gemv.latency",
)

READS = {*PARAMETERS, *conversion.PARAMETERS, *memory.PARAMETERS, *hierarchy.READS}

KINDS = ("gemv", "gemm", "grouped_gemm")

_SHARED = 0.0


def takes(operations: Operations, designs: Designs) -> NDArray[np.bool_]:
    """Return which operations the GEMV unit of some design can do, shape (U,).

    These are products with weights, in a type of at most 16 bits, of no more rows than a unit has
    accumulators for. Rows of a grouped product are the mean of the experts that have any.

    Examples
    --------
    >>> import npusim as ns
    >>> from npusim.measured.shapes import linear, operations
    >>> layers = operations([linear("bf16", rows, 1280, 1280) for rows in (1, 8, 9)])
    >>> takes(layers, Designs(ns.load_arch("decode_npu"))).tolist()
    [True, True, False]
    >>> takes(layers, Designs(ns.load_arch("h200"))).any().item()
    False
    """
    if PARAMETERS[0] not in designs or not designs[PARAMETERS[0]].any():
        return np.zeros(len(operations), dtype=bool)
    product = np.isin(operations.kind, KINDS) & np.isin(operations.dtype, list(VALUES))
    few = (operations["m"] >= 1) & (_rows(operations) <= designs["gemv.batch"].max())
    found: NDArray[np.bool_] = product & few & (operations["read_weight"] > 0)
    return found


def gemv_unit_cost(operations: Operations, designs: Designs) -> Cost:
    """Return the cost of products on the GEMV unit, each (U, D) [s]; infinite where it has none.

    Parameters
    ----------
    operations : Operations
        U products that `takes` names.
    designs : Designs
        D designs; without ``gemv.port`` engines share the ports of the compute units.

    Examples
    --------
    A GEMV of 212 MB is no faster than DRAM gives them, at 2.2 TB/s:

    >>> import npusim as ns
    >>> from npusim.measured.shapes import linear, operations
    >>> vocabulary = operations([linear("bf16", 1, 103424, 1024)])
    >>> cost = gemv_unit_cost(vocabulary, Designs(ns.load_arch("decode_npu")))
    >>> bool(1.0 < cost.time.item() / (211.8e6 / 0.883 / 2.5e12) < 1.05)
    True
    """
    traffic, shape = Traffic(operations, designs), (len(operations), len(designs))
    clock, count = designs["units.clock"], np.maximum(designs["gemv.count"], 1.0)
    ports, width = _ports(count, designs)
    pull = ports * width * clock
    far = traffic.moved("dram")
    dram = far / _dram_rate(ports, pull, designs)
    held = np.maximum(_port_time(operations, ports, width * clock),
                      _cache_time(operations, traffic, pull, designs))  # fmt: skip
    held = np.maximum(held, memory.own_time(traffic, ports, designs))
    values = np.array([VALUES[dtype] for dtype in operations.dtype])[:, None]
    compute = operations["flop"][:, None] / 2.0 / (count * designs["gemv.lanes"] * values * clock)
    compute = np.maximum(compute, conversion.one_pass(operations, count, designs))
    busy = np.broadcast_to(np.maximum(np.maximum(held, dram), compute), shape)
    rest = part_left(traffic, far, designs)
    there = np.maximum(np.maximum(held, dram * rest), compute)
    has = (designs["gemv.count"] > 0) & (_rows(operations)[:, None] <= designs["gemv.batch"])
    start = designs["gemv.latency"] + _first(traffic, designs) + cache_latency(designs)
    return overlapped(np.where(has, start, np.inf), np.maximum(held, dram), compute, busy,
                      dram, dram * (1.0 - rest), busy - there)  # fmt: skip


def _rows(operations: Operations) -> Array:
    """Return the rows that pass each weight, (U,); of grouped products the mean of their experts.

    Rows spread over as many experts as there are, or one each where there are more experts.
    """
    m, groups = operations["m"].astype(np.float64), operations["groups"]
    experts = np.where(groups > 0, np.minimum(np.maximum(m, 1.0), groups), 1.0)
    rows: Array = np.ceil(m / experts)
    return rows


def _ports(count: Array, designs: Designs) -> tuple[Array, Array]:
    """Return how many ports there are, and what each takes in [B/clock], (D,) or (1,)."""
    shared, width = _is_shared(designs), designs["gemv.width"]
    ports = np.where(shared, np.minimum(count, designs["units.count"]), count)
    return ports, np.where(shared, np.minimum(width, designs["units.load_rate"]), width)


def _is_shared(designs: Designs) -> NDArray[np.bool_]:
    """Return where engines load through the ports of compute units, (D,) or (1,)."""
    path = "gemv.port"
    where: NDArray[np.bool_] = designs[path] == _SHARED if path in designs else np.ones(1, bool)
    return where


def _dram_rate(ports: Array, pull: Array, designs: Designs) -> Array:
    """Return the DRAM bandwidth that the ports reach, (D,) or (1,) [B/s]."""
    by_units = np.minimum(memory.dram_bandwidth(ports, designs, memory.TILES),
                          ports * designs["units.miss_rate"] * designs["units.clock"])  # fmt: skip
    return np.minimum(np.where(_is_shared(designs), by_units, bandwidth(designs)), pull)


def _port_time(operations: Operations, ports: Array, rate: Array) -> Array:
    """Return how long each port is at work, (U, D) [s]."""
    slices = operations["read_weight"] + operations["write_activation"]
    everywhere = operations.bytes_moved - slices
    time: Array = (everywhere[:, None] + slices[:, None] / ports) / rate
    return time


def _cache_time(operations: Operations, traffic: Traffic, pull: Array, designs: Designs) -> Array:
    """Return how long the last-level cache is at work, by which all but own memories go [s]."""
    if "memories.l2.capacity" not in designs:
        return np.zeros((1, 1))
    elsewhere = sum((traffic.moved(level) for level in memory.OWN), np.zeros((1, 1)))
    passing = np.maximum(operations.bytes_moved[:, None] - elsewhere, 0.0)
    return passing / smooth_min(pull, memory.l2_peak(designs), memory.CACHE)


def _first(traffic: Traffic, designs: Designs) -> Array:
    """Return the latency of the first weights, each level by its share of them, (U, D) [s]."""
    far, own = (traffic.share(level, "read_weight") for level in ("dram", "weight_sram"))
    path = "memories.weight_sram.latency"
    there = designs[path] if path in designs else np.zeros(1)
    return (
        far * designs["memories.dram.latency"]
        + own * there
        + (1 - far - own) * cache_latency(designs)
    )
