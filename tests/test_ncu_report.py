import gzip
import importlib.util
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npusim.counters import COUNTERS
from npusim.errors import InputError
from npusim.importers import import_trace, ncu, ncu_report_file
from npusim.importers.ncu_metrics import ELAPSED
from tests.ncu_builder import block, report

DURATION = "gpu__time_duration.sum"


class Metric:
    def __init__(self, name, value, unit):
        self._all = name, value, unit

    def name(self):
        return self._all[0]

    def value(self):
        return self._all[1]

    def unit(self):
        return self._all[2]


class Action:
    """A result as NVIDIA's package gives it: metrics in base units."""

    NameBase_FUNCTION, NameBase_DEMANGLED = 0, 1

    def __init__(self, metrics, name="void gemv<float, (int)4>(T1, T2)", function="gemv"):
        launched = {"device_id": 0, "context_id": 1, "stream_id": 7, "grid_dim_x": 10,
                    "grid_dim_y": 3, "grid_dim_z": 1, "block_size": 256}  # fmt: skip
        named = {f"launch__{what}": (value, "") for what, value in launched.items()}
        self._metrics = {n: Metric(n, *m) for n, m in (named | metrics).items()}
        self._names = function, name

    def name(self, base=0):
        return self._names[base]

    def metric_names(self):
        return tuple(self._metrics)

    def metric_by_name(self, name):
        return self._metrics.get(name)


class Package:
    """NVIDIA's package, with the results that a test gives it."""

    def __init__(self, *ranges):
        self._ranges = ranges

    def load_report(self, file_name):
        assert file_name.endswith(".ncu-rep")
        return self

    def num_ranges(self):
        return len(self._ranges)

    def range_by_idx(self, i):
        actions = self._ranges[i]

        class Range:
            def num_actions(self):
                return len(actions)

            def action_by_idx(self, j):
                return actions[j]

        return Range()


@pytest.fixture
def packaged(monkeypatch, tmp_path):
    """Import a report of some blocks of which NVIDIA's package says something."""

    def run(package, content):
        monkeypatch.setitem(sys.modules, "ncu_report", package)
        file = tmp_path / "kernels.ncu-rep"
        file.write_bytes(content)
        return import_trace(file)

    return run


RESULT = {
    DURATION: (2400.0, "ns"), f"sm__throughput{ELAPSED}": (12.5, "%"),
    "dram__bytes_read.sum": (1_980_500, "byte"), "lts__t_sector_hit_rate.pct": (math.nan, "%"),
    "launch__registers_per_thread": (168, "register/thread"),
    "launch__shared_mem_per_block_dynamic": (164_308, "byte/block"),
    "smsp__cycles_elapsed.avg.per_second": (1.25e9, "hz"),
    "device__attribute_display_name": ("NVIDIA H200", ""),
    "device__attribute_compute_capability_major": (9, ""),
    "device__attribute_compute_capability_minor": (0, ""),
    "breakdown:sm__throughput": (1, ""), "sm__pipe_alu.sum": (3.0, "inst"),
    **{f"smsp__sass_thread_inst_executed_op_{what}_pred_on.sum.per_cycle_elapsed":
       (count / 3000, "inst/cycle") for what, count in (("fadd", 1), ("fmul", 0), ("ffma", 7))},
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
def test_a_report_by_hand(packaged, packed):
    """2,400 ns at 1.25 GHz are 3,000 cycles."""
    content = report(block(0, b"session"), block(1, b"result"), block(1, b"another"))
    package = Package([Action(RESULT), Action(RESULT | {DURATION: (600, "ns")}, "", "reduce")])
    w = packaged(package, gzip.compress(content) if packed else content)
    assert w.text("kernel").tolist() == ["void gemv<float, (int)4>(T1, T2)", "reduce"]
    assert w["duration_s"].tolist() == [2.4e-6, 0.6e-6]
    assert (w["blocks"][0], w["threads"][0], w["registers"][0], w["stream"][0]) == (30, 256, 168, 7)
    assert w["shared_memory"][0] == 164_308
    assert w.counters["sm_throughput"].tolist() == [0.125, 0.125]
    assert w.counters["dram_read"].tolist() == [1_980_500, 1_980_500]
    assert "l2_hit_rate" not in w.counters
    assert w.counters["fp32_flop"][0] == 1 + 2 * 7
    assert np.isnan(w.counters["fp32_flop"][1])  # a quarter of the cycles: no whole number
    assert (w.meta["format"], w.meta["device"], w.meta["cc"]) == (
        "ncu report", "NVIDIA H200", "9.0")  # fmt: skip
    assert (w.meta["processes"], w.meta["duration_basis"]) == (1, "profiler replay")
    assert w.meta["metrics_unknown"]["first"] == [
        "launch__context_id", "launch__device_id", "launch__grid_dim_x",
        "launch__grid_dim_y", "launch__grid_dim_z", "launch__stream_id", "sm__pipe_alu.sum",
    ]  # fmt: skip


def test_processes_of_a_report_come_from_its_blocks(packaged):
    content = report(block(2, b"xx"), block(1, b"x", process=300))
    w = packaged(Package([Action(RESULT)] * 3), content)
    assert w["stream"].tolist() == [0, 0, 1]
    assert w.meta["processes"] == 2


WHOLE = report(block(0, b"session"), block(1, b"result"))


@pytest.mark.parametrize(
    ("metrics", "content", "says"),
    [
        (RESULT, WHOLE[:-1], "report is damaged or cut short"),
        (RESULT, WHOLE[:20], "report is damaged or cut short"),
        (RESULT, WHOLE[:4], "report is damaged or cut short"),
        (RESULT, WHOLE + b"\0", "after 1 results: report is damaged or cut short"),
        (RESULT, report(block(0)), "results cannot be read: 1 (allowed: 0)"),
        (RESULT, report(block(5, b"12345")), "results cannot be read: 1 (allowed: 5)"),
        (RESULT, report(block(10**9, b"1")), "report is damaged or cut short"),
        (RESULT | {DURATION: (-1.0, "ns")}, WHOLE, f"result 0: not a value of {DURATION}: -1.0"),
        (RESULT | {DURATION: (math.inf, "ns")}, WHOLE, f"not a value of {DURATION}: inf"),
        (RESULT | {DURATION: ("soon", "ns")}, WHOLE, f"not a value of {DURATION}: 'soon'"),
        (RESULT | {DURATION: (1, "sols")}, WHOLE, f"result 0: unknown unit of {DURATION}: 'sols'"),
        (RESULT | {DURATION: (None, "ns")}, WHOLE, "no kernel has a duration"),
        (RESULT | {"launch__stream_id": (0.5, "")}, WHOLE, "not a value of launch__stream_id: 0.5"),
    ],
)  # fmt: skip
def test_damaged_reports_are_refused(packaged, metrics, content, says):
    with pytest.raises(InputError) as refused:
        packaged(Package([Action(metrics)]), content)
    assert "kernels.ncu-rep" in str(refused.value)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_the_package_cannot_read_is_refused(packaged):
    class Broken(Package):
        def range_by_idx(self, i):
            raise TypeError("in method 'x', argument 2\nof type 'char const *'")

    with pytest.raises(InputError, match="result 0: report is damaged: \"in method 'x'"):
        packaged(Broken([Action(RESULT)]), WHOLE)


def test_without_the_package_it_says_what_to_do(packaged):
    with pytest.raises(InputError) as refused:
        packaged(None, WHOLE)
    assert "pip install 'npusim[ncu]'" in str(refused.value)
    assert "ncu --import FILE --csv --page raw" in str(refused.value)


@given(st.binary(max_size=200), st.integers(0, len(WHOLE)))
def test_any_bytes_are_no_blocks_or_some(tmp_path, raw_bytes, keep):
    file = tmp_path / "x.ncu-rep"
    file.write_bytes(WHOLE[:keep] + raw_bytes)
    ncu.sniff(file)
    try:
        found = ncu_report_file._processes(file, file)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert len(found) <= len(raw_bytes) + len(WHOLE)


# ---------------------------------------------------------------- a measured report

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("ncu_report") is None,
    reason="NVIDIA's package ncu-report is not installed",
)


@pytest.mark.shared
@needs_package
def test_a_report_agrees_with_its_raw_page(shared):
    folder = shared / "baselines" / "h200" / "ncu"
    report_file = import_trace(folder / "paddle_decode_b1_c628.ncu-rep.gz")
    page = import_trace(folder / "ncu_paddle_decode_b1_c628.csv.gz")
    for column in ("blocks", "threads", "registers", "shared_memory", "stream"):
        assert report_file[column].tolist() == page[column].tolist()
    assert report_file["duration_s"] == pytest.approx(page["duration_s"], rel=1e-9)
    assert report_file.counters.keys() == page.counters.keys()
    half = {"1": 0.51e-8, "B": 0.51e-3, "B/s": 510, "Hz": 510}  # of the last digit of the page
    for name, values in page.counters.items():
        off = 0.51e-2 if name == "waves" else half.get(COUNTERS[name].unit, 0)
        assert report_file.counters[name] == pytest.approx(values, rel=1e-12, abs=off), name
    assert report_file.counters["fp32_flop"].tolist() == page.counters["fp32_flop"].tolist()
    for key in ("device", "cc", "kernels", "processes", "most_passes", "metrics_unknown",
                "shares_above_one", "counter_sources"):  # fmt: skip
        assert report_file.meta[key] == page.meta[key], key


@pytest.mark.shared
@needs_package
def test_a_report_that_is_cut_short_is_refused(shared, tmp_path):
    """Of this one NVIDIA's package gives 158 of 282 results, the last of them cut, and no error."""
    path = shared / "baselines" / "h200" / "ncu" / "paddle_decode_b1_c628.ncu-rep.gz"
    cut = tmp_path / "cut.ncu-rep"
    with gzip.open(path) as whole:
        cut.write_bytes(whole.read(100_000_000))
    with pytest.raises(InputError, match="after 157 results: report is damaged or cut short"):
        import_trace(cut)
