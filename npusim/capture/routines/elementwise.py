"""Pointwise operators, casts, copies, fills and concatenations over layouts.

A layout decides the routine: what lies in memory without holes is read in wide pieces, anything
else by an address for each element.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any

from npusim.capture.routines.bank import Bank, Made, made, rows, sizes

_SIZES, _LARGE = 6, 1.2e8


def calls(bank: Bank, chance: Random) -> Iterator[Made]:
    """Yield every operator in every layout at sizes from one element up."""
    torch = bank.torch
    for dtype in (torch.bfloat16, torch.float32):
        yield from _plain(bank, chance, dtype)
        yield from _broadcast(bank, chance, dtype)
        yield from _views(bank, chance, dtype)
        yield from _heads(bank, chance, dtype)
        yield from _images(bank, chance, dtype)
        yield from _cat(bank, chance, dtype)
    yield from _mixed(bank, chance)
    yield from _whole_numbers(bank, chance)


def _plain(bank: Bank, chance: Random, dtype: Any) -> Iterator[Made]:
    torch = bank.torch
    other = torch.float32 if dtype == torch.bfloat16 else torch.bfloat16
    functions = torch.nn.functional
    unary = (
        functions.silu, functions.gelu, torch.neg, torch.sigmoid, torch.cos, torch.rsqrt,
        lambda x: functions.gelu(x, approximate="tanh"),
        lambda x: x.pow(2), lambda x: x + 1.5, lambda x: x.to(other), lambda x: x > 0.5,
        lambda x: x.clamp(min=-1.0), torch.zeros_like, lambda x: torch.full_like(x, 0.25),
    )  # fmt: skip
    binary = (torch.add, torch.mul, lambda x, y: x.add_(y))
    for function in unary:
        for n in sizes(chance, 1, _LARGE, _SIZES):
            x = bank.tensor(dtype, n)
            yield made(function, (x,), x)
    for function in binary:
        for n in sizes(chance, 1, _LARGE, _SIZES):
            x, y = (bank.tensor(dtype, n, place=place) for place in (0, 1))
            yield made(function, (x, y), x, y, factor=1.5)
    for n in sizes(chance, 1, _LARGE, _SIZES):
        x, mask = bank.tensor(dtype, n), bank.tensor(torch.bool, n)
        yield made(lambda x, m: x.masked_fill(m, 0.0), (x, mask), x, mask)
        yield made(lambda x, m: torch.where(m, x, 0.5), (x, mask), x, mask)


def _broadcast(bank: Bank, chance: Random, dtype: Any) -> Iterator[Made]:
    torch = bank.torch
    for n in sizes(chance, 24, _LARGE, 2 * _SIZES):
        r, c = rows(chance, n)
        x, row, column = (bank.tensor(dtype, *s) for s in ((r, c), (c,), (r, 1)))
        row, column = row + 0, column + 0  # memory of their own
        yield made(lambda x, y: x * y, (x, row), x)
        yield made(lambda x, y: x * y, (x, column), x)
        yield made(lambda x, y: x.expand(3, *x.shape).contiguous(), (x, column), x, factor=4)
        mask = bank.index(2, c).bool()
        yield made(lambda x, y: torch.where(y, x, 0.5), (x, mask), x)
        spare = bank.tensor(dtype, r, c, place=2)
        yield made(lambda x, y: x.masked_fill_(y, 0.0), (spare, mask), spare)


def _views(bank: Bank, chance: Random, dtype: Any) -> Iterator[Made]:
    """Yield halves of rows, every other element, rows as columns, a start off a boundary."""
    torch = bank.torch
    functions = torch.nn.functional
    for n in sizes(chance, 48, _LARGE, 2 * _SIZES):
        r, c = rows(chance, n)
        x, y = (bank.tensor(dtype, r, c, place=place) for place in (0, 1))
        half = c // 2
        yield made(lambda x, h: functions.silu(x[:, :h]), (x, half), x)
        yield made(lambda x, h: -x[:, h:], (x, half), x)
        yield made(lambda x, h: x[:, :h] * x[:, h:], (x, half), x, factor=1.5)
        yield made(lambda x: x[:, ::2].contiguous(), (x,), x, factor=1.5)
        yield made(lambda x: x.t().contiguous(), (x,), x)
        yield made(lambda x, y: x + y.view(y.shape[::-1]).t(), (x, y), x, y, factor=1.5)
        flat = x.view(-1)[1:]
        yield made(lambda x: -x, (flat,), x)
        yield made(lambda x, y: x * y, (flat, y.view(-1)[1:]), x, y, factor=1.5)


def _heads(bank: Bank, chance: Random, dtype: Any) -> Iterator[Made]:
    """Yield what attention does to heads: turning, transposing, repeating and masking."""
    torch = bank.torch
    for n in sizes(chance, 400, 3e7, 2 * _SIZES):
        heads, size = chance.choice(((6, 48), (14, 96), (18, 160), (28, 32), (4, 192)))
        batch = chance.choice((1, 1, 3, 7))
        length = max(1, n // (batch * heads * size))
        x = bank.tensor(dtype, batch, length, heads, size)
        turned = x.transpose(1, 2)
        angle = bank.tensor(dtype, batch, 1, length, size, place=1)
        yield made(lambda q, a: q * a, (turned, angle), x, angle)
        yield made(lambda q, h: -q[..., h:], (turned, size // 2), x, factor=1.5)
        yield made(lambda q, h: torch.cat((q[..., h:], q[..., :h]), -1), (turned, size // 2), x)
        yield made(lambda q: q.contiguous(), (turned,), x)
        repeated = x[:, :, :, None].expand(batch, length, heads, 2, size)
        yield made(torch.clone, (repeated,), x, factor=3)
        yield made(lambda q: q.mul(0.125), (turned,), x)


def _images(bank: Bank, chance: Random, dtype: Any) -> Iterator[Made]:
    """Yield windows of an image, and scores to which a bias of rows and of columns is added."""
    torch = bank.torch
    for n in sizes(chance, 4000, 6e7, _SIZES):
        window, channels = chance.choice((4, 6, 10, 12)), chance.choice((40, 96, 200))
        across = max(1, round((n / channels) ** 0.5 / window))
        side = across * window
        x = bank.tensor(dtype, 1, across, window, across, window, channels)
        yield made(lambda x: x.permute(0, 1, 3, 2, 4, 5).contiguous(), (x,), x)
        flat = x.view(1, side, side, channels)
        yield made(lambda x: x.permute(0, 3, 1, 2).contiguous(), (flat,), flat)
        turned = flat.view(1, channels, side, side)
        longer = side + side // 3 + 1
        for mode in ("bilinear", "bicubic"):
            resize = partial(torch.nn.functional.interpolate, size=(longer, longer), mode=mode)
            yield made(resize, (turned,), x)
        stretch = partial(torch.nn.functional.interpolate, size=2 * side + 1, mode="linear")
        yield made(stretch, (flat.view(1, side, side * channels),), x)
        keys = max(4, round((n / 6) ** 0.25))
        score = bank.tensor(dtype, 6, keys * keys, keys, keys)
        high = bank.tensor(dtype, 6, keys * keys, keys, 1, place=1)
        wide = bank.tensor(dtype, 6, keys * keys, 1, keys, place=1)
        yield made(lambda s, a: s + a, (score, high), score)
        yield made(lambda a, b: a + b, (high, wide), high, wide, factor=1 + keys / 2)
        # The same with queries, heads and keys in another order in memory: nothing can be merged.
        high = high.view(keys, 6, keys, keys).permute(1, 0, 2, 3)[..., None]
        wide = wide.view(keys, 6, keys, keys).permute(1, 2, 0, 3)[..., None, :]
        score = score.view(6, keys, keys, keys, keys)
        yield made(torch.add, (high, wide), high.permute(1, 0, 2, 3, 4), factor=1 + keys / 2)
        yield made(torch.add, (score, high), score)
        yield made(lambda s: s.permute(0, 2, 1, 4, 3).contiguous(), (score,), score)


def _cat(bank: Bank, chance: Random, dtype: Any) -> Iterator[Made]:
    """Yield few and many inputs along the first, a middle and the last dimension."""
    torch = bank.torch
    for n in sizes(chance, 48, 6e7, _SIZES):
        r, c = rows(chance, n)
        x, y = (bank.tensor(dtype, r, c, place=place) for place in (0, 1))
        yield made(lambda x, y: torch.cat((x, y), -1), (x, y), x, y)
        yield made(lambda x, y: torch.cat((x, y)), (x, y), x, y)
        yield made(lambda x, h: torch.cat((x[:, h:], x[:, :h]), -1), (x, c // 2), x)
        yield made(lambda x, y: torch.cat((x, y[:, :8]), -1), (x, y), x)
        yield made(lambda x, y: torch.cat((x.t(), y.t())), (x, y), x, y)
        parts = x.split(max(1, r // chance.choice((3, 10, 40))))[:64]
        yield made(torch.cat, (parts,), x)
        batch = chance.choice((1, 5))
        cache = bank.tensor(dtype, batch, 6, max(1, r // (6 * batch)), c)
        yield made(lambda k: torch.cat((k, k[:, :, :1]), -2), (cache,), cache)
        turned = cache.view(batch, -1, 6, c).transpose(1, 2)
        nothing = cache.new_empty(0)
        yield made(lambda k, e: torch.cat((e, k), -2), (turned, nothing), cache)


def _mixed(bank: Bank, chance: Random) -> Iterator[Made]:
    """Yield operands of two types: the cast happens element by element inside the routine."""
    half, single = bank.torch.bfloat16, bank.torch.float32
    for n in sizes(chance, 24, _LARGE, 2 * _SIZES):
        r, c = rows(chance, n)
        x, y = bank.tensor(half, r, c), bank.tensor(single, r, c)
        row, column = bank.tensor(single, c) + 0, bank.tensor(single, r, 1) + 0
        yield made(lambda x, y: x * y, (x, y), x, y, factor=1.7)
        yield made(lambda x, y: x.add_(y), (x, y), x, y, factor=1.7)
        yield made(lambda x, y: x * y, (x, row), x, factor=3)
        yield made(lambda x, y: x * y, (x, column), x, factor=3)
        yield made(lambda x, y: y * x, (x, x.sum() * 0 + 2.0), x, factor=3)
        yield made(lambda x: x[:, ::2].float(), (x,), x, factor=2)
        yield made(lambda x: x.t().float(), (x,), x, factor=3)
        yield made(lambda y: y.t().to(half, memory_format=bank.torch.contiguous_format), (y,), y)


def _whole_numbers(bank: Bank, chance: Random) -> Iterator[Made]:
    torch = bank.torch
    for n in sizes(chance, 1, 3e7, _SIZES):
        x, y, mask = (bank.tensor(d, n) for d in (torch.int64, torch.int32, torch.bool))
        yield made(lambda x: x == 3, (x,), x)
        yield made(lambda x: x + 2, (x,), x)
        yield made(lambda x: x // 6, (x,), x)
        yield made(lambda x: x.to(torch.int32), (x,), x)
        yield made(lambda x: x.float(), (x,), x)
        yield made(lambda x: x.clamp_(0, 1), (x,), x)
        yield made(lambda y: y - y, (y,), y)
        yield made(lambda m: m & m, (mask,), mask)
        yield made(lambda m: ~m, (mask,), mask)
        yield made(lambda m: m.to(torch.int64), (mask,), mask, factor=9)
        yield made(lambda x: x == 3, (x[1:],), x)
        yield made(lambda y: y - y, (y[1:],), y)
        yield made(lambda n: torch.arange(n, device=bank.device), (n,), x)
    for n in sizes(chance, 48, 3e7, _SIZES):
        r, c = rows(chance, n)
        x = bank.tensor(torch.int64, r, c)
        yield made(lambda x: x[:, ::2].contiguous(), (x,), x)
        yield made(lambda x: x[:, 0] == 1, (x,), x)
        yield made(lambda x: x.t().contiguous(), (x,), x)
        yield made(lambda x, k: x[:k, :1] == x[:1], (x, min(r, 64)), x)
