"""Copies by the copy engine: to and from the host, and on the device."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from npusim.capture.routines.bank import Bank, Made, made, sizes

_SIZES = 8


def calls(bank: Bank, chance: Random) -> Iterator[Made]:
    """Yield single values, and blocks of memory up to 30 MB."""
    torch = bank.torch
    for dtype in (torch.bfloat16, torch.float32, torch.int64):
        for _ in range(4):
            one = bank.tensor(dtype, 1)
            yield made(lambda x: x.item(), (one,), one)
    for n in sizes(chance, 1, 3e7, _SIZES):
        x, y = (bank.tensor(torch.int8, n, place=place) for place in (0, 1))
        pageable = torch.zeros(n, dtype=torch.int8)
        pinned = pageable.pin_memory() if bank.device != "cpu" else pageable
        yield made(lambda x: x.cpu(), (x,), x)
        yield made(lambda x, p: p.copy_(x, non_blocking=True), (x, pinned), x)
        yield made(lambda p: p.to(bank.device), (pageable,), x)
        yield made(lambda x, p: x.copy_(p, non_blocking=True), (x, pinned), x)
        yield made(lambda x, y: y.copy_(x), (x, y), x)
