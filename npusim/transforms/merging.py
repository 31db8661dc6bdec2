"""Hardware batching: products of several sequences that read the same weights, done in one pass.

S sequences decode side by side, each as a program of its own on one hardware queue, which looks for
operations that read the same weights and does them together. Of a step of one program,

    products of weights:  one of S times the rows, as in a step of S times the batch; weights once
    all else:             S times, one sequence after the other, each up to its next product

so that weights come by once, as with ``workload.batch``, while floors, launches and everything that
is not a product are paid S times. What sums the parts of a split product goes with it. Grouped
products read the experts that all sequences together hit (`npusim.transforms.routing`).

Source: seed 004 section 7 (hardware support for fine-grained batching of single-token operations);
rows, weights and experts of a larger batch as `npusim.transforms.batch` has them.

Left out: how long a product waits for the sequences that are behind (they go in step), what finds
equal weights, products of activations (attention is each sequence's own), sequences that run beside
each other on other units, host work of the programs in one process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.columns import ORIGINS
from npusim.errors import InputError
from npusim.transforms import batch
from npusim.transforms.record import changed, changes, checked
from npusim.transforms.sequences import shares
from npusim.workload import Workload, stream_order

MERGED = "workload.merged"
PARAMETERS = (MERGED,)
NEEDS = batch.NEEDS
LIMIT = "sequences go in step; what finds equal weights and waits for the others takes no time"
UNMEASURED = "hardware that merges products of several programs, which nobody has measured"

_PRODUCTS = ("gemv", "gemm", "grouped_gemm")


def merge_products(w: Workload, sequences: float) -> Workload:
    """Return a workload in which hardware merges the products of so many programs.

    Parameters
    ----------
    w : Workload
        Decode steps of one program.
    sequences : float
        Programs that decode side by side, 1 to 1024, rounded to a whole number.

    Returns
    -------
    Workload
        ``meta["tokens_per_step"]`` says how many tokens a step yields, ``meta["transforms"]`` what
        was changed. Measured times stay what they were, and are zero for what was not traced.

    Raises
    ------
    InputError
        Out of bounds, no decode attention or several batches of it, phases beside decode, drafts,
        another number before, or dependencies beside the order of streams.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> four = merge_products(w, 4)
    >>> float(four["read_weight"].sum() / w["read_weight"].sum()) < 1.001
    True
    >>> attention = [int(x.mask("kind", "attention").sum()) // 3 for x in (w, four)]
    >>> attention, four.meta["tokens_per_step"]
    ([18, 72], 4.0)
    """
    return transform(w, {MERGED: sequences})


def transform(w: Workload, settings: Mapping[str, float]) -> Workload:
    """Return a workload with merged products as `PARAMETERS` say."""
    programs = int(np.rint(checked(settings)[MERGED]))
    if programs == present(w)[MERGED]:
        return w
    _refuse(w)
    own = batch.sequences(w, MERGED)
    share = shares(w, own)
    columns, texts = batch.grown(w, share, own, own * programs)
    rows = share.follows & _merges(w)
    for name, column in columns.items():
        columns[name] = np.where(rows, column, w[name])
    texts = {name: np.where(rows, text, w.text(name)) for name, text in texts.items()}
    together = changed(w, {MERGED: float(programs)}, columns, texts)
    return _side_by_side(together, rows, programs, float(own * programs))


def touched(w: Workload) -> NDArray[np.bool_]:
    """Return which operations are decode attention, which says how many sequences there are."""
    return batch.touched(w)


def present(w: Workload) -> dict[str, float]:
    """Return the programs whose products are merged as it is."""
    return {MERGED: changes(w).get(MERGED, 1.0)}


def _refuse(w: Workload) -> None:
    """Refuse a workload whose steps are not those of one program."""
    batch.refuse_others(w, MERGED)
    if MERGED in changes(w):
        raise InputError("has merged products already", file=w.name, place=MERGED,
                         allowed=f"{present(w)[MERGED]:g}",
                         hint="change the workload as it was traced")  # fmt: skip
    order = stream_order(w["stream"], w["step"])
    if not all(np.array_equal(a, b) for a, b in zip(w.edges, order, strict=True)):
        raise InputError("has dependencies beside the order of its streams, which other programs "
                         "have no part in", file=w.name, place=MERGED)  # fmt: skip


def _merges(w: Workload) -> NDArray[np.bool_]:
    """Return which operations are products of weights, or sum the parts of one, shape (K,)."""
    products = w.mask("kind", *_PRODUCTS) & (w["read_weight"] > 0)
    before = np.concatenate([[False], products[:-1]])
    found: NDArray[np.bool_] = products | (w.mask("kind", "splitk_reduce") & before)
    return found


def _side_by_side(w: Workload, merged: NDArray[np.bool_], programs: int, tokens: float) -> Workload:
    """Return a workload in which all but the merged operations come once for each program.

    Between two merged operations each program runs on alone, one after the other.
    """
    begins = np.concatenate([[True], np.diff(w["step"]) > 0]) | merged
    begins[1:] |= merged[:-1]
    run = np.cumsum(begins)
    row = np.repeat(np.arange(len(w)), np.where(merged, 1, programs))
    first = np.concatenate([[True], np.diff(row) > 0])
    program = np.arange(len(row)) - np.flatnonzero(first)[np.cumsum(first) - 1]
    order = np.lexsort((row, program, run[row]))
    row, program = row[order], program[order]
    columns: dict[str, NDArray[Any]] = {name: c[row] for name, c in w.columns.items()}
    others = program > 0
    columns["duration_s"][others] = 0.0
    labels = {**w.labels, "origin": ORIGINS}
    marks = np.array([ORIGINS.index(label) for label in w.labels["origin"]])[columns["origin"]]
    columns["origin"] = np.where(others, ORIGINS.index("generated"), marks)
    counters = {name: np.where(others, np.nan, c[row]) for name, c in w.counters.items()}
    meta = {**w.meta, "tokens_per_step": tokens}
    return Workload(w.name, columns, labels, w.steps, None, meta, counters, w.host)
