"""Attention operations as columns: shapes, bytes that DRAM must give, and what a unit computes.

Products run on the matrix unit if it has a rate for their type, else on the vector unit.

Left out: conversion of a compressed cache.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models.attention_library import Library
from npusim.models.hierarchy import Traffic
from npusim.models.roofline import matrix_peak, unit_of, vector_peak
from npusim.workload import BYTES_OF, Operations

Array = NDArray[np.float64]

PARAMETERS = ()  # reads through roofline and hierarchy

# Routines of attention whose launch grid says in how many parts the keys are, split or in one.
ASKED = ("split", "whole")


class Shapes:
    """U attention operations of one library, as columns (U, 1).

    Attributes
    ----------
    batch, m, n, size, heads, kv_heads : array, shape (U, 1)
        Sequences, queries and keys of each, head size and heads, 1 or more.
    width : array, shape (U, 1)
        Head size as the library pads it.
    flop : array, shape (U, 1)
        Arithmetic that it needs [FLOP].
    element : array, shape (U, 1)
        One number of its type [B].
    row_bytes : array, shape (U, 1)
        One key and its value [B].
    extra : array, shape (U, 1)
        Bytes that it reads beside queries, keys and values: a mask or bias [B].
    traffic : Traffic
        What each level serves.
    dram : array, shape (U, D)
        Bytes that no level before DRAM holds [B].
    through_l2 : array, shape (U, D)
        Share of keys and values that no memory of their own serves.
    matrix_rate : array, shape (U, D)
        Peak of one unit for products of its type [FLOP/s].
    is_call : array of bool, shape (U, 1)
        Whether it is a whole call, not one kernel of a trace.
    asked : array, shape (U, 1)
        Blocks that it is to launch, whatever the library would; 0 where that is left to it.
    """

    def __init__(
        self, operations: Operations, rows: NDArray[np.intp], designs: Designs, library: Library
    ) -> None:
        def column(name: str) -> Array:
            values: Array = operations[name][rows].astype(np.float64)[:, None]
            return values

        self.batch, self.m, self.n, self.size, self.heads, self.kv_heads = (
            np.maximum(column(c), 1.0) for c in ("batch", "m", "n", "k", "heads", "kv_heads")
        )
        self.width = library.width(self.size)
        self.flop = column("flop")
        is_asked = np.isin(operations.routine[rows], ASKED)[:, None]
        self.asked = np.where(is_asked, column("blocks"), 0.0)
        self.is_call = np.where(is_asked, column("threads"), column("blocks")) == 0
        dtypes = operations.dtype[rows]
        self.element = np.array([BYTES_OF.get(t, 2.0) for t in dtypes])[:, None]
        vectors = self.batch * self.kv_heads * self.n * self.size * 2.0  # of keys and values
        cached, read = column("read_kv"), column("read_activation")
        self.row_bytes = np.where(cached > 0, cached / vectors, self.element) * 2.0 * self.size
        queries = self.batch * self.heads * self.m * self.size * self.element
        own = queries + np.where(cached > 0, 0.0, vectors * self.element)
        self.extra = np.maximum(read - own, 0.0)
        self.traffic = Traffic(operations.take(rows), designs)
        self.dram = self.traffic.moved("dram")
        own = self.traffic.bytes("kv_sram", "read_kv")
        self.through_l2 = 1.0 - np.divide(own, cached, out=np.zeros_like(own), where=cached > 0)
        self.matrix_rate = np.zeros((len(rows), len(designs)))
        for dtype in sorted(set(dtypes)):
            self.matrix_rate[dtypes == dtype] = _unit_rate(dtype, designs)


def _unit_rate(dtype: str, designs: Designs) -> Array:
    """Return the peak of one unit for products of a type, shape (D,) or (1,) [FLOP/s]."""
    on_matrix = unit_of("attention", dtype, designs) == "matrix"
    peak = matrix_peak(designs, dtype) if on_matrix else vector_peak(designs)
    return peak / designs["units.count"]
