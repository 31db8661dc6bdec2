"""What of a decode step there is once for each of its sequences, and what once for all of them.

Operations work on the sequences, in rows or in one list, but for these, found by what they are
beside what comes after them:

- tables of rotary positions: what comes before the first layer and is not as large as its input, if
  the product of positions and frequencies (reduction length 1) is of one row. Several rows (one a
  sequence, or three for text, height and width) are of the sequences; then what comes before that
  product stays, the positions themselves excepted;
- a cast right before a product that makes its weights;
- counts and offsets of experts: fills, scans and set-ups as long as there are experts;
- ``arange``, but for the lists of rows that go to grouped products;
- fills by the copy engine for a product's semaphores, scalars that the host reads.

Of what an operation reads, a scalar of 8 bytes, a table that all rows share, the frequencies, a
copy's single element and the second operand of a product in one batch are the same for all.

Source: the operations of PaddleOCR-VL at batch 1, 8 and 32 and of DeepSeek-OCR at 1 and 16, one by
one (workloads/paddleocr_vl_decode*, workloads/deepseek_ocr_decode_grouped*).

Left out: positions of a batch of one that would differ in a larger one (``position_ids`` with a
row a sequence); padding of rows to what a kernel asks for; as many sequences as the product behind
a cast of its input has columns, where that cast is taken for one of its weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.workload import BYTES_OF, Workload

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]

PRODUCTS = ("gemv", "gemm")
_ALL_PRODUCTS = (*PRODUCTS, "grouped_gemm", "conv")
_ONE_ROW = ("memcpy", "memset", "splitk_reduce", "attention_combine", "collective")
INTEGERS = ("int64", "int32")
_TO_HOST = ("aten::_local_scalar_dense", "aten::item")
_SCALAR = 8.0  # bytes


@dataclass(frozen=True)
class Shares:
    """What of K operations follows the number of sequences, each (K,).

    Attributes
    ----------
    follows : array of bool
        Whether it works on the sequences.
    lists : array of bool
        Whether it works on one row of all of them.
    routed : array
        Rows of a grouped product where it makes or reads a list of them whose length its launch
        grid alone tells, else 0.
    fixed : array
        Activations that it reads whatever the number of sequences [B].
    """

    follows: Mask
    lists: Mask
    routed: Array
    fixed: Array


def shares(w: Workload, sequences: int, apart: bool = False) -> Shares:
    """Return what of each operation of a decode step follows the number of its sequences.

    Parameters
    ----------
    w : Workload
    sequences : int
        How many the workload decodes in a step.
    apart : bool
        Whether each has a position of its own in any case, as tokens of one sequence do.

    Examples
    --------
    Of the 782 operations of a step, three are the same for any batch:

    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> stays = ~shares(w, 1).follows[w["step"] == 0]
    >>> w.text("operator")[:782][stays].tolist()
    ['aten::arange', 'aten::add', 'aten::copy_']
    """
    step = _Steps(w)
    fixed = _fixed(w)
    follows = w.classified & ~_once(w, step)
    tables = _tables(w, step, sequences, follows, fixed, apart)
    routed = _routed(w, step) * follows
    follows &= (routed > 0) | ~_grid_alone(w, "fill")
    _share_tables(w, tables, fixed)
    integers = w.mask("dtype", *INTEGERS) & (w["m"] <= 1) & (w["n"] > 1)
    lists = w.mask("kind", *_ONE_ROW) | integers | (routed > 0)
    return Shares(follows, lists & follows, routed, fixed)


class _Steps:
    """Which product of weights and which grouped product operations belong to; -1: none."""

    def __init__(self, w: Workload) -> None:
        products = np.flatnonzero(w.mask("kind", *PRODUCTS) & (w["read_weight"] > 0) & w.classified)
        grouped = np.flatnonzero(w.mask("kind", "grouped_gemm") & w.classified)
        here, step = np.arange(len(w)), w["step"]
        self.products = _in_step(step, products, np.searchsorted(products, here))
        behind = np.searchsorted(grouped, here)
        self.grouped = _in_step(step, grouped, behind)
        last = _in_step(step, grouped, behind - 1)
        self.grouped[self.grouped < 0] = last[self.grouped < 0]
        self.is_behind = _in_step(step, products, np.searchsorted(products, here) - 1) >= 0


def _in_step(step: NDArray[np.int64], found: Index, number: Index) -> Index:
    """Return the operation of each number among those found, -1 where it is of another step."""
    exists = (number >= 0) & (number < found.size)
    at = found[np.clip(number, 0, found.size - 1)] if found.size else np.zeros_like(number)
    return np.where(exists & (step[at] == step), at, -1)


def element(w: Workload) -> Array:
    """Return the bytes of a number of each operation's type, shape (K,) [B]."""
    wide = {**BYTES_OF, "int64": 8.0, "int32": 4.0, "uint8": 1.0, "bool": 1.0}
    by_label = np.array([wide.get(label, 2.0) for label in w.labels["dtype"]])
    sizes: Array = by_label[w["dtype"]]
    return sizes


def elements(w: Workload) -> Array:
    """Return the elements of each operation's shape, shape (K,)."""
    count: Array = np.prod([np.maximum(w[c], 1) for c in ("batch", "m", "n")], axis=0, dtype=float)
    return count


def _once(w: Workload, step: _Steps) -> Mask:
    """Return what does the same for any number of sequences, tables of positions aside."""
    experts = np.where(step.grouped >= 0, w["groups"][step.grouped], -1)
    counts = w.mask("kind", "fill", "scan") & w.mask("dtype", *INTEGERS) & (w["m"] <= 1)
    counts &= ~_grid_alone(w, "fill")
    of_experts = (counts | w.mask("kind", "setup")) & (w["n"] == experts)
    launchers = set(w.text("operator")[w.mask("kind", *_ALL_PRODUCTS)])
    semaphores = w.mask("kind", "memset") & w.mask("operator", *launchers)
    once: Mask = _makes_weights(w, step) | of_experts | semaphores | w.mask("operator", *_TO_HOST)
    return once


def _makes_weights(w: Workload, step: _Steps) -> Mask:
    """Return casts right before a product that are as large as its weights, the last of each.

    One before may be that of its input, which is as large where there are as many sequences as
    columns.
    """
    casts: Mask = w.mask("kind", "cast", "copy")
    others, here = np.flatnonzero(~casts), np.arange(len(w))
    at = _in_step(w["step"], others, np.searchsorted(others, here))
    weights = w["n"] * w["k"] * element(w)
    makes: Mask = casts & (at >= 0) & (at == step.products) & (w["write_activation"] == weights[at])
    owner = np.full(len(w), -1)
    owner[at[makes]] = here[makes]  # the last one counts
    makes &= owner[at] == here
    return makes


def _grid_alone(w: Workload, kind: str) -> Mask:
    """Return operations of a kind whose size the launch grid alone tells."""
    found: Mask = w.mask("kind", kind) & w.mask("basis", "launch")
    return found & w.mask("routine", "", "indexed_fill", "index")


def _routed(w: Workload, step: _Steps) -> Array:
    """Return the rows of a grouped product where an operation makes or reads their list."""
    rows = np.where(step.grouped >= 0, w["m"][step.grouped], 0)
    threads = np.maximum(w["threads"], 1)
    made = _grid_alone(w, "fill") & (w["n"] == -(-rows // threads) * threads)
    read = _grid_alone(w, "gather") & (w["n"] == rows)
    listed = (made | read) & step.is_behind & (rows > 0)
    return np.where(listed, rows, 0).astype(np.float64)


def _fixed(w: Workload) -> Array:
    """Return the activations that are read whatever the number of sequences, tables aside [B]."""
    read, item = w["read_activation"], element(w)
    fixed = np.zeros(len(w))
    broadcast = w.mask("routine", "strided", "strided_4d", "strided_5d", "strided_cast")
    scalar = w.mask("kind", "pointwise") & ~broadcast
    fixed[scalar & (read - w["write_activation"] == _SCALAR)] = _SCALAR
    single = w.mask("kind", "cast", "copy") & (read <= _SCALAR) & (read % elements(w) != 0)
    fixed[single] = read[single]
    plain = w.mask("kind", *PRODUCTS) & (w["read_weight"] == 0) & (w["batch"] <= 1) & (w["k"] > 1)
    fixed[plain] = np.minimum(read, w["k"] * w["n"] * item)[plain]
    return fixed


def _tables(
    w: Workload, step: _Steps, sequences: int, follows: Mask, fixed: Array, apart: bool
) -> list[tuple[int, int, float]]:
    """Take tables of positions out of what follows the sequences, and frequencies out of reads.

    Returns
    -------
    list of (int, int, float)
        Operations from where to where read tables that all sequences share, and their size [B].
    """
    outer = w.mask("kind", *PRODUCTS) & (w["read_weight"] == 0) & (w["k"] == 1) & w.classified
    at, size, shared = np.flatnonzero(outer), elements(w), []
    _, first = np.unique(w["step"][at], return_index=True)
    for p in at[first].tolist():
        layer = int(step.products[p])
        if layer < 0:
            continue
        start, end = np.searchsorted(w["step"], w["step"][p] + np.array([0, 1])).tolist()
        inputs = float(w["m"][layer] * w["k"][layer])
        layer = next((i for i in range(p + 1, layer) if size[i] == inputs), layer)
        tables = np.arange(start, layer)
        tables = tables[(w["read_weight"][tables] == 0) & (size[tables] != inputs)]
        positions = int(w["batch"][p] * w["n"][p])
        if not apart and (positions <= 1 or positions % sequences):
            follows[tables] = False
            shared.append((layer, end, float(w["write_activation"][layer - 1])))
        else:
            before = tables[tables < p]
            follows[before] &= size[before] == positions
            fixed[p] = min(w["m"][p] * element(w)[p], w["read_activation"][p])
    return shared


def _share_tables(w: Workload, shared: list[tuple[int, int, float]], fixed: Array) -> None:
    """Put tables as long as a row of what they are combined with into what is read in any case."""
    beside, row = w["read_activation"] - w["write_activation"], w["n"] * element(w)
    for layer, end, table in shared:
        rows = np.arange(len(w)) >= layer
        rows[end:] = False
        rows &= w.mask("kind", "pointwise") & (beside == table) & (row == table)
        fixed[rows & (w["write_activation"] > table)] = table
