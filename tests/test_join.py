import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npusim.errors import InputError
from npusim.importers import import_trace
from npusim.joining.captures import join, where
from npusim.joining.counters import is_profile
from npusim.kernel_match import align, key, numbered
from npusim.workload import COLUMNS
from npusim.workload_file import load_workload, save_workload
from tests.builder import gemv, kernel, profile, workload

# One kernel as ncu, nsys (with casts), the PyTorch profiler and a report with namespaces cut off
# print it.
COPY = (
    "void at::unrolled_elementwise_kernel<at::direct_copy_kernel_cuda(at::TensorIteratorBase &)::"
    "[lambda() (instance 3)]::operator ()() const::[lambda(float) (instance 1)], "
    "std::array<char *, 2>, 4, memory::LoadWithCast<1>>(int, T1, T2, T4)",
    "void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda("
    "at::TensorIteratorBase &)::[lambda() (instance 3)]::operator ()() const::[lambda(float) "
    "(instance 1)], std::array<char *, (unsigned long)2>, (int)4, "
    "at::native::memory::LoadWithCast<(int)1>>(int, T1, T2, T4)",
    "void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda("
    "at::TensorIteratorBase&)::{lambda()#3}::operator()() const::{lambda(float)#1}, "
    "std::array<char*, 2ul>, 4, at::native::memory::LoadWithCast<1> >(int, at::native::"
    "direct_copy_kernel_cuda(at::TensorIteratorBase&)::{lambda()#3}::operator()() const::"
    "{lambda(float)#1}, std::array<char*, 2ul>)",
    "void unrolled_elementwise_kernel<direct_copy_kernel_cuda(TensorIteratorBase &)::"
    "[lambda() (instance 3)]::operator ()() lambda(float) (instance 1)], "
    "array<char *, 2>, 4, LoadWithCast<1>>(int, T1, T2, T4)",
)


def test_spellings_of_one_kernel_have_one_key():
    assert {key(name) for name in COPY} == {
        "unrolled_elementwise_kernel direct_copy_kernel_cuda lambda #3 lambda float #1 "
        "array char * 2 4 LoadWithCast 1"
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("std::enable_if<!T7, void>::type internal::gemvx::kernel<int, (bool)0>(T1)",
         "enable_if<!T7, void>::type kernel<int, 0>(T1)"),
        ("std::enable_if<!(false), void>::type internal::gemvx::kernel<int, false>(int)",
         "enable_if<!T7, void>::type kernel<int, 0>(T1)"),
        ("void at::native::(anonymous namespace)::Cat<at::native::(anonymous namespace)::O<2u>, 3>",
         "void unnamed>::Cat<unnamed>::O<2>, 3>(T1 *, unnamed>::Meta<T1>)"),
        ("f<float const*, g<const int>>(float const*)", "f<const float *, g<int const> >(T1)"),
        ("void k<1>(int)", "k<1>"),
        ("kernel.kd", "kernel"),
        ("Memcpy HtoD (Pageable -> Device)", "[CUDA memcpy Host-to-Device]"),
        ("Memset (Device)", "[CUDA memset]"),
        ("nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT", " nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT"),
    ],
)  # fmt: skip
def test_names_of_one_kernel(one, other):
    assert key(one) == key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("f<2, 3>(int)", "f<3, 2>(int)"),
        ("f<-2>()", "f<2>()"),
        ("f<true>()", "f<false>()"),
        ("f<float*>()", "f<float>()"),
        ("loop<mul_kernel(It&)::{lambda(float)#1}>", "loop<add_kernel(It&)::{lambda(float)#1}>"),
        ("loop<mul_kernel(It&)::{lambda(float)#1}>", "loop<mul_kernel(It&)::{lambda(long)#1}>"),
        ("loop<mul_kernel(It&)::{lambda(float)#1}>", "loop<mul_kernel(It&)::{lambda(float)#2}>"),
        ("nvjet_64x8_TNT", "nvjet_64x8_TNN"),
        ("Memcpy DtoH (Device -> Pinned)", "Memcpy HtoD (Pinned -> Device)"),
    ],
)
def test_names_of_two_kernels(one, other):
    assert key(one) != key(other)


@given(st.text(alphabet="ab1<>(){}[]:,*& #lambdunme", max_size=60))
def test_any_text_has_a_key(text):
    assert key(text) or not text.strip()


# ---------------------------------------------------------------- graph and eager


def unknown(name, *args, **more):
    return kernel(name, *args, operator="unknown", basis="name", phase="unknown", **more)


EAGER = (
    kernel("embed", kind="gather", operator="aten::index", m=1),
    kernel("mm", kind="gemv", operator="aten::mm", m=1, n=4, k=8, read_weight=64.0, layer=0),
    kernel("cat", kind="cat", operator="aten::cat", m=7, layer=0),
    kernel("sdpa", kind="attention", operator="sdpa", m=1, n=7, k=64, read_kv=9.0, layer=0),
    kernel("mm", kind="gemv", operator="aten::mm", m=1, n=4, k=9, read_weight=72.0, layer=1),
)
GRAPH = (
    unknown("embed", 2.0),
    unknown("mm", 4.0, stream=3, registers=99),
    unknown("mask", 1.0),
    unknown("sdpa", 6.0, 64),
    unknown("mm", 5.0),
    unknown("tail", 2.0),
)


def test_a_graph_gets_shapes_and_keeps_its_times():
    eager = workload(*EAGER, name="eager")
    graph = workload(*GRAPH, name="graph")
    joined = join([eager, graph])
    w, s = joined.workload, joined.summary["shapes"]
    assert w.name == "graph"
    assert w.text("operator").tolist() == [
        "aten::index", "aten::mm", "unknown", "unknown", "aten::mm", "unknown"]  # fmt: skip
    assert w["k"].tolist() == [0, 8, 0, 0, 9, 0]
    assert w["read_weight"].tolist() == [0, 64, 0, 0, 72, 0]
    assert w["layer"].tolist() == [-1, 0, -1, -1, 1, -1]
    assert set(w.text("phase")) == {"decode"}
    for c in ("duration_s", "start_s", "stream", "blocks", "threads", "registers", "kernel"):
        assert w[c].tolist() == graph[c].tolist()
    assert (s["matched"], s["kernels"]) == (3, 6)
    assert s["matched_share"] == pytest.approx(11 / 20)
    assert s["classified_busy_share"] == pytest.approx(11 / 20)
    assert [(e["kernel"], e["count"]) for e in s["other_launch"]] == [("sdpa", 1)]
    assert [e["kernel"] for e in s["only_timed"]] == ["tail", "mask"]
    assert s["only_timed"][0]["seconds"] == pytest.approx(2e-6)
    assert [e["kernel"] for e in s["only_described"]] == ["cat"]
    assert "another grid or block (1 attention)" in joined.notes[0]
    assert "attention over 7 keys" in joined.notes[1]
    assert joined.summary["counters"] is None


def test_a_joined_workload_survives_a_file(tmp_path):
    w = join([workload(*EAGER), workload(*GRAPH)]).workload
    save_workload(w, tmp_path / "joined.parquet")
    again = load_workload(tmp_path / "joined.parquet")
    assert again.id == w.id
    assert again.meta == w.meta


def test_layers_between_matches_of_one_layer():
    eager = workload(*(kernel(k, layer=n) for n in (0, 1) for k in ("a", "b")))
    graph = workload(*(unknown(k) for k in ("a", "new", "b", "new", "a", "b", "new")))
    assert join([graph, eager]).workload["layer"].tolist() == [0, 0, 0, -1, 1, 1, -1]


def test_each_step_takes_the_shapes_of_its_own():
    eager = workload(*(kernel("sdpa", step=s, m=1, n=7 + s) for s in range(3)), wall=(1,) * 3)
    graph = workload(*(unknown("sdpa", step=s) for s in range(4)), wall=(1,) * 4)
    joined = join([graph, eager])
    assert joined.workload["n"].tolist() == [7, 8, 9, 9]
    assert "made has 4 steps, made 3" in joined.notes
    # a capture without marks holds the steps one after the other
    unmarked = workload(*(unknown("sdpa") for _ in range(3)))
    assert join([unmarked, eager]).workload["n"].tolist() == [7, 8, 9]


# ---------------------------------------------------------------- counters and a timeline


def test_counters_reach_every_step_and_kernels_of_the_same_shape():
    step = [kernel("norm", 1.0), gemv(4.0), gemv(5.0), gemv(2.0, k=9), kernel("end", 3.0)]
    timeline = workload(*[{**row, "step": s} for s in (0, 1) for row in step], wall=(1, 1))
    p = profile(kernel("norm", 2.0), kernel("gemv<2>", 6.0), l2_hit_rate=[0.1, 0.8],
                profiled_s=[2e-6, 6e-6])  # fmt: skip
    joined = join([timeline, p])
    hits = joined.workload.counters["l2_hit_rate"]
    # the third has name and launch of the second and its shape; the fourth another shape
    assert hits.tolist() == pytest.approx([0.1, 0.8, 0.8, np.nan, np.nan] * 2, nan_ok=True)
    s = joined.summary["counters"]
    assert (s["exact"], s["by_kind"], s["profiled"], s["kernels"]) == (4, 2, 2, 10)
    assert (s["exact_share"], s["by_kind_share"]) == pytest.approx((5 / 15, 5 / 15))
    assert [(e["kernel"], e["count"]) for e in s["only_timeline"]] == [
        ("end", 2), ("void gemv<(int)2>(T1)", 2)]  # fmt: skip
    assert s["counters"]["l2_hit_rate"] == {
        "unit": "1",
        "time_weighted": pytest.approx((0.1 * 1 + 0.8 * 9) / 10),
        "mean": pytest.approx((0.1 + 0.8 + 0.8) / 3),
        "profiled_mean": pytest.approx(0.45),
        "kernels": 6,
        "time_share": pytest.approx(10 / 15),
    }
    (times,) = s["durations"]
    assert times["kernels"] == 4
    assert times["time_weighted_ratio"] == pytest.approx(8 / 5)
    assert times["median_ratio"] == pytest.approx(1.75)
    assert joined.workload["duration_s"].tolist() == timeline["duration_s"].tolist()


def test_the_median_of_several_profiled_kernels_serves_the_others():
    timeline = workload(*[gemv(1.0) for _ in range(5)])
    p = profile(*[gemv(1.0) for _ in range(3)], occupancy=[0.1, 0.2, 0.9])
    assert join([timeline, p]).workload.counters["occupancy"].tolist() == [0.1, 0.2, 0.9, 0.2, 0.2]


def test_a_kernel_out_of_order_serves_where_its_launch_has_one_shape():
    timeline = workload(kernel("a"), kernel("b", m=3), kernel("c", m=1), kernel("c", m=2))
    # the profile holds b before a: only one of them can keep its place
    p = profile(kernel("b"), kernel("a"), kernel("c"), occupancy=[0.2, 0.1, 0.3])
    joined = join([timeline, p])
    s = joined.summary["counters"]
    assert (s["exact"], s["by_kind"]) == (2, 1)
    found = joined.workload.counters["occupancy"]
    assert found[:2].tolist() == [0.1, 0.2]
    assert sorted(found[2:].tolist(), key=np.isnan) == pytest.approx([0.3, np.nan], nan_ok=True)


def test_another_grid_gives_no_counters():
    timeline = workload(kernel("a", blocks=8), kernel("b"), kernel("c"))
    p = profile(kernel("a", blocks=4), kernel("zzz"), kernel("b"), kernel("c"),
                occupancy=[0.2, 0.5, 0.7, 0.9])  # fmt: skip
    joined = join([timeline, p])
    assert joined.workload.counters["occupancy"][1:].tolist() == [0.7, 0.9]
    assert np.isnan(joined.workload.counters["occupancy"][0])
    s = joined.summary
    assert [e["kernel"] for e in s["counters"]["other_launch"]] == ["a"]
    assert [e["kernel"] for e in s["counters"]["only_profiled"]] == ["zzz"]
    assert [(w["kernel"], w["verdict"]) for w in s["where"]][:2] == [
        ("a", "other launch"), ("zzz", "absent")]  # fmt: skip
    assert "2 of 3 kernels have counters: 2 were profiled, 0 equal one that was" in joined.notes


def test_captures_of_other_steps_are_refused():
    timeline = workload(kernel("a"), kernel("b"), name="run")
    with pytest.raises(InputError, match=r"1 of 3 profiled kernels are in the timeline"):
        join([timeline, profile(kernel("a"), kernel("x"), kernel("y"), occupancy=[1, 1, 1])])
    assert join([timeline, profile(kernel("a"), kernel("x"), occupancy=[1, 1])])
    other = workload(kernel("other", operator="aten::mm", kind="gemv", m=1, n=2, k=3))
    graph = workload(unknown("a"), unknown("b"), name="graph")
    with pytest.raises(InputError, match=r"0 of 2 kernels have a counterpart.*npusim diff"):
        join([graph, other])


def test_what_a_warm_replay_counts_of_dram_is_left_out():
    """Weights of 1 MB, of which 99 kB or 101 kB were read: less than a tenth is a warm replay."""
    timeline = workload(gemv(4.0))
    more = {"dram_throughput": [0.1], "l2_hit_rate": [0.9], "occupancy": [0.5]}
    warm = join([timeline, profile(gemv(4.0), dram_read=[99e3], **more)])
    assert set(warm.workload.counters) == {"profiled_s", "occupancy"}
    assert any("left out" in note for note in warm.notes)
    cold = join([timeline, profile(gemv(4.0), dram_read=[101e3], **more)])
    assert set(cold.workload.counters) == {"profiled_s", "dram_read", *more}


def test_a_profile_without_grids_is_matched_by_name():
    timeline = workload(kernel("a", blocks=8), kernel("b"))
    p = profile(kernel("a", blocks=0, threads=0), occupancy=[0.2])
    assert join([timeline, p]).summary["counters"]["exact"] == 1


def test_of_two_profiles_the_first_counts():
    timeline = workload(gemv(1.0), kernel("b"))
    one = profile(gemv(1.0), instructions=[7.0])
    two = profile(gemv(1.0), kernel("b"), instructions=[1.0, 2.0], occupancy=[0.5, 0.25])
    w = join([timeline, one, two]).workload
    assert w.counters["instructions"].tolist() == [7, 2]
    assert w.counters["occupancy"].tolist() == [0.5, 0.25]
    assert w.meta["counters_exact"] == 2


def test_shapes_and_counters_are_joined_at_once():
    p = profile(unknown("embed"), unknown("mm"), instructions=[1.0, 2.0])
    joined = join([workload(*GRAPH, name="graph"), p, workload(*EAGER, name="eager")])
    assert joined.workload["read_weight"].tolist() == [0, 64, 0, 0, 72, 0]
    assert joined.workload.counters["instructions"][:2].tolist() == [1, 2]
    assert joined.summary["shapes"]["matched"] == 3


def explained(rows, device="NVIDIA H200", **counters):
    timeline = workload(*(dict(r, duration_s=r["duration_s"] / 2) for r in rows), device=device)
    (times,) = join([timeline, profile(*rows, **counters)]).summary["counters"]["durations"]
    return times["explanation"]


def test_what_explains_profiled_durations():
    rows = [gemv(2.0)]
    assert explained(rows, waves=[1.0]) == []
    (warm,) = explained(rows, dram_read=[1e3])
    assert "read 1 kB of DRAM (0.1%): the operands were in L2 (warm replay)" in warm
    (cold,) = explained(rows, dram_read=[1e6])
    assert "(100.0%): the weights came from DRAM (cold cache), and take 2.00 times as long" in cold
    assert explained(rows, dram_read=[5e5])[0].endswith("part of the operands was in cache")
    (slow,) = explained(rows, sm_clock=[0.99e9])  # of 1.98 GHz
    assert "990 MHz, 0.50 of the boost clock 1.98 GHz" in slow
    assert "2.00 times as long" in slow
    assert "clocks explain no difference" in explained(rows, sm_clock=[1.97e9])[0]
    (other,) = explained(rows, device="a board", sm_clock=[1e9])
    assert other.endswith("the boost clock of the device is not known")


def test_a_fixed_cost_shows_in_short_kernels():
    seconds = [1.0] * 10 + [100.0] * 10
    rows = [kernel(f"k<{i}>", t) for i, t in enumerate(seconds)]
    timeline = workload(*rows)
    p = profile(*(dict(r, duration_s=r["duration_s"] + 1e-6) for r in rows), occupancy=[0.5] * 20)
    (sentence,) = join([timeline, p]).summary["counters"]["durations"][0]["explanation"]
    assert sentence == (
        "the shorter half of the kernels (up to 1 µs) takes 2.00 times as long under the profiler "
        "at the median (1 µs more), the longest tenth 1.01 times: a cost per kernel, as it is run "
        "alone, not a slower kernel"
    )


# ---------------------------------------------------------------- profiles alone, and errors


def test_profiles_alone_are_laid_end_to_end():
    one = profile(kernel("a", 2.0), kernel("b", 3.0), occupancy=[0.1, 0.2])
    two = profile(kernel("a", 4.0), waves=[2.0])
    joined = join([one, two])
    w = joined.workload
    assert w.text("kernel").tolist() == ["a", "b", "a"]
    assert w["start_s"].tolist() == pytest.approx([0, 2e-6, 5e-6])
    assert w.steps.wall_s.tolist() == pytest.approx([9e-6])
    assert w.counters["occupancy"].tolist() == pytest.approx([0.1, 0.2, np.nan], nan_ok=True)
    assert w.counters["waves"].tolist() == pytest.approx([np.nan, np.nan, 2], nan_ok=True)
    assert joined.summary["kernels_of_each"] == [2, 1]
    assert is_profile(w)


def test_profiles_of_two_devices_are_told():
    one, two = (profile(kernel("a"), device=d, waves=[1.0]) for d in ("x", "y"))
    joined = join([one, two])
    assert joined.notes == ("profiles of different devices: x, y",)
    assert joined.workload.meta["device"] == ""


@pytest.mark.parametrize(
    ("captures", "message"),
    [
        ([EAGER], "nothing to join: '1 capture'"),
        ([EAGER, EAGER], "both timelines have operators"),
        ([GRAPH, GRAPH], "no timeline has operators"),
        ([EAGER, GRAPH, GRAPH], "too many timelines"),
    ],
)
def test_what_cannot_be_joined(captures, message):
    with pytest.raises(InputError, match="one timeline and counter profiles") as raised:
        join([workload(*rows) for rows in captures])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_only_counter_profilers_make_profiles():
    rows = [kernel("a")]
    assert is_profile(profile(*rows, waves=[1.0]))
    assert is_profile(profile(*rows, form="rocprof compute", waves=[1.0]))
    assert not is_profile(profile(*rows, form="kineto", waves=[1.0]))
    assert not is_profile(profile(*rows))


# ---------------------------------------------------------------- where a kernel is


def test_where_a_kernel_is_by_name_and_by_launch():
    p = profile(kernel("a", blocks=8), kernel("b", blocks=8), kernel("c"), kernel("d"),
                waves=[1.0] * 4)  # fmt: skip
    stages = {
        "one": workload(kernel("a", blocks=8), kernel("a", blocks=4), kernel("b", blocks=4)),
        "sums": workload(*(kernel(k, blocks=0, threads=0) for k in ("c", "c", "a"))),
    }
    a, b, c, d = where(p, stages)
    assert (a.verdict, a.named, a.launched) == ("several", {"one": 2, "sums": 1}, {"one": 1})
    assert (b.verdict, b.named) == ("other launch", {"one": 1, "sums": 0})
    assert (c.verdict, c.by_launch) == ("only in sums by name", False)
    assert (d.verdict, d.stages) == ("absent", ())


def trace(shared, name):
    path = shared / name
    if not path.is_file():
        pytest.skip(f"{name} is not beside the checkout")
    return import_trace(path)


SEED = "external/seed_dsocr_rtx5090"


def profiled_by_hand(shared):
    """Return the 20 kernels of a published profile with the stage that was found for each."""
    folder = shared / SEED / "ncu-v2"
    if not folder.is_dir():
        pytest.skip("the published profile is not beside the checkout")
    details = sorted(folder.glob("kernel_*/ncu.details.csv"))
    rows = [next(csv.DictReader(d.read_text().splitlines())) for d in details]
    size = [[np.prod(eval(r[c])) for c in ("Grid Size", "Block Size")] for r in rows]  # noqa: S307
    p = profile(*(kernel(r["Kernel Name"], 1.0, *s) for r, s in zip(rows, size, strict=True)),
                waves=[1.0] * len(rows))  # fmt: skip
    table = shared / "facts" / "dsocr_ncu_v2_stage_of_each_kernel.csv"
    return p, list(csv.DictReader(table.read_text().splitlines()))


@pytest.mark.shared
def test_kernels_profiled_as_decode_that_are_of_other_stages(shared):
    p, by_hand = profiled_by_hand(shared)
    stages = {
        stage: trace(shared, f"{SEED}/nsys/{stage}_cuda_gpu_kern_sum.csv")
        for stage in ("decode", "clip", "sam", "projector")
    }
    for found, row in zip(where(p, stages), by_hand, strict=True):
        assert not found.by_launch or found.verdict == "absent"  # sums have no grids
        if "absent from decode" in row["helper_shape"]:
            assert found.named["decode"] == 0
        if row["helper_stage"] == "SAM":
            assert found.named["sam"] > 0
            assert found.named["decode"] == 0
        if row["helper_stage"] == "decode":
            assert found.verdict == "only in decode by name"
    verdicts = [found.verdict for found in where(p, {"decode": stages["decode"]})]
    absent = [int(r["id"]) for r, v in zip(by_hand, verdicts, strict=True) if v == "absent"]
    assert absent == [3, 5, 9, 10, 16, 19]  # those that the decode summary does not list


H200 = "baselines/h200"


@pytest.mark.shared
@pytest.mark.parametrize(
    ("case", "least"), [("paddle_decode_b1_c628", 0.76), ("dsocr_grouped_decode_b1_c1024", 0.93)]
)
def test_graph_replays_get_the_shapes_of_eager_steps(shared, case, least):
    eager = trace(shared, f"{H200}/kineto/kineto_{case}.json.gz")
    graph = trace(shared, f"{H200}/kineto/kineto_{case}_graph.json.gz")
    joined = join([graph, eager])
    w, s = joined.workload, joined.summary["shapes"]
    assert s["classified_busy_share_before"] < 0.03
    assert w.classified_busy_share > least
    # both launch the same products, once each
    for column in ("flop", "read_weight"):
        total = eager[column][eager.mask("kind", "gemv")].sum()
        assert w[column][w.mask("kind", "gemv")].sum() == pytest.approx(total)
    assert w.mask("kind", "gemv").sum() == eager.mask("kind", "gemv").sum()
    assert w["layer"].max() == eager["layer"].max()
    count = sum(e["count"] for e in (*s["only_timed"], *s["other_launch"]))
    assert count + s["matched"] == len(graph)
    assert w["duration_s"].tolist() == graph["duration_s"].tolist()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("profiled", "case", "count"),
    [
        ("ncu", "paddle_decode_b1_c628", 282),
        ("dram", "paddle_decode_b1_c628", 523),
        ("ncu", "dsocr_decode_b1_c1024", 472),
        ("dram", "dsocr_decode_b1_c1024", 508),
    ],
)
def test_profiles_are_the_first_kernels_of_a_step(shared, profiled, case, count):
    timeline = trace(shared, f"{H200}/kineto/kineto_{case}.json.gz")
    p = trace(shared, f"{H200}/ncu/{profiled}_{case}.csv.gz")
    a, b = numbered(timeline, p)
    step = np.flatnonzero(timeline["step"] == 0)
    rows, of = align(b, a[step])
    # copies are not profiled; every profiled kernel is the next one that is no copy
    kernels = np.flatnonzero(~timeline.mask("kind", "memcpy", "memset")[step])
    assert rows.tolist() == list(range(count))
    assert of.tolist() == kernels[:count].tolist()


@pytest.mark.shared
def test_warm_and_cold_profiles_of_one_step(shared):
    case = "paddle_decode_b1_c628"
    timeline = trace(shared, f"{H200}/kineto/kineto_{case}.json.gz")
    many, few = (trace(shared, f"{H200}/ncu/{p}_{case}.csv.gz") for p in ("ncu", "dram"))
    joined = join([timeline, few, many])
    s = joined.summary["counters"]
    cold, warm = s["durations"]
    assert any("cold cache" in sentence for sentence in cold["explanation"])
    assert any("warm replay" in sentence for sentence in warm["explanation"])
    assert cold["time_weighted_ratio"] > warm["time_weighted_ratio"] > 1
    assert s["exact_share"] + s["by_kind_share"] > 0.9
    read = joined.workload.counters["dram_read"]
    weights = timeline["read_weight"] > 1e6
    exact = weights & (timeline["step"] == 0) & ~np.isnan(read)
    assert read[exact].sum() == pytest.approx(timeline["read_weight"][exact].sum(), rel=0.02)
    # the only profiled kernels at another size are those of the growing KV cache
    other = {key(e["kernel"]).split()[0] for e in s["other_launch"]}
    assert other == {"CatArrayBatchedCopy_vectorized"}
    assert not s["only_profiled"]
    assert set(joined.workload.columns) == set(COLUMNS)
