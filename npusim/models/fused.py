"""Fused kernels: a chain of operations that runs as one (`npusim.fusion` makes them).

    t = time of its routine + branches x fusion.branch x rounds / clock

The routine is one of three forms: ``fused_steps`` goes over elements, ``fused_rows`` reduces rows
and goes back to their elements, ``fused_passes`` passes over a row more than once (softmax, scan,
sort). Their numbers come from a compiler's kernels (`npusim.models.routine`); a fusion engine is
taken to start and to drain as these do, in floors of its machine. Fused kernels of a compiler's
trace, whose form is not known, are costed as streams.

A branch is a member whose elements data decide (read or written by index, or masked by one): lanes
take both ways, or wait. Each costs ``fusion.branch`` cycles a block; 0 where not given.

What a chain may hold (``fusion.chain``, ``fusion.buffer``, ``fusion.products``,
``fusion.recompute``, ``fusion.side_by_side``) is read by `npusim.fusion`, which changes the
workload once for each of these, not once a design.

Source: seed 004 section 5; numbers from workloads/experiments/h200_fused_axes.json.

Left out: macro-ops of many members that decode longer (two and twelve steps take as long in
the measurements), registers that a long chain runs out of, the arithmetic of a chain behind a
product, which counts at the product's rate.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import routine
from npusim.models.cost import Cost
from npusim.workload import Operations

PARAMETERS = ("fusion.chain", "fusion.buffer", "fusion.products", "fusion.recompute",
              "fusion.side_by_side", "fusion.branch")  # fmt: skip

READS = {"fusion.branch", *routine.READS}

FORMS = ("fused_steps", "fused_rows", "fused_passes")


def known(operations: Operations, designs: Designs) -> NDArray[np.bool_]:
    """Return which operations are chains whose form is known, shape (U,)."""
    return np.isin(operations.routine, FORMS) & routine.known(operations, designs)


def fused_cost(operations: Operations, designs: Designs) -> Cost:
    """Return the cost of fused kernels that are `known`, each (U, D) [s].

    Parameters
    ----------
    operations : Operations
        U fused kernels of m rows of n elements; ``k`` counts their branches.
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
    """
    cost = routine.routine_cost(operations, designs)
    if "fusion.branch" not in designs:
        return cost
    rounds = routine.routine_shape(operations, designs).rounds
    cycles = operations["k"][:, None] * rounds * designs["fusion.branch"]
    return replace(cost, floor=cost.floor + cycles / designs["units.clock"])
