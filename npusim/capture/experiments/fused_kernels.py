"""What a compiler's fused kernels take by form: steps without a reduction, and rows with one.

What is chained grows in inputs, steps and size. A reduction runs over rows; its result goes back to
the elements of the row.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from npusim.capture.gpu import Row, Unavailable
from npusim.capture.timing import graph_us

AXES = ("fused_kernels",)

_SHAPES = (
    (1, 256), (1, 640), (1, 1024), (1, 2048), (1, 4096), (1, 8192), (8, 4096), (32, 512),
    (32, 3072), (100, 768), (132, 1536), (256, 1024), (512, 2048), (640, 896), (1024, 4096),
    (2048, 768), (4096, 1024), (4096, 4096),
)  # fmt: skip
# Form, inputs and steps.
_FORMS = (
    ("steps", 1, 5), ("steps", 2, 2), ("steps", 2, 12), ("steps", 3, 5),
    ("squares", 1, 5), ("squares", 2, 5), ("moments", 1, 5), ("maximum", 1, 5),
)  # fmt: skip


def points(device: Row, quick: bool) -> list[Row]:
    """Return fused kernels on rows of some width."""
    return [
        {"axis": "fused_kernels", "dtype": "bfloat16", "form": form, "inputs": inputs,
         "steps": steps, "m": m, "n": n}
        for m, n in (_SHAPES[1:3] if quick else _SHAPES) for form, inputs, steps in _FORMS
    ]  # fmt: skip


def measure(torch: Any, point: Row) -> Row:
    """Return the time of a kernel inside a graph, warm [us], and how many kernels it became."""
    if find_spec("triton") is None:
        raise Unavailable("the compiler writes its kernels with triton, which is not installed")
    torch._dynamo.reset()  # each shape is compiled for itself
    call = torch.compile(_chain(torch, point), dynamic=False)
    given = [
        torch.randn(point["m"], point["n"], device="cuda", dtype=torch.bfloat16)
        for _ in range(point["inputs"])
    ]
    with torch.no_grad():
        call(*given)
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            call(*given)
            torch.cuda.synchronize()
        found = [e for e in profile.events() if str(e.device_type).endswith("CUDA")]
        kernels = sum("Synchronize" not in e.name for e in found)
        return {"kernels": kernels, "graph_us": graph_us(torch, [lambda: call(*given)])}


def _chain(torch: Any, point: Row) -> Callable[..., Any]:
    """Return an expression of some steps on its inputs, with one reduction if it has one."""
    form, steps = point["form"], point["steps"]

    def joined(given: tuple[Any, ...]) -> Any:
        x = given[0].float()
        for other in given[1:]:
            x = x + other.float()
        return x

    def run(*given: Any) -> Any:
        x = joined(given)
        if form == "squares":
            x = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)
        elif form == "moments":
            middle = x.mean(-1, keepdim=True)
            x = (x - middle) * torch.rsqrt(((x - middle) ** 2).mean(-1, keepdim=True) + 1e-6)
        elif form == "maximum":
            x = torch.softmax(x, -1)
        else:
            for i in range(steps):
                x = x * (1.0 + 0.01 * i) + 0.5
        return x.to(given[0].dtype)

    return run
