"""Operators of a vision transformer: patches or features to as many vectors.

Source: ViT, arXiv:2010.11929; images packed into one sequence, NaViT, arXiv:2307.06304; attention
pooling, SigLIP, arXiv:2303.15343; modeling code of transformers 5 (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Iterator

from npusim.templates.fields import ACTIVATIONS
from npusim.templates.operators import Operator, operator
from npusim.templates.vision_hyperparameters import Tower


def tower_operators(
    t: Tower, images: int, high: int, wide: int, before: int = 0
) -> Iterator[Operator]:
    """Yield the operators of a tower.

    Parameters
    ----------
    t : Tower
    images, high, wide : int
        Images, and positions of each from top to bottom and from left to right.
    before : int
        Layers of the encoder that feeds it: layers are numbered on.
    """
    each = high * wide
    if t.patch is not None:
        yield operator("patches", rows=images * each, inner=t.channels * t.patch**2, width=t.width,
                       bias=int(t.patch_bias), packed=int(t.packed))  # fmt: skip
    yield from _positions(t, images, high, wide)
    if t.rotary:
        yield operator("grid_positions", images=images, high=high, wide=wide)
        yield operator("grid_rotary_table", rows=images * each, size=t.width // t.heads)
    rows = each + int(t.class_token)  # of each image
    norm = "rms_norm" if t.norm == "rms" else "layer_norm"
    sizes = {"rows": images * rows, "width": t.width}
    if t.pre_norm:
        yield operator(norm, **sizes)
    yield operator(norm, **sizes)
    for layer in range(t.layers):
        yield from _attention(t, images, rows, before + layer)
        yield operator(f"residual_{norm}", before + layer, **sizes)
        yield operator("ffn", before + layer, rows=images * rows, inner=t.width,
                       width=t.intermediate, operations=ACTIVATIONS[t.activation],
                       bias=int(t.bias))  # fmt: skip
        more = layer + 1 < t.layers or t.post_norm
        yield operator(f"residual_{norm}" if more else "residual", before + layer, **sizes)
    if t.pooling == "attention":
        yield from _pooling(t, images, rows, norm)


def _positions(t: Tower, images: int, high: int, wide: int) -> Iterator[Operator]:
    """Yield what puts the class token before the others, and positions to all."""
    each, extra = high * wide, int(t.class_token)
    if extra:
        yield operator("class_token", images=images, rows=each, width=t.width)
    if t.positions == "none":
        return
    if t.packed:
        yield operator("interpolated_positions", images=images, rows=each, width=t.width,
                       table=t.table)  # fmt: skip
        return
    if high != wide or each != t.table:
        yield operator("resized_positions", rows=each, width=t.width, table=t.table, extra=extra)
    yield operator("add_positions", images=images, rows=each + extra, width=t.width)


def _attention(t: Tower, images: int, rows: int, layer: int) -> Iterator[Operator]:
    heads = {"heads": t.heads, "size": t.width // t.heads}
    yield operator("vision_qkv", layer, rows=images * rows, width=t.width, bias=int(t.bias))
    if t.rotary:
        yield operator("grid_rotate", layer, rows=images * rows, **heads)
    attention = "packed_attention" if t.packed else "full_attention"
    yield operator(attention, layer, images=images, rows=rows, **heads)
    yield operator("linear", layer, rows=images * rows, inner=t.width, width=t.width,
                   bias=int(t.bias))  # fmt: skip


def _pooling(t: Tower, images: int, rows: int, norm: str) -> Iterator[Operator]:
    """Yield the head that makes one vector of an image: a learned query, then a network."""
    yield operator("attention_pool", images=images, rows=rows, width=t.width, heads=t.heads)
    yield operator(norm, rows=images, width=t.width)
    yield operator("ffn", rows=images, inner=t.width, width=t.intermediate,
                   operations=ACTIVATIONS[t.activation], bias=int(t.bias))  # fmt: skip
    yield operator("residual", rows=images, width=t.width)
