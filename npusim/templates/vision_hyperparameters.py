"""Hyperparameters of vision encoders: a tower of transformer layers, with SAM before it or not.

    image - patches - tower - projector - tokens of the decoder
    image - patches - SAM - convolutions - tower - SAM and tower side by side - projector - tokens

Source: ViT, arXiv:2010.11929; CLIP, arXiv:2103.00020; SigLIP, arXiv:2303.15343; NaViT (images of
any size in one sequence), arXiv:2307.06304; SAM, arXiv:2304.02643; DeepEncoder (SAM, compressor,
CLIP), DeepSeek-OCR, arXiv:2510.18234.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from npusim.schema import Strict
from npusim.templates.fields import Activation, Count, Rule, Size


class Resize(Strict):
    """How an image is brought to pixels that patches fit into: nothing is cut, nothing padded."""

    factor: Size  # both sides become multiples of it
    min_pixels: Size
    max_pixels: Size


class Tower(Strict):
    """A vision transformer: SigLIP, CLIP or plain.

    ``positions``: none, a ``learned`` table that fits the one grid it was made for, or one that is
    ``interpolated`` to any grid. ``packed``: images of any size share one sequence (NaViT), and
    each attends to itself. A tower that follows another encoder has no ``patch`` of its own.
    """

    width: Size
    layers: Size
    heads: Size
    intermediate: Size
    activation: Activation = "gelu"
    norm: Literal["layer", "rms"] = "layer"
    bias: bool = True  # of the projections of attention and of the feed-forward network
    patch: Size | None = None  # side of a patch [pixels]
    channels: Size = 3
    patch_bias: bool = True
    positions: Literal["interpolated", "learned", "none"] = "none"
    table: Count = 0  # positions of a square table, the class token's not counted
    rotary: bool = False  # by row and column
    packed: bool = False
    class_token: bool = False
    pre_norm: bool = False
    post_norm: bool = True
    pooling: Literal["none", "attention"] = "none"


class Sam(Strict):
    """SAM's encoder: attention in windows but in some layers, relative positions, convolutions.

    ``neck`` is the width after a 1 x 1 and a 3 x 3 convolution; ``compressor`` has the widths of
    convolutions of 3 x 3 with stride two that follow.
    """

    width: Size
    layers: Size
    heads: Size
    intermediate: Size
    activation: Activation = "gelu"
    patch: Size
    channels: Size = 3
    table: Size  # positions of a square table
    window: Size
    global_layers: list[Count]
    neck: Size
    compressor: list[Size]


class Projector(Strict):
    """What makes vectors of the decoder's width: one linear layer, or two with an activation."""

    merge: Annotated[int, Field(ge=1, le=64)] = 1  # merge x merge neighbours become one token
    norm: bool = False  # before it
    hidden: Size | None = None  # width between two layers
    activation: Activation = "gelu"
    bias: bool = True


class Vision(Strict):
    """An encoder of images.

    Where there is a ``sam``, the tower reads its features, and the projector both side by side.
    """

    resize: Resize | None = None
    sam: Sam | None = None
    tower: Tower
    projector: Projector
    newline: bool = False  # a learned vector after each row of tokens
    separator: bool = False  # a learned vector after the last view


def stride(v: Vision) -> int:
    """Return how many pixels of a side a position of the tower stands for.

    Examples
    --------
    >>> tower = Tower(width=64, layers=1, heads=1, intermediate=64, patch=14)
    >>> stride(Vision(tower=tower, projector=Projector(merge=2)))
    14
    """
    if v.sam is not None:
        return v.sam.patch << len(v.sam.compressor)
    return v.tower.patch or 1


def projected_width(v: Vision) -> int:
    """Return the width of a vector that the projector reads."""
    sides = 1 if v.sam is None else 2  # features of sam are as wide as the tower
    return sides * v.tower.width * v.projector.merge**2


def vision_rules(v: Vision) -> list[Rule]:
    """Return what must hold between the sizes of an encoder."""
    rules = _tower_rules(v.tower)
    if v.sam is None:
        rules.append(("vision.tower.patch", v.tower.patch is None, "is missing", None,
                      "a size, where no other encoder comes before"))  # fmt: skip
    else:
        rules += _sam_rules(v.sam, v.tower)
    if v.resize is not None:
        least = stride(v) * v.projector.merge
        rules += [
            ("vision.resize.factor", v.resize.factor % least != 0, "tokens do not fit into it",
             v.resize.factor, f"a multiple of {least}"),
            ("vision.resize.min_pixels", v.resize.min_pixels > v.resize.max_pixels,
             "more than max_pixels", v.resize.min_pixels, f"1 to {v.resize.max_pixels}"),
        ]  # fmt: skip
    return rules


def _tower_rules(t: Tower) -> list[Rule]:
    place = "vision.tower"
    tabled = t.positions != "none"
    return [
        (f"{place}.heads", t.width % t.heads != 0, "does not divide the width", t.heads,
         f"a divisor of {t.width}"),
        (f"{place}.table", tabled and t.table < 1, "positions need a table", t.table,
         "a square number"),
        (f"{place}.table", not tabled and t.table > 0, "of no positions", t.table, "0"),
        (f"{place}.table", math.isqrt(t.table) ** 2 != t.table, "not a square", t.table,
         "a square number"),
        (f"{place}.rotary", t.rotary and t.width // t.heads % 4 != 0,
         "rows and columns turn pairs of a head of this size", t.width // t.heads,
         "a multiple of 4"),
        (f"{place}.class_token", t.packed and t.class_token,
         "images that share a sequence have no class token", True, "false"),
        (f"{place}.positions", t.packed and t.positions == "learned",
         "images of any size need a table that is interpolated", "learned", "interpolated, none"),
    ]  # fmt: skip


def _sam_rules(s: Sam, t: Tower) -> list[Rule]:
    place = "vision.sam"
    far = [layer for layer in s.global_layers if layer >= s.layers]
    return [
        ("vision.tower.patch", t.patch is not None, "it reads features of sam, not patches",
         t.patch, "none"),
        ("vision.tower.packed", t.packed, "features of sam are of images of one size", True,
         "false"),
        (f"{place}.heads", s.width % s.heads != 0, "does not divide the width", s.heads,
         f"a divisor of {s.width}"),
        (f"{place}.table", math.isqrt(s.table) ** 2 != s.table, "not a square", s.table,
         "a square number"),
        (f"{place}.global_layers", bool(far), "no such layer", far[:1], f"0 to {s.layers - 1}"),
        (f"{place}.compressor", (s.compressor or [s.neck])[-1] != t.width,
         "does not end in the width of the tower", s.compressor, f"..., {t.width}"),
    ]  # fmt: skip
