"""Another batch: sizes worked out by hand, the same step traced at other batches, what is left."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.errors import InputError
from npusim.transforms.batch import present, set_batch, touched
from npusim.transforms.context import set_context
from npusim.transforms.grids import Size, grid, scaled
from npusim.transforms.record import changes
from npusim.transforms.routing import experts_hit
from npusim.transforms.sequences import element
from npusim.transforms.weights import quantize_weights
from npusim.workload import COLUMNS
from tests.builder import kernel, timed, workload

AMOUNTS = ("flop", "read_weight", "read_kv", "read_activation", "write_kv", "write_activation")


def row(kind, dtype="bf16", blocks=1, threads=128, **more):
    return kernel(kind, 1.0, blocks, threads, kind=kind, dtype=dtype,
                  **{"batch": 1, "m": 1, "n": 1, **more})  # fmt: skip


# One token of a model of 1280 numbers, 10 heads of 128 over 1070 keys, 6 of 64 experts of 1792:
# what there is before, in and after a layer.
EMBEDDING = row("gather", blocks=10, routine="index_small", n=1280, read_weight=2560.0,
                read_activation=8.0, write_activation=2560.0)  # fmt: skip
COUNT = row("fill", "int64", threads=64, operator="aten::arange", routine="indexed_fill",
            basis="launch", n=64, write_activation=512.0)  # fmt: skip
POSITION = row("cast", "fp32", routine="strided_cast", read_activation=8.0, write_activation=4.0)
ANGLES = row("gemm", "fp32", operator="aten::bmm", m=64, k=1, flop=128.0, read_activation=260.0,
             write_activation=256.0)  # fmt: skip
COSINE = row("cast", routine="vectorized", n=128, read_activation=512.0, write_activation=256.0)
WIDEN = row("cast", "fp32", 3, routine="unrolled_cast", n=1280, read_activation=2560.0,
            write_activation=5120.0)  # fmt: skip
MEAN = row("reduction", "fp32", threads=256, routine="reduce_rows", n=1280, flop=1280.0,
           read_activation=5120.0, write_activation=4.0)  # fmt: skip
EPSILON = row("pointwise", "fp32", routine="vectorized", flop=1.0, read_activation=12.0,
              write_activation=4.0)  # fmt: skip
DIVIDE = row("pointwise", "fp32", 5, routine="strided", n=1280, flop=1280.0,
             read_activation=5124.0, write_activation=5120.0)  # fmt: skip
WEIGH = row("pointwise", blocks=2, routine="vectorized", n=1280, flop=1280.0, read_weight=2560.0,
            read_activation=2560.0, write_activation=2560.0)  # fmt: skip
QUERY = row("gemv", blocks=80, operator="aten::mm", routine="whole", n=1280, k=1280,
            flop=3_276_800.0, read_weight=3_276_800.0, read_activation=2560.0,
            write_activation=2560.0)  # fmt: skip
TURN = row("pointwise", blocks=3, routine="strided", m=10, n=128, flop=1280.0,
           read_activation=2816.0, write_activation=2560.0)  # fmt: skip
GROW = row("cat", blocks=2674, routine="cat_vectorized", m=10690, n=128, read_kv=2_739_200.0,
           write_kv=2_739_200.0)  # fmt: skip
ATTENTION = row("attention", blocks=80, n=1070, k=128, heads=10, kv_heads=10, flop=5_478_400.0,
                read_kv=5_478_400.0, read_activation=2560.0, write_activation=2560.0)  # fmt: skip
COMBINE = row("attention_combine", "fp32", 10, 256, n=1280, flop=2560.0,
              read_activation=10240.0, write_activation=2560.0)  # fmt: skip
WIDE_WEIGHTS = row("cast", "fp32", 160, routine="unrolled_cast", m=64, n=1280,
                   read_activation=163_840.0, write_activation=327_680.0)  # fmt: skip
ROUTER = row("gemv", "fp32", 64, operator="aten::mm", routine="split", n=64, k=1280,
             flop=163_840.0, read_weight=327_680.0, read_activation=5120.0,
             write_activation=256.0)  # fmt: skip
SUM = row("splitk_reduce", "fp32", 64, n=64, flop=128.0, read_activation=512.0,
          write_activation=128.0)  # fmt: skip
SOFTMAX = row("softmax", "fp32", routine="softmax_warp", n=64, flop=320.0, read_activation=256.0,
              write_activation=256.0)  # fmt: skip
CHOOSE = row("topk", "fp32", threads=64, routine="topk_block", n=64, flop=64.0,
             read_activation=256.0, write_activation=72.0)  # fmt: skip
COPY = row("memcpy", "unknown", 0, 0, routine="copy_engine", batch=0, n=48, basis="launch",
           read_activation=48.0, write_activation=48.0)  # fmt: skip
SORT = row("sort", "int64", threads=16, routine="sort_bitonic", n=6, flop=6.0,
           read_activation=48.0, write_activation=96.0)  # fmt: skip
SHARE = row("gather", "fp32", routine="index", basis="launch", m=4, n=6, read_activation=96.0,
            write_activation=96.0)  # fmt: skip
ZEROS = row("fill", "int32", routine="fill", n=64, write_activation=256.0)
OFFSETS = row("scan", "int32", routine="scan_device", n=64, flop=32.0, read_activation=128.0,
              write_activation=256.0)  # fmt: skip
SETUP = row("setup", threads=64, routine="grouped_setup", n=64, read_activation=4096.0,
            write_activation=4096.0)  # fmt: skip
EXPERTS = row("grouped_gemm", blocks=132, threads=384, routine="grouped_matrix", m=6, n=1792,
              k=1280, groups=64, flop=27_525_120.0, read_weight=27_525_120.0,
              read_activation=15_360.0, write_activation=21_504.0)  # fmt: skip
SEMAPHORE = row("memset", "unknown", 0, 0, operator="aten::mm", routine="fill_engine", batch=0,
                n=4, basis="launch", write_activation=4.0)  # fmt: skip
SAMPLE = row("reduction", threads=512, routine="reduce_arg", n=129_280, flop=129_280.0,
             read_activation=258_560.0, write_activation=8.0)  # fmt: skip

BEFORE = (EMBEDDING, COUNT, POSITION, ANGLES, COSINE)
LAYER = (WIDEN, MEAN, EPSILON, DIVIDE, WEIGH, QUERY, TURN, GROW, ATTENTION, COMBINE, WIDE_WEIGHTS,
         ROUTER, SUM, SOFTMAX, CHOOSE, COPY, COUNT, SORT, SHARE, ZEROS, OFFSETS, SETUP,
         EXPERTS, COUNT, SEMAPHORE, SAMPLE)  # fmt: skip
STEP = (*BEFORE, *LAYER)

# 64 (1 - (58 / 64)^16) experts are hit by 16 tokens, of 1792 x 1280 numbers of two bytes.
HIT = 64 * (1 - 0.90625**16)
AT_16 = {
    0: {"m": 16, "read_weight": 40_960, "read_activation": 128, "write_activation": 40_960,
        "blocks": 10},
    5: {"m": 16, "read_activation": 40_960, "write_activation": 81_920, "blocks": 40},
    6: {"m": 16, "flop": 20_480, "write_activation": 64, "blocks": 1, "threads": 512},
    7: {"m": 16, "flop": 16, "read_activation": 72, "write_activation": 64, "blocks": 1},
    8: {"m": 16, "read_activation": 81_984, "write_activation": 81_920, "blocks": 80},
    9: {"m": 16, "read_weight": 2560, "read_activation": 40_960, "routine": "strided",
        "blocks": 40},
    10: {"m": 16, "flop": 52_428_800, "read_weight": 3_276_800, "write_activation": 40_960,
         "kind": "gemm", "routine": "whole", "blocks": 0, "threads": 0},
    11: {"m": 160, "read_activation": 40_960 + 256, "write_activation": 40_960, "blocks": 40},
    12: {"m": 171_040, "read_kv": 43_827_200, "write_kv": 43_827_200, "blocks": 8448},
    13: {"batch": 16, "m": 1, "n": 1070, "flop": 87_654_400, "read_kv": 87_654_400,
         "read_activation": 40_960},
    14: {"m": 1, "n": 20_480, "read_activation": 163_840},
    16: {"m": 16, "kind": "gemm", "routine": "split", "read_weight": 327_680, "flop": 2_621_440},
    17: {"n": 1024, "flop": 2048, "blocks": 0},
    18: {"m": 16, "flop": 5120, "blocks": 2},
    19: {"m": 16, "write_activation": 1152, "blocks": 16, "threads": 64},
    20: {"n": 768, "read_activation": 768},
    21: {"n": 128, "write_activation": 1024, "blocks": 2},
    22: {"n": 96, "m": 1, "routine": "sort_block", "blocks": 1, "threads": 32},
    23: {"n": 96, "m": 1, "read_activation": 384, "blocks": 1},
    27: {"m": 96, "flop": 440_401_920, "read_weight": HIT * 1792 * 1280 * 2,
         "read_activation": 245_760, "blocks": 132},
    28: {"n": 128, "write_activation": 1024, "blocks": 2},
    30: {"m": 16, "flop": 2_068_480, "write_activation": 128, "blocks": 16},
}  # fmt: skip
STAYS = (1, 2, 3, 4, 15, 24, 25, 26, 29)  # positions and tables, weights, lists of experts


def step(*rows, units=132, **more):
    return workload(*(rows or STEP), device="NVIDIA H200", **more).renamed("made", units=units)


def texts(w, column):
    return w.text(column).tolist()


@pytest.mark.parametrize("at", AT_16)
def test_sixteen_sequences_are_sixteen_times_one(at):
    w = set_batch(step(), 16)
    for column, expected in AT_16[at].items():
        value = texts(w, column)[at] if isinstance(expected, str) else w[column][at]
        assert value == (expected if isinstance(expected, str) else pytest.approx(expected)), column


@pytest.mark.parametrize("at", STAYS)
def test_what_is_there_once_for_all_sequences_stays(at):
    one, many = step(), set_batch(step(), 16)
    assert all(one[c][at] == many[c][at] for c in COLUMNS if COLUMNS[c].type != "label")


def test_every_operation_is_worked_out_or_stays():
    assert sorted([*AT_16, *STAYS]) == list(range(len(STEP)))


def test_positions_of_several_rows_are_those_of_the_sequences():
    """Text, height and width: three positions of one sequence, read from one number."""
    position = {**POSITION, "m": 3, "write_activation": 12.0}
    angles = {**ANGLES, "batch": 3, "flop": 384.0, "read_activation": 268.0,
              "write_activation": 768.0}  # fmt: skip
    w = set_batch(step(EMBEDDING, COUNT, position, angles, COSINE, *LAYER), 8)
    assert (w["n"][1], w["m"][2], w["batch"][3], w["m"][4]) == (64, 24, 24, 8)
    assert w["read_activation"][2:5].tolist() == [8.0, 256.0 + 8 * 12, 8 * 512.0]
    assert w["write_activation"][1:5].tolist() == [512.0, 96.0, 6144.0, 2048.0]
    assert w["read_activation"][11] == 8 * 2816.0  # each turns by its own


def test_of_two_casts_as_large_as_the_weights_the_last_makes_them():
    """64 rows of 1280 numbers go to a product of 64 columns."""
    attention, router = ({**r, b: 64} for r, b in ((ATTENTION, "batch"), (ROUTER, "m")))
    w = set_batch(step(attention, WIDE_WEIGHTS, WIDE_WEIGHTS, router), 128)
    assert w["m"].tolist() == [1, 128, 64, 128]


def test_more_rows_of_an_embedding_are_gathered_by_wide_loads():
    w = set_batch(step(), 32)
    assert texts(w, "routine")[0] == "gather_vectorized"
    assert (w["blocks"][0], w["threads"][0]) == (32, 160)  # a row of 2560 bytes, 16 a thread


def test_many_experts_of_a_large_batch_are_all_experts():
    read = [set_batch(step(), b)["read_weight"][27] for b in (2, 4, 16, 64, 1024)]
    assert read == sorted(read)
    assert read[0] == pytest.approx(64 * (1 - 0.90625**2) * 4_587_520)
    assert read[-1] == pytest.approx(64 * 4_587_520, rel=1e-9)


def test_popular_experts_are_hit_together():
    even, skewed = (set_batch(step().renamed("made", experts=s), 16) for s in (0.0, 1.0))
    assert 6 * 4_587_520 < skewed["read_weight"][27] < 0.9 * even["read_weight"][27]
    given_alike = step().renamed("made", experts=[3.0] * 64)
    assert set_batch(given_alike, 16)["read_weight"][27] == pytest.approx(HIT * 4_587_520)
    with pytest.raises(InputError, match="not the popularity of each expert: '2 numbers'"):
        set_batch(step().renamed("made", experts=[3.0, 1.0]), 16)


def test_a_product_that_read_an_expert_with_each_row_reads_no_more_than_all():
    """96 rows of 16 tokens, taken to hit all 64 where no router was seen."""
    rows = {**EXPERTS, "m": 96, "read_weight": 64 * 4_587_520.0}
    w = step(*(rows if r is EXPERTS else {**r, "batch": 16} if r is ATTENTION else r for r in STEP))
    assert set_batch(w, 64)["read_weight"][27] == 64 * 4_587_520.0
    four = set_batch(quantize_weights(w, 4, 32), 64)
    assert four["read_weight"][27] == pytest.approx(64 * 4_587_520.0 * 4.5 / 16)


@given(st.integers(2, 300), st.integers(2, 300))
def test_dense_work_grows_with_the_batch_and_weights_do_not(a, b):
    w = step()
    one, other = set_batch(w, a), set_batch(w, b)
    grows = one["flop"] != w["flop"]
    assert (one["flop"] * b == other["flop"] * a)[grows].all()
    assert (one["flop"] == other["flop"])[~grows].all()
    assert (one["read_kv"] * b == other["read_kv"] * a).all()
    dense = ~w.mask("kind", "grouped_gemm", "gather")
    assert (one["read_weight"] == w["read_weight"])[dense].all()


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_a_larger_batch_never_reads_fewer_experts(a, b):
    few, many = (set_batch(step(), n)["read_weight"][27] for n in sorted((a, b)))
    assert 6 * 4_587_520 * (1 - 1e-9) <= few <= many <= 64 * 4_587_520 * (1 + 1e-9)


@given(st.integers(2, 600))
def test_there_and_back_is_where_it_was(sequences):
    w = step()
    there = set_batch(w, sequences)
    back = set_batch(there, 1)
    assert present(there) == {"workload.batch": sequences} and changes(back)["workload.batch"] == 1
    assert all(texts(back, c) == texts(w, c) for c in ("kind", "routine"))
    for column in ("batch", "m", "n", *AMOUNTS):
        assert back[column] == pytest.approx(w[column], rel=1e-9), column
    known = ~w.mask("kind", "gemv", "gemm", "splitk_reduce")
    known[[12, 13, 22]] = False  # capped at the machine; what lies in between is rounded up
    assert (back["blocks"] == w["blocks"])[known].all()


@pytest.mark.parametrize("sequences", [1, 1.4, 0.6 + 0.4])
def test_the_same_batch_changes_nothing(sequences):
    w = step()
    assert set_batch(w, sequences) is w
    assert changes(w) == {}


def test_a_change_keeps_times_and_says_what_it_did():
    w = step()
    eight = set_batch(w, 8.3)
    assert changes(eight) == {"workload.batch": 8.0}
    assert np.array_equal(eight["duration_s"], w["duration_s"]) and eight.steps is w.steps
    assert eight.meta["notes"][0].startswith("changed by workload.batch=8: measured times")
    assert touched(w).sum() == 1 and present(w) == {"workload.batch": 1.0}


def test_batch_and_context_go_in_any_order():
    a, b = set_context(set_batch(step(), 8), 2140), set_batch(set_context(step(), 2140), 8)
    assert all(a[c] == pytest.approx(b[c]) for c in ("batch", "m", "n", *AMOUNTS))


def test_what_has_no_shapes_keeps_its_time():
    w = set_batch(step(*STEP, timed(3e-6)), 4)
    assert w["duration_s"][-1] == 3e-6 and w["flop"][-1] == 0


def test_a_machine_that_is_not_known_bounds_no_grid():
    """Two tensors of 171,040 x 128 numbers of two bytes, 2048 bytes a block."""
    assert set_batch(step(units=float("inf")), 16)["blocks"][12] == 2 * 171_040 * 256 // 2048


@pytest.mark.parametrize(
    ("rows", "sequences", "message"),
    [
        ((QUERY,), 8, r"made: workload\.batch: has no decode attention"),
        (({**ATTENTION, "m": 600},), 8, "has no decode attention"),
        (STEP, 0, r"out of bounds: 0 \(allowed: 1 to 1e\+06\)"),
        (STEP, float("nan"), "out of bounds: nan"),
        ((*STEP, {**ATTENTION, "batch": 4}), 8, "different or unknown numbers of seq.*'1 and 4'"),
        (({**ATTENTION, "batch": 0},), 8, "different or unknown numbers of sequences: '0'"),
        ((*STEP, {**QUERY, "phase": "prefill"}), 8, "has phases beside decode"),
        ((*STEP, {**ATTENTION, "m": 600, "phase": "unknown"}), 8, "has phases beside decode"),
        ((ATTENTION, CHOOSE, QUERY), 8, "has a product for each expert.*allowed: grouped prod"),
        ((ATTENTION, {**EXPERTS, "m": 65}), 8, "row 1, m: rows of a grouped.*65 .allowed: 1 to 64"),
    ],
)  # fmt: skip
def test_what_no_batch_can_be_given_to_is_refused(rows, sequences, message):
    with pytest.raises(InputError, match=message) as error:
        set_batch(step(*rows), sequences)
    assert "\n" not in str(error.value)


def test_a_static_cache_is_made_for_its_batch():
    copied = {**ATTENTION, "read_kv": 0.0, "read_activation": 5_480_960.0}
    static = step(QUERY, copied).renamed("made", transforms={"workload.static_cache": 1088.0})
    assert set_batch(static, 1) is static and present(static) == {"workload.batch": 1.0}
    with pytest.raises(InputError, match="has a static KV cache for so many sequences"):
        set_batch(static, 8)


def test_sampling_of_the_best_is_no_router():
    assert set_batch(step(QUERY, ATTENTION, CHOOSE), 8)["m"].tolist() == [8, 1, 8]


def test_experts_with_a_product_each_are_refused():
    with pytest.raises(InputError, match="has a product for each expert"):
        set_batch(ns.load_workload("deepseek_ocr_decode"), 8)


# The same step traced at several batches.
TRACED = [
    ("paddleocr_vl_decode", "paddleocr_vl_decode_b8", 8),
    ("paddleocr_vl_decode", "paddleocr_vl_decode_b32", 32),
    ("paddleocr_vl_decode_b8", "paddleocr_vl_decode_b32", 32),
    ("paddleocr_vl_decode_b32", "paddleocr_vl_decode", 1),
    ("deepseek_ocr_decode_grouped", "deepseek_ocr_decode_grouped_b16", 16),
    ("deepseek_ocr_decode_grouped_b16", "deepseek_ocr_decode_grouped", 1),
]


def without_combine(w):
    """Return rows of what any batch launches: keys of 16 sequences of ten heads are not split."""
    return np.flatnonzero(~w.mask("kind", "attention_combine"))


@pytest.mark.parametrize(("origin", "target", "sequences"), TRACED)
def test_every_operation_is_that_of_the_trace_at_the_other_batch(origin, target, sequences):
    made, traced = set_batch(ns.load_workload(origin), sequences), ns.load_workload(target)
    a, b = without_combine(made), without_combine(traced)
    assert (made.text("operator")[a] == traced.text("operator")[b]).mean() > 0.99
    for column in AMOUNTS:
        assert made[column][a] == pytest.approx(traced[column][b], rel=1e-9), column
    assert (made.text("kind")[a] == traced.text("kind")[b]).all()
    routines = made.text("routine")[a] == traced.text("routine")[b]
    apart = set(made.text("operator")[a][~routines])
    assert apart <= {"aten::cat"} and (~routines).sum() <= 2 * len(made.steps)
    known = routines & (made["blocks"][a] > 0) & ~made.mask("kind", "attention")[a]
    assert (made["blocks"][a] == traced["blocks"][b])[known].all()


@pytest.mark.parametrize(("origin", "target", "sequences"), TRACED)
def test_device_time_is_that_of_the_other_batch(origin, target, sequences):
    made, traced = set_batch(ns.load_workload(origin), sequences), ns.load_workload(target)
    h200 = ns.load_arch("h200")
    time = ns.replay(made, h200).device_busy_s
    assert time == pytest.approx(ns.replay(traced, h200).device_busy_s, rel=0.01)
    # 5 % and what the step of 32 itself is off (docs/limits.md: small kernels of a batch)
    assert time == pytest.approx(traced["duration_s"].sum() / len(traced.steps), rel=0.06)


EXACT = ("vectorized", "special", "fill", "unrolled", "unrolled_cast", "indexed_fill", "strided",
         "strided_4d", "strided_cast", "scatter_gather", "softmax_warp", "softmax_block",
         "topk_block", "rms_norm", "layer_norm")  # fmt: skip


def calls(root, routine):
    """Return the calls of a routine among those that were timed one by one, and their sizes."""
    w = ns.load_workload(root / "workloads" / "experiments" / "h200_routines.parquet")
    rows = w.mask("routine", routine) & (w["m"] > 0)
    columns = (w["m"], w["n"], element(w), w["write_activation"])
    sizes = (column[rows].astype(float) for column in columns)
    return w["blocks"][rows], w["threads"][rows], Size(*sizes, 132.0)


@pytest.mark.parametrize("routine", EXACT)
def test_grids_are_those_of_the_library(root, routine):
    blocks, _, size = calls(root, routine)
    assert len(blocks) > 20
    assert (grid(routine, size)[0] == blocks).mean() > 0.98


def test_a_grid_stays_what_it_is_beside_another():
    """A version of the library that starts twice as many blocks does so for any size."""
    one, many = (Size(np.array([m]), np.array([1024.0]), np.array([2.0]), np.array([2.0]), 132.0)
                 for m in (1.0, 24.0))  # fmt: skip
    blocks, threads = scaled("vectorized", (np.array([2.0]), np.array([64.0])), one, many)
    assert (blocks.item(), threads.item()) == (48, 64)


def test_experts_of_unlike_products_are_counted_apart():
    other = {**EXPERTS, "groups": 8, "m": 2}
    w = workload(ATTENTION, EXPERTS, other)
    expected = [1.0, HIT, 8 * (1 - 0.75**16)]
    assert experts_hit(w, 1, 16) == pytest.approx(expected, rel=1e-9)
