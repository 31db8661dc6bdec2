"""Timelines as files, against times worked out by hand and the laws of the format."""

import gzip
import json
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import Designs
from npusim.cli import main
from npusim.errors import InputError
from npusim.models.kernel import kernel_time
from npusim.sides import after, before
from npusim.timeline_file import save_timeline
from npusim.transforms import transformed
from tests.builder import gemv, timed, workload

US = 1e-6
LAUNCHES = ("eager", "graph", "queue")


@pytest.fixture(scope="module")
def machine():
    """Return a machine whose launches take round times."""
    arch = ns.load_arch("h200")
    for path, value in {
        "launch.eager.host": 6 * US,
        "launch.eager.latency": 2 * US,
        "launch.eager.interval": 1 * US,
        "launch.eager.depth": 1000,
        "launch.graph.host": 24 * US,
        "launch.graph.node": 1 * US,
        "launch.graph.submit": 3 * US,
        "launch.graph.interval": 0.5 * US,
        "launch.queue.submit": 2 * US,
        "launch.queue.interval": 0.1 * US,
        "host.speed": 1.0,
        "host.threads": 1,
        "host.sync": 3 * US,
    }.items():
        arch = ns.with_value(arch, path, value)
    return arch


class Trace:
    """What a file says, by process and thread."""

    def __init__(self, file):
        raw = file.read_bytes()
        self.content = json.loads(gzip.decompress(raw) if file.suffix == ".gz" else raw)
        self.events = self.content["traceEvents"]
        self.process, self.thread = {}, {}
        for e in self.events:
            if e["name"] == "process_name":
                self.process[e["pid"]] = e["args"]["name"]
            if e["name"] == "thread_name":
                self.thread[e["pid"], e["tid"]] = e["args"]["name"]

    def pid(self, side):
        return next((p for p, name in self.process.items() if name.startswith(side)), None)

    def spans(self, side, thread):
        """Return the spans of the threads whose names begin so, in the order of the file."""
        return [e for e in self.events if e["ph"] == "X" and e["pid"] == self.pid(side)
                and self.thread[e["pid"], e["tid"]].startswith(thread)]  # fmt: skip

    def times(self, side, thread):
        return [(e["name"], e["ts"], round(e["ts"] + e["dur"], 3))
                for e in self.spans(side, thread)]  # fmt: skip

    def phase(self, side, ph, name=None):
        return [e for e in self.events if e["ph"] == ph and e["pid"] == self.pid(side)
                and name in (None, e["name"])]  # fmt: skip

    def counter(self, side, name):
        return [(e["ts"], e["args"]["operations"]) for e in self.phase(side, "C", name)]


def write(tmp_path, w, arch, *how, name="t.json", **more):
    save_timeline(tmp_path / name, w, arch, *how, **more)
    return Trace(tmp_path / name)


def check(trace, workload, sides=("before", "after")):
    """Hold a file against the laws of the format, and of a workload that is replayed."""
    timed_events = [e for e in trace.events if e["ph"] != "M"]
    assert all(a["ts"] <= b["ts"] for a, b in pairwise(timed_events))
    assert {e["pid"] for e in timed_events} == set(trace.process)
    flows, tied = defaultdict(list), defaultdict(list)
    lanes = defaultdict(list)
    for e in timed_events:
        assert (e["pid"], e["tid"]) in trace.thread
        if e["ph"] == "X":
            lanes[e["pid"], e["tid"]].append(e)
        elif e["ph"] in "sf":
            flows[e["id"]].append(e)
            # the viewers tie a flow to what began last before it on its thread
            tied[e["id"]].append(lanes[e["pid"], e["tid"]][-1])
        else:
            assert e["ph"] == "C"
            assert e["args"]["operations"] >= 0
    for spans in lanes.values():
        for a, b in pairwise(spans):
            assert nanoseconds(a["ts"]) + nanoseconds(a["dur"]) <= nanoseconds(b["ts"])
    for identity, pair in flows.items():
        assert [e["ph"] for e in pair] == ["s", "f"]
        assert pair[1]["bp"] == "e"
        host, device = tied[identity]
        assert trace.thread[host["pid"], host["tid"]] == "host"
        assert host["ts"] <= pair[0]["ts"] < host["ts"] + host["dur"]
        assert device["ts"] == pair[1]["ts"]
    for side in sides:
        operations = [e["args"]["operation"] for e in trace.spans(side, "stream")]
        assert sorted(operations) == list(range(len(workload)))
        for name in ("running", "issued, not finished"):
            counted = trace.counter(side, name)
            assert not counted or counted[-1][1] == 0
    return flows


def check_host(trace, side):
    """The host's pieces follow each other without a gap, from the start of each step to its end."""
    steps = {moment for _, *span in trace.times(side, "steps") for moment in span}
    host = trace.times(side, "host")
    assert host[0][1] == 0.0
    assert all(a[2] == b[1] for a, b in pairwise(host))
    ends = {0.0} | {end for *_, end in host}
    assert steps <= ends and host[-1][2] == max(steps)


def nanoseconds(microseconds):
    return round(microseconds * 1e3)


# ---------------------------------------------------------------- by hand


def chain(**more):
    first = timed(10 * US, host_s=5 * US, operator="aten::a", interpreter_s=4 * US,
                  launch_s=1 * US)  # fmt: skip
    rest = [timed(20 * US, host_s=5 * US), timed(30 * US, host_s=5 * US, operator="unknown")]
    return workload(first, *rest, wall=(70 * US,), tail=(4 * US,), **more)


def test_eager_by_hand(tmp_path, machine):
    trace = write(tmp_path, chain(), machine)
    assert [t[1:] for t in trace.times("after", "stream 7")] == [(7, 17), (18, 38), (39, 69)]
    assert trace.times("after", "host") == [
        ("aten::a", 0, 5), ("aten::op", 5, 10), ("k fp32 (ATen)", 10, 15),
        ("after the last launch", 15, 19), ("wait for the device", 19, 69),
    ]  # fmt: skip
    assert [e["cat"] for e in trace.spans("after", "host")] == ["work"] * 3 + ["tail", "wait"]
    assert trace.spans("after", "host")[0]["args"]["traced_us"] == {
        "interpreter": 4, "framework": 0, "library": 0, "launch": 1}  # fmt: skip
    assert trace.times("after", "steps") == [("step 0", 0, 69)]
    assert trace.spans("after", "steps")[0]["args"] == {
        "operations": 3, "device_busy_us": 60, "host_waits_us": 50, "measured_us": 70}  # fmt: skip
    assert [e["ts"] for e in trace.phase("after", "s")] == [4.999, 9.999, 14.999]
    assert [e["ts"] for e in trace.phase("after", "f")] == [7, 18, 39]
    assert trace.counter("after", "running") == [
        (7, 1),
        (17, 0),
        (18, 1),
        (38, 0),
        (39, 1),
        (69, 0),
    ]
    assert trace.counter("after", "issued, not finished") == [
        (5, 1), (10, 2), (15, 3), (17, 2), (38, 1), (69, 0)]  # fmt: skip
    assert [e["args"]["issued_us"] for e in trace.spans("after", "stream")] == [5, 10, 15]


def test_a_graph_by_hand(tmp_path, machine):
    trace = write(tmp_path, chain(), machine, "graph")
    assert trace.times("after", "host") == [
        ("submit graph", 0, 27), ("wait for the device", 27, 91), ("return of a wait", 91, 94),
    ]  # fmt: skip
    assert [t[1:] for t in trace.times("after", "stream")] == [(30, 40), (40.5, 60.5), (61, 91)]
    # one arrow, from the submission to what it starts
    assert [(e["ph"], e["ts"]) for e in trace.events if e["name"] == "launch"] == [
        ("s", 26.999), ("f", 30)]  # fmt: skip
    assert trace.counter("after", "issued, not finished")[0] == (27, 3)


def test_a_queue_by_hand(tmp_path, machine):
    trace = write(tmp_path, chain(), machine, "queue")
    assert trace.times("after", "host") == [
        ("submit queue", 0, 2), ("wait for the device", 2, 62.2), ("return of a wait", 62.2, 65.2),
    ]  # fmt: skip
    starts = [t[1:] for t in trace.times("after", "stream")]
    assert starts == [(2, 12), (12.1, 32.1), (32.2, 62.2)]


def test_a_wait_and_a_full_queue_by_hand(tmp_path, machine):
    rows = [timed(10 * US, host_s=5 * US, sync=True, presync_s=1 * US), timed(9 * US, host_s=US)]
    trace = write(tmp_path, workload(*rows), machine)
    assert [t[1:] for t in trace.times("after", "host") if t[0] != "aten::op"] == [
        (5, 6), (6, 17), (18, 29)]  # fmt: skip
    names = [t[0] for t in trace.times("after", "host")]
    assert names == ["aten::op", "before a wait", "wait for the device", "aten::op",
                     "wait for the device"]  # fmt: skip
    short = ns.with_value(machine, "launch.eager.depth", 1)
    w = workload(*[timed(20 * US, host_s=5 * US)] * 2)
    trace = write(tmp_path, w, short)  # the first runs 7-27; the second is ready at 10
    assert ("wait for room in the queue", 10, 27) in trace.times("after", "host")
    assert trace.spans("after", "steps")[0]["args"]["host_waits_us"] == 17 + 22  # until 49


def test_a_host_that_was_not_measured_costs_what_the_machine_says(tmp_path, machine):
    trace = write(tmp_path, chain(host="unknown"), machine)
    assert [t[1:] for t in trace.times("after", "host")][:3] == [(0, 6), (6, 12), (12, 18)]
    assert all("traced_us" not in e["args"] for e in trace.spans("after", "host"))


def test_steps_follow_each_other(tmp_path, machine):
    two = workload(timed(10 * US), timed(30 * US, step=1), wall=(50 * US, 60 * US))
    trace = write(tmp_path, two, machine, "queue")
    assert trace.times("after", "steps") == [("step 0", 0, 15), ("step 1", 15, 50)]
    assert [t[1:] for t in trace.times("after", "stream")] == [(2, 12), (17, 47)]
    assert trace.times("before", "steps") == [("step 0", 0, 50), ("step 1", 50, 110)]
    check(trace, two)
    check_host(trace, "after")


# ---------------------------------------------------------------- before


@pytest.mark.parametrize(
    "name", ["paddleocr_vl_decode", "paddleocr_vl_prefill", "paddleocr_vl_vision",
             "deepseek_ocr_decode_grouped"],
)  # fmt: skip
def test_the_replay_of_what_was_measured_takes_as_long_as_was_measured(name):
    w = ns.load_workload(name)
    side = before(w)
    assert side.timeline.steps[-1] == pytest.approx(w.steps.wall_s.sum(), rel=0.01)
    took = np.array(side.timeline.end) - np.array(side.timeline.start)
    assert took == pytest.approx(w["duration_s"], abs=1e-12)
    assert side.title.startswith("before: NVIDIA H200, eager, as traced: ")
    assert side.title.endswith(" ms a step")


def test_a_replay_that_takes_longer_than_was_measured_says_both():
    rows = [timed(10 * US, host_s=5 * US)]
    w = workload(*rows, wall=(1e-3,), tail=(0.0,), device="NVIDIA H200")
    assert before(w).title.endswith(" µs a step replayed, 1 ms measured")


def test_of_an_unknown_machine_the_device_is_shown_as_measured(tmp_path, machine):
    rows = [timed(10 * US, start_s=3 * US), timed(20 * US, start_s=40 * US),
            timed(5 * US, start_s=1 * US, step=1)]  # fmt: skip
    w = workload(*rows, wall=(70 * US, 20 * US), tail=(0.0, 0.0), device="Some GPU")
    trace = write(tmp_path, w, machine)
    assert trace.process[1] == ("before: Some GPU, eager, as traced: 45 µs a step, no host lane: "
                                "the machine is not known")  # fmt: skip
    assert [t[1:] for t in trace.times("before", "stream")] == [(3, 13), (40, 60), (71, 76)]
    assert not trace.spans("before", "host")
    assert not trace.phase("before", "s")
    assert trace.counter("before", "issued, not finished") == []
    assert trace.counter("before", "running") == [
        (3, 1),
        (13, 0),
        (40, 1),
        (60, 0),
        (71, 1),
        (76, 0),
    ]
    args = trace.spans("before", "stream")[0]["args"]
    assert args["measured_us"] == 10
    assert not {"bound", "predicted_us", "issued_us", "served_by"} & set(args)
    check(trace, w)


def test_a_graph_whose_host_is_not_known_is_shown_as_measured():
    w = workload(timed(10 * US, start_s=5 * US), wall=(70 * US,), device="NVIDIA H200")
    side = before(w.renamed("graph", launch="graph", host="unknown"))
    assert side.title.endswith("graph, as traced: 70 µs a step, no host lane: "
                               "the host was not measured")  # fmt: skip
    assert side.timeline.start == [5 * US]


def test_kernels_without_times_of_day_are_said_to_lie_end_to_end():
    rows = [timed(10 * US), timed(20 * US, start_s=10 * US)]
    w = workload(*rows, wall=(30 * US,), host="unknown")
    assert before(w).title.endswith("kernels end to end: no times of day")


def test_operations_at_the_same_time_on_one_stream_have_a_thread_each(tmp_path, machine):
    rows = [timed(10 * US), timed(10 * US, start_s=5 * US), timed(4 * US, start_s=10 * US),
            timed(5 * US, stream=-1)]  # fmt: skip
    w = workload(*rows, wall=(20 * US,))
    trace = write(tmp_path, w, machine)
    names = {(e["ts"], e["dur"]): trace.thread[1, e["tid"]] for e in trace.spans("before", "str")}
    assert names == {(0, 10): "stream 7", (5, 10): "stream 7 (2)", (10, 4): "stream 7",
                     (0, 5): "stream unknown"}  # fmt: skip
    assert max(count for _, count in trace.counter("before", "running")) == 2
    check(trace, w)


def test_nothing_measured_has_no_before(tmp_path):
    w = chain().renamed("made", measured=False)
    slow = ns.with_value(ns.load_arch("h200"), "host.sync", "7 us")
    trace = write(tmp_path, w, slow, "queue")
    assert len(trace.process) == 1
    assert trace.process[1].startswith(
        "after: NVIDIA H200 SXM (host.sync=7 µs), queue, model mode: "
    )
    assert all("measured_us" not in e["args"] for e in trace.events if e["ph"] == "X")


def test_a_changed_workload_stands_beside_what_was_traced(tmp_path):
    w, h200 = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    light = transformed(w, {"workload.weight_bits": 4.0})
    assert before(light) is None
    trace = write(tmp_path, light, h200, "queue", traced=w)
    first, second = ({e["args"]["operation"]: e["args"] for e in trace.spans(side, "stream")}
                     for side in ("before", "after"))  # fmt: skip
    i = int(np.argmax(w["read_weight"]))
    weights = w["read_weight"][i]
    assert first[i]["bytes"]["read_weight"] == weights
    assert second[i]["bytes"]["read_weight"] < 0.5 * weights
    assert first[i]["measured_us"] == pytest.approx(w["duration_s"][i] * 1e6, abs=1e-3)
    assert "measured_us" not in second[i]
    assert "(workload.weight_bits=4)" in trace.process[2]


def test_the_profiler_is_out_of_the_prediction_alone(tmp_path):
    w, h200 = ns.load_workload("paddleocr_vl_prefill"), ns.load_arch("h200")
    alone = ns.unprofiled(w)
    trace = write(tmp_path, alone, h200)
    assert [t[0] for t in trace.times("before", "steps")] == ["step 1", "step 2"]
    traced, without = (trace.times(side, "steps")[-1][2] for side in ("before", "after"))
    assert traced == pytest.approx(w.steps.wall_s[1:].sum() * 1e6, rel=0.01)
    assert without == pytest.approx(2e6 * ns.replay(alone, h200).wall_s, rel=1e-6)
    assert without < 0.8 * traced
    assert trace.process[1].endswith(" ms a step (steps 1, 2 of the trace)")
    assert trace.process[2].startswith("after: NVIDIA H200 SXM (without the profiler), eager")
    check(trace, alone)
    check_host(trace, "before")
    check_host(trace, "after")


# ---------------------------------------------------------------- laws


@pytest.mark.parametrize("mode", ["model", "transfer"])
@pytest.mark.parametrize("launch", LAUNCHES)
def test_a_decode_step_keeps_the_laws(tmp_path, launch, mode):
    w, npu = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("decode_npu")
    npu = ns.with_value(npu, "fusion.chain", 0.0)  # before and after are the same operations
    trace = write(tmp_path, w, npu, launch, mode)
    flows = check(trace, w)
    check_host(trace, "before")
    check_host(trace, "after")
    result = ns.replay(w, npu, launch, mode)
    wall = trace.times("after", "steps")[-1][2]
    assert wall == pytest.approx(3e6 * result.wall_s, rel=1e-6)
    busy = sum(e["dur"] for e in trace.spans("after", "stream"))
    assert busy == pytest.approx(3e6 * result.device_busy_s, rel=1e-3)
    waits = sum(e["dur"] for e in trace.spans("after", "host") if e["cat"] in ("wait", "full"))
    assert wall - waits == pytest.approx(3e6 * result.host_busy_s, rel=1e-5)
    pieces = {"eager": len(w), "graph": int(w["sync"].sum()) or 3, "queue": 3}[launch]
    assert len(flows) == len(w) + pieces
    bound = defaultdict(float)
    for e in trace.spans("after", "stream"):
        bound[e["args"]["bound"]] += e["dur"] / busy
    assert set(bound) <= {"floor", "memory", "compute", "measured"}
    assert bound["measured"] == pytest.approx(result.limits.get("measured", 0.0), abs=1e-3)


rows = st.lists(
    st.builds(
        timed,
        st.floats(0, 1e-3),
        start_s=st.floats(0, 1e-3),
        host_s=st.floats(0, 1e-4),
        sync=st.booleans(),
        presync_s=st.floats(0, 1e-5),
        stream=st.integers(-1, 3),
    ),
    min_size=1,
    max_size=12,
)


@given(rows=rows, launch=st.sampled_from(LAUNCHES), device=st.sampled_from(["", "NVIDIA H200"]),
       depth=st.integers(1, 20), threads=st.integers(1, 3))  # fmt: skip
def test_any_workload_keeps_the_laws(tmp_path, machine, rows, launch, device, depth, threads):
    for path, value in {"launch.eager.depth": depth, "host.threads": threads}.items():
        machine = ns.with_value(machine, path, value)
    w = workload(*rows, device=device)
    trace = write(tmp_path, w, machine, launch)
    check(trace, w)
    if trace.spans("after", "host"):
        check_host(trace, "after")


# ---------------------------------------------------------------- arguments


def test_what_an_operation_says_of_itself(tmp_path):
    w, h200 = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    trace = write(tmp_path, w, h200, "graph")
    seconds = kernel_time(w.operations(), Designs(h200))[:, 0]
    for side in ("before", "after"):
        for e in trace.spans(side, "stream")[:2000:7]:
            args, i = e["args"], e["args"]["operation"]
            assert args["kernel"] == w.text("kernel")[i]
            assert (args["kind"], args["operator"]) == (w.text("kind")[i], w.text("operator")[i])
            assert args["step"] == w["step"][i]
            assert args["predicted_us"] == pytest.approx(seconds[i] * 1e6, abs=2e-3)
            assert args["measured_us"] == pytest.approx(w["duration_s"][i] * 1e6, abs=1e-3)
            assert args.get("flop", 0) == w["flop"][i]
            assert sum(args.get("bytes", {}).values()) == pytest.approx(w.bytes_moved[i])
            assert sum(args["served_by"].values()) == pytest.approx(w.bytes_moved[i], abs=4)
            took = args["measured_us" if side == "before" else "predicted_us"]
            assert e["dur"] == pytest.approx(took, abs=2e-3)
    names = {e["name"] for e in trace.spans("after", "stream")}
    assert "index select small index bf16 (ATen)" in names


def test_operations_without_shapes_are_carried_over(tmp_path, machine):
    w = workload(gemv(3.0, k=1024, flop=8192.0), timed(10 * US), device="NVIDIA H200")
    trace = write(tmp_path, w, machine, "queue")
    known, unknown = (e["args"] for e in trace.spans("after", "stream"))
    assert known["bound"] in ("floor", "memory", "compute")
    assert known["flop"] == 8192
    assert known["bytes"] == {"read_weight": 1e6}
    assert (unknown["bound"], unknown["measured_us"]) == ("measured", 10)
    assert not {"flop", "bytes", "served_by", "predicted_us"} & set(unknown)


def test_a_transferred_time_is_the_predicted_one(tmp_path, machine):
    w = workload(gemv(3.0, k=1024), device="NVIDIA H200")
    span = write(tmp_path, w, ns.load_arch("h200"), "queue", "transfer").spans("after", "stream")[0]
    assert (span["dur"], span["args"]["predicted_us"]) == (3, 3)  # on the same machine, the same


# ---------------------------------------------------------------- files


def test_packed_is_the_same_and_always_the_same_bytes(tmp_path, machine):
    plain = write(tmp_path, chain(), machine)
    packed = write(tmp_path, chain(), machine, name="a.json.gz")
    assert packed.content == plain.content
    write(tmp_path, chain(), machine, name="b.json.gz")
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
    assert (tmp_path / "a.json.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_names_survive_whatever_they_are(tmp_path, machine):
    name = 'odd "quotes" \\ back\nline\t\x01 µ 中 </script>'
    w = workload(timed(1 * US, kernel=name, operator=name), device=name)
    trace = write(tmp_path, w, machine)
    assert trace.spans("after", "stream")[0]["args"]["kernel"] == name
    assert trace.spans("after", "stream")[0]["args"]["operator"] == name


def test_what_made_it_is_in_the_file(tmp_path, machine):
    w = chain()
    about = write(tmp_path, w, machine, "graph").content["otherData"]
    assert {k: about[k] for k in ("workload", "arch", "launch", "mode")} == {
        "workload": "made", "arch": "h200", "launch": "graph", "mode": "model"}  # fmt: skip
    assert about["made_by"] == ns.replay(w, machine, "graph").made_by


def test_a_capture_of_years_is_refused(tmp_path, machine):
    with pytest.raises(InputError, match="made: too long for a timeline: '1e"):
        write(tmp_path, workload(timed(1e9)), machine)
    assert list(tmp_path.iterdir()) == []


def test_what_replay_refuses_is_refused(tmp_path, machine):
    w = ns.load_workload("paddleocr_vl_decode")
    light = transformed(w, {"workload.weight_bits": 4.0})
    with pytest.raises(InputError, match="transfer needs what was measured"):
        write(tmp_path, light, machine, "queue", "transfer", traced=w)
    with pytest.raises(InputError, match="unknown launch mode"):
        write(tmp_path, w, machine, "warp")
    assert list(tmp_path.iterdir()) == []


def run(*args):
    return CliRunner().invoke(main, ["replay", "paddleocr_vl_decode", "--arch", "h200",
                                     "--launch", "graph", *map(str, args)])  # fmt: skip


def test_replay_writes_one(tmp_path):
    file = tmp_path / "deep" / "t.json.gz"
    done = run("--timeline", file)
    assert done.exit_code == 0
    line = done.stdout.splitlines()[-1]
    assert line == f"timeline: {file} (open it in ui.perfetto.dev or chrome://tracing)"
    assert Trace(file).process[2].startswith("after: NVIDIA H200 SXM, graph, model mode: ")


def test_json_stays_one_object(tmp_path):
    file = tmp_path / "t.json"
    setting = ("--set", "workload.weight_bits=8", "--set", "units.count=66")
    done = run("--timeline", file, "--json", *setting)
    content = json.loads(done.stdout)
    assert content["timeline"] == str(file)
    trace = Trace(file)
    assert trace.times("after", "steps")[-1][2] == pytest.approx(3e6 * content["wall_s"], rel=1e-6)
    assert "(units.count=66, workload.weight_bits=8)" in trace.process[2]
    assert trace.process[1] == "before: NVIDIA H200, eager, as traced: 54.97 ms a step"
    assert "timeline" not in json.loads(run("--json").stdout)


def test_a_timeline_is_not_written_over_its_workload(tmp_path):
    file = tmp_path / "own.parquet"
    ns.save_workload(ns.load_workload("paddleocr_vl_decode"), file)
    before = file.read_bytes()
    arguments = ["replay", str(file), "--arch", "h200", "--timeline", str(file)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1 and "is the workload itself" in done.stderr
    assert file.read_bytes() == before


def test_a_path_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    for bad, words in (
        (tmp_path, "directory"),
        (tmp_path / "file" / "t.json", "cannot be written"),
    ):
        done = run("--timeline", bad)
        assert done.exit_code == 1
        assert done.stdout == ""
        assert words in done.stderr and done.stderr.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_side_knows_its_machine():
    w = ns.load_workload("paddleocr_vl_decode")
    side = after(w, ns.load_arch("decode_npu"), "queue")
    assert side.has_host and side.launch == "queue"
    assert side.served["victim"].sum() + side.served["l2"].sum() + side.served["dram"].sum() + (
        side.served["kv_sram"].sum() + side.served["weight_sram"].sum()
    ) == pytest.approx(side.timeline.workload.bytes_moved.sum())
