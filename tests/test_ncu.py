import csv
import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.counters import COUNTERS
from npusim.errors import InputError, NpusimError
from npusim.importers import files, import_trace, importers, ncu, ncu_metrics
from npusim.inspection import inspection
from tests.ncu_builder import IDENTITY, MESSAGES, NEW, OLD, details, raw

ELAPSED, ACTIVE = ncu_metrics.ELAPSED, ncu_metrics.ACTIVE
DURATION = "gpu__time_duration.sum"


@pytest.fixture
def imported(tmp_path):
    """Import a page or a report."""

    def run(content, name="kernels.csv"):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return import_trace(file)

    return run


def counter(w, name):
    return w.counters[name].tolist()


# ---------------------------------------------------------------- the raw page


def test_a_raw_page_by_hand(imported):
    metrics = {
        "device__attribute_display_name": "", "dram__bytes_read.sum": "Kbyte",
        "dram__bytes_write.sum": "Mbyte", DURATION: "us", f"sm__throughput{ELAPSED}": "%",
        "launch__registers_per_thread": "register/thread",
        "launch__shared_mem_per_block_static": "byte/block",
        "launch__shared_mem_per_block_dynamic": "Kbyte/block",
        "launch__shared_mem_per_block": "Kbyte/block", "profiler__replayer_passes": "pass",
        "gpc__cycles_elapsed.avg.per_second": "Ghz", "dram__bytes.sum.per_second": "Gbyte/s",
        "lts__t_sector_hit_rate.pct": "%",
    }  # fmt: skip
    first = dict(zip(metrics, ["NVIDIA H200", "1,980.5", "0.25", "1,234.5", "12.5", "168", "16",
                               "164.308", "165.348", "12", "1.980", "3,100.2", "no data"],
                     strict=True))  # fmt: skip
    second = first | {DURATION: "2", "Stream": "13", "Kernel Name": "at::native::reduce_kernel",
                      "Block Size": "(64, 1, 1)", "lts__t_sector_hit_rate.pct": "40.5"}  # fmt: skip
    w = imported(raw(metrics, first, second))
    assert w.text("kernel").tolist() == [IDENTITY["Kernel Name"], "at::native::reduce_kernel"]
    assert w.text("kind").tolist() == ["gemv", "reduction"]
    assert w["duration_s"].tolist() == [1.2345e-3, 2e-6]
    assert w["start_s"].tolist() == pytest.approx([0, 1.2345e-3], rel=1e-15)
    assert w.steps.wall_s.tolist() == pytest.approx([1.2365e-3])
    assert w["blocks"].tolist() == [30, 30]
    assert w["threads"].tolist() == [256, 64]
    assert w["registers"].tolist() == [168, 168]
    assert w["shared_memory"].tolist() == [164_324, 164_324]  # without the driver's 1,024
    assert w["stream"].tolist() == [7, 13]
    assert counter(w, "profiled_s") == w["duration_s"].tolist()
    assert counter(w, "dram_read") == [1_980_500, 1_980_500]
    assert counter(w, "dram_write") == [250_000, 250_000]
    assert counter(w, "sm_throughput") == [0.125, 0.125]
    assert counter(w, "sm_clock") == [1.98e9, 1.98e9]
    assert counter(w, "dram_bandwidth") == [3100.2e9, 3100.2e9]
    assert np.isnan(w.counters["l2_hit_rate"][0])
    assert w.counters["l2_hit_rate"][1] == pytest.approx(0.405)
    assert (w.meta["format"], w.meta["device"], w.meta["cc"]) == (
        "ncu raw csv", "NVIDIA H200", "9.0")  # fmt: skip
    assert (w.meta["kernels"], w.meta["processes"], w.meta["devices"]) == (2, 1, 1)
    assert (w.meta["duration_basis"], w.meta["duration_from"]) == ("profiler replay", DURATION)
    assert (w.meta["host"], w.meta["launch"], w.meta["most_passes"]) == ("unknown", "eager", 12)
    assert w.meta["metrics_unknown"] == {"count": 1, "first": ["launch__shared_mem_per_block"]}
    json.dumps(dict(w.meta), allow_nan=False)
    json.dumps(inspection(w), allow_nan=False)


@pytest.mark.parametrize(
    ("metric", "unit", "text", "counter_name", "value"),
    [
        (DURATION, "ns", "1,500", "profiled_s", 1.5e-6),
        (DURATION, "nsecond", "1500", "profiled_s", 1.5e-6),
        (DURATION, "usecond", "1.5", "profiled_s", 1.5e-6),
        (DURATION, "ms", "1.5", "profiled_s", 1.5e-3),
        (DURATION, "msecond", "1.5", "profiled_s", 1.5e-3),
        (DURATION, "second", "1.5", "profiled_s", 1.5),
        (DURATION, "s", ".5", "profiled_s", 0.5),
        ("dram__bytes_read.sum", "byte", "1,234,567", "dram_read", 1_234_567),
        ("dram__bytes_read.sum", "Gbyte", "4.021091", "dram_read", 4_021_091_000),
        ("dram__sectors_read.sum", "sector", "10", "dram_read", 320),
        ("lts__t_sectors.sum", "sector", "3", "l2_bytes", 96),
        ("l1tex__t_bytes.sum", "Kbyte", "0.512", "l1_bytes", 512),
        ("dram__bytes.sum.per_second", "byte/second", "7", "dram_bandwidth", 7),
        ("dram__bytes.sum.per_second", "Tbyte/s", "4.2", "dram_bandwidth", 4.2e12),
        ("dram__bytes.sum.per_second", "Mbyte/second", "83.34", "dram_bandwidth", 83_340_000),
        ("sm__cycles_elapsed.avg.per_second", "hz", "1,958,181,818.18", "sm_clock", 1958181818.18),
        ("sm__cycles_elapsed.avg.per_second", "cycle/second", "5", "sm_clock", 5),
        ("smsp__cycles_elapsed.avg.per_second", "cycle/nsecond", "1.25", "sm_clock", 1.25e9),
        ("dram__cycles_elapsed.avg.per_second", "cycle/usecond", "852.51", "dram_clock", 852.51e6),
        ("dram__cycles_elapsed.avg.per_second", "Mhz", "852.51", "dram_clock", 852.51e6),
        (f"sm__warps_active{ACTIVE}", "%", "1e1", "occupancy", 0.1),
        (f"l1tex__throughput{ACTIVE}", "%", "314.285714", "l1_throughput", 3.14285714),
        ("sm__maximum_warps_per_active_cycle_pct", "%", "75", "occupancy_limit", 0.75),
        ("launch__waves_per_multiprocessor", "", "0.47", "waves", 0.47),
        ("smsp__inst_executed.sum", "inst", "1,067,768.000000", "instructions", 1_067_768),
    ],
)  # fmt: skip
def test_every_unit_becomes_si(imported, metric, unit, text, counter_name, value):
    w = imported(raw({"gpu__time_duration.avg": "us", metric: unit},
                     {"gpu__time_duration.avg": "3", metric: text}))  # fmt: skip
    assert counter(w, counter_name) == [pytest.approx(value, rel=1e-12)]


@pytest.mark.parametrize("blank", ["", "no data", "n/a", "(!) n/a", "nan", "-"])
def test_blanks_are_not_zeros(imported, blank):
    metrics = {DURATION: "us", f"sm__throughput{ELAPSED}": "%", f"dram__throughput{ELAPSED}": "%"}
    given_values = {DURATION: "1", f"sm__throughput{ELAPSED}": blank}
    w = imported(raw(metrics, given_values, {DURATION: "1", f"sm__throughput{ELAPSED}": "0"}))
    assert np.isnan(w.counters["sm_throughput"][0])
    assert w.counters["sm_throughput"][1] == 0
    assert "dram_throughput" not in w.counters  # no kernel has it


def test_kernels_without_a_duration_are_counted(imported):
    w = imported(raw({DURATION: "us"}, {DURATION: "no data"}, {DURATION: "4"}))
    assert w["duration_s"].tolist() == [4e-6]
    assert (w.meta["kernels"], w.meta["untimed"]) == (2, 1)


def test_one_metric_gives_a_counter_of_all_kernels(imported):
    """Which is of active cycles, and which of all, must not change from kernel to kernel."""
    elapsed, active = f"l1tex__throughput{ELAPSED}", f"l1tex__throughput{ACTIVE}"
    w = imported(raw({DURATION: "us", elapsed: "%", active: "%"}, {DURATION: "1", elapsed: "10"},
                     {DURATION: "1", elapsed: "20", active: "80"}))  # fmt: skip
    assert w.counters["l1_throughput"][1] == pytest.approx(0.8)
    assert np.isnan(w.counters["l1_throughput"][0])
    assert w.meta["counter_sources"] == {"l1_throughput": active}


def test_shares_above_one_are_kept_and_counted(imported):
    metric = f"l1tex__throughput{ACTIVE}"
    w = imported(raw({DURATION: "us", metric: "%", "launch__waves_per_multiprocessor": ""},
                     *({DURATION: "1", metric: m, "launch__waves_per_multiprocessor": "9"}
                       for m in ("100", "101", "316.4"))))  # fmt: skip
    assert w.meta["shares_above_one"] == {"l1_throughput": 2}


# ---------------------------------------------------------------- arithmetic


def flop_metrics(letter="f", suffix=""):
    return [f"smsp__sass_thread_inst_executed_op_{letter}{o}_pred_on.sum{suffix}"
            for o in ("add", "mul", "fma")]  # fmt: skip


@pytest.mark.parametrize(("letter", "name"), [("h", "fp16"), ("f", "fp32"), ("d", "fp64")])
def test_a_fused_pair_is_two_flop(imported, letter, name):
    names = flop_metrics(letter)
    values = dict(zip(names, ["5", "70", "1,100"], strict=True))
    metrics = {DURATION: "us", **dict.fromkeys(names, "inst")}
    w = imported(raw(metrics, values | {DURATION: "1"}, values | {DURATION: "1", names[1]: ""}))
    assert w.counters[f"{name}_flop"][0] == 5 + 70 + 2 * 1100
    assert np.isnan(w.counters[f"{name}_flop"][1])
    del metrics[names[2]]
    assert f"{name}_flop" not in imported(raw(metrics, values | {DURATION: "1"})).counters


def test_counts_a_cycle_become_counts_where_that_is_exact(imported):
    """2.304 us at 1.942274 GHz are 4475.0 cycles; 1024 / 4475 = 0.228827 to six digits."""
    add, mul, fma = names = flop_metrics(suffix=".per_cycle_elapsed")
    rate = "smsp__cycles_elapsed.avg.per_second"
    metrics = {DURATION: "us", rate: "Ghz", **dict.fromkeys(names, "inst/cycle")}
    exact = {DURATION: "2.304000", rate: "1.942274", add: "0", mul: "0.228827", fma: "0.000000"}
    of_another_pass = exact | {mul: "0.228927"}  # 1024.45
    too_long = exact | {DURATION: "9000.000000"}  # 0.0000005 a cycle is 9 instructions
    w = imported(raw(metrics, exact, exact | {fma: "0.114413"}, of_another_pass, too_long))
    assert counter(w, "fp32_flop")[:2] == [1024, 1024 + 2 * 512]
    assert np.isnan(counter(w, "fp32_flop")[2:]).all()
    del metrics[rate]
    assert "fp32_flop" not in imported(raw(metrics, exact)).counters


# ---------------------------------------------------------------- the details page

SPEED = "GPU Speed Of Light Throughput"
MODERN = [
    (SPEED, "DRAM Frequency", "Ghz", "1.21"),
    (SPEED, "SM Frequency", "Mhz", "1,410.25"),
    (SPEED, "Elapsed Cycles", "cycle", "13,485"),
    (SPEED, "Memory Throughput", "%", "85.34"),
    (SPEED, "DRAM Throughput", "%", "84.5"),
    (SPEED, "Duration", "us", "358.08"),
    (SPEED, "L1/TEX Cache Throughput", "%", "16.39"),
    (SPEED, "L2 Cache Throughput", "%", "31.08"),
    (SPEED, "Compute (SM) Throughput", "%", "12.71"),
    ("Memory Workload Analysis", "Memory Throughput", "Gbyte/s", "1,554.92"),
    ("Memory Workload Analysis", "Mem Busy", "%", "31.08"),
    ("Memory Workload Analysis", "Max Bandwidth", "%", "85.41"),
    ("Memory Workload Analysis", "L1/TEX Hit Rate", "%", "40.73"),
    ("Memory Workload Analysis", "L2 Hit Rate", "%", "27.66"),
    ("Scheduler Statistics", "One or More Eligible", "%", "12.06"),
    ("Launch Statistics", "Registers Per Thread", "register/thread", "47"),
    ("Launch Statistics", "Static Shared Memory Per Block", "byte/block", "16"),
    ("Launch Statistics", "Dynamic Shared Memory Per Block", "Kbyte/block", "2.048"),
    ("Launch Statistics", "Waves Per SM", "", "0.47"),
    ("Launch Statistics", "Grid Size", "", "30"),
    ("Launch Statistics", "Block Size", "", "256"),
    ("Occupancy", "Theoretical Occupancy", "%", "62.50"),
    ("Occupancy", "Achieved Occupancy", "%", "26.22"),
    ("Instruction Statistics", "Executed Instructions", "inst", "26,000"),
]
OLD_NAMES = {  # of 2020 and 2021, and of 2019
    "Compute (SM) Throughput": ["SM [%]", "SOL SM"],
    "DRAM Throughput": ["SOL DRAM", "SOL FB"],
    "L1/TEX Cache Throughput": ["SOL L1/TEX Cache", "SOL TEX"],
    "L2 Cache Throughput": ["SOL L2 Cache", "SOL L2"],
    "DRAM Frequency": ["DRAM Frequency", "Memory Frequency"],
}
OLD_UNITS = {"Ghz": "cycle/nsecond", "Mhz": "cycle/usecond", "us": "usecond",
             "Gbyte/s": "Gbyte/second"}  # fmt: skip


def aged(metrics, age):
    """Return metrics as an old version printed them."""
    renamed = []
    for section, name, unit, value in metrics:
        old = "Memory [%]" if (name, unit) == ("Memory Throughput", "%") else name
        old = OLD_NAMES.get(name, [old, old])[age]
        renamed.append((section, old, OLD_UNITS.get(unit, unit), value))
    return renamed


def test_a_details_page_by_hand(imported):
    w = imported(
        details(({}, MODERN), ({"Kernel Name": "k,\n2"}, [(SPEED, "Duration", "ms", "2")]))
    )
    assert w["duration_s"].tolist() == [358.08e-6, 2e-3]
    assert w.text("kernel").tolist()[1] == "k,\n2"
    first = {name: values[0] for name, values in w.counters.items()}
    assert first == pytest.approx({
        "profiled_s": 358.08e-6, "sm_throughput": 0.1271, "memory_throughput": 0.8534,
        "dram_throughput": 0.845, "l1_throughput": 0.1639, "l2_throughput": 0.3108,
        "memory_busy": 0.3108, "max_bandwidth": 0.8541, "dram_bandwidth": 1554.92e9,
        "l1_hit_rate": 0.4073, "l2_hit_rate": 0.2766, "occupancy": 0.2622,
        "occupancy_limit": 0.625, "waves": 0.47, "issue_active": 0.1206, "instructions": 26_000,
        "sm_clock": 1410.25e6, "dram_clock": 1.21e9,
    })  # fmt: skip
    assert np.isnan(w.counters["occupancy"][1])
    assert (w["registers"][0], w["shared_memory"][0], w["blocks"][0], w["threads"][0]) == (
        47, 2064, 30, 256)  # fmt: skip
    assert (w.meta["format"], w.meta["rules"], w.meta["cc"]) == ("ncu details csv", 2, "9.0")
    assert w.meta["metrics_unknown"] == {"count": 1, "first": ["Elapsed Cycles"]}
    assert w.meta["duration_from"] == "Duration"


@pytest.mark.parametrize("age", [0, 1])
@pytest.mark.parametrize("columns", [OLD, OLD[:-3]])
def test_old_versions_agree_with_new_ones(imported, age, columns):
    new = imported(details(({}, MODERN)))
    text = details(({}, aged(MODERN, age)), columns=columns)
    if "Rule Name" not in columns:  # nothing comes after the value
        text = text.replace(',""\n', "\n")
    old = imported(text)
    assert {n: v.tolist() for n, v in old.counters.items()} == {
        n: v.tolist() for n, v in new.counters.items()
    }
    for column in ("duration_s", "blocks", "threads", "registers", "shared_memory", "stream"):
        assert old[column].tolist() == new[column].tolist()
    assert "cc" not in old.meta  # nor has it the sizes of a launch but as metrics


def test_raw_names_may_stand_in_a_details_page(imported):
    section = "Command line profiler metrics"
    w = imported(details(({}, [(section, "dram__bytes_read.sum", "Mbyte", "2.33"),
                               (section, DURATION, "us", "6.75"),
                               (section, "flop_count_hp.sum", "", "n/a"),
                               (SPEED, "Duration", "us", "6.75")])))  # fmt: skip
    assert counter(w, "dram_read") == [2_330_000]
    assert w.meta["duration_from"] == DURATION
    assert w.meta["metrics_unknown"]["first"] == ["flop_count_hp.sum"]


def test_without_a_duration_cycles_give_it(imported):
    section = "Command line profiler metrics"
    w = imported(details(({}, [(section, "sm__cycles_elapsed.avg", "cycle", "12,096.93"),
                               (section, "sm__cycles_elapsed.avg.per_second", "cycle/second",
                                "1,024,468,659.04")])))  # fmt: skip
    assert w["duration_s"].tolist() == pytest.approx([11.808e-6], rel=1e-6)
    assert w.meta["duration_from"] == "sm__cycles_elapsed.avg / sm__cycles_elapsed.avg.per_second"


def test_a_chart_repeats_metrics_and_does_not_count(imported):
    at = NEW.index("Metric Name")
    metrics = [
        ("Roofline Chart", "Achieved Value", "SM Frequency", "Ghz", "2.15"),
        (SPEED, "", "SM Frequency", "Ghz", "1.99"),
        (SPEED, "", "Duration", "us", "6.75"),
    ]
    w = imported(details(({}, metrics), columns=[*NEW[:at], "Body Item Label", *NEW[at:]]))
    assert counter(w, "sm_clock") == [1.99e9]
    assert (w.meta["chart_items"], w.meta["rules"]) == (1, 1)


def test_a_metric_that_comes_again_is_counted(imported):
    again = [(SPEED, "Duration", "us", "1"), ("Other", "Duration", "us", "2"),
             ("Other", "Duration", "ns", "1,000")]  # fmt: skip
    w = imported(details(({}, again)))
    assert w["duration_s"].tolist() == [1e-6]
    assert w.meta["metrics_repeated"] == 1


def test_messages_between_the_rows_are_counted(imported):
    text = details(({}, MODERN))
    lines = text.splitlines(keepends=True)
    w = imported("".join([*lines[:8], '==WARNING== Found "x", again\n', *lines[8:]]))
    assert w.meta["tool_messages"] == 1
    assert len(w) == 1


# ---------------------------------------------------------------- which kernel is which


def test_kernels_come_in_the_order_of_their_numbers(imported):
    kernels = [{"ID": i, DURATION: i + "0"} for i in ("2", "10", "1")]
    w = imported(raw({DURATION: "ns"}, *kernels))
    assert w["duration_s"].tolist() == [10e-9, 20e-9, 100e-9]


def test_processes_and_devices_are_told_apart(imported):
    """One number in two processes is two kernels, and stream 7 of each is another stream."""
    kernels = [{"ID": "0"}, {"ID": "0", "Process ID": "78"}, {"ID": "1", "Device": "1"},
               {"ID": "2", "Context": "5"}, {"ID": "3"}]  # fmt: skip
    w = imported(raw({DURATION: "us"}, *(k | {DURATION: "1"} for k in kernels)))
    assert w["stream"].tolist() == [0, 1, 2, 3, 0]
    assert (w.meta["processes"], w.meta["devices"], w.meta["kernels"]) == (2, 2, 5)
    assert w.meta["streams"] == 4
    mixed = [({"ID": "4", "Process ID": p, "Kernel Name": p}, [(SPEED, "Duration", "us", p)])
             for p in ("7", "8")]  # fmt: skip
    w = imported(details(*mixed))
    assert w["duration_s"].tolist() == [7e-6, 8e-6]


@pytest.mark.parametrize("packed", [False, True])
def test_long_names_and_wide_tables_are_read(imported, packed):
    """A header of all metrics has more than 65,536 characters; a name may have 10,000."""
    name = "void k<" + "a::b<c, (int)4>, " * 600 + ">()"
    others = {f"unit{i}__something_{'x' * 40}.avg.pct_of_peak": "%" for i in range(1500)}
    text = raw({**others, DURATION: "us"}, {"Kernel Name": name, DURATION: "1"})
    assert len(text.splitlines()[2]) > 1 << 16
    w = imported(gzip.compress(text.encode()) if packed else "\ufeff" + text)
    assert w.text("kernel")[0] == name
    assert w.meta["metrics_unknown"]["count"] == 1500
    assert len(w.meta["metrics_unknown"]["first"]) == 20


# ---------------------------------------------------------------- what it claims and refuses


@pytest.mark.parametrize(
    "content",
    ["", "{}", "\0", "a,b\n1,2\n", "\x1f\x8bx", '"ID","Name"\n', "kernel,calls,total_us\na,1,2\n",
     '{"traceEvents": [{"name": "dram__bytes.sum, sm__x.avg, a__b.max"}]}'],
)  # fmt: skip
def test_other_files_are_not_claimed(tmp_path, content):
    file = tmp_path / "kernels.csv"
    file.write_text(content, encoding="latin-1")
    assert not ncu.sniff(file)
    assert not ncu.sniff(tmp_path)
    assert not ncu.sniff(tmp_path / "absent")


def test_no_other_importer_claims_a_page(tmp_path):
    for content in (raw({DURATION: "us"}, {DURATION: "1"}), details(({}, MODERN))):
        file = tmp_path / "x"
        file.write_text(content)
        assert [i.FORMAT for i in importers() if i.sniff(file)] == [ncu.FORMAT]


PAGE = raw({DURATION: "us", f"sm__throughput{ELAPSED}": "%"},
           {DURATION: "1,250.5", f"sm__throughput{ELAPSED}": "55.5"},
           {DURATION: "2", f"sm__throughput{ELAPSED}": "7"}, before="")  # fmt: skip
DETAILS = details(({}, MODERN), before="")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (PAGE[:-6], "line 4: not CSV"),
        (PAGE[: PAGE.rindex(',"7"')], "line 4: row is cut short or damaged: '12 cells'"),
        (PAGE + '"3"\n', "line 5: row is cut short or damaged: '1 cells' (allowed: 13)"),
        (PAGE.replace("55.5", "55\0"), "line 3: not text: a zero byte"),
        (PAGE.replace("55.5", "-1"), f"line 3, sm__throughput{ELAPSED}: out of range: '-1'"),
        (PAGE.replace("55.5", "10001"), "out of range: '10001' (allowed: a number from 0 to 1"),
        (PAGE.replace("1,250.5", "1,25"), f"line 3, {DURATION}: not a number: '1,25'"),
        (PAGE.replace("1,250.5", "2e13"), f"line 3, {DURATION}: out of range"),
        (PAGE.replace('"us"', '"weeks"'), f"unknown unit of {DURATION}: 'weeks' (allowed: s, seco"),
        (PAGE.replace('"us"', '""'), f"line 3, {DURATION}: unknown unit of {DURATION}: ''"),
        (PAGE.replace('"us"', '"%"'), f"unknown unit of {DURATION}: '%'"),
        ("".join(PAGE.splitlines(keepends=True)[::2]), "line 2: no row of units under the header"),
        ("".join(PAGE.splitlines(keepends=True)[:2]), "no kernels"),
        (PAGE.splitlines()[0], "no kernels"),
        (PAGE.replace('"1","77"', '"one","77"'), "line 4, ID: not a number: 'one'"),
        (PAGE.replace('"1","77"', '"1.5","77"'), "line 4, ID: not a whole number: '1.5'"),
        (PAGE.replace('"1","77"', '"-1","77"'), "line 4, ID: out of range: '-1'"),
        (PAGE.replace('"1","77"', '"","77"'), "line 4, ID: no number"),
        (PAGE.replace('"1","77"', '"0","77"'), "line 4, ID: kernel is listed twice: '0'"),
        (PAGE.replace('"1","77"', '"1","?"'), "line 4, Process ID: not a number: '?'"),
        (PAGE.replace("(128, 2, 1)", "(128, 2)"), "line 3, Block Size: not a size: '(128, 2)'"),
        (PAGE.replace("(10, 3, 1)", "(9999999999, 9999999, 1)"), "kernel 0: launch is too large"),
        (PAGE.replace(IDENTITY["Kernel Name"], ""), "line 3, Kernel Name: no name"),
        (PAGE.replace("1,250.5", "").replace('"2"', '""'), "no kernel has a duration; collect"),
        (PAGE.replace('"Kernel Name"', '"kernel"'), "no table of kernels: a row needs the ID and"),
        ("Metric Name,dram__bytes.sum,gpu__time_duration.sum\n0,5,6\n",
         "no table of kernels: a row needs the ID and the name of its kernel"),
        (DETAILS.replace('"12.71"', '"-12.71"'), "line 10, Metric Value: out of range: '-12.71'"),
        (DETAILS.replace('"us"', '"sols"'), "line 7, Metric Value: unknown unit of Duration: "),
        (DETAILS.replace('"Gbyte/s"', '"FLOP"'), "unknown unit of Memory Throughput: 'FLOP'"),
        (DETAILS[: DETAILS.index('"358.08"')], "line 7: row is cut short or damaged"),
        (DETAILS[:-20], "not CSV"),
        (details(({}, MODERN), ({"ID": "0", "Kernel Name": "b"}, MODERN)),
         "Kernel Name: another kernel has this ID: 'b'"),
        (details(({}, MODERN[9:])), "no kernel has a duration; collect"),
    ],
)  # fmt: skip
def test_damaged_pages_are_refused_with_their_place(imported, text, says):
    with pytest.raises(InputError) as refused:
        imported(text)
    assert "kernels.csv" in str(refused.value)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_too_much_is_refused(imported, monkeypatch):
    monkeypatch.setattr(files, "MOST_OPERATIONS", 1)
    with pytest.raises(InputError, match="too many operations"):
        imported(PAGE)
    monkeypatch.undo()
    monkeypatch.setattr(files, "LARGEST", 100)
    with pytest.raises(InputError, match="too large"):
        imported(gzip.compress(PAGE.encode()))


@settings(max_examples=300)
@given(
    st.sampled_from([MESSAGES + PAGE, DETAILS]),
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 12),
                  st.text(max_size=4) | st.sampled_from(
                      [",", '"', "\n", "-1", "nan", "1e9", "\0", "%", '"",""', "9" * 40])),
        min_size=1, max_size=4,
    ),
)  # fmt: skip
def test_any_change_is_refused_or_read(tmp_path, text, changes):
    for where, length, new in changes:
        at = int(where * len(text))
        text = text[:at] + new + text[at + length :]
    file = tmp_path / "kernels.csv"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    ncu.sniff(file)
    try:
        w = ncu.read(file, "x")
    except NpusimError as error:
        assert str(file) in str(error)
        assert "\n" not in str(error)
    else:
        assert 1 <= len(w) <= 2
        assert (w["duration_s"] >= 0).all()
        json.dumps(dict(w.meta), allow_nan=False)


def test_every_counter_is_one(imported):
    assert {"profiled_s", *ncu_metrics.COUNTER_SOURCES, *ncu_metrics.FLOP} == set(COUNTERS)
    for name, sources in ncu_metrics.COUNTER_SOURCES.items():
        expected = {"1": {"share"}, "B": {"B", "count"}, "B/s": {"B/s"}, "Hz": {"Hz"}}
        if name in ("waves", "instructions"):
            expected["1"] = {"count"}
        assert {s.dimension for s in sources} <= expected[COUNTERS[name].unit], name


# ---------------------------------------------------------------- measured files


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "kernels"),
    [("ncu_dsocr_decode_b1_c1024", 472), ("ncu_paddle_decode_b1_c628", 282),
     ("dram_dsocr_decode_b1_c1024", 508), ("dram_paddle_decode_b1_c628", 523)],
)  # fmt: skip
def test_raw_pages_of_an_h200(shared, name, kernels):
    w = import_trace(shared / "baselines" / "h200" / "ncu" / f"{name}.csv.gz")
    assert (len(w), w.meta["untimed"], w.meta["processes"]) == (kernels, 0, 1)
    assert (w.meta["device"], w.meta["cc"], w.name) == ("NVIDIA H200", "9.0", name)
    assert (w["blocks"] > 0).all()
    json.dumps(inspection(w), allow_nan=False)


@pytest.mark.shared
def test_values_read_off_a_raw_page(shared):
    w = import_trace(shared / "baselines" / "h200" / "ncu" / "ncu_paddle_decode_b1_c628.csv.gz")
    assert w.text("kernel")[251] == "nvjet_sm90_tst_8x64_64x16_2x1_v_bz_TNN"
    assert w["duration_s"][251] == w["duration_s"].max() == 13.44e-6
    assert (w["blocks"][251], w["threads"][251], w["registers"][251]) == (128, 384, 168)
    assert w["shared_memory"][251] == 164_308
    found = {name: values[251] for name, values in w.counters.items()}
    assert found["sm_throughput"] == pytest.approx(0.08383549)
    assert found["l2_hit_rate"] == pytest.approx(0.99334722)
    assert found["occupancy"] == pytest.approx(0.14084224)
    assert found["sm_clock"] == pytest.approx(1.813997e9)
    assert found["instructions"] == 1_067_768
    assert (w.counters["l1_throughput"][1], w.counters["dram_read"][1]) == (
        pytest.approx(3.14285714), 0)  # fmt: skip
    assert w.counters["fp32_flop"][48] == 1024  # 512 threads multiply two numbers each
    for name in ("fp32_flop", "fp64_flop"):  # every count a cycle is one whole number of them
        assert not np.isnan(w.counters[name]).any()


@pytest.mark.shared
def test_weights_come_from_dram_in_the_first_pass(shared):
    """The notes on the measurements say that 84 weight GEMMs read 340 MB."""
    w = import_trace(shared / "baselines" / "h200" / "ncu" / "dram_paddle_decode_b1_c628.csv.gz")
    weights = np.array([kernel.startswith("nvjet") for kernel in w.text("kernel")])
    assert weights.sum() == 84
    assert w.counters["dram_read"][weights].sum() == pytest.approx(340e6, rel=0.01)


@pytest.mark.shared
def test_details_of_an_rtx_5090(shared):
    folder = shared / "external" / "seed_dsocr_rtx5090" / "ncu-v2"
    pages = sorted(folder.glob("kernel_*/ncu.details.csv"))
    if not pages:
        pytest.skip("the details of the RTX 5090 are not in ../shared")
    assert len(pages) == 20
    for page in pages:
        w = import_trace(page)
        with page.open(newline="") as text:
            rows = [r for r in csv.DictReader(text) if r["Metric Name"] == "Duration"]
        scale = {"us": 1e-6, "ms": 1e-3, "ns": 1e-9}[rows[0]["Metric Unit"]]
        assert w["duration_s"] == pytest.approx([float(rows[0]["Metric Value"]) * scale])
        assert (w.meta["cc"], w.meta["metrics_repeated"]) == ("12.0", 0)
        metrics = import_trace(page.with_name("ncu.metrics.csv"))
        for name, values in metrics.counters.items():
            assert values == pytest.approx(w.counters[name]), name
    first = {name: values[0] for name, values in import_trace(pages[0]).counters.items()}
    assert first["dram_bandwidth"] == pytest.approx(345.14e9)
    assert (first["memory_throughput"], first["dram_read"]) == (pytest.approx(0.1966), 2_330_000)
    for section, timed in (("SpeedOfLight", True), ("Occupancy", False)):
        part = pages[0].with_name(f"ncu.section_{section}.csv")
        if timed:
            assert import_trace(part)["duration_s"].tolist() == [6.75e-6]
        else:
            with pytest.raises(InputError, match="no kernel has a duration"):
                import_trace(part)


@pytest.mark.shared
def test_details_of_an_old_version_on_an_a100(shared):
    folder = shared / "external" / "apc_ncu_a100"
    if not folder.is_dir():
        pytest.skip("the counters of the A100 are not in ../shared")
    pages = folder / "attention" / "actual_parameter_analysis" / "data" / "5-9"
    w = import_trace(pages / "bert_torch_nsight.csv")
    assert len(w) == 26
    assert w["duration_s"][0] == pytest.approx(5387.52 / 967_585_940.83)
    assert (w["blocks"][7], w["threads"][7], w["registers"][7]) == (24, 512, 32)
    assert w.counters["fp32_flop"][[0, 7]].tolist() == [2 * 327_680, 40_960 + 10_240]
    assert w.counters["occupancy"][[0, 7]] == pytest.approx([0.2622, 0.2235])
    assert w.counters["l2_bytes"][[0, 7]].tolist() == [666_976, 626_400]
    assert [len(import_trace(pages / f"{name}_nsight.csv"))
            for name in ("sam_torch", "gpt2_flashattn")] == [25, 10]  # fmt: skip
    with pytest.raises(InputError, match="a row needs the ID and the name of its kernel"):
        import_trace(folder / "activation" / "relu" / "nsight_result.csv")
