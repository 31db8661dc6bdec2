"""Fewer (or more) key heads: grouped-query attention, multi-query with one, in place of a model's.

Where H query heads share G key heads and are asked to share g,

    attention:        KV bytes (keys and values, where none are cached) x g / G
    k, v products:    columns, FLOP, weights and results x g / G
    one for q, k, v:  the same x (H + 2 g) / (H + 2 G)
    kernels on k, v:  rows, FLOP and bytes x g / G, tables of positions and weights of norms stay
    on q and k both:  the same x (H + g) / (H + G)

FLOP of attention stay, as do queries, results and the product behind attention. Launch grids are
those that the library starts for the size (`npusim.transforms.grids`), those of products not known.

A trace does not say what is a key. The products right before an attention are taken for those of
its queries, keys and values: three as wide as its heads say, or one as wide as all. Of what lies
between them and attention, that on as many rows as there are tokens times key heads is of keys or
values (but for integers), and so is all that moves KV cache; on both where the rows are those of
all these heads. With as many key as query heads the
widths say nothing: then q comes first, k and v behind it, and of a sequence of kernels that comes
twice the first is q's, as transformers issues them.

Source: J. Ainslie et al., "GQA: training generalized multi-query transformer models from multi-head
checkpoints", EMNLP 2023, arXiv:2305.13245; N. Shazeer, "Fast transformer decoding: one write-head
is all you need", 2019, arXiv:1911.02150; order as in huggingface/transformers, ``LlamaAttention``.

Left out: what other heads do to the answers of the model, which has to be trained with them;
kernels that come and go (how many parts keys are split into, what combines them, copies for all
query heads); latent caches; vision encoders.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.transforms.grids import Size, scaled
from npusim.transforms.record import changed, changes, checked, lacks
from npusim.transforms.sequences import INTEGERS, PRODUCTS, element
from npusim.workload import Workload

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]

HEADS = "workload.kv_heads"
PARAMETERS = (HEADS,)
NEEDS = "attention of a prefill or decode step that says how many key heads there are"
LIMIT = "the kernels of a step are those of the trace; other heads are another, trained model"
UNMEASURED = ""  # the shapes of what was measured say how far they reach

_SLOT = 8.0  # bytes of the number of a token's slot
_MOVED = ("flop", "read_kv", "write_kv", "write_activation")


def group_heads(w: Workload, kv_heads: float) -> Workload:
    """Return a workload whose query heads share so many key heads.

    Parameters
    ----------
    w : Workload
    kv_heads : float
        Rounded to a whole number that divides the query heads; 1 is multi-query attention.

    Returns
    -------
    Workload
        ``meta["transforms"]`` says what was changed. Measured times stay what they were.

    Raises
    ------
    InputError
        Out of bounds, heads that do not divide, no attention with heads, products or kernels of
        queries, keys and values that cannot be told apart, a cache that was made static before.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")  # 16 query heads, 2 key heads, 18 layers
    >>> one = group_heads(w, 1)
    >>> float(one["read_kv"].sum() / w["read_kv"].sum())
    0.5
    >>> float((w["read_weight"] - one["read_weight"])[w["step"] == 0].sum()) / (2 * 128 * 1024 * 2)
    18.0
    """
    return transform(w, {HEADS: kv_heads})


def transform(w: Workload, settings: Mapping[str, float]) -> Workload:
    """Return a workload with key heads as `PARAMETERS` say."""
    wanted, calls = int(np.rint(checked(settings)[HEADS])), np.flatnonzero(touched(w))
    if not calls.size:
        raise lacks(w, NEEDS, HEADS)
    if (w["kv_heads"][calls] == wanted).all():
        return w
    if "workload.static_cache" in changes(w):
        raise InputError("has a static KV cache for the heads as they are", file=w.name,
                         place=HEADS, hint="set both at once, or the heads first")  # fmt: skip
    _check_divide(w, calls, wanted)
    made = _Changed(w, wanted)
    previous = np.concatenate([[-1], calls[:-1]])
    start = np.maximum(np.searchsorted(w["step"], w["step"][calls]), previous + 1)
    for call, first in zip(calls.tolist(), start.tolist(), strict=True):
        made.layer(_Layer(w, first, call))
    return changed(w, {HEADS: float(wanted)}, made.columns())


def touched(w: Workload) -> Mask:
    """Return which operations are attention with key heads, encoders' left out, shape (K,)."""
    heads = (w["heads"] > 0) & (w["kv_heads"] > 0) & w.classified
    return w.mask("kind", "attention") & w.mask("phase", "prefill", "decode", "unknown") & heads


def present(w: Workload) -> dict[str, float]:
    """Return the key heads of most attention as it is."""
    return {HEADS: float(np.rint(np.median(w["kv_heads"][touched(w)])))}


def _check_divide(w: Workload, calls: Index, wanted: int) -> None:
    """Refuse key heads that the query heads of some attention cannot share evenly."""
    heads = int(w["heads"][calls[np.argmax(w["heads"][calls] % wanted)]])
    if heads % wanted:
        fit = ", ".join(str(g) for g in range(1, heads + 1) if heads % g == 0)
        raise InputError(f"does not divide {heads} query heads", file=w.name, place=HEADS,
                         value=wanted, allowed=fit)  # fmt: skip


class _Layer:
    """What of the operations before an attention is of its keys and values.

    Attributes
    ----------
    call : int
        The attention.
    products : list of int
        Products of keys and values, or the one of queries, keys and values.
    is_fused : bool
    rows : list of int
        Kernels on keys and values, and what moves their cache.
    both : list of int
        Kernels on queries and keys together.
    """

    def __init__(self, w: Workload, start: int, call: int) -> None:
        self._w, self.call = w, call
        self.heads, self.own, self.size, batch, queries = (
            max(int(w[c][call]), 1) for c in ("heads", "kv_heads", "k", "batch", "m")
        )
        self.tokens = batch * queries
        here = slice(start, call)
        linear = w.mask("kind", *PRODUCTS)[here] & (w["read_weight"][here] > 0)
        found = start + np.flatnonzero(linear & w.classified[here])
        self.products, self.is_fused = self._products(found[-3:].tolist())
        between = np.arange(self.products[0] + 1, call)
        between = between[~np.isin(between, found) & w.classified[between]]
        self.rows, self.both = self._kernels(between)

    def _products(self, last: list[int]) -> tuple[list[int], bool]:
        """Return the products of keys and values among the last three, and whether they are one."""
        w, size = self._w, self.size
        widths = [int(w["n"][i]) for i in last if w["m"][i] * max(w["batch"][i], 1) == self.tokens]
        if widths and widths[-1] == (self.heads + 2 * self.own) * size:
            return last[-1:], True
        narrow, wide = self.own * size, self.heads * size
        alike = len({int(w["k"][i]) for i in last}) == 1
        if alike and sorted(widths) == sorted([wide, narrow, narrow]):
            if wide == narrow:
                return last[1:], False
            return [i for i in last if w["n"][i] == narrow], False
        raise InputError("products before attention that are not those of its queries, keys and "
                         "values", file=w.name, place=f"row {self.call}, {HEADS}",
                         value=", ".join(f"{w['m'][i]} x {w['n'][i]}" for i in last) or "none",
                         allowed=f"{wide}, {narrow} and {narrow} columns, or {wide + 2 * narrow}, "
                         f"of {self.tokens} rows")  # fmt: skip

    def _kernels(self, between: Index) -> tuple[list[int], list[int]]:
        """Return kernels on keys and values, and those on queries and keys together."""
        w = self._w
        cached = (w["read_kv"] + w["write_kv"])[between] > 0
        rows, n = (np.maximum(w["batch"], 1) * w["m"])[between], w["n"][between]
        alike = (rows == self.tokens * self.own) & (n <= self.size)
        alike |= (rows == self.tokens) & (n == self.own * self.size)
        after = w.mask("kind", "splitk_reduce")[between] & np.isin(between - 1, self.products)
        both = (rows == self.tokens * (self.heads + self.own)) & (n <= self.size)
        numbers = ~cached & ~after & ~w.mask("dtype", *INTEGERS)[between]
        chosen = between[alike & numbers].tolist()
        if self.own == self.heads:
            chosen = self._behind_queries(chosen)
        rest = between[cached | after].tolist()
        return sorted([*rest, *chosen]), between[both & numbers].tolist()

    def _behind_queries(self, alike: list[int]) -> list[int]:
        """Return those on keys and values where kernels on queries have the same shapes.

        What lies between the products of keys and values is of keys; concatenations of whole rows
        begin a cache; of a sequence of kernels that comes twice the first is on queries.
        """
        w, last = self._w, self.products[-1]
        whole = w.mask("kind", "cat") & (w["n"] == self.size)
        open_ = [i for i in alike if i > last and not whole[i]]
        names = ("kind", "operator", "m", "n")
        what = [tuple(int(w[c][i]) for c in names) for i in open_]
        half = next((h for h in range(len(what) // 2, 0, -1) if what[:h] == what[h : 2 * h]), 0)
        if open_ and not half:
            raise InputError("kernels before attention that may be of queries or of keys",
                             file=w.name, place=f"row {open_[0]}, {HEADS}",
                             value=w.text("kernel")[open_[0]],
                             allowed="the same kernels on queries, then on keys")  # fmt: skip
        return [i for i in alike if i not in open_[:half]]


class _Changed:
    """Columns of a workload in which layers get other key heads, one after another."""

    def __init__(self, w: Workload, wanted: int) -> None:
        self.w, self.wanted = w, wanted
        names = (*_MOVED, "read_weight", "read_activation", "m", "n", "kv_heads", "blocks",
                 "threads")  # fmt: skip
        self._columns = {name: self.w[name].astype(np.float64) for name in names}
        self._element = element(self.w)
        self._units = float(self.w.meta.get("units", np.inf))
        self._routine = self.w.text("routine")
        times = [name for name in w.labels["kernel"] if name.startswith("mul ")]
        self._multiplies = w.mask("operator", "aten::mul", "aten::mul_") | w.mask("kernel", *times)
        self._adds_parts = self.w.mask("kind", "splitk_reduce")

    def columns(self) -> dict[str, Array]:
        """Return the columns that have changed."""
        return self._columns

    def layer(self, layer: _Layer) -> None:
        """Change one."""
        factor = self.wanted / layer.own
        of_product = factor
        if layer.is_fused:
            of_product = (layer.heads + 2 * self.wanted) / (layer.heads + 2 * layer.own)
        for i in layer.products:
            self._scale(i, of_product, "n", "read_weight")
            self._forget_grid(i)
        for i in layer.rows:
            if self._adds_parts[i]:
                self._scale(i, of_product, "n", "read_activation")
                self._forget_grid(i)
            else:
                self._kernel(layer, i, factor)
        of_both = (layer.heads + self.wanted) / (layer.heads + layer.own)
        for i in layer.both:
            self._kernel(layer, i, of_both)
        self._attention(layer, factor)

    def _scale(self, i: int, factor: float, *more: str) -> None:
        for name in (*_MOVED, *more):
            self._columns[name][i] *= factor

    def _forget_grid(self, i: int) -> None:
        self._columns["blocks"][i] = self._columns["threads"][i] = 0

    def _kernel(self, layer: _Layer, i: int, factor: float) -> None:
        """Change a kernel on keys or values; what all heads share is read as before."""
        columns, before, shared = self._columns, self._size(i), self._shared(layer, i)
        wide = layer.own > 1 and columns["n"][i] == layer.own * layer.size
        along = "n" if wide else "m"
        self._scale(i, factor)
        columns[along][i] = max(np.rint(columns[along][i] * factor), 1.0)
        read = columns["read_activation"]
        read[i] = (read[i] - shared) * factor + shared
        if columns["blocks"][i] > 0:
            launched = tuple(columns[c][[i]] for c in ("blocks", "threads"))
            grid = scaled(self._routine[i], (launched[0], launched[1]), before, self._size(i))
            columns["blocks"][i], columns["threads"][i] = (x.item() for x in grid)

    def _shared(self, layer: _Layer, i: int) -> float:
        """Return what a kernel reads for all heads: a row of positions (or one a token), slots [B].

        What adds two operands reads as much beside its result as a table has, if there is one head.
        """
        w, row, slots = self.w, layer.size * self._element[i], _SLOT * layer.tokens
        written = w["write_activation"][i] + (0.0 if w["read_kv"][i] else w["write_kv"][i])
        beside = w["read_activation"][i] - written
        tables = {0.0, row, row * layer.tokens}
        known = beside in tables | {table + slots for table in tables}
        is_shared = known and (beside < written or bool(self._multiplies[i]))
        return float(beside) if is_shared else 0.0

    def _size(self, i: int) -> Size:
        """Return what a kernel works on, as its columns are now."""
        columns = self._columns
        rows = max(int(self.w["batch"][i]), 1) * columns["m"][[i]]
        results = columns["write_activation"][[i]] + columns["write_kv"][[i]]
        return Size(np.maximum(rows, 1.0), np.maximum(columns["n"][[i]], 1.0),
                    self._element[[i]], results, self._units)  # fmt: skip

    def _attention(self, layer: _Layer, factor: float) -> None:
        """Change an attention: what it reads of keys and values, and a grid that goes by them."""
        i, columns, w = layer.call, self._columns, self.w
        columns["kv_heads"][i] = self.wanted
        columns["read_kv"][i] *= factor
        if w["read_kv"][i] == 0:  # keys and values come from where they were made
            keys = max(int(w["batch"][i]), 1) * layer.own * w["n"][i] * layer.size
            read = min(2.0 * keys * self._element[i], columns["read_activation"][i])
            columns["read_activation"][i] -= read * (1.0 - factor)
        if w["m"][i] <= 1:  # a block for each key head and part of the keys
            columns["blocks"][i] = np.ceil(columns["blocks"][i] * factor)
