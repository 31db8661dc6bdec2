"""Footprints across the last-level cache: a matrix-vector product and a pointwise stream.

The product goes through ``matrices`` distinct weights in turn; the stream reads one buffer and
writes another, again and again.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from npusim.capture.gpu import Row
from npusim.capture.timing import graph_us

AXES = ("l2_residency",)

_MIB = 2**20
_SHAPES = ((1280, 1280), (6848, 1280))
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 4.0, 8.0)
_QUICK_SHARES = (0.3, 1.0, 4.0)
_SMALLEST_CACHE = 32 * _MIB  # caches behind the L2 are not reported: always look beyond it
_STREAMS = (1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 80, 128, 256, 512, 1024)
_QUICK_STREAMS = (1, 16, 256)


def points(device: Row, quick: bool) -> list[Row]:
    """Return footprints as shares of the L2, weights rounded to whole matrices."""
    cache = max(device["l2"] or 0, _SMALLEST_CACHE)
    rows: list[Row] = []
    for n, k in _SHAPES:
        size = 2 * n * k
        shares = _QUICK_SHARES if quick else _SHARES
        counts = dict.fromkeys(max(1, round(share * cache / size)) for share in shares)
        rows += [
            {"axis": "l2_residency", "op": "gemv", "n": n, "k": k, "matrices": count,
             "footprint_mb": count * size / _MIB}
            for count in counts
        ]  # fmt: skip
    streams = _QUICK_STREAMS if quick else _STREAMS
    rows += [{"axis": "l2_residency", "op": "mul_scalar", "mb_read": mb, "mb_write": mb}
             for mb in streams]  # fmt: skip
    return rows


def measure(torch: Any, point: Row) -> Row:
    """Return ``us_per_op`` and ``gbps`` (10^9 bytes of weights, or read and written, a second)."""
    if point["op"] == "mul_scalar":
        return _stream(torch, point)
    n, k = point["n"], point["k"]
    x = torch.randn(1, k, device="cuda", dtype=torch.bfloat16)
    weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16)
               for _ in range(point["matrices"])]  # fmt: skip
    linear = torch.nn.functional.linear
    us = graph_us(torch, [partial(linear, x, w) for w in weights])
    return {"us_per_op": us, "gbps": 2 * n * k / us / 1e3}


def _stream(torch: Any, point: Row) -> Row:
    a = torch.randn(point["mb_read"] * _MIB // 2, device="cuda", dtype=torch.bfloat16)
    b = torch.empty_like(a)
    us = graph_us(torch, [lambda: torch.mul(a, 1.5, out=b)])
    return {"us_per_op": us, "gbps": (point["mb_read"] + point["mb_write"]) * _MIB / us / 1e3}
