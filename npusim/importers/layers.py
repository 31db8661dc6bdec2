"""Which layer of the model an operation belongs to, from the rhythm of a step.

Traces name no layers, but a decoder repeats itself: between one attention and the next everything
happens once. The first layer begins where, going back from the first attention, the operations
stop being those before the second; the last one ends where, going on from the last attention,
they stop being those after the one before it. Where attention takes several forms (windowed and
global, two encoders) the rhythm is not this simple and layers stay unknown.
"""

from __future__ import annotations

from collections.abc import Sequence

from npusim.importers.work import Work


def layers(works: Sequence[Work]) -> list[int]:
    """Return the layer of each operation of a step, -1 where it is in none or not known.

    Examples
    --------
    An embedding, two layers of norm, attention and MLP, and a head:

    >>> attention = Work("attention", m=1, n=9, k=64, heads=8, kv_heads=8)
    >>> layer = [Work("norm"), attention, Work("gemv", n=512)]
    >>> layers([Work("gather"), *layer, *layer, Work("gemv", n=32000)])
    [-1, 0, 0, 0, 1, 1, 1, -1]
    """
    at = [i for i, w in enumerate(works) if w.kind == "attention"]
    forms = {
        (works[i].batch, works[i].m, works[i].k, works[i].heads, works[i].kv_heads) for i in at
    }
    if len(at) < 2 or len(forms) != 1:
        return [-1] * len(works)
    same = [(w.kind, w.dtype, w.m, 0 if w.kind == "attention" else w.n, w.k) for w in works]
    before = _alike(same, at[0], at[1], -1, at[0])
    period = at[-1] - at[-2]
    after = _alike(same, at[-2], at[-1], 1, min(period - before - 1, len(works) - at[-1] - 1))
    starts = [i - before for i in at]
    stop = at[-1] + after + 1
    found = [-1] * len(works)
    for layer, start in enumerate(starts):
        end = starts[layer + 1] if layer + 1 < len(starts) else stop
        found[start:end] = [layer] * (end - start)
    return found


def _alike(same: Sequence[object], i: int, j: int, step: int, most: int) -> int:
    """Return how many operations next to i and j agree, going in one direction."""
    count = 0
    while count < most and same[i + step * (count + 1)] == same[j + step * (count + 1)]:
        count += 1
    return count
