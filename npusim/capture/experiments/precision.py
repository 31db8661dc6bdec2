"""Matrix products in fp8 (E4M3, per-tensor scales) against bf16, weights cold."""

from __future__ import annotations

from functools import partial
from typing import Any

from npusim.capture.gpu import Row
from npusim.capture.timing import graph_us
from npusim.graph_timing import copies

AXES = ("precision",)

_SIZES = (1280, 4096, 8192)
_ROWS = (16, 64, 256, 1024, 4096)  # the fp8 product takes no fewer than 16


def points(device: Row, quick: bool) -> list[Row]:
    """Return square weights with several numbers of rows, in both types."""
    rows, sizes = ((16, 4096), (4096,)) if quick else (_ROWS, _SIZES)
    return [{"axis": "precision", "dtype": dtype, "m": m, "n": size, "k": size}
            for m in rows for size in sizes for dtype in ("fp8", "bf16")]  # fmt: skip


def measure(torch: Any, point: Row) -> Row:
    """Return ``us_per_op``."""
    m, n, k = point["m"], point["n"], point["k"]

    def random(rows: int) -> Any:
        return torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)

    if point["dtype"] == "bf16":
        x, weights = random(m), [random(n) for _ in range(copies(n, k, 2))]
        linear = torch.nn.functional.linear
        return {"us_per_op": graph_us(torch, [partial(linear, x, w) for w in weights])}
    fp8 = _fp8(torch)
    x, weights = random(m).to(fp8), [random(n).to(fp8).t() for _ in range(copies(n, k, 1))]
    one = torch.ones((), device="cuda", dtype=torch.float32)
    # There is no public name for it.
    scaled = partial(torch._scaled_mm, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
    return {"us_per_op": graph_us(torch, [partial(scaled, x, w) for w in weights])}


def _fp8(torch: Any) -> Any:
    """Return the E4M3 type of this GPU: MI300 has its own."""
    of_mi300 = torch.version.hip is not None and "gfx94" in getattr(
        torch.cuda.get_device_properties(torch.cuda.current_device()), "gcnArchName", ""
    )
    return torch.float8_e4m3fnuz if of_mi300 else torch.float8_e4m3fn
