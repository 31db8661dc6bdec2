"""Locality of a workload: what a cache of any size would miss, by look-up and by exact simulation.

The look-up takes the reuse profile (`npusim.reuse`): data miss in a fully associative LRU cache if
their window is larger than it; what is written misses if it is evicted before it is written again.
The simulation lays the blocks of a step out in memory, walks over
their lines in order, and asks `npusim.cache`, which also knows sets, other policies and a victim
cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.cache import Cache, simulate
from npusim.errors import InputError
from npusim.reuse import CLASSES, DATA, Stream, stream
from npusim.reuse.windows import windows
from npusim.workload import Workload

Array = NDArray[np.float64]

_ROUNDS = 3  # of the step: the last one finds what the ones before left
_MOST = 30_000_000  # line accesses of a simulation: about 50 B of memory each


@dataclass(frozen=True)
class Locality:
    """What a step moves, and what of it a cache misses.

    Attributes
    ----------
    moved : mapping of str to float
        Bytes read and written in a step (mean over the steps), by class of data [B].
    missed : mapping of str to array, shape (C,)
        Of these, what a fully associative LRU cache of each capacity misses [B].
    """

    moved: Mapping[str, float]
    missed: Mapping[str, Array]


def locality(workload: Workload, capacities: Sequence[float]) -> Locality:
    """Return what caches of some capacities miss in a step.

    Parameters
    ----------
    workload : Workload
    capacities : sequence of float, length C
        Bytes that reused data can fill [B].

    Raises
    ------
    InputError
        A workload without shapes, of which no bytes are known.

    Examples
    --------
    >>> import npusim as ns
    >>> found = locality(ns.load_workload("paddleocr_vl_decode"), [1e8, 1e9])
    >>> (found.missed["weight"] / found.moved["weight"]).round(3).tolist()
    [1.0, 0.0]
    """
    if not workload.bytes_moved.any():
        raise InputError("nothing is known of what its operations read and write",
                         file=workload.name, hint="import a trace with shapes")  # fmt: skip
    reuse, size = workload.reuse, np.asarray(capacities, dtype=np.float64)
    window = reuse.windows.sum(axis=1)
    moved = dict.fromkeys(CLASSES, 0.0)
    missed = {name: np.zeros(len(size)) for name in CLASSES}
    for data, (name, _) in DATA.items():
        parts = workload[data][:, None] * reuse.share[data] / len(workload.steps)
        moved[name] += float(parts.sum())
        far = window[reuse.window[data]][..., None] > size
        missed[name] += np.sum(parts[..., None] * far, axis=(0, 1))
    return Locality(moved, missed)


@dataclass(frozen=True)
class Simulated:
    """One step in an exactly simulated cache, after the same step has run twice.

    Attributes
    ----------
    accesses : int
        Lines touched in the step.
    hit_share : mapping of str to float
        Share of the lines of each class that hit, in the cache or its victim cache.
    hits : float
        Share of all lines.
    profiled : float
        The same by look-up: lines whose window a fully associative LRU cache of this size holds.
    """

    accesses: int
    hit_share: Mapping[str, float]
    hits: float
    profiled: float


def simulated(workload: Workload, cache: Cache, step: int = 0) -> Simulated:
    """Walk over the lines of a step in a simulated cache.

    Parameters
    ----------
    workload : Workload
    cache : Cache
    step : int
        Which step of the workload.

    Raises
    ------
    InputError
        A line so short that the step has too many of them, or no numba.
    """
    rows = np.flatnonzero(workload["step"] == step)
    kinds = workload.text("kind")[rows].tolist()
    accesses = stream(kinds, {name: workload[name][rows] for name in DATA}, _ROUNDS)
    lines = np.maximum(np.ceil(accesses.moved / cache.line), 1.0)
    if lines.sum() > _MOST:
        raise InputError("too many lines to simulate", file=workload.name, place="--line",
                         value=f"{lines.sum():.3g} lines of {cache.line} B", allowed=f"{_MOST:g}",
                         hint="use longer lines")  # fmt: skip
    address, owner = _lines(accesses, lines.astype(np.int64), cache.line)
    writes = np.array([w for _, w in DATA.values()])[accesses.data]
    found = simulate(address, cache, writes=writes[owner])
    last = owner >= len(accesses) // _ROUNDS * (_ROUNDS - 1)
    hit, what = found.levels[last] < 2, accesses.kind[owner[last]]
    shares = {name: float(hit[what == i].mean()) for i, name in enumerate(CLASSES)
              if (what == i).any()}  # fmt: skip
    window = windows(accesses.block, accesses.size[:, None])[owner[last], 0]
    profiled = float((window <= cache.capacity + cache.victim).mean())
    return Simulated(int(last.sum()), shares, float(hit.mean()), profiled)


def _lines(
    accesses: Stream, lines: NDArray[np.int64], line: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the address of every line touched [B], and which access touches it."""
    block, first = np.unique(accesses.block, return_index=True)
    room = np.ceil(accesses.size[first] / line).astype(np.int64) * line
    base = np.zeros(int(block.max()) + 1, dtype=np.int64)
    base[block] = np.cumsum(room) - room
    owner = np.repeat(np.arange(len(accesses)), lines)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(lines) - lines, lines)
    return base[accesses.block[owner]] + place * line, owner
