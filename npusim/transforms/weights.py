"""Quantised weights: products read fewer (or more) bytes of weights, and do the same arithmetic.

A weight of `bits` bits in groups of g that share a scale of 16 bits takes

    stored = bits + 16 / g        [bit]

so a product reads ``read_weight x stored / own`` bytes, where own is the width of its type, or what
an earlier change made of it. A bias (as many numbers as the product has columns), weights of norms
and embeddings stay as they are.

Source: group-wise scales as in E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh, "GPTQ", 2022,
arXiv:2210.17323, and J. Lin et al., "AWQ", 2023, arXiv:2306.00978.

What widening them takes is `npusim.models.conversion`; products in another type are
`npusim.transforms.precision`.

Left out: zero points, layers that a recipe leaves wide, what quantisation does to the answers of
the model. `npusim.models.gemm` counts what units load of tiles from the last-level cache in the
width of the type, so that products which that bounds gain less than a kernel that widens weights
inside the units.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.transforms.record import changed, changes, checked, lacks
from npusim.transforms.widths import own_bits, usual
from npusim.workload import Workload

Array = NDArray[np.float64]

BITS, GROUP = "workload.weight_bits", "workload.weight_group"
PARAMETERS = (BITS, GROUP)
NEEDS = "matrix product that reads weights"
LIMIT = (
    "arithmetic stays in the type traced; weights are widened at no cost where a machine gives no "
    "conversion.rate"
)
UNMEASURED = "weights in another width than the arithmetic, which no measured product has"

_PRODUCTS = ("gemv", "gemm", "grouped_gemm", "conv")
_SCALE = 16.0  # bits


def quantize_weights(
    w: Workload, bits: float | None = None, group: float | None = None
) -> Workload:
    """Return a workload whose matrix products read weights of another width.

    Parameters
    ----------
    w : Workload
    bits : float, optional
        Bits a weight [bit], 1 to 64; by default as they are.
    group : float, optional
        Weights that share one scale of 16 bits, 0 for no scales; by default as it is.

    Returns
    -------
    Workload
        ``meta["transforms"]`` says what was changed. Measured times stay what they were.

    Raises
    ------
    InputError
        Out of bounds, no weights to change, or a type of unknown width.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> four = quantize_weights(w, 4, group=128)
    >>> gemv = w.mask("kind", "gemv")
    >>> bytes_read = [float(v["read_weight"][gemv].sum()) for v in (w, four)]
    >>> 16 * bytes_read[1] / bytes_read[0]
    4.125
    """
    given = {BITS: bits, GROUP: group}
    return transform(w, {path: value for path, value in given.items() if value is not None})


def transform(w: Workload, settings: Mapping[str, float]) -> Workload:
    """Return a workload with weights as some of `PARAMETERS` say."""
    asked = checked(settings)
    if 0 < asked.get(GROUP, 0) < 1:
        raise InputError("not a number of weights", place=GROUP, value=asked[GROUP],
                         allowed="0 (no scales), or 1 or more")  # fmt: skip
    rows = touched(w)
    if not rows.any():
        raise lacks(w, NEEDS, BITS)
    own, before = own_bits(w, rows), changes(w)
    now, then = _stored(own, before), _stored(own, {**before, **asked})
    read = w["read_weight"].copy()
    bias = _bias(w, rows, now, own)
    read[rows] = (read[rows] - bias) * (then / now) + bias
    return changed(w, asked, {"read_weight": read}, origin="extrapolated")


def touched(w: Workload) -> NDArray[np.bool_]:
    """Return which operations read weights that can be quantised, shape (K,)."""
    return w.mask("kind", *_PRODUCTS) & (w["read_weight"] > 0) & w.classified


def present(w: Workload) -> dict[str, float]:
    """Return the settings that describe most weights as they are."""
    rows, before = touched(w), changes(w)
    bits = usual(own_bits(w, rows), w["read_weight"][rows])
    return {BITS: before.get(BITS, bits), GROUP: before.get(GROUP, 0.0)}


def _stored(own: Array, settings: Mapping[str, float]) -> Array:
    """Return what a weight takes with its share of a scale, one a product [bit]."""
    group = settings.get(GROUP, 0.0)
    return np.full_like(own, settings.get(BITS, own)) + (_SCALE / group if group else 0.0)


def _bias(w: Workload, rows: NDArray[np.bool_], now: Array, own: Array) -> Array:
    """Return the bytes that a product reads beside its matrix, if they are those of a bias [B]."""
    n, k = w["n"][rows], w["k"][rows]
    rest, bias = w["read_weight"][rows] - n * k * now / 8, n * own / 8
    found: Array = np.where(np.isclose(rest, bias, rtol=1e-9, atol=0.0), bias, 0.0)
    return found
