"""Another context: decode attention over more or fewer keys, and what copies the growing cache.

In a step whose decode attention (one query a sequence, keys from a KV cache) is over n keys and is
asked to be over N,

    attention:  n = N; KV bytes and FLOP x N / n
    copies:     KV bytes and rows x N / n, a launch grid as their library takes it

where copies are operations that read and write KV cache: a cache that grows by concatenation is
copied whole. Every step of a capture gets the same N. What writes the new token alone stays.

The launch grid of attention stays: a grid that is known says that the kernel is one of a trace,
which lists the kernels beside it (the one that combines parts of the keys) apart. How many parts
there are follows from the keys and the machine (`npusim.models.attention`).

Source: shapes of attention; a concatenated cache as PyTorch's ``torch.cat`` makes it.

Left out: kernels that come and go with the length (the combining one where keys begin to be split,
or no longer are), masks, positions, windows: a workload whose attentions differ in a step is
refused.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.transforms.grids import Size, scaled
from npusim.transforms.record import changed, changes, checked, lacks
from npusim.transforms.sequences import element
from npusim.workload import Workload

Array = NDArray[np.float64]

KEYS = "workload.context"
PARAMETERS = (KEYS,)
NEEDS = "decode attention (one query a sequence, keys from a KV cache)"
LIMIT = "the kernels of a step are those of the trace, whatever its context"
UNMEASURED = ""  # the shapes of attention that were measured say how far they reach


def set_context(w: Workload, keys: float) -> Workload:
    """Return a workload whose decode attention is over so many keys.

    Parameters
    ----------
    w : Workload
    keys : float
        Keys of every sequence, 1 to 1e9, rounded to a whole number.

    Returns
    -------
    Workload
        ``meta["transforms"]`` says what was changed. Measured times stay what they were.

    Raises
    ------
    InputError
        Out of bounds, no decode attention, or several lengths in one step.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> attention = w.mask("kind", "attention")
    >>> np.unique(w["n"][attention]).tolist(), np.unique(w["read_kv"][attention]).tolist()
    ([674, 675, 676], [690176.0, 691200.0, 692224.0])
    >>> longer = set_context(w, 8192)  # 2 x 2 heads x 128 numbers of 2 bytes a key
    >>> np.unique(longer["read_kv"][attention]).tolist()
    [8388608.0]
    """
    return transform(w, {KEYS: keys})


def transform(w: Workload, settings: Mapping[str, float]) -> Workload:
    """Return a workload with a context as `PARAMETERS` say."""
    if "workload.static_cache" in changes(w):
        raise InputError("attention is over all slots of a static KV cache, whatever the context",
                         file=w.name, place=KEYS)  # fmt: skip
    if "page" in w.meta:
        raise InputError("a page has contexts of its own, that grow with its answer", file=w.name,
                         place=KEYS, hint="make another one: page.prompt, page.new")  # fmt: skip
    keys = float(np.rint(checked(settings)[KEYS]))
    return with_lengths(w, np.full(len(w.steps), keys))


def with_lengths(w: Workload, keys: NDArray[np.float64]) -> Workload:
    """Return a workload whose decode attention is over so many keys in each step, shape (S,)."""
    before, attends = lengths(w), touched(w)
    factor = np.where(before > 0, keys / np.maximum(before, 1), 1.0)[w["step"]]
    copies = ~attends & (w["read_kv"] > 0) & (w["write_kv"] > 0) & w.classified
    columns = {name: w[name].copy() for name in ("flop", "read_kv", "write_kv", "n", "m")}
    for name in ("flop", "read_kv", "write_kv"):
        columns[name][attends | copies] *= factor[attends | copies]
    columns["n"][attends] = keys[w["step"][attends]]
    columns["m"][copies] = np.maximum(np.rint(w["m"][copies] * factor[copies]), 1)
    columns["blocks"] = _blocks(w, copies, factor)
    return changed(w, {KEYS: float(np.median(keys))}, columns)


def _blocks(w: Workload, copies: NDArray[np.bool_], factor: NDArray[np.float64]) -> Array:
    """Return the blocks of all operations, of copies as their library launches them, (K,)."""
    blocks, routine = w["blocks"].astype(np.float64), w.text("routine")
    rows = np.maximum(w["batch"], 1) * np.maximum(w["m"], 1).astype(np.float64)
    length, item = np.maximum(w["n"], 1).astype(np.float64), element(w)
    units, written = float(w.meta.get("units", np.inf)), w["write_kv"].astype(np.float64)
    before = Size(rows, length, item, written, units)
    after = Size(rows * factor, length, item, written * factor, units)
    for name in np.unique(routine[copies]).tolist():
        at = copies & (routine == name)
        launched = blocks[at], w["threads"][at].astype(np.float64)
        blocks[at] = scaled(name, launched, before.take(at), after.take(at))[0]
    return blocks


def touched(w: Workload) -> NDArray[np.bool_]:
    """Return which operations are decode attention, shape (K,)."""
    one = (w["m"] <= 1) & (w["n"] > 0) & (w["read_kv"] > 0)
    return w.mask("kind", "attention") & w.mask("phase", "decode", "unknown") & one & w.classified


def present(w: Workload) -> dict[str, float]:
    """Return the settings that describe most decode attention as it is."""
    return {KEYS: float(np.rint(np.median(w["n"][touched(w)])))}


def lengths(w: Workload) -> NDArray[np.float64]:
    """Return the keys of each step, 0 where it has no decode attention, shape (S,).

    Raises
    ------
    InputError
        No decode attention at all, or several lengths in one step.
    """
    attends = touched(w)
    if not attends.any():
        raise lacks(w, NEEDS, KEYS)
    step, n = w["step"][attends], w["n"][attends]
    keys = np.zeros(len(w.steps))
    np.maximum.at(keys, step, n)
    differ = n != keys[step]
    if differ.any():
        at = int(np.argmax(differ))
        raise InputError("attention over different numbers of keys in one step", file=w.name,
                         place=KEYS, value=f"{n[at]} and {keys[step[at]]:g}",
                         hint="windows and cross-attention do not grow alike")  # fmt: skip
    return keys
