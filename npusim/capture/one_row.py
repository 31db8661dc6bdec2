"""A step of products of few rows: which kernels a library takes for them, and what these take.

    npusim capture model npusim.capture.one_row:program --phase decode --context 1 --steps 7

One row in bf16 and in fp32 over widths and reductions, and 2 to 32 rows in bf16 over a few of them.
Every product has weights of its own, more than any cache holds, so they come from DRAM; its input
is rewritten before it, as the operation before it does in a model.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from npusim.capture.gpu import TORCH, load

_WIDTHS = (64, 128, 256, 512, 768, 1024, 1280, 1536, 2048, 2560, 3072, 4096, 5120, 6848, 8192)
_INNER = (256, 512, 768, 896, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 4096, 6848, 8192)
_ROWS = (2, 4, 8, 16, 32)
_FEW = ((256, 1024, 2048, 4096), (1024, 2048, 3072, 4096))
_LINE = 2**20  # elements, between the starts of two weights at least


def shapes() -> list[tuple[str, int, int, int]]:
    """Return type, rows, width and reduction of each product.

    Examples
    --------
    >>> products = shapes()
    >>> len(products), products[0], products[-1]
    (500, ('bfloat16', 1, 64, 256), ('bfloat16', 32, 4096, 4096))
    """
    one = [(dtype, 1, n, k) for dtype in ("bfloat16", "float32")
           for n, k in itertools.product(_WIDTHS, _INNER)]  # fmt: skip
    return one + [("bfloat16", m, n, k) for m in _ROWS for n, k in itertools.product(*_FEW)]


def program(device: str) -> Callable[[], None]:
    """Return a step that computes every product once."""
    torch = load("torch", TORCH)
    made = list(_made(torch, device))
    linear = torch.nn.functional.linear

    def step() -> None:
        for x, weight in made:
            x.neg_()  # values stay, or change sign
            linear(x, weight)

    return step


def _made(torch: Any, device: str) -> Any:
    """Yield input and weight of each product; weights lie one behind the other."""
    for name in ("bfloat16", "float32"):
        dtype = getattr(torch, name)
        these = [shape for shape in shapes() if shape[0] == name]
        sizes = [max(-(-n * k // _LINE) * _LINE, _LINE) for _, _, n, k in these]
        buffer = torch.empty(sum(sizes), dtype=dtype, device=device).normal_(std=0.05)
        starts = itertools.accumulate(sizes, initial=0)
        for start, (_, m, n, k) in zip(starts, these, strict=False):
            x = torch.randn(m, k, device=device).to(dtype)
            yield x, buffer[start : start + n * k].view(n, k)
