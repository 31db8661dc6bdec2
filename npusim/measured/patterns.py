"""The expressions of the axis ``fusion`` of ``npusim capture``, as workloads of eager kernels.

x is (tokens, 1280), g and u are (tokens, 6848), W is (1280, 1280), all in bf16. An expression is
what PyTorch launches for it, one kernel an operator; a step is one run of it, repeated, so operands
are warm.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np

from npusim.columns import COLUMNS, COST_COLUMNS, COST_LABELS, LABELS
from npusim.errors import InputError
from npusim.importers.work import Work
from npusim.measured.launched import Launched, pieces, reduce_rows
from npusim.measured.shapes import linear
from npusim.workload import Steps, Workload

_HIDDEN, _INNER = 1280, 6848
_SIZE = {"bf16": 2, "fp32": 4}

Row = dict[str, Any]


def pattern(name: str, tokens: int) -> Workload:
    """Return an expression as the kernels that PyTorch launches for it.

    Parameters
    ----------
    name : str
        One of `PATTERNS`.
    tokens : int
        Rows, >= 1.

    Raises
    ------
    InputError
        An unknown expression.

    Examples
    --------
    >>> [str(o) for o in pattern("silu_mul", 1).text("operator")]
    ['aten::silu', 'aten::mul']
    """
    if name not in PATTERNS:
        raise InputError("unknown expression", value=name, allowed=", ".join(PATTERNS))
    rows = PATTERNS[name](tokens)
    columns: dict[str, Any] = {}
    labels: dict[str, tuple[str, ...]] = {}
    for column in COLUMNS.values():
        empty = "" if column.type == "label" else 0
        values = [row.get(column.name, empty) for row in rows]
        if column.name in LABELS:
            labels[column.name] = tuple(dict.fromkeys(values))
            values = [labels[column.name].index(v) for v in values]
        columns[column.name] = np.array(values)
    nothing = np.zeros(1)
    meta = {"measured": False, "host": "unknown"}
    return Workload(f"{name}_{tokens}", columns, labels, Steps(nothing, nothing), meta=meta)


def _row(operator: str, work: Work, runs: Launched, library: str = "ATen") -> Row:
    columns = {c: getattr(work, c) for c in COST_COLUMNS
               if c not in (*COST_LABELS, "blocks", "threads")}  # fmt: skip
    return {"kernel": operator, "operator": f"aten::{operator}", "library": library,
            "routine": runs.routine, "kind": work.kind, "dtype": work.dtype, "phase": "unknown",
            "basis": "shape", "origin": "generated", "blocks": runs.blocks,
            "threads": runs.threads, **columns}  # fmt: skip


def _step(operator: str, dtype: str, rows: int, width: int, inputs: float = 1.0,
          routine: str = "vectorized", kind: str = "pointwise", to: str = "",
          flop: float = 1.0) -> Row:  # fmt: skip
    """Return a step on rows of numbers that reads so many tensors of their size."""
    elements = rows * width
    flop = 0.0 if kind == "cast" else flop * elements
    work = Work(
        kind, to or dtype, batch=1, m=rows, n=width, flop=flop,
        read_activation=inputs * _SIZE[dtype] * elements,
        write_activation=_SIZE[to or dtype] * elements,
    )  # fmt: skip
    each = 4 if routine in ("strided", "unrolled_cast") or dtype == "fp32" else 8
    return _row(operator, work, pieces(routine, elements, each))


def _norm(tokens: int) -> list[Row]:
    """Return x * rsqrt(mean(x^2) + eps), in fp32, times a weight in bf16."""
    n, beside = _HIDDEN, 1.0 / _HIDDEN  # one number a row
    mean = Work("reduction", "fp32", batch=1, m=tokens, n=n, flop=tokens * n,
                read_activation=4.0 * tokens * n, write_activation=4.0 * tokens)  # fmt: skip
    weight = 1.0 + 1.0 / tokens
    return [
        _step("copy_", "bf16", tokens, n, routine="unrolled_cast", kind="cast", to="fp32"),
        _step("pow", "fp32", tokens, n),
        _row("mean", mean, reduce_rows(tokens, n, 4)),
        _step("add", "fp32", tokens, 1),
        _step("rsqrt", "fp32", tokens, 1),
        _step("mul", "fp32", tokens, n, 1.0 + beside, routine="strided"),
        _step("copy_", "fp32", tokens, n, kind="cast", to="bf16"),
        _step("mul", "bf16", tokens, n, weight, routine="vectorized" if tokens == 1 else "strided"),
    ]


def _silu_mul(tokens: int) -> list[Row]:
    # four FLOP, as importers count it
    silu = _step("silu", "bf16", tokens, _INNER, routine="special", kind="activation", flop=4.0)
    return [silu, _step("mul", "bf16", tokens, _INNER, 2.0)]


def _norm_linear(tokens: int) -> list[Row]:
    work = linear("bf16", tokens, _HIDDEN, _HIDDEN).work
    return [*_norm(tokens), _row("mm", work, Launched("whole"), "cuBLAS")]


def _chain(tokens: int) -> list[Row]:
    """Return eight steps on two inputs."""
    steps = {"add": 2.0, "relu": 1.0, "mul": 2.0, "neg": 1.0, "sub": 2.0, "tanh": 1.0,
             "maximum": 2.0, "abs": 1.0}  # fmt: skip
    return [
        _step(name, "bf16", tokens, _HIDDEN, inputs, "special" if name == "tanh" else "vectorized")
        for name, inputs in steps.items()
    ]


PATTERNS: MappingProxyType[str, Callable[[int], list[Row]]] = MappingProxyType({
    "rmsnorm": _norm,
    "silu_mul": _silu_mul,
    "add_rmsnorm": lambda tokens: [_step("add", "bf16", tokens, _HIDDEN, 2.0), *_norm(tokens)],
    "rmsnorm_linear": _norm_linear,
    "chain8": _chain,
})  # fmt: skip
