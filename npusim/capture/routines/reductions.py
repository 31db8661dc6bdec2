"""Reductions, normalisations and softmax over row lengths and row counts."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from npusim.capture.routines.bank import Bank, Made, made, rows, sizes

_LENGTHS = (40, 96, 200, 520, 1000, 1544, 3080, 8200, 33_000, 90_008, 160_040)


def calls(bank: Bank, chance: Random) -> Iterator[Made]:
    """Yield reductions along rows, along columns and of everything, norms and softmax."""
    torch = bank.torch
    functions = torch.nn.functional
    for dtype in (torch.bfloat16, torch.float32):
        for length in _LENGTHS:
            for n in sizes(chance, 1, max(2.0, 4e7 / length), 4 if length < 4000 else 3):
                x = bank.tensor(dtype, n, length)
                yield made(lambda x: x.mean(-1, keepdim=True), (x,), x, factor=1)
                yield made(lambda x: x.softmax(-1), (x,), x)
                if length >= 1000:
                    yield made(lambda x: x.argmax(-1), (x,), x, factor=1)
                    yield made(lambda x: x.amax(-1), (x,), x, factor=1)
                if length <= 10_000:
                    scale = torch.ones(length, dtype=dtype, device=bank.device)
                    shape = (length,)
                    yield made(
                        lambda x, s, w: functions.layer_norm(x, s, w, w), (x, shape, scale), x
                    )
                    yield made(functions.rms_norm, (x, shape, scale), x)
        for n in sizes(chance, 24, 6e7, 8):
            r, c = rows(chance, n)
            x = bank.tensor(dtype, r, c)
            yield made(lambda x: x.sum(0), (x,), x, factor=1)
            yield made(lambda x: x.sum(), (x,), x, factor=1)
            yield made(lambda x: x.amax(0), (x,), x, factor=1)
            yield made(lambda x: torch.linalg.vector_norm(x, dim=-1), (x,), x, factor=1)
            pixels = x.view(1, r, c).transpose(1, 2)
            last = torch.ones(r, dtype=dtype, device=bank.device)
            if 48 <= r <= 4000:
                yield made(lambda x, w: functions.layer_norm(x, w.shape, w, w), (pixels, last), x)
            if c % 8 == 0:
                yield made(lambda x: x.sum(1), (x.view(r, 8, -1),), x, factor=1)
    for n in sizes(chance, 24, 3e7, 8):
        r, c = rows(chance, n)
        x, mask = bank.tensor(torch.int64, r, c), bank.tensor(torch.bool, r, c)
        yield made(lambda x: x.sum(0), (x,), x, factor=1)
        yield made(lambda x: x.sum(-1), (x,), x, factor=1)
        yield made(lambda x: x.max(), (x,), x, factor=1)
        yield made(lambda m: m.any(), (mask,), mask, factor=1)
        yield made(lambda m: m.sum(-1), (mask,), mask, factor=1)
