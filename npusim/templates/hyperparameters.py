"""Hyperparameters of a model: what its kernels and parameters follow from.

A model is a YAML file of ``workloads/models`` (or is read from a Hugging Face ``config.json``:
`npusim.templates.hugging_face`). Sizes are whole numbers from 1 unless said otherwise; what is
impossible together (heads that key-value heads do not divide) is refused by field.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from npusim.errors import InputError, InputErrors
from npusim.schema import Strict
from npusim.templates.fields import Activation, Count, Rule, Size
from npusim.templates.page_hyperparameters import Page
from npusim.templates.vision_hyperparameters import Vision, vision_rules


class Latent(Strict):
    """Multi-head latent attention: keys and values from one narrow vector a token.

    Source: DeepSeek-V2, arXiv:2405.04434, section 2.1.
    """

    query_rank: Size | None = None
    kv_rank: Size
    rope_size: Size
    value_size: Size


class Attention(Strict):
    """Attention of a decoder.

    ``kv_heads`` says which: as many as heads is multi-head, one is multi-query, between is
    grouped-query. With ``latent``, ``head_size`` is the part of a head without a position.
    """

    heads: Size
    kv_heads: Size
    head_size: Size
    bias: bool = False  # of the q, k and v projections
    output_bias: bool = False
    qk_norm: Literal["head", "whole"] | None = None  # RMS norm of q and k: of each head, or of all
    rotary: Literal["default", "multimodal", "none"] = "default"
    latent: Latent | None = None


class Experts(Strict):
    """Mixture of experts in place of the feed-forward network."""

    count: Annotated[int, Field(ge=1, le=4096)]
    chosen: Size
    intermediate: Size
    shared: Count = 0
    shared_intermediate: Size | None = None  # of all shared ones together; shared x intermediate
    shared_gate: bool = False  # a weight of what the shared ones say, from the token (Qwen 1.5 MoE)
    first_dense: Count = 0  # layers before the first with experts
    every: Size = 1  # of how many layers after them one has experts
    scoring: Literal["softmax", "sigmoid"] = "softmax"
    bias: bool = False  # a bias an expert that only chooses (DeepSeek-V3)
    groups: Size = 1
    chosen_groups: Size = 1
    skew: Annotated[float, Field(ge=0, le=10)] = 0.0  # Zipf exponent of the experts' popularity
    popularity: list[Annotated[float, Field(gt=0, le=1e12)]] | None = (
        None  # measured, one number an expert
    )


class Decoder(Strict):
    """A transformer that makes one token after the other."""

    layers: Annotated[int, Field(ge=1, le=1000)]
    hidden: Size
    vocabulary: Size
    intermediate: Size
    activation: Activation = "silu"
    gated: bool = True
    bias: bool = False  # of the feed-forward network
    norm: Literal["rms", "layer"] = "rms"
    norm_after: bool = False  # of what attention and feed-forward give, not get (OLMo 2)
    positions: Count = 0  # rows of a table of learned positions, added to the embedding (GPT-2)
    tied: bool  # whether the embedding is the vocabulary projection
    attention: Attention
    experts: Experts | None = None
    sampling: Literal["greedy", "top_k"] = "greedy"
    top_k: Size = 50


class Model(Strict):
    """A model.

    ``parameters`` is how many its publisher counts: what
    `npusim.templates.parameter_count` gives. ``notes``
    say what of it no kernel shows.
    """

    title: Annotated[str, Field(min_length=2)]
    source: Annotated[str, Field(min_length=3)]
    dtype: Literal["fp32", "bf16", "fp16"]  # fewer bits: workload.weight_bits
    decoder: Decoder
    vision: Vision | None = None
    page: Page | None = None
    parameters: Annotated[int, Field(ge=1, le=10**15)] | None = None
    # stored with it, and in no step (a head that nothing calls)
    unused_parameters: Annotated[int, Field(ge=0, le=10**15)] = 0
    notes: list[Annotated[str, Field(min_length=3)]] = Field(default_factory=list)


def check(model: Model, file: object) -> Model:
    """Return a model if its sizes go together.

    Raises
    ------
    InputError, InputErrors
        Those that do not, by field.
    """
    problems = [
        InputError(problem, file=file, place=place, value=value, allowed=allowed)
        for place, wrong, problem, value, allowed in _all_rules(model) if wrong
    ]  # fmt: skip
    if problems:
        raise problems[0] if len(problems) == 1 else InputErrors(problems)
    return model


def _all_rules(model: Model) -> list[Rule]:
    return _rules(model.decoder) + (vision_rules(model.vision) if model.vision else [])


def _rules(d: Decoder) -> list[Rule]:
    """Return what must hold between the sizes of a decoder."""
    a, e = d.attention, d.experts
    place = "decoder.attention"
    rules = [
        (f"{place}.kv_heads", a.heads % a.kv_heads != 0, "does not divide the heads", a.kv_heads,
         f"a divisor of {a.heads}"),
        (f"{place}.head_size", a.rotary != "none" and a.latent is None and a.head_size % 2 != 0,
         "rotary embedding turns pairs", a.head_size, "an even number"),
        (f"{place}.kv_heads", a.latent is not None and a.kv_heads != a.heads,
         "latent attention has keys for every head", a.kv_heads, str(a.heads)),
        (f"{place}.latent", a.latent is not None and (a.bias or a.qk_norm is not None),
         "latent attention has no bias and no norm of heads", "bias or qk_norm", "neither"),
        (f"{place}.rotary", a.latent is not None and a.rotary == "none",
         "latent attention has a part that turns", a.rotary, "default, multimodal"),
        ("decoder.top_k", d.sampling == "top_k" and d.top_k > d.vocabulary,
         "more tokens than there are", d.top_k, f"1 to {d.vocabulary}"),
    ]  # fmt: skip
    if a.latent is not None:
        size = a.latent.rope_size
        rules.append((f"{place}.latent.rope_size", size % 2 != 0, "rotary embedding turns pairs",
                      size, "an even number"))  # fmt: skip
    if e is not None:
        rules += [
            ("decoder.experts.chosen", e.chosen > e.count, "more experts chosen than there are",
             e.chosen, f"1 to {e.count}"),
            ("decoder.experts.first_dense", e.first_dense > d.layers, "more layers than there are",
             e.first_dense, f"0 to {d.layers}"),
            ("decoder.experts.groups", e.count % e.groups != 0, "does not divide the experts",
             e.groups, f"a divisor of {e.count}"),
            ("decoder.experts.chosen_groups", e.chosen_groups > e.groups,
             "more groups chosen than there are", e.chosen_groups, f"1 to {e.groups}"),
            ("decoder.experts.chosen", e.chosen > e.chosen_groups * e.count // e.groups,
             "more experts chosen than the chosen groups have", e.chosen,
             f"up to {e.chosen_groups * e.count // e.groups}"),
            ("decoder.experts.shared_intermediate", e.shared == 0 and bool(e.shared_intermediate),
             "of no shared expert", e.shared_intermediate, "none, or shared above 0"),
            ("decoder.experts.shared_gate", e.shared == 0 and e.shared_gate,
             "of no shared expert", e.shared_gate, "false, or shared above 0"),
            ("decoder.experts.popularity", len(e.popularity or ()) not in (0, e.count),
             "not one number an expert", len(e.popularity or ()), str(e.count)),
        ]  # fmt: skip
    return rules


def has_experts(d: Decoder, layer: int) -> bool:
    """Return whether a layer has experts."""
    e = d.experts
    return e is not None and layer >= e.first_dense and (layer - e.first_dense) % e.every == 0


def shared_width(e: Experts) -> int:
    """Return the intermediate size of all shared experts together."""
    return e.shared_intermediate or e.shared * e.intermediate


def decoder_parameters(d: Decoder) -> int:
    """Return how many parameters a decoder has, embedding and vocabulary projection included.

    Examples
    --------
    >>> from npusim.templates import load_model
    >>> decoder_parameters(load_model("deepseek_ocr").decoder)
    2934734080
    """
    norm = d.hidden * (1 if d.norm == "rms" else 2)
    tables = (d.vocabulary * (1 if d.tied else 2) + d.positions) * d.hidden
    return sum(layer_parameters(d, layer) for layer in range(d.layers)) + norm + tables


def layer_parameters(d: Decoder, layer: int) -> int:
    """Return how many parameters a layer has."""
    norms = 2 * d.hidden * (1 if d.norm == "rms" else 2)
    e = d.experts
    if e is None or not has_experts(d, layer):
        ffn = _ffn_parameters(d, d.intermediate)
    else:
        ffn = e.count * (_ffn_parameters(d, e.intermediate) + d.hidden + int(e.bias))
        ffn += _ffn_parameters(d, shared_width(e)) + e.shared_gate * d.hidden if e.shared else 0
    return norms + _attention_parameters(d) + ffn


def _ffn_parameters(d: Decoder, width: int) -> int:
    into = 2 if d.gated else 1
    return (into + 1) * d.hidden * width + d.bias * (into * width + d.hidden)


def _attention_parameters(d: Decoder) -> int:
    a = d.attention
    if a.latent is not None:
        return _latent_parameters(d.hidden, a, a.latent)
    q, kv = a.heads * a.head_size, a.kv_heads * a.head_size
    weights = d.hidden * (2 * q + 2 * kv)
    norms = {"head": 2 * a.head_size, "whole": q + kv, None: 0}[a.qk_norm]
    return weights + a.bias * (q + 2 * kv) + a.output_bias * d.hidden + norms


def _latent_parameters(hidden: int, a: Attention, latent: Latent) -> int:
    queries = a.heads * (a.head_size + latent.rope_size)
    if latent.query_rank:
        q = hidden * latent.query_rank + latent.query_rank + latent.query_rank * queries
    else:
        q = hidden * queries
    down = hidden * (latent.kv_rank + latent.rope_size) + latent.kv_rank
    up = latent.kv_rank * a.heads * (a.head_size + latent.value_size)
    return q + down + up + a.heads * latent.value_size * hidden
