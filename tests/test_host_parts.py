"""What the host did before each launch: worked out by hand, by counting microseconds, measured."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim import catalog
from npusim.cli import main
from npusim.errors import InputError
from npusim.importers import import_trace
from npusim.importers.describe import describe
from npusim.importers.device_lane import Timed, step_of
from npusim.importers.host_parts import cover
from npusim.importers.work import Launch
from npusim.inspection import HOST_TIMES, host_times, inspection
from npusim.load import load_workload
from npusim.report.collect import collect
from npusim.workload import HOST_PARTS
from npusim.workload_file import UNSPLIT, save_workload
from tests.builder import workload
from tests.kineto_builder import Trace

US = 1e-6
CUBLAS, ATEN = "nvjet_sm90_tst_64x8", "void at::native::vectorized_elementwise_kernel<4>"


class Host(Trace):
    """Calls placed by hand: start and stop in microseconds, on any thread."""

    def __init__(self, *steps):
        super().__init__()
        for number, (start, stop) in enumerate(steps):
            self.add("user_annotation", f"step#{number}", start, stop - start)

    def op(self, name, start, stop, tid=1):
        self.add("cpu_op", name, start, stop - start, tid=tid)

    def runtime(self, start, stop, tid=1, name="cudaFuncGetAttributes"):
        self.correlation += 1
        args = {"correlation": self.correlation}
        return self.add("cuda_runtime", name, start, stop - start, args, tid=tid)

    def launch(self, kernel, start, stop, runs, tid=1):
        """A launch call, and when its kernel runs."""
        self.runtime(start, stop, tid, "cudaLaunchKernel")
        args = {"correlation": self.correlation, "stream": 7, "grid": [8, 1, 1],
                "block": [128, 1, 1]}  # fmt: skip
        self.add("kernel", kernel, runs[0], runs[1] - runs[0], args, pid=0, tid=7)


def parts(w):
    """Return interpreter, framework, library and launch time of each operation [us]."""
    return np.column_stack([w[c] for c in HOST_PARTS]) / US


def check_sum(w):
    assert (parts(w) >= 0).all()
    np.testing.assert_allclose(sum(w[c] for c in HOST_PARTS), w["host_s"], rtol=1e-12, atol=0)


# ---------------------------------------------------------------- by hand


@pytest.fixture
def nested(tmp_path):
    """A product inside a layer, with a call and an operator of its own; then a sum."""
    t = Host((0, 100))
    t.op("aten::linear", 5, 40)
    t.op("aten::mm", 10, 38)
    t.op("aten::empty", 12, 14)
    t.runtime(16, 18)
    t.launch(CUBLAS, 30, 34, (36, 45))
    t.op("aten::add", 50, 70)
    t.launch(ATEN, 60, 63, (65, 66))
    t.op("aten::view", 80, 82)
    return import_trace(t.write(tmp_path))


def test_nested_operators_to_the_microsecond(nested):
    """The product's own time is the library's; the call that launched it counts for the next."""
    assert parts(nested) == pytest.approx(np.array([
        # before 5 | 5-10 and 12-14 | 10-12, 14-16 and 18-30 | 16-18
        [5, 7, 16, 2],
        # 40-50 | 38-40 and 50-60 | 34-38 | 30-34
        [10, 12, 4, 4],
    ]))  # fmt: skip
    assert nested["host_s"] == pytest.approx([30 * US, 30 * US])
    assert nested["thread"].tolist() == [0, 0]
    assert nested["records"].tolist() == [3, 2]  # the view comes after the last launch
    check_sum(nested)


def test_waits_are_in_no_part_and_their_return_is_a_call(tmp_path):
    t = Host((0, 100))
    t.op("aten::neg", 5, 20)
    t.launch(ATEN, 10, 12, (15, 50))
    t.runtime(30, 53, name="cudaStreamSynchronize")  # the device is done at 50
    t.op("aten::neg", 60, 70)
    t.launch(ATEN, 65, 67, (68, 69))
    w = import_trace(t.write(tmp_path))
    assert parts(w) == pytest.approx(np.array([[5, 5, 0, 0], [7, 5, 0, 3]]))
    assert w["presync_s"] == pytest.approx([20 * US, 0])
    assert w.steps.tail_s == pytest.approx([35 * US])


def test_parts_are_those_of_the_launching_thread(tmp_path):
    """Two threads in turn: what the other one did meanwhile counts for nobody."""
    t = Host((0, 100))
    t.op("aten::mm", 2, 90, tid=9)
    t.launch(CUBLAS, 10, 14, (20, 25), tid=9)
    t.op("aten::neg", 30, 50, tid=4)
    t.launch(ATEN, 40, 44, (46, 47), tid=4)
    t.launch(CUBLAS, 60, 64, (66, 67), tid=9)
    t.op("aten::detach", 70, 71, tid=4)
    t.op("aten::detach", 80, 81, tid=4)
    t.op("aten::detach", 85, 86, tid=2)  # of a thread that launches nothing
    w = import_trace(t.write(tmp_path))
    assert w["thread"].tolist() == [0, 1, 0]
    assert parts(w) == pytest.approx(np.array([[2, 0, 8, 0], [20, 10, 0, 0], [0, 0, 20, 0]]))
    assert w["records"].tolist() == [1, 3, 0]
    found = host_times(w)
    assert [one["thread"] for one in found["threads"]] == [0, 1]
    assert [one["launches"] for one in found["threads"]] == [2, 1]
    assert found["threads"][0]["library_s"] == pytest.approx(28 * US)
    assert found["threads"][1]["interpreter_s"] == pytest.approx(20 * US)


def test_an_operator_is_of_a_library_by_its_own_kernels(tmp_path):
    """Not by those of what it calls, nor of another call of the same name, nor by copies."""
    t = Host((0, 100))
    t.op("aten::mm", 0, 10)
    t.launch(ATEN, 8, 9, (11, 12))
    t.op("aten::addmm", 10, 40)
    t.op("aten::mm", 20, 35)
    t.launch(CUBLAS, 30, 31, (41, 42))
    t.launch("triton_poi_fused_0", 38, 39, (43, 44))
    w = import_trace(t.write(tmp_path))
    assert parts(w) == pytest.approx(np.array([[0, 8, 0, 0], [0, 11, 10, 1], [0, 3, 4, 1]]))


def test_operations_of_one_launch_share_nothing(tmp_path):
    t = Host((0, 50))
    t.op("aten::mm", 5, 30)
    t.launch(CUBLAS, 20, 24, (26, 30))
    t.add("kernel", ATEN, 31, 2, {"correlation": t.correlation, "stream": 7}, pid=0, tid=7)
    w = import_trace(t.write(tmp_path))
    assert parts(w) == pytest.approx(np.array([[5, 0, 15, 0], [0, 0, 0, 0]]))
    assert w["records"].tolist() == [1, 0]
    assert w["thread"].tolist() == [0, 0]


def test_an_operation_without_a_launch_has_no_thread(tmp_path):
    t = Host((0, 50))
    t.op("aten::mm", 5, 30)
    t.launch(CUBLAS, 20, 24, (26, 30))
    t.add("kernel", ATEN, 31, 2, {"stream": 7}, pid=0, tid=7)
    w = import_trace(t.write(tmp_path))
    assert w["thread"].tolist() == [0, -1]
    assert parts(w)[1].tolist() == [0, 0, 0, 0]
    assert w["records"].tolist() == [1, 0]


def test_each_step_begins_anew(tmp_path):
    """What lies between two steps counts for none; an operator may hold both."""
    t = Host((10, 30), (50, 80))
    t.op("aten::outer", 0, 100)
    t.op("aten::mm", 12, 22)
    t.launch(CUBLAS, 20, 21, (23, 24))
    t.op("aten::lost", 40, 45)
    t.op("aten::neg", 60, 70)
    t.launch(ATEN, 66, 68, (69, 70))
    w = import_trace(t.write(tmp_path))
    assert parts(w) == pytest.approx(np.array([[0, 2, 8, 0], [0, 16, 0, 0]]))
    assert w["records"].tolist() == [1, 1]


def test_profilers_that_record_launches_alone():
    """Before a wait the first launch; then the return of the wait, and half of a call."""
    launch = Launch("k")
    work = describe(None, launch)
    operations = [
        Timed(launch, 120, 80, work, call=(100, 110), thread=77),
        Timed(launch, 320, 10, work, call=(300, 304), thread=77),
        Timed(launch, 340, 10, work),
    ]
    found = step_of(operations, 10**6, (40, 400), waits=[(150, 230)]).measured
    assert found["host_s"] == pytest.approx([60 * US, 100 * US, 0])  # from 40, from 200
    assert found["launch_s"] == pytest.approx([0, 30 * US, 0])
    assert found["interpreter_s"] == pytest.approx([60 * US, 70 * US, 0])
    assert found["framework_s"].tolist() == found["library_s"].tolist() == [0, 0, 0]
    assert found["thread"].tolist() == [77, 77, -1]
    assert found["records"].tolist() == [0, 0, 0]


# ---------------------------------------------------------------- properties

INTERVALS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=12)


@given(INTERVALS, st.integers(0, 40), st.integers(0, 40))
def test_a_cover_counts_every_microsecond_once(intervals, a, b):
    start, length = np.array(sorted(intervals), dtype=float).reshape(-1, 2).T
    since, until = min(a, b), max(a, b)
    inside = {t for s, d in intervals for t in range(s, s + d) if since <= t < until}
    got = cover(start, start + length).between(np.array([since]), np.array([until]))
    assert got.tolist() == [len(inside)]


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["(", ")", "w", "r", "cublas", "aten"]), max_size=40))
def test_nested_calls_against_counting_microseconds(tmp_path, whats):
    """Operators open and close, work, call the runtime, launch: each takes three microseconds."""
    t, stack, operators, runtime, launches = Host((0, 1000)), [], [], [], []
    now = 0
    for what in [*whats, "aten"]:
        if what == "(":
            stack.append({"start": now + 1, "library": False})
        elif what == ")" and stack:
            operators.append({**stack.pop(), "stop": now + 1})
        elif what in ("r", "cublas", "aten"):
            runtime.append(range(now + 1, now + 3))
            if what == "r":
                t.runtime(now + 1, now + 3)
            else:
                t.launch(CUBLAS if what == "cublas" else ATEN, now + 1, now + 3, (now + 4, now + 5))
                launches.append(now + 1)
                if stack and what == "cublas":
                    stack[-1]["library"] = True
        now += 3
    operators += [{**o, "stop": now} for o in stack]
    for i, o in enumerate(operators):
        t.op(f"aten::op{i}", o["start"], o["stop"])
    expected = np.zeros((len(launches), len(HOST_PARTS)))
    for moment in range(launches[-1]):
        row = np.searchsorted(launches, moment, "right")
        around = [o for o in operators if o["start"] <= moment < o["stop"]]
        if any(moment in call for call in runtime):
            part = "launch_s"
        elif around:
            inner = max(around, key=lambda o: o["start"])
            part = "library_s" if inner["library"] else "framework_s"
        else:
            part = "interpreter_s"
        expected[row, HOST_PARTS.index(part)] += 1
    w = import_trace(t.write(tmp_path))
    assert parts(w) == pytest.approx(expected)
    assert w["records"].sum() == len(operators)


EVENT = st.tuples(st.sampled_from("ol"), st.floats(0, 90), st.floats(0, 30), st.integers(1, 3),
                  st.sampled_from([CUBLAS, ATEN]))  # fmt: skip


@settings(max_examples=100)
@given(st.lists(EVENT, max_size=25), st.sampled_from([0.0, 1e9, 1790857026000000.25]))
def test_parts_of_any_trace_add_up(tmp_path, events, zero):
    """Calls that overlap, on several threads, by clocks that count from anywhere."""
    t = Host((zero, zero + 100))
    t.launch(ATEN, zero + 50, zero + 51, (zero + 52, zero + 53), tid=1)
    for what, start, length, tid, kernel in events:
        begin, end = zero + start, zero + start + length
        if what == "o":
            t.op(f"aten::{kernel[:5]}", begin, end, tid)
        else:
            t.launch(kernel, begin, end, (end, end + 1), tid)
    w = import_trace(t.write(tmp_path))
    check_sum(w)
    threads = {1, *(e[3] for e in events if e[0] == "l")}
    recorded = [e for e in events if e[0] == "o" and e[3] in threads]
    assert w["records"].sum() == len(recorded)
    assert sorted(set(w["thread"].tolist())) == list(range(len(threads)))
    first = np.unique(w["thread"], return_index=True)[1]
    assert (np.diff(first) > 0).all()


# ---------------------------------------------------------------- measured


def measured(shared, name):
    return import_trace(shared / "baselines" / "h200" / "kineto" / f"kineto_{name}.json.gz")


@pytest.mark.shared
def test_attention_that_plans_anew_holds_most_of_a_decode_step(shared):
    """cuDNN's plan, by the parts before launches and by what the host's calls took themselves."""
    w = measured(shared, "paddle_decode_b1_c628")
    wall = w.steps.wall_s.sum()
    attention = w.text("operator") == "aten::_cudnn_attention_forward"
    assert 0.62 <= w["library_s"][attention].sum() / wall <= 0.65
    itself = dict(zip(w.host.names, w.host.self_s, strict=True))
    assert w["library_s"][attention].sum() == pytest.approx(
        itself["aten::_cudnn_attention_forward"], rel=0.005
    )
    planned = ("aten::_cudnn_attention_forward", "aten::mm", "aten::bmm")
    assert w["library_s"].sum() == pytest.approx(sum(itself[o] for o in planned), rel=1e-3)
    calls = zip(w.host.group, w.host.calls, w.host.self_s, strict=True)
    groups = [(group, count, spent) for group, count, spent in calls]
    assert w["records"].sum() == sum(n for group, n, _ in groups if group == "operator")
    # The last launch call of a step is followed by none before whose launch it would count.
    runtime = sum(spent for group, _, spent in groups if group == "runtime")
    assert w["launch_s"].sum() == pytest.approx(runtime, rel=0.01)


@pytest.mark.shared
@pytest.mark.parametrize(
    "name", ["dsocr_prefill_b1_c1024", "paddle_decode_b1_c628_graph", "paddle_vision_b1_c0"]
)
def test_parts_of_a_measured_trace_add_up(shared, name):
    w = measured(shared, name)
    check_sum(w)
    operators = sum(n for group, n in zip(w.host.group, w.host.calls, strict=True)
                    if group == "operator")  # fmt: skip
    assert w["records"].sum() == operators
    inside = sum(w[c].sum() for c in HOST_PARTS if c != "interpreter_s")
    assert 0 < inside <= w.host.self_s.sum() * 1.001


# ---------------------------------------------------------------- files written before


@pytest.fixture
def old(nested, tmp_path):
    """A way to write a workload as version 1 did, without some columns."""

    def write(without, w=nested):
        file = tmp_path / "old.parquet"
        save_workload(w, file)
        table = pq.read_table(file)
        about = json.loads(table.schema.metadata[b"npusim.workload"]) | {"schema": 1}
        told = {b"npusim.workload": json.dumps(about).encode()}
        pq.write_table(table.drop_columns(without).replace_schema_metadata(told), file)
        return str(file)

    return write


SINCE_2 = [*HOST_PARTS, "thread", "records"]


def test_a_file_of_version_1_is_read_and_says_what_it_lacks(nested, old, tmp_path):
    w = load_workload(old(SINCE_2))
    assert w["interpreter_s"].tolist() == w["host_s"].tolist() == nested["host_s"].tolist()
    assert not any(w[c].any() for c in ("framework_s", "library_s", "launch_s"))
    assert w["thread"].tolist() == [-1, -1]
    assert w["records"].tolist() == [0, 0]
    assert w.meta["notes"] == [UNSPLIT]
    assert UNSPLIT in inspection(w)["notes"]
    save_workload(w, tmp_path / "new.parquet")
    again = load_workload(str(tmp_path / "new.parquet"))
    assert again.id == w.id
    assert again.meta["notes"] == [UNSPLIT]  # still true, and once


def test_a_file_of_version_1_without_a_host_needs_no_note(old):
    assert "notes" not in load_workload(old(SINCE_2, workload({}, host="unknown"))).meta


@pytest.mark.parametrize("column", SINCE_2)
def test_a_file_of_version_1_with_some_of_the_parts_is_refused(old, column):
    with pytest.raises(InputError, match=f"{column}: column is missing"):
        load_workload(old([column]))


# ---------------------------------------------------------------- shown


def test_where_the_host_spends_a_step():
    """Two steps: half of all is the mean; what is no work is waiting."""
    w = workload(
        {"host_s": 30 * US, "interpreter_s": 5 * US, "framework_s": 7 * US, "library_s": 16 * US,
         "launch_s": 2 * US, "sync": True, "presync_s": 4 * US, "records": 3},
        {"host_s": 10 * US, "framework_s": 10 * US, "step": 1, "records": 6},
        {"host_s": 2 * US, "launch_s": 2 * US, "step": 1, "records": 1},
        wall=(60 * US, 40 * US), tail=(6 * US, 8 * US),
    )  # fmt: skip
    found = host_times(w)
    assert {k: v / US for k, v in found.items() if k.endswith("_s")} == pytest.approx(
        {"wall_s": 50, "interpreter_s": 2.5, "framework_s": 8.5, "library_s": 8, "launch_s": 2,
         "presync_s": 2, "tail_s": 7, "waiting_s": 20}
    )  # fmt: skip
    assert (found["launches"], found["waits"], found["records"]) == (1.5, 0.5, 5)
    assert inspection(w)["host"] == found
    assert found["steps"] == 2
    assert host_times(workload({"host_s": 1.0}, host="unknown")) is None
    assert host_times(workload({})) is None


def test_a_trace_without_operators_says_so():
    row = {"host_s": 3 * US, "interpreter_s": 2 * US, "launch_s": 1 * US}
    said = "the trace shows no framework operators"
    assert any(note.startswith(said) for note in inspection(workload(row))["notes"])
    more = workload(row | {"records": 1})
    assert not any(note.startswith(said) for note in inspection(more)["notes"])


@pytest.mark.parametrize("name", catalog.names("workloads"))
def test_the_times_of_a_shipped_workload_are_its_wall(name):
    host = host_times(load_workload(name))
    assert sum(host[time] for time in HOST_TIMES) == pytest.approx(host["wall_s"])
    assert [one["thread"] for one in host["threads"]] == [0]


@pytest.fixture
def file(nested, tmp_path):
    save_workload(nested, tmp_path / "nested.parquet")
    return str(tmp_path / "nested.parquet")


def test_inspect_shows_the_host(file):
    text = CliRunner().invoke(main, ["inspect", file]).output
    rows = dict(line.rsplit(maxsplit=1) for line in text.splitlines() if line.endswith("%"))
    found = {" ".join(k.split()): v for k, v in rows.items()}
    assert "host, one step (launches: 2, waits: 0)" in text
    assert "share of wall" in text
    assert found["interpreter 15 µs"] == "15.0%"
    assert found["framework operators 19 µs"] == "19.0%"
    assert found["library operators 20 µs"] == "20.0%"
    assert found["runtime calls 6 µs"] == "6.0%"
    assert found["after the last launch 40 µs"] == "40.0%"
    assert "by thread" not in text
    found = json.loads(CliRunner().invoke(main, ["inspect", file, "--json"]).output)
    assert found["host"]["library_s"] == pytest.approx(20 * US)


def test_inspect_and_report_show_threads_where_there_are_several(tmp_path):
    row = {"host_s": 4 * US, "interpreter_s": 3 * US, "launch_s": 1 * US}
    w = workload(row, row | {"thread": 1}, row | {"thread": 1}, wall=(20 * US,))
    save_workload(w, tmp_path / "two.parquet")
    text = CliRunner().invoke(main, ["inspect", str(tmp_path / "two.parquet")]).output
    lines = text[text.index("host by thread, one step") :].splitlines()
    assert [line.split() for line in lines[2:4]] == [
        ["0", "1", "3", "µs", "0", "s", "0", "s", "1", "µs", "0", "s", "0"],
        ["1", "2", "6", "µs", "0", "s", "0", "s", "2", "µs", "0", "s", "0"],
    ]
    table = collect(w).table("host_threads")
    assert table["launch_s"].tolist() == pytest.approx([1 * US, 2 * US])


def test_the_report_shows_the_host(nested):
    report = collect(nested)
    table = report.table("host_parts").set_index("quantity")
    assert table["mean_s"].sum() == pytest.approx(100 * US)
    assert table["wall_share"].sum() == pytest.approx(1)
    assert table.loc["library operators", "mean_s"] == pytest.approx(20 * US)
    assert not len(report.table("host_threads"))
    assert not len(collect(workload({}, host="unknown")).table("host_parts"))
