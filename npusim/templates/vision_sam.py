"""Operators of SAM's image encoder and of the convolutions that make its features fewer.

Most layers attend within windows: a map of ``high`` x ``wide`` positions is filled up with zeros
to whole windows, so that 40 x 40 become 9 windows of 14 x 14.

Source: SAM, arXiv:2304.02643; windows and relative positions, arXiv:2112.01526; the compressor,
DeepSeek-OCR, arXiv:2510.18234; modeling code of transformers 5 (Apache-2.0).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from npusim.templates.fields import ACTIVATIONS
from npusim.templates.operators import Operator, operator
from npusim.templates.vision_hyperparameters import Sam


def windows(high: int, wide: int, window: int) -> int:
    """Return how many windows a map has.

    Examples
    --------
    >>> windows(40, 40, 14), windows(64, 64, 14)
    (9, 25)
    """
    return math.ceil(high / window) * math.ceil(wide / window)


def sam_operators(s: Sam, images: int, high: int, wide: int) -> Iterator[Operator]:
    """Yield the operators of the encoder.

    Parameters
    ----------
    s : Sam
    images : int
    high, wide : int
        Sides of the map of features that it ends with.
    """
    steps = len(s.compressor)  # each halves both sides
    down, across = high << steps, wide << steps
    each = down * across
    sizes = {"rows": images * each, "width": s.width}
    yield operator("patches", inner=s.channels * s.patch**2, bias=1, packed=0, **sizes)
    if down != across or each != s.table:
        yield operator("resized_positions", rows=each, width=s.width, table=s.table, extra=0)
    yield operator("add_map_positions", images=images, rows=each, width=s.width)
    for layer in range(s.layers):
        yield operator("map_norm", layer, **sizes)
        yield from _attention(s, images, down, across, layer)
        yield operator("map_residual", layer, **sizes)
        yield operator("map_norm", layer, **sizes)
        yield operator("ffn", layer, rows=images * each, inner=s.width, width=s.intermediate,
                       operations=ACTIVATIONS[s.activation], bias=1)  # fmt: skip
        yield operator("map_residual", layer, **sizes)
    yield from _neck(s, images * each)


def _attention(s: Sam, images: int, down: int, across: int, layer: int) -> Iterator[Operator]:
    within = layer not in s.global_layers
    batch, high, wide, side = images, down, across, math.isqrt(s.table)
    cut = {"images": images, "high": down, "wide": across, "window": s.window, "width": s.width}
    if within:
        batch, high, wide = images * windows(down, across, s.window), s.window, s.window
        side = s.window
        yield operator("windows", layer, **cut)
    rows = batch * high * wide
    yield operator("linear", layer, rows=rows, inner=s.width, width=3 * s.width, bias=1)
    yield operator("relative_attention", layer, batch=batch, high=high, wide=wide, heads=s.heads,
                   size=s.width // s.heads, table=2 * side - 1)  # fmt: skip
    yield operator("linear", layer, rows=rows, inner=s.width, width=s.width, bias=1)
    if within:
        yield operator("no_windows", layer, **cut)


def _neck(s: Sam, rows: int) -> Iterator[Operator]:
    yield operator("convolution", rows=rows, inner=s.width, width=s.neck, kernel=1, stride=1)
    yield operator("map_norm", rows=rows, width=s.neck)
    yield operator("convolution", rows=rows, inner=s.neck, width=s.neck, kernel=3, stride=1)
    yield operator("layer_norm", rows=rows, width=s.neck)
    inner = s.neck
    for width in s.compressor:
        rows //= 4
        yield operator("convolution", rows=rows, inner=inner, width=width, kernel=3, stride=2)
        inner = width
