"""Linear layers of many shapes with cold weights."""

from __future__ import annotations

from functools import partial
from typing import Any

from npusim.capture.gpu import Row
from npusim.capture.timing import graph_us
from npusim.graph_timing import copies

AXES = ("linear_shapes",)

# (n, k) of projections, MLPs and vocabularies of small decoders and an image encoder.
_SHAPES = (
    (896, 1280), (1792, 1280), (1280, 896), (1280, 1280), (3840, 1280), (6848, 1280), (1280, 6848),
    (129280, 1280), (1024, 1024), (3072, 1024), (1024, 3072), (103424, 1024), (8192, 8192),
    (4096, 4096), (14336, 4096), (4096, 14336), (4304, 1152), (1152, 4304),
)  # fmt: skip
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096)
_QUICK = ((1280, 1280), (6848, 1280), (8192, 8192)), (1, 64, 4096)


def points(device: Row, quick: bool) -> list[Row]:
    """Return every shape with every number of rows."""
    shapes, rows = _QUICK if quick else (_SHAPES, _ROWS)
    return [{"axis": "linear_shapes", "m": m, "n": n, "k": k} for m in rows for n, k in shapes]


def measure(torch: Any, point: Row) -> Row:
    """Return ``us_per_op``, ``tflops`` and ``gbps`` (weights, input and output once)."""
    m, n, k = point["m"], point["n"], point["k"]
    x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
    weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16)
               for _ in range(copies(n, k, 2))]  # fmt: skip
    linear = torch.nn.functional.linear
    us = graph_us(torch, [partial(linear, x, w) for w in weights])
    moved = 2 * (n * k + m * k + m * n)
    return {"us_per_op": us, "tflops": 2 * m * n * k / us / 1e6, "gbps": moved / us / 1e3}
