"""Conversion: weights that are stored narrower than they are computed with are widened first.

A product that keeps its weights in fewer bits than its arithmetic has (``workload.weight_bits`` 8
or 4 beside products in bf16) widens each of them in the unit that loaded it, once for every tile of
rows that it serves:

    t_convert = weights x tiles of rows / (conversion.rate x units at work x clock)

It is an instruction stream beside loads and matrix instructions, so it overlaps with both: a third
term of the maximum that a k-step of a tile takes (`npusim.models.gemm`). More rows in a tile mean
fewer passes; a cluster shares loads, not conversions. The GEMV unit passes its weights once
(`npusim.models.gemv_unit`), and its engines convert side by side.

``conversion.rate`` counts weights a clock of one unit. Where a unit converts what its port brings
in the clock in which it comes, conversion never counts: the `single_cycle` rate. Where a machine
gives no rate, that is what it does.

Source: seed 004 section 6 (conversions should cost a single cycle). Rates of GPUs are those of
"Throughput of native arithmetic instructions" in NVIDIA's CUDA C++ Programming Guide: 64 results a
clock and unit from integers of 8 and 16 bits to 32, 16 for most other conversions (cc 8.0). One
kernel was measured: PyTorch's product of bf16 with weights of 4 bits in groups of 128 widens 13 to
14 weights a clock and unit of an H200, one row at 4096 x 4096 and 8192 x 8192 (docs/precision.md).

Left out: grouped products, of whose experts nothing tells how many were read, and so how wide a
weight is stored; keys and values of a compressed cache; weights stored
wider than the arithmetic; zero points and the multiplication with scales apart from the conversion.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.workload import BYTES_OF, Operations

Array = NDArray[np.float64]

PARAMETERS = ("conversion.rate",)

_PRODUCTS = ("gemv", "gemm", "conv")  # what is known of their weights
_SAME = 1e-9  # relative difference of widths that are one
_ELSE = 2.0  # bytes of a type that is not known


def widens(operations: Operations) -> NDArray[np.bool_]:
    """Return which products read weights narrower than they compute with, shape (U,).

    Examples
    --------
    >>> import npusim as ns
    >>> from npusim.transforms import quantize_weights
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> [int(widens(v.operations()).sum()) // 3 for v in (w, quantize_weights(w, 4))]
    [0, 127]
    """
    own = np.array([BYTES_OF.get(t, _ELSE) for t in operations.dtype])
    stored = operations["read_weight"] / np.maximum(_weights(operations), 1.0)
    one = np.isin(operations.kind, _PRODUCTS) & (operations["groups"] == 0)
    read = operations["read_weight"] > 0
    narrow: NDArray[np.bool_] = one & read & (stored < own * (1.0 - _SAME))
    return narrow


def weight_time(operations: Operations, designs: Designs) -> Array:
    """Return what widening one weight takes one unit, 0 where there is nothing to widen [s].

    Parameters
    ----------
    operations : Operations
        U products.
    designs : Designs
        D designs; without ``conversion.rate`` all is zero.

    Returns
    -------
    array, shape (U, D) or (U, 1)
    """
    narrow = widens(operations)
    if PARAMETERS[0] not in designs or not narrow.any():
        return np.zeros((len(operations), 1))
    each = 1.0 / (designs[PARAMETERS[0]] * designs["units.clock"])
    return np.where(narrow[:, None], each, 0.0)


def one_pass(operations: Operations, units: Array, designs: Designs) -> Array:
    """Return the time in which so many units widen all weights once, (U, D) or (1, D) [s]."""
    time: Array = _weights(operations)[:, None] * weight_time(operations, designs) / units
    return time


def single_cycle(designs: Designs, bits: float) -> Array:
    """Return the rate at which a unit converts what its port brings, (D,) or (1,) [OP/clock].

    Examples
    --------
    >>> import npusim as ns
    >>> single_cycle(Designs(ns.load_arch("decode_npu")), bits=4).tolist()
    [128.0]
    """
    rate: Array = designs["units.load_rate"] * 8.0 / bits
    return rate


def _weights(operations: Operations) -> Array:
    """Return how many weights a product multiplies each row with, shape (U,).

    From its FLOP, since a trace may list the kernels of a product one by one, each a part of it; no
    more than there are, since those of steps that a fusion engine puts behind it are among them.
    """
    rows = np.maximum(operations["batch"], 1) * np.maximum(operations["m"], 1)
    most = operations["n"] * operations["k"].astype(np.float64)
    count: Array = np.minimum(operations["flop"] / (2.0 * rows), np.where(most > 0, most, np.inf))
    return count
