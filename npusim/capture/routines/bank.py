"""Operands of the calls, cut out of one buffer a type, and how sizes are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

_ELEMENTS = 2**27  # of a buffer
_ROWS = (24, 48, 104, 192, 320, 520, 1000, 1544, 2312, 4104, 6000)  # lengths of a row


@dataclass(frozen=True)
class Made:
    """One call, ready to run.

    Attributes
    ----------
    call : callable
        Runs it; what it returns is dropped.
    inputs : tuple
        Contiguous tensors to rewrite before it, so that they are as warm as in a running model.
    nbytes : int
        About what it touches [B].
    """

    call: Callable[[], Any]
    inputs: tuple[Any, ...]
    nbytes: int


class Bank:
    """Random numbers on the device, one buffer for each type and place among the operands."""

    def __init__(self, torch: Any, device: str) -> None:
        self.torch = torch
        self.device = device
        self._buffers: dict[tuple[Any, int], Any] = {}

    def tensor(self, dtype: Any, *shape: int, place: int = 0) -> Any:
        """Return a contiguous tensor; calls that ask for the same place share its memory."""
        size = math.prod(shape)
        return self._buffer(dtype, place)[:size].view(shape)

    def index(self, below: int, *shape: int) -> Any:
        """Return a tensor of its own with whole numbers in [0, below), evenly drawn."""
        return self.torch.randint(below, shape, device=self.device)

    def _buffer(self, dtype: Any, place: int) -> Any:
        if (dtype, place) not in self._buffers:
            torch = self.torch
            if dtype.is_floating_point:
                made = torch.randn(_ELEMENTS, dtype=dtype, device=self.device)
            else:
                made = torch.randint(2, (_ELEMENTS,), device=self.device).to(dtype)
            self._buffers[dtype, place] = made
        return self._buffers[dtype, place]


def made(
    function: Callable[..., Any], operands: tuple[Any, ...], *fresh: Any, factor: float = 2.0
) -> Made:
    """Return a call; of its operands or what they lie in, `fresh` are rewritten before it.

    It is said to touch `factor` times their bytes.
    """
    nbytes = sum(x.numel() * x.element_size() for x in fresh)
    return Made(partial(function, *operands), fresh, int(factor * nbytes))


def sizes(chance: Random, low: float, high: float, count: int) -> Iterator[int]:
    """Yield sizes drawn one from each of `count` equal parts of a logarithmic scale.

    Examples
    --------
    >>> drawn = list(sizes(Random(0), 1, 1e6, 3))
    >>> [low <= n <= 100 * low for n, low in zip(drawn, (1, 100, 10000))]
    [True, True, True]
    """
    step = math.log(high / low) / count
    for i in range(count):
        yield round(low * math.exp(step * (i + chance.random())))


def rows(chance: Random, elements: int) -> tuple[int, int]:
    """Return rows and row length that make about so many elements.

    Examples
    --------
    >>> n, length = rows(Random(0), 100_000)
    >>> 50_000 < n * length <= 100_000
    True
    """
    length = chance.choice([n for n in _ROWS if n <= max(elements, _ROWS[0])])
    return max(1, elements // length), length
