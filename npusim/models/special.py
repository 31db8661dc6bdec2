"""Special functions (exp, reciprocal, rsqrt, tanh, erf, sin, cos): which unit evaluates them.

A compute unit has a special unit of ``special.rate`` results a clock beside its vector lanes; or
its lanes do them as polynomials. With I the time of the unit's instructions, N the evaluations and
E the elements on the busiest unit:

    special = max(I, N / (special.rate x clock))
    vector  = I + N x special.emulated / (vector.fp32.rate x vector.efficiency x clock)
    whole   = E / (special.rate x clock)

- special: instructions issue while the special unit works. What was measured of a library holds
  its special functions already; the longer of the two counts none of them twice.
- vector: a polynomial takes the lanes that the other instructions take. Of these, what a library
  spent on its special functions stays: too slow by at most that.
- whole (``special.whole``): the unit does an activation, a softmax or a normalisation from its
  input to its result, one element as fast as one function, in place of all instructions. What
  launches the operation, feeds and drains it stays: the floor, ``chain``, the transfers.

``special.place`` sends them to the special unit (``special``; whole where it is a whole one), to
the lanes (``vector``), or each operation to where it is fastest (where not given; a whole unit
does single functions too). A machine that does not give ``special.rate`` evaluates them within its
instructions, as measured.

How many evaluations an operation needs follows from its kind, its routine and its FLOP an element
(`NEEDS`). A chain of a fusion engine has those of its steps (`npusim.fusion.program` counts them),
which take their time as `npusim.models.fused` says. Of a compiler's ``fused`` kernel in a trace
none are counted: its name does not say how many it has.

Source: results a clock as in NVIDIA, "CUDA C++ Programming Guide", throughput of native arithmetic
instructions (16 for compute capability 7.x to 9.0); functions beside products as in J. Shah et al.,
"FlashAttention-3", arXiv:2407.08608; polynomials on the lanes as in FlashAttention-4
(github.com/Dao-AILab/flash-attention, flash_attn/cute/utils.py, BSD-3-Clause), with the range
reduction of W. Cody, W. Waite, "Software manual for the elementary functions", Prentice-Hall, 1980.

Left out: single functions in routines that have them beside other arithmetic (``rsqrt`` of a
decomposed norm runs in ``vectorized``: one a row), softmax inside a top-k, the reciprocals of
attention's rows in its time (not in its count), the functions that combine parts of decode
attention, functions split over both units, latency of a function, precision, sin and cos of large
arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.workload import Operations

Array = NDArray[np.float64]

PARAMETERS = (
    "special.rate",
    "special.emulated",
    "special.place",
    "special.whole",
    "units.clock",
    "vector.fp32.rate",
    "vector.efficiency",
)

PLACES = ("fastest", "special", "vector")  # of special.place, in the order of its choices
WHOLE = ("activation", "softmax", "norm")  # kinds that a whole unit does


@dataclass(frozen=True)
class Need:
    """How many special functions some operations need, and why.

    Attributes
    ----------
    kind, routine : str
        Of the operations; an empty routine stands for any.
    flop : float
        Least FLOP an element of them: importers and templates count a SiLU as 4, a GELU as 8.
    element, row : float
        Evaluations for each element (score of attention), and for each row of them.
    reason : str
    """

    kind: str
    routine: str
    flop: float
    element: float
    row: float
    reason: str


# The last that fits an operation holds.
NEEDS = (
    Need("activation", "", 0, 0, 0, "ReLU and its square compare and multiply (a bare tanh counts "
         "one FLOP as ReLU does: too few by one)"),
    Need("activation", "", 3, 2, 0, "sigmoid, SiLU, quick GELU, gated or not: exp, reciprocal"),
    Need("activation", "", 8, 1, 0, "GELU, gated or not: one erf or one tanh"),
    Need("softmax", "", 0, 1, 1, "exp of each element, one reciprocal for the sum of a row"),
    Need("norm", "", 0, 0, 1, "rsqrt of a row's variance or mean square"),
    Need("attention", "", 0, 1, 1, "exp of each score, one reciprocal for the sum of a query"),
    Need("pointwise", "special", 0, 1, 0, "cos, sin, exp, log, erf: what the routine is named for"),
)  # fmt: skip


def evaluations(operations: Operations) -> Array:
    """Return how many special functions each operation needs, shape (U,).

    Examples
    --------
    Decode attention of 16 heads over 1,024 keys: an exp a score, a reciprocal a head.

    >>> from npusim.measured.shapes import decode_attention, operations, pointwise
    >>> evaluations(operations([decode_attention("bf16", 1, 16, 2, 128, 1024)])).tolist()
    [16400.0]
    >>> evaluations(operations([pointwise("bf16", "silu", 1000)])).tolist()
    [2000.0]
    """
    elements, rows = _sizes(operations)
    each = operations["flop"] / np.maximum(elements, 1.0)
    found = np.zeros(len(operations))
    for need in NEEDS:
        fits = (operations.kind == need.kind) & (each >= need.flop)
        if need.routine:
            fits &= operations.routine == need.routine
        found[fits] = (need.element * elements + need.row * rows)[fits]
    chains = operations.kind == "fused"  # counted when they were made
    found[chains] = operations["heads"][chains]
    return found


def whole_elements(operations: Operations) -> Array:
    """Return the elements that a whole unit would do of each operation, 0 for other kinds, (U,)."""
    return np.where(np.isin(operations.kind, WHOLE), _sizes(operations)[0], 0.0)


def beside(instructions: Array, operations: Operations, part: Array, designs: Designs) -> Array:
    """Return how long the busiest unit is at work, its special functions included, (U, D) [s].

    Parameters
    ----------
    instructions : array, shape (U, D)
        Time of its instructions [s].
    operations : Operations
        U operations.
    part : array, shape (U, D) or (1, D)
        Part of each operation on that unit.
    designs : Designs
        D designs.
    """
    if PARAMETERS[0] not in designs:
        return instructions
    amounts = evaluations(operations), whole_elements(operations)
    needed, elements = (amount[:, None] * part for amount in amounts)
    return unit_time(instructions, needed, elements, designs)


def unit_time(instructions: Array, needed: Array, elements: Array, designs: Designs) -> Array:
    """Return how long a compute unit is at work, its special functions included, (U, D) [s].

    Parameters
    ----------
    instructions : array, shape (U, D)
        Time of its instructions: of the work of a routine, of an operation's FLOP [s].
    needed : array, shape (U, D) or (U, 1)
        Evaluations on that unit.
    elements : array, shape (U, D) or (U, 1)
        Elements on it that a whole unit would do; 0 where none would.
    designs : Designs
        D designs; without ``special.rate`` the time is that of the instructions.

    Raises
    ------
    InputError
        A machine that is to use its lanes and does not say what an evaluation takes there.

    Examples
    --------
    1,600 functions at 64 a clock of 1.8 GHz, beside 10 ns of instructions:

    >>> import npusim as ns
    >>> npu, ten, many = Designs(ns.load_arch("decode_npu")), np.full((1, 1), 1e-8), 1600.0
    >>> round(unit_time(ten, np.full((1, 1), many), np.zeros((1, 1)), npu).item() * 1e9, 2)
    13.89
    """
    if PARAMETERS[0] not in designs:
        return instructions
    rate = designs["special.rate"] * designs["units.clock"]
    single = np.maximum(instructions, needed / rate)
    whole = np.where((elements > 0) & (value("special.whole", designs) > 0), elements / rate,
                     single)  # fmt: skip
    place = value("special.place", designs)
    vector = np.full((1, 1), np.inf)
    if "special.emulated" in designs or (place == PLACES.index("vector")).any():
        vector = instructions + needed * designs["special.emulated"] / _lanes(designs)
    fastest = np.minimum(np.minimum(single, whole), vector)
    at = [place == PLACES.index(name) for name in ("special", "vector")]
    time: Array = np.where(at[0], whole, np.where(at[1], vector, fastest))
    return time


def value(path: str, designs: Designs) -> Array:
    """Return a parameter, 0 where the machine does not give it, shape (D,) or (1,)."""
    return designs[path] if path in designs else np.zeros(1)


def _sizes(operations: Operations) -> tuple[Array, Array]:
    """Return elements (scores of attention) and rows of each operation, each (U,)."""
    batch, m, n = (np.maximum(operations[c], 1).astype(np.float64) for c in ("batch", "m", "n"))
    rows, at = batch * m, operations.kind == "attention"
    elements = rows * n
    if at.any():
        heads, flop = np.maximum(operations["heads"][at], 1), operations["flop"][at]
        rows[at], scores = rows[at] * heads, elements[at] * heads
        asked = flop / (4.0 * np.maximum(operations["k"][at], 1))  # under a mask fewer
        elements[at] = np.where(flop > 0, np.minimum(scores, asked), scores)
    return elements, rows


def _lanes(designs: Designs) -> Array:
    """Return what the vector lanes of one unit sustain, shape (D,) or (1,) [FLOP/s]."""
    rate: Array = designs["vector.fp32.rate"] * designs["vector.efficiency"]
    return rate * designs["units.clock"]
