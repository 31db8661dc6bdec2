"""A static KV cache: so many slots, filled one by one, in place of a cache that grows.

A program that is replayed as a graph has to find every tensor where it was, so its cache has all
its slots from the start. With S slots, per sequence and layer,

    concatenation of keys (values) -> write of one token into its slot
    grouped heads                  -> keys (values) copied to every query head: heads x S x size
    attention                      -> all S slots, each query head its own keys and values, a mask

and around them small kernels: where to write, which slots are filled (once a step), the mask made
a bias (in each layer). FLOP and bytes of attention are S / n of those over n keys; its launch grid
grows by heads / KV heads. The copies are activations, no cache: attention reads as many of those.

Kernels, their order and their grids are those of transformers 5.17 with PyTorch 2.11
(``StaticLayer.update``, ``repeat_kv``, ``sdpa_mask``; a boolean mask in ``at::where``), found in
traces of CUDA graphs of PaddleOCR-VL and DeepSeek-OCR and the same in both. What chooses a token
and finds its position stays as traced, though a graph may be given both.

Source: huggingface/transformers, cache_utils.py, masking_utils.py, integrations/sdpa_attention.py;
pytorch/pytorch, aten/src/ATen/native/transformers/attention.cpp.

Left out: the host work of what is added (none is known: replay as graph or queue); kernels that go
with the grid, as the one that combines parts of the keys where heads alone fill the machine;
libraries whose attention groups heads under a mask, and so needs no copies; windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.transforms.growing import copies_of
from npusim.transforms.record import changed, changes, checked, lacks
from npusim.transforms.rows import Kernel, Row, Rows, kernel_row
from npusim.workload import BYTES_OF, Workload

SLOTS = "workload.static_cache"
PARAMETERS = (SLOTS,)
NEEDS = "decode attention whose KV cache grows by concatenation"
LIMIT = "the kernels are those of PyTorch and transformers; what is added takes no host work"
UNMEASURED = "decode attention under a mask, which no measured attention has"

_STRIDED = "elementwise_kernel<128, 4, at::native::gpu_kernel_impl_nocast<at::native::{}> >"
_VECTOR = "vectorized_elementwise_kernel<{}, at::native::{}, std::array<char*, {}ul> >"
_ARANGE = Kernel("elementwise_kernel_with_index<int, at::native::arange_cuda_out>",
                 "aten::arange", "fill", "indexed_fill", 64, 64)  # fmt: skip
_ADD = Kernel(_VECTOR.format(2, "CUDAFunctor_add<long>", 3),
              "aten::add", "pointwise", "vectorized", 1024)  # fmt: skip
_ADD_NUMBER = replace(_ADD, function=_VECTOR.format(2, "CUDAFunctorOnSelf_add<long>", 2))
_COMPARE = Kernel(_STRIDED.format("CompareFunctor<long>"),
                  "aten::le", "pointwise", "strided", 512)  # fmt: skip
_WRITE = Kernel("index_elementwise_kernel<128, 4, at::native::index_copy_kernel_impl>",
                "aten::index_copy_", "scatter", "index", 512)  # fmt: skip
_EXPAND = Kernel(_STRIDED.format("direct_copy_kernel_cuda"),
                 "aten::copy_", "copy", "strided", 512)  # fmt: skip
_FILL = Kernel(_VECTOR.format(8, "FillFunctor", 1), "aten::fill_", "fill", "fill", 1024)
_BIAS = Kernel(_STRIDED.format("where_kernel_impl"),
               "aten::where", "pointwise", "strided", 512)  # fmt: skip

_INDEX = 8.0  # bytes of an index


def static_cache(w: Workload, slots: float) -> Workload:
    """Return a decode workload with a static KV cache in place of one that grows.

    Parameters
    ----------
    w : Workload
    slots : float
        Keys that the cache has room for, rounded to a whole number: 1 to 1e9, and no fewer than
        attention is over.

    Returns
    -------
    Workload
        With other operations; ``meta["transforms"]`` says so. Measured times stay what they were,
        and are zero for what was not traced.

    Raises
    ------
    InputError
        Out of bounds, no cache that grows, fewer slots than keys, several lengths in one step,
        a static cache of another size, or dependencies beside the order of streams.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> static = static_cache(w, 692)
    >>> len(w) // 3, len(static) // 3
    (782, 933)
    >>> np.unique(static["n"][static.mask("kind", "attention")]).tolist()
    [692]
    """
    return transform(w, {SLOTS: slots})


def transform(w: Workload, settings: Mapping[str, float]) -> Workload:
    """Return a workload with a static cache as `PARAMETERS` say."""
    slots, before = int(np.rint(checked(settings)[SLOTS])), changes(w).get(SLOTS)
    if before == slots:
        return w
    if before is not None:
        raise InputError("has a static KV cache of another size", file=w.name, place=SLOTS,
                         value=slots, allowed=f"{before:g}",
                         hint="change the workload as it was traced")  # fmt: skip
    copies = copies_of(w)
    if not copies:
        raise lacks(w, NEEDS, SLOTS)
    _check(w, copies, slots)
    rows = Rows(w, SLOTS)
    step = -1
    for attention, (first, *rest) in copies.items():
        call = _Call(w, attention, slots)
        if w["step"][attention] != step:
            step = int(w["step"][attention])
            start = int(np.searchsorted(w["step"], step))
            rows.insert(start, _mask(call), layer=-1, stream=int(w["stream"][attention]))
        rows.insert(first, _position())
        for copy in (first, *rest):
            rows.replace(copy, _write(call, w["write_kv"][copy]))
        if call.is_grouped:
            rows.insert(attention, [_expand(call, w["write_kv"][i]) for i in (first, *rest)])
        rows.insert(attention, _bias(call))
        rows.change(attention, _attention(call, w))
    return changed(rows.workload(), {SLOTS: float(slots)}, {})


def touched(w: Workload) -> NDArray[np.bool_]:
    """Return which operations are attention over a cache that grows, or has been made static.

    Shape (K,).
    """
    if SLOTS in changes(w):
        all_slots: NDArray[np.bool_] = (w["n"] == changes(w)[SLOTS]) & (w["m"] <= 1)
        return all_slots & w.mask("kind", "attention")
    found = np.zeros(len(w), dtype=bool)
    found[list(copies_of(w))] = True
    return found


def present(w: Workload) -> dict[str, float]:
    """Return the slots of a cache that was made static; not-a-number where the cache grows."""
    return {SLOTS: changes(w).get(SLOTS, np.nan)}


def _check(w: Workload, copies: Mapping[int, Sequence[int]], slots: int) -> None:
    """Refuse a workload that cannot have a static cache of so many slots."""
    at = np.array(list(copies))
    for step in np.unique(w["step"][at]).tolist():
        keys = np.unique(w["n"][at[w["step"][at] == step]]).tolist()
        if len(keys) > 1:
            raise InputError("attention over different numbers of keys in one step", file=w.name,
                             place=SLOTS, value=f"{keys[0]} and {keys[-1]}",
                             hint="windows and cross-attention do not grow alike")  # fmt: skip
    most = int(w["n"][at].max())
    if slots < most:
        raise InputError("fewer slots than keys", file=w.name, place=SLOTS, value=slots,
                         allowed=f"{most} or more")  # fmt: skip
    odd = [len(rows) for rows in copies.values() if len(rows) != 2]
    if odd:
        raise InputError("attention whose cache does not grow by one copy of keys and one of "
                         "values", file=w.name, place=SLOTS, value=odd[0], allowed="2")  # fmt: skip


class _Call:
    """Shapes of one attention: with `slots` keys from now on, `keys` as traced."""

    def __init__(self, w: Workload, row: int, slots: int) -> None:
        self.row, self.slots, self.keys = row, slots, int(w["n"][row])
        self.batch, self.heads, self.size = (
            max(int(w[c][row]), 1) for c in ("batch", "heads", "k")
        )
        self.kv_heads = int(w["kv_heads"][row]) or self.heads
        self.dtype = w.labels["dtype"][w["dtype"][row]]
        self.element = BYTES_OF.get(self.dtype, 2.0)
        self.is_grouped = self.heads > self.kv_heads


def _position() -> list[Row]:
    """Return what finds the slot of a new token, and counts it."""
    return [_arange(1), _add(1), _add_number(1, "aten::add_")]


def _mask(call: _Call) -> list[Row]:
    """Return what finds the slots that are filled: position of key <= position of query."""
    slots = call.slots
    compare = kernel_row(_COMPARE, "int64", 1, slots, flop=slots, write_activation=slots,
                         read_activation=_INDEX * (slots + 1))  # fmt: skip
    return [_arange(call.batch), _arange(1), _arange(1), _add(1), _arange(slots),
            _add_number(slots, "aten::add"), compare]  # fmt: skip


def _write(call: _Call, cached: float) -> Row:
    """Return what writes the keys (values) of one token where `cached` bytes hold all [B]."""
    heads, size = call.batch * call.kv_heads, call.size
    return kernel_row(_WRITE, call.dtype, heads, size, write_kv=cached / call.keys,
                      read_activation=heads * size * call.element + _INDEX)  # fmt: skip


def _expand(call: _Call, cached: float) -> Row:
    """Return what copies keys (values) of all slots to every query head."""
    rows = call.batch * call.heads * call.slots
    return kernel_row(_EXPAND, call.dtype, rows, call.size, read_kv=cached / call.keys * call.slots,
                      write_activation=rows * call.size * call.element)  # fmt: skip


def _bias(call: _Call) -> list[Row]:
    """Return what makes 0 and minus infinity of the mask."""
    number = kernel_row(_FILL, call.dtype, 1, 1, write_activation=call.element)
    slots, biases = call.slots, call.batch * call.slots
    where = kernel_row(_BIAS, call.dtype, call.batch, slots, flop=biases,
                       read_activation=slots + 2 * call.element,
                       write_activation=biases * call.element)  # fmt: skip
    return [number, number, where]


def _attention(call: _Call, w: Workload) -> Row:
    """Return what changes of the attention."""
    i, longer = call.row, call.slots / call.keys
    bias = call.batch * call.slots * call.element
    row: Row = {"n": call.slots, "flop": w["flop"][i] * longer, "read_kv": w["read_kv"][i] * longer,
           "read_activation": w["read_activation"][i] + bias,
           "origin": "extrapolated"}  # fmt: skip
    if call.is_grouped:
        copied = 2.0 * call.batch * call.heads * call.slots * call.size * call.element
        blocks = np.ceil(w["blocks"][i] * call.heads / call.kv_heads)
        row |= {"kv_heads": call.heads, "blocks": blocks, "read_kv": 0.0,
                "read_activation": row["read_activation"] + copied}  # fmt: skip
    return row


def _arange(count: int) -> Row:
    return kernel_row(_ARANGE, "int64", 1, count, write_activation=_INDEX * count)


def _add(count: int) -> Row:
    """Return an addition of a number that lies on the device."""
    return kernel_row(_ADD, "int64", 1, count, flop=count, read_activation=_INDEX * (count + 1),
                      write_activation=_INDEX * count)  # fmt: skip


def _add_number(count: int, operator: str) -> Row:
    """Return an addition of a number that comes with the launch."""
    row = kernel_row(_ADD_NUMBER, "int64", 1, count, flop=count, read_activation=_INDEX * count,
                     write_activation=_INDEX * count)  # fmt: skip
    return {**row, "operator": operator}
