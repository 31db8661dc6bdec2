r"""How much memory a step needs while it runs, from the shapes of its operations alone.

The step is lowered as a serving engine would run it, and each kernel is looked at by itself:

    live   = what it reads + what it writes + the residual stream            [B]
    step   = the most of these over the kernels of one prompt of all the tokens that a step takes
    vision = the same over the kernels that make tokens of the images of a step
    choice = tokens x width of the hidden states + rows x vocabulary x bytes a logit, for as many
             rows as there are sequences
    peak   = tokens of the images + max(step, vision, choice)

Weights and the KV cache are counted elsewhere. What a lowering reads twice or updates in place is
counted twice; the kernels where the peak lies (gate and up of a feed-forward network, or what joins
them) do neither.

Held against measurement: on an H200 (PyTorch 2.11, norms and activations compiled) two layers of
Llama-3.1-8B, of Qwen3-8B and of PaddleOCR-VL take at 2,048 and 8,192 tokens what ``step`` gives, to
the byte.

Left out: fragments that an allocator cannot use, workspaces of libraries, a prompt of which a part
is in the cache already, tensors that compiled code keeps longer than it has to, processed pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from npusim.errors import InputError
from npusim.templates.decoder import Tokens, decoder_operators
from npusim.templates.hyperparameters import Decoder, Model
from npusim.templates.kernels import ITEM
from npusim.templates.lower import Phase, lower
from npusim.templates.lowering import load_lowering
from npusim.templates.operators import Operator
from npusim.templates.vision import page_tokens, resized, view_tokens, views, vision_operators
from npusim.templates.vision_hyperparameters import Resize, Vision, stride

Image = tuple[int, int]

SAMPLERS = ("sort", "search", "greedy")
# Bytes a logit beside the logits themselves. Sorting: measured, H200, PyTorch 2.11 (fp32 copy,
# sorted values, 64-bit places, room of the sort); more for batches that it sorts by segments.
_SORT, _SORT_SEGMENTS, _SEGMENTS = 36.0, 48.5, range(2, 128)
# Searching for the threshold: fp32 copy, probabilities and random numbers, and a row in fp32 a unit
# (vLLM 0.19, top-k and top-p in Triton); it sorts fewer rows than these.
_SEARCH, _SEARCHED = 12.0, 8
_GREEDY = 4.0


@dataclass(frozen=True)
class Peak:
    """What is live at the peak of a step.

    Attributes
    ----------
    step_bytes, vision_bytes, choice_bytes : float
        At the peak of the decoder, of the encoder of images, and of the choice of tokens [B].
    image_bytes : float
        Tokens of the images of a step, kept until the decoder has them [B].
    step_kernel, vision_kernel : str
        Where the first two lie.
    """

    step_bytes: float
    vision_bytes: float
    choice_bytes: float
    image_bytes: float
    step_kernel: str
    vision_kernel: str

    @property
    def bytes(self) -> float:
        """The peak [B]."""
        return self.image_bytes + max(self.step_bytes, self.vision_bytes, self.choice_bytes)

    @property
    def where(self) -> str:
        """Which of the three it is, and the kernel."""
        parts = {
            f"decoder, {self.step_kernel}": self.step_bytes,
            f"vision, {self.vision_kernel}": self.vision_bytes,
            "choice of tokens": self.choice_bytes,
        }
        return max(parts, key=lambda part: parts[part])


def peak(
    model: Model, decoder: Decoder, tokens: int, rows: int, *, sampler: str = "sort",
    units: int | None = None, image: Image | None = None, images: int | None = None,
    lowering: str = "serving",
) -> Peak:  # fmt: skip
    """Return what is live at the peak of a step.

    Parameters
    ----------
    model : Model
    decoder : Decoder
        What one chip has of the model's.
    tokens : int
        Tokens that a step takes at most.
    rows : int
        Sequences that get a token in a step at most.
    sampler : str
        How tokens are chosen: one of `SAMPLERS`.
    units : int, optional
        Compute units of the machine, where the search runs; by default one for every row.
    image : tuple of int, optional
        Width and height of the largest image [pixels]; by default what the model takes at most.
    images : int, optional
        Images (pages, of a model that cuts them) that become tokens at once; by default as many as
        have room in the tokens of a step.
    lowering : str

    Returns
    -------
    Peak

    Raises
    ------
    InputError
        An image that the model does not take, or an unknown sampler.

    Examples
    --------
    >>> from npusim.templates import load_model
    >>> m = load_model("llama_3_1_8b")
    >>> p = peak(m, m.decoder, 2048, 1)
    >>> p.step_kernel, p.step_bytes == 2048 * (3 * 14336 + 4096) * 2
    ('act_and_mul', True)
    """
    item = ITEM[model.dtype]
    step, kernel = _step(decoder, model.dtype, tokens, lowering)
    hidden = tokens * decoder.hidden * item
    logits = min(rows, tokens) * decoder.vocabulary * item
    choice = hidden + logits + decoder.vocabulary * sampler_bytes(sampler, min(rows, tokens), units)
    kept, seen, where = 0.0, 0.0, ""
    if model.vision is not None:
        many, parts = _images(model, model.vision, tokens, image)
        many = many if images is None else min(many, images)
        kept = many * sum(
            count * view_tokens(model.vision, size) for size, count in parts
        ) * model.decoder.hidden * item  # fmt: skip
        seen, where = max(
            _seen(model.vision, model.decoder.hidden, model.dtype, size, many * count, lowering)
            for size, count in parts
        )
    return Peak(step, seen, choice, kept, kernel, where)


def sampler_bytes(sampler: str, rows: int, units: int | None = None) -> float:
    """Return what choosing tokens for up to so many rows takes for each word, beside the logits.

    Fewer rows may take more: a sort of 2 to 127 rows works by segments, which need more room.

    Examples
    --------
    >>> sampler_bytes("sort", 256), sampler_bytes("sort", 127), sampler_bytes("sort", 128)
    (9216.0, 6159.5, 6159.5)
    >>> sampler_bytes("greedy", 256), sampler_bytes("search", 256, 128)
    (1024.0, 3584.0)
    """
    if sampler == "greedy":
        return _GREEDY * rows
    if sampler == "sort":
        few = min(rows, _SEGMENTS.stop - 1)
        return max(_SORT * rows, _SORT_SEGMENTS * few if few in _SEGMENTS else 0.0)
    if sampler != "search":
        raise InputError("unknown way to choose tokens", value=sampler,
                         allowed=", ".join(SAMPLERS))  # fmt: skip
    sorted_ = sampler_bytes("sort", min(rows, _SEARCHED - 1))
    searched = _SEARCH * rows + ITEM["fp32"] * min(rows, units or rows)
    return max(sorted_, searched if rows >= _SEARCHED else 0.0)


def largest_image(v: Vision) -> Image | None:
    """Return width and height of the largest image that an encoder makes tokens of [pixels].

    None where nothing bounds it. Of a model that resizes, the sides whose product comes nearest to
    the most pixels; with a table of positions that cannot be interpolated, its square.

    Examples
    --------
    >>> from npusim.templates import load_model
    >>> largest_image(load_model("paddleocr_vl").vision)  # 51 x 59 tokens of 28 x 28 pixels
    (1428, 1652)
    """
    if v.resize is not None:
        return _largest_resized(v.resize)
    if v.tower.positions == "learned":
        side = math.isqrt(v.tower.table) * stride(v)
        return side, side
    return None


def _largest_resized(r: Resize) -> Image:
    """Return the sides, multiples of the factor, that hold the most pixels allowed."""
    most = r.max_pixels // r.factor**2  # tokens
    squarish = max((wide * (most // wide), wide) for wide in range(1, math.isqrt(most) + 1))
    wide = squarish[1]
    return wide * r.factor, most // wide * r.factor


def _images(
    model: Model, v: Vision, tokens: int, image: Image | None
) -> tuple[int, list[tuple[Image, int]]]:
    """Return how many images or pages a step takes, and the views of each with their count.

    As many as have room in the tokens of a step, one at least.
    """
    page = model.page
    if image is None and page is not None and v.resize is None and page.crop is not None:
        crop = (page.crop[0], page.crop[1])
        whole = (page.image[0], page.image[1])
        each = page_tokens(v, whole, crop, page.columns, page.rows)
        return max(1, tokens // each), [(whole, 1), (crop, page.columns * page.rows)]
    size = image or largest_image(v) or (tuple(page.image) if page else None)
    if size is None:
        raise InputError("is needed: nothing says how large images are", place="--image",
                         allowed="width and height [pixels]")  # fmt: skip
    one = (int(size[0]), int(size[1]))
    return max(1, tokens // view_tokens(v, one)), [(one, 1)]


def layers_that_differ(d: Decoder) -> Decoder:
    """Return a decoder with as few layers as show every kind that it has.

    Examples
    --------
    >>> from npusim.templates import load_model
    >>> [layers_that_differ(load_model(m).decoder).layers for m in ("qwen3_8b", "deepseek_ocr")]
    [1, 2]
    """
    e = d.experts
    kinds = 1 if e is None else e.first_dense + min(e.every, 2)
    return d.model_copy(update={"layers": min(d.layers, kinds)})


@lru_cache(maxsize=4096)
def _step_of(decoder: str, dtype: str, tokens: int, lowering: str) -> tuple[float, str]:
    d, how = Decoder.model_validate_json(decoder), load_lowering(lowering)
    operators = decoder_operators(d, Tokens(1, tokens, 0), how)
    return _most(operators, tokens * d.hidden, dtype, lowering)


def _step(d: Decoder, dtype: str, tokens: int, lowering: str) -> tuple[float, str]:
    """Return the most that is live in a prompt of so many tokens, and in which kernel."""
    return _step_of(layers_that_differ(d).model_dump_json(), dtype, tokens, lowering)


@lru_cache(maxsize=1024)
def _seen_of(
    vision: str, width: int, dtype: str, image: Image, images: int, lowering: str
) -> tuple[float, str]:
    v = Vision.model_validate_json(vision)
    size = resized(v.resize, image) if v.resize else image
    residual = views(v, size, images).rows * v.tower.width
    return _most(vision_operators(v, width, size, images), residual, dtype, lowering)


def _seen(
    v: Vision, width: int, dtype: str, image: Image, images: int, lowering: str
) -> tuple[float, str]:
    """Return the most that is live while images become tokens, and in which kernel."""
    tower = v.tower.model_copy(update={"layers": 1})
    text = v.model_copy(update={"tower": tower}).model_dump_json()
    return _seen_of(text, width, dtype, image, images, lowering)


def _most(
    operators: Iterable[Operator], residual: float, dtype: str, lowering: str
) -> tuple[float, str]:
    """Return the most bytes that are live in a kernel, the residual stream included, and which."""
    w = lower("peak", [Phase("prefill", list(operators))], load_lowering(lowering), dtype, {})
    live = w["read_activation"] + w["write_activation"]
    at = int(np.argmax(live))
    return float(live[at]) + residual * ITEM[dtype], str(w.text("kernel")[at])
