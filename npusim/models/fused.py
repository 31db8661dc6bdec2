"""Fused kernels: a chain of operations that runs as one (`npusim.fusion` makes them).

    t = least + max(B, S) + min(B, S) / waves + branches x fusion.branch x rounds / clock
    waves = max(1, elements on the busiest unit / (units.threads x 8))

The routine is one of three forms: ``fused_steps`` goes over elements, ``fused_rows`` reduces rows
and goes back to their elements, ``fused_passes`` passes over a row more than once (softmax, scan,
sort). Their numbers come from a compiler's kernels (`npusim.models.routine`); a fusion engine is
taken to start and to drain as these do, in floors of its machine. Fused kernels of a compiler's
trace, whose form is not known, are costed as streams.

The least is the routine's floor and chain, B what it is busy for beside these, S what the special
functions of its steps take on the busiest unit (`npusim.models.special`). All blocks that a unit
holds load, compute and store at about the same time, so functions of one wave wait for its loads;
only those of another wave are done beside them. A compiler gives a thread eight elements where
there are enough; a machine that does not say how many threads a unit holds has one wave. What rows
need (exponentials of a softmax, the root of a norm) is in the numbers of their forms, measured with
it.

A branch is a member whose elements data decide (read or written by index, or masked by one): lanes
take both ways, or wait. Each costs ``fusion.branch`` cycles a block; 0 where not given.

What a chain may hold (``fusion.chain``, ``fusion.buffer``, ``fusion.products``,
``fusion.recompute``, ``fusion.side_by_side``) is read by `npusim.fusion`, which changes the
workload once for each of these, not once a design.

Source: seed 004 section 5; numbers from workloads/experiments/h200_fused_axes.json; elements a
thread: 256 a warp in PyTorch 2.11, torch/_inductor/runtime/triton_heuristics.py.

Left out: macro-ops of many members that decode longer (two and twelve steps take as long in the
measurements of small kernels), the lanes' part of a function (range reduction, a polynomial for
erf), registers that a long chain runs out of, blocks of two elements a thread (which the compiler
takes for some kernels, though they may be three fifths slower in the cache), the arithmetic of a
chain behind a product, which counts at the product's rate, and its special functions; functions on
the lanes, taken beside the issue there; energy of functions within rows. Where a unit holds more
threads, more of a kernel is one wave, in which nothing hides its functions.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import routine, special
from npusim.models.cost import Cost
from npusim.workload import Operations

PARAMETERS = ("fusion.chain", "fusion.buffer", "fusion.products", "fusion.recompute",
              "fusion.side_by_side", "fusion.branch")  # fmt: skip

_THREADS = "units.threads"
_EACH = 8.0  # elements a thread

READS = {"fusion.branch", _THREADS, *routine.READS}

Array = NDArray[np.float64]

FORMS = ("fused_steps", "fused_rows", "fused_passes")


def known(operations: Operations, designs: Designs) -> NDArray[np.bool_]:
    """Return which operations are chains whose form is known, shape (U,)."""
    return np.isin(operations.routine, FORMS) & routine.known(operations, designs)


def fused_cost(operations: Operations, designs: Designs) -> Cost:
    """Return the cost of fused kernels that are `known`, each (U, D) [s].

    Parameters
    ----------
    operations : Operations
        U fused kernels of m rows of n elements; ``k`` counts their branches, ``heads`` the special
        functions of their steps.
    designs : Designs
        D designs.

    Examples
    --------
    Keys and values of a token are written by index, which is a branch each:

    >>> import npusim as ns
    >>> from npusim.fusion.chains import Limits
    >>> from npusim.fusion.program import fused
    >>> from npusim.transforms import transformed
    >>> w = transformed(ns.load_workload("paddleocr_vl_decode"), {"workload.static_cache": 1024})
    >>> w = fused(w, Limits(16))
    >>> two = w.operations(np.flatnonzero(w["k"] * w.mask("kind", "fused") == 2)[:1])
    >>> h200 = ns.load_arch("h200")
    >>> costly = Designs(h200, {"fusion.branch": np.array([500.0])})
    >>> more = fused_cost(two, costly).time - fused_cost(two, Designs(h200)).time
    >>> round(more.item() * 1.98e9)
    1000

    A SiLU and a product of 64 x 6,848 elements, an exponential and a reciprocal each; these take
    2 x 438,272 / 132 / 16 / 1.98 GHz = 0.21 us, in one wave:

    >>> from npusim.measured.patterns import pattern
    >>> o = fused(pattern("silu_mul", 64), Limits(16)).operations()
    >>> rates = Designs(h200, {"special.rate": np.array([1e9, 16.0])})
    >>> o["heads"].item(), round(np.diff(fused_cost(o, rates).time).item() * 1e6, 2)
    (876544, 0.21)
    """
    cost = _with_functions(operations, designs)
    if "fusion.branch" not in designs:
        return cost
    rounds = routine.routine_shape(operations, designs).rounds
    cycles = operations["k"][:, None] * rounds * designs["fusion.branch"]
    return replace(cost, floor=cost.floor + cycles / designs["units.clock"])


def _with_functions(operations: Operations, designs: Designs) -> Cost:
    """Return the cost of a form, and of what it has of its functions beside it, (U, D) [s]."""
    needed = special.evaluations(operations)
    bare = {**operations.columns, "heads": np.zeros_like(operations["heads"])}
    cost = routine.routine_cost(replace(operations, columns=bare), designs)
    if special.PARAMETERS[0] not in designs or not needed.any():
        return cost
    shape = routine.routine_shape(operations, designs)
    nothing = np.zeros(cost.floor.shape)
    spent = special.unit_time(nothing, needed[:, None] * shape.part, nothing, designs)
    held = designs[_THREADS] * _EACH if _THREADS in designs else np.full(1, np.inf)
    waves = np.maximum(shape.share / held, 1.0)

    def both(busy: Array) -> Array:
        time: Array = np.maximum(busy, spent) + np.minimum(busy, spent) / waves
        return time

    busy = cost.memory + cost.compute
    time = both(busy)
    gain = time - both(busy - cost.gain)
    return replace(cost, compute=cost.compute + (time - busy), gain=gain)
