"""Hyperparameters of decoders: what is impossible is refused, and parameters are all counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npusim import catalog
from npusim.errors import NpusimError
from npusim.templates import load_lowering, load_model, template
from npusim.templates.decoder import Tokens, decoder_operators
from npusim.templates.hyperparameters import (
    Attention,
    Decoder,
    Experts,
    decoder_parameters,
    has_experts,
)

DENSE, MIXTURE = "llama_3_1_8b", "deepseek_v3"


def refused(name, settings):
    """Return what is said of each setting that is wrong, without the file."""
    with pytest.raises(NpusimError) as error:
        load_model(name, settings)
    file = catalog.find("models", name)
    lines = str(error.value).splitlines()
    assert all(line.startswith(f"{file}: ") for line in lines)
    return [line.removeprefix(f"{file}: ") for line in lines]


# ---------------------------------------------------------------- sizes that do not go together

RULES = [
    (DENSE, {"attention.kv_heads": 3},
     "attention.kv_heads: does not divide the heads: 3 (allowed: a divisor of 32)"),
    (DENSE, {"attention.kv_heads": 64},
     "attention.kv_heads: does not divide the heads: 64 (allowed: a divisor of 32)"),
    (DENSE, {"attention.head_size": 127},
     "attention.head_size: rotary embedding turns pairs: 127 (allowed: an even number)"),
    (DENSE, {"sampling": "top_k", "vocabulary": 49},
     "top_k: more tokens than there are: 50 (allowed: 1 to 49)"),
    (MIXTURE, {"attention.kv_heads": 64},
     "attention.kv_heads: latent attention has keys for every head: 64 (allowed: 128)"),
    (MIXTURE, {"attention.bias": True},
     "attention.latent: latent attention has no bias and no norm of heads: 'bias or qk_norm' "
     "(allowed: neither)"),
    (MIXTURE, {"attention.qk_norm": "head"},
     "attention.latent: latent attention has no bias and no norm of heads: 'bias or qk_norm' "
     "(allowed: neither)"),
    (MIXTURE, {"attention.rotary": "none"},
     "attention.rotary: latent attention has a part that turns: 'none' "
     "(allowed: default, multimodal)"),
    (MIXTURE, {"attention.latent.rope_size": 63},
     "attention.latent.rope_size: rotary embedding turns pairs: 63 (allowed: an even number)"),
    (MIXTURE, {"experts.chosen": 257, "experts.groups": 1, "experts.chosen_groups": 1},
     "experts.chosen: more experts chosen than there are: 257 (allowed: 1 to 256)"),
    (MIXTURE, {"experts.first_dense": 62},
     "experts.first_dense: more layers than there are: 62 (allowed: 0 to 61)"),
    (MIXTURE, {"experts.groups": 7},
     "experts.groups: does not divide the experts: 7 (allowed: a divisor of 256)"),
    (MIXTURE, {"experts.chosen_groups": 9},
     "experts.chosen_groups: more groups chosen than there are: 9 (allowed: 1 to 8)"),
    (MIXTURE, {"experts.chosen": 33, "experts.chosen_groups": 1},
     "experts.chosen: more experts chosen than the chosen groups have: 33 (allowed: up to 32)"),
    (MIXTURE, {"experts.shared": 0, "experts.shared_intermediate": 64},
     "experts.shared_intermediate: of no shared expert: 64 (allowed: none, or shared above 0)"),
    (MIXTURE, {"experts.shared": 0, "experts.shared_gate": True},
     "experts.shared_gate: of no shared expert: True (allowed: false, or shared above 0)"),
    (MIXTURE, {"experts.popularity": [1.0, 2.0]},
     "experts.popularity: not one number an expert: 2 (allowed: 256)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "said"), RULES)
def test_what_does_not_go_together_is_refused_by_field(name, settings, said):
    lines = refused(name, {f"decoder.{path}": value for path, value in settings.items()})
    assert f"decoder.{said}" in lines


def test_all_that_is_wrong_is_told_at_once():
    lines = refused(MIXTURE, {"decoder.experts.groups": 7, "decoder.attention.kv_heads": 64})
    assert len(lines) == 2


def test_what_is_at_the_edge_is_accepted():
    settings = {"decoder.experts.first_dense": 61, "decoder.experts.chosen": 128,
                "decoder.attention.head_size": 2, "decoder.experts.shared": 0}  # fmt: skip
    model = load_model(MIXTURE, settings)
    assert not any(has_experts(model.decoder, layer) for layer in range(61))
    assert load_model(DENSE, {"decoder.attention.rotary": "none",
                              "decoder.attention.head_size": 127})  # fmt: skip


SIZES = [
    "layers", "hidden", "vocabulary", "intermediate", "top_k", "attention.heads",
    "attention.kv_heads", "attention.head_size", "attention.latent.query_rank",
    "attention.latent.kv_rank", "attention.latent.rope_size", "attention.latent.value_size",
    "experts.count", "experts.chosen", "experts.intermediate", "experts.shared_intermediate",
    "experts.every", "experts.groups", "experts.chosen_groups",
]  # fmt: skip
COUNTS = ["positions", "experts.shared", "experts.first_dense"]


@pytest.mark.parametrize("path", SIZES + COUNTS)
@pytest.mark.parametrize("value", [-1, 0, 2.0, "8", True, 10**10, [1]])
def test_a_size_is_a_whole_number_in_range(path, value):
    if value == 0 and path in COUNTS and value is not False:
        assert load_model(MIXTURE, {f"decoder.{path}": 0})
        return
    lines = refused(MIXTURE, {f"decoder.{path}": value})
    assert any(f"decoder.{path}: " in line for line in lines)


def test_more_layers_and_experts_than_any_model_are_refused():
    assert "1001 (allowed: up to 1000)" in refused(DENSE, {"decoder.layers": 1001})[0]
    assert "5000 (allowed: up to 4096)" in refused(MIXTURE, {"decoder.experts.count": 5000})[0]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [("decoder.tied", "no", "not true or false"), ("decoder.head", 1, "unknown key"),
     ("decoder.norm", "batch", "not one of those allowed"), ("dtype", "fp12", "not one of"),
     ("decoder.attention.qk_norm", True, "not one of those allowed"),
     ("decoder.experts.scoring", "relu", "not one of those allowed"),
     ("decoder.experts.skew", -0.5, "out of bounds: -0.5 (allowed: 0.0 or more)"),
     ("decoder.attention", None, "not a mapping"),
     ("parameters", 0, "out of bounds: 0 (allowed: 1 or more)")],
)  # fmt: skip
def test_other_fields_are_refused_by_name(path, value, said):
    (line,) = refused(MIXTURE, {path: value})
    assert path in line and said in line


# ---------------------------------------------------------------- how many parameters

# Counted by the publishers: safetensors of meta-llama/Llama-3.1-8B, Qwen/Qwen3-8B and
# Qwen/Qwen3-30B-A3B. Of DeepSeek-V3 671B are published, the exact count is that of the headers of
# its checkpoint without the layer of multi-token prediction.
PUBLISHED = {
    "llama_3_1_8b": 8_030_261_248,
    "qwen3_8b": 8_190_735_360,
    "qwen3_30b_a3b": 30_532_122_624,
    "deepseek_v3": 671_026_419_200,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shipped_decoder_has_the_published_parameters(name):
    model = load_model(name)
    assert decoder_parameters(model.decoder) == PUBLISHED[name] == model.parameters


def test_deepseek_v3_by_hand():
    q = 7168 * 1536 + 1536 + 1536 * 128 * (128 + 64)
    kv = 7168 * (512 + 64) + 512 + 512 * 128 * (128 + 128)
    attention = q + kv + 128 * 128 * 7168
    assert (q, kv, attention) == (48_760_320, 20_906_496, 187_107_328)
    expert = 3 * 7168 * 2048
    router = 256 * 7168 + 256  # with a bias an expert, e_score_correction_bias
    dense, sparse = 3 * 7168 * 18432, 257 * expert + router
    total = 2 * 129_280 * 7168 + 61 * (attention + 2 * 7168) + 3 * dense + 58 * sparse + 7168
    assert decoder_parameters(load_model("deepseek_v3").decoder) == total
    without = load_model("deepseek_v3", {"decoder.experts.bias": False})
    assert total - decoder_parameters(without.decoder) == 58 * 256 == 14_848


def test_experts_are_in_every_so_many_layers():
    attention = Attention(heads=1, kv_heads=1, head_size=2)
    experts = Experts(count=4, chosen=2, intermediate=8, first_dense=1, every=2)
    d = Decoder(layers=6, hidden=4, vocabulary=10, intermediate=8, tied=True,
                attention=attention, experts=experts)  # fmt: skip
    assert [has_experts(d, layer) for layer in range(6)] == [False, True] * 3
    ffn, block = 3 * 4 * 8, 4 * 4 * 2 + 2 * 4
    assert decoder_parameters(d) == 6 * block + 3 * ffn + 3 * 4 * (ffn + 4) + 4 + 40


def test_a_token_of_deepseek_v3_reads_what_its_publisher_calls_active():
    """36.6B, 0.9B of the output head among them (README_WEIGHTS.md of DeepSeek-V3)."""
    for lowering in ("hf-eager", "hf-eager-grouped"):
        w = template("deepseek_v3", "decode", context=9, lowering=lowering)
        widths = np.where(w.mask("dtype", "fp32"), 4, 2)  # the router
        assert (w["read_weight"] / widths).sum() == pytest.approx(36.6e9, rel=0.001)


@st.composite
def decoders(draw):
    """Decoders without experts, of every form that the schema has."""
    size = st.integers(1, 40)
    kv = draw(st.integers(1, 4))
    rotary = draw(st.sampled_from(["default", "none"]))
    attention = Attention(
        heads=kv * draw(st.integers(1, 4)), kv_heads=kv, head_size=2 * draw(size), rotary=rotary,
        bias=draw(st.booleans()), output_bias=draw(st.booleans()),
        qk_norm=draw(st.sampled_from(["head", "whole", None])),
    )  # fmt: skip
    return Decoder(
        layers=draw(st.integers(1, 4)), hidden=draw(size), vocabulary=draw(size),
        intermediate=draw(size), gated=draw(st.booleans()), bias=draw(st.booleans()),
        norm=draw(st.sampled_from(["rms", "layer"])), norm_after=draw(st.booleans()),
        positions=draw(st.integers(0, 40)), tied=draw(st.booleans()), attention=attention,
    )  # fmt: skip


@given(decoders())
def test_a_decode_step_reads_every_parameter_once(d):
    """But one row of a table: of positions, and of an embedding that is not the projection."""
    values = d.model_dump()
    w = template("paddleocr_vl", "decode", context=7, settings={"decoder": values})
    read = w["read_weight"].sum() / 2  # bf16
    rows = d.hidden + (d.hidden if d.positions else 0)
    tables = (d.positions + (0 if d.tied else d.vocabulary)) * d.hidden
    assert read == decoder_parameters(d) - tables + rows


# ---------------------------------------------------------------- forms of a layer


def names(d, layer=None):
    operators = decoder_operators(d, Tokens(1, 1, 5), load_lowering("hf-eager"))
    return [o.name for o in operators if layer is None or o.layer == layer]


def form(**settings):
    d = load_model(DENSE).decoder
    return d.model_copy(update={"layers": 2, **settings})


def test_norms_come_before_or_after():
    assert names(form(), 1) == [
        "qkv", "rotate", "cache", "attention", "linear", "residual_rms_norm", "gated_ffn",
        "residual_rms_norm",
    ]  # fmt: skip
    after = form(norm_after=True)
    assert names(after, 1) == [
        "qkv", "rotate", "cache", "attention", "linear", "rms_norm", "residual", "gated_ffn",
        "rms_norm", "residual",
    ]  # fmt: skip
    assert names(after).count("rms_norm") == 2 * 2 + 1
    assert names(after)[-3:] == ["rms_norm", "head", "argmax"]


def test_learned_positions_are_looked_up_and_added():
    d = form(positions=1024, attention=form().attention.model_copy(update={"rotary": "none"}))
    assert names(d)[:4] == ["embed", "positions", "embed", "residual"]
    assert "rotary_table" not in names(d) and "rotate" not in names(d)


def test_norms_of_queries_are_of_a_head_or_of_all():
    widths = {}
    for how in ("head", "whole"):
        d = form(attention=form().attention.model_copy(update={"qk_norm": how}))
        found = [o for o in decoder_operators(d, Tokens(3, 1, 5), load_lowering("hf-eager"))
                 if o.layer == 1 and o.name in ("qk_norm", "rms_norm")]  # fmt: skip
        widths[how] = [o.named for o in found]
    assert widths["head"] == [{"rows": 3, "heads": 32, "kv_heads": 8, "size": 128}]
    assert widths["whole"] == [{"rows": 3, "width": 4096}, {"rows": 3, "width": 1024}]


def test_a_gate_of_shared_experts_is_a_product_of_its_own():
    settings = {"decoder.layers": 4, "decoder.experts.shared_gate": True}
    with_gate = template(MIXTURE, "decode", context=9, settings=settings)
    without = template(MIXTURE, "decode", context=9, settings={"decoder.layers": 4})
    more = with_gate["read_weight"].sum() - without["read_weight"].sum()
    assert more == 2 * 7168  # of the only layer with experts
    assert len(with_gate) - len(without) == 3 + 1  # a long product is split: its parts are added
