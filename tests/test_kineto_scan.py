"""Reading a Kineto trace in pieces, and what the host called in it."""

import gzip
import json
import multiprocessing
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.errors import InputError
from npusim.gaps import gaps
from npusim.importers import (
    event_pieces,
    import_trace,
    importer_of,
    importers,
    kineto_decoder,
    kineto_helpers,
    kineto_scan,
    nesting,
)
from npusim.importers.kineto_scan import scan
from npusim.inspection import inspection
from tests.kineto_builder import Trace, tensor

ROOT = Path(__file__).parent.parent


def small_trace(steps=3, name='k "},{" [{'):
    t = Trace()
    for i in range(steps):
        with t.step(i):
            for n in range(4):
                with t.op("aten::linear", tensor(1, 64), tensor(64 + n, 64)):
                    with t.op("aten::mm", tensor(1, 64), tensor(64, 64 + n)):
                        t.kernel(name)
                    t.call("cudaStreamSynchronize", 3)
    return t


def same(a, b):
    for group in ("operators", "runtime", "device", "marks"):
        x, y = getattr(a, group), getattr(b, group)
        for column in ("start", "length", "correlation"):
            np.testing.assert_array_equal(getattr(x, column), getattr(y, column))
        assert [a.names[n] for n in x.name] == [b.names[n] for n in y.name]
    shapes = ([json.loads(t.shapes[n]) for n in t.operators.detail] for t in (a, b))
    assert next(shapes) == next(shapes)
    assert [a.sizes[n] for n in a.device.detail] == [b.sizes[n] for n in b.device.detail]
    assert [a.threads[n] for n in a.runtime.thread] == [b.threads[n] for n in b.runtime.thread]
    assert a.events == b.events


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("indent", [None, 1])
def test_pieces_of_any_size_are_the_same_trace(tmp_path, packed, indent):
    t = small_trace()
    text = json.dumps({**t.about, "traceEvents": t.events, "traceName": "x"}, indent=indent)
    file = tmp_path / "t.json"
    file.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    whole = scan(file)
    assert whole.events == len(t.events)
    assert not whole.repaired
    for size in (1, 300, 1000, 5000):
        found = scan(file, piece_size=size)
        same(whole, found)
        assert not found.repaired


def test_a_plain_trace_really_is_read_in_pieces(tmp_path):
    file = small_trace(name="k").write(tmp_path)
    head = event_pieces.head_of(file)
    parts = list(event_pieces.pieces(file, head, 500))
    assert len(parts) > 10
    assert all(json.loads(b"[" + p.text() + b"]") for p in parts[:-1])
    assert sum(p.last for p in parts) == 1
    assert parts[-1].last


@pytest.fixture
def helped(monkeypatch):
    """Let helpers decode small traces too, from the first piece on; they may be killed."""

    def help_from(killed_after=None):
        taken = []

        class Prompt(kineto_helpers.Helper):
            def give(self, task):
                if killed_after == len(taken):
                    self.process.kill()
                    self.process.join()
                if not (self.started or self.gone):
                    self.collect(wait=True)
                taken.append(super().give(task))
                return taken[-1]

        monkeypatch.setattr(kineto_helpers, "_SMALL", 0)
        monkeypatch.setattr(kineto_helpers, "Helper", Prompt)
        return taken

    return help_from


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("most_waiting", [0, 64])
def test_side_by_side_is_the_same_trace(tmp_path, monkeypatch, helped, packed, most_waiting):
    file = small_trace(steps=100).write(tmp_path, "trace.json.gz" if packed else "trace.json")
    taken = helped()
    monkeypatch.setattr(kineto_helpers, "_MOST_WAITING", most_waiting)
    monkeypatch.setattr(event_pieces, "_WINDOW", 512)  # a packed piece is longer by that
    done = []
    found = scan(file, workers=2, tick=lambda *at: done.append(at), piece_size=2000)
    same(scan(file), found)
    assert any(taken)
    size = 0 if packed else file.stat().st_size
    assert done[-1][1] == size
    assert packed or done[-1][0] == size
    assert done == sorted(done)
    assert len(done) > 20
    assert not multiprocessing.active_children()


def test_a_helper_ends_whatever_it_is_sent(tmp_path, capfd):
    file = small_trace().write(tmp_path)
    (piece,) = event_pieces.pieces(file, event_pieces.head_of(file), 1 << 20)
    helper = kineto_helpers.Helper()
    helper.learn(kineto_decoder.decoder_of(piece))
    helper.collect(wait=True)
    helper.link.send_bytes(b"nonsense")
    helper.process.join(20)
    assert not helper.process.is_alive()
    helper.end()
    assert "Traceback" not in capfd.readouterr().err


def test_a_helper_starts_in_its_own_time(tmp_path, monkeypatch):
    """A trace that is read before there is help is read all the same."""
    monkeypatch.setattr(kineto_helpers, "_SMALL", 0)
    file = small_trace().write(tmp_path)
    same(scan(file, workers=2, piece_size=600), scan(file))


def test_pieces_and_answers_larger_than_a_pipe_do_not_block_each_other(tmp_path, helped):
    """A packed trace travels as text; its answer is as long where all names differ."""
    t = Trace()
    for i in range(3000):
        t.kernel(f"{i} " + "k" * 900)
    file = t.write(tmp_path, "t.json.gz")
    taken, found = helped(), []
    reading = threading.Thread(
        target=lambda: found.append(scan(file, workers=2, piece_size=600_000)), daemon=True
    )
    reading.start()
    reading.join(60)
    assert not reading.is_alive()
    same(found[0], scan(file))
    assert sum(taken) > 2


@pytest.mark.parametrize("packed", [False, True])
def test_one_room_is_used_for_pieces_of_any_size(tmp_path, monkeypatch, packed):
    monkeypatch.setattr(event_pieces, "PIECE", 500)
    monkeypatch.setattr(event_pieces, "_WINDOW", 250)
    text = json.dumps({"traceEvents": small_trace().events}).encode()
    file = tmp_path / "t.json"
    file.write_bytes(gzip.compress(text) if packed else text)
    head, room = event_pieces.head_of(file), event_pieces.Room()
    sizes = set()
    for size in (2000, 300, 700):
        for piece in event_pieces.pieces(file, head, size):
            assert bytes(room.text(b"<<", piece, b">")) == b"<<" + piece.text() + b">"
            sizes.add(piece.size)
    assert min(sizes) < 1000 < max(sizes)


def test_what_was_decoded_outlives_the_room_it_was_read_into(tmp_path):
    file = small_trace(steps=8).write(tmp_path)
    parts = list(event_pieces.pieces(file, event_pieces.head_of(file), 900))
    decoder, room = kineto_decoder.decoder_of(parts[0]), event_pieces.Room()
    together = [decoder.attempt(p, room)[0] for p in parts]
    room.text(b"x" * 4000, parts[0], b"")
    for one, piece in zip(together, parts, strict=True):
        alone = decoder.attempt(piece)[0]
        assert (one.names, one.threads, one.shapes, one.sizes) == (
            alone.names, alone.threads, alone.shapes, alone.sizes,
        )  # fmt: skip
        np.testing.assert_array_equal(one.device.start, alone.device.start)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_is_gone_is_said_to_be(tmp_path, workers):
    with pytest.raises(InputError, match=r"t\.json: cannot be read"):
        scan(tmp_path / "t.json", workers=workers)


def test_helpers_start_before_anything_large_is_loaded():
    code = ("import sys\nimport npusim.importers.kineto\n"
            "print('multiprocessing' in sys.modules, 'numpy' in sys.modules)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True,
                          text=True, cwd=ROOT)  # fmt: skip
    assert done.stdout.split() == ["True", "False"]


@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_helper_that_was_killed_is_replaced_by_the_reader(tmp_path, helped, after):
    """The system may kill a process for its memory: its pieces are decoded here."""
    file = small_trace(steps=8).write(tmp_path)
    taken = helped(killed_after=after)
    same(scan(file, workers=3, piece_size=600), scan(file))
    assert len(taken) > after


def test_an_error_has_the_number_of_its_event_in_whatever_piece(tmp_path, helped):
    t = small_trace(name="k")
    helped()
    for wrong, said in ((-4, ": .*-4"), ("x", "")):
        t.events[-2]["dur"] = wrong
        file = t.write(tmp_path)
        for size, workers in ((200, 1), (1 << 20, 1), (200, 2)):
            with pytest.raises(InputError, match=rf"traceEvents\[{len(t.events) - 2}\].dur{said}"):
                scan(file, workers=workers, piece_size=size)


def test_times_since_1970_keep_their_nanoseconds(tmp_path):
    """A float of microseconds since 1970 is good to a quarter of one: ours must do better."""
    start, events = Fraction(1712195495527376234, 1000), []
    for i in range(50):
        at = start + Fraction(i * 1237, 1000)
        ts = f"{int(at)}.{int(at * 1000) % 1000:03d}"
        events.append(f'{{"ph":"X","cat":"kernel","name":"k","ts":{ts},'
                      f'"dur":0.{i:03d},"pid":0,"tid":7,"args":{{"stream":7}}}}')  # fmt: skip
    file = tmp_path / "t.json"
    file.write_text('{"schemaVersion": 1, "traceEvents": [' + ",\n".join(events) + "]}")
    w = import_trace(file)
    assert w["start_s"] == pytest.approx(np.arange(50) * 1237e-9, abs=1e-13)
    assert w["duration_s"] == pytest.approx(np.arange(50) * 1e-9, abs=1e-18)


@pytest.mark.shared
def test_a_trace_of_nanosecond_resolution_keeps_it(shared):
    file = shared / ("external/traces/hta/ns_resolution_trace_rank-0.Apr_03_18_51_38.1102"
                     ".pt.trace.json.gz")  # fmt: skip
    if not file.exists():
        pytest.skip(f"{file} is not there")
    device = [e for e in json.loads(gzip.decompress(file.read_bytes()), parse_float=Fraction)[
        "traceEvents"] if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]  # fmt: skip
    t = scan(file)
    first = min(Fraction(e["ts"]) for e in device)
    exact = np.array([float(Fraction(e["ts"]) - first) for e in device])
    assert t.device.start - t.device.start.min() == pytest.approx(exact, abs=1e-6)  # a picosecond
    total = sum((Fraction(e["dur"]) for e in device), Fraction(0))
    assert float(t.device.length.sum()) == pytest.approx(float(total), rel=1e-12)


# ---------------------------------------------------------------- nesting


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 5)), max_size=40))
def test_calls_are_ordered_by_thread_and_start_and_longer_ones_first(calls):
    thread, start, length = (np.array([c[i] for c in calls], dtype=float) for i in range(3))
    found = nesting.order(thread.astype(np.int64), start, start + length)
    assert found.tolist() == sorted(
        range(len(calls)), key=lambda i: (calls[i][0], calls[i][1], -calls[i][2], i)
    )


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 30)), max_size=40))
def test_parents_are_what_a_stack_says(calls):
    thread = np.array([c[0] for c in calls], dtype=np.int64)
    start = np.array([float(c[1]) for c in calls])
    stop = start + np.array([float(c[2]) for c in calls])
    order = nesting.order(thread, start, stop)
    thread, start, stop = thread[order], start[order], stop[order]
    expected, stacks = [], {}
    for i in range(len(calls)):
        stack = stacks.setdefault(int(thread[i]), [])
        while stack and (
            stop[stack[-1]] < start[i] or (stop[stack[-1]] == start[i] and stop[i] > start[i])
        ):
            stack.pop()
        expected.append(stack[-1] if stack else -1)
        stack.append(i)
    assert nesting.parents(thread, start, stop).tolist() == expected


def test_a_nest_of_any_depth_ends(tmp_path):
    """100,000 calls, each in the one before, and 100,000 side by side."""
    n = 100_000
    zero = np.zeros(n, dtype=np.int64)
    up = np.arange(float(n))
    parent = nesting.parents(zero, up, 3.0 * n - up)
    assert parent.tolist() == list(range(-1, n - 1))
    assert nesting.depths(parent, np.arange(n)).max() == nesting.DEEPEST
    _, links = nesting.chains(parent, zero, np.array([n - 1]))
    assert len(links) <= nesting.DEEPEST + 1
    parent = nesting.parents(zero, up, np.concatenate([[2.0 * n], up[1:] + 0.5]))
    assert set(parent[1:].tolist()) == {0}


# ---------------------------------------------------------------- what the host called


def test_calls_of_one_name_one_inside_the_other_count_once(tmp_path):
    """a (b (a (a))): the outer a alone is a's total, whatever stands between."""
    t = Trace()
    with t.step(), t.op("a"), t.op("b"), t.op("a"), t.op("a"):
        t.kernel("k")
    h = import_trace(t.write(tmp_path)).host
    total = dict(zip(h.names, (h.total_s * 1e6).round(6), strict=True))
    assert total == {"a": 1 + 1 + 1 + 1 + 2 + 1 + 1 + 1 + 1, "b": 8, "cudaLaunchKernel": 2}


def test_host_costs_by_hand(tmp_path):
    t = Trace()
    with t.step():
        with t.op("aten::linear", tensor(1, 64), tensor(64, 64)):  # 1 + inner + 1
            with t.op("aten::t", tensor(64, 64)):  # 2 us, nothing inside
                pass
            with t.op("aten::mm", tensor(1, 64), tensor(64, 64)):
                t.call("cudaMalloc", 30)
        with t.op("aten::t", tensor(64, 64)), t.op("aten::t", tensor(64, 64)):
            pass  # one inside the other: 4 us, of which 2 inside
        t.now += 1
        t.kernel("k")
    with t.op("aten::outside"):
        pass
    w = import_trace(t.write(tmp_path))
    h = w.host
    columns = (h.group, h.calls.tolist(), (h.self_s * 1e6).round(6), (h.total_s * 1e6).round(6))
    host = dict(zip(h.names, zip(*columns, strict=True), strict=True))
    assert host["cudaMalloc"] == ("runtime", 1, 30, 30)
    assert host["aten::mm"] == ("operator", 1, 2, 32)
    assert host["aten::linear"] == ("operator", 1, 2, 36)
    assert host["aten::t"] == ("operator", 3, 2 + 2 + 2, 2 + 4)
    assert "aten::outside" not in host
    assert w.host.names[0] == "cudaMalloc"


@pytest.mark.shared
def test_attention_is_the_largest_cost_of_the_host_in_paddleocr_vl(shared):
    """Seed measurement: 65 % of the host's time is one operator that rebuilds its plan."""
    w = import_trace(shared / "baselines/h200/kineto/kineto_paddle_decode_b1_c628.json.gz")
    assert w.host.names[0] == "aten::_cudnn_attention_forward"
    assert w.host.self_s[0] / w.steps.wall_s.sum() == pytest.approx(0.65, abs=0.05)


# ---------------------------------------------------------------- counters instead of times


def test_ranges_of_the_counter_profiler(tmp_path):
    t = Trace()
    prefix = "smsp__sass_thread_inst_executed_op_"
    counts = {f"{prefix}{x}{op}_pred_on.sum": 0 for x in "hfd" for op in ("add", "mul", "fma")}
    for i, name in enumerate(("gemv", "__missing__")):
        with t.op("aten::mm", tensor(1, 64), tensor(64, 64)):
            t.call("cudaLaunchKernel", 4)
        args = {**counts, f"{prefix}fadd_pred_on.sum": 5, f"{prefix}ffma_pred_on.sum": 100 + i,
                "l1tex__x.sum": 3}  # fmt: skip
        t.add("cuda_profiler_range", name, 1000 + i, 121431, args, pid=0, tid=0)
    w = import_trace(t.write(tmp_path))
    assert w.text("kernel").tolist() == ["gemv", "unknown"]
    assert w.text("operator").tolist() == ["aten::mm"] * 2
    assert w["duration_s"].tolist() == [0, 0]
    assert w.counters["fp32_flop"].tolist() == [205, 207]
    assert w.counters["fp16_flop"].tolist() == [0, 0]
    assert w.meta["measured"] is False
    assert w.meta["metrics_unknown"] == ["l1tex__x.sum"]


# ---------------------------------------------------------------- steps like one another


def test_a_product_may_be_split_in_one_step_and_whole_in_the_next(tmp_path):
    t = Trace()
    for step, sums in enumerate([False, True, False, True]):
        with t.step(step), t.op("aten::mm", tensor(1, 512), tensor(512, 64)):
            t.kernel("void gemv2T_kernel_val<int>")
            if sums:
                t.kernel("void cublasLt::splitKreduce_kernel<32, 16, int, float>")
    w = import_trace(t.write(tmp_path))
    products = w.text("kind") == "gemv"
    assert w.text("routine")[products].tolist() == ["whole", "split"] * 2
    assert w["flop"][products].tolist() == [2.0 * 512 * 64] * 4


# ---------------------------------------------------------------- found among the formats


@pytest.mark.parametrize("indent", [None, 2])
def test_what_pytorch_writes_is_read_by_an_importer_loaded_alone(tmp_path, indent):
    t = small_trace(name="k")
    file = tmp_path / "t.json"
    file.write_text(json.dumps({**t.about, "traceEvents": t.events}, indent=indent))
    assert next(i for i in importers() if i.sniff(file)) is importer_of(file)
    code = (
        "import sys\nfrom npusim.importers import import_trace\n"
        "print(len(import_trace(sys.argv[1])), 'npusim.importers.kineto' in sys.modules,"
        " 'npusim.importers.chakra' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, file], check=True, capture_output=True,
                          text=True, cwd=ROOT)  # fmt: skip
    assert done.stdout.split() == ["12", "True", "False"]


# ---------------------------------------------------------------- the trace of the benchmark


def test_the_trace_of_the_benchmark_is_what_it_says(tmp_path):
    file = tmp_path / "made.json"
    maker = ROOT / "benchmarks" / "make_kineto_trace.py"
    subprocess.run([sys.executable, maker, "6000", file], check=True, capture_output=True)
    events = json.loads(file.read_text())["traceEvents"]
    assert len(events) >= 6000
    assert 310 < file.stat().st_size / len(events) < 350
    w = import_trace(file)
    assert len(w) == sum(e["cat"] == "kernel" for e in events)
    assert w.classified_busy_share == 1
    assert w.text("kind").tolist()[:7] == ["gemv"] * 7
    assert w["duration_s"].sum() == pytest.approx(
        sum(e["dur"] for e in events if e["cat"] == "kernel") * 1e-6, rel=1e-12
    )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read off /proc")
def test_a_bomb_is_refused_in_little_memory(tmp_path):
    """Gzip packs zeros a thousandfold: one endless string, and events without end."""
    head = b'{"schemaVersion": 1, "traceEvents": [{"ph": "X", "name": "'
    file = tmp_path / "bomb.json.gz"
    with gzip.open(file, "wb", compresslevel=1) as out:
        out.write(head)
        for _ in range(200):
            out.write(b"x" * (1 << 20))
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from npusim.importers import import_trace\n"
        "from npusim.errors import InputError\n"
        "try:\n    import_trace(sys.argv[1])\n"
        "except InputError as error:\n    print(error)\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(int(status.split('VmHWM:')[1].split()[0]) // 1024)\n"  # its own, not its parent's
    )
    done = subprocess.run([sys.executable, "-c", code, file], check=True, capture_output=True,
                          text=True, cwd=ROOT)  # fmt: skip
    message, peak = done.stdout.splitlines()
    assert "no event ends" in message
    assert int(peak) < 400


def test_more_than_is_taken_is_refused(tmp_path, monkeypatch):
    file = small_trace(name="k").write(tmp_path)
    monkeypatch.setattr(kineto_scan, "_MOST_CALLS", 20)
    with pytest.raises(InputError, match="too many calls of the host"):
        scan(file)


def test_steps_that_overlap_are_refused(tmp_path):
    t = Trace()
    with t.step(0):
        t.kernel("a")
        with t.step(1):
            t.kernel("b")
    with pytest.raises(InputError, match="steps overlap"):
        import_trace(t.write(tmp_path))


def test_streams_of_two_devices_are_told_apart_and_said(tmp_path):
    t = Trace()
    with t.step():
        for i in range(4):
            t.kernel(f"k{i}")["args"].update(device=i % 2, stream=7)
    w = import_trace(t.write(tmp_path))
    assert len(set(w["stream"].tolist())) == 2
    assert w["stream"][0] == w["stream"][2] == 7
    assert w.meta["devices"] == 2
    assert any("2 devices" in note for note in inspection(w)["notes"])


def test_two_launches_of_one_id_are_said(tmp_path):
    t = Trace()
    with t.step():
        t.kernel("a")
        t.call("cudaLaunchKernel", 3)
    ids = [e for e in t.events if e["cat"] == "cuda_runtime"]
    ids[1]["args"] = {"correlation": ids[0]["args"]["correlation"]}
    w = import_trace(t.write(tmp_path))
    assert w.meta["launches_of_one_id"] == 1
    assert any("correlation id" in note for note in inspection(w)["notes"])


def test_idle_time_where_the_device_works_on_after_a_step(tmp_path):
    """Steps of 10 us; the kernel of the first runs 8 us into the second, of which 2 are idle."""
    t = Trace()
    for i, (start, dur) in enumerate([(1002.0, 16.0), (1018.0, 0.0)]):
        t.now = 1000.0 + 10 * i
        with t.step(i):
            k = t.kernel("k")
            k["ts"], k["dur"] = start, dur
            t.now = 1009.0 + 10 * i
    w = import_trace(t.write(tmp_path))
    assert w.steps.wall_s == pytest.approx([1e-5, 1e-5])
    assert w.steps.start_s == pytest.approx([0, 1e-5])
    g = gaps(w)
    assert g.active_s == pytest.approx([8e-6, 8e-6])
    assert g.lead_s == pytest.approx([2e-6, 0])
    assert g.tail_s == pytest.approx([0, 2e-6])
    assert inspection(w)["idle_share"] == pytest.approx(0.2)


def test_a_call_without_a_time_launches_nothing_that_is_known(tmp_path):
    t = Trace()
    with t.step():
        t.kernel("a")
        t.kernel("b")
        t.call("cudaStreamSynchronize", 3)
    calls = [e for e in t.events if e["cat"] == "cuda_runtime"]
    del calls[0]["ts"], calls[2]["ts"]
    w = import_trace(t.write(tmp_path))
    assert sorted(w.text("kernel").tolist()) == ["a", "b"]
    assert np.isfinite(w["host_s"]).all()
    assert not w["sync"].any()


def test_counter_ranges_beside_kernels_are_counted(tmp_path):
    t = Trace()
    with t.step():
        t.kernel("a")
    t.add("cuda_profiler_range", "a", 1000, 5, {"x.sum": 1.0}, pid=0, tid=0)
    w = import_trace(t.write(tmp_path))
    assert w["duration_s"].tolist() == pytest.approx([3e-6])
    assert w.meta["counter_ranges_left_out"] == 1
