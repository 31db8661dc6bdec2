"""A static KV cache: rows and bytes worked out by hand, and kernels of measured CUDA graphs."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim import transforms
from npusim.arch import Designs
from npusim.errors import InputError
from npusim.importers import kernel_names
from npusim.importers.routines import routine
from npusim.models.kernel import kernel_time
from npusim.transforms.cache import quantize_cache
from npusim.transforms.context import set_context
from npusim.transforms.record import changes
from npusim.transforms.static_cache import PARAMETERS, SLOTS, present, static_cache, touched
from npusim.transforms.static_cache import transform as change
from npusim.workload import BYTES, COLUMNS, LABELS, Workload, stream_order
from tests.builder import kernel, timed, workload

# One query of 16 heads over 600 keys and values of 2 heads of 128 numbers: 2 x 128 numbers of two
# bytes are 512 bytes a key, so one of the two copies moves 600 x 512 bytes in and out.
ATTENTION = kernel("sdpa", 5.0, 8, kind="attention", dtype="bf16", batch=1, m=1, n=600, k=128,
                   heads=16, kv_heads=2, flop=4.0 * 16 * 600 * 128, read_kv=614_400.0,
                   read_activation=4096.0, write_activation=4096.0, layer=3)  # fmt: skip
GROW = kernel("cat", 1.5, 300, kind="cat", dtype="bf16", batch=1, m=1198, n=128, layer=3,
              read_kv=307_200.0, write_kv=307_200.0, routine="cat_vectorized")  # fmt: skip
ROPE = kernel("cat", 1.5, 528, kind="cat", dtype="bf16", batch=1, m=16, n=64, layer=3,
              read_activation=4096.0, write_activation=4096.0)  # fmt: skip
NORM = kernel("norm", 1.0, kind="norm", dtype="bf16", read_weight=2560.0, read_activation=2560.0)
COMBINE = kernel(
    "combine", 1.0, kind="attention_combine", n=2048, read_activation=16_384.0, layer=3
)
STEP = (NORM, ROPE, GROW, GROW, ATTENTION, COMBINE)
# The same with a key head for each query head: 600 x 4096 bytes a copy.
ALL_HEADS = {**ATTENTION, "kv_heads": 16, "read_kv": 4_915_200.0, "blocks": 64}
GROW_ALL = {**GROW, "m": 9584, "read_kv": 2_457_600.0, "write_kv": 2_457_600.0}

SHOWN = ("operator", "kind", "routine", "dtype", "m", "n", "blocks", "threads", *BYTES)
MASK = [
    ("aten::arange", "fill", "indexed_fill", "int64", 1, 1, 1, 64, 0, 0, 0, 0, 8),
    ("aten::arange", "fill", "indexed_fill", "int64", 1, 1, 1, 64, 0, 0, 0, 0, 8),
    ("aten::arange", "fill", "indexed_fill", "int64", 1, 1, 1, 64, 0, 0, 0, 0, 8),
    ("aten::add", "pointwise", "vectorized", "int64", 1, 1, 1, 128, 0, 0, 16, 0, 8),
    ("aten::arange", "fill", "indexed_fill", "int64", 1, 1100, 18, 64, 0, 0, 0, 0, 8800),
    ("aten::add", "pointwise", "vectorized", "int64", 1, 1100, 2, 128, 0, 0, 8800, 0, 8800),
    ("aten::le", "pointwise", "strided", "int64", 1, 1100, 3, 128, 0, 0, 8808, 0, 1100),
]
PLACE = [
    ("aten::arange", "fill", "indexed_fill", "int64", 1, 1, 1, 64, 0, 0, 0, 0, 8),
    ("aten::add", "pointwise", "vectorized", "int64", 1, 1, 1, 128, 0, 0, 16, 0, 8),
    ("aten::add_", "pointwise", "vectorized", "int64", 1, 1, 1, 128, 0, 0, 8, 0, 8),
]
WRITE = ("aten::index_copy_", "scatter", "index", "bf16", 2, 128, 1, 128, 0, 0, 520, 512, 0)
# 512 bytes of 1100 slots in, 16 heads x 1100 slots x 256 bytes out, 512 numbers a block
EXPAND = ("aten::copy_", "copy", "strided", "bf16", 17_600, 128, 4400, 128,
          0, 563_200, 0, 0, 4_505_600)  # fmt: skip
BIAS = [
    ("aten::fill_", "fill", "fill", "bf16", 1, 1, 1, 128, 0, 0, 0, 0, 2),
    ("aten::fill_", "fill", "fill", "bf16", 1, 1, 1, 128, 0, 0, 0, 0, 2),
    ("aten::where", "pointwise", "strided", "bf16", 1, 1100, 3, 128, 0, 0, 1104, 0, 2200),
]


def rows(w, names=SHOWN):
    return list(zip(*(w.text(c) if c in LABELS else w[c] for c in names), strict=True))


def row(w, at):
    return rows(w, COLUMNS)[at]


def test_each_row_that_comes_is_what_its_shapes_say():
    w = static_cache(workload(*STEP), 1100)
    found = rows(w)
    assert found[:7] == MASK
    assert found[9:12] == PLACE
    assert found[12:14] == [WRITE, WRITE]
    assert found[14:16] == [EXPAND, EXPAND]
    assert found[16:19] == BIAS
    assert len(w) == 7 + 2 + 3 + 2 + 2 + 3 + 2


def test_attention_is_over_all_slots_and_heads_under_a_mask():
    w = static_cache(workload(*STEP), 1100)
    at = int(np.flatnonzero(w.mask("kind", "attention"))[0])
    names = ("n", "heads", "kv_heads", "blocks", "flop", "read_kv", "read_activation")
    # 4096 bytes of queries, 2200 of the mask, and both copies of 4,505,600
    read = 4096 + 2200 + 2 * 4_505_600
    assert rows(w, names)[at] == (1100, 16, 16, 64, 4 * 16 * 1100 * 128, 0, read)
    assert w["write_activation"][at] == 4096 and w["duration_s"][at] == 5.0 * 1e-6


def test_with_a_key_head_for_each_query_head_nothing_is_copied():
    w = static_cache(workload(NORM, GROW_ALL, GROW_ALL, ALL_HEADS, COMBINE), 1100)
    assert not w.mask("kind", "copy").any()
    names = ("n", "kv_heads", "blocks", "read_kv", "read_activation")
    assert rows(w, names)[-2] == (1100, 16, 64, 2 * 1100 * 4096, 4096 + 2200)
    assert rows(w, ("m", "n", "blocks", "write_kv"))[11] == (16, 128, 4, 4096)


def test_a_batch_has_masks_copies_and_tokens_of_each_sequence():
    many = {**ATTENTION, "batch": 100, "read_kv": 61_440_000.0}
    grow = {**GROW, "read_kv": 30_720_000.0, "write_kv": 30_720_000.0}
    w = static_cache(workload(grow, grow, many), 1100)
    of = {operator: i for i, operator in enumerate(w.text("operator"))}  # the last of each
    names = ("m", "n", "blocks", "read_kv", "write_kv", "write_activation")
    assert rows(w, names)[0] == (1, 100, 2, 0, 0, 800)  # a number a sequence
    assert rows(w, names)[of["aten::le"]] == (1, 1100, 3, 0, 0, 1100)  # one mask for all
    assert rows(w, names)[of["aten::where"]] == (100, 1100, 215, 0, 0, 220_000)
    assert rows(w, names)[of["aten::index_copy_"]] == (200, 128, 50, 0, 51_200, 0)
    assert rows(w, names)[of["aten::copy_"]] == (
        1_760_000, 128, 440_000, 56_320_000, 0, 450_560_000)  # fmt: skip


def test_all_else_stays_in_its_place():
    before = workload(*STEP, timed(1e-6), wall=(2.0,))
    after = static_cache(before, 1100)
    kept = [i for i, k in enumerate(after.text("kernel")) if k in ("norm", "combine", "k")]
    assert [row(after, i) for i in kept] == [row(before, i) for i in (0, 5, 6)]
    assert row(after, 8) == row(before, 1)  # a concatenation, but of no cache
    assert after.steps is before.steps and after.name == before.name
    new = [i for i, k in enumerate(after.text("kernel")) if "at::native" in k]
    assert not after["duration_s"][new].any()
    assert set(after["layer"][new[7:]]) == {3} and set(after["layer"][new[:7]]) == {-1}
    assert set(after["stream"][new]) == {7} and set(after.text("phase")[new]) == {"decode"}


def test_a_write_takes_the_place_of_a_copy_on_the_host():
    waits = {**GROW, "host_s": 2e-6, "sync": True, "presync_s": 1e-6, "registers": 32}
    w = static_cache(workload(NORM, GROW, waits, ATTENTION), 1100)
    second = int(np.flatnonzero(w.mask("kind", "scatter"))[1])
    names = ("host_s", "sync", "presync_s", "registers", "duration_s")
    assert rows(w, names)[second] == (2e-6, True, 1e-6, 0, 0)
    assert w["host_s"].sum() == 2e-6 and w["sync"].sum() == 1


def test_steps_of_a_growing_cache_become_the_same():
    def longer(r, i):
        grows = {c: r[c] * (600 + i) / 600 for c in ("read_kv", "write_kv", "flop") if c in r}
        return {**r, **grows, "step": i, **({"n": 600 + i} if r is ATTENTION else {})}

    grown = [longer(r, i) for i in range(3) for r in STEP]
    w = static_cache(workload(*grown, wall=(1.0,) * 3), 700)
    parts = [[r[1:] for r in rows(w, ("step", *SHOWN, "flop")) if r[0] == i] for i in range(3)]
    assert len(parts[0]) == 21
    for part in parts[1:]:
        assert [r[:8] for r in part] == [r[:8] for r in parts[0]]
        assert np.array([r[8:] for r in part]) == pytest.approx(np.array([r[8:] for r in parts[0]]))


def test_a_step_without_decode_attention_stays():
    w = static_cache(workload(*STEP, {**NORM, "step": 1}, wall=(1.0, 1.0)), 700)
    assert (w["step"] == 1).sum() == 1


def test_layers_of_a_step_share_a_mask():
    w = static_cache(workload(*STEP, *STEP), 700)
    assert len(w) == 2 * (21 - 7) + 7
    assert (w.text("operator") == "aten::le").sum() == 1


def test_dependencies_are_those_of_the_streams():
    aside = {**NORM, "stream": 9}
    w = static_cache(workload(aside, *STEP, aside), 700)
    assert all(np.array_equal(a, b) for a, b in
               zip(w.edges, stream_order(w["stream"], w["step"]), strict=True))  # fmt: skip
    assert (w["stream"] == 9).sum() == 2  # new operations go where attention does


def test_counters_stay_with_their_operations():
    w = workload(*STEP)
    counted = Workload(w.name, w.columns, w.labels, w.steps, w.edges, w.meta,
                       {"dram_read": np.arange(6.0)})  # fmt: skip
    values = static_cache(counted, 700).counters["dram_read"]
    assert values[~np.isnan(values)].tolist() == [0.0, 1.0, 4.0, 5.0]  # 2 and 3 are gone
    assert len(values) == 21 and values[-2:].tolist() == [4.0, 5.0]


def test_what_was_done_is_recorded_and_done_once():
    before = workload(*STEP)
    after = static_cache(before, 699.6)
    assert changes(after) == {SLOTS: 700.0} and changes(before) == {}
    (note,) = after.meta["notes"]
    assert note.startswith("changed by workload.static_cache=700: measured times")
    assert static_cache(after, 700) is after
    assert after.id != before.id == workload(*STEP).id
    assert np.isnan(present(before)[SLOTS]) and present(after) == {SLOTS: 700.0}
    assert (transforms.present(before, SLOTS), transforms.present(after, SLOTS)) == (None, 700.0)
    assert touched(before).sum() == touched(after).sum() == 1
    with pytest.raises(InputError, match=r"another size: 800 \(allowed: 700\)"):
        static_cache(after, 800)


def test_a_static_workload_is_written_and_read(tmp_path):
    w = static_cache(workload(*STEP), 700)
    ns.save_workload(w, tmp_path / "w.parquet")
    read = ns.load_workload(tmp_path / "w.parquet")
    assert read.id == w.id and static_cache(read, 700) is read


@pytest.mark.parametrize(
    ("given", "slots", "message"),
    [
        ((NORM,), 700, r"made: workload\.static_cache: has no decode attention whose KV cache gr"),
        ((ATTENTION,), 700, "has no decode attention whose KV cache grows by concatenation"),
        ((ROPE, ATTENTION), 700, "has no decode attention whose KV cache grows"),
        ((ATTENTION, GROW, GROW), 700, "has no decode attention whose KV cache grows"),
        ((GROW, GROW, {**ATTENTION, "m": 600}), 700, "has no decode attention"),
        ((GROW, GROW, {**ATTENTION, "phase": "prefill"}), 700, "has no decode attention"),
        (({**GROW, "basis": "name"}, GROW, ATTENTION), 700, "not grow by one copy of keys"),
        ((GROW, GROW, GROW, ATTENTION), 700, r"not grow by one copy.*: 3 \(allowed: 2\)"),
        (STEP, 599, r"fewer slots than keys: 599 \(allowed: 600 or more\)"),
        (STEP, 0, "out of bounds"),
        (STEP, float("nan"), "out of bounds: nan"),
        ((*STEP, GROW, GROW, {**ATTENTION, "n": 128}), 700,
         "attention over different numbers of keys in one step: '128 and 600'"),
    ],
)  # fmt: skip
def test_what_has_no_growing_cache_is_refused(given, slots, message):
    with pytest.raises(InputError, match=message) as error:
        static_cache(workload(*given), slots)
    assert "\n" not in str(error.value)


def test_dependencies_that_new_rows_have_no_part_in_are_refused():
    edges = (np.array([0, 0, 0, 0, 0, 0, 1]), np.array([0]))  # the last waits for the first alone
    with pytest.raises(InputError, match="has dependencies beside the order of its streams"):
        static_cache(workload(*STEP, edges=edges), 700)


@given(st.integers(600, 5000), st.integers(1, 5000))
def test_more_slots_are_more_bytes_and_the_same_kernels(slots, more):
    small, large = (static_cache(workload(*STEP), s) for s in (slots, slots + more))
    assert small.text("kernel").tolist() == large.text("kernel").tolist()
    assert (small.bytes_moved <= large.bytes_moved).all()
    assert (small["blocks"] <= large["blocks"]).all()
    assert small.bytes_moved.sum() < large.bytes_moved.sum()


@given(st.integers(1, 900))
def test_the_context_before_does_not_matter(keys):
    w = workload(*STEP)
    plain, moved = static_cache(w, 900), static_cache(set_context(w, keys), 900)
    for name in COLUMNS:
        assert moved[name] == pytest.approx(plain[name], rel=1e-12)


@pytest.mark.parametrize(
    ("given", "token", "copied"),
    [(STEP, 512, [16 * 900 * 128 * 2.0] * 2), ((GROW_ALL, GROW_ALL, ALL_HEADS), 4096, [])],
)
def test_a_narrow_cache_before_or_after_is_the_same(given, token, copied):
    w = workload(*given)
    first, then = quantize_cache(static_cache(w, 900), 4), static_cache(quantize_cache(w, 4), 900)
    for name in BYTES:
        assert first[name] == pytest.approx(then[name], rel=1e-12)
    assert first["write_kv"][first.mask("kind", "scatter")].tolist() == [token / 4] * 2
    assert first["read_kv"].sum() == 2 * 900 * token / 4
    # copies for all heads are as wide as attention computes
    assert first["write_activation"][first.mask("kind", "copy")].tolist() == copied


def test_kernels_are_called_what_an_importer_knows():
    w = static_cache(workload(*STEP), 700)
    new = np.array(["at::native" in k for k in w.text("kernel")])
    for name, of, kind, library in rows(w, ("kernel", "routine", "kind", "library")):
        if "at::native" in name:
            assert (routine(name), kernel_names.library(name)) == (of, library)
            assert kernel_names.kind(name) == {"scatter": "gather"}.get(kind, kind)
    assert new.sum() == 17 and w.classified[new].all()


def test_the_copies_for_all_heads_are_no_cache():
    w = static_cache(workload(*STEP), 1100)
    weights, cache = w.reuse.kept[0].tolist()
    assert weights == 2560.0
    assert 0 <= cache - 2 * 563_200 <= 2 * 512  # and a token of each


def test_only_attention_that_grows_its_cache_changes():
    crossed = {**ATTENTION, "kernel": "cross", "n": 60, "read_kv": 61_440.0}
    w = static_cache(workload(*STEP, crossed), 700)
    at = w.text("kernel").tolist().index("cross")
    assert rows(w, ("n", "kv_heads", "read_kv"))[at] == (60, 2, 61_440.0)


GRAPHS = [
    # kernels of a step with the static cache; eager steps choose the next token (argmax) and find
    # its position (arange, add), which the graphs are given
    ("paddle_decode_b1_c628", 692, 930, 0),
    ("dsocr_grouped_decode_b1_c1024", 1088, 977, 56),
]
OUTSIDE = Counter(
    {("reduce_arg", 1, 512): 1, ("indexed_fill", 1, 64): 1, ("vectorized", 1, 128): 1}
)


def trace(shared, name):
    return ns.import_trace(shared / "baselines" / "h200" / "kineto" / f"kineto_{name}.json.gz")


def launches(w, names=("kernel", "blocks", "threads")):
    """Return routine (or kernel) and launch of each operation of the first step."""
    first = [r for r, step in zip(rows(w, names), w["step"], strict=True) if step == 0]
    return [(routine(r[0]) or r[0], *r[1:]) for r in first]


@pytest.mark.shared
@pytest.mark.parametrize(("name", "slots", "kernels", "copies"), GRAPHS)
def test_kernels_and_grids_are_those_of_the_graph(shared, name, slots, kernels, copies):
    eager, graph = trace(shared, name), trace(shared, f"{name}_graph")
    static = static_cache(eager, slots)
    made, measured = launches(static), launches(graph)
    assert len(measured) == kernels + copies
    assert Counter(made) - Counter(measured) == OUTSIDE
    assert not Counter(measured) - Counter(made)
    # from the first layer on in the same order, too
    layers = int(np.argmax(static["layer"] >= 0))
    assert made[layers:-1] == measured[-len(made[layers:-1]) :]
    assert len(made[:layers]) < 30


ADDED = ("index_copy_kernel_impl", "where_kernel_impl", "::FillFunctor", "nocast<direct_copy")


def seconds(w, times):
    """Return what a step spends in kernels of `ADDED`."""
    names = [k.replace("at::native::", "").replace("(anonymous namespace)::", "")
             for k in w.labels["kernel"]]  # fmt: skip
    of = [any(part.replace("::", "") in name for part in ADDED) for name in names]
    return times[np.array(of)[w["kernel"]]].sum() / len(w.steps)


@pytest.mark.shared
@pytest.mark.parametrize(("name", "slots"), [case[:2] for case in GRAPHS])
def test_what_is_added_takes_as_long_as_in_the_graph(shared, name, slots):
    static, graph = static_cache(trace(shared, name), slots), trace(shared, f"{name}_graph")
    modelled = kernel_time(static.operations(), Designs(ns.load_arch("h200")))[:, 0]
    assert seconds(static, modelled) == pytest.approx(seconds(graph, graph["duration_s"]), rel=0.2)


WALLS = [
    ("paddle_decode_b1_c628", "paddle:decode:1:628", 692),
    ("paddle_decode_b8_c628", "paddle:decode:8:628", 692),
    ("paddle_decode_b32_c628", "paddle:decode:32:628", 692),
    ("dsocr_grouped_decode_b1_c1024", "dsocr_grouped:decode:1:1024", 1088),
    ("dsocr_grouped_decode_b16_c1024", "dsocr_grouped:decode:16:1024", 1088),
]


@pytest.mark.shared
@pytest.mark.parametrize(("name", "case", "slots"), WALLS)
def test_a_graph_is_foretold_from_the_eager_trace(shared, name, case, slots):
    lines = (shared / "baselines" / "h200" / "wall.jsonl").read_text().splitlines()
    walls = [x["graph_min_ms"] for x in map(json.loads, lines)
             if x["case"] == case and "graph_min_ms" in x and not x.get("compiled")]  # fmt: skip
    static = static_cache(trace(shared, name), slots)
    wall = ns.replay(static, ns.load_arch("h200"), launch="graph").wall_s
    assert wall * 1e3 == pytest.approx(min(walls), rel=0.12)


def test_it_says_what_it_reads_and_takes_it_as_a_setting():
    assert PARAMETERS == ("workload.static_cache",)
    w = workload(*STEP)
    assert change(w, {SLOTS: 700}).id == static_cache(w, 700).id
