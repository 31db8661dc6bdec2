"""What the device events of a Kineto trace say of themselves: grid, stream, registers, bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec

Plain = str | int | float | None


class Sized(
    msgspec.Struct,
    gc=False,
    rename={"registers": "registers per thread", "shared_memory": "shared memory"},
):
    """What a device event says of itself; lists stay text until somebody needs them."""

    correlation: Plain = None
    device: Plain = None
    stream: Plain = None
    grid: msgspec.Raw = msgspec.Raw()
    block: msgspec.Raw = msgspec.Raw()
    registers: Plain = None
    shared_memory: Plain = None
    bytes: Plain = None


SizeKey = tuple[str | None, bytes, bytes, tuple[Plain, ...]]
_SIZES = attrgetter("device", "stream", "registers", "shared_memory", "bytes")
_TRIPLE = msgspec.json.Decoder(tuple[int, int, int])


@dataclass(frozen=True)
class Sizes:
    """What a device event says of itself besides its name."""

    grid: tuple[int, int, int]
    threads: int
    nbytes: float
    device: int
    stream: int
    registers: int
    shared_memory: float
    category: str


def texts(raw: Iterable[msgspec.Raw]) -> list[bytes]:
    """Return texts apart from the piece they are in, faster than one by one.

    No JSON holds a zero byte.
    """
    return b"\0".join(raw).split(b"\0")


def size_keys(categories: Sequence[str | None], sized: Sequence[Sized | None]) -> Iterable[SizeKey]:
    """Return what sizes are read from; most kernels of a trace agree in it with others."""
    if not sized:
        return []
    none = Sized()
    known = [a if a is not None else none for a in sized]
    grids, blocks = texts([a.grid for a in known]), texts([a.block for a in known])
    return zip(categories, grids, blocks, map(_SIZES, known), strict=True)


@lru_cache(1024)  # pieces agree in most
def size_of(key: SizeKey) -> Sizes:
    """Return sizes as numbers, 0 for what is none."""
    category, grid, block, (device, stream, registers, shared_memory, nbytes) = key
    return Sizes(
        _triple(grid),
        math.prod(_triple(block)),
        _number(nbytes),
        int(_number(device)),
        int(_number(stream)),
        int(_number(registers)),
        _number(shared_memory),
        str(category),
    )


def _triple(raw: bytes) -> tuple[int, int, int]:
    """Return sizes along three axes; zeros where the text does not say them.

    Examples
    --------
    >>> _triple(b"[8, 1, 1]"), _triple(b"[8]"), _triple(b"")
    ((8, 1, 1), (0, 0, 0), (0, 0, 0))
    """
    try:
        x, y, z = _TRIPLE.decode(raw)
    except msgspec.DecodeError:
        return (0, 0, 0)
    return (x, y, z) if all(0 <= v < 2**31 for v in (x, y, z)) else (0, 0, 0)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0.0
    return float(value) if 0 <= value < 2**50 else 0.0
