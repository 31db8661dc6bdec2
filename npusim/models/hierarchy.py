"""The memory hierarchy: which level serves each byte that an operation reads or writes.

Data of a class goes first to the memory of its own, if the machine has one:

- KV SRAM keeps the same part of every cache from step to step: min(1, capacity / cache of all
  layers and sequences). The rest spills.
- weight SRAM is either pinned (a fixed part of the weights of a step stays) or replaced under LRU
  (all or nothing where every weight is read once a step).

What is left goes through the last-level cache, which holds it if the window since its last use
fits (`npusim.models.residency`); what a memory of its own serves does not pass through the cache
and so takes no room in the windows of others. A share ``memories.l2.bypass`` of weights is streamed
past it, neither held nor in the way. A victim cache lies between L1 and the last-level cache and is
exclusive of it: of all that hits, it serves what its own capacity would hold. DRAM serves the rest.
The shares add up to one.

Source: the inclusion of LRU stacks, R. Mattson et al., IBM Systems Journal 9(2), 1970,
doi:10.1147/sj.92.0078; victim caches, N. Jouppi, ISCA 1990, doi:10.1109/ISCA.1990.134547.

Left out: the first fill of pinned memories, conflicts of reads with write-backs, coherence.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import residency
from npusim.models.residency import resident_share
from npusim.reuse import CLASSES, DATA, Reuse
from npusim.workload import Operations

Array = NDArray[np.float64]

LEVELS = ("weight_sram", "kv_sram", "victim", "l2", "dram")

PARAMETERS = (
    "memories.l2.bypass",
    "memories.kv_sram.capacity",
    "memories.weight_sram.capacity",
    "memories.weight_sram.replacement",
)

READS = (*PARAMETERS, *residency.PARAMETERS)

_OWN = {"weight": "weight_sram", "kv": "kv_sram"}


class Traffic:
    """Bytes that each level gives to and takes from operations.

    Parameters
    ----------
    operations : Operations
        U operations.
    designs : Designs
        D designs.

    Examples
    --------
    A GEMV whose 3 MB of weights are alone on an H200 reads them from its last-level cache:

    >>> import npusim as ns
    >>> from npusim.measured.shapes import linear, operations
    >>> gemv = operations([linear("bf16", 1, 1280, 1280, copies=1)])
    >>> warm = Traffic(gemv, Designs(ns.load_arch("h200")))
    >>> warm.read("l2").item() / 1280**2 / 2 > 0.99, warm.read("dram").item() < 1.0
    (True, True)
    """

    def __init__(self, operations: Operations, designs: Designs) -> None:
        self._operations, self._designs = operations, designs
        self._few, self._which = designs.distinct(READS)
        self._used = operations.reuse.used()
        self._at = np.zeros(len(operations.reuse.windows), dtype=np.intp)
        self._at[self._used] = np.arange(len(self._used))
        self._shares = _shares(operations.reuse, self._used, self._few)

    def share(self, level: str, data: str) -> Array:
        """Return the share of a column of `npusim.reuse.DATA` that a level serves, (U, D)."""
        table = self._shares[DATA[data][0]].get(level)
        reuse = self._operations.reuse
        shape = len(self._operations), len(self._designs)
        if table is None or not len(self._used):
            return np.broadcast_to(np.zeros(1), shape)
        part, at = reuse.share[data], self._at[reuse.window[data]]
        total = np.zeros((shape[0], len(self._few)))
        for p in range(part.shape[1]):
            total += part[:, p, None] * table[at[:, p]]
        return total[:, self._which]

    def bytes(self, level: str, *data: str) -> Array:
        """Return the bytes of some columns that a level serves, (U, D) [B]."""
        total = np.zeros((len(self._operations), len(self._designs)))
        for name in data:
            moved = self._operations[name]
            if moved.any():
                total += moved[:, None] * self.share(level, name)
        return total

    def read(self, level: str) -> Array:
        """Return the bytes read from a level, (U, D) [B]."""
        return self.bytes(level, *(name for name, (_, writes) in DATA.items() if not writes))

    def written(self, level: str) -> Array:
        """Return the bytes written to a level, (U, D) [B]."""
        return self.bytes(level, *(name for name, (_, writes) in DATA.items() if writes))

    def moved(self, level: str) -> Array:
        """Return the bytes read from and written to a level, (U, D) [B]."""
        return self.bytes(level, *DATA)


def served(operations: Operations, designs: Designs) -> dict[tuple[str, str], Array]:
    """Return the bytes of each level and class of data, over all operations, each (D,) [B].

    Bytes are added up by window first, so that a design costs no more than its windows.
    """
    few, which = designs.distinct(READS)
    reuse = operations.reuse
    used = reuse.used()
    shares = _shares(reuse, used, few)
    place = np.zeros(len(reuse.windows), dtype=np.intp)
    place[used] = np.arange(len(used))
    moved = {name: np.zeros(len(used)) for name in CLASSES}
    for data, (name, _) in DATA.items():
        parts = operations[data][:, None] * reuse.share[data]
        some = parts > 0
        np.add.at(moved[name], place[reuse.window[data][some]], parts[some])
    return {
        (level, name): (moved[name] @ table)[which]
        for name, levels in shares.items()
        for level, table in levels.items()
    }


def is_felt(operations: Operations, designs: Designs, least: float) -> bool:
    """Return whether designs differ in what their levels serve by more than a least share."""
    few, _ = designs.distinct(READS)
    return any(np.ptp(table, axis=1).max(initial=0.0) > least for table in shares(operations, few))


def shares(operations: Operations, designs: Designs) -> list[Array]:
    """Return the share of each window that each level serves of each class of data, (N, D) each."""
    found = _shares(operations.reuse, operations.reuse.used(), designs)
    return [table for levels in found.values() for table in levels.values()]


def _shares(reuse: Reuse, used: NDArray[np.intp], designs: Designs) -> dict[str, dict[str, Array]]:
    """Return, for each class of data and level, the share of data with each window, (N, D)."""
    window, kept = reuse.windows[used], reuse.kept[used]
    own = {"weight": _weights_kept(kept[:, 0], designs),
           "kv": _kept(kept[:, 1], "kv_sram", designs),
           "activation": np.zeros((1, 1))}  # fmt: skip
    bypass = _value("memories.l2.bypass", designs)
    passing = {name: 1.0 - own[name] for name in CLASSES}
    passing["weight"] = passing["weight"] * (1.0 - bypass)
    distance = np.zeros((len(used), len(designs)))
    for i, name in enumerate(CLASSES):
        distance += _product(window[:, i, None], passing[name])
    last = _value("memories.victim.capacity", designs)
    hit = resident_share(distance, designs)
    in_victim = np.where(last > 0, hit * (distance <= last), 0.0)
    shares = {}
    for name in CLASSES:
        cached = {"victim": passing[name] * in_victim, "l2": passing[name] * (hit - in_victim)}
        levels = {level: table for level, table in cached.items() if table.any()}
        if name in _OWN and own[name].any():
            levels[_OWN[name]] = np.broadcast_to(own[name], distance.shape)
        levels["dram"] = 1.0 - sum(levels.values(), np.zeros(distance.shape))
        shares[name] = levels
    return shares


def _value(path: str, designs: Designs) -> Array:
    """Return a parameter, 0 where the machine does not have it."""
    return designs[path] if path in designs else np.zeros(1)


def _kept(total: Array, memory: str, designs: Designs) -> Array:
    """Return the part of data that a memory of its own keeps, (N, D)."""
    capacity = _value(f"memories.{memory}.capacity", designs)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        part = np.minimum(capacity / total[:, None], 1.0)
    result: Array = np.where(total[:, None] > 0, part, 0.0)
    return result


def _weights_kept(total: Array, designs: Designs) -> Array:
    """Return the part of weights that the weight SRAM serves, (N, D)."""
    pinned = _kept(total, "weight_sram", designs)
    path = "memories.weight_sram.replacement"
    if path not in designs:
        return pinned
    capacity = _value("memories.weight_sram.capacity", designs)
    fits = (total[:, None] <= capacity) & (capacity > 0)
    return np.where(designs[path] > 0, fits, pinned)


def _product(a: Array, b: Array) -> Array:
    """Return a product in which nothing of infinity is nothing."""
    with np.errstate(invalid="ignore"):
        result: Array = np.where(b > 0, a * b, 0.0)
    return result
