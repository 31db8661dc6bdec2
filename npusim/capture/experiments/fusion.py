"""One expression as eager kernels and as the compiler's fused kernel, both inside a graph, warm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from npusim.capture.gpu import Row
from npusim.capture.timing import eager_us, graph_us

AXES = ("fusion",)

_HIDDEN, _INNER = 1280, 6848
_TOKENS = (1, 16, 64, 256, 1024)
_PATTERNS = ("rmsnorm", "silu_mul", "add_rmsnorm", "rmsnorm_linear", "chain8")
_QUICK = ("rmsnorm", "chain8"), (64,)


def points(device: Row, quick: bool) -> list[Row]:
    """Return every pattern at every number of tokens."""
    patterns, tokens = _QUICK if quick else (_PATTERNS, _TOKENS)
    return [{"axis": "fusion", "pattern": p, "tokens": t} for t in tokens for p in patterns]


def measure(torch: Any, point: Row) -> Row:
    """Return ``eager_graph_us``, ``fused_graph_us``, and ``eager_us`` of the eager loop."""
    function, inputs = _pattern(torch, point["pattern"], point["tokens"])
    torch._dynamo.reset()
    fused = torch.compile(function, dynamic=False)
    fused(*inputs)  # compiles
    return {
        "eager_graph_us": graph_us(torch, [lambda: function(*inputs)]),
        "fused_graph_us": graph_us(torch, [lambda: fused(*inputs)]),
        "eager_us": eager_us(torch, lambda: function(*inputs)),
    }


def _pattern(torch: Any, name: str, tokens: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return an expression and its inputs: x is (tokens, 1280), g and u are (tokens, 6848)."""
    functional = torch.nn.functional

    def random(*shape: int) -> Any:
        return torch.randn(shape, device="cuda", dtype=torch.bfloat16)

    def rmsnorm(x: Any, w: Any) -> Any:
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return (wide * scale).to(x.dtype) * w

    def chain8(a: Any, b: Any) -> Any:
        c = torch.relu((a + b) * b - a)
        return torch.tanh((c + 1.0) * 0.5) + a * 1.0

    x, w = random(tokens, _HIDDEN), random(_HIDDEN)
    if name == "rmsnorm":
        return rmsnorm, (x, w)
    if name == "silu_mul":
        g, u = random(tokens, _INNER), random(tokens, _INNER)
        return lambda g, u: functional.silu(g) * u, (g, u)
    if name == "add_rmsnorm":
        return lambda a, b, w: rmsnorm(a + b, w), (x, random(tokens, _HIDDEN), w)
    if name == "rmsnorm_linear":
        weight = random(_HIDDEN, _HIDDEN)
        return lambda x, w, m: functional.linear(rmsnorm(x, w), m), (x, w, weight)
    return chain8, (x, random(tokens, _HIDDEN))
