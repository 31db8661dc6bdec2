"""What attention libraries do: their tiles, and how they split the keys of a cache over units.

Facts of published code and of launch grids seen in traces; nothing here is fitted. A block works
on some query rows and walks over the keys in tiles. In decode there are few blocks, so the keys
are split into parts that work side by side, and a second kernel combines what they found:

- FlashAttention 2: the fewest parts that fill the last wave of two blocks a unit to 85 % of the
  best fill (``num_splits_heuristic`` in csrc/flash_attn/flash_api.cpp);
- FlashAttention 3: the same search bounds it, pretending one sequence; then so many that each unit
  gets as many tiles as the others, with a margin of 10 % (hopper/heuristics.h, tile_size.h,
  flash_prepare_scheduler.cu);
- cuDNN 9.19 on an H200: powers of two, until blocks cover the units (launch grids of 150 shapes).

Source: github.com/Dao-AILab/flash-attention (BSD-3-Clause), and the grids of cuDNN kernels in
PyTorch profiler traces.

Left out: other versions of these libraries, sliding windows, sequences of unequal length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Split = Callable[[Array, Array, Array, Array], tuple[Array, Mask]]

PARAMETERS = ()  # reads none itself

_MOST = 128  # parts, of any library
_GOOD = 0.85  # of the best fill of the last wave
_MARGIN = 1.1


@dataclass(frozen=True)
class Tile:
    """What one block holds of queries and keys.

    Attributes
    ----------
    rows, keys : int
        Query rows of a block, keys of a step.
    resident : int
        Columns of K that the blocks of one unit hold together: 256 are two blocks of a head size
        of 128, four of 64. Zero: one block a unit.
    """

    rows: int
    keys: int
    resident: int = 0

    def blocks_per_unit(self, width: Array) -> Array:
        """Return how many blocks of a (padded) head size a unit runs at a time."""
        return np.maximum(self.resident // width, 1.0)


@dataclass(frozen=True)
class Library:
    """One attention library.

    Attributes
    ----------
    name : str
        As in the parameters: ``library.NAME_decode.*``, ``library.NAME_prefill.*``.
    sizes : tuple of int
        Head sizes that it has kernels for; others are padded to the next.
    split, whole : Tile
        Decode with keys split into parts, and not.
    prefill : Tile
    parts : function
        From sequences, blocks of one sequence that do not share keys, tiles of keys and units to
        the number of parts, and whether the combining kernel is launched.
    """

    name: str
    sizes: tuple[int, ...]
    split: Tile
    whole: Tile
    prefill: Tile
    parts: Split

    def width(self, size: Array) -> Array:
        """Return head sizes as padded."""
        known = np.array(self.sizes, dtype=np.float64)
        at = np.minimum(np.searchsorted(known, size), len(known) - 1)
        return np.where(size <= known[-1], known[at], size)


def _fullest(items: Array, slots: Array, limit: Array, tiles: Array | None = None) -> Array:
    """Return the fewest parts that fill the last wave of slots to `_GOOD` of the best fill.

    Where tiles are given, parts that would leave each part as long as one part less do not count.
    """

    def fill(parts: int) -> Array:
        waves = items * parts / slots
        worth = parts <= limit
        if tiles is not None and parts > 1:
            worth = worth & (np.ceil(tiles / parts) != np.ceil(tiles / (parts - 1)))
        result: Array = np.where(worth, waves / np.ceil(waves), 0.0)
        return result

    most = int(min(_MOST, limit.max()))
    best = np.max([fill(parts) for parts in range(1, most + 1)], axis=0)
    chosen: Array = np.ones_like(best)
    for parts in range(most, 0, -1):
        chosen = np.where(fill(parts) >= _GOOD * best, parts, chosen)
    return chosen


def fill_waves(batch: Array, blocks: Array, tiles: Array, units: Array) -> tuple[Array, Mask]:
    """Return parts as FlashAttention 2 chooses them, and whether they are combined.

    Examples
    --------
    One sequence of 8 heads and 17 tiles of keys on 128 units (256 slots): 17 parts.

    >>> one, eight, tiles, units = (np.array([[x]]) for x in (1.0, 8.0, 17.0, 128.0))
    >>> fill_waves(one, eight, tiles, units)[0].item()
    17.0
    """
    items, slots = batch * blocks, 2.0 * units
    limit = np.minimum(np.minimum(slots, tiles), _MOST)
    parts = np.where(items >= 0.8 * slots, 1.0, _fullest(items, slots, limit, tiles))
    return parts, parts > 1


def even_tiles(batch: Array, blocks: Array, tiles: Array, units: Array) -> tuple[Array, Mask]:
    """Return parts as FlashAttention 3 chooses them, and whether its combining kernel is launched.

    Examples
    --------
    Four sequences of 8 heads and 64 tiles on 132 units: 64 x 32 x 1.1 / 132 are 18 tiles a unit.

    >>> four, eight, tiles, units = (np.array([[x]]) for x in (4.0, 8.0, 64.0, 132.0))
    >>> even_tiles(four, eight, tiles, units)[0].item()
    4.0
    """
    limit = np.minimum(np.minimum(units, tiles), _MOST)
    bound = np.where((blocks >= 0.8 * units) | (tiles <= 4), 1.0, _fullest(blocks, units, limit))
    each = np.ceil(batch * blocks * tiles * _MARGIN / units)
    parts = np.clip(np.ceil(tiles / each), 1.0, bound)
    return parts, bound > 1


def powers_of_two(batch: Array, blocks: Array, tiles: Array, units: Array) -> tuple[Array, Mask]:
    """Return parts as cuDNN chooses them, and whether they are combined.

    Examples
    --------
    Ten heads on 132 units: 16 parts make 160 blocks; 8 tiles of keys allow 8.

    >>> one, ten, units = (np.array([[x]]) for x in (1.0, 10.0, 132.0))
    >>> [powers_of_two(one, ten, np.array([[t]]), units)[0].item() for t in (32.0, 8.0, 3.0)]
    [16.0, 8.0, 1.0]
    """
    items = batch * blocks
    wanted = np.exp2(np.ceil(np.log2(np.maximum(units / items, 1.0))))
    allowed = np.exp2(np.floor(np.log2(tiles)))
    parts = np.minimum(np.minimum(wanted, allowed), 64.0)
    parts = np.where((2.0 * items > units) | (tiles < 4), 1.0, parts)
    return parts, parts > 1


_FLASH_SIZES = (64, 96, 128, 192, 256)
_FA2 = Library("fa2", _FLASH_SIZES, Tile(64, 128), Tile(64, 128), Tile(64, 128), fill_waves)
_FA3 = Library("fa3", _FLASH_SIZES, Tile(64, 128), Tile(64, 128), Tile(128, 128), even_tiles)
_FA3_SM80 = Library("fa3_sm80", _FLASH_SIZES, Tile(128, 112), Tile(128, 64, 256),
                    Tile(128, 64, 256), even_tiles)  # fmt: skip
_CUDNN = Library("cudnn", (64, 128, 256), Tile(16, 128, 256), Tile(16, 128, 256),
                 Tile(128, 128), powers_of_two)  # fmt: skip

LIBRARIES = (_CUDNN, _FA2, _FA3, _FA3_SM80)

# What traces and tables call them. One that a trace names and nobody knows does as cuDNN does.
_NAMES = {
    "cuDNN": _CUDNN, "cudnn": _CUDNN,
    "FlashAttention": _FA2, "fa2": _FA2, "AITER": _FA2, "Composable Kernel": _FA2,
    "fa3": _FA3, "flash_attention": _FA3_SM80, "fa3_sm80": _FA3_SM80,
}  # fmt: skip
CALLED = tuple(_NAMES)


def library_of(name: str) -> Library:
    """Return the attention library that a trace or table calls by a name.

    Examples
    --------
    >>> library_of("cuDNN").name, library_of("FlashAttention").name
    ('cudnn', 'fa2')
    """
    return _NAMES.get(name, _CUDNN)
