"""Models read from a Hugging Face config.json."""

import csv
import json

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from npusim.errors import InputError, InputErrors, NpusimError
from npusim.templates import load_lowering, load_model, template
from npusim.templates.decoder import Tokens, decoder_operators
from npusim.templates.hugging_face_families import FAMILIES
from npusim.templates.hyperparameters import Model, decoder_parameters

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 128000, "eos_token_id": 128001, "hidden_act": "silu", "hidden_size": 4096,
    "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 131072,
    "mlp_bias": False, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "transformers_version": "4.43.0.dev0", "use_cache": True, "vocab_size": 128256,
}  # fmt: skip
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "head_dim": 128,
    "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 12288,
    "max_position_embeddings": 40960, "max_window_layers": 36, "model_type": "qwen3",
    "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8,
    "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_sliding_window": False,
    "vocab_size": 151936,
}  # fmt: skip
QWEN3_MOE = QWEN3 | {
    "architectures": ["Qwen3MoeForCausalLM"], "decoder_sparse_step": 1, "hidden_size": 2048,
    "intermediate_size": 6144, "mlp_only_layers": [], "model_type": "qwen3_moe",
    "moe_intermediate_size": 768, "norm_topk_prob": True, "num_experts": 128,
    "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
}  # fmt: skip
DEEPSEEK_V3 = {
    "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": False, "ep_size": 1,
    "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168,
    "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 163840,
    "model_type": "deepseek_v3", "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8,
    "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": True,
    "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61,
    "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "q_lora_rank": 1536,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "quantization_config": {"fmt": "e4m3", "quant_method": "fp8"}, "rms_norm_eps": 1e-06,
    "rope_scaling": {"factor": 40, "type": "yarn"}, "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid", "tie_word_embeddings": False, "topk_group": 4,
    "topk_method": "noaux_tc", "torch_dtype": "bfloat16", "v_head_dim": 128, "vocab_size": 129280,
}  # fmt: skip
DEEPSEEK_OCR = {
    "architectures": ["DeepseekOCRForCausalLM"], "model_type": "deepseek_vl_v2",
    "torch_dtype": "bfloat16", "hidden_size": 1280, "vision_config": {"width": 1024},
    "language_config": {
        "first_k_dense_replace": 1, "hidden_size": 1280, "intermediate_size": 6848,
        "kv_lora_rank": None, "moe_intermediate_size": 896, "n_group": 1, "n_routed_experts": 64,
        "n_shared_experts": 2, "num_attention_heads": 10, "num_experts_per_tok": 6,
        "num_hidden_layers": 12, "num_key_value_heads": 10, "q_lora_rank": None,
        "qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "topk_group": 1, "topk_method": "greedy",
        "use_mla": False, "v_head_dim": 0, "vocab_size": 129280,
    },
}  # fmt: skip
PADDLE = {
    "architectures": ["PaddleOCRVLForConditionalGeneration"], "head_dim": 128,
    "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 3072,
    "model_type": "paddleocr_vl", "num_attention_heads": 16, "num_hidden_layers": 18,
    "num_key_value_heads": 2, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "rope_scaling": {"mrope_section": [16, 24, 24], "rope_type": "default", "type": "default"},
    "use_bias": False, "vision_config": {"hidden_size": 1152}, "vocab_size": 103424,
}  # fmt: skip


def plain(kind, hidden, intermediate, layers, heads, kv, vocabulary, **more):
    return {"model_type": kind, "hidden_size": hidden, "intermediate_size": intermediate,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv,
            "vocab_size": vocabulary, "dtype": "bfloat16", **more}  # fmt: skip


QWEN2_MOE = plain(
    "qwen2_moe", 2048, 5632, 24, 16, 16, 151936, moe_intermediate_size=1408, num_experts=60,
    num_experts_per_tok=4, shared_expert_intermediate_size=5632,
)  # fmt: skip
DEEPSEEK_V2 = plain(
    "deepseek_v2", 2048, 10944, 27, 16, 16, 102400, moe_intermediate_size=1408,
    n_routed_experts=64, n_shared_experts=2, num_experts_per_tok=6, first_k_dense_replace=1,
    q_lora_rank=None, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128,
    topk_method="greedy", n_group=1, topk_group=1, scoring_func="softmax",
)  # fmt: skip
MIXTRAL = plain("mixtral", 4096, 14336, 32, 32, 8, 32000, num_local_experts=8,
                num_experts_per_tok=2, sliding_window=None)  # fmt: skip
GPT2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 768, "n_layer": 12,
        "n_head": 12, "n_positions": 1024, "n_ctx": 1024, "vocab_size": 50257,
        "activation_function": "gelu_new", "dtype": "float32"}  # fmt: skip
OPT = {"model_type": "opt", "hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12,
       "num_attention_heads": 12, "max_position_embeddings": 2048, "do_layer_norm_before": True,
       "word_embed_proj_dim": 768, "vocab_size": 50272, "torch_dtype": "float16"}  # fmt: skip
BIASED = {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 16}

# Parameters of the modules that transformers 5.17 builds from each file, on no device, and its
# correction biases; those of the whole checkpoints are also what their publishers count.
CONFIGS = {
    "Llama-3.1-8B": (LLAMA, 8_030_261_248),
    "a llama with biases": (plain("llama", 256, 512, 3, 8, 2, 1000) | BIASED, 1_688_384),
    "Mistral-7B-v0.3": (plain("mistral", 4096, 14336, 32, 32, 8, 32768, sliding_window=None),
                        7_248_023_552),
    "Mixtral-8x7B": (MIXTRAL, 46_702_792_704),
    "Qwen2.5-7B": (plain("qwen2", 3584, 18944, 28, 28, 4, 152064), 7_615_616_512),
    "Qwen2.5-0.5B": (plain("qwen2", 896, 4864, 24, 14, 2, 151936, tie_word_embeddings=True),
                     494_032_768),
    "Qwen3-8B": (QWEN3, 8_190_735_360),
    "Qwen3-30B-A3B": (QWEN3_MOE, 30_532_122_624),
    "experts in every third layer": (
        plain("qwen3_moe", 64, 128, 7, 4, 2, 1000, head_dim=16, moe_intermediate_size=32,
              num_experts=8, num_experts_per_tok=2, decoder_sparse_step=3), 437_408),
    "no experts in two layers": (
        plain("qwen3_moe", 64, 128, 7, 4, 2, 1000, head_dim=16, moe_intermediate_size=32,
              num_experts=8, num_experts_per_tok=2, mlp_only_layers=[0, 1]), 512_672),
    "Qwen1.5-MoE-A2.7B": (QWEN2_MOE, 14_315_784_192),
    "DeepSeek-V2-Lite": (DEEPSEEK_V2, 15_706_484_224),
    "DeepSeek-V3": (DEEPSEEK_V3, 671_026_404_352 + 14_848),
    "DeepSeek-OCR": (DEEPSEEK_OCR, 2_934_734_080),
    "ERNIE-4.5-0.3B": (plain("ernie4_5", 1024, 3072, 18, 16, 2, 103424, head_dim=128,
                             use_bias=False), 360_748_032),
    "an ernie with biases": (plain("ernie4_5", 64, 96, 2, 4, 2, 1000, head_dim=None, use_bias=True,
                                   tie_word_embeddings=False), 190_656),
    "PaddleOCR-VL": (PADDLE, 360_748_032 + 103_424 * 1024),  # with a projection of its own
    "Phi-3-mini-128k": (plain("phi3", 3072, 8192, 32, 32, 32, 32064, sliding_window=262144,
                              max_position_embeddings=131072), 3_821_079_552),
    "gemma-7b": (plain("gemma", 3072, 24576, 28, 16, 16, 256000, head_dim=256), 8_537_680_896),
    "gemma-2b": (plain("gemma", 2048, 16384, 18, 8, 1, 256000, head_dim=256, hidden_act="gelu"),
                 2_506_172_416),
    "OLMo-2-1124-7B": (plain("olmo2", 4096, 11008, 32, 32, 32, 100352), 7_298_617_344),
    "an olmo with biases": (plain("olmo2", 128, 256, 2, 8, 2, 1000, attention_bias=True), 536_128),
    "gpt2": (GPT2, 124_439_808),
    "opt-125m": (OPT, 125_239_296),
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="config.json"):
        file = tmp_path / name
        if isinstance(content, dict):
            content = json.dumps(content)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return to_file


@pytest.fixture
def refused(write):
    """Read a config; return the lines of what is said of it, without the file."""

    def lines(content, **more):
        file = write(content)
        with pytest.raises((InputError, InputErrors)) as error:
            load_model(file, **more)
        found = str(error.value).splitlines()
        assert all(line.startswith(f"{file}: ") for line in found)
        return [line.removeprefix(f"{file}: ") for line in found]

    return lines


def label(value):
    """Name a case by what it expects, not by the whole of its config."""
    return value if isinstance(value, str) else value.get("model_type", str(value))


def without(config, *keys):
    return {key: value for key, value in config.items() if key not in keys}


# ---------------------------------------------------------------- families


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_is_counted(write, name):
    config, parameters = CONFIGS[name]
    assert decoder_parameters(load_model(write(config)).decoder) == parameters


def test_every_family_is_tested():
    kinds = {config["model_type"] for config, _ in CONFIGS.values()}
    assert set(FAMILIES) == kinds | {"DeepseekOCR"}  # another name of deepseek_vl_v2


@pytest.mark.parametrize(
    ("name", "config"),
    [("llama_3_1_8b", LLAMA), ("qwen3_8b", QWEN3), ("qwen3_30b_a3b", QWEN3_MOE),
     ("deepseek_v3", DEEPSEEK_V3)],
)  # fmt: skip
def test_a_model_that_ships_is_what_its_config_says(write, name, config):
    ships, read = load_model(name), load_model(write(config))
    assert ships.decoder == read.decoder
    assert ships.dtype == read.dtype


@pytest.mark.parametrize(
    ("name", "config"), [("deepseek_ocr", DEEPSEEK_OCR), ("paddleocr_vl", PADDLE)]
)
def test_a_decoder_in_a_larger_model_does_the_same_operators(write, name, config):
    step, how = Tokens(2, 1, 100), load_lowering("hf-eager")
    ships, read = (
        [o for o in decoder_operators(load_model(m).decoder, step, how)
         if o.name not in ("argmax", "sample_top_k")]  # a config does not say how it samples
        for m in (name, write(config))
    )  # fmt: skip
    assert ships == read


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("lowering", ["hf-eager", "hf-eager-grouped"])
def test_every_family_has_kernels(write, name, lowering):
    settings = {"decoder.layers": 4}
    w = template(write(CONFIGS[name][0]), "decode", context=33, lowering=lowering,
                 settings=settings)  # fmt: skip
    assert w["read_weight"].sum() > 0 and (w["read_kv"] > 0).any()


def test_a_decoder_may_be_in_a_part_of_its_own(write):
    text = without(PADDLE, "architectures", "model_type", "torch_dtype", "vision_config",
                   "tie_word_embeddings")  # fmt: skip
    nested = {"model_type": "paddleocr_vl", "dtype": "bfloat16", "tie_word_embeddings": False,
              "text_config": text | {"model_type": "paddleocr_vl_text"}}  # fmt: skip
    assert load_model(write(nested)).decoder == load_model(write(PADDLE)).decoder
    tied = nested | {"text_config": nested["text_config"] | {"tie_word_embeddings": True}}
    assert load_model(write(tied)).decoder.tied


@pytest.mark.parametrize(
    "config", [LLAMA, QWEN3_MOE, DEEPSEEK_V3, DEEPSEEK_OCR, PADDLE, GPT2], ids=label
)
def test_the_architecture_says_the_family_where_nothing_else_does(write, config):
    named = load_model(write(config))
    assert load_model(write(without(config, "model_type"))).decoder == named.decoder


def test_what_a_file_leaves_out_is_as_transformers_takes_it(write):
    short = without(LLAMA, "hidden_act", "num_key_value_heads", "attention_bias", "mlp_bias",
                    "tie_word_embeddings")  # fmt: skip
    d = load_model(write(short)).decoder
    assert (d.attention.kv_heads, d.attention.head_size, d.tied) == (32, 128, False)
    assert (d.activation, d.bias, d.attention.bias, d.attention.output_bias) == (
        "silu", False, False, False,
    )  # fmt: skip
    d = load_model(write(GPT2)).decoder
    assert (d.intermediate, d.tied, d.norm, d.gated) == (4 * 768, True, "layer", False)
    assert (d.positions, d.attention.rotary, d.attention.bias) == (1024, "none", True)
    d = load_model(write(without(GPT2, "activation_function"))).decoder
    assert d.activation == "gelu_tanh"
    assert load_model(write(OPT)).decoder.activation == "relu"
    assert load_model(write(CONFIGS["gemma-7b"][0])).decoder.activation == "gelu_tanh"
    assert load_model(write(CONFIGS["gemma-7b"][0])).decoder.tied
    assert load_model(write(QWEN2_MOE)).decoder.attention.bias


@pytest.mark.parametrize(
    ("given", "dtype"),
    [({"torch_dtype": "float16"}, "fp16"), ({"dtype": "float32"}, "fp32"),
     ({"dtype": "bfloat16", "torch_dtype": "float16"}, "bf16")],
)  # fmt: skip
def test_the_type_has_an_old_name_and_a_new_one(write, given, dtype):
    assert load_model(write(without(LLAMA, "torch_dtype") | given)).dtype == dtype


def test_a_setting_says_what_a_file_does_not(write, refused):
    config = without(LLAMA, "torch_dtype")
    assert refused(config) == [
        "dtype: is missing (allowed: fp32, bf16, fp16); transformers takes fp32 then: say it, "
        "--set dtype=fp32"
    ]
    model = load_model(write(config), {"dtype": "fp16", "decoder.layers": 2})
    assert (model.dtype, model.decoder.layers) == ("fp16", 2)


# ---------------------------------------------------------------- what is left out is told


def test_nothing_is_noted_of_keys_that_change_no_kernel(write):
    assert load_model(write(LLAMA)).notes == []


def test_what_is_left_out_is_noted(write):
    assert load_model(write(DEEPSEEK_V3)).notes == [
        "quantization_config: weights are counted as wide as the dtype; replay with "
        "--set workload.weight_bits=8",
        "num_nextn_predict_layers: is left out: 1",
    ]
    # hidden_size stands at the top and in the part, and is the same
    assert load_model(write(DEEPSEEK_OCR)).notes == [
        "vision_config: is left out: {'width': 1024}"
    ]  # fmt: skip
    nested = DEEPSEEK_OCR | {"hidden_size": 640}
    assert "hidden_size: is left out: 640" in load_model(write(nested)).notes


def test_an_unknown_key_is_noted_and_null_is_nothing(write):
    config = LLAMA | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": None}
    assert load_model(write(config)).notes == ["attn_logit_softcapping: is left out: 50.0"]


@pytest.mark.parametrize(
    ("config", "key"),
    [(MIXTRAL, "num_experts_per_tok"), (QWEN3_MOE, "norm_topk_prob"), (GPT2, "activation_function"),
     (CONFIGS["Phi-3-mini-128k"][0], "model_type"), (CONFIGS["gemma-2b"][0], "model_type"),
     (LLAMA | {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_scaling"),
     (DEEPSEEK_V2 | {"topk_method": "group_limited_greedy", "n_group": 8, "topk_group": 3},
      "topk_method"), (DEEPSEEK_V2 | {"norm_topk_prob": True}, "norm_topk_prob")],
    ids=label,
)  # fmt: skip
def test_small_differences_are_noted_by_key(write, config, key):
    assert any(note.startswith(f"{key}: ") for note in load_model(write(config)).notes)


def test_notes_are_few_and_can_be_printed(write):
    config = LLAMA | {f"key {i}\ud800\n": i for i in range(1000)}
    notes = load_model(write(config)).notes
    assert len(notes) == 51 and notes[-1] == "950 more keys are left out"
    assert all(note.isprintable() for note in notes)


# ---------------------------------------------------------------- what is refused, by key

WRONG = [
    ({"model_type": "gemma2"}, "model_type: cannot be expressed: 'gemma2' (allowed: llama, "),
    ({"model_type": "t5"}, "model_type: unknown family: 't5' (allowed: llama, "),
    ({"model_type": 7}, "model_type: unknown family: 7"),
    ({"architectures": ["LlamaForSequenceClassification"]},
     "architectures: not a model that makes tokens: 'LlamaForSequenceClassification'"),
    ({"architectures": "Llama"}, "architectures: not a list of names: 'Llama'"),
    ({"hidden_act": "tanh"}, "hidden_act: cannot be expressed: 'tanh' (allowed: silu, "),
    ({"hidden_size": 0}, "hidden_size: not a size: 0 (allowed: a whole number from 1 to "),
    ({"hidden_size": 4096.0}, "hidden_size: not a size: 4096.0"),
    ({"num_hidden_layers": True}, "num_hidden_layers: not a size: True"),
    ({"vocab_size": "128256"}, "vocab_size: not a size: '128256'"),
    ({"vocab_size": None}, "vocab_size: is null"),
    ({"attention_bias": "no"}, "attention_bias: not true or false: 'no'"),
    ({"tie_word_embeddings": 1}, "tie_word_embeddings: not true or false: 1"),
    ({"num_attention_heads": 33}, "num_attention_heads: does not divide hidden_size"),
    ({"num_key_value_heads": 3}, "decoder.attention.kv_heads: does not divide the heads: 3"),
    ({"num_hidden_layers": 5000}, "decoder.layers: out of bounds: 5000 (allowed: up to 1000)"),
    ({"torch_dtype": "int8"}, "torch_dtype: cannot be expressed: 'int8' (allowed: bfloat16, "),
    ({"layer_types": ["full_attention", "sliding_attention"]},
     "layer_types: cannot be expressed: 'sliding_attention'"),
    ({"layer_types": {}}, "layer_types: cannot be expressed: {}"),
    ({"is_encoder_decoder": True},
     "is_encoder_decoder: cannot be expressed: True (allowed: false, null)"),
    ({"add_cross_attention": True}, "add_cross_attention: cannot be expressed"),
    ({"use_bidirectional_attention": True}, "use_bidirectional_attention: cannot be expressed"),
    ({"per_layer_config": {"3": {}}}, "per_layer_config: cannot be expressed"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: cannot be expressed: 0.5"),
    ({"rope_scaling": {"partial_rotary_factor": 0.25}},
     "rope_scaling.partial_rotary_factor: cannot be expressed: 0.25"),
    ({"rope_scaling": 8}, "rope_scaling: not a mapping: 8"),
    ({"rope_parameters": {"full_attention": {}, "rope_type": "default"}},
     "rope_parameters.full_attention: cannot be expressed"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), WRONG, ids=label)
def test_what_is_wrong_is_refused_by_key(refused, change, said):
    (line,) = refused(LLAMA | change)
    assert line.startswith(said)


@pytest.mark.parametrize(
    ("config", "said"),
    [(plain("mistral", 64, 64, 1, 4, 2, 9, sliding_window=4096, max_position_embeddings=32768),
      "sliding_window: cannot be expressed: 4096"),
     (plain("mistral", 64, 64, 1, 4, 2, 9), "sliding_window: cannot be expressed: 4096"),
     (QWEN3 | {"use_sliding_window": True, "sliding_window": 1024},
      "sliding_window: cannot be expressed: 1024"),
     (QWEN3_MOE | {"mlp_only_layers": [3]}, "mlp_only_layers: cannot be expressed: [3]"),
     (QWEN3_MOE | {"mlp_only_layers": [0], "decoder_sparse_step": 2}, "mlp_only_layers: cannot"),
     (DEEPSEEK_V3 | {"scoring_func": "softmax"}, "scoring_func: cannot be expressed: 'softmax'"),
     (DEEPSEEK_V3 | {"topk_method": "greedy"}, "topk_method: cannot be expressed: 'greedy'"),
     (DEEPSEEK_V3 | {"attention_bias": True}, "attention_bias: cannot be expressed: True"),
     (DEEPSEEK_V3 | {"moe_layer_freq": 2}, "moe_layer_freq: cannot be expressed: 2"),
     (DEEPSEEK_V3 | {"num_key_value_heads": 8},
      "decoder.attention.kv_heads: latent attention has keys for every head: 8 (allowed: 128)"),
     (DEEPSEEK_V3 | {"n_group": 7}, "decoder.experts.groups: does not divide the experts: 7"),
     (DEEPSEEK_V3 | {"qk_rope_head_dim": 63}, "decoder.attention.latent.rope_size: rotary"),
     (DEEPSEEK_OCR | {"language_config": [1]}, "language_config: not a mapping: [1]"),
     (DEEPSEEK_OCR | {"language_config": DEEPSEEK_OCR["language_config"] | {"kv_lora_rank": 512}},
      "language_config.kv_lora_rank: cannot be expressed: 512 (allowed: 0, null)"),
     (DEEPSEEK_OCR | {"language_config": DEEPSEEK_OCR["language_config"] | {"model_type": "x"}},
      "language_config.model_type: cannot be expressed: 'x'"),
     (OPT | {"do_layer_norm_before": False}, "do_layer_norm_before: cannot be expressed: False"),
     (OPT | {"word_embed_proj_dim": 512}, "word_embed_proj_dim: cannot be expressed: 512"),
     (GPT2 | {"n_head": 7}, "n_head: does not divide n_embd: 7"),
     (GPT2 | {"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn: cannot be expressed")],
    ids=label,
)  # fmt: skip
def test_what_a_family_cannot_express_is_refused_by_key(refused, config, said):
    assert any(line.startswith(said) for line in refused(config))


NEEDED = {
    "llama": ["hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers",
              "vocab_size"],
    "qwen3": ["num_key_value_heads", "head_dim"],
    "qwen3_moe": ["num_experts", "num_experts_per_tok", "moe_intermediate_size"],
    "qwen2_moe": ["shared_expert_intermediate_size"],
    "deepseek_v3": ["kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim",
                    "n_routed_experts", "first_k_dense_replace", "n_group", "topk_group"],
    "gpt2": ["n_embd", "n_head", "n_layer", "n_positions"],
    "opt": ["ffn_dim", "max_position_embeddings"],
}  # fmt: skip


@pytest.mark.parametrize("kind", NEEDED)
def test_sizes_that_are_missing_are_all_told(refused, kind):
    config = next(c for c, _ in CONFIGS.values() if c["model_type"] == kind)
    said = refused(without(config, *NEEDED[kind]))
    assert sorted(said) == sorted(f"{key}: is missing" for key in NEEDED[kind])
    for key in NEEDED[kind]:
        assert f"{key}: is missing" in refused(without(config, key))


def test_no_family_at_all_is_refused(refused):
    (line,) = refused({"hidden_size": 4})
    assert line.startswith("model_type: is missing (allowed: llama, ")
    (line,) = refused({"architectures": ["T5ForConditionalGeneration"]})
    assert line.startswith("model_type: unknown family: 'T5'")


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "line 1: not JSON: "), ("{", "line 1: not JSON: "), ("[1]", "not a mapping"),
     ("7", "not a mapping"), (b"\xff\xfe{}", "not UTF-8 text"),
     ('{\n"a": 1,\n"a": 2}', "key given twice: 'a'"), ('{"x": {"a": 1, "a": 1}}', "key given"),
     ("[" * 100_000, "nested too deeply (allowed: 20 levels)"),
     ('{"a": ' + "[" * 20 + "]" * 20 + "}", "nested too deeply (allowed: 20 levels)"),
     ('{"a": ' + "9" * 5000 + "}", "not JSON that can be read: a number of thousands of digits"),
     (" " * 1_000_001, "file too large: 1000001 (allowed: up to 1000000 bytes)")],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_files_that_are_no_config_are_refused(refused, content, said):
    (line,) = refused(content)
    assert line.startswith(said)


def test_numbers_that_json_does_not_have_are_no_sizes(refused):
    text = json.dumps(LLAMA).replace("4096", "NaN")
    (line,) = refused(text)
    assert line.startswith("hidden_size: not a size: nan")


def test_a_missing_file_is_told():
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        load_model("nowhere/config.json")


# ---------------------------------------------------------------- anything at all

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["silu", "bfloat16", "llama", "sigmoid", "full_attention"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner,
                                                                 max_size=3),
    max_leaves=6,
)  # fmt: skip
bases = st.sampled_from([config for config, _ in CONFIGS.values()])


def mutated():
    """Return configs of which a few keys say something else, in the part or at the top."""

    def change(config):
        more = ("layer_types", "rope_parameters", "text_config", "mlp_only_layers",
                "sliding_window", "use_mla")  # fmt: skip
        keys = st.sampled_from([*config, *more])
        small = st.dictionaries(keys, values | st.integers(-2, 70), max_size=4)
        return small.map(lambda changes: config | changes)

    return bases.flatmap(change)


def read(file):
    try:
        model = load_model(file)
    except NpusimError as error:
        lines = str(error).splitlines()
        assert lines and all(line.startswith(f"{file}: ") for line in lines)
        return
    assert isinstance(model, Model)
    assert decoder_parameters(model.decoder) > 0
    json.dumps(model.notes).encode()


@given(mutated())
@example(LLAMA | {"_name_or_path": "\ud800\ud801", "hidden_act": ["silu"]})
@example(DEEPSEEK_OCR | {"language_config": {}})
def test_a_config_is_read_or_refused(tmp_path, config):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    read(file)


@given(
    st.binary(max_size=200) | st.text(alphabet='{}[]":,01e-\\u null', max_size=60).map(str.encode)
)
def test_bytes_are_read_or_refused(tmp_path, content):
    file = tmp_path / "config.json"
    file.write_bytes(content)
    read(file)


@given(values)
def test_any_json_is_read_or_refused(tmp_path, value):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(value), encoding="utf-8")
    read(file)


# ---------------------------------------------------------------- layers as measured


@pytest.mark.shared
def test_llama_is_what_was_measured_on_an_rtx_4090(shared):
    """LLMServingSim 2 (MIT): layers of vLLM, one by one, at 1 to 2,048 tokens.

    A product of one token reads its weights once, at 80 to 100 % of 1,008 GB/s of memory; one of
    2,048 tokens does its FLOP at 85 to 105 % of the 165.2 TFLOP/s of the data sheet (whose clock
    the board goes beyond).
    """
    folder = shared / "external/llmservingsim/RTX4090/meta-llama/Llama-3.1-8B/bf16"
    about = yaml.safe_load((folder / "meta.yaml").read_text())["engine_effective"]["hf_overrides"]
    d = load_model("llama_3_1_8b").decoder
    assert about == {
        "num_hidden_layers": 1, "intermediate_size": d.intermediate, "vocab_size": d.vocabulary,
        "num_attention_heads": d.attention.heads, "num_key_value_heads": d.attention.kv_heads,
    }  # fmt: skip
    rows = csv.DictReader((folder / "tp1/dense.csv").read_text().splitlines())
    time = {(r["layer"], int(r["tokens"])): float(r["time_us"]) * 1e-6 for r in rows}
    heads = csv.DictReader((folder / "tp1/per_sequence.csv").read_text().splitlines())
    time |= {(r["layer"], int(r["sequences"])): float(r["time_us"]) * 1e-6 for r in heads}
    found = {o.name: o.named for o in decoder_operators(d, Tokens(1, 1, 5),
                                                         load_lowering("hf-eager"))}  # fmt: skip
    qkv, ffn, out, head = (found[name] for name in ("qkv", "gated_ffn", "linear", "head"))
    weights = {
        "qkv_proj": qkv["inner"] * (qkv["heads"] + 2 * qkv["kv_heads"]) * qkv["size"],
        "o_proj": out["inner"] * out["width"], "gate_up_proj": 2 * ffn["inner"] * ffn["width"],
        "down_proj": ffn["width"] * ffn["inner"], "lm_head": head["inner"] * head["width"],
    }  # fmt: skip
    for layer, count in weights.items():
        assert 0.8 < 2 * count / time[layer, 1] / 1008e9 < 1.0, layer
        if layer != "lm_head":
            assert 0.85 < 2 * 2048 * count / time[layer, 2048] / 165.2e12 < 1.05, layer
