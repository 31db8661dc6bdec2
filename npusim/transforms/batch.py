"""Another batch: as many sequences in a decode step as asked for, each as it was.

In a step that decodes b sequences and is asked to decode B, with f = B / b,

    products of weights:  rows, FLOP and activations x f; weights stay; one row is a GEMV
    attention:            sequences, FLOP, KV bytes and activations x f
    experts:              rows, FLOP and activations x f; weights x h(B) / h(b)
    all else:             rows (or the length of one list), FLOP and bytes x f

but for what is there once for all sequences (`npusim.transforms.sequences`); t tokens hit h(t)
experts together (`npusim.transforms.routing`). Launch grids are those that the library starts for
the size (`npusim.transforms.grids`), and so are its routines where they go by the size: rows and a
parameter are combined by addresses for each element unless there is one row, more than 16 rows of
an embedding are gathered by wide loads, more than 32 numbers are sorted by digits. Grids of
products are not known: the library chooses their tiles anew.

Source: shapes; the operations of PaddleOCR-VL at batch 1, 8 and 32 and of DeepSeek-OCR at batch 1
and 16; routines as in aten/src/ATen/native/cuda (Loops.cuh, Indexing.cu, Sort.cu) of PyTorch.

Left out: kernels that come and go with the batch (what combines parts of the keys, second kernels
of long sorts), products that begin or cease to be split, concatenations of what is no longer in
one piece, sequences of unequal length. What has no shapes keeps its time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.transforms import context, weights
from npusim.transforms.grids import Size, grid, scaled
from npusim.transforms.record import changed, changes, checked, lacks
from npusim.transforms.routing import experts_hit
from npusim.transforms.sequences import PRODUCTS, Shares, element, shares
from npusim.workload import Workload

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

BATCH = "workload.batch"
PARAMETERS = (BATCH,)
NEEDS = context.NEEDS
LIMIT = "the kernels of a step are those of the trace, whatever its batch; sequences are alike"
UNMEASURED = ""  # the shapes of what was measured say how far they reach

_STATIC = "workload.static_cache"
_AMOUNTS = ("flop", "read_kv", "write_kv", "write_activation")
_SMALL_INDEX = 16  # rows of an embedding
_SMALL_SORT = 32  # numbers
_A_THREAD = 4  # elements of a gather by index
_SCALE = 16.0  # bits that a group of quantised weights shares


def set_batch(w: Workload, sequences: float) -> Workload:
    """Return a workload that decodes so many sequences in a step.

    Parameters
    ----------
    w : Workload
    sequences : float
        1 to 1e6, rounded to a whole number.

    Returns
    -------
    Workload
        ``meta["transforms"]`` says what was changed. Measured times stay what they were.

    Raises
    ------
    InputError
        Out of bounds, no decode attention or several batches of it, phases beside decode, experts
        that are not in grouped products, a cache that was made static before.

    Examples
    --------
    >>> import npusim as ns
    >>> w = set_batch(ns.load_workload("paddleocr_vl_decode"), 8)
    >>> traced = ns.load_workload("paddleocr_vl_decode_b8")
    >>> float(w["flop"].sum() / traced["flop"].sum())
    1.0
    """
    return transform(w, {BATCH: sequences})


def transform(w: Workload, settings: Mapping[str, float]) -> Workload:
    """Return a workload with a batch as `PARAMETERS` say."""
    wanted, own = float(np.rint(checked(settings)[BATCH])), sequences(w)
    if wanted == own:
        return w
    refuse_others(w, BATCH)
    return changed(w, {BATCH: wanted}, *grown(w, shares(w, own), own, wanted))


def grown(
    w: Workload, share: Shares, own: int, wanted: float
) -> tuple[dict[str, Array], dict[str, NDArray[np.object_]]]:
    """Return columns and label columns of a step that works on `wanted` rows in place of `own`."""
    shape = _shapes(w, share, own, wanted)
    routine = _routines(w, share, shape, own, wanted)
    columns = shape | _amounts(w, share, shape, own, wanted)
    columns |= _grids(w, share, shape, routine, own, wanted)
    kind = w.text("kind")
    products = w.mask("kind", *PRODUCTS) & share.follows
    single = (shape["m"] <= 1) & (shape["batch"] <= 1)
    kind[products] = np.where(single, "gemv", "gemm")[products]
    return columns, {"kind": kind, "routine": routine}


def touched(w: Workload) -> Mask:
    """Return which operations are decode attention, which says how many sequences there are.

    Shape (K,).
    """
    found = context.touched(w)
    if _STATIC in changes(w):  # where heads may have copies of keys and values
        found |= w.mask("kind", "attention") & (w["m"] <= 1) & w.classified
    return found


def present(w: Workload) -> dict[str, float]:
    """Return the sequences that most decode attention is over as it is."""
    return {BATCH: float(np.rint(np.median(w["batch"][touched(w)])))}


def sequences(w: Workload, place: str = BATCH) -> int:
    """Return how many sequences a step decodes; `place` is the setting that asks.

    Raises
    ------
    InputError
        No decode attention, or attention over different numbers of sequences.
    """
    found = np.unique(w["batch"][touched(w)]).tolist()
    if not found:
        raise lacks(w, NEEDS, place)
    if len(found) > 1 or found[0] < 1:
        raise InputError("attention over different or unknown numbers of sequences", file=w.name,
                         place=place, value=" and ".join(map(str, found)))  # fmt: skip
    return int(found[0])


def refuse_others(w: Workload, place: str) -> None:
    """Refuse a workload of which the rows of a step say less than what its kernels are."""
    others = w.mask("phase", "prefill", "encode")
    others |= w.mask("kind", "attention") & (w["m"] > 1) & w.classified
    if others.any():
        raise InputError("has phases beside decode, which have batches of their own", file=w.name,
                         place=place, hint="change a workload of decode steps alone")  # fmt: skip
    if _STATIC in changes(w):
        raise InputError("has a static KV cache for so many sequences as it is", file=w.name,
                         place=place, hint="set both at once, or the batch first")  # fmt: skip
    grouped = np.bincount(w["step"], w.mask("kind", "grouped_gemm"), len(w.steps))[w["step"]] > 0
    last = np.zeros(len(w.steps))  # product of weights: a top-k behind it samples
    linear = w.mask("kind", *PRODUCTS) & (w["read_weight"] > 0)
    np.maximum.at(last, w["step"][linear], np.flatnonzero(linear))
    routes = w.mask("kind", "topk") & (np.arange(len(w)) < last[w["step"]])
    if (routes & ~grouped).any():
        raise InputError("has a product for each expert: how many there are goes with the rows",
                         file=w.name, place=place, allowed="grouped products")  # fmt: skip


def _shapes(w: Workload, share: Shares, own: int, wanted: float) -> dict[str, Array]:
    """Return batch, m and n of all operations."""
    shape = {name: w[name].astype(np.float64) for name in ("batch", "m", "n")}
    alone = w.mask("kind", *PRODUCTS) & (w["read_weight"] == 0)
    batched = w.mask("kind", "attention") | alone & ((w["batch"] > 1) | (w["k"] == 1))
    batched &= share.follows
    rows = share.follows & ~batched & ~share.lists
    for name, grows in (("batch", batched), ("n", share.lists), ("m", rows)):
        grown = np.maximum(np.rint(shape[name] * wanted / own), np.minimum(shape[name], 1))
        shape[name][grows] = grown[grows]
    threads = np.maximum(w["threads"], 1)
    made = (share.routed > 0) & w.mask("kind", "fill")
    shape["n"][made] = (np.ceil(share.routed * wanted / own / threads) * threads)[made]
    read = (share.routed > 0) & w.mask("kind", "gather")  # what blocks may hold, as importers say
    most = np.ceil(shape["n"] / (_A_THREAD * threads)) * _A_THREAD * threads
    mean = np.rint(np.sqrt(np.maximum(most - _A_THREAD * threads + 1, 1) * most))
    found = np.rint(mean / np.maximum(shape["n"], 1))
    shape["m"][read] = np.maximum(found, 1)[read]
    return shape


def _amounts(
    w: Workload, share: Shares, shape: Mapping[str, Array], own: int, wanted: float
) -> dict[str, Array]:
    """Return FLOP and bytes of all operations."""
    listed = share.routed > 0
    to, of = np.where(share.follows, wanted, 1.0), np.where(share.follows, own, 1.0)
    to[listed], of[listed] = (shape["m"] * shape["n"])[listed], (w["m"] * w["n"])[listed]
    amounts = {name: w[name] * to / of for name in _AMOUNTS}  # in this order: whole bytes stay so
    amounts["read_activation"] = (w["read_activation"] - share.fixed) * to / of + share.fixed
    rows = np.where(w.mask("kind", "gather"), to / of, 1.0)  # of an embedding
    amounts["read_weight"] = w["read_weight"] * rows * _experts(w, own, wanted)
    return amounts


def _experts(w: Workload, own: int, wanted: float) -> Array:
    """Return how many times as many bytes of experts each operation reads, never more than all.

    A grouped product may have been taken to hit an expert with each of its rows.
    """
    before, now = experts_hit(w, own, own), changes(w)
    bits = now.get(weights.BITS, 8.0 * element(w))
    scales = _SCALE / now[weights.GROUP] if now.get(weights.GROUP) else 0.0
    every = w["groups"] * w["n"] * w["k"] * (bits + scales) / 8.0
    most = np.where(before > 1, every / np.maximum(w["read_weight"], 1.0), np.inf)
    return np.minimum(experts_hit(w, own, wanted) / before, np.maximum(most, 1.0))


def _routines(
    w: Workload, share: Shares, shape: Mapping[str, Array], own: int, wanted: float
) -> NDArray[np.object_]:
    """Return the routines that the library takes, by the size where they go by it."""
    routine, weighted = w.text("routine"), w["read_weight"] > 0
    everywhere = np.ones(len(w))
    for which, few, many, before, after in (
        (w.mask("kind", "gather") & weighted, "index_small", "gather_vectorized",
         everywhere * own > _SMALL_INDEX, everywhere * wanted > _SMALL_INDEX),
        (w.mask("kind", "sort"), "sort_bitonic", "sort_block",
         w["n"] > _SMALL_SORT, shape["n"] > _SMALL_SORT),
        (w.mask("kind", "pointwise") & weighted, "vectorized", "strided",
         w["m"] > 1, shape["m"] > 1),
    ):  # fmt: skip
        rows = share.follows & which & (before != after)
        rows &= routine == np.where(before, many, few)
        routine[rows] = np.where(after, many, few)[rows]
    return routine


def _grids(
    w: Workload, share: Shares, shape: Mapping[str, Array], routine: NDArray[np.object_],
    own: int, wanted: float,
) -> dict[str, Array]:  # fmt: skip
    """Return blocks and threads of all operations, none of products whose kernels are unknown."""
    blocks, threads = w["blocks"].astype(np.float64), w["threads"].astype(np.float64)
    traced, units = w.text("routine"), float(w.meta.get("units", np.inf))
    before, after = _size(w, w.columns, own, own, units), _size(w, shape, own, wanted, units)
    known = share.follows & (blocks > 0)
    for name in np.unique(routine[known]).tolist():
        rows = known & (routine == name) & (traced == name)
        launched = blocks[rows], threads[rows]
        blocks[rows], threads[rows] = scaled(name, launched, before.take(rows), after.take(rows))
        rows = known & (routine == name) & (traced != name)
        blocks[rows], threads[rows] = grid(name, after.take(rows))
    anew = share.follows & w.mask("kind", *PRODUCTS, "conv", "splitk_reduce")
    blocks[anew] = threads[anew] = 0
    return {"blocks": blocks, "threads": threads}


def _size(
    w: Workload, shape: Mapping[str, NDArray[Any]], own: int, wanted: float, units: float
) -> Size:
    """Return what all operations work on; rows of an embedding are sequences."""
    rows, length = (np.maximum(shape[c], 1).astype(np.float64) for c in ("m", "n"))
    rows *= np.maximum(shape["batch"], 1)
    embedding = w.mask("kind", "gather") & (w["read_weight"] > 0)
    length[embedding] *= rows[embedding] / wanted
    rows[embedding] = wanted
    results = (w["write_activation"] + w["write_kv"]) * wanted / own
    return Size(rows, length, element(w), results, units)
