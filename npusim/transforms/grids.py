"""Launch grids: how many blocks of how many threads a routine starts for what it works on.

Most routines give a block a fixed number of elements, or one row; some a fixed grid to whatever
comes. Rows that are summed share a block: h rows of w threads each,

    w = min(elements a row, 32), h = min(rows, 512 / w), then w = min(elements a row, 512 / h)

with all in powers of two, a row that is read in fours counting a quarter of its elements; a thread
that would sum 256 elements, or 16 h, has a block do one row instead.

Source: launch code of PyTorch (github.com/pytorch/pytorch, aten/src/ATen/native/cuda: Loops.cuh,
Reduce.cuh, PersistentSoftmax.cuh, Shape.cu). Of the calls of workloads/experiments/
h200_routines.parquet it gives the grid of all maps, norms, softmaxes and gathers of rows, three in
four of the sums of rows and half of those of columns; of concatenations that of each tensor.

Left out: rows so long that several blocks share one; sorts of more than 4096 elements; other
libraries. For these a grid is known in proportion to another one (`scaled`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Size:
    """What operations of one routine work on, each (N,).

    Attributes
    ----------
    rows, length : array
        Rows, and elements of each.
    item : array
        Bytes of an element [B].
    results : array
        Bytes written [B].
    units : float
        Compute units of the machine that was traced, ``inf`` if unknown.
    """

    rows: Array
    length: Array
    item: Array
    results: Array
    units: float

    @property
    def elements(self) -> Array:
        """Rows times their length."""
        return self.rows * self.length

    def take(self, at: NDArray[np.bool_]) -> Size:
        """Return some of them."""
        return Size(self.rows[at], self.length[at], self.item[at], self.results[at], self.units)


Grid = tuple[Array, Array]
"""Blocks and threads a block, each (N,)."""

_ELEMENTS = {  # that a block takes
    "vectorized": 1024, "special": 1024, "fill": 1024, "scatter_gather": 1024, "unrolled": 512,
    "unrolled_cast": 512, "strided_cast": 512, "index": 512,
}  # fmt: skip
# Elements a block takes, and its threads: CUB's tiles, as in traces of CUDA 13.
_TILES = {
    "reduce_device": (4096, 256), "select_sweep": (3840, 384), "scan_device": (1920, 128),
    "index_large": (128, 128), "write_indices": (np.inf, 256), "reduce_tile": (np.inf, 256),
    "scan_init": (np.inf, 128), "histogram": (4096, 512), "repeat": (512, 512),
}  # fmt: skip
_BY_WIDTH = ("strided", "strided_4d", "strided_5d", "transposed")
_OF_ONE_ROW = ("softmax_block", "layer_norm", "rms_norm")
_WHATEVER_COMES = ("cat", "cat_2d", "cat_4d", "grouped_setup", "grouped_matrix")
_THREADS = 128
_LINE = 4096.0  # bytes that a block of a gather takes, 16 a thread
_CATS = 32  # blocks a unit for each tensor of a concatenation, at most


def grid(routine: str, size: Size) -> Grid:
    """Return blocks and threads a block of a routine of `npusim.library`, each (N,).

    Examples
    --------
    Sums of 8 and 32 rows of 1024: 8 of 64 threads in one block, 16 of 32 in two.

    >>> rows = Size(np.array([8.0, 32.0]), np.full(2, 1024.0), np.full(2, 4.0), np.ones(2), 132)
    >>> [x.tolist() for x in grid("reduce_rows", rows)]
    [[1.0, 2.0], [512.0, 512.0]]
    """
    rule = _RULES.get(routine)
    if rule is not None:
        return rule(size)
    threads = np.full_like(size.rows, _THREADS)
    if routine in _ELEMENTS:
        return np.ceil(size.elements / _ELEMENTS[routine]), threads
    if routine in _BY_WIDTH:
        return np.ceil(size.elements / np.where(size.item < 4, 512, 256)), threads
    if routine in _TILES:
        tile, each = _TILES[routine]
        return np.maximum(np.ceil(size.elements / tile), 1.0), np.full_like(threads, each)
    if routine in _OF_ONE_ROW:
        return size.rows, threads
    return (np.ones_like(size.rows) if routine in _WHATEVER_COMES else size.elements), threads


def scaled(routine: str, launched: Grid, before: Size, after: Size) -> Grid:
    """Return the grid of a routine for another size, given the one that it had for a first.

    What a grid has in common with `grid` stays: where blocks are twice as many, they stay so.
    """
    old, new = grid(routine, before), grid(routine, after)
    blocks, threads = (
        np.ceil(one * then / np.maximum(first, 1.0) - 1e-9)
        for one, first, then in zip(launched, old, new, strict=True)
    )
    return blocks, threads


def _power(x: Array) -> Array:
    """Return the largest power of two up to x, one at least."""
    result: Array = np.exp2(np.floor(np.log2(np.maximum(x, 1.0))))
    return result


def _sums(size: Size) -> Grid:
    lanes = np.minimum(_power(np.where(size.length >= 128, size.length / 4, size.length)), 512)
    wide = np.minimum(lanes, 32)
    high = np.minimum(_power(size.rows), 512 / wide)
    wide = np.minimum(lanes, 512 / high)
    each = np.ceil(size.length / wide)
    alone = (each >= 16 * high) | (each >= 256)
    return np.ceil(size.rows / np.where(alone, 1.0, high)), wide * high


def _sums_of_columns(size: Size) -> Grid:
    results = size.results / size.item  # four a thread
    return np.ceil(results / (4 * _THREADS)), np.full_like(results, _THREADS)


def _softmax(size: Size) -> Grid:
    padded = np.exp2(np.ceil(np.log2(size.length)))
    rows = _THREADS / np.minimum(padded, 32) * np.where(padded <= 128, 2, 1)
    return np.ceil(size.rows / rows), np.full_like(rows, _THREADS)


def _gather(size: Size) -> Grid:
    row = size.length * size.item
    return size.rows * np.ceil(row / _LINE), np.minimum(np.ceil(row / 512) * 32, 256)


def _cat(size: Size) -> Grid:
    blocks = np.ceil(size.elements * size.item / (16 * _THREADS))
    return np.minimum(blocks, _CATS * size.units), np.full_like(blocks, _THREADS)


def _few_indices(size: Size) -> Grid:
    return np.ceil(size.length / _THREADS), np.minimum(size.length, _THREADS)


def _arange(size: Size) -> Grid:
    return np.ceil(size.elements / 64), np.full_like(size.rows, 64)


def _topk(size: Size) -> Grid:
    return size.rows, np.minimum(np.ceil(size.length / 32) * 32, 1024)


def _small_sort(size: Size) -> Grid:
    return size.rows, np.full_like(size.rows, 16)


def _sort(size: Size) -> Grid:
    padded = np.exp2(np.ceil(np.log2(size.length)))
    return size.rows, np.maximum(padded / 32, 32)


_RULES: Mapping[str, Callable[[Size], Grid]] = MappingProxyType({
    "reduce_rows": _sums, "reduce_arg": _sums, "reduce_columns": _sums_of_columns,
    "softmax_warp": _softmax, "gather_vectorized": _gather, "cat_vectorized": _cat,
    "indexed_fill": _arange, "topk_block": _topk, "sort_bitonic": _small_sort,
    "sort_block": _sort, "index_small": _few_indices,
})  # fmt: skip
