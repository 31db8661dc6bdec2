"""What each family of models on the Hugging Face hub has, from the keys of its ``config.json``.

Each family reads the keys that its configuration class in transformers has. What follows from other
keys, or is true or false, is taken as the class takes it where a file does not say: head_dim is
hidden_size / num_attention_heads, num_key_value_heads is num_attention_heads. Sizes that a class
has from one published checkpoint (hidden_size 4096) are not: without its key a file is refused.

Source: configuration and modeling code of transformers 5.17 (Apache-2.0) of the families below;
configuration_deepseek.py of deepseek-ai/DeepSeek-V2 and DeepSeek-OCR for ``use_mla``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from npusim.templates.config_json import NEEDED, Config

Values = dict[str, Any]

_ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "quick_gelu": "quick_gelu", "relu": "relu",
    "relu2": "relu2",
}  # fmt: skip
_IN_PARTS = ("gelu_new", "gelu_fast", "quick_gelu", "relu2")  # written out in Python


def _no_window(c: Config, default: int | None, switch: bool = False) -> None:
    """Refuse windows that are shorter than the longest context."""
    if switch and not c.flag("use_sliding_window", False):
        c.given("sliding_window")
        return
    window = c.size("sliding_window", None)
    if "sliding_window" not in c.values:
        window = default
    longest = c.values.get("max_position_embeddings")
    if window is None or (isinstance(longest, int) and window >= longest):
        return
    c.wrong("sliding_window", "cannot be expressed", window, "null, or the longest context",
            "put null where all contexts are shorter")  # fmt: skip


def _decoder(
    c: Config, *, intermediate: str = "intermediate_size", activation: str = "hidden_act",
    usual: str = "silu",
) -> Values:  # fmt: skip
    """Return what nearly all families have under the same keys, without attention."""
    said = c.given(activation)
    if said in _IN_PARTS:
        c.note(activation, f"{said} is one kernel, and some in transformers")
    return {
        "layers": c.size("num_hidden_layers"), "hidden": c.size("hidden_size"),
        "vocabulary": c.size("vocab_size"), "intermediate": c.size(intermediate),
        "activation": c.choice(activation, _ACTIVATIONS, usual),
    }  # fmt: skip


def _attention(c: Config, *, kv: bool = True, head: bool = False, bias: str = "") -> Values:
    """Return attention.

    Parameters
    ----------
    c : Config
    kv, head : bool
        Whether num_key_value_heads and head_dim must be there.
    bias : str
        Key of whether q, k, v and the output have a bias; none have without one.
    """
    heads, hidden = c.size("num_attention_heads"), c.size("hidden_size")
    if kv and "num_key_value_heads" not in c.values:
        c.size("num_key_value_heads")
    size = c.size("head_dim", NEEDED if head else None)
    if size is None and hidden % heads and not c.problems:
        c.wrong("num_attention_heads", "does not divide hidden_size, and head_dim is missing",
                heads, f"a divisor of {hidden}")  # fmt: skip
    biased = bool(bias) and c.flag(bias, False)
    return {
        "heads": heads, "kv_heads": c.size("num_key_value_heads", heads),
        "head_size": size or max(hidden // heads, 1), "bias": biased, "output_bias": biased,
    }  # fmt: skip


def _llama(c: Config) -> Values:
    attention = _attention(c, kv=False, bias="attention_bias")
    return _decoder(c) | {"bias": c.flag("mlp_bias", False), "attention": attention}


def _mistral(c: Config) -> Values:
    _no_window(c, 4096)
    return _decoder(c) | {"attention": _attention(c)}


def _mixtral(c: Config) -> Values:
    _no_window(c, None)
    key = "num_local_experts" if "num_local_experts" in c.values else "num_experts"
    c.note("num_experts_per_tok", "weights of the chosen experts are not divided by their sum")
    experts = {"count": c.size(key), "chosen": c.size("num_experts_per_tok"),
               "intermediate": c.size("intermediate_size")}  # fmt: skip
    return _decoder(c) | {"attention": _attention(c), "experts": experts}


def _qwen2(c: Config) -> Values:
    _no_window(c, 4096, switch=True)
    return _decoder(c) | {"attention": _attention(c) | {"bias": True}}


def _qwen3(c: Config) -> Values:
    _no_window(c, 4096, switch=True)
    attention = _attention(c, head=True, bias="attention_bias")
    return _decoder(c) | {"attention": attention | {"qk_norm": "head"}}


def _qwen2_moe(c: Config) -> Values:
    _no_window(c, 4096, switch=True)
    attention = _attention(c) | {"bias": c.flag("qkv_bias", True)}
    experts = _qwen_experts(c) | {
        "shared": 1, "shared_gate": True,
        "shared_intermediate": c.size("shared_expert_intermediate_size"),
    }  # fmt: skip
    return _decoder(c) | {"attention": attention, "experts": experts}


def _qwen3_moe(c: Config) -> Values:
    _no_window(c, 4096, switch=True)
    attention = _attention(c, bias="attention_bias") | {"qk_norm": "head"}
    return _decoder(c) | {"attention": attention, "experts": _qwen_experts(c)}


def _qwen_experts(c: Config) -> Values:
    """Return the experts of every so many layers: the last of them has some."""
    key = "num_local_experts" if "num_local_experts" in c.values else "num_experts"
    every = c.size("decoder_sparse_step", 1)
    dense = c.given("mlp_only_layers") or []
    first = len(dense) if isinstance(dense, list) and every == 1 else 0
    if dense != list(range(first)):
        c.wrong("mlp_only_layers", "cannot be expressed", dense, "the first layers, or none")
    if c.flag("norm_topk_prob", False):
        c.note("norm_topk_prob", "weights of the chosen experts are not divided by their sum")
    return {
        "count": c.size(key), "chosen": c.size("num_experts_per_tok"),
        "intermediate": c.size("moe_intermediate_size"),
        "first_dense": first or every - 1, "every": every,
    }  # fmt: skip


def _deepseek_v2(c: Config) -> Values:
    c.only("scoring_func", "softmax")
    how = c.choice("topk_method", {"greedy": "", "group_limited_greedy": "groups"}, "")
    groups = {"groups": c.size("n_group", 1), "chosen_groups": c.size("topk_group", 1)}
    if how:
        c.note("topk_method", "a group is as good as its best two experts, not its best")
    experts = _deepseek_experts(c, 0, False)
    return _deepseek(c, experts and (experts | groups if how else experts))


def _deepseek_v3(c: Config) -> Values:
    c.only("scoring_func", "sigmoid")
    c.only("topk_method", "noaux_tc")
    experts = _deepseek_experts(c, NEEDED, True)
    return _deepseek(c, experts and experts | {
        "scoring": "sigmoid", "bias": True, "groups": c.size("n_group"),
        "chosen_groups": c.size("topk_group"),
    })  # fmt: skip


def _deepseek(c: Config, experts: Values | None) -> Values:
    latent = c.flag("use_mla", True)
    c.only("attention_bias", False)
    attention = _latent_attention(c) if latent else _attention(c, kv=False)
    if not latent:
        for key in ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim",
                    "v_head_dim"):  # fmt: skip
            c.only(key, 0)
    return _decoder(c) | {
        "bias": c.flag("mlp_bias", False), "attention": attention, "experts": experts,
    }  # fmt: skip


def _latent_attention(c: Config) -> Values:
    c.given("head_dim")  # what transformers says there is qk_rope_head_dim
    c.given("qk_head_dim")  # and there qk_nope_head_dim + qk_rope_head_dim
    heads = c.size("num_attention_heads")
    latent = {
        "query_rank": c.size("q_lora_rank", None), "kv_rank": c.size("kv_lora_rank"),
        "rope_size": c.size("qk_rope_head_dim"), "value_size": c.size("v_head_dim"),
    }  # fmt: skip
    return {
        "heads": heads, "kv_heads": c.size("num_key_value_heads", heads),
        "head_size": c.size("qk_nope_head_dim"), "latent": latent,
    }  # fmt: skip


def _deepseek_experts(c: Config, first: Any, normed: bool) -> Values | None:
    if "n_routed_experts" in c.values and c.given("n_routed_experts") is None:
        return None
    c.only("moe_layer_freq", 1)
    if c.flag("norm_topk_prob", normed) is not normed:
        c.note("norm_topk_prob", f"taken as {str(normed).lower()}")
    return {
        "count": c.size("n_routed_experts"), "chosen": c.size("num_experts_per_tok"),
        "intermediate": c.size("moe_intermediate_size"),
        "shared": c.size("n_shared_experts", 0, least=0),
        "first_dense": c.size("first_k_dense_replace", first, least=0),
    }  # fmt: skip


def _ernie(c: Config) -> Values:
    # head_dim has a default that is no hidden_size / num_attention_heads, and null is that
    attention = _attention(c, head="head_dim" not in c.values, bias="use_bias")
    return _decoder(c) | {"bias": c.flag("use_bias", False), "attention": attention}


def _paddleocr_vl(c: Config) -> Values:
    found = _ernie(c)
    return found | {"attention": found["attention"] | {"rotary": "multimodal"}}


def _phi3(c: Config) -> Values:
    _no_window(c, None)
    c.note("model_type", "q, k and v, and gate and up, are one product each in transformers")
    return _decoder(c) | {"attention": _attention(c, kv=False)}


def _gemma(c: Config) -> Values:
    c.note("model_type", "the embedding is not scaled, and no norm adds 1 to its weights")
    attention = _attention(c, head=True, bias="attention_bias")
    return _decoder(c, usual="gelu_tanh") | {"attention": attention}


def _olmo2(c: Config) -> Values:
    attention = _attention(c, kv=False, bias="attention_bias") | {"qk_norm": "whole"}
    return _decoder(c) | {"norm_after": True, "attention": attention}


def _gpt2(c: Config) -> Values:
    c.only("reorder_and_upcast_attn", False)
    c.note("model_type", "q, k and v are one product in transformers")
    hidden, heads = c.size("n_embd"), c.size("n_head")
    activation = c.given("activation_function") or "gelu_new"
    if activation in _IN_PARTS:
        c.note("activation_function", f"{activation} is one kernel, and some in transformers")
    if hidden % heads and not c.problems:
        c.wrong("n_head", "does not divide n_embd", heads, f"a divisor of {hidden}")
    return _POSITIONED | {
        "layers": c.size("n_layer"), "hidden": hidden, "vocabulary": c.size("vocab_size"),
        "intermediate": c.size("n_inner", 4 * hidden), "positions": c.size("n_positions"),
        "activation": c.choice("activation_function", _ACTIVATIONS, "gelu_tanh"), "bias": True,
        "attention": {"heads": heads, "kv_heads": heads, "head_size": max(hidden // heads, 1),
                      "rotary": "none", "bias": True, "output_bias": True},
    }  # fmt: skip


def _opt(c: Config) -> Values:
    c.only("do_layer_norm_before", True)
    c.only("_remove_final_layer_norm", False)
    c.only("layer_norm_elementwise_affine", True)
    hidden, bias = c.size("hidden_size"), c.flag("enable_bias", True)
    c.only("word_embed_proj_dim", hidden)
    c.note("model_type", "positions are those of one sequence, not counted from a mask")
    attention = _attention(c, kv=False) | {"rotary": "none", "bias": bias, "output_bias": bias}
    # the table has two rows that no position uses: modeling_opt.py
    more = {"bias": bias, "positions": c.size("max_position_embeddings") + 2}
    found = _decoder(c, intermediate="ffn_dim", activation="activation_function", usual="relu")
    return found | _POSITIONED | more | {"attention": attention}


_POSITIONED: Values = {"gated": False, "norm": "layer"}

FAMILIES: Mapping[str, Callable[[Config], Values]] = MappingProxyType({
    "llama": _llama, "mistral": _mistral, "mixtral": _mixtral, "qwen2": _qwen2, "qwen3": _qwen3,
    "qwen2_moe": _qwen2_moe, "qwen3_moe": _qwen3_moe, "deepseek_v2": _deepseek_v2,
    "deepseek_v3": _deepseek_v3, "deepseek_vl_v2": _deepseek_v2, "DeepseekOCR": _deepseek_v2,
    "ernie4_5": _ernie, "paddleocr_vl": _paddleocr_vl, "phi3": _phi3, "gemma": _gemma,
    "olmo2": _olmo2, "gpt2": _gpt2, "opt": _opt,
})  # fmt: skip
# Where the decoder's keys are unless they are at the top, and what it calls itself there.
NESTED = {
    "deepseek_vl_v2": ("language_config", "deepseek_v2"),
    "DeepseekOCR": ("language_config", "deepseek_v2"),
    "paddleocr_vl": ("text_config", "paddleocr_vl_text"),
}
# Families whose embedding is the vocabulary projection where a file does not say.
TIED = ("ernie4_5", "paddleocr_vl", "gemma", "gpt2", "opt")
WHY_NOT = {
    "gemma2": "its layers take turns with sliding windows, and cap their logits",
    "gemma3": "its layers take turns with sliding windows",
    "gemma3_text": "its layers take turns with sliding windows",
    "phi": "attention and feed-forward network run side by side on parts of each head",
    "mamba": "it has no attention", "mamba2": "it has no attention",
    "mllama": "it has cross attention",
}  # fmt: skip
