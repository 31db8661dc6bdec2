import copy
import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.errors import InputError, NpusimError
from npusim.importers import csv_rows, files, import_trace, importers, rocprof_csv, rocprof_json
from npusim.workload import Workload

OLD = (
    '"Kind","Agent_Id","Queue_Id","Thread_Id","Dispatch_Id","Kernel_Id","Kernel_Name",'
    '"Correlation_Id","Start_Timestamp","End_Timestamp","Private_Segment_Size",'
    '"Group_Segment_Size","Workgroup_Size_X","Workgroup_Size_Y","Workgroup_Size_Z",'
    '"Grid_Size_X","Grid_Size_Y","Grid_Size_Z"\n'
)
NEW = (
    '"Kind","Agent_Id","Queue_Id","Stream_Id","Thread_Id","Dispatch_Id","Kernel_Id",'
    '"Kernel_Name","Correlation_Id","Start_Timestamp","End_Timestamp","LDS_Block_Size",'
    '"Scratch_Size","VGPR_Count","Accum_VGPR_Count","SGPR_Count","Workgroup_Size_X",'
    '"Workgroup_Size_Y","Workgroup_Size_Z","Grid_Size_X","Grid_Size_Y","Grid_Size_Z"\n'
)
AT = 4484384343929154  # a clock of 52 days: as a float it would lose half a nanosecond


def old(
    name="k", start=AT, end=AT + 1000, dispatch=1, agent="8", group=1024, sizes="256,4,1,1024,6,1"
):
    return (f'"KERNEL_DISPATCH",{agent},1,252734,{dispatch},10,"{name}",15,{start},{end},0,{group},'
            f"{sizes}\n")  # fmt: skip


def new(name="k", start=AT, end=AT + 1000, dispatch=1, agent='"Agent 4"', stream=1, queue=1):
    return (f'"KERNEL_DISPATCH",{agent},{queue},{stream},852831,{dispatch},10,"{name}",1,'
            f"{start},{end},2048,0,64,32,16,64,1,1,1024,1000,1\n")  # fmt: skip


@pytest.fixture
def table(tmp_path):
    """Import a kernel trace of some text."""

    def run(text, name="123_kernel_trace.csv", **how):
        file = tmp_path / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return import_trace(file, **how)

    return run


def row(w, i):
    return {c: w[c][i] for c in w.columns} | {c: w.text(c)[i] for c in w.labels}


# ---------------------------------------------------------------- the table


def test_old_columns(table):
    w = table(OLD + old("void norm(int, double const*)", AT, AT + 5920)
              + old("gemm", AT + 6001, AT + 7001, 2))  # fmt: skip
    r = row(w, 0)
    assert r["kernel"] == "void norm(int, double const*)"
    assert r["duration_s"] == pytest.approx(5920e-9, rel=1e-12)
    assert (r["blocks"], r["threads"], r["registers"], r["shared_memory"]) == (8, 1024, 0, 1024)
    assert (r["basis"], r["flop"], r["host_s"], r["stream"]) == ("none", 0, 0, 0)
    assert row(w, 1)["start_s"] == 6001e-9
    assert row(w, 1)["kind"] == "gemm"
    assert w.steps.wall_s.tolist() == [7001e-9]
    assert w.meta["agents"] == ["Agent 8"]
    assert w.meta["host"] == "unknown"
    assert not w.meta["repaired"]


def test_new_columns_have_registers_and_streams(table):
    w = table(NEW + new(stream=1) + new(stream=2, dispatch=2) + new(agent=4, stream=1, dispatch=3))
    assert w["blocks"].tolist() == [16 * 1000] * 3
    assert w["registers"].tolist() == [96] * 3
    assert w["shared_memory"].tolist() == [2048] * 3
    assert w["stream"].tolist() == [0, 1, 0]  # `4` and `Agent 4` are one agent
    assert w.meta["agents"] == ["Agent 4"]


def test_a_grid_that_does_not_divide_is_rounded_up(table):
    assert table(OLD + old(sizes="64,2,1,65,8,1"))["blocks"].tolist() == [2 * 4]
    assert table(OLD + old(sizes="0,0,0,0,0,0"))["blocks"].tolist() == [0]


def test_dispatches_come_in_the_order_they_were_issued(table):
    w = table(NEW + new("b", AT, AT + 5, 2, queue=2) + new("a", AT + 9, AT + 10, 1))
    assert w.text("kernel").tolist() == ["a", "b"]
    assert w["start_s"].tolist() == [9e-9, 0]


def test_stream_zero_is_told_apart_by_queue(table):
    w = table(NEW + new(stream=0, queue=1) + new(stream=0, queue=2, dispatch=2))
    assert w["stream"].tolist() == [0, 1]


def test_csv_as_other_systems_write_it(table):
    text = "\ufeff\r\n" + (OLD + "\n" + old('say ""a, b""') + "\n\n").replace("\n", "\r\n")
    w = table(text)
    assert w.text("kernel").tolist() == ['say "a, b"']
    assert table(gzip.compress(text.encode()), "x.csv.gz").id == w.id


def test_dispatches_without_times_are_counted(table):
    w = table(OLD + old() + old(start=0, end=0, dispatch=2))
    assert len(w) == 1
    assert w.meta["untimed"] == 1


def test_a_row_cut_by_an_interrupt_is_dropped_and_counted(table):
    whole = OLD + old() + old("second", dispatch=2)
    for cut in (30, 60):
        w = table(whole[:-cut])
        assert len(w) == 1
        assert w.meta["lost_events"] == 1
        assert w.meta["repaired"]
    in_a_name = (OLD + old() + old("abc", dispatch=2)).rpartition("abc")[0]
    assert table(in_a_name).meta["lost_events"] == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (OLD, "no kernel dispatches"),
        (OLD.replace("End_Timestamp", "Stop"), "header: column is missing: 'End_Timestamp'"),
        (OLD + old(start="soon"), "line 2, Start_Timestamp: not a number: 'soon'"),
        (OLD + old() + old(end=AT - 1), "line 3, End_Timestamp: not a duration: -1"),
        (OLD + old(end=AT + 10**16), "not a duration"),
        (OLD + old(start="nan"), "not a number: 'nan'"),
        (OLD + old(start=-5, end=5), "out of range: '-5'"),
        (OLD + old(start="1.5"), "line 2, Start_Timestamp: not a whole number: '1.5'"),
        (OLD + old(start=10**30), "not a number"),
        (OLD + old(sizes="256,4,1,-7,6,1"), "line 2, Grid_Size_X: out of range: '-7'"),
        (OLD + old(sizes="256,4"), "line 2: fewer values than columns: 14"),
        (OLD + old(sizes="1,1,1,1,1,1,1,1"), "line 2: more values than columns: 20"),
        (OLD + old().replace('"k"', '"k'), "line 2: not CSV"),
        (OLD + old("a\0b"), "line 2: not text: a zero byte"),
        (OLD.encode() + old("K").encode().replace(b"K", b"\xff"), "line 2: not UTF-8"),
        (OLD + old("x" * (1 << 20)), "line 2: line is too long"),
        (OLD + old("x" * (1 << 18)), "line 2: not CSV"),
    ],
)
def test_a_damaged_table_is_refused_with_its_line(table, text, says):
    with pytest.raises(InputError) as refused:
        table(text)
    assert says in str(refused.value)
    assert "kernel_trace.csv: " in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_bomb_is_refused(table, tmp_path, monkeypatch):
    bomb = gzip.compress((OLD + old() * 50_000).encode())
    assert len(bomb) < 50_000
    monkeypatch.setattr(files, "LARGEST", 1 << 20)
    with pytest.raises(InputError, match="too large"):
        table(bomb, "bomb.csv.gz")
    monkeypatch.setattr(files, "LARGEST", 1 << 30)
    monkeypatch.setattr(files, "MOST_OPERATIONS", 1000)
    with pytest.raises(InputError, match="too many operations"):
        table(bomb, "bomb.csv.gz")
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(bomb[: len(bomb) // 2])
    monkeypatch.undo()
    with pytest.raises(InputError, match="damaged or cut short"):
        rocprof_csv.read(cut, "x")


OTHERS = {
    "nsys.csv": "Time (%),Total Time (ns),Instances,Avg (ns),Name\n50,10,1,10,k\n",
    "trace.csv": "Start (ns),Duration (ns),CorrId,GrdX,Device,Strm,Name\n1,2,3,4,A,7,k\n",
    "table.csv": "kernel,calls,total_us\nk,1,10\n",
    "ncu.csv": '"ID","Process ID","Kernel Name","Metric Name","Metric Value"\n0,1,k,m,2\n',
    "counters.csv": "Correlation_Id,Agent_Id,Kernel_Name,Counter_Name,Counter_Value\n1,2,k,c,3\n",
    "ascend.csv": "Name,Type,Accelerator Core,Start Time(us),Duration(us)\nk,Add,AIV,1,2\n",
    "kineto.json": '{"schemaVersion": 1, "traceEvents": []}',
    "list.json": "[]",
    "empty.csv": "",
    "bytes.bin": "\x1f\x8b\x08 no gzip",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_not_claimed(tmp_path, name):
    file = tmp_path / name
    file.write_text(OTHERS[name], encoding="latin-1")
    assert not rocprof_csv.sniff(file)
    assert not rocprof_json.sniff(file)
    assert not rocprof_csv.sniff(tmp_path)
    assert not rocprof_json.sniff(tmp_path / "absent")


# ---------------------------------------------------------------- the JSON

API = ["hipLaunchKernel", "hipMemcpyAsync", "hipStreamSynchronize", "hipGraphLaunch", "hipMalloc"]


def record(start, end, correlation=0, **more):
    return {"kind": 0, "operation": 0, "correlation_id": {"internal": correlation, "external": 0},
            "start_timestamp": AT + start, "end_timestamp": AT + end, **more}  # fmt: skip


def api(name, start, end, correlation):
    return record(start, end, correlation, kind=1) | {"operation": API.index(name)}


def dispatch(kernel, start, end, correlation, queue=16, stream=7):
    info = {"agent_id": {"handle": 9}, "queue_id": {"handle": queue}, "kernel_id": kernel,
            "dispatch_id": correlation, "group_segment_size": 4096,
            "workgroup_size": {"x": 256, "y": 1, "z": 1},
            "grid_size": {"x": 1024, "y": 3, "z": 1}}  # fmt: skip
    return record(start, end, correlation, dispatch_info=info, stream_id={"handle": stream})


def trace(dispatches, calls=(), copies=(), marks=()):
    """A file as rocprofv3 writes it; marks are (name, start, end)."""
    symbols = [{"kernel_id": 1, "kernel_name": "_Z1kv.kd", "formatted_kernel_name": "k()",
                "arch_vgpr_count": 92, "accum_vgpr_count": 4},
               {"kernel_id": 2, "kernel_name": "Cijk_MT64.kd"}]  # fmt: skip
    tool = {
        "metadata": {"pid": 1},
        "agents": [{"id": {"handle": 8}, "type": 1, "product_name": "a CPU"},
                   {"id": {"handle": 9}, "type": 2, "name": "gfx950",
                    "product_name": "AMD Instinct MI350X"}],
        "kernel_symbols": symbols,
        "strings": {"buffer_records": [{"kind": "NONE", "operations": []},
                                       {"kind": "HIP_RUNTIME_API", "operations": API},
                                       {"kind": "MEMORY_COPY", "operations": [
                                           "MEMORY_COPY_NONE", "MEMORY_COPY_HOST_TO_DEVICE"]}],
                    "marker_api": [{"key": 900 + i, "value": m[0]} for i, m in enumerate(marks)]},
        "buffer_records": {"kernel_dispatch": list(dispatches), "hip_api": list(calls),
                           "memory_copy": list(copies),
                           "marker_api": [record(*m[1:], 900 + i) for i, m in enumerate(marks)]},
    }  # fmt: skip
    return {"rocprofiler-sdk-tool": [tool]}


@pytest.fixture
def results(tmp_path):
    """Import a JSON trace."""

    def run(content):
        file = tmp_path / "1_results.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return import_trace(file)

    return run


def test_dispatches_alone(results):
    w = results(trace([dispatch(2, 500, 1500, 2), dispatch(1, 0, 400, 1)]))
    assert w.text("kernel").tolist() == ["k()", "Cijk_MT64"]
    assert w.text("library").tolist() == ["unknown", "hipBLASLt"]
    assert w["duration_s"].tolist() == [400e-9, 1000e-9]
    assert w["start_s"].tolist() == [0, 500e-9]
    assert w["blocks"].tolist() == [12, 12]
    assert w["threads"].tolist() == [256, 256]
    assert w["registers"].tolist() == [96, 0]
    assert w["shared_memory"].tolist() == [4096, 4096]
    assert w.steps.wall_s.tolist() == [1500e-9]
    assert w.meta["device"] == "AMD Instinct MI350X"
    assert w.meta["architecture"] == "gfx950"
    assert (w.meta["host"], w.meta["launch"]) == ("unknown", "eager")


def test_hip_calls_make_the_host_lane(results):
    """Launch at 100 and 300 (work 100, then 200); wait at 400; the device ends at 1000."""
    calls = [
        api("hipMalloc", 0, 50, 1),
        api("hipLaunchKernel", 100, 120, 2),
        api("hipLaunchKernel", 300, 320, 3),
        api("hipStreamSynchronize", 400, 1100, 4),
    ]
    w = results(trace([dispatch(1, 200, 600, 2), dispatch(1, 600, 1000, 3)], calls,
                      marks=[("step#0", 0, 1300)]))  # fmt: skip
    assert w.meta["host"] == "measured"
    assert w.meta["marked_steps"] == 1
    assert w["host_s"] == pytest.approx([100e-9, 200e-9])
    assert w["sync"].tolist() == [False, True]
    assert w["presync_s"] == pytest.approx([0, 100e-9])
    assert w.steps.wall_s == pytest.approx([1300e-9])
    assert w.steps.tail_s == pytest.approx([300e-9])


def test_ranges_called_step_are_steps(results):
    work = [dispatch(1, t, t + 10, i + 1) for i, t in enumerate((5, 100, 130, 205))]
    w = results(trace(work, marks=[("step#0", 100, 150), ("other", 0, 400), ("step#1", 200, 300)]))
    assert w["step"].tolist() == [0, 0, 1]
    assert w["start_s"] == pytest.approx([0, 30e-9, 5e-9])
    assert w.meta["marked_steps"] == 2
    assert w.meta["outside_steps"] == 1
    assert w.meta["outside_steps_s"] == pytest.approx(10e-9)


def test_copies_know_their_bytes(results):
    copied = record(10, 30, 2, bytes=4096, kind=2) | {"operation": 1}
    w = results(trace([dispatch(1, 0, 5, 1)], copies=[copied]))
    r = row(w, 1)
    assert (r["kernel"], r["kind"]) == ("Memcpy HtoD (Host -> Device)", "memcpy")
    assert (r["read_activation"], r["write_activation"]) == (4096, 4096)
    assert r["stream"] != row(w, 0)["stream"]


def test_a_graph_launch_is_no_launch_per_kernel(results):
    work = [dispatch(1, 200 + 10 * i, 205 + 10 * i, 2) for i in range(8)]
    w = results(trace(work, [api("hipGraphLaunch", 100, 120, 2)]))
    assert (w.meta["launch"], w.meta["host"]) == ("graph", "unknown")


def test_a_fill_claims_no_bytes_it_does_not_know(results):
    content = trace([dispatch(1, 0, 5, 1)])
    content["rocprofiler-sdk-tool"][0]["kernel_symbols"][0]["formatted_kernel_name"] = (
        "__amd_rocclr_fillBufferAligned")  # fmt: skip
    w = results(content)
    assert (w.text("kind")[0], w.text("basis")[0]) == ("memset", "name")
    assert w.classified_busy_share == 0


def change(content, value, *path):
    changed = copy.deepcopy(content)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return changed


FINE = trace([dispatch(1, 0, 400, 1), dispatch(2, 500, 900, 2)],
             [api("hipLaunchKernel", 0, 5, 1)], [record(10, 30, 3, bytes=64, kind=2)],
             [("step#0", 0, 5000)])  # fmt: skip
TOOL = ("rocprofiler-sdk-tool", 0)
KERNELS = (*TOOL, "buffer_records", "kernel_dispatch")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (trace([]), "no kernel dispatches"),
        (json.dumps(FINE)[:-40], "JSON is cut short"),
        (json.dumps(FINE).replace('"kind"', '"kind\0'), "not JSON"),
        ('{"rocprofiler-sdk-tool": ' + "[" * 100_000, "rocprofiler-sdk-tool"),
        ('{"rocprofiler-sdk-tool": []}', "not the trace of one process: 0"),
        (change(FINE, "soon", *KERNELS, 1, "start_timestamp"),
         "kernel_dispatch[1].start_timestamp: expected `int`, got `str`"),
        (change(FINE, 10**40, *KERNELS, 1, "end_timestamp"), "kernel_dispatch[1]: not a time"),
        (change(FINE, -1, *KERNELS, 1, "start_timestamp"),
         "kernel_dispatch[1]: not a time: '-1 to"),
        (change(FINE, 5, *KERNELS, 1, "end_timestamp"), "kernel_dispatch[1]: not a time"),
        (change(FINE, -1, *KERNELS, 0, "dispatch_info", "grid_size", "x"),
         "kernel_dispatch[0]: not a launch size: -1"),
        (change(FINE, None, *KERNELS), "expected `array`, got `null`"),
        (change(FINE, -4, *TOOL, "buffer_records", "memory_copy", 0, "bytes"), "not a size: -4"),
        (change(FINE, 0, *TOOL, "buffer_records", "hip_api", 0, "end_timestamp"),
         "hip_api[0]: not a time"),
    ],
)  # fmt: skip
def test_damaged_json_is_refused_with_its_place(results, content, says):
    with pytest.raises(InputError) as refused:
        results(content)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_kernels_without_a_symbol_or_a_time_are_counted(results):
    content = change(FINE, 77, *KERNELS, 0, "dispatch_info", "kernel_id")
    w = results(change(content, [], *TOOL, "strings", "buffer_records"))
    assert w.text("kernel")[0] == "kernel 77"
    assert w.meta["unnamed_kernels"] == 1
    for field in ("start_timestamp", "end_timestamp"):
        content = change(content, 0, *KERNELS, 0, field)
    assert results(content).meta["untimed"] == 1


# ---------------------------------------------------------------- anything


def check_sound(w):
    assert isinstance(w, Workload)
    assert len(w)
    assert np.isfinite(w["duration_s"]).all()
    assert (w["start_s"] + w["duration_s"] <= w.steps.wall_s[w["step"]] * (1 + 1e-9) + 1e-12).all()


@settings(max_examples=200)
@given(st.text(max_size=30), st.integers(0, 600), st.integers(0, 40), st.booleans())
def test_any_change_of_a_table_is_refused_or_read(tmp_path, change, at, length, packed):
    text = NEW + new("a") + new("b", AT + 1000, AT + 3000, 2)
    mutated = (text[:at] + change + text[at + length :]).encode(errors="replace")
    file = tmp_path / "1_kernel_trace.csv"
    file.write_bytes(gzip.compress(mutated) if packed else mutated)
    try:
        assert len(rocprof_csv.read(file, "x")) <= 3
    except NpusimError as error:
        assert "\n" not in str(error)
    rocprof_csv.sniff(file)


ANY = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5),
    st.sampled_from([[], {}, [1], {"handle": -1}, 2**63, 10**30, -1]),
)  # fmt: skip
PLACES = [
    (*KERNELS, 0, "start_timestamp"), (*KERNELS, 0, "dispatch_info"), (*KERNELS, 0, "stream_id"),
    (*KERNELS, 0, "correlation_id"), (*KERNELS, 0, "dispatch_info", "kernel_id"),
    (*KERNELS, 0, "dispatch_info", "workgroup_size"), (*KERNELS, 0, "kind"), (*TOOL, "agents"),
    (*KERNELS, 0, "dispatch_info", "group_segment_size"), (*TOOL, "kernel_symbols"),
    (*TOOL, "buffer_records", "memory_copy", 0, "bytes"), (*TOOL, "strings"), (*TOOL, "metadata"),
    (*TOOL, "buffer_records", "hip_api", 0, "operation"), TOOL, (*TOOL, "buffer_records"),
    (*TOOL, "kernel_symbols", 0, "arch_vgpr_count"),
    (*TOOL, "buffer_records", "marker_api", 0, "end_timestamp"),
]  # fmt: skip


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(PLACES), ANY), min_size=1, max_size=2))
def test_any_value_anywhere_is_refused_or_read(tmp_path, changes):
    content = copy.deepcopy(FINE)
    for place, value in changes:
        try:
            content = change(content, value, *place)
        except (TypeError, IndexError, KeyError):
            continue  # an earlier change took the place away
    file = tmp_path / "x.json"
    file.write_text(json.dumps(content))
    try:
        check_sound(rocprof_json.read(file, "x"))
    except NpusimError as error:
        assert "\n" not in str(error)


def test_headers_are_read_even_when_blank_lines_come_first(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("\n\n a , b\n")
    assert csv_rows.header(file) == ("a", "b")


# ---------------------------------------------------------------- the real file


@pytest.mark.shared
def test_the_real_trace_keeps_every_dispatch_and_nanosecond(shared):
    file = shared / "external" / "traces" / "rocprof" / "908_results.json.gz"
    assert next(i.FORMAT for i in importers() if i.sniff(file)) == rocprof_json.FORMAT
    w = import_trace(file)
    with gzip.open(file) as stream:
        tool = json.load(stream)["rocprofiler-sdk-tool"][0]
    records = tool["buffer_records"]["kernel_dispatch"]
    spent = sum(r["end_timestamp"] - r["start_timestamp"] for r in records)
    assert len(w) == len(records) == 43915
    assert round(w["duration_s"].sum() * 1e9) == spent == 4_441_741_378
    first = min(r["start_timestamp"] for r in records)
    assert w.steps.wall_s[0] == (max(r["end_timestamp"] for r in records) - first) / 1e9
    names = {s["kernel_id"]: s["formatted_kernel_name"] for s in tool["kernel_symbols"]}
    expected = {r["dispatch_info"]["dispatch_id"]: names[r["dispatch_info"]["kernel_id"]]
                for r in records}  # fmt: skip
    assert w.text("kernel").tolist() == [expected[i] for i in sorted(expected)]
    groups = sum(np.prod([r["dispatch_info"]["grid_size"][a]
                          // r["dispatch_info"]["workgroup_size"][a] for a in "xyz"])
                 for r in records)  # fmt: skip
    assert w["blocks"].sum() == groups
    assert w.meta["device"] == "AMD Instinct MI350X"
    assert w.meta["host"] == "unknown"  # the capture has no HIP calls
    assert (w["registers"] > 0).all()
