"""What PyTorch launches for an operator on contiguous tensors: routine, thread blocks, threads.

A table says what was asked, not what ran. What the library runs on tensors without holes is known:
it reads them in pieces of 16 bytes, and reduces and normalises rows by their length. Plain copies
are nodes of a graph, which run as fast as kernels that read pieces. The rules are those of the
release that `npusim.library`'s numbers come from; their blocks and threads agree with the launches
in workloads/experiments/h200_routines.parquet.

Source: PyTorch 2.11, ``aten/src/ATen/native/cuda``: ``CUDALoops.cuh``, ``Reduce.cuh``,
``SoftMax.cu``, ``PersistentSoftmax.cuh``, ``layer_norm_kernel.cu``, ``Shape.cu``.

Left out: releases whose threads take four elements, tensors that are not aligned, reductions that
several blocks share (few and very long rows), the limit on the blocks of a long ``cat``, the copy
engine, to which copies outside of graphs go.
"""

from __future__ import annotations

import math
from typing import NamedTuple

_PIECE = 16  # bytes that a thread reads at once
_WARP = 32
_LONGEST_OF_WARP, _BYTES_OF_WARP = 2048, 8192  # a row of which a softmax gives to one warp
_ACTIVATIONS = ("exp", "log", "cos", "sin", "silu", "gelu", "sigmoid", "tanh")
_NORMS = ("rms_norm", "layer_norm")


class Launched(NamedTuple):
    """A routine and its grid; 0 blocks where it has none or it is not known."""

    routine: str = ""
    blocks: int = 0
    threads: int = 0


def pieces(routine: str, elements: int, each: int) -> Launched:
    """Return a grid of 128 threads that take so many elements each."""
    return Launched(routine, _parts(elements, 128 * each), 128)


def cat(written: float, inputs: int) -> Launched:
    """Return a concatenation of inputs of one size: a piece a thread, a row of blocks an input."""
    return Launched("cat_vectorized", inputs * _parts(written / inputs, 128 * _PIECE), 128)


def reduce_rows(rows: int, length: int, at_once: int) -> Launched:
    """Return a reduction of rows: some of them share a block, or a long one has it alone.

    Parameters
    ----------
    rows, length : int
    at_once : int
        Elements of a row that a thread reads at once, if the row is long.

    Examples
    --------
    >>> reduce_rows(1813, 1000, 8), reduce_rows(1, 1280, 4).threads
    (Launched(routine='reduce_rows', blocks=114, threads=512), 256)
    """
    most = 512
    side = length // at_once if length > 128 else length
    across, down = _power(min(side, most)), _power(min(rows, most))
    width = min(across, _WARP)
    height = min(down, most // width)
    width = min(across, most // height)
    each = _parts(length, width)
    alone = each >= height * 16 or each >= 256
    return Launched("reduce_rows", rows if alone else _parts(rows, height), width * height)


def softmax(rows: int, length: int, itemsize: int) -> Launched:
    """Return a softmax: warps take short rows, two at a time if very short, a block a long one.

    Examples
    --------
    >>> softmax(25, 96, 2), softmax(436, 3080, 2).blocks
    (Launched(routine='softmax_warp', blocks=4, threads=128), 436)
    """
    if length > _LONGEST_OF_WARP or length * itemsize > _BYTES_OF_WARP:
        return Launched("softmax_block", rows, 1024)
    return Launched("softmax_warp", _parts(rows, 4 * (2 if length <= 128 else 1)), 128)


def launched(name: str, dtype: str, itemsize: int, rows: int, length: int) -> Launched:
    """Return what runs an operator on contiguous rows of one length.

    Parameters
    ----------
    name : str
        One of `npusim.measured.shapes.POINTWISE`, by the name that it shares with others.
    dtype : str
        Type of the input, and its bytes in `itemsize`.
    rows, length : int
        Of operators over rows; else their product counts.

    Examples
    --------
    >>> launched("mul", "bf16", 2, 1, 1280), launched("cast", "bf16", 2, 1, 1280).routine
    (Launched(routine='vectorized', blocks=2, threads=128), 'unrolled_cast')
    """
    elements = rows * length
    if name in ("mean", "sum"):
        return reduce_rows(rows, length, _PIECE // itemsize)
    if name == "amax":
        return reduce_rows(rows, length, 4)
    if name == "softmax":
        return softmax(rows, length, itemsize)
    if name in _NORMS:
        return Launched(name, rows, 128)
    if name == "cat":
        return cat(2.0 * elements * itemsize, 2)
    if name == "cast" and dtype != "fp32":  # only from fp32 does it read wide pieces
        return pieces("unrolled_cast", elements, 4)
    routine = "fill" if name == "fill" else "special" if name in _ACTIVATIONS else "vectorized"
    return pieces(routine, elements, 8)


def _parts(whole: float, each: int) -> int:
    """Return how many parts of a size hold the whole."""
    return max(math.ceil(whole / each), 1)


def _power(n: int) -> int:
    """Return the largest power of two that is not above n."""
    return 1 << (n.bit_length() - 1)
