"""Other key heads: sizes worked out by hand, traced layers, what cannot be told apart."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.cli import main
from npusim.errors import InputError
from npusim.transforms import changes, group_heads, set_batch, static_cache, transformed
from npusim.transforms.kv_heads import present, touched
from npusim.workload import BYTES, COLUMNS
from tests.builder import kernel, workload

HEADS = "workload.kv_heads"


def row(kind, operator="aten::op", **more):
    return kernel(kind, 1.0, **{"kind": kind, "operator": operator, "dtype": "bf16", "batch": 1,
                                "m": 1, "n": 1, **more})  # fmt: skip


def product(n, k=1024, m=1, **more):
    return row("gemv", "aten::mm", routine="whole", m=m, n=n, k=k, flop=2.0 * m * n * k,
               read_weight=2.0 * n * k, read_activation=2.0 * m * k,
               write_activation=2.0 * m * n, blocks=32, **more)  # fmt: skip


def turn(heads):
    """Return x cos + (-x2, x1) sin on one token of some heads of 128 numbers."""
    whole, half = 256.0 * heads, 128.0 * heads
    shape, split = {"m": heads, "n": 128}, {"m": heads, "n": 64}
    times = row("pointwise", "aten::mul", routine="strided", read_activation=whole + 256,
                write_activation=whole, flop=128.0 * heads, **shape)  # fmt: skip
    return [
        times,
        row("pointwise", "aten::neg", read_activation=half, write_activation=half, **split),
        row("cat", "aten::cat", read_activation=whole, write_activation=whole, **split),
        times,
        row("pointwise", "aten::add", read_activation=2 * whole, write_activation=whole, **shape),
    ]


def grow(heads, keys=600):
    return row("cat", "aten::cat", routine="cat_vectorized", m=heads * keys, n=128, blocks=150,
               read_kv=256.0 * heads * keys, write_kv=256.0 * heads * keys)  # fmt: skip


def attend(heads, kv_heads, **more):
    return row("attention", n=600, k=128, heads=heads, kv_heads=kv_heads, flop=4.0 * heads * 76_800,
               read_kv=512.0 * kv_heads * 600, read_activation=256.0 * heads, blocks=4 * kv_heads,
               write_activation=256.0 * heads, **more)  # fmt: skip


# One token through the attention of a layer: 16 query heads of 128 numbers, 2 key heads.
NORM = row("norm", read_weight=2048.0, read_activation=2048.0, write_activation=2048.0, n=1024)
MIX = product(1024, 2048)
LAYER = (NORM, product(2048), product(256), product(256), *turn(16), *turn(2), grow(2), grow(2),
         attend(16, 2), MIX)  # fmt: skip
KEY, VALUE, KEY_TURN, GROW, ATTENTION = 2, 3, 9, 14, 16
# The same with a key head for each of 10 query heads: q, k, v and what comes behind look alike.
ALL = (product(1280, 1280), product(1280, 1280), product(1280, 1280), *turn(10), *turn(10),
       grow(10), grow(10), attend(10, 10))  # fmt: skip


def step(*rows, **more):
    return workload(*(rows or LAYER), **more).renamed("made", units=132)


def one(w, at, *columns):
    return tuple(w[c][at] for c in columns)


@pytest.mark.parametrize("at", [KEY, VALUE])
def test_products_of_keys_and_values_get_narrow(at):
    w = group_heads(step(), 1)
    assert one(w, at, "m", "n", "k", "blocks", "threads") == (1, 128, 1024, 0, 0)
    assert one(w, at, "flop", *BYTES) == (262_144, 262_144, 0, 2048, 0, 256)


def test_a_cache_of_one_head_is_half_of_one_of_two():
    w = group_heads(step(), 1)
    assert one(w, ATTENTION, "heads", "kv_heads", "n", "blocks") == (16, 1, 600, 4)
    assert one(w, ATTENTION, "read_kv", "read_activation") == (512 * 600, 4096)
    assert w["flop"][ATTENTION] == step()["flop"][ATTENTION]
    for at in (GROW, GROW + 1):
        assert one(w, at, "m", "n", "read_kv", "write_kv") == (600, 128, 153_600, 153_600)
        assert w["blocks"][at] == 75


def test_kernels_on_keys_get_fewer_rows_and_their_tables_stay():
    w = group_heads(step(), 1)
    found = [one(w, KEY_TURN + i, "m", "n", "read_activation", "write_activation")
             for i in range(5)]  # fmt: skip
    assert found == [(1, 128, 512, 256), (1, 64, 128, 128), (1, 64, 256, 256), (1, 128, 512, 256),
                     (1, 128, 512, 256)]  # fmt: skip


@pytest.mark.parametrize("at", [0, 1, *range(4, 9), 17])
def test_queries_and_all_else_stay(at):
    before, after = step(), group_heads(step(), 1)
    assert all(before[c][at] == after[c][at] for c in COLUMNS if COLUMNS[c].type != "label")


@pytest.mark.parametrize("kv_heads", [1, 2, 5])
def test_where_all_look_alike_queries_come_first(kv_heads):
    before, after = step(*ALL), group_heads(step(*ALL), kv_heads)
    changed = np.flatnonzero(before.bytes_moved != after.bytes_moved).tolist()
    assert changed == [1, 2, *range(8, 16)]
    assert after["n"].tolist()[:3] == [1280, 128 * kv_heads, 128 * kv_heads]
    assert after["m"].tolist()[8:13] == [kv_heads] * 5


def test_a_product_for_all_keeps_its_queries():
    fused = step(product(2560), *turn(16), *turn(2), grow(2), grow(2), attend(16, 2))
    w = group_heads(fused, 1)
    assert one(w, 0, "n", "flop", "read_weight") == (2304, 4_718_592, 4_718_592)
    assert w["m"].tolist()[6:11] == [1] * 5


def test_a_sum_of_parts_behind_a_product_is_as_wide():
    part = row("splitk_reduce", n=256, flop=512.0, read_activation=2048.0, write_activation=512.0)
    rows = [*LAYER[:3], part, product(256), part, *LAYER[4:]]
    w = group_heads(step(*rows), 1)
    assert one(w, 3, "m", "n", "flop", "read_activation") == (1, 128, 256, 1024)
    assert w["n"][5] == 128


def test_norms_of_keys_between_products_shrink_and_weights_of_them_stay():
    norm = row("norm", m=2, n=128, read_weight=256.0, read_activation=512.0, write_activation=512.0)
    rows = [*LAYER[:3], norm, *LAYER[3:]]
    w = group_heads(step(*rows), 1)
    assert one(w, 3, "m", "n", "read_weight", "read_activation") == (1, 128, 256, 256)


def test_what_counts_positions_is_of_no_head():
    """One row, as there would be of one key head."""
    count = row("pointwise", "aten::add", dtype="int64", read_activation=16.0, write_activation=8.0)
    w = group_heads(step(*LAYER[:4], count, *LAYER[4:]), 1)
    assert one(group_heads(w, 16), 4, "m", "n", "read_activation") == (1, 1, 16)


def test_keys_and_values_that_come_from_where_they_were_made():
    """Prefill: 16 query and 2 key heads of 600 tokens, 3600 bytes of a token."""
    rows = [product(n, m=600) for n in (2048, 256, 256)]
    call = {**attend(16, 2), "m": 600, "read_kv": 0.0, "read_activation": 600 * 256.0 * 20,
            "blocks": 80, "phase": "prefill"}  # fmt: skip
    w = group_heads(step(*rows, call), 1)
    assert one(w, 3, "read_activation", "blocks", "kv_heads") == (600 * 256 * 18, 80, 1)
    assert w["write_activation"][:3].tolist() == [600 * 4096, 600 * 256, 600 * 256]


@given(st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from([1, 2, 4, 8, 16]))
def test_changes_one_after_another_are_the_last(first, second):
    w = step()
    both, once = group_heads(group_heads(w, first), second), group_heads(w, second)
    assert present(both) == {HEADS: second}
    for name in ("m", "n", "kv_heads", "flop", *BYTES):
        assert both[name] == pytest.approx(once[name], rel=1e-12), name


@given(st.sampled_from([1, 2, 4, 8, 16]), st.integers(2, 40))
def test_heads_and_batch_go_in_any_order(kv_heads, sequences):
    w = step()
    a = set_batch(group_heads(w, kv_heads), sequences)
    b = group_heads(set_batch(w, sequences), kv_heads)
    for name in ("m", "n", "batch", "flop", *BYTES):
        assert a[name] == pytest.approx(b[name], rel=1e-12), name


def test_the_same_heads_change_nothing_and_others_are_told():
    w = step()
    assert group_heads(w, 2) is w and changes(w) == {}
    assert changes(group_heads(w, 1.2)) == {HEADS: 1.0}
    assert np.flatnonzero(touched(w)).tolist() == [ATTENTION] and present(w) == {HEADS: 2.0}
    assert np.array_equal(group_heads(w, 1)["duration_s"], w["duration_s"])


def test_a_static_cache_is_laid_out_for_the_heads_that_were_set():
    w = transformed(step(), {"workload.static_cache": 700, HEADS: 4})
    assert w["write_kv"][w.mask("operator", "aten::index_copy_")].tolist() == [1024.0, 1024.0]
    with pytest.raises(InputError, match=r"kv_heads: has a static KV cache for the heads as they"):
        group_heads(static_cache.static_cache(step(), 700), 1)


ENCODER = {**attend(16, 2), "phase": "encode"}


@pytest.mark.parametrize(
    ("rows", "kv_heads", "message"),
    [
        (LAYER, 3, r"does not divide 16 query heads: 3 \(allowed: 1, 2, 4, 8, 16\)"),
        (LAYER, 32, "does not divide 16 query heads: 32"),
        (LAYER, 0, "out of bounds: 0"),
        (LAYER, float("nan"), "out of bounds: nan"),
        ((MIX,), 1, r"made: workload\.kv_heads: has no attention of a prefill or decode step"),
        ((ENCODER,), 1, "has no attention of a prefill or decode step"),
        (({**attend(16, 2), "kv_heads": 0},), 1, "has no attention of a prefill or decode step"),
        ((attend(16, 2),), 1, "row 0, workload.kv_heads: products before attention that are not "
         r"those of its queries, keys and values: 'none' \(allowed: 2048, 256 and 256 columns, or "
         r"2560, of 1 rows\)"),
        ((product(2048), product(256), attend(16, 2)), 1, "'1 x 2048, 1 x 256'"),
        ((product(2048, 512), product(256), product(256), attend(16, 2)), 1, "are not those of"),
        ((*(product(n, m=8) for n in (2048, 256, 256)), attend(16, 2)), 1, "'8 x 2048, 8 x 256"),
        ((*ALL[:3], turn(10)[0], turn(10)[1], attend(10, 10)), 1,
         "row 3, workload.kv_heads: kernels before attention that may be of queries or of keys"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(rows, kv_heads, message):
    with pytest.raises(InputError, match=message) as error:
        group_heads(step(*rows), kv_heads)
    assert "\n" not in str(error.value)


# Name, query heads, key heads, layers, columns of the input of k and v.
MODELS = [
    ("paddleocr_vl_decode", 16, 2, 18, 1024),
    ("paddleocr_vl_decode_b8", 16, 2, 18, 1024),
    ("paddleocr_vl_prefill", 16, 2, 18, 1024),
    ("deepseek_ocr_decode", 10, 10, 12, 1280),
    ("deepseek_ocr_decode_grouped_b16", 10, 10, 12, 1280),
    ("deepseek_ocr_prefill", 10, 10, 12, 1280),
]


@pytest.mark.parametrize(("name", "heads", "own", "layers", "width"), MODELS)
def test_multi_query_saves_the_weights_of_all_other_heads(name, heads, own, layers, width):
    w = ns.load_workload(name)
    made = group_heads(w, 1)
    assert present(w) == {HEADS: own} and present(made) == {HEADS: 1}
    saved = 2 * (own - 1) * 128 * width * 2 * layers  # bytes of k and v in bf16
    first = w["step"] == 0
    assert (w["read_weight"] - made["read_weight"])[first].sum() == saved
    for column in ("read_kv", "write_kv"):
        assert made[column].sum() == pytest.approx(w[column].sum() / own)
    attention = touched(w)
    assert (made["flop"] == w["flop"])[attention].all()
    back = group_heads(made, own)
    for column in ("m", "n", "kv_heads", "flop", *BYTES):
        assert back[column] == pytest.approx(w[column], rel=1e-12), column
    launched = ~w.mask("kind", "gemv", "gemm", "splitk_reduce")
    assert (back["blocks"] == w["blocks"])[launched].mean() > 0.999


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize(
    ("model", "lowering", "own"),
    [("paddleocr_vl", "hf-eager", 2), ("deepseek_ocr", "hf-eager-grouped", 10),
     ("qwen3_8b", "npu", 8), ("llama_3_1_8b", "serving", 8)],
)  # fmt: skip
def test_a_model_of_one_key_head_is_as_its_hyperparameters_say(model, lowering, own, phase):
    """The template lowers a model of one key head itself: it knows nothing of the transform."""
    how = {"context": 512, "lowering": lowering}
    given = ns.template(model, phase, **how)
    made = ns.template(model, phase, settings={"decoder.attention.kv_heads": 1}, **how)
    changed = group_heads(given, 1)
    assert present(given) == {HEADS: own} and len(changed) == len(made)
    for column in ("m", "n", "kv_heads", "flop", *BYTES):
        assert changed[column] == pytest.approx(made[column], rel=1e-9), column


def test_a_long_context_gains_from_fewer_heads():
    """65,536 keys of ten heads are 4 GB a step; those of one are a tenth."""
    h200 = ns.load_arch("h200")
    w = transformed(ns.load_workload("deepseek_ocr_decode_grouped"), {"workload.context": 65_536})
    all_heads, one_head = (ns.replay(v, h200, "queue") for v in (w, group_heads(w, 1)))
    moved = [sum(level.get("kv", 0.0) for level in r.traffic.values())
             for r in (one_head, all_heads)]  # fmt: skip
    assert moved[0] == pytest.approx(0.1 * moved[1], rel=1e-6)
    assert one_head.wall_s < 0.75 * all_heads.wall_s


def test_the_command_line_takes_heads():
    call = ["replay", "paddleocr_vl_decode", "--arch", "h200", "--launch", "graph", "--json"]
    run = CliRunner().invoke(main, [*call, "--set", f"{HEADS}=1"])
    content = json.loads(run.stdout)
    assert run.exit_code == 0 and content["no_effect"] == []
    assert any("kv_heads=1" in note for note in content["notes"])
    run = CliRunner().invoke(main, [*call, "--set", f"{HEADS}=3"])
    assert run.exit_code == 1 and "does not divide 16 query heads: 3" in run.stderr
    run = CliRunner().invoke(main, ["replay", "paddleocr_vl_vision", "--arch", "h200", "--set",
                                    f"{HEADS}=1"])  # fmt: skip
    assert run.exit_code == 1 and "has no attention of a prefill or decode step" in run.stderr
