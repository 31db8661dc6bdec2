"""One kernel of a lowering: its columns for some sizes of its operator.

What a lowering does not say follows from the kind, with m x n elements of s bytes each (S of what
is read, where it has another type) and b problems:

    maps, reductions   reads inputs x m n S, writes m n s (or `results` x s), w m n FLOP
    product            2 b m n k FLOP; reads b n k s of weights and b m k s, writes b m n s
    others             what the lowering says

A concatenation has as many tensors as `inputs` says, two if nothing; w is 1, 4 for SiLU and the
like, 8 for norms, 5 for a softmax. A product of one row is a GEMV.
Launch grids are those of the routine (`npusim.transforms.grids`).

Source: the counts are those that importers give to the same kernels (`npusim.importers`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from npusim.errors import InputError
from npusim.library import ROUTINES
from npusim.templates.expressions import Expression
from npusim.templates.lowering import Step
from npusim.transforms.grids import Size, grid
from npusim.workload import KINDS

# Bytes of an element of each type.
ITEM: Mapping[str, float] = MappingProxyType({
    "fp64": 8, "int64": 8, "fp32": 4, "tf32": 4, "int32": 4, "bf16": 2, "fp16": 2, "fp8": 1,
    "int8": 1, "bool": 1, "int4": 0.5,
})  # fmt: skip
_WORK = {"pointwise": 1, "reduction": 1, "activation": 4, "norm": 8, "softmax": 5, "topk": 1,
         "sort": 1}  # fmt: skip
_OWN = ("attention", "setup", "memset", "memcpy", "collective")  # say themselves what they move
_COUNTS = ("batch", "m", "n", "k", "heads", "kv_heads", "groups", "blocks", "threads")
_NEARLY = 1e-6
_NO_GRID = ("memcpy", "memset")
# Blocks a unit and threads, whatever comes; of a concatenation for each tensor.
_OF_UNITS = {**dict.fromkeys(("cat", "cat_2d", "cat_4d"), (2, 512)), "grouped_matrix": (1, 384)}
_ONE_BLOCK = {"grouped_setup": 64}  # of so many threads

Row = Mapping[str, Any]


def kernel_row(step: Step, names: Mapping[str, Any], dtype: str, library: str) -> Row:
    """Return the columns of a kernel that its lowering decides.

    Parameters
    ----------
    step : Step
        A step with a kernel.
    names : mapping
        Sizes of the operator and `npusim.templates.lowering.GLOBALS`.
    dtype : str
        Type that the model computes in.
    library : str
        Where the kernel names none.

    Raises
    ------
    InputError
        A value that no kernel has: a negative count, an unknown type.
    """
    text = {"library": library, "operator": step.kernel}
    text |= {f: _text(given, names) for f, given in step.texts.items()}
    written = _dtype(step, text["dtype"], dtype)
    read = _dtype(step, text.get("of", written), dtype)
    number = {f: _number(step, f, e, names) for f, e in step.numbers.items()}
    row: dict[str, Any] = dict.fromkeys(_COUNTS, 0)
    row |= {"batch": 1, "m": 1, "n": 1} | {
        c: _whole(step, c, number[c]) for c in _COUNTS if c in number
    }
    row |= {"kernel": step.kernel, "operator": text["operator"], "library": text["library"],
            "routine": text["routine"], "kind": text["kind"], "dtype": written,
            "sync": step.sync}  # fmt: skip
    row |= _amounts(row, number, ITEM[read], ITEM[written])
    if row["kind"] == "product":
        row["kind"] = "gemv" if row["m"] <= 1 and row["batch"] <= 1 else "gemm"
    if row["kind"] not in KINDS:
        raise InputError("unknown kind", place=step.kernel, value=row["kind"],
                         allowed=", ".join(KINDS))  # fmt: skip
    return row | _grid(row, number, names["units"], ITEM[written])


def _text(given: str | Expression, names: Mapping[str, Any]) -> str:
    return str(given.value(names)) if isinstance(given, Expression) else given


def _dtype(step: Step, given: object, model: str) -> str:
    found = model if given == "model" else str(given)
    if found not in ITEM:
        raise InputError("unknown type", place=step.kernel, value=found,
                         allowed=", ".join(("model", *ITEM)))  # fmt: skip
    return found


def _number(step: Step, field: str, given: Expression, names: Mapping[str, Any]) -> float:
    value = given.value(names)
    if not isinstance(value, int | float) or not 0 <= value <= 1e30:
        raise InputError("not a number from 0", place=f"{step.kernel}, {field}", value=value)
    return value


def _whole(step: Step, field: str, value: float) -> int:
    if abs(value - round(value)) > _NEARLY:
        raise InputError("not a whole number", place=f"{step.kernel}, {field}", value=value,
                         hint="round it: ceil(...) or floor(...)")  # fmt: skip
    return round(value)


def _amounts(
    row: Row, number: Mapping[str, float], read: float, written: float
) -> dict[str, float]:
    """Return FLOP and bytes."""
    b, m, n, k = (float(row[c]) for c in ("batch", "m", "n", "k"))
    if row["kind"] in ("product", "gemv", "gemm"):
        usual = {"flop": 2 * b * m * n * k, "weights": b * n * k * read, "reads": b * m * k * read,
                 "writes": b * m * n * written}  # fmt: skip
    elif row["kind"] in _OWN:
        usual = dict.fromkeys(("flop", "weights", "reads", "writes"), 0.0)
    else:
        work = number.get("work", _WORK.get(row["kind"], 0.0))
        usual = {"flop": work * m * n, "weights": 0.0,
                 "reads": number.get("inputs", 1.0) * m * n * read,
                 "writes": number.get("results", m * n) * written}  # fmt: skip
    usual |= {f: float(v) for f, v in number.items() if f in usual}
    return {
        "flop": usual["flop"], "read_weight": usual["weights"],
        "read_activation": usual["reads"], "write_activation": usual["writes"],
        "read_kv": float(number.get("kv_reads", 0.0)),
        "write_kv": float(number.get("kv_writes", 0.0)),
    }  # fmt: skip


def _grid(row: Row, number: Mapping[str, float], units: float, item: float) -> dict[str, int]:
    """Return blocks and threads a block: as given, as the routine launches, or unknown (0)."""
    given = {c: row[c] for c in ("blocks", "threads")}
    if "blocks" in number or row["routine"] not in ROUTINES or row["kind"] in _NO_GRID:
        return given
    tensors = number.get("inputs", 2.0) if row["kind"] == "cat" else 1.0
    if row["routine"] in _ONE_BLOCK:
        return {"blocks": 1, "threads": _ONE_BLOCK[row["routine"]]}
    if row["routine"] in _OF_UNITS:
        each, wide = _OF_UNITS[row["routine"]]
        return {"blocks": round(each * tensors * units), "threads": wide}
    rows, length, size, results = (
        np.array([float(x)]) for x in (row["m"], row["n"], item, row["write_activation"])
    )
    blocks, threads = grid(row["routine"], Size(rows, length, size, results, units))
    return {"blocks": max(int(blocks[0] * tensors), 1), "threads": max(int(threads[0]), 1)}
