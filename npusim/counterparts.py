"""Which operations of two traces of one program are the same one, at another batch or context.

Steps go in order, and so do the operations of a step: kind by kind, a product of one row (GEMV)
being the same as one of several (GEMM). Kernels that a library adds for some sizes and not for
others (what combines parts of the keys or of a product, what clears a counter for that) may be
there in one trace alone; all else has to be in both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.workload import Workload

Index = NDArray[np.intp]
Mask = NDArray[np.bool_]

_COME_AND_GO = ("attention_combine", "splitk_reduce", "memset")
_PRODUCTS = ("gemv", "gemm")


def counterparts(w: Workload, other: Workload) -> Index:
    """Return the operation of another trace that each operation of a workload is, -1 for none.

    Parameters
    ----------
    w : Workload
        K operations in S steps.
    other : Workload
        The same program; of its steps the first S count.

    Returns
    -------
    array of int, shape (K,)

    Raises
    ------
    InputError
        Another program: fewer steps, other operations, or products with other weights.

    Examples
    --------
    >>> import npusim as ns
    >>> one, many = (ns.load_workload("deepseek_ocr_decode_grouped" + b) for b in ("", "_b16"))
    >>> at = counterparts(one, many)
    >>> len(one), int((at < 0).sum()), set(one.text("kind")[at < 0])
    (2871, 36, {'attention_combine'})
    """
    if len(other.steps) < len(w.steps):
        raise InputError("fewer steps than the workload has", file=other.name,
                         value=len(other.steps), allowed=f"{len(w.steps)} or more")  # fmt: skip
    found = np.full(len(w), -1, dtype=np.intp)
    kinds, theirs = _kinds(w), _kinds(other)
    for step in range(len(w.steps)):
        a, b = (np.flatnonzero(x["step"] == step) for x in (w, other))
        _check(w, other, step, kinds[a], theirs[b])
        number = dict(zip(_places(theirs[b]), b.tolist(), strict=True))
        found[a] = [number.get(key, -1) for key in _places(kinds[a])]
    _check_weights(w, other, found)
    return found


def _kinds(w: Workload) -> NDArray[np.object_]:
    """Return the kind of each operation, the same for all products of two matrices."""
    kinds = w.text("kind")
    kinds[w.mask("kind", *_PRODUCTS)] = "product"
    return kinds


def _stays(kinds: NDArray[np.object_]) -> Mask:
    """Return which operations a program has whatever the size."""
    stays: Mask = ~np.isin(kinds, _COME_AND_GO)
    return stays


def _places(kinds: NDArray[np.object_]) -> list[tuple[int, str, int]]:
    """Return what tells the operations of a step apart.

    How many that stay there are up to it, its kind, and its number among those of the kind since.

    Examples
    --------
    >>> _places(np.array(["product", "splitk_reduce", "splitk_reduce", "copy"], dtype=object))
    [(1, 'product', 0), (1, 'splitk_reduce', 0), (1, 'splitk_reduce', 1), (2, 'copy', 0)]
    """
    places = list(zip(np.cumsum(_stays(kinds)).tolist(), kinds.tolist(), strict=True))
    count: dict[tuple[int, str], int] = {}
    found = []
    for place in places:
        count[place] = count.get(place, -1) + 1
        found.append((*place, count[place]))
    return found


def _check(
    w: Workload, other: Workload, step: int, kinds: NDArray[np.object_],
    theirs: NDArray[np.object_],
) -> None:  # fmt: skip
    """Refuse a step that is of another program."""
    a, b = kinds[_stays(kinds)], theirs[_stays(theirs)]
    if len(a) != len(b):
        raise InputError("not a trace of the same program: other operations", file=other.name,
                         place=f"step {step}", value=f"{len(b)} operations",
                         allowed=f"{len(a)}, as in {w.name}")  # fmt: skip
    differ = np.flatnonzero(a != b)
    if differ.size:
        at = int(differ[0])
        raise InputError("not a trace of the same program: other operations", file=other.name,
                         place=f"step {step}, operation {at} of those that stay",
                         value=b[at], allowed=f"{a[at]}, as in {w.name}")  # fmt: skip


def _check_weights(w: Workload, other: Workload, at: Index) -> None:
    """Refuse a program whose products have other weights."""
    rows = np.flatnonzero(w.mask("kind", *_PRODUCTS) & (w["read_weight"] > 0) & (at >= 0))
    for column in ("n", "k"):
        differ = rows[w[column][rows] != other[column][at[rows]]]
        if differ.size:
            row = int(differ[0])
            raise InputError("not a trace of the same program: a product with other weights",
                             file=other.name, place=f"operation {at[row]}, {column}",
                             value=other[column][at[row]],
                             allowed=f"{w[column][row]}, as in {w.name}")  # fmt: skip
