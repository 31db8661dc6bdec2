"""Templates of one chip of several: what it holds, does and sends, against the whole by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import Designs
from npusim.durations import Durations
from npusim.errors import InputError
from npusim.fusion.program import program
from npusim.lanes import timeline
from npusim.templates import load_model
from npusim.templates.hyperparameters import decoder_parameters
from npusim.templates.parallel import Parallel, chip_parameters, stage_layers
from npusim.templates.parallel_experts import busiest, dealt_loads, expected_most

PRODUCTS = ("gemv", "gemm", "grouped_gemm")
LOWERINGS = ("hf-eager", "hf-eager-grouped", "hf-remote", "serving", "npu", "fused")


def decode(model="llama_3_1_8b", lowering="serving", batch=3, context=500, **split):
    return ns.template(model, "decode", batch=batch, context=context, lowering=lowering, **split)


def prefill(model="llama_3_1_8b", lowering="serving", batch=1, context=512, **split):
    return ns.template(model, "prefill", batch=batch, context=context, lowering=lowering, **split)


def total(w, column, *kinds):
    """Return a sum over kinds of kernels; of products those that have weights."""
    rows = w.mask("kind", *kinds)
    if kinds == PRODUCTS:
        rows &= w["read_weight"] > 0
    return float(w[column][rows].sum())


def sent(w, routine):
    """Return chips, bytes given and bytes got of each collective of a routine."""
    rows = w.mask("kind", "collective") & w.mask("routine", routine)
    return list(zip(*(w[c][rows].tolist() for c in ("k", "read_activation", "write_activation")),
                    strict=True))  # fmt: skip


# ---------------------------------------------------------------- tensor


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("make", [decode, prefill])
def test_one_chip_of_one_is_the_model(make, lowering):
    whole, one = make(lowering=lowering), make(lowering=lowering, tensor=1, expert=1, pipeline=1)
    assert whole.id == one.id and not one.mask("kind", "collective").any()
    assert "parallel" not in one.meta and set(one["stream"]) == {0}


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("tensor", [2, 8])
def test_products_and_attention_of_all_chips_are_the_whole(lowering, tensor):
    """128,256 columns of the head and all heads divide by 8: nothing is replicated."""
    whole, one = decode(lowering=lowering), decode(lowering=lowering, tensor=tensor)
    for column in ("flop", "read_weight"):
        assert tensor * total(one, column, *PRODUCTS) == total(whole, column, *PRODUCTS)
    assert tensor * total(one, "flop", "attention") == total(whole, "flop", "attention")
    assert tensor * one["read_kv"].sum() == whole["read_kv"].sum()
    assert tensor * one["write_kv"].sum() == whole["write_kv"].sum()


def test_what_latent_attention_replicates_by_hand():
    """DeepSeek-V3 on 8 chips: latent projections and the router are on all, the rest is cut."""
    whole, one = (decode("deepseek_v3", tensor=t) for t in (1, 8))
    latent = 2 * 61 * 7168 * (1536 + 512 + 64)  # bf16
    router = 4 * 58 * 7168 * 256  # fp32
    more = 8 * total(one, "read_weight", *PRODUCTS) - total(whole, "read_weight", *PRODUCTS)
    assert more == pytest.approx(7 * (latent + router), rel=1e-12)
    assert one["read_kv"].sum() == whole["read_kv"].sum()  # one latent vector, for all heads


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_collectives_of_llama_by_hand(lowering):
    """An all_reduce behind the embedding, each attention and each network; the logits gathered."""
    w = decode(lowering=lowering, tensor=2)
    assert sent(w, "all_reduce") == [(2, 3 * 4096 * 2.0, 3 * 4096 * 2.0)] * (1 + 2 * 32)
    assert sent(w, "all_gather") == [(2, 3 * 64128 * 2.0, 3 * 128256 * 2.0)]
    assert w.mask("kind", "collective").sum() == 66
    assert set(w.text("library")[w.mask("kind", "collective")]) == {"NCCL"}
    assert set(w["stream"]) == {0}


def test_sizes_of_llama_on_two_chips_by_hand():
    """Columns and rows of the products of a layer: 16 heads, 4 key-value heads, 7,168 columns."""
    w = decode(tensor=2)
    rows = (w["layer"] == 3) & w.mask("kind", "gemm")
    assert list(zip(w["n"][rows].tolist(), w["k"][rows].tolist(), strict=True)) == [
        (24 * 128, 4096), (4096, 2048), (2 * 7168, 4096), (4096, 7168),
    ]  # fmt: skip
    attention = w.mask("kind", "attention")
    assert set(w["heads"][attention]) == {16} and set(w["kv_heads"][attention]) == {4}


def test_fewer_heads_of_keys_than_chips_are_replicated():
    whole, one = decode(), decode(tensor=16)
    assert set(one["kv_heads"][one.mask("kind", "attention")]) == {1}
    assert 8 * one["read_kv"].sum() == whole["read_kv"].sum()
    assert 16 * total(one, "flop", "attention") == total(whole, "flop", "attention")


def test_a_vocabulary_that_does_not_divide_is_padded():
    """129,280 columns are 1,010 each on 128 chips; 1,001 on two are 501 each, one of no token."""
    w = decode("deepseek_v3", tensor=128)
    assert sent(w, "all_gather") == [(128, 3 * 1010 * 2.0, 3 * 129280 * 2.0)]
    w = ns.template("llama_3_1_8b", "decode", lowering="serving", tensor=2,
                    settings={"decoder.vocabulary": 1001})  # fmt: skip
    assert sent(w, "all_gather") == [(2, 501 * 2.0, 1002 * 2.0)]


# ---------------------------------------------------------------- experts


def test_experts_of_a_long_prompt_add_up():
    """All are hit: each chip reads an eighth; the busiest gets a little more than that to do."""
    whole, one = (prefill("qwen3_30b_a3b", context=2048, expert=e) for e in (1, 8))
    assert 8 * total(one, "read_weight", "grouped_gemm") == pytest.approx(
        total(whole, "read_weight", "grouped_gemm"), rel=1e-9
    )
    share = 8 * total(one, "flop", "grouped_gemm") / total(whole, "flop", "grouped_gemm")
    assert 1.0 < share < 1.06
    assert set(one["groups"][one.mask("kind", "grouped_gemm")]) == {16}


def test_collectives_of_groups_that_attend_for_themselves_by_hand():
    """Two chips a group, four groups, 16 sequences: 4 each, of which a chip sends half."""
    w = decode("deepseek_v3", batch=16, tensor=2, expert=8)
    assert sent(w, "all_to_all") == [(8, 2 * 8 * 7168 * 2.0, 2 * 8 * 7168 * 2.0)] * (2 * 58)
    # attention and the dense or shared network of each layer, and the embedding
    assert sent(w, "all_reduce") == [(2, 4 * 7168 * 2.0, 4 * 7168 * 2.0)] * (1 + 2 * 61)
    assert sent(w, "all_gather") == [(2, 4 * 7168.0, 4 * 7168 * 2.0)] * 58 + [
        (2, 4 * 129280.0, 4 * 129280 * 2.0)
    ]
    assert set(w["batch"][w.mask("kind", "attention")]) == {4} and w.meta["batch"] == 4


def test_chips_that_have_all_tokens_send_none():
    """Experts on the chips of one tensor group: one sum a layer, as without the split."""
    split, cut = (decode("deepseek_v3", tensor=8, expert=e) for e in (8, 1))
    assert sent(split, "all_reduce") == sent(cut, "all_reduce") and not sent(split, "all_to_all")


@pytest.mark.parametrize("tokens", [4, 64, 512])
def test_the_busiest_chip_as_tokens_choose_at_random(tokens):
    """Eight of 256 experts a token, on eight chips."""
    e, chips, random = load_model("deepseek_v3").decoder.experts, 8, np.random.default_rng(1)
    most, hit = [], []
    for _ in range(400):
        chosen = np.argpartition(random.random((tokens, 256)), 8, axis=1)[:, :8]
        most.append(np.bincount(chosen.ravel() % chips, minlength=chips).max())
        touched = np.isin(np.arange(256), chosen).reshape(-1, chips)
        hit.append(touched.sum(axis=0).max())
    got, found = busiest(e, tokens, chips)
    assert got == pytest.approx(np.mean(most), rel=0.02, abs=0.5)
    assert found == pytest.approx(np.mean(hit), rel=0.02, abs=0.3)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 500), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6))
def test_the_largest_of_counts_is_no_less_than_any(trials, chance):
    most = expected_most(trials, np.array(chance))
    assert trials * max(chance) - 1e-6 * trials <= most <= trials + 1e-6
    assert expected_most(trials, np.array(chance[:1])) == pytest.approx(
        trials * chance[0], abs=1e-6
    )


@pytest.mark.parametrize("skew", [0.0, 1.0])
@pytest.mark.parametrize("tokens", [1, 7, 300])
def test_tokens_of_the_busiest_chip_go_to_its_experts(tokens, skew):
    m = load_model("qwen3_30b_a3b", {"decoder.experts.skew": skew})
    rows = dealt_loads(m.decoder.experts, tokens, 8)
    assert sum(rows) == busiest(m.decoder.experts, tokens, 8)[0] >= tokens * 8 / 8
    assert max(rows) <= tokens and 1 <= len(rows) <= 16


def test_popular_experts_make_their_chip_busier():
    even, skewed = (load_model("qwen3_30b_a3b", {"decoder.experts.skew": s}).decoder.experts
                    for s in (0.0, 1.5))  # fmt: skip
    assert busiest(skewed, 512, 16)[0] > 1.5 * busiest(even, 512, 16)[0]


def test_a_skewed_workload_knows_the_popularity_of_its_own_experts():
    w = ns.template("qwen3_30b_a3b", "decode", batch=8, lowering="serving", expert=32,
                    settings={"decoder.experts.skew": 1.0})  # fmt: skip
    assert w.meta["experts"] == pytest.approx([1.0, 1 / 33, 1 / 65, 1 / 97])
    assert ns.replay(w, ns.load_arch("h200"), launch="graph").wall_s > 0


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_every_lowering_splits_experts(lowering):
    w = decode("qwen3_30b_a3b", lowering, batch=8, tensor=2, expert=4)
    assert len(sent(w, "all_to_all")) == 2 * 48


# ---------------------------------------------------------------- pipeline


@pytest.mark.parametrize("model", ["llama_3_1_8b", "deepseek_v3"])
@pytest.mark.parametrize("lowering", ["hf-eager-grouped", "serving", "npu"])
def test_stages_are_the_whole_one_after_the_other(model, lowering):
    whole = decode(model, lowering)
    stages = [decode(model, lowering, pipeline=3, stage=s) for s in range(3)]
    for column, kinds in (("flop", PRODUCTS), ("read_weight", PRODUCTS), ("flop", ("attention",))):
        parts = sum(total(w, column, *kinds) for w in stages)
        assert parts == pytest.approx(total(whole, column, *kinds), rel=1e-12)
    assert sum(w["read_kv"].sum() for w in stages) == whole["read_kv"].sum()
    layers = [set(w["layer"].tolist()) - {-1} for w in stages]
    assert sorted(n for part in layers for n in part) == sorted(set(whole["layer"].tolist()) - {-1})
    inside = [[len(set(w.text("kernel")) & set(k)) for k in
               (("embedding", "embed", "index_select"), ("argmax",))] for w in stages]  # fmt: skip
    assert inside == [[1, 0], [0, 0], [0, 1]]


def test_what_stages_send_by_hand():
    stages = [decode(pipeline=3, stage=s) for s in range(3)]
    hidden, tokens = (2, 3 * 4096 * 2.0, 3 * 4096 * 2.0), (2, 3 * 8.0, 3 * 8.0)
    assert [sent(w, "send") for w in stages] == [[hidden], [hidden], [tokens]]
    assert not sent(prefill(pipeline=2, stage=1), "send")


def test_layers_are_cut_evenly():
    assert [len(stage_layers(10, Parallel(pipeline=4, stage=s))) for s in range(4)] == [3, 3, 2, 2]


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize("tensor", [2, 4, 8])
def test_parameters_of_a_tensor_split_add_up(tensor):
    """Of Llama the norms alone are on all chips: two a layer and the last."""
    d = load_model("llama_3_1_8b").decoder
    norms = (2 * 32 + 1) * 4096
    held = chip_parameters(d, Parallel(tensor=tensor))
    assert tensor * held - (tensor - 1) * norms == 8_030_261_248


@pytest.mark.parametrize("model", ["llama_3_1_8b", "deepseek_v3", "deepseek_ocr"])
def test_parameters_of_stages_add_up(model):
    d = load_model(model).decoder
    held = [chip_parameters(d, Parallel(pipeline=5, stage=s)) for s in range(5)]
    assert sum(held) == decoder_parameters(d) + d.tied * d.vocabulary * d.hidden


def test_parameters_of_an_expert_split_by_hand():
    """A chip of 8 has 16 of 128 experts a layer, and all else."""
    d = load_model("qwen3_30b_a3b").decoder
    away = 48 * (128 - 16) * 3 * 2048 * 768
    assert decoder_parameters(d) - chip_parameters(d, Parallel(expert=8)) == away


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(("model", "split", "told"), [
    ("llama_3_1_8b", {"tensor": 0}, "tensor: out of range"),
    ("llama_3_1_8b", {"tensor": 2.5}, "tensor: not a whole number"),
    ("llama_3_1_8b", {"tensor": True}, "tensor: not a whole number"),
    ("llama_3_1_8b", {"tensor": 3}, "tensor: does not divide the 32 heads"),
    ("llama_3_1_8b", {"expert": 2}, "expert: of a model without experts"),
    ("llama_3_1_8b", {"pipeline": 33, "stage": 0}, "pipeline: more stages than the 32 layers"),
    ("llama_3_1_8b", {"pipeline": 2}, "stage: is needed"),
    ("llama_3_1_8b", {"pipeline": "2"}, "pipeline: not a whole number"),
    ("llama_3_1_8b", {"pipeline": 2, "stage": 2}, "stage: out of range"),
    ("llama_3_1_8b", {"stage": 1}, "stage: out of range"),
    ("llama_3_1_8b", {"overlap": 3, "tensor": 2}, "overlap: out of range"),
    ("llama_3_1_8b", {"overlap": 2}, "overlap: no collective"),
    ("llama_3_1_8b", {"overlap": 2, "tensor": 2}, "overlap: needs two sequences"),
    ("qwen3_30b_a3b", {"expert": 3}, "expert: does not divide the 128 experts"),
    ("qwen3_30b_a3b", {"tensor": 4, "expert": 2}, "expert: neither 1 nor a multiple"),
    ("deepseek_v3", {"tensor": 3}, "tensor: does not divide the 128 heads"),
])  # fmt: skip
def test_an_impossible_split_is_refused_by_its_field(model, split, told):
    with pytest.raises(InputError, match=told) as error:
        decode(model, batch=1, **split)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(("settings", "told"), [
    ({"decoder.intermediate": 14338}, "tensor: does not divide the 14338 columns"),
    ({"decoder.attention.kv_heads": 1, "decoder.attention.qk_norm": "whole"}, "norms over all"),
])  # fmt: skip
def test_sizes_that_do_not_divide_are_refused(settings, told):
    with pytest.raises(InputError, match=told):
        ns.template("llama_3_1_8b", "decode", tensor=4, settings=settings)


def test_heads_of_keys_that_fit_no_split_are_refused():
    sizes = {"decoder.attention.heads": 24, "decoder.attention.kv_heads": 6}
    with pytest.raises(InputError, match="tensor: neither divides the 6 key-value heads"):
        ns.template("llama_3_1_8b", "decode", tensor=4, settings=sizes)


@pytest.mark.parametrize("phase", ["vision", "page"])
def test_an_encoder_is_not_split(phase):
    with pytest.raises(InputError, match=f"tensor: not of {phase}"):
        ns.template("paddleocr_vl", phase, tensor=2)


# ---------------------------------------------------------------- overlap


def test_halves_do_the_work_of_the_whole():
    """Five sequences in three and two; each half reads the weights, and its own cache."""
    whole, both = (decode(batch=5, tensor=2, overlap=o) for o in (1, 2))
    for kind in (PRODUCTS, ("attention",)):
        assert total(both, "flop", *kind) == total(whole, "flop", *kind)
    assert both["read_kv"].sum() == whole["read_kv"].sum()
    assert total(both, "read_weight", *PRODUCTS) == 2 * total(whole, "read_weight", *PRODUCTS)
    for routine in ("all_reduce", "all_gather"):
        assert sum(s[2] for s in sent(both, routine)) == sum(s[2] for s in sent(whole, routine))


def test_halves_of_one_prompt_attend_to_what_came_before():
    whole, both = (prefill(context=512, tensor=2, overlap=o) for o in (1, 2))
    assert total(both, "flop", "attention") == total(whole, "flop", "attention")
    assert total(both, "flop", *PRODUCTS) == total(whole, "flop", *PRODUCTS)  # one head of one row
    assert both["write_kv"].sum() == whole["write_kv"].sum()


def test_groups_halve_their_own_sequences():
    w = decode("deepseek_v3", batch=24, expert=8, overlap=2)
    assert sorted(set(w["batch"][w.mask("kind", "attention")].tolist())) == [1, 2]


@pytest.mark.parametrize("launch", ["eager", "graph", "queue"])
def test_collectives_of_a_half_run_beside_the_other(launch):
    """Each kernel waits for the one before it in its half, and collectives lie over the other's."""
    w = decode(batch=2, tensor=2, overlap=2)
    collective = w.mask("kind", "collective")
    assert (w["stream"] == collective).all()
    time = Durations(np.ones((1, 1)), np.zeros(len(w), dtype=np.intp),
                     np.where(collective, 1e-2, 1e-3))  # fmt: skip
    seen = timeline(w, Designs(ns.load_arch("h200")), time, launch)
    start, end = np.array(seen.start), np.array(seen.end)
    half = _halves(collective)
    for one in (1, 2):
        rows = np.flatnonzero(half == one)
        assert (start[rows[1:]] >= end[rows[:-1]]).all()
    beside = [((start < end[i]) & (end > start[i]) & ~collective & (half != half[i])).any()
              for i in np.flatnonzero(collective & (half == 1))]  # fmt: skip
    assert np.mean(beside) > 0.9


def _halves(collective):
    """Return the half of each kernel: they take turns behind each collective."""
    turns = np.concatenate([[0], np.cumsum(collective)[:-1]])
    return 1 + turns % 2


def test_overlap_hides_what_is_shorter():
    """Collectives as long as the work between them: side by side they take about half as long."""
    arch, walls = Designs(ns.load_arch("h200")), []
    for overlap in (1, 2):
        w = decode(batch=2, tensor=2, overlap=overlap)
        collective = w.mask("kind", "collective")
        work = (~collective).sum() / collective.sum()
        scale = np.where(collective, 1e-3 * work, 1e-3) / overlap  # of halves, half as long
        time = Durations(np.ones((1, 1)), np.zeros(len(w), dtype=np.intp), scale)
        walls.append(timeline(w, arch, time, "queue").steps[-1])
    assert walls[1] < 0.62 * walls[0]


def test_a_fusion_engine_keeps_what_waits_for_the_other_stream():
    """What is fused still waits for the collective of its half, and the collective for it."""
    w = decode(batch=2, tensor=2, overlap=2)
    ran = program(w, Designs(ns.load_arch("decode_npu")), "queue")
    assert len(ran) < len(w)
    indptr, indices = ran.edges
    later = np.repeat(np.arange(len(ran)), np.diff(indptr))
    crossing = ran["stream"][later] != ran["stream"][indices]
    collective = ran.mask("kind", "collective")
    assert collective.sum() == w.mask("kind", "collective").sum()
    assert set(np.flatnonzero(collective)) <= set(later[crossing])
    assert (
        len(set(indices[crossing & ~collective[later]])) >= collective.sum() - 2
    )  # last ones: none


def test_a_replay_without_links_says_so():
    w = ns.template("llama_3_1_8b", "decode", context=512, lowering="serving", tensor=2)
    told = {name: [n for n in ns.replay(w, ns.load_arch(name), "graph").notes if "NO LINKS" in n]
            for name in ("metax_c500", "h200")}  # fmt: skip
    assert "66 collectives" in told["metax_c500"][0]  # two a layer, the embedding, the logits
    assert told["h200"] == []
