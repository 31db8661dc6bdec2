"""Flags of a serving engine that decide about memory, how engines count, what no shape tells.

A configuration that no engine starts with is refused here, by its flag.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from types import MappingProxyType

from npusim.errors import InputError
from npusim.memory_peak import Image
from npusim.templates.hyperparameters import Model

_GIB = 2**30
_MOST = 10**9
_MOST_BATCHED = 2**24  # tokens of a step: more than any machine has room for
_MOST_PIXELS = 10**5  # of a side


@dataclass(frozen=True)
class Overhead:
    """Bytes that no shape tells: a value with what it could be, and where it is from [B]."""

    value: float
    low: float
    high: float
    source: str


OVERHEADS: Mapping[str, Overhead] = MappingProxyType({
    "context": Overhead(
        0.649e9, 0.3e9, 0.65e9,
        "the first allocation of a process: measured on an H200, driver 580; less on smaller chips",
    ),
    "libraries": Overhead(
        0.20 * _GIB, 0.08e9, 0.33 * _GIB,
        "memory not of PyTorch in logs of vLLM on an H100 (0.16 GiB), RTX 3090 (0.20) and RTX 5090 "
        "(0.33); 0.08 GB after products, attention and sorting on an H200",
    ),
    "graphs": Overhead(
        0.36 * _GIB, 0.01 * _GIB, 0.89 * _GIB,
        "captured graphs in logs of vLLM: 0.36 GiB (0.27), 0.01 to 0.62 (0.5), 0.52 to 0.89",
    ),
})  # fmt: skip


@dataclass(frozen=True)
class Framework:
    """How an engine counts.

    Attributes
    ----------
    block_tokens : int
        Tokens of a block of its cache.
    sampler : str
        How it chooses tokens, one of `npusim.memory_peak.SAMPLERS`.
    inside : tuple of str
        Those of `OVERHEADS` that its share holds; the others take from the reserve.
    source : str
    """

    name: str
    block_tokens: int
    sampler: str
    inside: tuple[str, ...]
    source: str


FRAMEWORKS: Mapping[str, Framework] = MappingProxyType({f.name: f for f in (
    Framework("vllm", 16, "search", ("libraries", "graphs"),
              "vLLM from 0.21: the context is there before it counts, graphs are estimated"),
    Framework("vllm-0.19", 16, "search", ("libraries",),
              "vLLM 0.19: graphs are captured after the cache is allocated"),
    Framework("fastdeploy", 64, "sort", ("context", "libraries"),
              "FastDeploy 2: all that the driver calls used counts; graphs come after the cache"),
)})  # fmt: skip


@dataclass(frozen=True)
class Configuration:
    """The flags of a serving engine that decide about memory.

    Attributes
    ----------
    max_model_len : int
        Tokens of the longest sequence, prompt and answer.
    max_num_seqs : int
        Sequences that decode together at most.
    max_num_batched_tokens : int
        Tokens that a step takes at most.
    gpu_memory_utilization : float
        Share of the memory, 0 to 1.
    block_tokens : int
        Tokens of a block of the cache.
    kv_bits, weight_bits : float
        Bits of a number of the cache, and of a weight of the decoder's layers [bit].
    tensor : int
        Chips that the model is split over.
    chunked_prefill : bool
        Whether a prompt may enter in parts; without it a step must take the longest.
    image : tuple of int, optional
        Width and height of the largest image [pixels].
    images : int, optional
        Images that become tokens at once.
    """

    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    block_tokens: int
    kv_bits: float
    weight_bits: float
    tensor: int = 1
    chunked_prefill: bool = True
    image: Image | None = None
    images: int | None = None


FLAGS: Mapping[str, str] = MappingProxyType({
    "max_model_len": "--max-model-len", "max_num_seqs": "--max-num-seqs",
    "max_num_batched_tokens": "--max-num-batched-tokens",
    "gpu_memory_utilization": "--gpu-memory-utilization", "block_tokens": "--block-size",
    "kv_bits": "--kv-bits", "weight_bits": "--weight-bits", "tensor": "--tensor",
})  # fmt: skip


def checked_overheads(given: Mapping[str, float]) -> Mapping[str, float]:
    """Return all overheads, some of them other than usual [B].

    Raises
    ------
    InputError
        An unknown name, or a size that is none.
    """
    for name, value in given.items():
        if name not in OVERHEADS:
            raise InputError("unknown overhead", value=name, allowed=", ".join(OVERHEADS))
        if not (is_number(value) and 0 <= value <= 1e15):
            raise InputError("not a size", place=name, value=value, allowed="0 B or more")
    return MappingProxyType({name: o.value for name, o in OVERHEADS.items()} | dict(given))


def check_configuration(model: Model, c: Configuration, longest: int | None) -> None:
    """Refuse a configuration that no engine starts with, by its flag.

    Raises
    ------
    InputError
        The first flag that is impossible, alone or beside another.
    """
    for name in ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "block_tokens",
                 "tensor"):  # fmt: skip
        value = getattr(c, name)
        most = _MOST_BATCHED if name == "max_num_batched_tokens" else _MOST
        if not (_is_whole(value) and 1 <= value <= most):
            raise InputError("not a count", place=FLAGS[name], value=value,
                             allowed=f"1 to {most:,}")  # fmt: skip
    for name, high in (("gpu_memory_utilization", 1), ("kv_bits", 64), ("weight_bits", 64)):
        value = getattr(c, name)
        if not (is_number(value) and 0 < value <= high) or (high > 1 and value < 1):
            allowed = "above 0 to 1" if high == 1 else f"1 to {high}"
            raise InputError("out of range", place=FLAGS[name], value=value, allowed=allowed)
    known = [n for n in (longest, model.decoder.positions) if n]
    if known and c.max_model_len > min(known):
        raise InputError("longer than the model was made for", place="--max-model-len",
                         value=c.max_model_len, allowed=f"up to {min(known):,}")  # fmt: skip
    if c.max_num_batched_tokens < c.max_num_seqs:
        raise InputError("less than a token for each sequence", place="--max-num-batched-tokens",
                         value=c.max_num_batched_tokens,
                         allowed=f"--max-num-seqs, {c.max_num_seqs}, or more")  # fmt: skip
    if not c.chunked_prefill and c.max_num_batched_tokens < c.max_model_len:
        raise InputError(
            "without chunked prefill the longest prompt enters in one step",
            place="--max-num-batched-tokens", value=c.max_num_batched_tokens,
            allowed=f"--max-model-len, {c.max_model_len}, or more",
            hint="or --chunked-prefill")  # fmt: skip
    if c.image is not None and model.vision is None:
        raise InputError("of a model without an encoder of images", place="--image",
                         value=f"{c.image[0]} x {c.image[1]}")  # fmt: skip
    if c.images is not None and model.vision is None:
        raise InputError("of a model without an encoder of images", place="--images",
                         value=c.images)  # fmt: skip
    if c.images is not None and not (_is_whole(c.images) and 1 <= c.images <= _MOST):
        raise InputError("not a count", place="--images", value=c.images,
                         allowed=f"1 to {_MOST:,}")  # fmt: skip
    if c.image is not None and not all(
        _is_whole(side) and 1 <= side <= _MOST_PIXELS for side in c.image
    ):
        raise InputError("not a size of an image", place="--image",
                         value=f"{c.image[0]} x {c.image[1]}",
                         allowed=f"sides of 1 to {_MOST_PIXELS:,} pixels")  # fmt: skip


def is_number(value: object) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(float(value))


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
