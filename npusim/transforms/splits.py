"""FlashDecoding: in how many parts the keys of decode attention are, which work side by side.

With P parts, B sequences, H query and G key heads of `size` numbers,

    attention:  launches B x G x P blocks; reads its keys once, whatever P, and does the same FLOP
    P > 1:      writes P x B x H x (size + 1) numbers in fp32 (results of parts, sums of softmax)
                in place of B x H x size, and a kernel combines what it reads of these
    P = 1:      writes its result; there is no kernel that combines

A launch grid of a trace tells its parts: PaddleOCR-VL at batch 1 launches 8 blocks for 1 x 2, so 4
parts, DeepSeek-OCR 80 for 1 x 10, so 8. Such a kernel is not held to them: where 0 parts are asked
for (as with the ``num_splits`` of flash-attention) the library chooses by the keys and the machine,
as it did in the trace. Any other number it takes on every machine and over any keys.

Where a workload lists whole calls (no launch grid), a call has that many parts and combines them
itself.

Source: T. Dao, D. Haziza, F. Massa, G. Sizov, "Flash-Decoding for long-context inference", 2023,
crfm.stanford.edu/2023/10/12/flashdecoding.html; ``num_splits`` and ``Flash_fwd_params`` in
github.com/Dao-AILab/flash-attention (csrc/flash_attn); launch grids of cuDNN in traces.

Left out: that more parts than tiles of keys are empty; that more query heads than a tile has rows
take more blocks (the model counts them); the host work of a kernel that comes (none is known),
while one that goes takes its own with it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.leave_out import leave_out
from npusim.transforms import context
from npusim.transforms.record import changed, changes, checked, lacks
from npusim.transforms.rows import Row, Rows
from npusim.transforms.widths import own_bits
from npusim.workload import Workload

SPLITS = "workload.attention_splits"
PARAMETERS = (SPLITS,)
NEEDS = "decode attention (one query a sequence)"
LIMIT = "attention has the parts asked for on every machine; a kernel that combines is cuDNN's"
UNMEASURED = "other parts of the keys than a library chooses, which no measured attention has"

_PART = 4.0  # bytes of a number of a part
_ATTENTION_THREADS = 128  # threads of a block of attention where a trace does not tell
_COMBINE_THREADS = 256  # of a block that combines, as cuDNN's, which takes one for each query head
_CUDNN = "void cudnn::fusion::lean_reduction_kernel<false, false, false>"
_FLASH = "void flash_fwd_splitkv_combine_kernel"


def split_keys(w: Workload, parts: float) -> Workload:
    """Return a workload whose decode attention has its keys in so many parts.

    Parameters
    ----------
    w : Workload
    parts : float
        1 to 128, rounded to a whole number; 0 leaves the choice to the library, as traced.

    Returns
    -------
    Workload
        ``meta["transforms"]`` says what was changed. Measured times stay what they were, and are
        zero for what was not traced.

    Raises
    ------
    InputError
        Out of bounds, no decode attention, parts that cannot be left to the library any more, or
        dependencies beside the order of streams where kernels have to come.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> one, eight = split_keys(w, 1), split_keys(w, 8)
    >>> [int(v["blocks"][v.mask("kind", "attention")][0]) for v in (w, one, eight)]
    [8, 2, 16]
    >>> [len(v) // 3 for v in (w, one, eight)]
    [782, 764, 782]
    """
    return transform(w, {SPLITS: parts})


def transform(w: Workload, settings: Mapping[str, float]) -> Workload:
    """Return a workload with parts of the keys as `PARAMETERS` say."""
    parts, at = int(np.rint(checked(settings)[SPLITS])), np.flatnonzero(touched(w))
    if not at.size:
        raise lacks(w, NEEDS, SPLITS)
    now = present(w)[SPLITS]
    if parts == now:
        return w
    if not parts:
        raise InputError("has parts that were asked for, and the library's choice is not kept",
                         file=w.name, place=SPLITS, value=0, allowed="1 or more",
                         hint="change the workload as it was traced")  # fmt: skip
    combines = _combines(w, at)
    rows, gone = Rows(w, SPLITS), np.zeros(len(w), dtype=bool)
    for attention in at.tolist():
        call, combine = _Call(w, attention), combines.get(attention)
        rows.change(attention, call.attention(parts))
        if combine is not None and parts > 1:
            rows.change(combine, call.combine(parts, "extrapolated"))
        elif combine is not None:
            gone[combine] = True
        elif parts > 1 and not call.is_call:
            rows.append(attention, call.combine(parts, "generated") | call.kernel())
    made = changed(rows.workload(), {SPLITS: float(parts)}, {})
    return leave_out(made, gone, "keys in one part") if gone.any() else made


def touched(w: Workload) -> NDArray[np.bool_]:
    """Return which operations are decode attention, under a mask or not; shape (K,)."""
    one = w.mask("kind", "attention") & (w["m"] <= 1) & (w["n"] > 0) & w.classified
    return context.touched(w) | (one & w.mask("phase", "decode"))


def present(w: Workload) -> dict[str, float]:
    """Return the parts that were asked for, 0 where they are left to the library."""
    return {SPLITS: changes(w).get(SPLITS, 0.0)}


def _combines(w: Workload, attention: NDArray[np.intp]) -> dict[int, int]:
    """Return for attention the kernel that combines its parts, where one follows it."""
    found: dict[int, int] = {}
    for combine in np.flatnonzero(w.mask("kind", "attention_combine") & w.classified).tolist():
        before = int(np.searchsorted(attention, combine)) - 1
        if before >= 0 and w["step"][attention[before]] == w["step"][combine]:
            found.setdefault(int(attention[before]), combine)
    return found


class _Call:
    """Shapes of one attention."""

    def __init__(self, w: Workload, row: int) -> None:
        self._w, self._row = w, row
        batch, heads, self._size = (max(int(w[c][row]), 1) for c in ("batch", "heads", "k"))
        kv_heads = int(w["kv_heads"][row]) or heads
        self._library = w.labels["library"][w["library"][row]]
        self._heads = batch * heads
        self._blocks = batch * kv_heads
        self._threads = int(w["threads"][row])
        is_asked = w.labels["routine"][w["routine"][row]] in ("split", "whole")
        self.is_call = not (self._threads if is_asked else w["blocks"][row])

    def attention(self, parts: int) -> Row:
        """Return what changes of the attention: threads tell a kernel from a whole call."""
        row: Row = {"routine": "split" if parts > 1 else "whole", "origin": "extrapolated",
                    "blocks": self._blocks * parts}  # fmt: skip
        if self.is_call:
            return row
        return {
            **row,
            "threads": self._threads or _ATTENTION_THREADS,
            "write_activation": self._written(parts),
        }

    def combine(self, parts: int, origin: str) -> Row:
        """Return what changes of the kernel that combines: it adds up each part of a result."""
        numbers = self._heads * self._size
        return {"k": parts, "flop": 2.0 * parts * numbers, "origin": origin,
                "read_activation": self._written(parts)}  # fmt: skip

    def kernel(self) -> Row:
        """Return the rest of such a kernel where there was none."""
        operator = self._w.labels["operator"][self._w["operator"][self._row]]
        kernel = _CUDNN if self._library == "cuDNN" else _FLASH
        return {"kernel": kernel, "operator": operator, "library": self._library, "routine": "",
                "kind": "attention_combine", "dtype": "fp32", "basis": "shape", "batch": 1,
                "m": 1, "n": self._heads * self._size, "blocks": self._heads,
                "threads": _COMBINE_THREADS, "write_activation": self._result}  # fmt: skip

    def _written(self, parts: int) -> float:
        """Return what attention writes: parts of results and their sums, or results [B]."""
        if parts == 1:
            return self._result
        return _PART * parts * self._heads * (self._size + 1)

    @property
    def _result(self) -> float:
        """Bytes of the results of all heads [B]."""
        bits = own_bits(self._w, np.array([self._row]))[0]
        return self._heads * self._size * float(bits) / 8.0
