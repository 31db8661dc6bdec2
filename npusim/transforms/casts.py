"""Fewer casts: what changes the type of numbers alone is done by the kernels beside it.

A cast from a narrow type (R bytes) to a wide one (W bytes) and one back are folded where sizes
leave no doubt who reads and who wrote the wide copy:

    narrow -> wide   all that reads the copy loads R bytes and widens in registers, not W
    wide -> narrow   what wrote the wide numbers stores W bytes, narrowed in registers, not R

with R and W those that the cast reads and writes. So a cast takes its launch, R + W bytes and, of
each kernel beside it, the bytes in between with it. No number changes: a register rounds as the
cast did, and arithmetic stays in the type it is in.

- Widening casts right before an operation that reads, beside weights of its own, just what they
  wrote; one of them may make the weights of a product. Of one cast alone, later operations in its
  type may read the copy again: those that read as much, and more than what has been made since and
  not been read. So a norm, which squares its input and later scales it, loads the narrow one twice.
- Narrowing casts, one or several alike, right behind an operation that wrote what one reads; the
  others take operations of the same operator and size not long before it. What is narrowed is
  taken to be read by nothing else.

All 78 casts of a decode step of PaddleOCR-VL go so, and 85 of the 98 of DeepSeek-OCR, whose routers
read 163,840 bytes of weights in place of a cast of them and 327,680.

Source: types as the memory policies of pytorch/pytorch's kernels convert them (``LoadWithCast`` and
``StoreWithCast`` of aten/src/ATen/native/cuda/MemoryAccess.cuh); RMSNorm and routers as in
huggingface/transformers (modeling_deepseek_v2.py).

Left out: that PyTorch's own kernels for types known at run time alone are slower (a kernel keeps
its routine here, as one compiled for both types does); rotary embeddings in fp32, whose parts sizes
do not tell apart; arithmetic in the narrow type, which would change numbers; weights that are
quantised in a later change than their cast is folded (set both at once).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.leave_out import leave_out
from npusim.transforms.record import changed, changes, checked, lacks
from npusim.workload import Workload

CASTS = "workload.casts"
PARAMETERS = (CASTS,)
NEEDS = "cast beside a kernel that can load or store its type"
LIMIT = "kernels that load or store another type take as long as before for each byte"
UNMEASURED = "kernels that load or store another type than they compute in"

_PRODUCTS = ("gemv", "gemm", "grouped_gemm", "conv")
_CONVERT = (  # kinds that pass numbers through registers
    *_PRODUCTS, "pointwise", "activation", "reduction", "softmax", "norm", "rope", "cat", "gather",
    "copy", "splitk_reduce", "attention_combine",
)  # fmt: skip
_SCALAR = 8.0  # bytes of a number that comes as a tensor
_NEAR = 16  # operations that are looked back at for what wrote something
_READS = ("read_weight", "read_kv", "read_activation")


def fold_casts(w: Workload) -> Workload:
    """Return a workload whose kernels load and store the types that casts beside them made.

    Returns
    -------
    Workload
        Without these casts; the host work before their launches is gone with them.

    Raises
    ------
    InputError
        There is no such cast.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> [int(v.mask("kind", "cast").sum()) // 3 for v in (w, fold_casts(w))]
    [78, 0]
    """
    return transform(w, {CASTS: 0.0})


def transform(w: Workload, settings: Mapping[str, float]) -> Workload:
    """Return a workload with casts as `PARAMETERS` say."""
    asked, now = float(np.rint(checked(settings)[CASTS])), present(w)[CASTS]
    if not touched(w).any():
        raise lacks(w, NEEDS, CASTS)
    if asked == now:
        return w
    if asked:
        raise InputError("has its casts in the kernels beside them", file=w.name, place=CASTS,
                         value=1, allowed="0",
                         hint="change the workload as it was traced")  # fmt: skip
    folds = _folds(w)
    columns = {name: w[name].copy() for name in ("write_activation", *_READS)}
    for fold in folds.values():
        for name, at, less in fold:
            columns[name][at] -= less
    gone = np.zeros(len(w), dtype=bool)
    gone[list(folds)] = True
    folded = changed(w, {CASTS: 0.0}, columns, origin="extrapolated")
    return leave_out(folded, gone, "casts done by the kernels beside them")


def touched(w: Workload) -> NDArray[np.bool_]:
    """Return which casts can be folded, or which operations may have had one folded into them.

    Shape (K,).
    """
    if CASTS in changes(w):
        return w.mask("kind", *_CONVERT) & w.classified
    found = np.zeros(len(w), dtype=bool)
    found[list(_folds(w))] = True
    return found


def present(w: Workload) -> dict[str, float]:
    """Return 1 where casts are kernels of their own as traced, 0 where they were folded."""
    return {CASTS: changes(w).get(CASTS, 1.0)}


# What a cast that is folded takes: column, operation and bytes, of each operation that changes.
_Fold = list[tuple[str, int, float]]


def _folds(w: Workload) -> dict[int, _Fold]:
    """Return the casts that can be folded and what each takes of the operations beside it."""
    step = _Step(w)
    found: dict[int, _Fold] = {}
    for group in step.groups():
        if step.write[group[0]] > step.read[group[0]]:
            found |= step.into_readers(group)
        else:
            found |= step.into_writers(group)
    return found


class _Step:
    """Operations in order, with what of each the search for readers and writers looks at."""

    def __init__(self, w: Workload) -> None:
        self._w = w
        self.read = np.sum([w[name] for name in _READS], axis=0)
        self.write = w["write_activation"]
        self._converts = w.mask("kind", *_CONVERT) & w.classified & (w["write_kv"] == 0)
        self._where = list(zip(w["step"].tolist(), w["stream"].tolist(), strict=True))
        self._casts = w.mask("kind", "cast") & w.classified & ~w["sync"] & (self.read > 0)
        self._written: set[int] = set()  # operations that store another type by now

    def groups(self) -> Iterator[list[int]]:
        """Yield casts that follow on each other: all that widen, or as many as are alike."""
        group: list[int] = []
        for i in np.flatnonzero(self._casts).tolist():
            if group and not self._together(group[-1], i):
                yield group
                group = []
            group.append(i)
        if group:
            yield group

    def _together(self, i: int, j: int) -> bool:
        if j != i + 1 or self._where[i] != self._where[j]:
            return False
        widens = [self.write[x] > self.read[x] for x in (i, j)]
        alike = (self.read[i], self.write[i]) == (self.read[j], self.write[j])
        return bool(widens[0] and widens[1]) or (not any(widens) and alike)

    def into_readers(self, group: list[int]) -> dict[int, _Fold]:
        """Return what widening casts take of the operations that read what they write."""
        reader = group[-1] + 1
        if reader >= len(self._w) or self._where[reader] != self._where[group[0]]:
            return {}
        if not self._converts[reader]:
            return {}
        weights = next((i for i in reversed(group) if self._makes_weights(i, reader)), None)
        rest = float(self._w["read_activation"][reader])
        rest -= float(sum(self.write[i] for i in group if i != weights))
        if rest not in (0.0, _SCALAR):
            return {}
        found: dict[int, _Fold] = {}
        for i in group:
            less = float(self.write[i] - self.read[i])
            if i == weights:  # which may be kept in fewer bits by now
                whole = self._w["read_weight"][reader] == self.write[i]
                found[i] = [("read_weight", reader, less if whole else 0.0)]
            else:
                found[i] = [("read_activation", reader, less)]
        if len(group) == 1 and weights is None:
            found[group[0]] += self._again(group[0], reader)
        return found

    def _makes_weights(self, i: int, product: int) -> bool:
        w = self._w
        elements = np.prod([max(int(w[c][i]), 1) for c in ("batch", "m", "n")])
        is_product = w.labels["kind"][w["kind"][product]] in _PRODUCTS
        own = float(w["n"][product]) * float(w["k"][product])
        return is_product and bool(w["read_weight"][product] > 0) and bool(elements == own)

    def _again(self, cast: int, first: int) -> _Fold:
        """Return what a cast takes of later operations in its type that read its copy again."""
        w, copy = self._w, float(self.write[cast])
        found: _Fold = []
        unread = [float(self.write[first])]
        for j in range(first + 1, len(w)):
            if w["dtype"][j] != w["dtype"][cast] or self._where[j] != self._where[cast]:
                break
            left = float(self.read[j])
            left -= _SCALAR if left - self.write[j] == _SCALAR else 0.0
            for size in reversed(unread[:]):
                if size <= left:
                    left -= size
                    unread.remove(size)
            if left >= copy and self._converts[j]:
                found.append(("read_activation", j, copy - float(self.read[cast])))
            unread.append(float(self.write[j]))
        return found

    def into_writers(self, group: list[int]) -> dict[int, _Fold]:
        """Return what narrowing casts take of the operations that wrote what they read."""
        w, wide = self._w, float(self.read[group[0]])
        like = next(self._writers(group[0], wide), None)
        if like is None or like != group[0] - 1:
            return {}
        found: dict[int, _Fold] = {}
        for i in group:
            writers = self._writers(group[0], wide)
            writer = next((j for j in writers if w["operator"][j] == w["operator"][like]), None)
            if writer is None:
                break
            self._written.add(writer)
            less = wide - float(self.write[i])
            found[i] = [("write_activation", writer, less)]
        return found

    def _writers(self, before: int, wide: float) -> Iterator[int]:
        """Yield the operations that wrote so much, the latest first."""
        for j in range(before - 1, max(before - 1 - _NEAR, -1), -1):
            if self._where[j] != self._where[before]:
                return
            if self.write[j] == wide and self._converts[j] and j not in self._written:
                yield j
