"""What the first use of a kernel costs in a process that has a context.

A kernel that comes compiled is loaded by the driver; one that does not is compiled first, as by a
just-in-time compiler whose cache is empty.
"""

from __future__ import annotations

import time
from typing import Any

from npusim.capture.gpu import Row

AXES = ("first_use",)

# Functions that nothing else here calls, so that each is new to the process.
_LOADED = (
    "sinh", "cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh", "log1p", "expm1", "erfinv",
    "lgamma", "frac", "trunc", "exp2", "log10",
)  # fmt: skip
_COMPILED = (
    "i0e", "i1", "i1e", "ndtri", "log_ndtr", "entr", "bessel_j0", "bessel_j1", "bessel_y0",
    "bessel_y1", "scaled_modified_bessel_k0", "airy_ai", "spherical_bessel_j0",
)  # fmt: skip
_FEW = 3


def points(device: Row, quick: bool) -> list[Row]:
    """Return the functions."""
    few = _FEW if quick else None
    ways = (("loaded", _LOADED), ("compiled", _COMPILED))
    return [
        {"axis": "first_use", "way": way, "call": c} for way, calls in ways for c in calls[:few]
    ]


def measure(torch: Any, point: Row) -> Row:
    """Return time of the first and of the next call, to an idle device [us]."""
    x = torch.full((1000,), 0.5, device="cuda")
    call = getattr(torch if point["way"] == "loaded" else torch.special, point["call"])
    times = []
    for _ in range(6):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call(x)
        torch.cuda.synchronize()
        times.append(1e6 * (time.perf_counter() - start))
    return {"first_us": times[0], "again_us": min(times[1:])}
