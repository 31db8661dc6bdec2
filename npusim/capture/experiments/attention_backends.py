"""One attention by each of PyTorch's libraries at equal shape, with and without a bias on scores.

The shapes are those of DeepSeek-OCR on an OmniDocBench page: windows and whole images of its SAM
encoder, CLIP, the prompt, and a token of decoding. SAM adds a bias to the scores; FlashAttention
takes none, so that a row with one and a row without are not the same work, and both are there.

One operand set is repeated, so inputs are warm where they fit the cache.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from npusim.capture.gpu import Row
from npusim.capture.timing import graph_us

AXES = ("attention_backend",)

# Where it stands in the model; sequences (or windows), heads, head size, queries, keys, causal.
_SHAPES = (
    ("sam_windows", 54, 12, 64, 196, 196, False),
    ("sam_whole", 1, 12, 64, 4096, 4096, False),
    ("sam_crop", 6, 12, 64, 1600, 1600, False),
    ("clip", 7, 16, 64, 257, 257, False),
    ("prompt", 1, 10, 128, 913, 913, True),
    ("decode", 1, 10, 128, 1, 926, False),
)
_BACKENDS = {"efficient": "EFFICIENT_ATTENTION", "flash": "FLASH_ATTENTION",
             "cudnn": "CUDNN_ATTENTION", "math": "MATH"}  # fmt: skip
_TAKES_BIAS = ("efficient", "cudnn", "math")


def points(device: Row, quick: bool) -> list[Row]:
    """Return every shape by every library, with a bias where the library takes one."""
    names = ("where", "batch", "h", "d", "queries", "keys", "causal")
    shapes = _SHAPES[:1] if quick else _SHAPES
    return [
        {"axis": "attention_backend", **dict(zip(names, shape, strict=True)), "backend": backend,
         "bias": bias}
        for shape in shapes for backend in _BACKENDS
        for bias in ((False, True) if backend in _TAKES_BIAS and not shape[-1] else (False,))
    ]  # fmt: skip


def measure(torch: Any, point: Row) -> Row:
    """Return ``us_per_op``; a library that does not take the shape fails."""
    attention = import_module("torch.nn.attention")

    def random(*shape: int) -> Any:
        return torch.randn(shape, device="cuda", dtype=torch.bfloat16)

    batch, h, d, queries, keys = (point[n] for n in ("batch", "h", "d", "queries", "keys"))
    q, k, v = random(batch, h, queries, d), random(batch, h, keys, d), random(batch, h, keys, d)
    # rows of a bias begin at whole multiples of 8, which the memory-efficient kernel needs
    bias = random(batch, h, queries, -(-keys // 8) * 8)[..., :keys] if point["bias"] else None
    wanted = getattr(attention.SDPBackend, _BACKENDS[point["backend"]])
    attend = torch.nn.functional.scaled_dot_product_attention
    with attention.sdpa_kernel(wanted):
        return {"us_per_op": graph_us(torch, [
            lambda: attend(q, k, v, attn_mask=bias, is_causal=point["causal"])
        ])}  # fmt: skip
