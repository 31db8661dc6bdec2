"""Pointwise operators, a row mean and a concatenation over sizes; warm where they fit the cache."""

from __future__ import annotations

from typing import Any

from npusim.capture.gpu import Row
from npusim.capture.timing import Call, eager_us, graph_us

AXES = ("pointwise",)

_OPS = ("mul", "silu", "neg", "cast", "copy", "mean", "cat")
_ELEMENTS = (1280, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
_QUICK_ELEMENTS = (1280, 4194304)
_EAGER_UP_TO = 65536  # beyond, the device decides and the loop tells nothing new
_ROW, _OTHER_ROW = 1280, 64


def points(device: Row, quick: bool) -> list[Row]:
    """Return every operator in both types at every size."""
    return [
        {"axis": "pointwise", "op": op, "dtype": dtype, "elements": elements}
        for elements in (_QUICK_ELEMENTS if quick else _ELEMENTS)
        for dtype in ("bfloat16", "float32")
        for op in _OPS
    ]


def row_length(elements: int) -> int:
    """Return the length of the rows that `mean` is taken over.

    Examples
    --------
    >>> row_length(1280), row_length(65536)
    (1280, 64)
    """
    return _ROW if elements % _ROW == 0 else _OTHER_ROW


def measure(torch: Any, point: Row) -> Row:
    """Return ``us_per_op``, and ``eager_us`` of the eager loop for small sizes."""
    elements = point["elements"]
    a, b = (torch.randn(elements, device="cuda", dtype=getattr(torch, point["dtype"]))
            for _ in range(2))  # fmt: skip
    call = _operators(torch, a, b, row_length(elements))[point["op"]]
    return {
        "us_per_op": graph_us(torch, [call]),
        "eager_us": eager_us(torch, call) if elements <= _EAGER_UP_TO else None,
    }


def _operators(torch: Any, a: Any, b: Any, row: int) -> dict[str, Call]:
    other = torch.float32 if a.dtype == torch.bfloat16 else torch.bfloat16
    return {
        "mul": lambda: torch.mul(a, b),
        "silu": lambda: torch.nn.functional.silu(a),
        "neg": lambda: torch.neg(a),
        "cast": lambda: a.to(other),
        "copy": a.clone,
        "mean": lambda: a.view(-1, row).mean(-1),
        "cat": lambda: torch.cat((a, a)),
    }
