"""What speculative decoding adds to a step: passes that draft, and kernels that compare.

A pass is what the step itself does with one token of each sequence, before its first layer, in so
many of the first layers, and behind the last one: the same kernels, with the host's work for them,
but without its waits. Its weights are read as those of operations of its own.

Drafts and answers are compared as transformers compares them: where they differ, which come before
the first difference, and how many (``_assisted_decoding``, with PyTorch's kernels). The host waits
for that where the step waited for its last operation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.transforms.record import marked, origins
from npusim.transforms.rows import Kernel, Row, Rows, kernel_row
from npusim.workload import LABELS, ORIGINS, Workload

Index = NDArray[np.intp]

_VECTOR = "vectorized_elementwise_kernel<{}, at::native::{}, std::array<char*, {}ul> >"
_EQUAL = Kernel(_VECTOR.format(2, "CompareEqFunctor<long>", 3),
                "aten::eq", "pointwise", "vectorized", 1024)  # fmt: skip
_NOT = Kernel(_VECTOR.format(8, "bitwise_not_kernel_cuda", 2),
              "aten::bitwise_not", "pointwise", "vectorized", 1024)  # fmt: skip
_WIDEN = Kernel("unrolled_elementwise_kernel<direct_copy_kernel_cuda, LoadWithCast<1> >",
                "aten::copy_", "cast", "unrolled_cast", 512)  # fmt: skip
_COUNT = Kernel("tensor_kernel_scan_innermost_dim<long, std::plus<long> >",
                "aten::cumsum", "scan", "scan_rows", 1024)  # fmt: skip
_LESS = Kernel(_VECTOR.format(2, "CompareFunctor<long>", 2),
               "aten::lt", "pointwise", "vectorized", 1024)  # fmt: skip
_SUM = Kernel("reduce_kernel<512, 1, at::native::ReduceOp<long, at::native::sum_functor> >",
              "aten::sum", "reduction", "reduce_rows", 512)  # fmt: skip

_NUMBER, _FLAG = 8.0, 1.0  # bytes of a token's number, of a comparison


def pass_of(w: Workload, layers: int, place: str) -> Index:
    """Return which operations draft a token of each sequence, of all steps.

    Parameters
    ----------
    w : Workload
        Steps that decode one token of each sequence.
    layers : int
        Layers that a draft goes through, 1 or more.
    place : str
        Path of the setting that asks for it, for what is refused.

    Raises
    ------
    InputError
        More layers than are known.

    Examples
    --------
    Of 782 operations of a step with 18 layers, 16 lie before them and 10 behind:

    >>> import npusim as ns
    >>> len(pass_of(ns.load_workload("paddleocr_vl_decode"), 1, "")) // 3
    68
    """
    layer, count = w["layer"], int(w["layer"].max()) + 1
    if count < layers:
        raise InputError("more layers than are known", file=w.name, place=place, value=layers,
                         allowed=f"0 to {count}")  # fmt: skip
    inside, here = np.flatnonzero(layer >= 0), np.arange(len(w))
    first, last = np.full(len(w.steps), len(w)), np.full(len(w.steps), -1)
    np.minimum.at(first, w["step"][inside], inside)
    np.maximum.at(last, w["step"][inside], inside)
    around = (here < first[w["step"]]) | (here > last[w["step"]])
    return np.flatnonzero(around | (layer >= 0) & (layer < layers))


def compared(w: Workload, drafts: int, sequences: int, place: str) -> Workload:
    """Return a workload whose steps end with comparing drafts and answers of its sequences."""
    rows = Rows(w, place)
    for end in np.searchsorted(w["step"], np.unique(w["step"]), side="right").tolist():
        last, added = end - 1, _comparing(drafts, sequences)
        if w["sync"][last]:
            rows.change(last, {"sync": False, "presync_s": 0.0})
            added[-1] |= {"sync": True, "presync_s": w["presync_s"][last]}
        for row in added:
            rows.append(last, row)
    return rows.workload()


def drafted(w: Workload, one: Workload, rows: Index, passes: int) -> Workload:
    """Return a workload each of whose steps begins with passes, made of operations of another."""
    label, columns, counters = {}, {}, {}
    one = marked(one, np.maximum(origins(one), ORIGINS.index("rescaled")))
    own = len(one)
    order = []
    for step in np.unique(w["step"]).tolist():
        again = rows[one["step"][rows] == step]
        order += [np.tile(again, passes), own + np.flatnonzero(w["step"] == step)]
    at = np.concatenate(order)
    alone = _unwaited(one)
    for name, column in w.columns.items():
        before = alone.get(name, one[name])
        if name in LABELS:
            label[name] = tuple(dict.fromkeys([*w.labels[name], *one.labels[name]]))
            before = np.array([label[name].index(text) for text in one.labels[name]])[before]
        columns[name] = np.concatenate([before, column])[at]
    for name, values in w.counters.items():
        counters[name] = np.concatenate([np.full(own, np.nan), values])[at]
    return Workload(w.name, columns, label, w.steps, None, w.meta, counters, w.host)


def _unwaited(w: Workload) -> dict[str, NDArray[Any]]:
    """Return columns of operations that nobody waits for, and that were not measured so."""
    start = np.zeros(len(w.steps))
    start[w["step"][::-1]] = w["start_s"][::-1]  # the first of each step counts
    return {
        "sync": np.zeros(len(w), dtype=bool),
        "presync_s": np.zeros(len(w)),
        "start_s": start[w["step"]],
        "duration_s": np.where(w.classified, 0.0, w["duration_s"]),
    }


def _comparing(drafts: int, sequences: int) -> list[Row]:
    """Return what finds how many drafts of each sequence are as the model answers."""
    count, shape = float(drafts * sequences), (sequences, drafts)
    flags, numbers = _FLAG * count, _NUMBER * count
    return [
        kernel_row(_EQUAL, "int64", *shape, flop=count, read_activation=2 * numbers,
                   write_activation=flags),
        kernel_row(_NOT, "bool", *shape, flop=count, read_activation=flags, write_activation=flags),
        kernel_row(_WIDEN, "int64", *shape, read_activation=flags, write_activation=numbers),
        kernel_row(_COUNT, "int64", *shape, flop=count, read_activation=numbers,
                   write_activation=numbers),
        kernel_row(_LESS, "int64", *shape, flop=count, read_activation=numbers,
                   write_activation=flags),
        kernel_row(_SUM, "int64", *shape, flop=count, read_activation=flags,
                   write_activation=_NUMBER * sequences),
    ]  # fmt: skip
