"""KV caches that grow by concatenation: which copies belong to which attention, and one token.

A trace tells nothing of addresses. A concatenation that reads and writes KV cache is taken to grow
the cache of the decode attention that comes next in its step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.transforms.context import touched as attends
from npusim.workload import BYTES_OF, Workload


def grows(w: Workload) -> NDArray[np.bool_]:
    """Return which operations copy a KV cache to make it longer, shape (K,)."""
    both: NDArray[np.bool_] = (w["read_kv"] > 0) & (w["write_kv"] > 0)
    return both & w.mask("kind", "cat") & w.classified


def writes(w: Workload) -> NDArray[np.bool_]:
    """Return which operations of decode write KV cache where it lies, shape (K,)."""
    alone: NDArray[np.bool_] = (w["read_kv"] == 0) & (w["write_kv"] > 0)
    return alone & w.mask("phase", "decode", "unknown") & w.classified


def copies_of(w: Workload) -> dict[int, list[int]]:
    """Return for each attention over a growing cache the concatenations that it waits for."""
    at, copies = np.flatnonzero(attends(w)), np.flatnonzero(grows(w))
    found: dict[int, list[int]] = {}
    owner = np.searchsorted(at, copies)
    for copy, i in zip(copies.tolist(), owner.tolist(), strict=True):
        if i < len(at) and w["step"][at[i]] == w["step"][copy]:
            found.setdefault(int(at[i]), []).append(copy)
    return found


@dataclass(frozen=True)
class Token:
    """What one token of each sequence adds to the keys (or the values) of a layer.

    Attributes
    ----------
    dtype : str
        Type that attention computes in.
    rows, size : int
        Sequences times key heads, and numbers of each.
    read : float
        Bytes of it as attention's operands are kept [B].
    written : float
        Bytes of it as the cache is kept [B].
    """

    dtype: str
    rows: int
    size: int
    read: float
    written: float


def token(w: Workload, attention: int, copy: int) -> Token:
    """Return the token that a concatenation adds to what an attention is over.

    Examples
    --------
    Two key heads of 128 numbers of two bytes:

    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> attention, copies = next(iter(copies_of(w).items()))
    >>> token(w, attention, copies[0])
    Token(dtype='bf16', rows=2, size=128, read=512.0, written=512.0)
    """
    batch, heads, kv_heads, size, keys = (
        max(int(w[c][attention]), 1) for c in ("batch", "heads", "kv_heads", "k", "n")
    )
    rows = batch * (kv_heads if w["kv_heads"][attention] else heads)
    dtype = w.labels["dtype"][w["dtype"][attention]]
    read = rows * size * BYTES_OF.get(dtype, 2.0)
    return Token(dtype, rows, size, read, float(w["write_kv"][copy]) / keys)
