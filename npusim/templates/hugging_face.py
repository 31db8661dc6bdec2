"""A Hugging Face ``config.json`` as the values of a model.

What no kernel here can show is refused by its key if it changes what a step does (sliding windows,
other kinds of layers), and noted if it changes little or belongs to another part of the model.
`npusim.templates.hugging_face_families` says what each family of models has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from npusim.errors import InputError, shown
from npusim.templates.config_json import Config, read_json
from npusim.templates.hugging_face_families import FAMILIES, NESTED, TIED, WHY_NOT
from npusim.yaml_tree import Tree

_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
_ROTARY = ("default", "linear", "llama3", "yarn", "mrope")  # tables once, the same kernels
_HEADS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")  # with a vocabulary projection

# Keys that change no kernel of a step.
_IGNORED = frozenset({
    # what it is called and was saved with
    "model_type", "architectures", "_name_or_path", "name_or_path", "_commit_hash",
    "transformers_version", "auto_map",
    "task_specific_params", "problem_type", "id2label", "label2id", "return_dict",
    # token numbers and generation
    "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id",
    "decoder_start_token_id", "image_token_id", "video_token_id", "vision_start_token_id",
    "vision_end_token_id", "do_sample", "temperature", "top_k", "top_p", "repetition_penalty",
    "max_length", "min_length", "num_beams", "use_cache", "is_decoder", "prefix",
    # numbers inside a kernel
    "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "rope_theta",
    "max_position_embeddings", "original_max_position_embeddings", "max_window_layers",
    "routed_scaling_factor", "rope_interleave", "n_ctx", "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
    # training
    "initializer_range", "init_std", "attention_dropout", "hidden_dropout", "dropout",
    "activation_dropout", "layerdrop", "resid_pdrop", "embd_pdrop", "attn_pdrop",
    "aux_loss_alpha", "seq_aux", "router_aux_loss_coef", "router_jitter_noise",
    "output_router_logits", "output_attentions", "output_hidden_states", "pretraining_tp",
    "ep_size", "chunk_size_feed_forward", "gradient_checkpointing", "summary_type",
    "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout",
})  # fmt: skip


def read_config(file: Path) -> Tree:
    """Return what a ``config.json`` says as the values of a model file.

    Parameters
    ----------
    file : Path

    Returns
    -------
    Tree
        Values of `npusim.templates.hyperparameters.Model`, without a type where the file has none.

    Raises
    ------
    InputError, InputErrors
        Not JSON, a family that is not known, keys that are missing, wrong or cannot be expressed.
    """
    config = read_json(file)
    family = _family(config)
    key, kind = NESTED.get(family, ("", ""))
    inner = (config.part(key) if key else None) or config
    _check_common(config)
    if inner is not config:
        _check_common(inner)
        inner.only("model_type", kind)
    decoder = FAMILIES[family](inner)
    tied = config.flag("tie_word_embeddings", family in TIED)
    decoder["tied"] = tied or (inner is not config and inner.flag("tie_word_embeddings", False))
    values = _named(config, family) | {"decoder": decoder}
    if (dtype := _dtype(inner) or _dtype(config)) is not None:
        values["dtype"] = dtype
    inner.note_rest(_IGNORED)
    if inner is not config:
        config.note_rest(_IGNORED, same=inner.values)
    config.done()
    return Tree(str(file), values | {"notes": config.notes}, {})


def _family(c: Config) -> str:
    """Return the name of the family, by model_type or by the class of the architecture."""
    kind, classes = c.given("model_type"), c.given("architectures")
    if classes is not None and not (
        isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)
    ):
        raise InputError("not a list of names", file=c.file, place="architectures", value=classes)
    if classes and not classes[0].endswith(_HEADS):
        ends = ", ".join(f"...{head}" for head in _HEADS)
        raise InputError("not a model that makes tokens", file=c.file, place="architectures",
                         value=classes[0], allowed=ends)  # fmt: skip
    if kind is None and classes:
        plain = {name.replace("_", "").lower(): name for name in FAMILIES}
        name = classes[0]
        for head in _HEADS:
            name = name.removesuffix(head)
        kind = plain.get(name.replace("_", "").lower(), name)
    known = ", ".join(FAMILIES)
    if kind is None:
        raise InputError("is missing", file=c.file, place="model_type", allowed=known)
    if not isinstance(kind, str) or kind not in FAMILIES:
        hint = WHY_NOT.get(kind) if isinstance(kind, str) else None
        raise InputError("cannot be expressed" if hint else "unknown family", file=c.file,
                         place="model_type", value=kind, allowed=known, hint=hint)  # fmt: skip
    return kind


def _named(c: Config, family: str) -> dict[str, Any]:
    """Return title and source."""
    named = c.given("_name_or_path") or c.given("name_or_path")
    fine = isinstance(named, str) and 2 <= len(named) <= 100 and named.isprintable()
    title = named if fine else family
    return {"title": title, "source": f"config.json of {title}, read as transformers 5 does"}


def _dtype(c: Config) -> str | None:
    dtype, older = c.given("dtype"), c.given("torch_dtype")
    key = "dtype" if dtype is not None else "torch_dtype"
    return None if dtype is None and older is None else c.choice(key, _DTYPES)


def _check_common(c: Config) -> None:
    """Refuse what no family here can express."""
    c.only("is_encoder_decoder", False)
    c.only("add_cross_attention", False)
    c.only("use_bidirectional_attention", False)
    c.only("per_layer_config", {})
    if (stored := c.given("quantization_config")) is not None:
        bits = stored.get("bits", 8) if isinstance(stored, dict) else 8
        c.note("quantization_config", "weights are counted as wide as the dtype; replay with "
               f"--set workload.weight_bits={shown(bits)}")  # fmt: skip
    layers = c.given("layer_types")
    kinds = layers if isinstance(layers, list) else [] if layers is None else [layers]
    other = [kind for kind in kinds if kind != "full_attention"]
    if other:
        c.wrong("layer_types", "cannot be expressed", other[0], "full_attention in all layers")
    for key in ("rope_scaling", "rope_parameters"):
        _check_rotary(c, key)
    c.only("partial_rotary_factor", 1, 1.0)


def _check_rotary(c: Config, key: str) -> None:
    rotary = c.part(key)
    if rotary is None:
        return
    rotary.only("partial_rotary_factor", 1, 1.0)
    kind = rotary.given("rope_type") or rotary.given("type") or "default"
    if kind not in _ROTARY:
        c.note(key, f"frequencies as in default, not {str(kind)[:20]!a}")
    for name, inner in rotary.values.items():
        if isinstance(inner, dict):
            c.wrong(f"{key}.{name}"[:60], "cannot be expressed", "frequencies of some layers",
                    "the same for all")  # fmt: skip
