"""Strong ids of designs, millions a second.

The id of a design is 128 bits: ``mix(head + sum of h(path, value))`` over the parameters in which
it differs from its machine, two numbers of 64 bits that add up modulo 2^64 each. ``head`` is the
BLAKE2b (RFC 7693) of what a sweep shares, ``h`` the mix of the BLAKE2b of the path and the eight
bytes of the value (of a text: the BLAKE2b of both), so that a column of a million different values
costs no million hashes. ``mix`` is one-to-one and spreads every bit over all others (the finaliser
of SplitMix64: G. L. Steele, D. Lea and C. H. Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014, doi:10.1145/2660193.2660195), so that neighbours have nothing in common.

A sum does not know an order: a design has one id whatever space it was found in, whatever the order
of its axes, and also where an axis is at the machine's own value. Two sets of values that add up
to the same 128 bits are as likely as two equal hashes.

Left out: designs made up to collide. The mix is no cipher, and a sum of hashes can be aimed at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from npusim.errors import InputError

Lanes = NDArray[np.uint64]  # (N, 2): the two halves of N ids
_CHUNK = 8_192  # designs at a time, so that what is added up stays in cache
_MOST = (2**31 - 1) // 32  # designs whose ids fit a string array of Arrow
_DIGITS = np.array([f"{byte:02x}" for byte in range(256)], dtype="S2").view(np.uint16)
_NIBBLE = np.full(256, 255, dtype=np.uint8)
_NIBBLE[np.frombuffer(b"0123456789abcdef", dtype=np.uint8)] = np.arange(16)


def head(parts: Mapping[str, Any]) -> NDArray[np.uint64]:
    """Return what all designs of a sweep share: machine, workloads, mode, version of the models.

    Parameters
    ----------
    parts : mapping
        JSON; the order of its keys does not matter.

    Returns
    -------
    ndarray of uint64, (2,)

    Examples
    --------
    >>> bool((head({"a": 1, "b": 2}) == head({"b": 2, "a": 1})).all())
    True
    """
    return _hashed("head", json.dumps(parts, sort_keys=True, allow_nan=False))


def of_values(
    path: str, values: ArrayLike | Sequence[str], own: float | str | None = None
) -> Lanes:
    """Return what one parameter adds to the ids of N designs.

    Parameters
    ----------
    path : str
        The parameter.
    values : array_like of float or of str, (N,)
        Its values [SI]. All not-a-numbers are one value, and so are the two zeros.
    own : float or str, optional
        The machine's own value: designs that have it add nothing.

    Returns
    -------
    ndarray of uint64, (N, 2)

    Examples
    --------
    >>> of_values("clock.boost", [1e9, 2e9, 1e9], own=1e9)[[0, 2]].tolist()
    [[0, 0], [0, 0]]
    """
    given = np.asarray(values)
    if given.dtype.kind in "OUST":
        distinct, place = np.unique(given.astype(str), return_inverse=True)
        table = np.array([_hashed(path, text) for text in distinct.tolist()], dtype=np.uint64)
        table = table.reshape(-1, 2)
        table[distinct == own if isinstance(own, str) else np.zeros(len(table), bool)] = 0
        return table[place.reshape(-1)]
    bits, key = _bits(given), _hashed(path)
    found = np.empty((len(bits), 2), dtype=np.uint64)
    for start in range(0, len(bits), _CHUNK):
        piece = bits[start : start + _CHUNK]
        keyed = np.stack([piece + key[0], np.broadcast_to(key[1], piece.shape)], axis=1)
        found[start : start + _CHUNK] = mix(keyed)
    if own is not None and not isinstance(own, str):
        found[bits == _bits(np.array([own]))] = 0
    return found


def _bits(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Return numbers as they are kept, one pattern for zero and one for not-a-number."""
    numbers = values.astype(np.float64).reshape(-1)
    numbers[np.isnan(numbers)] = np.nan
    numbers += 0.0  # makes -0.0 the other zero
    return numbers.view(np.uint64)


def _hashed(name: str, text: str | None = None) -> NDArray[np.uint64]:
    """Return the hash of a name, or of a name and a text, two lanes."""
    parts = [name] if text is None else [name, text]
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def design_ids(
    head: NDArray[np.uint64], contributions: Sequence[Lanes], rows: int | None = None
) -> pa.StringArray:
    """Return the ids of N designs.

    Parameters
    ----------
    head : ndarray of uint64, (2,)
    contributions : sequence of ndarray of uint64, (N, 2)
        What each parameter adds, in any order; of shape (1, 2) or (2,) what all designs share.
    rows : int, optional
        N, where no contribution tells it.

    Returns
    -------
    StringArray, N of 32 hexadecimal digits

    Raises
    ------
    InputError
        More designs at once than Arrow can hold as texts (67 million).

    Examples
    --------
    >>> bandwidth = of_values("memories.dram.bandwidth", [2e12, 4e12])
    >>> clock = of_values("clock.boost", [1e9, 1e9])
    >>> ids = design_ids(head({"arch": "x"}), [bandwidth, clock])
    >>> ids.equals(design_ids(head({"arch": "x"}), [clock, bandwidth]))
    True
    """
    counts = {len(one) for one in contributions if one.ndim == 2 and len(one) != 1}
    count = rows if rows is not None else counts.pop() if counts else 1
    if count > _MOST:
        raise InputError("too many designs in one block", value=count, allowed=f"up to {_MOST}")
    shared = head.copy()
    varied = []
    for one in contributions:
        if one.ndim == 1 or len(one) == 1:
            shared += one.reshape(2)
        else:
            varied.append(one)
    text = np.empty((count, 16), dtype=np.uint16)
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        total = np.broadcast_to(shared, (size, 2)).copy()
        for one in varied:
            total += one[start : start + size]
        mixed = np.ascontiguousarray(mix(total), dtype=">u8").view(np.uint8)
        np.take(_DIGITS, mixed, out=text[start : start + size])
    offsets = np.arange(0, 32 * count + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text))


def mix(lanes: Lanes) -> Lanes:
    """Return other numbers, one to one, each bit of which depends on all bits given.

    Parameters
    ----------
    lanes : ndarray of uint64, (N, 2)

    Returns
    -------
    ndarray of uint64, (N, 2)
    """
    low, high = lanes[:, 0].copy(), lanes[:, 1].copy()
    for _ in range(2):
        _finalised(low)
        high += low
        _finalised(high)
        low += high
    return np.stack([low, high], axis=1)


def _finalised(x: NDArray[np.uint64]) -> None:
    """Spread the bits of each number over its 64 bits, in place."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, None)):
        x ^= x >> np.uint64(shift)
        if factor is not None:
            x *= np.uint64(factor)


def lanes_of(ids: pa.Array) -> Lanes:
    """Return ids as numbers: 16 bytes each instead of 32 digits.

    Parameters
    ----------
    ids : StringArray or LargeStringArray, N

    Returns
    -------
    ndarray of uint64, (N, 2)

    Raises
    ------
    InputError
        A text that is no id.

    Examples
    --------
    >>> lanes_of(pa.array(["0000000000000001" + "000000000000000a"])).tolist()
    [[1, 10]]
    """
    if not (pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)):
        raise InputError("ids are no text", place="design_id", value=str(ids.type))
    wide = ids.cast(pa.large_string())
    lengths = np.diff(np.frombuffer(wide.buffers()[1], np.int64)[wide.offset :][: len(wide) + 1])
    if wide.null_count or (len(wide) and (lengths != 32).any()):
        raise InputError("an id has not 32 digits", place="design_id")
    if not len(wide):
        return np.empty((0, 2), np.uint64)
    first = np.frombuffer(wide.buffers()[1], np.int64)[wide.offset]
    digits = np.frombuffer(wide.buffers()[2], np.uint8)[first : first + 32 * len(wide)]
    values = _NIBBLE[digits]
    if (values == 255).any():
        raise InputError("an id has something else than hexadecimal digits", place="design_id")
    packed = (values[0::2] << 4) | values[1::2]
    return packed.view(">u8").astype(np.uint64).reshape(-1, 2)
