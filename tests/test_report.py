"""The profiling report: its figures against hand-computed ones and published ones, its page."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npusim as ns
from npusim import catalog
from npusim.counters import COUNTERS
from npusim.errors import InputError
from npusim.gaps import gaps, laid_out
from npusim.importers import import_trace
from npusim.inspection import inspection
from npusim.report.collect import collect
from npusim.report.data import FIELDS, histogram
from npusim.report.page import number, outputs, save_report, shown
from npusim.report.timeline import SHORT_S, below, outliers, step_classes
from npusim.workload import HostCosts, Workload

from .builder import workload

SECTIONS = ["measured", "time", "classes", "longest", "histograms", "rooflines", "launches", "host",
            "steps", "names"]  # fmt: skip
US = 1e-6


def kernel(name, start, duration, **more):
    return {"kernel": name, "start_s": start * US, "duration_s": duration * US, **more}


def with_more(w, counters=None, host=None, meta=None, name=None):
    return Workload(name or w.name, w.columns, w.labels, w.steps, meta={**w.meta, **(meta or {})},
                    counters=counters, host=host)  # fmt: skip


@pytest.fixture(scope="module")
def small():
    """Two steps: gaps of 5 and 2 us in the first, overlap on two streams in the second."""
    w = workload(
        kernel("a", 1, 2, operator="aten::x", host_s=3 * US),
        kernel("b", 8, 4, kind="gemm", library="cuBLAS", layer=0, host_s=1 * US),
        kernel("a", 14, 2, operator="aten::x", sync=True, presync_s=1 * US, host_s=2 * US),
        kernel("b", 0, 10, kind="gemm", library="cuBLAS", layer=1, step=1),
        kernel("c", 2, 3, stream=8, step=1),
        kernel("a", 15, 1, step=1),
        wall=(20 * US, 16 * US),
        tail=(1 * US, 0.0),
    )
    host = HostCosts(("aten::x", "cudaLaunchKernel"), ("operator", "runtime"),
                     np.array([2, 6]), np.array([1, 9]) * US, np.array([7, 9]) * US)  # fmt: skip
    return with_more(w, host=host)


def counted(w, **values):
    return with_more(w, {c: np.array(v, dtype=float) for c, v in values.items()})


# ---------------------------------------------------------------- where time goes


def test_time_by_kernel(small):
    table = collect(small).table("kernels").set_index("kernel")
    assert table.index.tolist() == ["b", "a", "c"]
    assert table["launches"].tolist() == [2, 3, 1]
    assert table["total_s"].tolist() == pytest.approx([14 * US, 5 * US, 3 * US])
    assert table.loc["a", ["mean_s", "median_s"]].tolist() == pytest.approx([5 / 3 * US, 2 * US])
    assert table["time_share"].tolist() == pytest.approx([14 / 22, 5 / 22, 3 / 22])
    assert table["cumulative_share"].tolist() == pytest.approx([14 / 22, 19 / 22, 1])
    assert table.loc["b", ["library", "kind"]].tolist() == ["cuBLAS", "gemm"]


def test_time_by_library_kind_layer_and_operator(small):
    report = collect(small)

    def shares(name, column):
        return report.table(name).set_index(column)["time_share"].to_dict()

    assert shares("libraries", "library") == pytest.approx({"cuBLAS": 14 / 22, "ATen": 8 / 22})
    assert shares("kinds", "kind") == pytest.approx({"gemm": 14 / 22, "pointwise": 8 / 22})
    assert list(shares("layers", "layer")) == ["0", "1", "unknown"]
    assert shares("layers", "layer")["unknown"] == pytest.approx(8 / 22)
    assert shares("operators", "operator")["aten::x"] == pytest.approx(4 / 22)


def test_unknown_layers_and_operators_are_said(small):
    lacks = " ".join(collect(small).section("time").lacks)
    assert f"{8 / 22:.1%}" in lacks and "layer" in lacks
    bare = workload(kernel("a", 0, 1, operator="unknown"))
    assert "operator" in " ".join(collect(bare).section("time").lacks)


def test_longest_launch_of_each_kernel(small):
    longest = collect(small).table("longest")
    assert longest["duration_s"].tolist() == pytest.approx([10 * US, 3 * US, 2 * US])
    launches = collect(small).table("launches")["duration_s"]
    assert len(launches) == len(small) and launches.is_monotonic_decreasing


@pytest.mark.parametrize("name", ["paddleocr_vl_decode", "deepseek_ocr_vision"])
def test_every_split_of_device_time_adds_up(name):
    w = ns.load_workload(name)
    report = collect(w)
    for table in ("kernels", "libraries", "kinds", "layers", "operators"):
        frame = report.table(table)
        assert frame["launches"].sum() == len(w)
        assert frame["total_s"].sum() == pytest.approx(w["duration_s"].sum())
    classes = report.table("classes_shapes").set_index("class")
    parts = classes.drop("all").sum(numeric_only=True)
    assert parts["launches"] == classes.loc["all", "launches"] == len(w)
    assert parts["time_share"] == pytest.approx(1)
    assert {k: v["seconds"] for k, v in inspection(w)["kinds"].items()} == pytest.approx(
        report.table("kinds").set_index("kind")["total_s"].to_dict()
    )


# ---------------------------------------------------------------- classes and counters


def test_means_of_counters_by_count_and_by_time():
    w = counted(workload(kernel("a", 0, 1), kernel("b", 1, 3), kernel("c", 4, 4)),
                sm_throughput=[0.5, 0.3, 0.1], dram_throughput=[0.1, 0.1, 0.3],
                occupancy=[0.4, np.nan, 0.2])  # fmt: skip
    report = collect(w)
    mean, weighted = (report.table(f"classes_counters_{way}").set_index("class")
                      for way in ("mean", "weighted"))  # fmt: skip
    assert mean["sm_throughput"].to_dict() == pytest.approx(
        {"memory-bound": 0.1, "compute-bound": 0.4, "all": 0.3}
    )
    assert weighted.loc["compute-bound", "sm_throughput"] == pytest.approx((0.5 + 3 * 0.3) / 4)
    assert mean.loc["all", "occupancy"] == pytest.approx(0.3)  # those known
    assert weighted.loc["all", "occupancy"] == pytest.approx((0.4 + 4 * 0.2) / 5)
    sizes = report.table("classes_counters").set_index("class")
    assert sizes["count_share"].to_dict() == pytest.approx(
        {"memory-bound": 1 / 3, "compute-bound": 2 / 3, "all": 1}
    )
    assert sizes.loc["memory-bound", "time_share"] == pytest.approx(0.5)


def published(shared, version="ncu-v2"):
    """Return the kernels of a published counter report as a workload."""
    file = shared / "external/seed_dsocr_rtx5090" / version / "analysis/metrics_summary.csv"
    if not file.is_file():
        pytest.skip("the metrics are not there")
    m = pd.read_csv(file).dropna(subset="duration_us")
    ends = m["duration_us"].cumsum()
    places = zip(m["kernel_name"], ends - m["duration_us"], m["duration_us"], strict=True)
    rows = [kernel(*place, operator="unknown", basis="name") for place in places]
    w = workload(
        *rows, wall=(ends.iloc[-1] * US,), host="unknown", device="NVIDIA GeForce RTX 5090"
    )
    w = with_more(w, meta={"marked_steps": 0})
    names = {"sm_throughput": "sm", "dram_throughput": "dram", "memory_throughput": "mem",
             "l1_throughput": "l1tex", "l2_throughput": "l2"}  # fmt: skip
    values = {c: m[f"{short}_throughput_pct"] / 100 for c, short in names.items()}
    values |= {"l1_hit_rate": m["l1tex_hit_rate_pct"] / 100,
               "l2_hit_rate": m["l2_hit_rate_pct"] / 100,
               "occupancy": m["achieved_occupancy_pct"] / 100,
               "occupancy_limit": m["theoretical_occupancy_pct"] / 100,
               "dram_bandwidth": m["memory_throughput_gbs"] * 1e9,
               "profiled_s": m["duration_us"] * US}  # fmt: skip
    return counted(w, **values)


# SM, DRAM, memory throughput and occupancy [%], duration [us] of the tables that the two reports
# print, and the number of kernels in each class
PUBLISHED = {
    "compute-bound": (4, (36.21, 9.89, 32.23, 31.51, 137.44)),
    "memory-bound": (9, (9.38, 34.23, 41.20, 43.22, 9.67)),
    "balanced": (7, (12.25, 12.62, 27.52, 39.32, 39.75)),
    "all": (20, (15.75, 21.80, 34.62, 39.51, 45.75)),
}


@pytest.mark.shared
def test_table_of_classes_is_that_of_a_published_report(shared):
    table = collect(published(shared)).table("classes_counters_mean").set_index("class")
    columns = ["sm_throughput", "dram_throughput", "memory_throughput", "occupancy", "duration_s"]
    assert set(table.index) == set(PUBLISHED)
    for name, (count, means) in PUBLISHED.items():
        row = table.loc[name]
        assert row["launches"] == count
        ours = [*(100 * row[c] for c in columns[:4]), row["duration_s"] / US]
        assert ours == pytest.approx(means, abs=0.0051)
    assert 100 * table.loc["all", ["l1_hit_rate", "l2_hit_rate"]].to_numpy(float) == pytest.approx(
        [8.96, 39.95], abs=0.0051
    )


@pytest.mark.shared
def test_first_version_of_that_report_too(shared):
    table = collect(published(shared, "ncu-v1")).table("classes_counters_mean").set_index("class")
    row = 100 * table.loc["all", ["sm_throughput", "memory_throughput", "l2_hit_rate"]]
    assert row.to_numpy(float) == pytest.approx([10.35, 27.35, 53.48], abs=0.0051)


@pytest.mark.shared
def test_weighted_by_time_the_published_classes_swap_places(shared):
    """45 % of the kernels are memory-bound, and hold less than a tenth of the time profiled."""
    table = collect(published(shared)).table("classes_counters").set_index("class")
    assert table.loc["memory-bound", "count_share"] == pytest.approx(0.45)
    assert table.loc["memory-bound", "time_share"] == pytest.approx(87.01 / 915.0, abs=1e-3)
    assert table.loc["compute-bound", "time_share"] == pytest.approx(549.75 / 915.0, abs=1e-3)


@pytest.mark.shared
def test_counters_alone_make_a_whole_report(shared):
    report = collect(published(shared))
    figures = {f.name: f for s in report.sections for f in s.figures}
    drawn = {h.name for h in figures["histograms_counters"].data}
    assert {"sm_throughput", "l2_hit_rate", "occupancy_limit", "profiled_s"} <= drawn
    assert report.machine == "rtx_5090"
    assert "shapes" in " ".join(report.section("classes").lacks)
    assert "not when they run" in " ".join(report.section("host").lacks)
    assert "wall_s" not in report.table("steps")


# ---------------------------------------------------------------- rooflines and histograms


def test_points_of_the_roofline():
    product = {"kind": "gemm", "dtype": "bf16", "flop": 2e9, "read_weight": 1e6,
               "write_activation": 1e6}  # fmt: skip
    w = workload(
        kernel("k", 0, 10, **product), kernel("k", 20, 30, **product),
        kernel("copy", 60, 10, kind="copy", read_activation=1e6),
        device="NVIDIA H200", wall=(1.0,),
    )  # fmt: skip
    (point,) = collect(w).table("roofline").to_dict("records")
    peak = 4096 * 132 * 1.83e9
    assert point["intensity"] == pytest.approx(1000)
    assert point["flop_rate"] == pytest.approx(4e9 / 40e-6)
    assert point["flop_share"] == pytest.approx(1e14 / peak)
    assert point["over_ridge"] == pytest.approx(1000 / (peak / 4.8e12))
    assert point["time_share"] == pytest.approx(0.8)


def test_roofline_by_counters_takes_measured_bytes():
    w = workload(
        kernel("m", 0, 10, kind="gemm", dtype="bf16", flop=2e9, read_weight=1e6),
        kernel("v", 10, 10, basis="none", kind="unknown"),
        kernel("t", 20, 10, basis="none", kind="unknown"),
        device="NVIDIA H200",
    )
    w = counted(w, dram_read=[5e6, 1e6, 1e6], dram_write=[3e6, 1e6, 1e6], fp32_flop=[0, 4e6, 4e6],
                tensor_pipe=[0.5, 0, 0.5], profiled_s=[20 * US, 10 * US, 10 * US])  # fmt: skip
    table = collect(w).table("roofline_counters").set_index("label")
    assert set(table.index) == {"m bf16 (ATen)", "v fp32 (ATen)"}  # FLOP of t's matrix unit unknown
    assert table.loc["m bf16 (ATen)", ["intensity", "flop_rate"]].tolist() == pytest.approx(
        [250, 1e14]
    )
    assert table.loc["v fp32 (ATen)", "intensity"] == pytest.approx(2)


def test_without_a_machine_the_report_says_why():
    report = collect(workload(kernel("a", 0, 1, flop=1, read_activation=1), device="Unheard Of"))
    for name in ("rooflines", "classes"):
        assert "Unheard Of" in " ".join(report.section(name).lacks)
    assert report.machine == "" and report.table("roofline").empty


def test_a_machine_can_be_named():
    w = workload(kernel("a", 0, 1, flop=1, read_activation=1), device="Unheard Of")
    report = collect(w, ns.load_arch("h100"))
    assert report.machine == "h100" and len(report.table("roofline")) == 1


values = st.lists(st.one_of(st.floats(0, 1e12), st.just(float("nan"))), min_size=1, max_size=40)


@given(values, st.booleans())
def test_every_launch_is_in_one_bin_or_missing(numbers, log):
    given_values = np.array(numbers)
    h = histogram("x", "x", "1", given_values, np.full(len(numbers), 2.0), log=log)
    assert h.launches.sum() + h.missing == len(numbers)
    assert h.seconds.sum() == pytest.approx(2.0 * h.launches.sum())
    assert (np.diff(h.edges) > 0).all()


def test_histogram_weighs_by_time():
    h = histogram("x", "x", "share", np.array([0.1, 0.9]), np.array([1.0, 3.0]), log=False)
    assert h.seconds[h.launches > 0].tolist() == [1.0, 3.0]


# ---------------------------------------------------------------- time between kernels


def test_gaps_on_the_union_of_streams(small):
    g = gaps(small)
    assert g.seconds / US == pytest.approx([5, 2, 5])
    names = small.text("kernel")
    assert [(names[b], names[a]) for b, a in zip(g.before, g.after, strict=True)] == [
        ("a", "b"), ("b", "a"), ("b", "a"),
    ]  # fmt: skip
    assert g.lead_s / US == pytest.approx([1, 0])
    assert g.tail_s / US == pytest.approx([4, 0])
    assert g.active_s / US == pytest.approx([8, 11])


spans = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 40), st.integers(0, 9),
                           st.integers(1, 3)), min_size=1, max_size=20)  # fmt: skip


@given(spans)
def test_active_gaps_lead_and_tail_add_up_to_wall(rows):
    rows = sorted(rows)
    w = workload(*(kernel("k", a, d, step=s, stream=q) for s, a, d, q in rows), wall=(60 * US,) * 2)
    g = gaps(w)
    step = np.bincount(w["step"][g.after], g.seconds, 2)
    assert (g.active_s + step + g.lead_s + g.tail_s) / US == pytest.approx([60, 60])
    assert g.active_s.sum() == pytest.approx(inspection(w)["device_active_s"])
    covered = {(s, t) for s, a, d, _ in rows for t in range(a, a + d)}
    assert g.active_s.sum() / US == pytest.approx(len(covered))


def test_longest_gaps_come_first_with_their_kernels(small):
    table = collect(small).table("gaps")
    assert table["gap_s"].tolist() == pytest.approx([5 * US, 5 * US, 2 * US])
    assert table[["before", "after", "step"]].iloc[0].tolist() == [
        "a fp32 (ATen)",
        "b fp32 (cuBLAS)",
        0,
    ]


def test_sums_of_kernels_have_no_gaps_but_a_trace_without_any_may():
    rows = (kernel("a", 0, 1), kernel("b", 1, 2))
    sums = workload(*rows, wall=(3 * US,), host="unknown")
    assert laid_out(sums, gaps(sums))
    trace = workload(*rows, wall=(3 * US,))
    assert not laid_out(trace, gaps(trace))


def test_short_launches(small):
    assert below(small["duration_s"], SHORT_S) == pytest.approx((5 / 6, 12 / 22))
    text = " ".join(collect(small).section("launches").text)
    assert "83.3%" in text and f"{12 / 22:.1%}" in text and "3 launches a step" in text


@settings(max_examples=30)
@given(st.lists(st.floats(1e-7, 1e-2), min_size=1, max_size=30), st.floats(1e-8, 1e-1))
def test_share_below_grows_and_ends_at_one(durations, threshold):
    seconds = np.array(durations)
    count, time = below(seconds, threshold)
    assert 0 <= time <= count + 1e-9  # short ones weigh less
    assert below(seconds, 1.0) == pytest.approx((1, 1))
    curve = collect(workload(*(kernel("k", 0, s / US) for s in durations))).section("launches")
    shares = curve.figures[0].data[["count_share", "time_share"]].to_numpy()
    assert (np.diff(shares, axis=0) >= 0).all() and shares[-1] == pytest.approx([1, 1])


def test_host_calls_and_host_work_by_operator(small):
    report = collect(small)
    calls = report.table("host_calls")
    assert calls["name"].tolist() == ["cudaLaunchKernel", "aten::x"]  # by time of its own
    assert calls["wall_share"].tolist() == pytest.approx([9 / 36, 1 / 36])
    work = report.table("host_launches").set_index("operator")
    assert work.loc["aten::x", ["launches", "syncs"]].tolist() == [2, 1]
    assert work.loc["aten::x", "host_s"] == pytest.approx(5 * US)
    assert work.loc["aten::x", "presync_s"] == pytest.approx(1 * US)
    assert report.findings[-1] == "Most host time of its own: cudaLaunchKernel."


def test_without_host_the_report_says_so():
    report = collect(workload(kernel("a", 0, 1), host="unknown"))
    lacks = " ".join(report.section("host").lacks)
    assert "no host times" in lacks and "what the host called" in lacks


@pytest.mark.shared
def test_host_of_paddleocr_decode_lies_in_one_operator(shared):
    file = shared / "baselines/h200/kineto/kineto_paddle_decode_b1_c628.json.gz"
    if not file.is_file():
        pytest.skip("the trace is not there")
    w = import_trace(file)
    if w.host is None:
        pytest.skip("the importer reads no host operators")
    calls = collect(w).table("host_calls")
    assert calls["name"][0] == "aten::_cudnn_attention_forward"
    assert calls["wall_share"][0] > 0.5


def test_steps_are_told_apart():
    wall = np.array([5.0, 4.0, 1.0, 1.02, 0.99, 1.01, 1.0, 2.0, 1.0])
    assert step_classes(wall) == ["cold start"] * 2 + ["ordinary"] * 5 + ["long tail", "ordinary"]
    assert not outliers(wall[:4]).any()  # too few to tell
    assert not outliers(np.array([1, 1, 1, 1, 1.04])).any()  # slight
    assert outliers(np.array([1, 1, 1, 1, 1.06])).tolist() == [False] * 4 + [True]


@given(st.lists(st.floats(1e-6, 1), min_size=5, max_size=30))
def test_outliers_do_not_depend_on_the_unit(wall):
    times = np.array(wall)
    assert outliers(times).tolist() == outliers(times * 4.0).tolist()  # times 4 rounds nothing
    assert outliers(times).sum() <= len(times) / 2


def test_steps_and_their_spread():
    w = workload(*(kernel("k", 0, 10 + i, step=i) for i in range(5)),
                 wall=(100 * US, 20 * US, 21 * US, 19 * US, 20 * US))  # fmt: skip
    report = collect(w)
    assert report.table("steps")["note"].tolist() == ["cold start"] + ["ordinary"] * 4
    spread = report.table("step_statistics").set_index("quantity")
    assert spread.loc["wall", "median_s"] == pytest.approx(20 * US)
    assert spread.loc["wall", "p95_s"] == pytest.approx((21 + 0.8 * 79) * US)
    assert spread.loc["device-busy", "max_s"] == pytest.approx(14 * US)
    few = collect(workload(kernel("k", 0, 1)))
    assert "mean little" in " ".join(few.section("steps").lacks)


# ---------------------------------------------------------------- the folder


class Page(HTMLParser):
    """What a page asks for, what it is headed, and whether its tags close."""

    VOID = ("meta", "img", "link", "br")

    def __init__(self, text):
        super().__init__()
        self.asks, self.headings, self.open, self.ids, self.links = [], [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        about = dict(attrs)
        self.asks += [about[k] for k in ("src", "srcset", "data", "action") if k in about]
        self.asks += [about["href"]] if tag == "link" else []
        self.links += [about["href"]] if tag == "a" else []
        self.ids += [about["id"]] if "id" in about else []
        self.headings += [""] if tag == "h2" else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings[-1] += data


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    save_report(ns.load_workload("paddleocr_vl_decode"), folder)
    return folder


def test_page_is_whole_and_asks_no_network(made):
    text = (made / "report.html").read_text()
    page = Page(text)
    assert page.asks and all(ask.startswith("data:image/png;base64,") for ask in page.asks)
    assert "http://" not in text and "https://" not in text and "url(" not in text
    assert "<script" not in text and "default-src 'none'" in text
    assert len(page.headings) == len(SECTIONS)
    assert page.links == [f"#{name}" for name in SECTIONS]
    assert set(SECTIONS) <= set(page.ids) and len(set(page.ids)) == len(page.ids)


def test_page_shows_some_rows_and_tells_of_the_rest(made):
    text = (made / "report.html").read_text()
    table = text[text.index('id="table-kernels"') :]
    shown_rows = table[: table.index("</table>")].count("<tr>") - 1
    rows = len(pd.read_csv(made / "tables/kernels.csv"))
    assert shown_rows == 20 < rows
    assert f"{rows - 20} more rows in tables/kernels.csv" in text


def test_tables_and_figures_are_files_too(made):
    tables = {p.stem: pd.read_csv(p) for p in (made / "tables").iterdir()}
    w = ns.load_workload("paddleocr_vl_decode")
    assert len(tables["launches"]) == len(w)
    assert tables["kernels"]["total_s"].sum() == pytest.approx(w["duration_s"].sum())
    assert all(set(t) <= set(FIELDS) for t in tables.values())
    figures = {p.stem for p in (made / "figures").iterdir()}
    assert figures == {"histograms_shapes", "roofline_physical", "roofline_normalised",
                       "roofline_kernels", "durations", "gaps", "steps"}  # fmt: skip
    assert all(p.read_bytes()[:4] == b"\x89PNG" for p in (made / "figures").iterdir())


def test_json_holds_the_same_in_si(made):
    content = json.loads((made / "report.json").read_text())
    assert list(content["sections"]) == SECTIONS
    kernels = content["sections"]["time"]["tables"]["kernels"]
    assert kernels["units"]["total_s"] == "s" and kernels["rows_in_all"] == len(kernels["rows"])
    assert kernels["rows"][0]["total_s"] == pd.read_csv(made / "tables/kernels.csv")["total_s"][0]
    launches = content["sections"]["longest"]["tables"]["launches"]
    assert launches["rows_in_all"] == 2346 and len(launches["rows"]) == 1000
    bins = content["sections"]["histograms"]["figures"]["histograms_shapes"]["data"]
    assert {h["name"] for h in bins} >= {"duration_s", "byte_rate", "flop_rate", "intensity"}


def test_names_from_a_trace_are_text_and_never_markup(tmp_path):
    evil = '<script>alert(1)</script> & $\\frac{"quoted"}$ 核'
    w = workload(kernel(evil, 0, 1, operator=evil), name=evil, device="NVIDIA H200")
    save_report(w, tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    Page(text)
    assert evil in html.unescape(text)


def test_a_kernel_with_a_name_that_fonts_lack_is_drawn(tmp_path):
    w = workload(kernel("核<$x$>", 0, 1, kind="gemm", flop=1e6, read_weight=1e3),
                 name="核 $x$", device="NVIDIA H200")  # fmt: skip
    save_report(w, tmp_path)  # a missing glyph would warn, and warnings are errors here
    assert (tmp_path / "figures/roofline_kernels.png").is_file()


def test_a_second_report_leaves_nothing_of_the_first(tmp_path):
    save_report(ns.load_workload("paddleocr_vl_decode"), tmp_path)
    (tmp_path / "tables/mine.csv").write_text("kept")
    assert (tmp_path / "tables/gaps.csv").is_file()
    written = save_report(workload(kernel("a", 0, 1), host="unknown"), tmp_path)
    assert not (tmp_path / "tables/gaps.csv").exists()
    assert not (tmp_path / "figures/roofline_physical.png").exists()
    assert (tmp_path / "tables/mine.csv").read_text() == "kept"
    files = {p for p in tmp_path.rglob("*") if p.is_file()} - {tmp_path / "tables/mine.csv"}
    assert files == set(written)


@pytest.mark.parametrize("blocker", ["report.html", "tables/kernels.csv"])
def test_what_is_in_the_way_is_said(tmp_path, blocker):
    (tmp_path / blocker).mkdir(parents=True)
    with pytest.raises(InputError, match="is a folder"):
        save_report(workload(kernel("a", 0, 1)), tmp_path)


def test_a_file_is_no_folder(tmp_path):
    target = tmp_path / "report"
    target.write_text("mine")
    with pytest.raises(InputError, match="cannot be written"):
        save_report(workload(kernel("a", 0, 1)), target)
    assert target.read_text() == "mine"


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("npusim.report.page.save_json", fail)
    with pytest.raises(InputError, match="No space left"):
        save_report(workload(kernel("a", 0, 1)), tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


# ---------------------------------------------------------------- any workload


def test_files_that_a_report_may_have_are_the_same_for_all(small):
    names = {tuple(outputs(collect(w))) for w in (
        small, workload(kernel("a", 0, 1), host="unknown"), ns.load_workload("paddleocr_vl_decode"),
    )}  # fmt: skip
    assert len(names) == 1


def every(name):
    """Return a workload that has a counter of every kind, all undefined or all zero."""
    w = workload(kernel("a", 0, 0), kernel("b", 0, 0))
    return counted(w, **dict.fromkeys(COUNTERS, [name] * 2))


@pytest.mark.parametrize("w", [
    every(np.nan), every(0.0), every(1.0), workload(kernel("a", 0, 0), wall=(0.0,)),
    workload(kernel("a", 0, 1, host_s=1 * US), wall=(0.0,)),
    workload(kernel("a", 0, 1), wall=(1.0,) * 7),
    workload(*(kernel("a", 0, 1, step=i) for i in range(7)), wall=(1 * US,) * 7, host="unknown"),
    workload(kernel("", 0, 1, kind="gemm", flop=1e30, read_weight=1e30), device="NVIDIA H200"),
    with_more(workload(kernel("a", 0, 1)), host=HostCosts((), (), *np.zeros((3, 0)))),
], ids=["undefined", "zero", "one", "no time", "no wall", "empty steps", "laid out", "huge",
        "no calls"])  # fmt: skip
def test_odd_workloads_have_a_report(w, tmp_path):
    save_report(w, tmp_path, ns.load_arch("h200"))
    text = (tmp_path / "report.html").read_text()
    assert len(Page(text).headings) == len(SECTIONS)
    assert not re.search(r">(nan|inf|-?inf|None)<", text)


rows = st.lists(st.builds(
    kernel, st.sampled_from(["a", "b<1>", "b<2>", "gemv"]), st.integers(0, 99), st.integers(0, 9),
    kind=st.sampled_from(["gemm", "copy", "unknown"]), basis=st.sampled_from(["shape", "none"]),
    dtype=st.sampled_from(["bf16", "fp32"]), flop=st.sampled_from([0, 1e9]),
    read_weight=st.sampled_from([0, 1e6]), blocks=st.integers(0, 9), layer=st.integers(-1, 2),
), min_size=1, max_size=12)  # fmt: skip


@settings(max_examples=40)
@given(rows, st.sampled_from(["", "NVIDIA H200"]), st.sampled_from(["measured", "unknown"]))
def test_any_workload_has_every_section(made_rows, device, host):
    w = workload(*made_rows, device=device, host=host)
    report = collect(w)
    assert [s.name for s in report.sections] == SECTIONS
    assert report.table("kernels")["launches"].sum() == len(w)
    for section in report.sections:
        for table in section.tables:
            assert set(table.frame.columns) <= set(FIELDS)


@pytest.mark.shared
@pytest.mark.parametrize("name", [
    "traces/tracelens/h100_gaunernst_bert-small-uncased__1016001.json.gz",
    "traces/tracelens/mi300x_sglang_qwen3-8b_decode_graph.json.gz",
    "traces/tracelens/mi210_gpu_only.json.gz", "traces/tracelens/torch_compile_triton.json.gz",
    "seed_dsocr_rtx5090/nsys/decode_cuda_gpu_kern_sum.csv",
    "traces/nsys_sqlite/mfu_2gpu_before.sqlite",
])  # fmt: skip
def test_real_traces_have_a_report(shared, name, tmp_path):
    file = shared / "external" / name
    if not file.is_file():
        pytest.skip("the trace is not there")
    w = import_trace(file)
    save_report(w, tmp_path)
    assert len(Page((tmp_path / "report.html").read_text()).headings) == len(SECTIONS)
    assert pd.read_csv(tmp_path / "tables/kernels.csv")["launches"].sum() == len(w)


@pytest.mark.parametrize("name", catalog.names("workloads"))
def test_shipped_workloads_are_collected(name):
    w = ns.load_workload(name)
    assert collect(w).totals["kernels"] == len(w)


def test_columns_read_in_one_unit():
    head, texts = shown("total_s", pd.Series([12e-6, 3.4e-6, 1200e-6, np.nan]))
    assert (head.unit, texts) == ("µs", ["12", "3.400", "1,200", "–"])
    assert shown("byte_rate", pd.Series([4.8e12]))[0].unit == "TB/s"
    assert shown("launches", pd.Series([12345]))[1] == ["12,345"]
    assert number(0.000012) == "0.000012"


# ---------------------------------------------------------------- in a browser


@pytest.mark.parametrize("source", ["decode", "names"])
def test_page_fits_a_window_in_a_real_browser(source, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium to open the page in")
    long = "void " + "a_very_long_name_" * 20 + "<float>()"
    w = ns.load_workload("paddleocr_vl_decode") if source == "decode" else workload(
        kernel(long, 0, 1, operator="o" * 300), name="n" * 200, device="d" * 200
    )  # fmt: skip
    save_report(w, tmp_path)
    # the page forbids scripts: a copy without that rule measures itself and lists what it loads
    text = re.sub(r"<meta http-equiv=[^>]*>", "", (tmp_path / "report.html").read_text())
    script = (
        "<script>addEventListener('load', () => { document.title = JSON.stringify({"
        "width: document.documentElement.scrollWidth, window: innerWidth, loads: performance"
        ".getEntriesByType('resource').map(r => r.name).filter(n => !n.startsWith('data:')),"
        "blank: [...document.images].filter(i => !i.naturalWidth).length }); });</script></body>"
    )
    (tmp_path / "measured.html").write_text(text.replace("</body>", script))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,4000",
             "--virtual-time-budget=4000", "--dump-dom"]  # fmt: skip
    done = subprocess.run(
        [browser, *flags, (tmp_path / "measured.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    found = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    if found is None:
        pytest.skip("chromium does not run here")
    measured = json.loads(html.unescape(found[1]))
    assert measured["width"] <= measured["window"]
    assert measured["loads"] == [] and measured["blank"] == 0
