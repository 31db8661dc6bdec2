"""Gathers, scatters, selections, scans, sorts and top-k: operators whose work lies in an index."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from npusim.capture.routines.bank import Bank, Made, made, rows, sizes


def calls(bank: Bank, chance: Random) -> Iterator[Made]:
    """Yield them in a floating-point type and with the whole numbers that routers make."""
    torch = bank.torch
    for dtype in (torch.bfloat16, torch.float32):
        yield from _rows(bank, chance, dtype)
        yield from _single(bank, chance, dtype)
        yield from _topk(bank, chance, dtype)
    yield from _masks(bank, chance)
    yield from _whole_numbers(bank, chance)


def _rows(bank: Bank, chance: Random, dtype: Any) -> Iterator[Made]:
    """Yield rows taken from a table and rows added to one."""
    torch = bank.torch
    for n in sizes(chance, 24, 3e7, 20):
        chosen, width = rows(chance, n)
        table = bank.tensor(dtype, max(4, chosen // chance.choice((1, 2, 6))), width)
        source = bank.tensor(dtype, chosen, width, place=1)
        index = bank.index(len(table), chosen)
        yield made(lambda t, i: t[i], (table, index), table, index)
        yield made(lambda t, i: t[:, :-2][i], (table, index), table, index)
        yield made(lambda t, i: t.index_select(0, i), (table, index), table, index)
        yield made(lambda t, i: torch.nn.functional.embedding(i, t), (table, index), index)
        yield made(
            lambda t, i, s: t.index_add_(0, i, s), (table, index, source), table, source, index
        )
        yield made(
            lambda t, i, s: t.index_put_((i,), s), (table, index, source), table, source, index
        )
        few = min(width, 90)
        columns = bank.index(width, few)
        yield made(lambda t, i: t[:, i], (table, columns), table)
        wide = index[:, None].expand(chosen, width)
        yield made(lambda t, i: t.gather(0, i), (table, wide), table, index)
        yield made(
            lambda t, i, s: t.scatter_add_(0, i, s), (table, wide, source), table, source, index
        )


def _single(bank: Bank, chance: Random, dtype: Any) -> Iterator[Made]:
    """Yield single elements at two indices, as weights of a router are taken."""
    for n in sizes(chance, 1, 3e6, 14):
        x = bank.tensor(dtype, max(2, n // 6), 10)
        i, j = bank.index(len(x), n), bank.index(10, n)
        value = bank.tensor(dtype, n, place=1)
        yield made(lambda x, i, j: x[i, j], (x, i, j), x, i, j)
        yield made(lambda x, i, j: x[i, j, None], (x, i, j), x, i, j)
        yield made(lambda x, i, j, v: x.index_put_((i, j), v), (x, i, j, value), x, i, j)
        column = bank.index(10, len(x), 4)
        yield made(lambda x, i: x.gather(1, i), (x, column), x, column)
        spare = bank.tensor(dtype, *x.shape, place=2)
        yield made(lambda x, i: x.scatter_(1, i, 1.0), (spare, column), spare, column)


def _topk(bank: Bank, chance: Random, dtype: Any) -> Iterator[Made]:
    for width, chosen in ((16, 2), (48, 4), (96, 8), (160, 6), (500, 10), (3000, 40), (60_000, 5)):
        for n in sizes(chance, 1, min(2e4, 6e6 / width), 3):
            x = bank.tensor(dtype, n, width)
            yield made(lambda x, k: x.topk(k, -1), (x, chosen), x)
            yield made(lambda x: x.sort(-1), (x,), x)


def _masks(bank: Bank, chance: Random) -> Iterator[Made]:
    """Yield which elements of a mask are set, and the elements that a mask chooses."""
    torch = bank.torch
    for n in sizes(chance, 4, 2e7, 14):
        x = bank.tensor(torch.bfloat16, n)
        mask = bank.tensor(torch.bool, n)
        yield made(lambda m: m.nonzero(), (mask,), mask, factor=9)
        square = mask.view(2, -1) if n % 2 == 0 else mask.view(1, -1)
        yield made(torch.where, (square,), mask, factor=9)
        yield made(lambda x, m: x[m], (x, mask), x, mask)
        yield made(lambda x, m: x.masked_scatter_(m, x), (x, mask), x, mask)


def _whole_numbers(bank: Bank, chance: Random) -> Iterator[Made]:
    torch = bank.torch
    for n in sizes(chance, 2, 3e5, 10):
        chosen, width = chance.choice((2, 4, 7)), chance.choice((1, 96, 400, 1500))
        few = bank.index(8, chosen, max(1, n // chosen)).eq(0).long()  # few are set, as by a router
        yield made(torch.where, (few,), few)
        table = bank.tensor(torch.bfloat16, 700, 8 * width)
        source = bank.tensor(torch.bfloat16, min(n, 60), 8 * width, place=1)
        index = bank.index(len(table), len(source))
        yield made(lambda t, i: t[i], (table, index), source, index)
        yield made(lambda t, i, s: t.index_add_(0, i, s), (table, index, source), source, index)
        yield made(lambda t, i: t.index_select(0, i), (table, index), source, index)
    for n in sizes(chance, 2, 1e7, 12):
        x = bank.index(90, n)
        r, c = rows(chance, n)
        table = bank.tensor(torch.int64, r, c)
        small = x.int()
        yield made(lambda x: x.cumsum(0), (x,), x)
        yield made(lambda x: x.cumsum(0, dtype=torch.int32), (small,), small)
        yield made(lambda x: x.sort(), (x,), x)
        yield made(lambda x: x.argsort(), (x,), x)
        yield made(lambda x: torch.histc(x, bins=90, min=0, max=89), (small,), small)
        yield made(lambda x: torch.bincount(x, minlength=90), (x,), x)
        yield made(lambda t: t.cumsum(-1), (table,), table)
        yield made(lambda t: t.cumsum(0), (table,), table)
        once = torch.ones_like(x)
        yield made(lambda x, o: x.repeat_interleave(o, output_size=len(x)), (x, once), x)
