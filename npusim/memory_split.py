"""The part of a decoder that one of several chips has under tensor parallelism.

Each has its share of the heads, of every feed-forward network and expert, and of the vocabulary
(rounded up); norms and routers are on all, and so are KV heads that are fewer than the chips.

Source: M. Shoeybi et al., "Megatron-LM", arXiv:1909.08053.

Left out: experts that are split by number (expert parallelism), layers that are (pipelines).
"""

from __future__ import annotations

from typing import Any

from npusim.errors import InputError
from npusim.templates.hyperparameters import Decoder, shared_width


def split(d: Decoder, chips: int) -> Decoder:
    """Return the part of a decoder that one of some chips has.

    Raises
    ------
    InputError
        Heads or feed-forward networks that the chips do not divide.

    Examples
    --------
    >>> from npusim.templates import load_model
    >>> half = split(load_model("llama_3_1_8b").decoder, 2)
    >>> half.attention.heads, half.attention.kv_heads, half.intermediate
    (16, 4, 7168)
    """
    a, e = d.attention, d.experts
    sizes = {"heads": a.heads, "intermediate size": d.intermediate}
    if e is not None:
        sizes |= {"size of experts": e.intermediate, "size of shared experts": shared_width(e) or 1}
        if not e.shared:
            del sizes["size of shared experts"]
    for name, size in sizes.items():
        if size % chips:
            raise InputError(f"does not divide the {name} of the model", place="--tensor",
                             value=chips, allowed=f"a divisor of {size}")  # fmt: skip
    if a.kv_heads % chips and chips % a.kv_heads:
        allowed = f"a divisor or a multiple of {a.kv_heads}"
        raise InputError("does not go with the KV heads of the model", place="--tensor",
                         value=chips, allowed=allowed)  # fmt: skip
    heads = {"heads": a.heads // chips, "kv_heads": max(1, a.kv_heads // chips)}
    change: dict[str, Any] = {
        "attention": a.model_copy(update=heads), "intermediate": d.intermediate // chips,
        "vocabulary": -(-d.vocabulary // chips),
    }  # fmt: skip
    if e is not None:
        of_each = {"intermediate": e.intermediate // chips}
        if e.shared:
            of_each["shared_intermediate"] = shared_width(e) // chips
        change["experts"] = e.model_copy(update=of_each)
    return d.model_copy(update=change)
