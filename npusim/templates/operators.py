"""What a model does, before anybody says with which kernels: operators of a step and their sizes.

A template is a list of these in program order; a lowering (`npusim.templates.lowering`) says which
kernels each of them is. Operators are those of model papers, not of a framework: one may be thirty
kernels in one lowering and share a kernel with its neighbour in another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

# Sizes of each operator. Rows are tokens of all sequences, ``new`` tokens of one in this step,
# ``context`` those that are in its cache before; widths and sizes are elements.
OPERATORS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    # decoder
    "embed": ("rows", "width", "vocabulary"),
    "positions": ("batch", "new", "context"),
    "rotary_table": ("batch", "new", "size", "sections"),
    "rms_norm": ("rows", "width"),
    "layer_norm": ("rows", "width"),
    "residual": ("rows", "width"),
    "residual_rms_norm": ("rows", "width"),
    "residual_layer_norm": ("rows", "width"),
    "linear": ("rows", "inner", "width", "bias"),
    "head": ("rows", "inner", "width"),
    "qkv": ("rows", "inner", "heads", "kv_heads", "size", "bias"),
    "qk_norm": ("rows", "heads", "kv_heads", "size"),
    "rotate": ("batch", "new", "heads", "kv_heads", "size", "sections"),
    "cache": ("batch", "new", "context", "kv_heads", "size", "value_size"),
    "attention": ("batch", "new", "context", "heads", "kv_heads", "size", "value_size", "latent"),
    "heads_linear": ("rows", "heads", "inner", "width"),
    "activation": ("rows", "width", "operations"),
    "gated_ffn": ("rows", "inner", "width", "operations", "bias"),
    "ffn": ("rows", "inner", "width", "operations", "bias"),
    "router": ("rows", "inner", "experts", "chosen", "groups", "sigmoid"),
    "experts": ("rows", "inner", "width", "experts", "chosen", "hit", "operations"),
    "experts_start": ("rows", "inner", "experts", "chosen"),
    "expert": ("rows", "inner", "width", "sent", "chosen", "operations"),
    "experts_end": ("rows", "inner", "experts", "chosen"),
    # sampling
    "argmax": ("rows", "width"),
    "sample_top_k": ("rows", "width", "chosen"),
    "verify": ("batch", "drafted", "width"),
    # vision
    "patches": ("images", "rows", "inner", "width", "bias"),
    "add_positions": ("rows", "width"),
    "interpolated_positions": ("rows", "width", "table"),
    "grid_positions": ("rows", "images"),
    "grid_rotary_table": ("rows", "size"),
    "grid_rotate": ("rows", "heads", "size"),
    "full_attention": ("batch", "rows", "heads", "size", "ragged"),
    "vision_qkv": ("rows", "width", "merged", "images"),
    "windows": ("images", "grid", "window", "width"),
    "no_windows": ("images", "grid", "window", "width"),
    "relative_attention": ("batch", "side", "heads", "size", "table"),
    "transposed_residual": ("rows", "width"),
    "transposed_norm": ("rows", "width"),
    "convolution": ("images", "rows", "inner", "width", "kernel"),
    "quick_gelu": ("rows", "width"),
    "join": ("rows", "width"),
    "merge": ("rows", "width", "factor"),
    # host
    "ngram_check": ("batch", "tokens", "ngram"),
})  # fmt: skip


@dataclass(frozen=True)
class Operator:
    """One operator of a step.

    Attributes
    ----------
    name : str
        One of `OPERATORS`.
    sizes : tuple of float
        In the order that `OPERATORS` gives.
    layer : int
        Layer of the model, -1 outside of any.
    """

    name: str
    sizes: tuple[float, ...]
    layer: int = -1

    @property
    def named(self) -> dict[str, float]:
        """Sizes by name."""
        return dict(zip(OPERATORS[self.name], self.sizes, strict=True))


def operator(name: str, layer: int = -1, **sizes: float) -> Operator:
    """Return an operator with its sizes in order.

    Examples
    --------
    >>> operator("rms_norm", rows=1, width=1280)
    Operator(name='rms_norm', sizes=(1, 1280), layer=-1)
    """
    return Operator(name, tuple(sizes[size] for size in OPERATORS[name]), layer)
