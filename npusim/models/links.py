"""Links of a thread's chain: how many loads it waits for, one after the other.

    links = ceil(elements / threads launched)                         of most routines
    links = ceil(rest / threads of a block)                           of `VECTORS`
    links = ceil(elements / threads launched / 4) + 7 if blocks > results > 0    of `FOURS`
    links = ceil((elements modulo threads of a block x 16) / threads of a block) of `TILED`

    rest  = elements modulo (threads of a block x elements a thread)
    elements a thread = 4, 8, 16, ...: the first with which the grid holds all elements

Kernels that load vectors (`VECTORS`) do so in blocks that are full: all loads of a thread leave at
once. The last block, if it is not full, cannot: its threads take what they have left one by one
and ask each time whether it is there. So 1,024 elements, 8 a thread, take less time than 400. Sizes
of models mostly fill their blocks, sizes drawn at random hardly ever. What a thread takes is a
power of two, so the grid says which, but where one block has no more than 4 elements a thread: it
has the same rest with 4 and with 8, unless it is full with 4, and then is held to be.

A link is a load, ``loading``, and what is computed of an element. Full blocks wait for one load and
compute one element after the other; the longer of both kinds of blocks counts (`chained`):

    t = max(links x chain, loading + elements a thread x (chain - loading)),  loading <= chain

``loading`` is the chain of ``vectorized``, whose functions take next to no time.

Sums over a device (`TILED`) take tiles of 16 elements a thread at once, and what is left of the
last one by one.

Rows that are summed, searched or normalised (`FOURS`) are loaded four elements at a time, and what
one load gives is added before the next one leaves. Where blocks share a result (`share_results`;
there are more of them than results), each stores its part, waits until all can see it, counts
itself, and the last one loads the parts: that makes links and a block's work more.

Source: on an H200 (workloads/experiments/h200_routines.parquet) ``vectorized`` kernels of 4 to 80
blocks take 1.0 us with a rest of one element a thread and 1.2 us with a rest of 7 or 8; a row of
90,008 numbers in a block of 512 threads (44 loads a thread) takes 12.2 us, one of 33,000 (17) 6.3;
of shared results 5 to 9 links fit about as well. Launch code: PyTorch, aten/src/ATen/native/cuda,
CUDALoops.cuh and Reduce.cuh.

Left out: operands whose addresses are no multiple of a vector, which are loaded in shorter ones;
sums and means of 2-byte numbers, which load eight at a time (the routine does not say which
function it reduces by: maxima and norms load four).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.models.amount import results
from npusim.workload import Operations

Array = NDArray[np.float64]

PARAMETERS = ()  # reads none itself

VECTORS = ("vectorized", "special", "fill")
FOURS = ("reduce_rows", "reduce_arg", "layer_norm", "rms_norm")
TILED = ("reduce_device",)
_SHARING = ("reduce_rows", "reduce_arg")
_LEAST = 4.0  # elements a thread
_FOUR = 4.0
_SHARED = 7.0  # links
_TILE = 16.0  # elements of a thread


def links(operations: Operations, elements: Array) -> Array:
    """Return the links of a chain of each operation, 0 where its launch is not known, (U, 1).

    Parameters
    ----------
    operations : Operations
        U operations: ``blocks``, ``threads`` and ``write_activation``.
    elements : array, shape (U, 1)
        Their work.

    Examples
    --------
    Three blocks of 1,024 elements are full; of 3,000 elements, 952 are left to 128 threads. One
    element after the other, a thread waits for eight of them; four at a time, for two:

    >>> import npusim as ns
    >>> from dataclasses import replace
    >>> two = ns.load_workload("paddleocr_vl_decode").operations(np.array([0, 1]))
    >>> launch = {"blocks": np.array([3, 3]), "threads": np.array([128, 128]),
    ...           "write_activation": np.array([1e3, 1e3])}
    >>> for routine in ("vectorized", "strided", "reduce_rows"):
    ...     given = replace(two, routine=np.array([routine] * 2), columns=launch)
    ...     print(links(given, np.array([[3072.0], [3000.0]])).ravel())
    [0. 8.]
    [8. 8.]
    [2. 2.]
    """
    each, rest, _ = _of_a_thread(operations, elements)
    vectors, fours = (np.isin(operations.routine, r)[:, None] for r in (VECTORS, FOURS))
    found = np.ceil(np.where(vectors, rest, np.where(fours, each / _FOUR, each)))
    found = found + np.where(share_results(operations)[:, None], _SHARED, 0.0)
    tiled = np.isin(operations.routine, TILED)[:, None]
    found = np.where(tiled, _of_last_tile(operations, elements), found)
    return np.where(each > 0, found, 0.0)


def full_blocks(operations: Operations, elements: Array) -> Array:
    """Return the elements of a thread in full blocks of vectors, 0 where there are none, (U, 1)."""
    each, rest, width = _of_a_thread(operations, elements)
    some = (rest == 0) | (operations["blocks"][:, None] > 1)
    found: Array = np.where(np.isin(operations.routine, VECTORS)[:, None] & (each > 0) & some,
                            width, 0.0)  # fmt: skip
    return found


def chained(links: Array, full: Array, chain: Array, loading: Array) -> Array:
    """Return how long a chain is [cycle].

    Parameters
    ----------
    links, full : array
        See `links` and `full_blocks`.
    chain, loading : array
        Cycles of a link, and of its load alone.

    Examples
    --------
    Three elements of 184 cycles each, of which 65 are for the load, and full blocks of eight:

    >>> chained(*(np.array([x]) for x in (3.0, 8.0, 184.0, 65.0))).item()
    1017.0
    """
    load = np.minimum(chain, loading)
    found: Array = np.maximum(links * chain, np.where(full > 0, load + full * (chain - load), 0.0))
    return found


def _of_a_thread(operations: Operations, elements: Array) -> tuple[Array, Array, Array]:
    """Return a thread's elements, what the last block leaves it, and what it takes of a full one.

    Each is (U, 1); the first is 0 where the launch is not known.
    """
    blocks, threads = (operations[c][:, None].astype(np.float64) for c in ("blocks", "threads"))
    launched = blocks * threads
    each = elements / np.maximum(launched, 1.0)
    width = 2.0 ** np.ceil(np.log2(np.maximum(each, _LEAST)))
    rest = np.mod(elements, width * np.maximum(threads, 1.0)) / np.maximum(threads, 1.0)
    return np.where(launched > 0, each, 0.0), rest, width


def _of_last_tile(operations: Operations, elements: Array) -> Array:
    """Return how many elements a thread takes one by one of a tile that is not full, (U, 1)."""
    threads = np.maximum(operations["threads"], 1)[:, None].astype(np.float64)
    left: Array = np.ceil(np.mod(elements, threads * _TILE) / threads)
    return left


def share_results(operations: Operations) -> NDArray[np.bool_]:
    """Return which operations have blocks that share a result, shape (U,)."""
    written = results(operations)
    some = np.isin(operations.routine, _SHARING) & (written > 0)
    shared: NDArray[np.bool_] = some & (operations["blocks"] > written)
    return shared
