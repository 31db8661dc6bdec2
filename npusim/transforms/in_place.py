"""A KV cache that is written in place: one token into memory that is there, not a copy of it all.

A cache that grows by concatenation is read and written whole in each step, once for its keys and
once for its values. In place, for B sequences, H key heads of `size` numbers and n keys,

    concatenation  reads and writes  B x H x size x n numbers
    write          reads and writes  B x H x size     numbers

so of every n bytes that such a copy moves one stays, and in its place on the host stands one copy
of the new keys (values) into a slice of a tensor that has room. The slice is not in one piece, so
the kernel is the strided copy, of 512 numbers a block. Attention and all else stay.

Source: ``DynamicLayer.update`` of huggingface/transformers (cache_utils.py), which concatenates;
``direct_copy_kernel_cuda`` of pytorch/pytorch (aten/src/ATen/native/cuda/Copy.cu, Loops.cuh).

Left out: how much room there is, and what making more of it takes once it is full; sequences of
unequal length, whose tokens go to different places (`npusim.transforms.pages`); that a token of one
head in one sequence is in one piece, for which the copy engine would do.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.transforms.growing import Token, copies_of, token, writes
from npusim.transforms.record import changed, checked, lacks
from npusim.transforms.rows import Kernel, Row, Rows, kernel_row
from npusim.workload import Workload

IN_PLACE = "workload.cache_in_place"
PARAMETERS = (IN_PLACE,)
NEEDS = "operation of a decode step that writes a KV cache"
LIMIT = "the cache has room for what is decoded; the host does for a write what it did for a copy"
UNMEASURED = ""  # the copy is a routine that was measured

_COPY = Kernel(
    "elementwise_kernel<128, 4, at::native::gpu_kernel_impl_nocast<"
    "at::native::direct_copy_kernel_cuda> >",
    "aten::copy_", "copy", "strided", 512,
)  # fmt: skip


def write_in_place(w: Workload) -> Workload:
    """Return a workload that writes the new token of a KV cache where it belongs.

    Returns
    -------
    Workload
        As many operations, in the same order; ``meta["transforms"]`` says what was changed.
        Measured times stay what they were, and are zero for what was not traced.

    Raises
    ------
    InputError
        No KV cache is written.

    Examples
    --------
    Two copies of 345,088 to 346,112 bytes in each of 18 layers become two of 512:

    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> [float(v["write_kv"].sum()) / 3 for v in (w, write_in_place(w))]
    [12441600.0, 18432.0]
    """
    return transform(w, {IN_PLACE: 1.0})


def transform(w: Workload, settings: Mapping[str, float]) -> Workload:
    """Return a workload with a cache as `PARAMETERS` say."""
    asked = bool(np.rint(checked(settings)[IN_PLACE]))
    if not touched(w).any():
        raise lacks(w, NEEDS, IN_PLACE)
    copies = copies_of(w)
    if asked == bool(present(w)[IN_PLACE]):
        return w
    if not asked:
        raise InputError("has a KV cache that is written in place, and what would copy it is not "
                         "known", file=w.name, place=IN_PLACE, value=0,
                         allowed="1", hint="change the workload as it was traced")  # fmt: skip
    rows = Rows(w, IN_PLACE)
    for attention, found in copies.items():
        for copy in found:
            rows.replace(copy, _write(token(w, attention, copy)))
    return changed(rows.workload(), {IN_PLACE: 1.0}, {})


def touched(w: Workload) -> NDArray[np.bool_]:
    """Return which operations copy a growing KV cache, or write one in place; shape (K,)."""
    found = writes(w)
    found[[i for copies in copies_of(w).values() for i in copies]] = True
    return found


def present(w: Workload) -> dict[str, float]:
    """Return whether no KV cache is copied as it is."""
    return {IN_PLACE: float(not copies_of(w))}


def _write(new: Token) -> Row:
    """Return what copies the keys (values) of one token of each sequence."""
    return kernel_row(_COPY, new.dtype, new.rows, new.size, read_activation=new.read,
                      write_kv=new.written)  # fmt: skip
