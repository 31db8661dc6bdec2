"""Convolutions, which a library of their own computes, and products of many small matrices."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from npusim.capture.routines.bank import Bank, Made, made

# images, channels in, side, channels out, kernel, stride, padding
_CONVOLUTIONS = (
    (1, 3, 224, 192, 14, 14, 0), (1, 3, 518, 640, 14, 14, 0), (4, 3, 336, 512, 14, 14, 0),
    (60, 3, 14, 320, 14, 14, 0), (900, 3, 14, 512, 14, 14, 0), (5000, 3, 14, 896, 14, 14, 0),
    (1, 3, 256, 384, 16, 16, 0), (1, 3, 512, 512, 16, 16, 0), (1, 3, 1536, 640, 16, 16, 0),
    (3, 3, 768, 320, 16, 16, 0), (8, 3, 256, 256, 8, 8, 0), (1, 3, 640, 96, 4, 4, 0),
    (1, 128, 32, 128, 3, 1, 1), (1, 192, 48, 320, 3, 2, 1), (2, 320, 40, 640, 3, 2, 1),
    (1, 96, 96, 192, 3, 1, 1), (1, 512, 24, 512, 3, 2, 1), (1, 640, 48, 192, 1, 1, 0),
    (2, 320, 80, 320, 1, 1, 0), (1, 1024, 20, 320, 1, 1, 0), (1, 384, 72, 384, 3, 1, 1),
)  # fmt: skip
# matrices, chosen by each token, tokens, inner length, result length
_GROUPED = (
    (8, 2, 1, 512, 1024), (8, 2, 24, 1024, 512), (8, 2, 700, 1024, 1536), (16, 2, 7, 640, 1024),
    (16, 4, 90, 1536, 768), (32, 4, 1, 1024, 1024), (32, 4, 3, 768, 1536), (32, 4, 20, 1024, 768),
    (32, 4, 400, 1024, 1024), (32, 4, 3000, 768, 1024), (48, 6, 2, 1024, 768),
    (48, 6, 10, 768, 1024), (48, 6, 50, 1024, 1024), (48, 6, 1000, 1024, 768),
    (96, 8, 1, 1536, 768), (96, 8, 6, 768, 1536), (96, 8, 40, 1024, 768), (96, 8, 500, 768, 1024),
    (128, 8, 1, 1024, 640), (128, 8, 12, 640, 1024), (128, 8, 150, 1024, 640),
    (128, 8, 2000, 768, 768),
)  # fmt: skip


def calls(bank: Bank, chance: Random) -> Iterator[Made]:
    """Yield convolutions in two types, and grouped products after the choice of their router."""
    torch = bank.torch
    for dtype in (torch.bfloat16, torch.float32):
        for convolution in _CONVOLUTIONS:
            yield _convolution(bank, dtype, *convolution)
    for grouped in _GROUPED:
        yield _grouped(bank, *grouped)


def _convolution(
    bank: Bank, dtype: Any, images: int, channels: int, side: int, results: int, kernel: int,
    stride: int, padding: int,
) -> Made:  # fmt: skip
    torch = bank.torch
    x = bank.tensor(dtype, images, channels, side, side)
    weight = bank.tensor(dtype, results, channels, kernel, kernel, place=1)
    bias = torch.zeros(results, dtype=dtype, device=bank.device)
    convolve = torch.nn.functional.conv2d
    return made(convolve, (x, weight, bias, stride, padding), x, weight)


def _grouped(bank: Bank, matrices: int, chosen: int, tokens: int, inner: int, results: int) -> Made:
    """Return a router's choice and the product of the rows that it sorts by matrix."""
    torch = bank.torch
    scores = torch.rand(tokens, matrices, device=bank.device)
    counts = torch.bincount(scores.topk(chosen).indices.view(-1), minlength=matrices)
    ends = counts.cumsum(0).int()
    x = bank.tensor(torch.bfloat16, tokens * chosen, inner)
    weight = torch.randn(matrices, inner, results, device=bank.device).bfloat16()

    def call() -> Any:
        scores.topk(chosen)
        return torch._grouped_mm(x, weight, ends)

    return made(call, (), x, scores, factor=2 + 2 * min(matrices, tokens * chosen))
