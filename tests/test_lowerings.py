"""Lowerings that ship: the same work in each, kernels counted by hand, bad ones refused by line."""

from collections import Counter

import numpy as np
import pytest
import yaml

import npusim as ns
from npusim.errors import InputError
from npusim.templates import load_lowering, load_model, template
from npusim.templates.decoder import Tokens, decoder_operators

ALL = ("hf-eager", "hf-eager-grouped", "hf-remote", "fused", "serving", "npu")
FEWER = ("hf-eager-grouped", "fused", "serving", "npu")  # each has fewer kernels than the last

# Two layers of two heads of 4: q, k and v 3 x 8 x 8 weights, output 8 x 8, network 3 x 8 x 16.
TINY = {
    "title": "tiny", "source": "by hand", "dtype": "bf16",
    "decoder": {
        "layers": 2, "hidden": 8, "vocabulary": 100, "intermediate": 16, "tied": False,
        "attention": {"heads": 2, "kv_heads": 2, "head_size": 4},
    },
}  # fmt: skip
EXPERTS = {"count": 4, "chosen": 2, "intermediate": 8, "shared": 1, "first_dense": 1}
SIGMOID = {**EXPERTS, "scoring": "sigmoid", "bias": True, "groups": 2, "chosen_groups": 1}
LATENT = {"kv_rank": 6, "rope_size": 2, "value_size": 4}
VARIANTS = {
    "dense": {},
    "grouped heads": {"decoder.attention.kv_heads": 1},
    "biases": {"decoder.attention.bias": True, "decoder.attention.output_bias": True,
               "decoder.bias": True},
    "norms of heads": {"decoder.attention.qk_norm": "head"},
    "norms of q and k": {"decoder.attention.qk_norm": "whole", "decoder.norm_after": True},
    "three sections": {"decoder.attention.rotary": "multimodal"},
    "GPT-2": {"decoder.norm": "layer", "decoder.gated": False, "decoder.activation": "gelu_tanh",
              "decoder.positions": 1024, "decoder.attention.rotary": "none",
              "decoder.bias": True},
    "top-k": {"decoder.sampling": "top_k", "decoder.top_k": 5},
    "experts": {"decoder.experts": EXPERTS},
    "sigmoid": {"decoder.experts": SIGMOID},
    "gate of the shared": {"decoder.experts": {**EXPERTS, "shared_gate": True}},
    "latent": {"decoder.attention.latent": LATENT},
    "latent queries": {"decoder.attention.latent": {**LATENT, "query_rank": 6}},
}  # fmt: skip
PHASES = {
    "prefill": {"phase": "prefill", "context": 9},
    "chunk": {"phase": "prefill", "context": 5, "new": 3},
    "decode": {"phase": "decode", "context": 700},
    "drafted": {"phase": "decode", "context": 700, "draft": 2, "acceptance": 0.5, "batch": 2},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    file = tmp_path_factory.mktemp("models") / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY))
    return file


def made(tiny, variant, phase, lowering):
    """Return a workload; of a model with experts every layer hits three, two if there is one."""
    asked = dict(PHASES[phase])
    if "decoder.experts" in VARIANTS[variant]:
        asked["experts_hit"] = 2 if phase == "decode" else 3
    return template(tiny, asked.pop("phase"), lowering=lowering, settings=VARIANTS[variant],
                    **asked)  # fmt: skip


def products(w):
    """Return FLOP of products, those that turn positions into angles (k = 1) left out."""
    kinds = [w.mask("kind", k) for k in ("gemv", "gemm", "grouped_gemm", "conv")]
    return w["flop"][np.any(kinds, axis=0) & (w["k"] > 1)].sum()


def activations(w, *without):
    rows = ~np.isin(w.text("kernel"), without)
    return (w["read_activation"] + w["write_activation"])[rows].sum()


def kernels(w, layer):
    return list(np.array(w.text("kernel"))[w["layer"] == layer])


def test_the_variants_have_every_operator_of_a_decoder(tiny):
    """So that lowering them all, as the next test does, leaves no operator out."""
    seen = set()
    for variant in VARIANTS.values():
        m = load_model(tiny, variant)
        for lowering in ("hf-eager", "serving"):
            for tokens in (Tokens(1, 9, 0), Tokens(1, 1, 700), Tokens(2, 3, 700, 2)):
                how = load_lowering(lowering)
                seen |= {o.name for o in decoder_operators(m.decoder, tokens, how)}
    assert seen >= {
        "embed", "positions", "rotary_table", "rms_norm", "layer_norm", "residual",
        "residual_rms_norm", "residual_layer_norm", "linear", "head", "qkv", "qk_norm", "rotate",
        "cache", "attention", "heads_linear", "gated_ffn", "ffn", "router", "experts",
        "experts_start", "expert", "experts_end", "shared_gate", "argmax", "sample_top_k", "verify",
    }  # fmt: skip


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_work_is_the_same_in_every_lowering(tiny, variant, phase):
    """FLOP of products and attention, and bytes of weights, whatever the kernels are.

    Latent attention that is absorbed does other products over the same weights. A compiled program
    attends to all slots of its static cache, 63 more than there are keys. The remote code casts the
    router's weights to bf16 again, the others multiply in fp32.
    """
    ways = {name: made(tiny, variant, phase, name) for name in ALL}
    first = ways["hf-eager"]
    keys = int(first["n"][first.mask("kind", "attention")][0])
    new = PHASES[phase].get("draft", 0) + PHASES[phase].get("new", 1)
    pairs = new * (keys - new) + new * (new + 1) / 2
    routers = 1 if "decoder.experts" in VARIANTS[variant] else 0
    for name, w in ways.items():
        assert set(w.text("origin")) == {"generated"}
        latent = "latent" in variant and load_lowering(name).latent == "absorbed"
        other = ways["serving" if latent else "hf-eager"]
        assert products(w) == products(other), name
        attention = w["flop"][w.mask("kind", "attention")].sum()
        if name == "fused" and phase != "prefill":
            attention *= pairs / (new * (keys + 63))
        told = other["flop"][other.mask("kind", "attention")].sum()
        assert attention == pytest.approx(told, rel=1e-12), name
        again = 2 * 4 * 8 * routers if name == "hf-remote" else 0
        assert w["read_weight"].sum() + again == first["read_weight"].sum(), name


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_kernels_get_fewer(tiny, variant, phase):
    counts = [len(made(tiny, variant, phase, name)) for name in FEWER]
    assert counts == sorted(set(counts), reverse=True)


@pytest.mark.parametrize(("model", "phase", "asked"), [
    ("deepseek_ocr", "decode", {"context": 1024}),
    ("deepseek_ocr", "decode", {"context": 1024, "batch": 16}),
    ("deepseek_ocr", "prefill", {"context": 1024}),
    ("paddleocr_vl", "decode", {"context": 628}),
    ("paddleocr_vl", "prefill", {"context": 628}),
])  # fmt: skip
def test_activations_move_less(model, phase, asked):
    """But for what a static cache adds: keys and values of grouped heads copied to all of them."""
    ways = [template(model, phase, lowering=name, **asked) for name in FEWER]
    copies = ("keys to all heads", "values to all heads", "attention", "flash_attn_varlen")
    eager, fused, serving, npu = (activations(w, *copies) for w in ways)
    assert eager > fused > npu
    assert eager > serving > npu
    whole = [activations(w) for w in ways]
    if model == "deepseek_ocr" or phase == "prefill":
        assert whole[0] > whole[1] > whole[3]
    else:  # 18 layers of 16 heads of 692 slots x 128, written once and read once, keys and values
        assert whole[1] > 18 * 16 * 692 * 128 * 2 * 2 * 2


def test_vision_has_the_same_work_in_macro_operators():
    """Products of relative positions are a part of attention there."""
    for model, image in (("paddleocr_vl", (728, 644)), ("deepseek_ocr", (640, 640))):
        eager, npu = (template(model, "vision", image=image, lowering=name)
                      for name in ("hf-eager", "npu"))  # fmt: skip
        flop = [products(w) + w["flop"][w.mask("kind", "attention")].sum() for w in (eager, npu)]
        assert flop[0] == flop[1]
        assert npu["read_weight"].sum() == eager["read_weight"].sum()
        assert activations(npu) < activations(eager)
        assert len(npu) < len(eager) / 2


def test_serving_by_hand(tiny):
    """Of 700 keys FlashAttention 3 makes six tiles; two heads on 132 units: six parts."""
    w = made(tiny, "dense", "decode", "serving")
    first = kernels(w, 0)
    assert first == [
        "rms_norm", "mm", "rotary_embedding", "reshape_and_cache", "flash_attn_varlen",
        "flash_attn_combine", "mm", "fused_add_rms_norm", "mm", "act_and_mul", "mm",
        "fused_add_rms_norm",
    ]  # fmt: skip
    assert first[1:] == kernels(w, 1)
    assert kernels(w, -1) == ["embedding", "rows of logits", "mm", "logits to fp32", "argmax"]
    layer = w["layer"] == 0
    assert list(w["n"][layer & w.mask("kernel", "mm")]) == [24, 8, 32, 8]
    # keys and values of one token: 2 x 2 heads x 4 x 2 B; of 701: 22,432 B
    assert w["write_kv"][layer].sum() == 32
    assert w["read_kv"][layer].sum() == 701 * 32
    assert set(w["k"][w.mask("kind", "attention_combine")]) == {6}


def test_experts_of_serving_by_hand(tiny):
    w = made(tiny, "experts", "decode", "serving")
    moe = kernels(w, 1)
    assert moe[moe.index("to fp32") :] == [
        "to fp32", "mm", "split-K reduce", "topk_softmax", "moe_align_block_size",
        "fused_moe gate and up", "act_and_mul", "fused_moe down", "moe_sum", "mm", "act_and_mul",
        "mm", "add", "fused_add_rms_norm",
    ]  # fmt: skip
    grouped = w.mask("kind", "grouped_gemm")
    # one token, two of four experts of 3 x 8 x 8 weights
    assert w["flop"][grouped].sum() == 2 * 2 * 3 * 8 * 8
    assert w["read_weight"][grouped].sum() == 2 * 2 * 3 * 8 * 8
    many = template(tiny, "prefill", context=600, lowering="serving",
                    settings=VARIANTS["experts"])  # fmt: skip
    assert "count_and_sort_expert_tokens" in many.text("kernel")  # 1,200 are more than few


def test_macro_operators_by_hand(tiny):
    w = made(tiny, "experts", "decode", "npu")
    assert kernels(w, 0) == ["norm", "linear", "rotate", "write cache", "attention", "linear",
                             "add and norm", "gated feed-forward", "add and norm"]  # fmt: skip
    assert kernels(w, 1)[6:] == ["router", "experts", "gated feed-forward", "add", "add and norm"]
    assert kernels(w, -1) == ["embed", "linear", "argmax"]
    dense = np.flatnonzero(w.mask("kernel", "gated feed-forward"))[0]
    assert w["flop"][dense] == 2 * 3 * 8 * 16
    assert w["read_weight"][dense] == 2 * 3 * 8 * 16
    assert w["read_activation"][dense] == w["write_activation"][dense] == 16


def test_a_compiled_step_by_hand(tiny):
    """A static cache of 700 + 64 slots; grouped heads are copied to all, others are not."""
    w = made(tiny, "grouped heads", "decode", "fused")
    assert kernels(w, 1) == [
        "mm", "mm", "mm", "rotate q", "rotate k", "write keys and values", "slot counter",
        "keys to all heads", "values to all heads", "mask", "attention", "combine", "mm",
        "add and norm", "mm", "mm", "activation and mul", "mm", "add and norm",
    ]  # fmt: skip
    attention = w.mask("kind", "attention")
    assert set(w["n"][attention]) == {764}
    assert set(w["kv_heads"][attention]) == {2}
    # queries, mask, keys and values of both heads
    assert set(w["read_activation"][attention]) == {2 * (8 + 764 + 2 * 2 * 764 * 4)}
    assert w["read_kv"][attention].sum() == 0
    same = made(tiny, "dense", "decode", "fused")
    assert "keys to all heads" not in same.text("kernel")
    assert kernels(same, 0).count("rotate q and k") == 1
    assert same["read_kv"][same.mask("kind", "attention")].sum() == 2 * 2 * 2 * 2 * 764 * 4


def test_a_prompt_that_is_compiled_attends_to_itself(tiny):
    w = made(tiny, "grouped heads", "prefill", "fused")
    assert set(w["n"][w.mask("kind", "attention")]) == {9}
    assert not {"mask", "keys to all heads"} & set(w.text("kernel"))


def test_rotary_angles_are_made_in_every_layer_of_the_remote_code(tiny):
    counts = {name: Counter(made(tiny, "dense", "decode", name).text("kernel"))["cos"]
              for name in ("hf-eager", "hf-remote")}  # fmt: skip
    assert counts == {"hf-eager": 1, "hf-remote": 2}


@pytest.mark.shared
@pytest.mark.parametrize(("model", "context", "file", "more"), [
    # the embedding by itself, and what chooses the token; a copy node that no name tells
    ("paddleocr_vl", 628, "paddle_decode_b1_c628_compiled",
     {"fused": 1, "reduction": 1, "setup": 1, "unknown": -1}),
    ("deepseek_ocr", 1024, "dsocr_grouped_decode_b1_c1024_compiled",
     {"fused": 1, "reduction": 1, "memset": -1}),
])  # fmt: skip
def test_a_compiled_step_has_the_kernels_of_its_trace(shared, model, context, file, more):
    trace = ns.import_trace(shared / f"baselines/h200/kineto/kineto_{file}.json.gz")
    made = template(model, "decode", context=context, lowering="fused")

    def kinds(w):
        products = ("gemv", "gemm", "grouped_gemm")  # a graph does not tell them apart
        texts = np.array(w.text("kind"))[w["step"] == 0]
        return Counter("product" if kind in products else kind for kind in texts)

    found, seen = kinds(made), kinds(trace)
    assert {k: found[k] - seen[k] for k in found | seen if found[k] != seen[k]} == more
    for kind in ("attention", "attention_combine"):  # the same parts of the keys
        grids = [set(w["blocks"][w.mask("kind", kind)]) for w in (made, trace)]
        assert grids[0] == grids[1]


HEAD = "title: bad\nsource: a test\nbase: hf-eager\nops:\n"


@pytest.mark.parametrize(("ops", "line", "problem"), [
    ("  tanh:\n    steps: []", 5, "unknown operator: 'tanh'"),
    ("  embed:\n    steps:\n    - {op: tanh, sizes: {}}", 7, "unknown operator: 'tanh'"),
    ("  embed:\n    steps:\n    - {op: residual, sizes: {rows: rows}}", 7,
     "not the sizes of this operator"),
    ("  embed:\n    steps:\n    - {kernel: a, kind: fill, m: batch}", 7, "unknown name: 'batch'"),
    ("  embed:\n    let: {a: b}\n    steps: []", 6, "unknown name: 'b'"),
    ("  embed:\n    steps:\n    - {kernel: a, kind: fill, m: exp(rows)}", 7,
     "unknown function: 'exp'"),
    ("  embed:\n    steps:\n    - {kernel: a, kind: fill, m: 2 *}", 7, "not an expression"),
    ("  embed:\n    steps:\n    - {kernel: a, kind: fill, op: residual}", 7,
     "needs exactly one of kernel, op, do: 'kernel, op'"),
    ("  embed:\n    steps:\n    - {kernel: a, kind: fill, do: []}", 7,
     "needs exactly one of kernel, op, do: 'kernel, do'"),
    ("  embed:\n    steps:\n    - {when: rows > 1}", 7, "needs exactly one of kernel, op, do"),
    ("  embed:\n    steps:\n    - {kernel: a, m: rows}", 7, "is missing"),
    ("  embed:\n    steps:\n    - {kernel: a, kind: matmul}", 7, "unknown kind: 'matmul'"),
    ("  embed:\n    steps:\n    - {kernel: a, kind: fill, rows: 1}", 7, "unknown key: 'rows'"),
])  # fmt: skip
def test_bad_lowerings_are_refused_by_line(tmp_path, ops, line, problem):
    file = tmp_path / "bad.yaml"
    file.write_text(HEAD + ops + "\n")
    with pytest.raises(InputError) as error:
        load_lowering(str(file))
    assert "bad.yaml" in str(error.value)
    assert f"line {line}, ops." in str(error.value)
    assert problem in str(error.value)


@pytest.mark.parametrize(("step", "problem"), [
    ("{kernel: a, kind: fill, reads: rows - 2}", "not a number from 0: -1"),
    ("{kernel: a, kind: fill, m: rows / (rows - 1)}", "cannot be computed"),
    ("{kernel: a, kind: fill, dtype: fp99}", "unknown type: 'fp99'"),
    ("{kernel: a, kind: fill, times: rows / 2}", "not a number of times: 0.5"),
    ("{kernel: a, kind: fill, times: -rows}", "not a number of times: -1"),
    ("{op: embed, sizes: {rows: rows, width: width, vocabulary: 1}}", "made of each other"),
])  # fmt: skip
def test_what_no_kernel_has_is_refused_when_it_is_made(tiny, tmp_path, step, problem):
    file = tmp_path / "bad.yaml"
    file.write_text(HEAD + f"  embed:\n    steps:\n    - {step}\n")
    with pytest.raises(InputError, match="embed") as error:
        template(tiny, "decode", context=5, lowering=str(file))
    assert problem in str(error.value)


def test_a_lowering_that_stands_on_itself_is_refused(tmp_path):
    file = tmp_path / "circle.yaml"
    file.write_text(f"title: circle\nsource: a test\nbase: {file}\nops: {{}}\n")
    with pytest.raises(InputError, match="stands on itself"):
        load_lowering(str(file))


def test_a_lowering_without_a_base_needs_its_settings(tmp_path):
    file = tmp_path / "alone.yaml"
    file.write_text("title: alone\nsource: a test\nops: {}\n")
    with pytest.raises(InputError, match="units: is missing"):
        load_lowering(str(file))
