"""The roofline: an operation takes as long as its arithmetic or its DRAM traffic, the longer one.

    t_compute = FLOP / (rate x units x clock x efficiency)
    t_memory  = bytes / (DRAM bandwidth x efficiency)

Matrix products and attention run on the matrix unit if it has a rate for their type, everything
else (and fp32 products, which PyTorch keeps at full precision) on the vector unit.

Source: S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model
for multicore architectures", CACM 52(4), 2009, doi:10.1145/1498765.1498785.

Left out: caches (every byte comes from DRAM, once), tile and wave quantisation, bytes in flight.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.workload import Operations

Array = NDArray[np.float64]

MATRIX_KINDS = ("gemv", "gemm", "grouped_gemm", "conv", "attention")
MATRIX_DTYPES = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8", "int4")

PARAMETERS = (
    "units.count",
    "units.clock",
    "matrix.clock",
    "units.base_clock",
    "units.powered",
    "matrix.boost_share",
    "matrix.efficiency",
    *(f"matrix.{dtype}.rate" for dtype in MATRIX_DTYPES),
    "vector.fp32.rate",
    "vector.efficiency",
    "memories.dram.bandwidth",
    "memories.dram.efficiency",
)


def unit_of(kind: str, dtype: str, designs: Designs) -> str:
    """Return which unit computes an operation: ``matrix`` or ``vector``.

    Examples
    --------
    >>> import npusim as ns
    >>> unit_of("gemm", "bf16", Designs(ns.load_arch("h200")))
    'matrix'
    >>> unit_of("gemm", "fp32", Designs(ns.load_arch("h200")))
    'vector'
    """
    on_matrix = kind in MATRIX_KINDS and dtype in MATRIX_DTYPES
    return "matrix" if on_matrix and f"matrix.{dtype}.rate" in designs else "vector"


def matrix_peak(designs: Designs, dtype: str) -> Array:
    """Return the datasheet matrix throughput, shape (D,) or (1,) [FLOP/s]."""
    return designs[f"matrix.{dtype}.rate"] * designs["units.count"] * matrix_clock(designs)


def matrix_clock(designs: Designs) -> Array:
    """Return the clock of the quoted matrix peak, or of slower units, (D,) or (1,) [Hz]."""
    clock: Array = np.minimum(designs["matrix.clock"], designs["units.clock"])
    return clock


def burst_clock(designs: Designs) -> Array:
    """Return the clock of the matrix units in a long kernel, shape (D,) or (1,) [Hz].

    With all units at work it lies between the base clock and the clock of the units: what they
    draw at once holds it down from the first microsecond. The current grows with the number of
    units at work and the cube of the clock (voltage follows it), so fewer units run faster, up to
    the clock of the units. A power limit, which acts later, or a mode of its own lowers that one
    (`npusim.power`, `npusim.models.voltage`).

    Examples
    --------
    >>> import npusim as ns
    >>> h200 = ns.load_arch("h200")
    >>> clocks = burst_clock(Designs(h200, {"units.count": np.array([8.0, 132.0])}))
    >>> (clocks / 1e9).round(1).tolist()
    [2.0, 1.8]
    """
    base, boost = designs["units.base_clock"], designs["units.clock"]
    together = base + designs["matrix.boost_share"] * (boost - base)
    fewer = (designs["units.powered"] / designs["units.count"]) ** (1.0 / 3.0)
    return np.minimum(together * fewer, boost)


def vector_peak(designs: Designs) -> Array:
    """Return the datasheet fp32 vector throughput, shape (D,) or (1,) [FLOP/s]."""
    return designs["vector.fp32.rate"] * designs["units.count"] * designs["units.clock"]


def bandwidth(designs: Designs) -> Array:
    """Return the DRAM bandwidth that a long stream reaches, shape (D,) or (1,) [B/s]."""
    return designs["memories.dram.bandwidth"] * designs["memories.dram.efficiency"]


def throughput(kind: str, dtype: str, designs: Designs) -> Array:
    """Return the arithmetic throughput that an operation can reach, shape (D,) or (1,) [FLOP/s]."""
    if unit_of(kind, dtype, designs) == "matrix":
        cycles = designs[f"matrix.{dtype}.rate"] * designs["units.count"]
        return cycles * burst_clock(designs) * designs["matrix.efficiency"]
    return vector_peak(designs) * designs["vector.efficiency"]


def compute_time(operations: Operations, designs: Designs) -> Array:
    """Return the time of the arithmetic alone, shape (U, D) [s].

    Parameters
    ----------
    operations : Operations
        U operations; ``flop`` >= 0.
    designs : Designs
        D designs.

    Examples
    --------
    A vector operation at 76 % of 66.9 TFLOP/s:

    >>> import npusim as ns
    >>> from npusim.measured.shapes import operations, pointwise
    >>> one = operations([pointwise("fp32", "exp", 10**6)])
    >>> time = compute_time(one, Designs(ns.load_arch("h200"))).item()
    >>> bool(np.isclose(time, one["flop"][0] / (0.76 * 66.9e12), rtol=1e-3))
    True
    """
    time = np.zeros((len(operations), len(designs)))
    pairs = set(zip(operations.kind, operations.dtype, strict=True))
    for kind, dtype in pairs:
        rows = np.flatnonzero((operations.kind == kind) & (operations.dtype == dtype))
        time[rows] = operations["flop"][rows, None] / throughput(kind, dtype, designs)
    return time


def memory_time(operations: Operations, designs: Designs) -> Array:
    """Return the time of the DRAM traffic alone, shape (U, D) [s]."""
    time = operations.bytes_moved[:, None] / bandwidth(designs)
    return np.broadcast_to(time, (len(operations), len(designs)))


def ridge_point(designs: Designs, dtype: str) -> Array:
    """Return the arithmetic intensity at which both take equally long, shape (D,) [FLOP/B].

    Examples
    --------
    >>> import npusim as ns
    >>> round(float(ridge_point(Designs(ns.load_arch("h200")), "bf16")[0]), -1)
    200.0
    """
    return throughput("gemm", dtype, designs) / bandwidth(designs)
