"""Which kernels a library takes for a product of weights: whole, or parts that another one sums."""

from __future__ import annotations

from typing import Any

from npusim.capture.gpu import Row

AXES = ("product_choice",)

_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_WIDTHS = (64, 256, 512, 1024, 1280, 2048, 4096, 8192)
_INNER = (512, 1024, 1280, 1792, 2048, 2560, 3072, 4096, 6848, 8192)


def points(device: Row, quick: bool) -> list[Row]:
    """Return products of some rows by weights, in two types."""
    shapes = [(m, n, k) for m in _ROWS for n in _WIDTHS for k in _INNER]
    return [
        {"axis": "product_choice", "dtype": dtype, "m": m, "n": n, "k": k}
        for dtype in ("bfloat16", "float32") for m, n, k in (shapes[:4] if quick else shapes)
        if dtype == "bfloat16" or n <= 512
    ]  # fmt: skip


def measure(torch: Any, point: Row) -> Row:
    """Return the kernels of one product, in order."""
    dtype = getattr(torch, point["dtype"])
    x = torch.randn(point["m"], point["k"], device="cuda", dtype=dtype)
    weight = torch.randn(point["n"], point["k"], device="cuda", dtype=dtype)
    torch.nn.functional.linear(x, weight)
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        torch.nn.functional.linear(x, weight)
        torch.cuda.synchronize()
    events = sorted(profile.events(), key=lambda e: e.time_range.start)
    kernels = [e.name for e in events if str(e.device_type).endswith("CUDA")]
    return {"kernels": [k for k in kernels if "Synchronize" not in k]}
