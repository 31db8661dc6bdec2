"""A compressed KV cache: attention reads, and what makes the cache writes, other widths.

Every operation moves ``bytes of KV cache x bits / own`` bytes, where own is the width of its type,
or what an earlier change made of it. Queries and results stay, and so does the type that attention
computes in.

Source: per-number widths as in C. Hooper et al., "KVQuant", 2024, arXiv:2401.18079.

Left out: the work of narrowing and widening, scales, keys kept wider than values, latent caches.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from npusim.transforms.record import changed, changes, checked, lacks
from npusim.transforms.widths import own_bits, usual
from npusim.workload import Workload

BITS = "workload.kv_bits"
PARAMETERS = (BITS,)
NEEDS = "operation on a KV cache"
LIMIT = "keys and values are widened as they are loaded, at no cost"
UNMEASURED = "a KV cache in another width than the arithmetic, which no measured attention has"

_MOVED = ("read_kv", "write_kv")


def quantize_cache(w: Workload, bits: float) -> Workload:
    """Return a workload whose KV cache is kept in another width.

    Parameters
    ----------
    w : Workload
    bits : float
        Bits a number [bit], 1 to 64.

    Returns
    -------
    Workload
        ``meta["transforms"]`` says what was changed. Measured times stay what they were.

    Raises
    ------
    InputError
        Out of bounds, no KV cache, or a type of unknown width.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> float(quantize_cache(w, 8)["read_kv"].sum() / w["read_kv"].sum())
    0.5
    """
    return transform(w, {BITS: bits})


def transform(w: Workload, settings: Mapping[str, float]) -> Workload:
    """Return a workload with a KV cache as `PARAMETERS` say."""
    asked, rows = checked(settings), touched(w)
    if not rows.any():
        raise lacks(w, NEEDS, BITS)
    now = changes(w).get(BITS, own_bits(w, rows))
    columns = {name: w[name].copy() for name in _MOVED}
    for column in columns.values():
        column[rows] *= asked.get(BITS, now) / now
    return changed(w, asked, columns, origin="extrapolated")


def touched(w: Workload) -> NDArray[np.bool_]:
    """Return which operations read or write KV cache, shape (K,)."""
    moved: NDArray[np.float64] = np.sum([w[name] for name in _MOVED], axis=0)
    return (moved > 0) & w.classified


def present(w: Workload) -> dict[str, float]:
    """Return the settings that describe most of the KV cache as it is."""
    rows = touched(w)
    bits = usual(own_bits(w, rows), w["read_kv"][rows] + w["write_kv"][rows])
    return {BITS: changes(w).get(BITS, bits)}
