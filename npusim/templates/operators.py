"""What a model does, before anybody says with which kernels: operators of a step and their sizes.

A template is a list of these in program order; a lowering (`npusim.templates.lowering`) says which
kernels each of them is. Operators are those of model papers, not of a framework: one may be thirty
kernels in one lowering and share a kernel with its neighbour in another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    "shared_gate": ("rows", "width"),
    "place_images": ("rows", "width"),
    # between chips: rows and width are those of the whole that the chips have together
    "all_reduce": ("rows", "width", "chips"),
    "all_gather": ("rows", "width", "chips"),
    "all_to_all": ("rows", "width", "chips"),
    "send": ("rows", "width"),
    "send_tokens": ("rows",),
    "experts_sum": ("rows", "width", "chosen"),
    # sampling
    "argmax": ("rows", "width"),
    "sample_top_k": ("rows", "width", "chosen"),
    "verify": ("batch", "drafted", "width"),
    # vision: rows are positions of all images, or of one where images is a size too; high and wide
    # are the sides of a grid of positions; a map has its channels first
    "patches": ("rows", "inner", "width", "bias", "packed"),
    "class_token": ("images", "rows", "width"),
    "add_positions": ("images", "rows", "width"),
    "add_map_positions": ("images", "rows", "width"),
    "resized_positions": ("rows", "width", "table", "extra"),
    "interpolated_positions": ("images", "rows", "width", "table"),
    "grid_positions": ("images", "high", "wide"),
    "grid_rotary_table": ("rows", "size"),
    "grid_rotate": ("rows", "heads", "size"),
    "vision_qkv": ("rows", "width", "bias"),
    "full_attention": ("images", "rows", "heads", "size"),
    "packed_attention": ("images", "rows", "heads", "size"),
    "attention_pool": ("images", "rows", "width", "heads"),
    "windows": ("images", "high", "wide", "window", "width"),
    "no_windows": ("images", "high", "wide", "window", "width"),
    "relative_attention": ("batch", "high", "wide", "heads", "size", "table"),
    "relative_table": ("side", "size", "table"),
    "relative_product": ("rows", "side", "size"),
    "map_residual": ("rows", "width"),
    "map_norm": ("rows", "width"),
    "convolution": ("rows", "inner", "width", "kernel", "stride"),
    "quick_gelu": ("rows", "width"),
    "join": ("rows", "width"),
    "image_sizes": ("images",),
    "repeated_sizes": ("images",),
    "merge": ("rows", "width", "factor", "packed"),
    "packed_tokens": ("images", "rows", "width"),
    "newlines": ("images", "high", "wide", "width"),
})  # fmt: skip

# Operators that move data between chips.
COLLECTIVES = ("all_reduce", "all_gather", "all_to_all", "send", "send_tokens")


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
    half : int
        Which part of a batch that takes turns it works on (`npusim.templates.overlap`), 0 if none
        does.
    """

    name: str
    sizes: tuple[float, ...]
    layer: int = -1
    half: int = field(default=0, repr=False)

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
