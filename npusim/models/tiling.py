"""Tiles of matrix products: which sizes there are, and which tile and split of K a library takes.

Libraries have tiles with one side of 64, 128 or 256 results and the other one too, or in steps of
``gemm.tile_step``; less than 64 are rows only. A reduction may be cut in parts where there are
fewer tiles than units. Which of them is fastest is not always what a library takes; what is known
of its choice is data:

- Types of 16 bits, weights too: a reduction of up to ``gemm.split_inner`` is never cut, a longer
  one always if the result is no wider than ``gemm.split_width`` and has ``gemm.split_results`` at
  most.
- fp8 sums that are exact: every 128 of K they are moved to fp32 registers, a second set beside
  those of the matrix unit, so a tile has ``gemm.fp8_tile`` results at most.
- Up to ``gemm.narrow_rows`` rows of those types, not cut and no wider than ``gemm.narrow_width``:
  the short side of the tile lies along the weights. It has 8 columns, or so many more that every
  block has a unit of its own; rows are padded to 64, which costs as much as loading them.
- What a trace tells of a kernel, in its routine: ``split`` (in parts that another operation sums),
  ``whole`` (not cut).

Source: NVIDIA, "Matrix multiplication background user's guide" (DU-08939); names and grids of
cuBLAS kernels (workloads/experiments/h200_one_row.md, h200_precision_power.md).

Left out: how a library ranks its kernels; rules of other versions than the one measured.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.workload import Operations

Array = NDArray[np.float64]
Which = NDArray[np.bool_]
Tile = tuple[int, int]

PARAMETERS = (
    "units.count",
    "gemm.tile_step",
    "gemm.split_inner",
    "gemm.split_width",
    "gemm.split_results",
    "gemm.narrow_rows",
    "gemm.narrow_width",
    "gemm.fp8_tile",
    "memories.l1.capacity",
)

STEP = 64  # length of a k-step
SIDES = (64, 128, 256)
SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_NARROW = tuple(range(8, 64, 8))  # columns of weights in a narrow tile
_SMALLEST = (64, 64)
_STAGES = 2  # of a k-step: one is computed while the next is loaded
_LARGEST = 128 * 256  # what registers and accumulators of a unit hold
_HALF, _BYTES = ("bf16", "fp16"), 2.0
_KNOWN = ("split", "whole")


def is_narrow(tile: Tile) -> bool:
    """Return whether the short side of a tile lies along the weights."""
    return tile[1] < SIDES[0]


class Tiling:
    """What tiles and splits U products may have on D designs.

    Parameters
    ----------
    operations : Operations
        U products.
    designs : Designs
        D designs.

    Examples
    --------
    An H200's library cuts a reduction of 3,072 in parts, one of 2,560 never:

    >>> import npusim as ns
    >>> from npusim.measured.shapes import linear, operations
    >>> layers = operations([linear("bf16", 16, 1024, k) for k in (3072, 2560)])
    >>> tiling = Tiling(layers, Designs(ns.load_arch("h200")))
    >>> [(split, rows.tolist()) for split, rows in tiling.worth((64, 64))][:3]
    [(1, [0, 1]), (2, [0, 1]), (3, [0, 1])]
    >>> tiling.refused((64, 64), 1, np.arange(2))[:, 0].tolist()
    [True, False]
    >>> tiling.refused((64, 64), 2, np.arange(2))[:, 0].tolist()
    [False, True]
    """

    def __init__(self, operations: Operations, designs: Designs) -> None:
        self.batch, self.m, self.n, self.k = (
            np.maximum(operations[c].astype(np.float64), 1.0)[:, None]
            for c in ("batch", "m", "n", "k")
        )
        self.units = designs["units.count"]
        self._designs = designs
        self._split, self._whole = ((operations.routine == name)[:, None] for name in _KNOWN)
        self._plain = np.isin(operations.dtype, _HALF) & (operations["batch"] <= 1)
        stored = operations["read_weight"] / (self.n * self.k)[:, 0]
        narrowed = (stored > 0) & (stored < _BYTES)  # another library's kernel
        self._plain = (self._plain & (operations["groups"] == 0) & ~narrowed)[:, None]
        self._must, self._may = self._ruled()
        self._narrow = self._narrowed()
        self._grain = np.round(designs["gemm.tile_step"])
        self._exact = (operations.dtype == "fp8")[:, None]
        self._most = self._optional("gemm.fp8_tile")
        self._room = self._optional("memories.l1.capacity")

    def _optional(self, path: str) -> Array:
        return self._designs[path] if path in self._designs else np.full(1, np.inf)

    def _ruled(self) -> tuple[Which, Which]:
        """Return which products the library always cuts, and which it may cut, (U, D)."""
        free = self._plain & ~self._split & ~self._whole
        if "gemm.split_inner" not in self._designs:
            return np.zeros_like(free), np.ones_like(free)
        long = self.k > self._designs["gemm.split_inner"]
        small = self.n <= self._optional("gemm.split_width")
        small = small & (self.m * self.n <= self._optional("gemm.split_results"))
        return free & long & small, ~free | long

    def _narrowed(self) -> Which:
        """Return which products have narrow tiles, (U, D)."""
        if "gemm.narrow_rows" not in self._designs:
            return np.zeros_like(self._plain)
        few = self.m <= self._designs["gemm.narrow_rows"]
        few = few & (self.n <= self._optional("gemm.narrow_width"))
        long: Which = self.k > self._optional("gemm.split_inner")
        narrow: Which = self._plain & ~self._split & few & ~long
        return narrow

    def sizes(self) -> list[Tile]:
        """Return the tiles that some product may have, rows by columns."""
        steps = np.unique(self._grain)
        others = [n for n in range(SIDES[0], SIDES[-1] + 1) if n in SIDES or (n % steps == 0).any()]
        both = [(side, n) for side in SIDES for n in others]
        found = {t for m, n in both for t in ((m, n), (n, m)) if m * n <= _LARGEST}
        short = [m for m in range(1, SIDES[0]) if (m % steps == 0).any()]
        found |= {(m, n) for m in short for n in SIDES}
        if self._narrow.any():
            found |= {(SIDES[0], n) for n in _NARROW}
        return sorted(found)

    def count(self, tile: Tile) -> Array:
        """Return the tiles of each product, (U, 1)."""
        count: Array = self.batch * np.ceil(self.m / tile[0]) * np.ceil(self.n / tile[1])
        return count

    def worth(self, tile: Tile) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """Yield the splits of K that are worth a look with a tile, each with the products."""
        tm, tn = tile
        if is_narrow(tile):
            yield 1, np.flatnonzero(self._narrow.any(axis=1))
            return
        wide = np.maximum(self.m, SIDES[0]), np.maximum(self.n, SIDES[0])
        fits = (tm <= wide[0]) & (tn <= wide[1]) & ((tm <= SIDES[0]) | (self.m > SIDES[0]))
        fits &= ~self._narrow.all(axis=1, keepdims=True)
        if not fits.any():
            return
        whole = np.flatnonzero(fits & ~self._split)
        if whole.size:
            yield 1, whole
        idle = fits & (self.count(tile) < self.units.max()) & ~self._whole
        for split in SPLITS[1:]:
            long = idle & (self.k >= 2 * STEP * split)
            if split == SPLITS[1]:
                long |= fits & (self._split | self._must.any(axis=1, keepdims=True))
            if long.any():
                yield split, np.flatnonzero(long)

    def refused(self, tile: Tile, split: int, rows: NDArray[np.intp] | slice) -> Which:
        """Return where some products may not have a tile and a split, (rows, D) or (rows, 1)."""
        if is_narrow(tile):
            return ~(self._narrow[rows] & self._least(tile[1], self.n[rows]))
        refused = self._narrow[rows] | self._must[rows]
        if split > 1:
            idle = (self.count(tile)[rows] < self.units) | self._split[rows] | self._must[rows]
            refused = self._narrow[rows] | ~(idle & self._may[rows])
        for side in set(tile).difference(SIDES):
            refused = refused | (side % self._grain != 0)
        if tile[0] * tile[1] > self._most.min():
            refused = refused | (self._exact[rows] & (tile[0] * tile[1] > self._most))
        return refused

    def _least(self, columns: int, n: Array) -> Which:
        """Return where a narrow tile is the least that gives every block a unit, (rows, D)."""
        enough: Which = (np.ceil(n / columns) <= self.units) | (columns == _NARROW[-1])
        if columns == _NARROW[0]:
            return enough
        return enough & (np.ceil(n / (columns - _NARROW[0])) > self.units)

    def too_large(self, tile: Tile, row: Array, column: Array) -> Which | None:
        """Return where two k-steps of a tile do not fit into a unit; None where all of them do.

        `row` and `column` are the bytes of an element of the rows and of the weights, (U, 1). The
        smallest tile must do where the memory of a unit holds no larger one.
        """
        if tile == _SMALLEST or is_narrow(tile):
            return None
        staged: Array = _STAGES * STEP * (tile[0] * row + tile[1] * column)
        return staged > self._room
