"""Memory of a serving configuration: by hand, against measurement, and advice that works."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.errors import InputError
from npusim.memory_advice import advice, largest, too_high
from npusim.memory_flags import FRAMEWORKS, OVERHEADS
from npusim.memory_peak import largest_image, peak, sampler_bytes
from npusim.memory_plan import memory_plan

GIB = 2**30
GUIDE = {"max_model_len": 16384, "max_num_seqs": 256, "max_num_batched_tokens": 16384,
         "framework": "fastdeploy", "chunked_prefill": False}  # fmt: skip


def paddle(memory, utilization=0.9, **more):
    """Return the guide's configuration of PaddleOCR-VL on some memory."""
    return memory_plan("paddleocr_vl", memory, gpu_memory_utilization=utilization,
                       **(GUIDE | more))  # fmt: skip


# ---------------------------------------------------------------- by hand


def test_weights_and_cache_of_paddleocr_vl():
    plan = paddle(24e9)
    assert plan.weights == 958_588_736 * 2
    assert plan.kv_token == 18 * 2 * 2 * 128 * 2 == 18_432
    assert plan.kv_sequence == 18_432 * 16_384 == 301_989_888
    assert plan.all_sequences == 18_432 * 16_384 * 256
    assert plan.all_sequences / 1e9 == pytest.approx(77.3, abs=0.05)
    assert plan.kv_block == 64 * 18_432


def test_latent_attention_caches_rank_and_rotated_part():
    plan = memory_plan("deepseek_v3", 2e12, 4096, 1, 4096)
    assert plan.kv_token == 61 * (512 + 64) * 2


def test_a_step_of_llama_by_hand():
    p = memory_plan("llama_3_1_8b", 80e9, 8192, 256, 8192, framework="fastdeploy").peak
    assert p.step_bytes == 8192 * 2 * (
        2 * 14336 + 14336 + 4096
    )  # gate, up, their product, residual
    hidden, logits = 8192 * 4096 * 2, 256 * 128256 * 2
    assert p.choice_bytes == hidden + logits + 256 * 128256 * 36
    assert p.bytes == max(p.step_bytes, p.choice_bytes)


def test_the_parts_make_the_whole():
    plan = paddle(12e9, 0.8)
    assert plan.share + plan.reserve == pytest.approx(12e9)
    whole = plan.weights + plan.peak.bytes + plan.tables + plan.runtime + plan.pool + plan.reserve
    assert whole == pytest.approx(12e9)
    assert plan.blocks == int(plan.pool // (64 * 18_432))
    assert plan.pool_tokens == 64 * plan.blocks
    assert plan.sequences() == plan.blocks // 256  # 16,384 tokens are 256 blocks
    # FastDeploy counts the context, and captures graphs when the cache is there
    assert plan.runtime == OVERHEADS["context"].value + OVERHEADS["libraries"].value
    assert plan.beside == OVERHEADS["graphs"].value
    # numbers of 256 blocks of 256 sequences, a rotation of 128 numbers for each position
    assert plan.tables == 4 * 256 * 256 + 16384 * 128 * 2


def test_two_chips_halve_matrices_and_not_norms():
    one, two = (memory_plan("llama_3_1_8b", 80e9, 8192, 8, 2048, tensor=t) for t in (1, 2))
    norms = 32 * 2 * 4096 + 4096
    assert two.weights == ((8_030_261_248 - norms) // 2 + norms) * 2
    assert two.kv_token == one.kv_token / 2 == 65_536
    # eight KV heads on sixteen chips: one each, twice
    assert memory_plan("llama_3_1_8b", 80e9, 8192, 8, 2048, tensor=16).kv_token == 131_072 / 8


def test_narrow_weights_are_those_of_the_layers():
    plan = memory_plan("llama_3_1_8b", 80e9, 8192, 8, 2048, weight_bits=4, kv_bits=8)
    outside = 2 * 128256 * 4096 + 4096
    assert plan.weights == outside * 2 + (8_030_261_248 - outside) / 2
    assert plan.kv_token == 65_536


def test_the_largest_image_has_the_most_tokens_allowed():
    wide, high = largest_image(ns.load_model("paddleocr_vl").vision)
    assert (wide * high) // 28**2 == 2_359_296 // 28**2 == 3009
    assert wide % 28 == high % 28 == 0
    tokens = paddle(24e9).peak.image_bytes / (1024 * 2)
    assert tokens == 5 * 3009  # five such images have room in 16,384 tokens


def test_one_image_at_a_time_leaves_the_peak_to_the_choice_of_tokens():
    many, one = (paddle(24e9, images=n).peak for n in (None, 1))
    assert one.vision_bytes == pytest.approx(many.vision_bytes / 5, rel=1e-6)
    assert one.image_bytes == many.image_bytes / 5
    assert (many.where, one.where) == ("vision, mul", "choice of tokens")
    assert paddle(24e9, images=100).peak == many  # no more than have room


# ---------------------------------------------------------------- measured


@pytest.mark.parametrize(
    ("model", "tokens", "measured"),  # H200, PyTorch 2.11, two layers, compiled norm and activation
    [("llama_3_1_8b", 2048, 192_937_984), ("llama_3_1_8b", 8192, 771_751_936),
     ("llama_3_1_8b", 16384, 1_543_503_872), ("paddleocr_vl", 2048, 41_943_040),
     ("paddleocr_vl", 8192, 167_772_160), ("paddleocr_vl", 16384, 335_544_320),
     ("qwen3_8b", 2048, 167_772_160), ("qwen3_8b", 8192, 671_088_640)],
)  # fmt: skip
def test_the_peak_of_a_step_is_what_an_h200_took(model, tokens, measured):
    m = ns.load_model(model)
    assert peak(m, m.decoder, tokens, 1).step_bytes == measured


def test_sorting_takes_what_an_h200_took():
    measured = {8: 48.70, 32: 49.05, 64: 48.53, 100: 48.30, 127: 48.23,
                192: 36.02, 256: 36.06, 512: 36.04, 1024: 36.02}  # fmt: skip
    for rows, bytes_ in measured.items():  # a batch may be smaller: what any of them takes
        most = max(r * b for r, b in measured.items() if r <= rows)
        assert sampler_bytes("sort", rows) == pytest.approx(most, rel=0.02), rows
        assert sampler_bytes("sort", rows) >= 0.98 * rows * bytes_


def test_published_peaks_of_choosing_tokens():
    # vLLM, pull request 32558: 256 rows of 131,072 words, 1.25 GB sorted and 384.33 MB searched,
    # both with the logits in fp32, and in MiB as PyTorch counts
    words = 256 * 131_072
    published = {"sort": 1.25 * GIB / words, "search": 384.33 * 2**20 / words}
    assert sampler_bytes("sort", 256) / 256 == pytest.approx(published["sort"], rel=0.12)
    searched = sampler_bytes("search", 256, 132) / 256 - 4 * 132 / 256  # without its own rows
    assert searched == pytest.approx(published["search"], rel=0.01)


def test_activations_of_llama_as_vllm_profiled_them_on_an_h100():
    # vLLM, pull request 10511: 1.26 GiB for 8,192 tokens and 256 sequences, sorting
    plan = memory_plan("llama_3_1_8b", 79.22 * GIB, 8192, 256, 8192, framework="fastdeploy")
    assert plan.peak.bytes / GIB == pytest.approx(1.26, rel=0.05)
    assert plan.weights / GIB == pytest.approx(14.96, abs=0.005)


VLLM = {"num_gpu_blocks": 2588, "block_size": 16, "gpu_memory_utilization": 0.9,
        "device_total_memory_bytes": 25_250_627_584}  # fmt: skip


def test_blocks_that_vllm_allocated_on_an_rtx_4090():
    # LLMServingSim (MIT), bench of an RTX 4090: vLLM 0.19.0, Llama-3.1-8B in bf16
    arch = ns.with_value(ns.load_arch("rtx_4090"), "memories.dram.capacity",
                         float(VLLM["device_total_memory_bytes"]))  # fmt: skip
    plan = memory_plan("llama_3_1_8b", arch, 32768, 256, 2048, VLLM["gpu_memory_utilization"],
                       framework="vllm-0.19")  # fmt: skip
    assert plan.asked.block_tokens == VLLM["block_size"]
    assert plan.blocks == pytest.approx(VLLM["num_gpu_blocks"], rel=0.10)
    # what shapes tell is nearly all: of the share, less than 3 % is off
    taken = plan.share - VLLM["num_gpu_blocks"] * plan.kv_block
    assert plan.fixed == pytest.approx(taken, rel=0.03)


@pytest.mark.shared
def test_the_figures_of_that_run_are_those_of_its_file(shared):
    file = shared / "external/llmservingsim/bench/RTX4090/Llama-3.1-8B/vllm/meta.json"
    if not file.is_file():
        pytest.skip("the bench of LLMServingSim is not there")
    meta = json.loads(file.read_text())
    found = {**meta["kv_cache"], **meta["hardware"]}
    assert {name: found[name] for name in VLLM} == VLLM
    asked = meta["engine_kwargs"]
    assert [asked[f] for f in ("max_model_len", "max_num_seqs", "max_num_batched_tokens")] == [
        32768, 256, 2048]  # fmt: skip


# ---------------------------------------------------------------- claims of the guide (seed 003)


@pytest.mark.parametrize(
    ("arch", "utilization"), [("rtx_3060", 0.8), ("rtx_4090", 0.7), ("a100", 0.7)]
)
def test_the_three_documented_configurations_fit(arch, utilization):
    plan = paddle(ns.load_arch(arch), utilization)
    assert plan.fits
    assert plan.spare > 0
    assert advice(plan) == []
    # none holds 256 sequences of 16,384 tokens at once, all of them hold 256 pages
    assert plan.sequences() < 256
    assert plan.sequences(plan.typical) == 256


@pytest.mark.parametrize("utilization", [0.7, 0.8, 0.9])
def test_eight_gigabytes_are_enough(utilization):
    plan = paddle(8e9, utilization)
    assert plan.fits
    assert plan.spare > 0
    assert 1 <= plan.sequences() < 10
    least = plan.needed / utilization
    assert 5e9 < least < 8e9  # so a board of 6 GB may do, one of 4 GB does not
    assert not paddle(4e9, utilization).fits


def test_longer_contexts_leave_room_for_fewer_and_each_step_takes_longer():
    arch = ns.load_arch("rtx_3060")
    rates, together, steps = [], [], []
    for context in (2048, 4096, 8192, 16384):
        plan = paddle(arch, 0.8)
        together.append(plan.sequences(context))
        step = ns.template("paddleocr_vl", "decode", batch=8, context=context - 1,
                           lowering="serving")  # fmt: skip
        steps.append(ns.replay(step, arch, "graph").wall_s)
        batch = ns.template("paddleocr_vl", "decode", batch=together[-1], context=context - 1,
                            lowering="serving")  # fmt: skip
        rates.append(together[-1] / ns.replay(batch, arch, "graph").wall_s)
    assert together == sorted(together, reverse=True)
    assert together[0] == pytest.approx(8 * together[-1], rel=0.1)
    assert steps == sorted(steps)
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 2 * rates[-1]


def test_a_longer_limit_alone_costs_the_pool_little():
    short, long = (paddle(12e9, 0.8, max_model_len=n) for n in (2048, 16384))
    assert 0 < short.pool - long.pool < 0.001 * short.pool
    assert short.sequences(793) == long.sequences(793)


def test_what_a_lower_utilization_does():
    before, after = paddle(12e9, 0.8), paddle(12e9, 0.7)
    assert after.spare - before.spare == pytest.approx(1.2e9)
    assert before.pool - after.pool == pytest.approx(1.2e9)
    assert after.sequences() < before.sequences()
    # lower limits do the other: a smaller step, and a larger pool
    less = paddle(12e9, 0.8, max_model_len=8192, max_num_batched_tokens=8192, max_num_seqs=64)
    assert less.spare == before.spare
    assert less.pool > before.pool


def test_fewer_sequences_need_less_where_the_choice_of_tokens_is_the_peak():
    def saved(images):
        many, few = (paddle(12e9, 0.8, max_num_seqs=n, images=images) for n in (256, 32))
        return many.needed - few.needed

    assert saved(None) < 0.001 * 4.9e9
    assert saved(1) == pytest.approx(0.68e9, rel=0.01)


# ---------------------------------------------------------------- properties

LENGTHS, COUNTS = st.integers(1, 200_000), st.integers(1, 512)
PLANS = st.builds(
    lambda memory, length, seqs, tokens, share: memory_plan(
        "llama_3_1_8b", memory, length, seqs, max(tokens, seqs), share),
    st.floats(17e9, 60e9), LENGTHS, COUNTS, st.integers(1, 65_536), st.floats(0.3, 1.0),
)  # fmt: skip


@given(PLANS)
def test_every_piece_of_advice_makes_it_fit(plan):
    found = advice(plan)
    assert bool(found) != plan.fits  # there is always memory to buy
    for one in found:
        assert one.applied(plan).fits, one


@given(PLANS)
def test_advice_asks_for_no_more_than_it_has_to(plan):
    for one in advice(plan):
        step = {"gpu_memory_utilization": 0.01, "capacity": 1.001e8}.get(one.name, 1)
        worse = one.value - step if one.bound == "at least" else one.value + step
        if one.name == "tensor" or worse <= 0:
            continue
        with contextlib.suppress(InputError):  # out of the range of the flag
            assert not plan.changed(**{one.name: worse}).fits, one


@given(PLANS, st.sampled_from(["max_model_len", "max_num_seqs", "max_num_batched_tokens"]))
def test_what_is_needed_grows_with_each_flag(plan, flag):
    now = getattr(plan.asked, flag)
    if flag == "max_num_seqs" and now == plan.asked.max_num_batched_tokens:
        return
    more = plan.changed(**{flag: now + 1})
    assert more.needed >= plan.needed
    assert more.pool <= plan.pool


@given(PLANS)
def test_the_largest_fits_and_one_more_does_not(plan):
    for flag in ("max_model_len", "max_num_seqs"):
        found = largest(plan, flag)
        if found is None:
            continue
        assert plan.changed(**{flag: found}).fits
        if flag == "max_model_len" or found < plan.asked.max_num_batched_tokens:
            assert not plan.changed(**{flag: found + 1}).fits


@given(st.floats(4.5e9, 100e9), st.floats(0.3, 1.0), st.sampled_from(sorted(FRAMEWORKS)))
def test_the_utilization_to_go_down_to_leaves_room_beside(memory, share, framework):
    plan = paddle(memory, share, framework=framework)
    lower = too_high(plan)
    if plan.spare >= 0:
        assert lower is None
    else:
        assert lower < share
        assert plan.changed(gpu_memory_utilization=lower).spare >= -1e-3
    low, high = plan.pool_range
    assert low <= plan.pool <= high


@given(st.integers(1, 600), st.sampled_from(["sort", "search", "greedy"]))
def test_more_rows_take_no_less(rows, sampler):
    assert sampler_bytes(sampler, rows + 1, 128) >= sampler_bytes(sampler, rows, 128)


# ---------------------------------------------------------------- what is impossible


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"max_num_seqs": 0}, "--max-num-seqs: not a count: 0"),
        ({"max_num_seqs": -1}, "--max-num-seqs: not a count: -1"),
        ({"max_model_len": 0}, "--max-model-len: not a count: 0"),
        ({"max_num_batched_tokens": 0}, "--max-num-batched-tokens: not a count: 0"),
        ({"max_num_batched_tokens": 16384.5}, "--max-num-batched-tokens: not a count"),
        ({"max_num_batched_tokens": 100}, "--max-num-batched-tokens: less than a token for each"),
        ({"max_num_batched_tokens": 8192}, "--max-num-batched-tokens: without chunked prefill"),
        ({"gpu_memory_utilization": 0}, "--gpu-memory-utilization: out of range: 0"),
        ({"gpu_memory_utilization": 1.1}, "--gpu-memory-utilization: out of range: 1.1"),
        ({"gpu_memory_utilization": float("nan")}, "--gpu-memory-utilization: out of range: nan"),
        ({"block_tokens": 0}, "--block-size: not a count: 0"),
        ({"kv_bits": 0.5}, "--kv-bits: out of range: 0.5"),
        ({"weight_bits": 65}, "--weight-bits: out of range: 65"),
        ({"tensor": 0}, "--tensor: not a count: 0"),
        ({"tensor": 3}, "--tensor: does not divide the 16 heads: 3"),
        ({"longest": 8192}, "--max-model-len: longer than the model was made for: 16384"),
        ({"framework": "none"}, "--framework: unknown framework: 'none'"),
        ({"image": (0, 5)}, "--image: not a size of an image: '0 x 5'"),
        ({"max_num_batched_tokens": 2**25}, "--max-num-batched-tokens: not a count"),
        ({"images": 0}, "--images: not a count: 0"),
        ({"overheads": {"cuda": 1}}, "unknown overhead: 'cuda'"),
        ({"overheads": {"graphs": -1}}, "graphs: not a size: -1"),
    ],
)
def test_impossible_configurations_are_refused_by_flag(flags, message):
    given_ = GUIDE | {"gpu_memory_utilization": 0.9} | flags
    with pytest.raises(InputError) as error:
        assert memory_plan("paddleocr_vl", 24e9, **given_).needed
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(message), text


def test_a_model_larger_than_the_memory_is_told_with_both_sizes():
    with pytest.raises(InputError, match=r"16\.061 GB, are larger than the memory, 12\.000 GB"):
        memory_plan("llama_3_1_8b", 12e9, 1024)
    for memory in (0, -1.0, float("inf")):
        with pytest.raises(InputError, match="--memory: not a size of a memory"):
            memory_plan("llama_3_1_8b", memory, 1024)


def test_an_image_is_of_models_that_see():
    with pytest.raises(InputError, match="--image: of a model without an encoder of images"):
        memory_plan("llama_3_1_8b", 24e9, 1024, image=(640, 640))
