"""Larger thread blocks: pointwise kernels that are launched with fewer blocks of more threads.

A block of n times the threads takes n times the elements, so a grid has 1/n of the blocks:

    blocks = ceil(blocks / n), threads = n x threads, n <= 1024 / threads

Each thread does what it did. What a compute unit spends on starting, synchronising and ending a
block (``library.*.block``) is paid less often; a grid of few blocks leaves more units idle.

Source: seed 004 section 7 (larger thread groups, so that scheduling costs less); 1024 threads are
the most that a block of CUDA has (CUDA C++ Programming Guide, technical specifications).

Left out: kernels whose blocks work together (reductions, softmax, norms, sorts, products,
attention), registers that a compiler would give up for more threads.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.transforms.record import changed, changes, checked, lacks
from npusim.workload import Workload

SCALE = "workload.block_scale"
PARAMETERS = (SCALE,)
NEEDS = "pointwise kernel whose launch grid is known"
LIMIT = "threads do what they did; blocks of more than 1024 threads are not made"
UNMEASURED = "other thread blocks than a library launches, which no measured kernel has"

_KINDS = ("pointwise", "activation", "cast", "copy", "fill")
_MOST = 1024  # threads of a block


def enlarge_blocks(w: Workload, times: float) -> Workload:
    """Return a workload whose pointwise kernels have so many times the threads a block.

    Parameters
    ----------
    w : Workload
    times : float
        1 to 32, rounded to a whole number.

    Returns
    -------
    Workload
        ``meta["transforms"]`` says what was changed. Measured times stay what they were.

    Raises
    ------
    InputError
        Out of bounds, no such kernel, or blocks that were made larger before.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_vision")
    >>> at = int(np.argmax(np.where(w.mask("kind", "activation"), w["blocks"], 0)))
    >>> [(int(x["blocks"][at]), int(x["threads"][at])) for x in (w, enlarge_blocks(w, 4))]
    [(10054, 128), (2514, 512)]
    """
    return transform(w, {SCALE: times})


def transform(w: Workload, settings: Mapping[str, float]) -> Workload:
    """Return a workload with thread blocks as `PARAMETERS` say."""
    times, rows = float(np.rint(checked(settings)[SCALE])), touched(w)
    if not rows.any():
        raise lacks(w, NEEDS, SCALE)
    if times == present(w)[SCALE]:
        return w
    if SCALE in changes(w):
        raise InputError("has larger blocks already", file=w.name, place=SCALE,
                         allowed=f"{present(w)[SCALE]:g}",
                         hint="change the workload as it was traced")  # fmt: skip
    threads = np.maximum(w["threads"], 1)
    each = np.where(rows, np.clip(_MOST // threads, 1, times), 1.0)
    grids = {"blocks": np.ceil(w["blocks"] / each), "threads": w["threads"] * each}
    return changed(w, {SCALE: times}, grids)


def touched(w: Workload) -> NDArray[np.bool_]:
    """Return which operations are pointwise kernels whose grid is known, shape (K,)."""
    known = (w["blocks"] > 0) & (w["threads"] > 0) & w.classified
    found: NDArray[np.bool_] = w.mask("kind", *_KINDS) & known
    return found


def present(w: Workload) -> dict[str, float]:
    """Return how many times larger blocks are than they were traced."""
    return {SCALE: changes(w).get(SCALE, 1.0)}
