import csv
import io
import json
import sqlite3
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.errors import InputError, NpusimError
from npusim.importers import import_trace, kernel_table, nsys_csv, nsys_sqlite, sqlite_tables, sums
from npusim.inspection import inspection

# ---------------------------------------------------------------- an export, built by hand

KERNEL = [
    "start", "end", "deviceId", "streamId", "correlationId", "globalPid", "demangledName",
    "shortName", "registersPerThread", "gridX", "gridY", "gridZ", "blockX", "blockY", "blockZ",
    "staticSharedMemory", "dynamicSharedMemory", "graphNodeId",
]  # fmt: skip
OLD = [c for c in KERNEL if c not in ("globalPid", "staticSharedMemory", "graphNodeId")]
PID = 281477392629760


class Export:
    """An Nsight Systems export with the columns that tests need."""

    def __init__(self, columns=KERNEL):
        self.columns, self.strings, self.kernels = columns, {}, []
        self.copies, self.fills, self.calls, self.ranges = [], [], [], []
        self.gpu = "NVIDIA H200"

    def text(self, value):
        return self.strings.setdefault(value, len(self.strings) + 5)

    def kernel(self, name, start, end, correlation=None, **more):
        row = dict.fromkeys(self.columns, 0) | {
            "start": start, "end": end, "correlationId": correlation, "globalPid": PID,
            "demangledName": self.text(name), "shortName": self.text("short"), "streamId": 7,
            "gridX": 4, "gridY": 2, "gridZ": 1, "blockX": 64, "blockY": 2, "blockZ": 1,
            "registersPerThread": 32, "dynamicSharedMemory": 1024, "graphNodeId": None,
        } | more  # fmt: skip
        self.kernels.append([row[c] for c in self.columns])

    def call(self, name, start, end, correlation=0, pid=PID):
        self.calls.append((start, end, pid + 144, correlation, self.text(name)))

    def range(self, name, start, end, pid=PID, by_id=False):
        text = (None, self.text(name)) if by_id else (name, None)
        self.ranges.append((start, end, pid + 144, *text))

    def write(self, folder, name="a.sqlite"):
        path = folder / name
        path.unlink(missing_ok=True)
        db = sqlite3.connect(path)
        fill(db, "CUPTI_ACTIVITY_KIND_KERNEL", self.columns, self.kernels)
        fill(db, "StringIds", ["id", "value"], [(i, text) for text, i in self.strings.items()])
        copied = ["start", "end", "deviceId", "streamId", "correlationId", "globalPid", "bytes"]
        for table, kind, rows in (("MEMCPY", "copyKind", self.copies), ("MEMSET", "v", self.fills)):
            if rows:
                fill(db, f"CUPTI_ACTIVITY_KIND_{table}", [*copied, kind], rows)
        called = ["start", "end", "globalTid", "correlationId", "nameId"]
        fill(db, "CUPTI_ACTIVITY_KIND_RUNTIME", called, self.calls)
        fill(db, "NVTX_EVENTS", ["start", "end", "globalTid", "text", "textId"], self.ranges)
        fill(db, "TARGET_INFO_GPU", ["id", "name"], [(3, "another"), (0, self.gpu)])
        db.commit()
        db.close()
        return path


def fill(db, table, columns, rows):
    names = ", ".join(f'"{c}"' for c in columns)
    db.execute(f"CREATE TABLE {table} ({names})")
    marks = ", ".join("?" * len(columns))
    db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608


def row(w, i):
    found = {c: w[c][i] for c in w.columns}
    return found | {c: w.text(c)[i] for c in w.labels}


def sound(w):
    for column in ("duration_s", "start_s", "host_s", "presync_s", "shared_memory"):
        assert np.isfinite(w[column]).all()
        assert (w[column] >= 0).all()
    assert 0 <= w.classified_busy_share <= 1 + 1e-9
    json.dumps(inspection(w), allow_nan=False)


def waiting():
    """One step of two kernels; the host waits for the first. All times in ns."""
    e = Export()
    e.range("step#0", 1000, 11_000)
    e.call("cudaLaunchKernel_v7000", 1500, 1700, 1)
    e.kernel("nvjet_tst_64x8", 2000, 5000, 1)
    e.call("cudaStreamSynchronize_v3020", 2200, 5100)
    e.call("cuLaunchKernelEx", 6000, 6100, 2)
    e.kernel("my_kernel", 6200, 7000, 2)
    return e


def test_a_kernel_of_an_export(tmp_path):
    w = import_trace(waiting().write(tmp_path))
    r = row(w, 0)
    assert (r["kernel"], r["kind"], r["library"], r["basis"]) == (
        "nvjet_tst_64x8", "gemm", "cuBLAS", "name")  # fmt: skip
    assert (r["blocks"], r["threads"], r["registers"], r["shared_memory"], r["stream"]) == (
        8, 128, 32, 1024, 7)  # fmt: skip
    assert w["duration_s"].tolist() == [3000 / 1e9, 800 / 1e9]
    assert w["start_s"].tolist() == [1000 / 1e9, 5200 / 1e9]  # from the start of the step
    assert (w["flop"] == 0).all()
    assert row(w, 1)["kind"] == "unknown"
    assert w.meta["device"] == "NVIDIA H200"
    assert (w.meta["format"], w.meta["launch"], w.meta["host"]) == (
        "nsys_sqlite", "eager", "measured")  # fmt: skip


def test_the_host_works_and_waits(tmp_path):
    w = import_trace(waiting().write(tmp_path))
    # 1000 to the launch at 1500; waiting from 2200 until the kernel ends at 5000; launch at 6000
    assert w["host_s"] == pytest.approx([500e-9, 1000e-9])
    assert w["presync_s"] == pytest.approx([700e-9, 0])
    assert w["sync"].tolist() == [True, False]
    assert w.steps.tail_s == pytest.approx([5000e-9])
    assert w.steps.wall_s == pytest.approx([10_000e-9])


def test_times_since_1970_keep_their_nanoseconds(tmp_path):
    late = 1_779_782_330_176_752_435
    e = Export()
    e.kernel("a", late, late + 1)
    e.kernel("b", late + 3, late + 10)
    w = import_trace(e.write(tmp_path))
    assert w["start_s"].tolist() == [0, 3e-9]
    assert w["duration_s"].tolist() == [1e-9, 7e-9]
    assert w.steps.wall_s.tolist() == [10e-9]
    assert w.meta["host"] == "unknown"


@pytest.mark.parametrize("by_id", [False, True])
def test_steps_are_ranges_and_the_rest_is_counted(tmp_path, by_id):
    e = Export()
    for i in range(2):
        name = f"ProfilerStep#{i}" + (", op_id = 9" if i else "")
        e.range(name, 1000 * i, 1000 * i + 900, by_id=by_id)
        e.call("cudaLaunchKernel", 1000 * i + 10, 1000 * i + 20, i + 1)
        e.kernel("k", 1000 * i + 950, 1000 * i + 960, i + 1)  # runs after its step, is of it
    e.range("steps#7", 0, 5000)
    e.kernel("between", 940, 945)
    w = import_trace(e.write(tmp_path))
    assert w["step"].tolist() == [0, 1]
    assert w.meta["marked_steps"] == 2
    assert (w.meta["outside_steps"], w.meta["outside_steps_s"]) == (1, 5e-9)


def test_every_process_has_its_own_host_and_correlations(tmp_path):
    e = Export()
    for at, pid in enumerate((PID, PID + (1 << 24))):
        e.call("cudaLaunchKernel", 100 + at, 110, 1, pid=pid)
        e.kernel(f"k{at}", 200 + at, 300 + at, 1, globalPid=pid, deviceId=at)
    w = import_trace(e.write(tmp_path))
    assert w["step"].tolist() == [0, 1]
    assert w["stream"].tolist() == [7, 1_000_007]
    assert w.steps.wall_s.tolist() == [200e-9, 200e-9]
    assert (w.meta["processes"], w.meta["devices"], w.meta["marked_steps"]) == (2, 2, 0)
    assert w.meta["host"] == "measured"


def test_an_old_export_has_fewer_columns(tmp_path):
    e = Export(OLD)
    e.call("cudaLaunchKernel", 10, 20, 1)
    e.kernel("k", 30, 40, 1)
    w = import_trace(e.write(tmp_path))
    assert (w["shared_memory"][0], w["registers"][0]) == (1024, 32)
    assert w.meta["host"] == "measured"
    e = Export(["start", "end", "shortName"])
    e.kernel("ignored", 30, 40)
    assert import_trace(e.write(tmp_path)).text("kernel").tolist() == ["short"]


def test_copies_and_fills_move_their_bytes(tmp_path):
    e = waiting()
    e.copies = [(7100, 7200, 0, 7, 8, PID, 4096, 1), (7300, 7400, 0, 7, 9, PID, 0, 99)]
    e.fills = [(7500, 7600, 0, 7, 10, PID, 64, 0)]
    w = import_trace(e.write(tmp_path))
    assert w.text("kernel").tolist()[2:] == ["Memcpy HtoD", "Memcpy", "Memset"]
    assert w["read_activation"].tolist()[2:] == [4096, 0, 0]
    assert w["write_activation"].tolist()[2:] == [4096, 0, 64]
    assert w.classified.tolist()[2:] == [True, False, True]  # of one the size is not known


def test_nodes_of_a_graph_share_its_launch(tmp_path):
    e = Export()
    e.call("cudaGraphLaunch_v10000", 0, 90, 5)
    for i in range(3):
        e.kernel("k", 100 + 10 * i, 105 + 10 * i, 5, graphNodeId=i + 1)
    w = import_trace(e.write(tmp_path))
    assert (w.meta["launch"], w.meta["host"]) == ("graph", "unknown")


# ---------------------------------------------------------------- exports that are none


def change(path, *statements):
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


K = "CUPTI_ACTIVITY_KIND_KERNEL"
UPDATE, DELETE = f"UPDATE {K} SET", "DELETE FROM"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (f"DROP TABLE {K}", "no CUDA kernels were recorded; run nsys profile with --trace=cuda"),
        (f"ALTER TABLE {K} DROP COLUMN start", f"{K}.start: column is missing"),
        (f"ALTER TABLE {K} RENAME TO CUPTI_ACTIVITY_KIND_GRAPH_TRACE", "--cuda-graph-trace=node"),
        (f"{UPDATE} shortName = 1, demangledName = 999999",
         "row 1: name is not in StringIds: 999999"),
        ("DROP TABLE StringIds", "StringIds: no such table"),
        (f"{UPDATE} end = 1999", "row 1: not a duration: -1 (allowed: 0 to"),
        (f"{UPDATE} end = 9000000000000000000", "row 1, end: not a time"),
        (f"{UPDATE} start = 'soon'", "row 1, start: not a time: 'soon'"),
        (f"{UPDATE} start = NULL", "row 1, start: not a time: None"),
        (f"{UPDATE} start = x'00ff'", "row 1, start: not a time"),
        (f"{UPDATE} start = 2000.5", "row 1, start: not a time: 2000.5"),
        (f"{DELETE} {K}", "no device operations"),
        ("UPDATE CUPTI_ACTIVITY_KIND_RUNTIME SET end = 0", "RUNTIME, row 1: not a duration"),
        ("UPDATE NVTX_EVENTS SET start = 20000, end = 20001", "no device operation lies inside"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_export(tmp_path, statement, message):
    path = waiting().write(tmp_path)
    change(path, statement)
    with pytest.raises(InputError) as raised:
        import_trace(path)
    assert str(raised.value).startswith(str(path))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_numbers_that_only_describe_may_be_anything(tmp_path):
    path = waiting().write(tmp_path)
    change(path, f"{UPDATE} gridX = 'x', blockX = -1, registersPerThread = NULL, "
                 "streamId = 99999999999, correlationId = 'x'")  # fmt: skip
    w = import_trace(path)
    assert w["blocks"].tolist() == w["threads"].tolist() == w["registers"].tolist() == [0, 0]
    sound(w)


def test_text_of_the_file_is_not_run(tmp_path):
    endless = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
               "SELECT i AS start, i AS end, 'x' AS shortName FROM n")  # fmt: skip
    path = waiting().write(tmp_path)
    change(path, f"DROP TABLE {K}", f"CREATE VIEW {K} AS {endless}")
    with pytest.raises(InputError, match="no CUDA kernels"):
        import_trace(path)
    path = waiting().write(tmp_path, "b.sqlite")
    change(path, "DROP TABLE StringIds", "CREATE VIRTUAL TABLE StringIds USING fts5(id, value)")
    with pytest.raises(InputError, match="StringIds: no such table"):
        import_trace(path)
    path = waiting().write(tmp_path, "c.sqlite")
    change(path, f"ALTER TABLE {K} DROP COLUMN graphNodeId",
           f"ALTER TABLE {K} ADD COLUMN graphNodeId AS (abs(-9223372036854775808))")  # fmt: skip
    assert len(import_trace(path)) == 2  # a computed column is not read


def test_a_file_has_no_more_rows_than_room(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_tables, "_LEAST_ROW", 1 << 20)
    with pytest.raises(InputError, match="more rows than it has room for"):
        import_trace(waiting().write(tmp_path))


def test_too_many_operations(tmp_path, monkeypatch):
    monkeypatch.setattr(nsys_sqlite, "_MOST_ROWS", 1)
    with pytest.raises(InputError, match=r"too many operations \(allowed: up to 1\)"):
        import_trace(waiting().write(tmp_path))


def test_files_that_are_no_export(tmp_path):
    path = tmp_path / "a.sqlite"
    path.write_bytes(np.random.default_rng(1).bytes(5000))  # as an encrypted file looks
    with pytest.raises(InputError, match="not a SQLite file"):
        import_trace(path)
    path.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    with pytest.raises(InputError, match="SQLite file is cut short"):
        import_trace(path)
    path.write_bytes(b"SQLite format 3\0" + b"\0" * 5000)
    with pytest.raises(InputError, match="not a SQLite file"):
        import_trace(path)
    other = tmp_path / "other.sqlite"
    change(other, "CREATE TABLE a (b)")
    assert not nsys_sqlite.sniff(other)
    report = tmp_path / "a.nsys-rep"
    report.write_bytes(b"\1\2\3")
    with pytest.raises(InputError, match="nsys export --type sqlite"):
        import_trace(report)
    assert not nsys_sqlite.sniff(tmp_path)
    assert not nsys_sqlite.sniff(tmp_path / "missing.sqlite")


def many():
    e = waiting()
    for i in range(400):
        e.kernel(f"kernel {i % 7}", 8000 + i, 8000 + i + 1, 100 + i)
        e.call("cudaLaunchKernel", 7000 + i, 7001 + i, 100 + i)
    return e


def test_a_cut_export_is_refused(tmp_path):
    raw = many().write(tmp_path).read_bytes()
    path = tmp_path / "cut.sqlite"
    for length in range(16, len(raw) - 1, 3333):
        path.write_bytes(raw[:length])
        with pytest.raises(InputError) as raised:
            import_trace(path)
        assert str(path) in str(raised.value)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)),
             min_size=1, max_size=8)
)  # fmt: skip
def test_any_bytes_of_an_export_are_refused_or_read(tmp_path, changes):
    if not (tmp_path / "a.sqlite").exists():
        many().write(tmp_path)
    raw = bytearray((tmp_path / "a.sqlite").read_bytes())
    for where, value in changes:
        raw[int(where * len(raw))] = value
    path = tmp_path / "mutated.sqlite"
    path.write_bytes(raw)
    try:
        sound(import_trace(path))
    except NpusimError as error:
        assert "\n" not in str(error)


ANYTHING = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary()


@settings(max_examples=150)
@given(st.sampled_from(["CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_RUNTIME", "StringIds",
                        "NVTX_EVENTS", "TARGET_INFO_GPU", "CUPTI_ACTIVITY_KIND_MEMCPY"]),
       st.integers(0, 17), ANYTHING)  # fmt: skip
def test_any_value_in_any_cell_is_refused_or_read(tmp_path, table, column, value):
    e = waiting()
    e.copies = [(7100, 7200, 0, 7, 8, PID, 4096, 1)]
    path = e.write(tmp_path)
    db = sqlite3.connect(path)
    names = [r[1] for r in db.execute(f"PRAGMA table_info({table})")]
    try:
        db.execute(f'UPDATE {table} SET "{names[column % len(names)]}" = ?', (value,))  # noqa: S608
    except UnicodeEncodeError:
        db.close()
        return
    db.commit()
    db.close()
    try:
        sound(import_trace(path))
    except NpusimError as error:
        assert "\n" not in str(error)


# ---------------------------------------------------------------- CSV: kernel sums

SUM = """Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name
75.0,100,3,33.3,33.0,30,40,4.0,"void flash::flash_fwd_kernel<(int)1, (int)2>(T1)"
25.0,200,1,200.0,200.0,200,200,0.0,gemv
"""


@pytest.fixture
def given_text(tmp_path):
    """Import a text as a file."""

    def run(text, name="a.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return import_trace(path)

    return run


def test_a_kernel_sum_is_laid_end_to_end(given_text):
    w = given_text(SUM)
    kernel = "void flash::flash_fwd_kernel<(int)1, (int)2>(T1)"
    assert w.text("kernel").tolist() == [kernel] * 3 + ["gemv"]
    # 100 ns over three, rounded down to ps; the last one takes what is left
    assert w["duration_s"].tolist() == [33.333e-9, 33.333e-9, 33.334e-9, 200e-9]
    assert w["start_s"] == pytest.approx([0, 33.333e-9, 66.666e-9, 100e-9])
    assert w.steps.wall_s.tolist() == [300e-9]
    assert w["layer"].tolist() == [-1] * 4  # three attentions in a row are not three layers
    assert w.text("kind").tolist() == ["attention"] * 3 + ["gemv"]
    assert (w.meta["note"], w.meta["host"]) == ("kernel sums: order and spread unknown", "unknown")
    assert w.meta["listed_percent"] == 100
    assert (w["host_s"] == 0).all()


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 10**12)), min_size=1, max_size=5))
def test_times_add_up_to_the_nanosecond(tmp_path, rows):
    lines = [f"1.0,{total},{calls},k{i}" for i, (calls, total) in enumerate(rows)]
    path = tmp_path / "sum.csv"
    path.write_text("Time (%),Total Time (ns),Instances,Name\n" + "\n".join(lines))
    w = import_trace(path)
    for i, (calls, total) in enumerate(rows):
        times = w["duration_s"][w.mask("kernel", f"k{i}")]
        assert len(times) == calls
        assert times.sum() == pytest.approx(total * 1e-9, abs=5e-10, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + SUM,
        SUM.replace("\n", "\r\n"),
        "Processing [a.sqlite] with [cuda_gpu_kern_sum.py \"x\"]... \n\n" + SUM,
        "\n ** CUDA GPU Kernel Summary (cuda_gpu_kern_sum):\n\n" + SUM + "\n\n"
        "Processing [a.sqlite] with [cuda_gpu_mem_time_sum.py]...\nTime (%),Total Time (ns)\n1,2\n",
        "Time (%),Total Time (ns),Num Calls,Name\n1.0,5,1,cudaFree\n\n" + SUM,
        SUM.replace("100,3", '"0,100",3').replace('"0,100"', "100"),
        SUM.replace("25.0,200,", '25.0,"200",'),
        SUM.replace("Time (%)", "Time(%)").replace("Avg (ns)", "Average").replace(
            "Total Time (ns)", "Total Time"),
        SUM.replace("Total Time (ns)", "Total Time (us)").replace("100,3", "0.1,3").replace(
            "200,1", ".2,1"),
        SUM.replace("Total Time (ns)", "Total Time (ms)").replace("100,3", "1e-4,3").replace(
            "200,1", "0.0002,1"),
        SUM.replace("Name", "Operation"),
        SUM.rstrip("\n"),
        SUM.replace("\n25", "\n\n  \n25"),
    ],
)  # fmt: skip
def test_one_sum_in_many_spellings(given_text, text):
    w = given_text(text)
    assert w["duration_s"].tolist() == [33.333e-9, 33.333e-9, 33.334e-9, 200e-9]


def test_a_sum_redirected_by_powershell(given_text):
    assert len(given_text(SUM, encoding="utf-16")) == 4


def test_thousands_separators_and_grids(given_text):
    text = ('Time (%),Total Time (ns),Instances,GridXYZ,BlockXYZ,Name\n'
            '100.0,"1,234,567",1,"  10    2    1"," 128    1    1",k\n')  # fmt: skip
    w = given_text(text)
    assert w["duration_s"].tolist() == [1_234_567e-9]
    assert (w["blocks"].tolist(), w["threads"].tolist()) == ([20], [128])
    with pytest.raises(InputError, match="line 2, GridXYZ: not a size: 'x'"):
        given_text(text.replace("  10    2    1", "x"))


# ---------------------------------------------------------------- CSV: the GPU trace

NEW = (
    "Start (ns),Duration (ns),CorrId,GrdX,GrdY,GrdZ,BlkX,BlkY,BlkZ,Reg/Trd,StcSMem (MB),"
    "DymSMem (MB),Bytes (MB),Throughput (MB/s),SrcMemKd,DstMemKd,Device,Ctx,GreenCtx,Strm,Name"
)
TRACE = NEW + """
60000,450,102,64,4,1,256,1,1,64,0.001,0.002,,,,,NVIDIA A100 (0),1,,7,"gemm_kernel(double *, int)"
1000,50240,101,,,,,,,,,,8.389,167.0,Pageable,Device,NVIDIA A100 (0),1,,7,[CUDA memcpy HtoD]
61000,50,103,1,1,1,32,1,1,16,0.000,0.000,,,,,NVIDIA A100 (1),1,,9,my_kernel
"""  # fmt: skip


def test_a_gpu_trace(given_text):
    w = given_text(TRACE)
    assert w.text("kernel").tolist() == [
        "[CUDA memcpy HtoD]", "gemm_kernel(double *, int)", "my_kernel"]  # fmt: skip
    assert w.text("kind").tolist() == ["memcpy", "gemm", "unknown"]
    assert w["duration_s"].tolist() == [50240e-9, 450e-9, 50e-9]
    assert w["start_s"].tolist() == [0, 59000e-9, 60000e-9]
    assert w.steps.wall_s.tolist() == [60050e-9]
    assert w["read_activation"].tolist() == [8_389_000, 0, 0]
    r = row(w, 1)
    assert (r["blocks"], r["threads"], r["registers"], r["shared_memory"]) == (256, 256, 64, 3000)
    assert w["stream"].tolist() == [7, 7, 1_000_009]
    assert (w.meta["device"], w.meta["devices"]) == ("NVIDIA A100", 2)
    assert (w.meta["launch"], w.meta["host"]) == ("eager", "unknown")
    assert (w["layer"] == -1).all()


def test_a_gpu_trace_of_older_versions(given_text):
    rows = "100.5,30,11,2,1,1,64,1,1,24,16,1024,,NVIDIA A100 (0),1,7,void k<float>(float*)\n"
    head = NEW.replace(" (MB)", " (byte)").replace("(ns)", "(us)").replace("GreenCtx,", "")
    w = given_text(head.replace("Throughput (MB/s),SrcMemKd,DstMemKd,", "") + "\n" + rows)
    assert w["duration_s"].tolist() == [30e-6]
    assert w["shared_memory"].tolist() == [1040]
    w = given_text("Start,Duration,CorrId,Strm,Name\n5,7,1,2,k\n9,1,1,2,k\n")
    assert w["duration_s"].tolist() == [7e-9, 1e-9]
    assert w.meta["launch"] == "graph"  # two operations of one call


def test_starts_since_1970_keep_their_nanoseconds(given_text):
    w = given_text("Start (ns),Duration (ns),CorrId,Strm,Name\n"
                   "1779782330176752435,1,1,2,k\n1779782330176752438,1,2,2,k\n")  # fmt: skip
    assert w["start_s"].tolist() == [0, 3e-9]


# ---------------------------------------------------------------- CSV that is none

DAMAGED = [
    (SUM.replace("25.0,200", "25.0,x"), "line 3, Total Time (ns): not a number: 'x'"),
    (SUM.replace("200,1", "-200,1"), "line 3, Total Time (ns): out of range: '-200'"),
    (SUM.replace("200,1", "nan,1"), "not a number: 'nan'"),
    (SUM.replace("200,1", "inf,1"), "not a number: 'inf'"),
    (SUM.replace("200,1", "1e16,1"), "out of range: '1e16'"),
    (SUM.replace("200,1", "1e999,1"), "not a number: '1e999'"),
    (SUM.replace("200,1", "1_0,1"), "not a number: '1_0'"),
    (SUM.replace("200,1", "٣,1"), "not a number"),
    (SUM.replace("200,1", ",1"), "line 3, Total Time (ns): no time: ''"),
    (SUM.replace("200,1", "9" * 70 + ",1"), "not a number"),
    (SUM.replace("200,1", '"1,2",1'), "not a number: '1,2'"),
    (SUM.replace("200,1", "200,0"), "line 3, Instances: out of range: '0'"),
    (SUM.replace("200,1", "200,1.5"), "Instances: not a whole number: '1.5'"),
    (SUM.replace("200,1", "200,-"), "Instances: no count: '-'"),
    (SUM.replace("200,1", "200,10000000"), "too many kernel calls to lay out: 10000003"),
    (SUM.replace("200,1", "200," + "9" * 15), "too many kernel calls to lay out"),
    (SUM.replace(",gemv", ","), "line 3, Name: no name"),
    (SUM.replace(",gemv", ""), "line 3: row is cut short or damaged: '8 cells' (allowed: 9)"),
    (SUM.replace(",gemv", ",a,b"), "line 3: row is cut short or damaged: '10 cells'"),
    (SUM[: SUM.index("(int)2")], "line 2: not CSV: 'unexpected end of data'"),
    (SUM[: SUM.index("(int)2")] + "\n" * 200_000, "not CSV: 'field larger than field limit"),
    (SUM.replace("gemv", '"a"b'), "line 3: not CSV"),
    (SUM.replace("(ns)", "(weeks)"), "Total Time (weeks): unknown unit of time: 'weeks'"),
    (SUM.splitlines()[0], "no kernels"),
    (SUM + "1,1,1,1,1,1,1,1," + "k" * (1 << 20), "line 4: line is too long"),
    (SUM.replace("200,1", "9e14,1").replace("100,3", "9e14,3"), "times add up to too much"),
    (TRACE.replace("60000,450", "60000,-1"), "line 2, Duration (ns): out of range: '-1'"),
    (TRACE.replace("60000,450", "1e30,450"), "line 2, Start (ns): out of range"),
    (TRACE.replace("256,1,1,64", "256,1,1,x"), "line 2, Reg/Trd: not a number: 'x'"),
    (TRACE.replace("(MB)", "(furlong)"), "unknown unit of size: 'furlong'"),
    (TRACE.replace(",my_kernel", ""), "line 4: row is cut short or damaged"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), DAMAGED)
def test_what_is_wrong_with_a_report(given_text, tmp_path, text, message):
    with pytest.raises(InputError) as raised:
        given_text(text)
    assert str(raised.value).startswith(str(tmp_path / "a.csv"))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_report_that_is_not_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(SUM.encode() + b"1,1,1,1,1,1,1,1,\xff\n")
    with pytest.raises(InputError, match="not UTF-8 text"):
        import_trace(path)
    path.write_bytes(b"\xff\xfe" + SUM.encode("utf-16-le")[:-1])
    with pytest.raises(InputError):
        import_trace(path)
    with pytest.raises(InputError, match="no header of a kernel table"):
        nsys_csv.read(tmp_path_with(path, "a,b\n1,2\n"), "x")
    with pytest.raises(InputError, match="no header of a kernel table"):
        nsys_csv.read(tmp_path_with(path, "x\n" * 100_000 + SUM), "x")
    with pytest.raises(InputError, match="cannot be read"):
        nsys_csv.read(tmp_path / "missing.csv", "x")


def tmp_path_with(path, text):
    path.write_text(text)
    return path


def test_too_many_rows_of_a_trace(given_text, monkeypatch):
    monkeypatch.setattr(nsys_csv, "_MOST_ROWS", 2)
    with pytest.raises(InputError, match=r"line 4: too many operations \(allowed: up to 2\)"):
        given_text(TRACE)


OTHERS = {
    "ascend": "Device_id,Name,Type,Accelerator Core,Start Time(us),Duration(us),Wait Time(us),"
              "Block Dim\n0,MatMul,MatMul,AI_CORE,1.0,2.0,0.1,20",
    "ascend_summary": "Op Name,OP Type,Task Type,Task Start Time(us),Task Duration(us)\na,b,c,1,2",
    "ascend_statistic": "Device_id,OP Type,Core Type,Count,Total Time(us),Ratio(%)\n0,a,b,1,2,3",
    "rocprofv3": '"Kind","Agent_Id","Queue_Id","Kernel_Name","Correlation_Id","Start_Timestamp",'
                 '"End_Timestamp"\n"KERNEL_DISPATCH",4,1,"k",1,10,20',
    "rocprofv3_stats": '"Name","Calls","TotalDurationNs","AverageNs","Percentage"\n"k",1,2,2,100',
    "ncu": '"ID","Process ID","Kernel Name","Context","Stream","Metric Name","Metric Unit",'
           '"Metric Value"\n"0","1","k","1","7","Duration","us","1"',
    "ncu_raw": '"ID","Kernel Name","gpu__time_duration.sum"\n"","","ns"\n"0","k","100"',
    "nsys_api": "Time (%),Total Time (ns),Num Calls,Avg (ns),Name\n1.0,5,1,5.0,cudaFree",
    "nsys_memory": "Time (%),Total Time (ns),Count,Avg (ns),Operation\n1.0,5,1,5.0,[CUDA memset]",
    "validate": "op,m,n,k,dtype,latency_us\nlinear,1,2,3,bf16,4.0",
    "kineto": json.dumps({"traceEvents": [{"name": SUM}]}, indent=1),
    "json": json.dumps({"a": TRACE}),
    "empty": "",
    "nulls": SUM.replace("gemv", "\0"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_left_to_others(tmp_path, name):
    path = tmp_path / "a.csv"
    path.write_text(OTHERS[name])
    assert not any(i.sniff(path) for i in (nsys_csv, kernel_table, nsys_sqlite))


@settings(max_examples=300)
@given(
    st.sampled_from([SUM, TRACE]),
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 12),
                  st.text(max_size=4) | st.sampled_from(
                      [",", '"', "\n", "\r", "-1", "nan", "1e9", "\0", "999999999", "\ufeff"])),
        min_size=1, max_size=4,
    ),
)  # fmt: skip
def test_any_text_is_refused_or_read(tmp_path, monkeypatch, text, changes):
    monkeypatch.setattr(sums, "MOST_CALLS", 1000)
    for where, length, new in changes:
        at = int(where * len(text))
        text = text[:at] + new + text[at + length :]
    path = tmp_path / "mutated.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        sound(import_trace(path))
    except NpusimError as error:
        assert "\n" not in str(error)
    try:
        nsys_csv.read(path, "x")
    except NpusimError as error:
        assert str(path) in str(error)


# ---------------------------------------------------------------- the measured files


def seed(shared, stage):
    return (shared / "external" / "seed_dsocr_rtx5090" / "nsys"
            / f"{stage}_cuda_gpu_kern_sum.csv")  # fmt: skip


@pytest.mark.shared
def test_deepseek_ocr_decode_on_an_rtx_5090(shared):
    w = import_trace(seed(shared, "decode"))
    tokens = 64
    kinds = Counter(w.text("kind").tolist())
    assert kinds["gemv"] == 293 * tokens
    assert kinds["activation"] == w.mask("kernel", *named(w, "silu")).sum() == 78 * tokens
    means = w.mask("kernel", *named(w, "MeanOps"))
    assert means.sum() == 25 * tokens  # one mean of squares an RMS norm
    assert set(w.text("kind")[means]) == {"reduction"}
    assert kinds["attention"] == w.mask("kernel", *named(w, "flash_fwd_splitkv_kernel")).sum()
    assert kinds["attention"] == kinds["attention_combine"] == 12 * tokens
    assert "unknown" not in kinds
    assert w["duration_s"].sum() == pytest.approx(179_072_697e-9, abs=5e-10)
    assert w["duration_s"].sum() / tokens == pytest.approx(2.80e-3, abs=5e-6)


def named(w, part):
    return [label for label in w.labels["kernel"] if part in label]


@pytest.mark.shared
@pytest.mark.parametrize("stage", ["decode", "sam", "clip", "projector"])
def test_a_measured_sum_keeps_every_call_and_nanosecond(shared, stage):
    path = seed(shared, stage)
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    w = import_trace(path)
    assert len(w) == sum(int(r["Instances"]) for r in rows)
    total = sum(int(r["Total Time (ns)"]) for r in rows)
    assert w["duration_s"].sum() == pytest.approx(total * 1e-9, abs=5e-10)
    assert not w.mask("kind", "unknown").any()
    assert w.meta["listed_percent"] == pytest.approx(100, abs=1)


@pytest.mark.shared
def test_a_measured_export_keeps_all_its_device_time(shared):
    path = shared / "external" / "traces" / "nsys_sqlite" / "mfu_2gpu_before.sqlite"
    w = import_trace(path)
    db = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    count = total = moved = 0
    for table in ("KERNEL", "MEMCPY", "MEMSET"):
        query = f"SELECT count(*), sum(end - start) FROM CUPTI_ACTIVITY_KIND_{table}"  # noqa: S608
        n, ns = db.execute(query).fetchone()
        count, total = count + n, total + ns
    moved = db.execute("SELECT sum(bytes) FROM CUPTI_ACTIVITY_KIND_MEMCPY").fetchone()[0]
    db.close()
    assert len(w) == count == 5299
    assert w["duration_s"].sum() == pytest.approx(total * 1e-9, abs=1e-9)
    assert w["read_activation"].sum() == moved
    assert np.bincount(w["step"]).sum() == count
    assert len(w.steps) == w.meta["processes"] == w.meta["devices"] == 2
    assert w.meta["host"] == "measured"
    assert w.mask("kind", "collective").sum() == 66
    assert not w.mask("kind", "unknown").any()
    work = np.zeros(2)
    np.add.at(work, w["step"], w["host_s"] + w["presync_s"])
    assert (work + w.steps.tail_s <= w.steps.wall_s * 1.0001).all()
    sound(w)
