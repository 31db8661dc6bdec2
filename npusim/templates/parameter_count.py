"""How many parameters a model has: those of its decoder, of its encoder, and those unused.

Source: shapes of the layers of the modeling code (PyTorch's linear, convolution and norm layers).
"""

from __future__ import annotations

import math
from itertools import pairwise

from npusim.templates.hyperparameters import Decoder, Model, decoder_parameters
from npusim.templates.vision_hyperparameters import Projector, Sam, Tower, Vision, projected_width


def model_parameters(model: Model) -> int:
    """Return how many parameters a model has, with those that are stored and in no step.

    Examples
    --------
    >>> from npusim.templates import load_model
    >>> model_parameters(load_model("deepseek_ocr"))
    3336106240
    """
    vision = vision_parameters(model.vision, model.decoder.hidden) if model.vision else 0
    return decoder_parameters(model.decoder) + vision + model.unused_parameters


def cache_elements(d: Decoder, absorbed: bool) -> int:
    """Return the elements that one token has in the cache of one layer.

    Parameters
    ----------
    d : Decoder
    absorbed : bool
        Whether a latent cache holds the latent vector itself, and not what every head makes of it.

    Examples
    --------
    >>> from npusim.templates import load_model
    >>> cache_elements(load_model("llama_3_1_8b").decoder, False)  # keys and values of 8 heads
    2048
    >>> cache_elements(load_model("deepseek_v3").decoder, True)
    576
    """
    a = d.attention
    if a.latent is None:
        return 2 * a.kv_heads * a.head_size
    if absorbed:
        return a.latent.kv_rank + a.latent.rope_size
    return a.kv_heads * (a.head_size + a.latent.rope_size + a.latent.value_size)


def vision_parameters(v: Vision, width: int) -> int:
    """Return how many parameters an encoder has, its projector to vectors of a width included."""
    sam = sam_parameters(v.sam) if v.sam is not None else 0
    projector = projector_parameters(v.projector, projected_width(v), width)
    return sam + tower_parameters(v.tower) + projector + (v.newline + v.separator) * width


def tower_parameters(t: Tower) -> int:
    """Return how many parameters a vision transformer has."""
    norm = t.width * (1 if t.norm == "rms" else 2)
    block = _block(t.width, t.intermediate, t.bias)
    patches = t.patch_bias * t.width + t.channels * t.patch**2 * t.width if t.patch else 0
    positions = t.table + t.class_token if t.positions != "none" else 0
    total = patches + (positions + t.class_token) * t.width
    total += t.layers * (block + 2 * norm) + (t.pre_norm + t.post_norm) * norm
    if t.pooling == "attention":  # a learned query, and a block with one norm
        total += t.width + block + norm
    return total


def sam_parameters(s: Sam) -> int:
    """Return how many parameters SAM's encoder has, its neck and compressor included."""
    block = _block(s.width, s.intermediate, True) + 4 * s.width
    head = s.width // s.heads
    sides = [math.isqrt(s.table) if i in s.global_layers else s.window for i in range(s.layers)]
    relative = sum(2 * (2 * side - 1) * head for side in sides)  # one table a direction
    patches = (s.channels * s.patch**2 + 1) * s.width
    neck = s.width * s.neck + 9 * s.neck**2 + 4 * s.neck
    widths = [s.neck, *s.compressor]
    compressor = sum(9 * a * b for a, b in pairwise(widths))
    return patches + s.table * s.width + s.layers * block + relative + neck + compressor


def projector_parameters(p: Projector, inner: int, width: int) -> int:
    """Return how many parameters a projector from one width to another has."""
    norm = 2 * inner // p.merge**2 if p.norm else 0
    if p.hidden is None:
        return norm + (inner + p.bias) * width
    return norm + (inner + p.bias) * p.hidden + (p.hidden + p.bias) * width


def _block(width: int, intermediate: int, bias: bool) -> int:
    """Return the projections of attention and of the feed-forward network of a layer."""
    weights = 4 * width**2 + 2 * width * intermediate
    return weights + bias * (4 * width + intermediate + width)
