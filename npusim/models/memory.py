"""Bandwidth: what the active compute units can pull from DRAM and from the last-level cache.

A unit keeps a number of bytes in flight, and each takes a latency: A active units pull at most
A x in_flight / latency. DRAM gives at most bandwidth x efficiency. Between the two bounds lies
queueing, which is written as a smooth minimum:

    B = (pull^-s + peak^-s)^(-1/s)

Source: the asymptotic bounds of a closed queueing network, P. Denning, J. Buzen, "The operational
analysis of queueing network models", ACM Computing Surveys 10(3), 1978,
doi:10.1145/356733.356735. Streams that read and write saturate softly (s = 3 describes those on 8
to 132 units of an H200), loads of many tiles at once sharply.

Left out: row-buffer locality, refresh, reads against writes, channel conflicts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models.cost import smooth_max, smooth_min
from npusim.models.hierarchy import Traffic
from npusim.models.roofline import bandwidth

Array = NDArray[np.float64]

OWN = ("weight_sram", "kv_sram")  # memories for the data of one class

PARAMETERS = (
    "units.clock",
    "units.count",
    "units.miss_rate",
    "memories.dram.bandwidth",
    "memories.dram.efficiency",
    "memories.dram.latency",
    "memories.dram.in_flight",
    "memories.l2.capacity",
    "memories.l2.latency",
    "memories.l2.slices",
    "memories.l2.slice_width",
    "memories.l2.clock",
    "units.load_rate",
    *(
        f"memories.{memory}.{number}"
        for memory in OWN
        for number in ("capacity", "bandwidth", "latency")
    ),
)

STREAM, TILES, CACHE = 3.0, 8.0, 1.5  # sharpness of saturation


def cache_latency(designs: Designs) -> Array:
    """Return the latency of the last-level cache, of DRAM where there is none, (D,) or (1,) [s]."""
    path = "memories.l2.latency"
    return designs[path if path in designs else "memories.dram.latency"]


def dram_bandwidth(
    active: Array, designs: Designs, sharpness: float = STREAM, flying: Array | float = np.inf
) -> Array:
    """Return the DRAM bandwidth that active units reach, the shape of `active` [B/s].

    Parameters
    ----------
    active : array, shape (U, D)
        Compute units that have work, >= 1.
    designs : Designs
    sharpness : float
        Exponent of the smooth minimum.
    flying : array or float
        Bytes that what runs there keeps in flight in a unit, if that is less than a unit can [B].

    Examples
    --------
    >>> import npusim as ns
    >>> h200 = Designs(ns.load_arch("h200"))
    >>> few, all_of_them = dram_bandwidth(np.array([[4.0], [132.0]]), h200)[:, 0] / 1e9
    >>> bool(few < 1400 and 4000 < all_of_them < 4800)
    True
    """
    in_flight = np.minimum(designs["memories.dram.in_flight"], flying)
    pull = active * (in_flight / designs["memories.dram.latency"])
    peak = bandwidth(designs)
    return smooth_min(pull, peak, sharpness)


def dram_time(read: Array, written: Array, active: Array, designs: Designs) -> Array:
    """Return the time of a stream that active units pull from DRAM and push to it, (U, D) [s].

    A unit waits for what it reads and takes in ``units.miss_rate`` of it a clock at most; what it
    writes leaves without an answer. In flight are the bytes of both.

    Parameters
    ----------
    read, written : array, shape (U, D)
        Bytes each way [B].
    active : array, shape (U, D)
        Compute units that have work, >= 1.
    designs : Designs

    Examples
    --------
    512 MiB each way on 8 units of an H200 (measured: 1,672 us):

    >>> import npusim as ns
    >>> h200, half = Designs(ns.load_arch("h200")), np.full((1, 1), 2.0**29)
    >>> bool(0.85 < dram_time(half, half, np.array([[8.0]]), h200).item() / 1672e-6 < 1.15)
    True
    """
    both = read + written
    in_flight = active * (designs["memories.dram.in_flight"] / designs["memories.dram.latency"])
    taken = active * (designs["units.miss_rate"] * designs["units.clock"])
    pull = np.maximum(both / in_flight, read / taken)
    return smooth_max(pull, both / bandwidth(designs), np.asarray(STREAM))


def miss_bandwidth(designs: Designs) -> Array:
    """Return what all units together can take in from DRAM, shape (D,) or (1,) [B/s].

    It binds where few units stand before a fast memory.
    """
    return designs["units.count"] * designs["units.miss_rate"] * designs["units.clock"]


def l2_bandwidth(active: Array, designs: Designs) -> Array:
    """Return the bandwidth of the last-level cache to active units, as `active` [B/s].

    Each unit takes ``units.load_rate`` a clock at most; all slices together give what `l2_peak`
    says. Requests meet at the slices, so both bounds are approached softly: of A100, H100 PCIe,
    H200 and MI210 all units together reach 0.72 to 0.78 of the slices' rate. A machine without such
    a cache loads past it at the rate of its units.
    """
    pull: Array = active * designs["units.load_rate"] * designs["units.clock"]
    return smooth_min(pull, l2_peak(designs), CACHE) if "memories.l2.capacity" in designs else pull


def l2_peak(designs: Designs) -> Array:
    """Return what all slices of the last-level cache give together, shape (D,) or (1,) [B/s]."""
    slices = designs["memories.l2.slices"] * designs["memories.l2.slice_width"]
    return slices * designs["memories.l2.clock"]


def miss_wait(designs: Designs) -> Array:
    """Return how much later the first data come from DRAM than from the cache, (D,) or (1,) [s]."""
    if "memories.l2.latency" not in designs:
        return np.zeros(1)
    return np.maximum(designs["memories.dram.latency"] - designs["memories.l2.latency"], 0.0)


def own_time(traffic: Traffic, active: Array, designs: Designs) -> Array:
    """Return how long the memories of single classes take for what they serve, (U, D) [s].

    Each has a port of its own: they work side by side, with each other and with DRAM. Units have
    as many bytes in flight to them as to DRAM, for the memory's own latency.

    Parameters
    ----------
    traffic : Traffic
    active : array, shape (U, D)
        Compute units that have work, >= 1.
    designs : Designs
    """
    longest: Array = np.zeros(1)
    for memory in OWN:
        size = f"memories.{memory}.capacity"
        if size in designs and designs[size].any():  # a memory without a bandwidth is refused
            moved = traffic.moved(memory)
            longest = np.maximum(longest, moved / _own_bandwidth(memory, active, designs))
    return longest


def _own_bandwidth(memory: str, active: Array, designs: Designs) -> Array:
    """Return the bandwidth that active units reach to a memory of its own [B/s]."""
    peak, latency = designs[f"memories.{memory}.bandwidth"], f"memories.{memory}.latency"
    if latency not in designs:
        return peak
    with np.errstate(divide="ignore"):  # none: the port alone bounds it
        return np.minimum(peak, active * designs["memories.dram.in_flight"] / designs[latency])
