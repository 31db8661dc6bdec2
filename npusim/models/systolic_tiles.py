"""Tiles of a product on systolic arrays: which are cut, what they load, which is fastest.

A product is cut into tiles of tm x tn results, and its reduction into s parts; a unit takes one
block (tile and part) after the other:

    loads = inputs x (n / tn, rounded up) + weights x (m / tm, rounded up)

Tiles are the array's folds times powers of two, from 16 elements up to the whole product: a tile
narrower than the array leaves columns idle, and brings more units to the memory. One fits if the
memory of a unit holds twice (it is worked on while the next is loaded) what several folds of it
use, and the sums that wait for the rest of k, of 4 bytes. With a fold of f = R V along k, and
K = k / s:

    weight stays:  2 x inputs of tm x f where tn > C,   + 4 tm tn where K > f
    input stays:   2 x weights of f x tn where tm > C,  + 4 tm tn where K > f
    output stays:  2 x inputs of tm x K where tn > C,   + 2 x weights of K x tn where tm > R

What one fold alone uses passes by, so the smallest tile always may. Of all that fit the fastest is
taken, of equally fast ones the one that loads least. What is tried depends on the product and the
array alone: more units, or a larger memory, only add to what may be chosen.

Source: H. T. Kung, "Memory requirements for balanced computer architectures", ISCA 1986,
doi:10.1145/17356.17362: of two operands that pass a memory, each is read as often as tiles of it
do not fit.

Left out: tiles of other sizes, multicast between units, tiles of unequal work.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import conversion, hierarchy, memory, roofline
from npusim.models.hierarchy import Traffic
from npusim.models.roofline import burst_clock
from npusim.models.systolic_cycles import by_flow, cycles, folds, streamed
from npusim.workload import BYTES_OF, Operations

Array = NDArray[np.float64]

PARAMETERS = (
    "array.rows",
    "array.columns",
    "array.dataflow",
    "array.buffer",
    "array.side_by_side",
    "gemm.reduce",
    "floor.reduction",
    "launch.graph.interval",
    "launch.graph.node",
    "memories.l1.capacity",
)

READS = {
    *PARAMETERS, *memory.PARAMETERS, *hierarchy.READS, *roofline.PARAMETERS,
    *conversion.PARAMETERS,
}  # fmt: skip

VALUES = {"bf16": 1.0, "fp16": 1.0, "fp8": 2.0, "int8": 2.0, "int4": 4.0}  # of 16 bits

_STREAM = 128  # elements of a stream that count as a fold where tiles are cut
_LEAST = 16.0  # of a side, where a fold is longer: 32 B in 16 bits, one transaction of memory
_SPLITS = (1, 2, 4, 8, 16, 32)
_COPIES = 2.0  # of a tile: one is worked on while the next is loaded
_ACCUMULATOR = 4.0  # bytes of a partial result
_CELLS = 16384  # products times designs that stay in cache


@dataclass(frozen=True)
class Chosen:
    """What the fastest tiles of U products on D designs take, each (U, D).

    Attributes
    ----------
    busy : array
        All but the start [s].
    loads : array
        What the units load, operands that several tiles use counted each time [B].
    held : array
        The longest of ports, last-level cache and memories of their own [s].
    dram, compute : array
        DRAM and arrays [s].
    """

    busy: Array
    loads: Array
    held: Array
    dram: Array
    compute: Array


def fastest(operations: Operations, designs: Designs) -> Chosen:
    """Return what the fastest tiles of products take.

    Examples
    --------
    An array of 8 x 128 reads the weights of a GEMV once, and its input once for every tile:

    >>> import npusim as ns
    >>> from npusim.arch import with_value
    >>> from npusim.measured.shapes import linear, operations
    >>> gemv = operations([linear("bf16", 1, 1280, 1280)])
    >>> found = fastest(gemv, Designs(with_value(ns.load_arch("decode_npu"), "array.rows", 8.0)))
    >>> weights, inputs = 2 * 1280**2, 2 * 1280
    >>> (found.loads.item() - weights) / inputs
    80.0
    """
    order = np.lexsort((operations["m"], operations["n"]))  # like sizes try few tiles
    found = np.zeros((5, len(operations), len(designs)))
    step = max(_CELLS // len(designs), 1)
    for start in range(0, len(order), step):
        at = order[start : start + step]
        found[:, at] = _Products(operations.take(at), designs).fastest()
    return Chosen(*found)


def tile_loads(inputs: Array, weights: Array, lines: Array, strips: Array) -> Array:
    """Return what tiles load of operands that do not stay in a unit from one tile to the next [B].

    Parameters
    ----------
    inputs, weights : array
        Bytes of the operands [B].
    lines, strips : array
        Tiles along m and along n.

    Examples
    --------
    Two rows of three tiles: inputs three times, weights twice.

    >>> tile_loads(*(np.array([x]) for x in (10.0, 1000.0, 2.0, 3.0))).item()
    2030.0
    """
    return inputs * strips + weights * lines


class _Products:
    """Products, and what does not depend on the tile: what has two axes is (U, 1) or (U, D)."""

    def __init__(self, operations: Operations, designs: Designs) -> None:
        d, self.designs = designs, designs
        rows, grouped = np.maximum(operations["m"], 1.0), operations.kind == "grouped_gemm"
        groups = np.where(grouped, np.maximum(operations["groups"], 1.0), 1.0)
        experts = np.minimum(rows, groups)  # a row or more for each
        self.count = (np.maximum(operations["batch"], 1.0) * experts)[:, None]
        self.m = np.ceil(rows / experts)[:, None]
        self.n, self.k = (np.maximum(operations[c], 1.0)[:, None] for c in ("n", "k"))
        self.results = self.count * self.m * self.n
        self.values = np.array([VALUES[t] for t in operations.dtype])[:, None]
        self.input_item = np.array([BYTES_OF.get(t, 2.0) for t in operations.dtype])[:, None]
        stored = operations["read_weight"][:, None] / (self.count * self.n * self.k)
        stored = np.where(stored > 0, stored, np.inf)  # unless both operands are activations
        self.weight_item = np.minimum(stored, self.input_item)
        self.written = operations["write_activation"][:, None].astype(np.float64)
        self.read = operations.bytes_moved[:, None] - self.written
        self.macs = operations["flop"][:, None] / 2.0
        self.is_split = (operations.routine == "split")[:, None]
        self.widening = conversion.weight_time(operations, designs)
        self.units, self.flow = d["units.count"], d["array.dataflow"]
        self.rows, self.columns = np.maximum(d["array.rows"], 1.0), d["array.columns"]
        traffic = Traffic(operations, designs)
        self.far = traffic.moved("dram")
        self.own = sum((traffic.moved(level) for level in memory.OWN), np.zeros((1, 1)))
        own_time = memory.own_time(traffic, self.units, designs)
        self.own_time = np.broadcast_to(own_time, self.far.shape)

    def take(self, rows: NDArray[np.intp]) -> _Products:
        """Return some of the products."""
        some = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray) and value.ndim == 2:
                setattr(some, name, value[rows])
        return some

    def fastest(self) -> list[Array]:
        """Return the parts of `Chosen`."""
        best = [np.full(self.far.shape, np.inf) for _ in range(5)]
        least = self._least()
        for split in _SPLITS:
            rows = np.flatnonzero((least + self._sum_of_parts(split) < best[0]).any(axis=1))
            if rows.size:
                self.take(rows)._improve(best, rows, split)
        return best

    def _least(self) -> Array:
        """Return what no tile is faster than, (U, D) [s]."""
        dram = self.far / roofline.bandwidth(self.designs)
        return np.maximum(dram, self._all_at_work())

    def _all_at_work(self) -> Array:
        """Return the time in which all elements do all multiplications, (U, D) or (U, 1) [s]."""
        elements = self.values * self.rows * self.columns * self.units
        time: Array = self.macs / elements / burst_clock(self.designs)
        return time

    def _improve(self, best: list[Array], rows: NDArray[np.intp], split: int) -> None:
        """Put the best tile with so many parts of k where it is the best so far."""
        one = np.full(1, float(_STREAM))
        down = _tiles(self.m, by_flow(self.flow, one, self.rows, self.columns))
        across = _tiles(self.n, by_flow(self.flow, self.columns, self.columns, one))
        apart = self._sum_of_parts(split)
        mine = [table[rows] for table in best]
        for number, (tm, tn) in enumerate(product(down, across)):
            found = self._with(tm, tn, split)
            busy = found[0] + apart
            if number:  # the smallest may always
                busy = np.where(self._fits(tm, tn, split), busy, np.inf)
            better = (busy < mine[0]) | ((busy == mine[0]) & (found[1] < mine[1]))
            for old, new in zip(mine, (busy, *found[1:]), strict=True):
                np.copyto(old, new, where=better)
        for table, part in zip(best, mine, strict=True):
            table[rows] = part

    def _with(self, tm: Array, tn: Array, split: int) -> tuple[Array, ...]:
        """Return the parts of `Chosen` with a tile and parts of k, without their sum."""
        d = self.designs
        lines, strips = np.ceil(self.m / tm), np.ceil(self.n / tn)
        each = lines * strips * split  # blocks of a product
        active = np.minimum(self.count * each, self.units)
        rounds = np.ceil(self.count * each / self.units)
        deep = np.ceil(self.k / split)
        inputs, weights = self.m * self.input_item, self.n * self.weight_item
        whole = self.count * self.k
        loads = np.maximum(tile_loads(whole * inputs, whole * weights, lines, strips), self.read)
        leaving = self.written if split == 1 else _ACCUMULATOR * split * self.results
        block = deep * (tm * self.input_item + tn * self.weight_item)
        block = block + tm * tn * leaving / (self.results * split)
        rate = d["units.load_rate"] * d["units.clock"]
        port = np.maximum(rounds * block, (loads + leaving) / active) / rate
        passing = np.maximum(loads + leaving - self.own * lines, 0.0)
        held = np.maximum(np.maximum(port, self.own_time * lines),
                          passing / memory.l2_bandwidth(active, d))  # fmt: skip
        taken = active * d["units.miss_rate"] * d["units.clock"]
        dram = self.far / np.minimum(memory.dram_bandwidth(active, d, memory.TILES), taken)
        work = self._array_cycles(tm, tn, deep, rounds, np.ceil(rounds / each))
        compute = np.maximum(work / burst_clock(d), rounds * deep * tn * self.widening)
        compute = np.maximum(compute, self._all_at_work())  # whatever is known of its shape
        return np.maximum(np.maximum(held, dram), compute), loads, held, dram, compute

    def _array_cycles(
        self, tm: Array, tn: Array, deep: Array, rounds: Array, products: Array
    ) -> Array:
        """Return the cycles of the busiest array: so many blocks, of so many products."""
        d, array = self.designs, (self.rows, self.columns, self.flow)
        packed = np.ceil(deep / self.values)
        count, stream = folds(tm, tn, packed, *array), streamed(tm, tn, packed, self.flow)
        chains = np.ceil(products / d["array.side_by_side"])
        return cycles(rounds * count, stream, *array, d["array.buffer"], chains)

    def _fits(self, tm: Array, tn: Array, split: int) -> NDArray[np.bool_]:
        """Return where a tile fits into the memory of a unit."""
        path = "memories.l1.capacity"
        if path not in self.designs:
            return np.ones(1, dtype=bool)
        deep = np.ceil(self.k / split)
        fold = np.minimum(self.rows * self.values, deep)  # of k
        down = by_flow(self.flow, tm, self.rows, self.columns)  # rows of a fold
        inputs = _COPIES * np.where(tn > self.columns, tm * self.input_item, 0.0)
        weights = _COPIES * np.where(tm > down, tn * self.weight_item, 0.0)
        sums = np.where(deep > fold, _ACCUMULATOR * tm * tn, 0.0)
        staged = by_flow(self.flow, inputs * fold + sums, (inputs + weights) * deep,
                         weights * fold + sums)  # fmt: skip
        fits: NDArray[np.bool_] = staged <= self.designs[path]
        return fits

    def _sum_of_parts(self, split: int) -> Array:
        """Return what summing parts takes beside what another operation does of it [s]."""
        if split == 1:
            return np.zeros(1)
        d, moved = self.designs, 2.0 * _ACCUMULATOR * split * self.results
        sums = d["gemm.reduce"] + moved / memory.l2_bandwidth(self.units[None, :], d)
        elsewhere = d["floor.reduction"] + d["launch.graph.node"] + d["launch.graph.interval"]
        apart: Array = np.maximum(sums - np.where(self.is_split, elsewhere, 0.0), 0.0)
        return apart


def _tiles(length: Array, fold: Array) -> list[Array]:
    """Return the sides of tiles, (U, D) or (U, 1): halves and multiples of a fold, up to all."""
    halvings = np.maximum(np.floor(np.log2(fold / _LEAST)), 0.0)
    size = np.ceil(fold / 2.0**halvings)
    sides = [np.minimum(size, length)]
    while (sides[-1] < length).any():
        halvings = halvings - 1.0
        size = np.ceil(fold / 2.0**halvings)
        sides.append(np.minimum(size, length))
    return sides
