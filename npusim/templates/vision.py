"""Operators of an encoder of images, and how many tokens a decoder gets of them.

Images of a step are of one size. An encoder with `Resize` brings them to pixels of its own first
(on the host, outside of the step); others take the pixels that they are given.

Left out: images of different sizes in one step, frames of a video, the copy of a page's tokens
and of the separator into those of the text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from npusim.errors import InputError
from npusim.templates.fields import ACTIVATIONS
from npusim.templates.operators import Operator, operator
from npusim.templates.vision_hyperparameters import (
    Projector,
    Resize,
    Vision,
    projected_width,
    stride,
)
from npusim.templates.vision_sam import sam_operators
from npusim.templates.vision_tower import tower_operators

_LONGEST = 200  # times as long as wide that an image may be
_MOST_PIXELS = 10**9


@dataclass(frozen=True)
class Views:
    """Images of one size, as the tower sees them.

    Attributes
    ----------
    images : int
    high, wide : int
        Positions of each.
    """

    images: int
    high: int
    wide: int

    @property
    def each(self) -> int:
        """Positions of an image."""
        return self.high * self.wide

    @property
    def rows(self) -> int:
        """Positions of all images."""
        return self.images * self.each


def views(v: Vision, image: tuple[int, int], images: int = 1) -> Views:
    """Return what the tower sees of images.

    Parameters
    ----------
    v : Vision
    image : tuple of int
        Width and height [pixels].
    images : int

    Raises
    ------
    InputError
        Pixels that patches, convolutions and merging do not divide.

    Examples
    --------
    >>> from npusim.templates import load_model
    >>> views(load_model("paddleocr_vl").vision, (800, 600))
    Views(images=1, high=42, wide=58)
    """
    width, height = resized(v.resize, image) if v.resize else image
    step = stride(v)
    token = step * v.projector.merge
    wrong = [side for side in (width, height) if side % token]
    if wrong or width * height > _MOST_PIXELS:
        problem = "patches do not fit" if wrong else "more pixels than there can be"
        allowed = f"multiples of {token} pixels, {_MOST_PIXELS:,} in all"
        raise InputError(problem, place="image", value=f"{width} x {height}", allowed=allowed)
    seen = Views(images, height // step, width // step)
    side = math.isqrt(v.tower.table)
    if v.tower.positions == "learned" and (seen.high, seen.wide) != (side, side):
        raise InputError("the positions learned are of another size", place="image",
                         value=f"{width} x {height}", allowed=f"{side * step} x {side * step}",
                         hint="positions: interpolated")  # fmt: skip
    return seen


def resized(r: Resize, image: tuple[int, int]) -> tuple[int, int]:
    """Return width and height that an image is brought to [pixels].

    Both sides are rounded to multiples of the factor; where these are too many or too few pixels,
    both are scaled by the same number first.

    Source: image processor of PaddleOCR-VL (transformers 5, ``smart_resize``).

    Examples
    --------
    >>> resized(Resize(factor=28, min_pixels=147456, max_pixels=2359296), (800, 600))
    (812, 588)
    """
    width, height = image
    if max(image) > _LONGEST * min(image):
        raise InputError("too long for its width", place="image", value=f"{width} x {height}",
                         allowed=f"sides up to {_LONGEST} : 1")  # fmt: skip
    if height < r.factor:
        width, height = round(width * r.factor / height), r.factor
    if width < r.factor:
        width, height = r.factor, round(height * r.factor / width)
    sides = [round(side / r.factor) * r.factor for side in (width, height)]
    pixels = math.prod(sides)
    if pixels > r.max_pixels:
        scale = math.sqrt(width * height / r.max_pixels)
        sides = [max(r.factor, math.floor(side / scale / r.factor) * r.factor)
                 for side in (width, height)]  # fmt: skip
    elif pixels < r.min_pixels:
        scale = math.sqrt(r.min_pixels / (width * height))
        sides = [math.ceil(side * scale / r.factor) * r.factor for side in (width, height)]
    return sides[0], sides[1]


def view_tokens(v: Vision, image: tuple[int, int]) -> int:
    """Return how many tokens the projector makes of one image.

    Examples
    --------
    >>> from npusim.templates import load_model
    >>> view_tokens(load_model("deepseek_ocr").vision, (1024, 1024))
    256
    >>> view_tokens(load_model("paddleocr_vl").vision, (800, 600))
    609
    """
    seen = views(v, image)
    return 1 if v.tower.pooling == "attention" else seen.each // v.projector.merge**2


def page_tokens(
    v: Vision, image: tuple[int, int], crop: tuple[int, int] | None = None, columns: int = 1,
    rows: int = 1,
) -> int:  # fmt: skip
    """Return how many tokens a decoder gets of a page: its views, ends of rows, the separator.

    Parameters
    ----------
    v : Vision
    image : tuple of int
        Width and height of the view of the whole page [pixels].
    crop : tuple of int, optional
        Width and height of the views of its parts.
    columns, rows : int
        How many parts lie side by side and below each other.

    Examples
    --------
    >>> from npusim.templates import load_model
    >>> v = load_model("deepseek_ocr").vision
    >>> page_tokens(v, (1024, 1024))  # 16 rows of 16 tokens and a newline, a separator
    273
    >>> page_tokens(v, (1024, 1024), (640, 640), 2, 2)  # and 20 rows of 20 and a newline
    693
    """
    if not 1 <= min(columns, rows) <= max(columns, rows) <= 1000:
        raise InputError("not a number of parts", place="columns, rows", value=f"{columns}, {rows}",
                         allowed="1 to 1000 each")  # fmt: skip
    parts = [(image, 1, 1)] + ([(crop, columns, rows)] if crop else [])
    total = int(v.separator)
    for size, across, down in parts:
        total += view_tokens(v, size) * across * down
        total += v.newline * down * (views(v, size).high // v.projector.merge)
    return total


def vision_operators(
    v: Vision, width: int, image: tuple[int, int], images: int = 1
) -> Iterator[Operator]:
    """Yield the operators that make tokens of images.

    Parameters
    ----------
    v : Vision
    width : int
        Of the decoder's vectors.
    image : tuple of int
        Width and height of each [pixels].
    images : int
    """
    seen = views(v, image, images)
    before = 0
    if v.sam is not None:
        yield from sam_operators(v.sam, seen.images, seen.high, seen.wide)
        before = v.sam.layers
    yield from tower_operators(v.tower, seen.images, seen.high, seen.wide, before)
    if v.sam is not None:
        yield operator("join", rows=seen.rows, width=v.tower.width)
    yield from _projector(v, width, seen)
    if v.newline:
        merge = v.projector.merge
        yield operator("newlines", images=images, high=seen.high // merge,
                       wide=seen.wide // merge, width=width)  # fmt: skip


def _projector(v: Vision, width: int, seen: Views) -> Iterator[Operator]:
    """Yield the projector: of all images at once, or one by one where their sizes may differ."""
    p = v.projector
    if not (v.tower.packed and p.merge > 1):
        pooled = v.tower.pooling == "attention"
        yield from _projection(v, p, width, seen.images if pooled else seen.rows)
        return
    yield operator("image_sizes", images=seen.images)
    for _ in range(seen.images):
        yield from _projection(v, p, width, seen.each)
    yield operator("packed_tokens", images=seen.images, rows=seen.each // p.merge**2, width=width)


def _projection(v: Vision, p: Projector, width: int, rows: int) -> Iterator[Operator]:
    inner = projected_width(v)
    if p.norm:
        yield operator("layer_norm", rows=rows, width=inner // p.merge**2)
    if p.merge > 1:
        yield operator("merge", rows=rows, width=inner // p.merge**2, factor=p.merge,
                       packed=int(v.tower.packed))  # fmt: skip
    tokens, bias = rows // p.merge**2, int(p.bias)
    if p.hidden is not None:
        yield operator("linear", rows=tokens, inner=inner, width=p.hidden, bias=bias)
        yield operator("activation", rows=tokens, width=p.hidden,
                       operations=ACTIVATIONS[p.activation])  # fmt: skip
    yield operator("linear", rows=tokens, inner=p.hidden or inner, width=width, bias=bias)
