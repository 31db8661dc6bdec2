import gzip
import itertools
import json
import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from npusim.errors import InputError, NpusimError
from npusim.importers import chrome_events, files, import_trace, importers, mctracer
from tests.kineto_builder import Trace

AT = 1_766_000_000_000_000_123  # nanoseconds since 1970: a float keeps only every 256th


def kernel(i=0, name="b16gemvn_kernel<64, 4, 4>", start=None, dur=9_300, cat="gpu_op", **more):
    """One device operation; by default they follow each other every 20 us."""
    args = {
        "device_id": 0,
        "queue_id": 3,
        "co_id": i,
        "grid": {"x": 64, "y": 2, "z": 1},
        "block": {"x": 256, "y": 1, "z": 1},
        "mem": {"registers_per_thread": 48, "static_shared": 1024, "dynamic_shared": 512},
    }
    ts = AT + 20_000 * i if start is None else start
    return {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": 2, "ts": ts, "dur": dur,
            "args": {**args, **more}}  # fmt: skip


def host(i=0):
    return {"ph": "X", "cat": "runtime", "name": "mcLaunchKernel", "pid": 1, "tid": 7,
            "ts": AT + 20_000 * i - 900, "dur": 800, "args": {"co_id": i}}  # fmt: skip


def text(events, closing="\n]}\n", opening='{"traceEvents":[\n'):
    return opening + ",\n".join(json.dumps(e) for e in events) + closing


@pytest.fixture
def imported(tmp_path):
    """Import a trace of some text or events."""

    def run(content, name="tracer_out-3423.json"):
        file = tmp_path / name
        content = text(content) if isinstance(content, list) else content
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return import_trace(file)

    return run


def test_device_operations_by_hand(imported):
    w = imported([host(0), kernel(0), host(1), kernel(1, "phi::RmsNormBlockSMemImpl", cat="kernel",
                                                      dur=8_401)])  # fmt: skip
    assert w.text("kind").tolist() == ["gemv", "norm"]
    assert w.text("basis").tolist() == ["name", "name"]
    assert w["duration_s"].tolist() == [9_300 / 1e9, 8_401 / 1e9]
    assert w["start_s"].tolist() == [0, 20_000 / 1e9]
    assert w.steps.wall_s.tolist() == [28_401 / 1e9]
    assert w["blocks"].tolist() == [128, 128]
    assert w["threads"].tolist() == [256, 256]
    assert w["registers"].tolist() == [48, 48]
    assert w["shared_memory"].tolist() == [1536, 1536]
    assert w.meta["format"] == "mctracer"
    assert w.meta["time_unit"] == "ns"
    assert "9.3 us" not in w.meta["time_unit_reason"]  # the median is between the two
    assert "8.851 us as ns, 8.851 ms as us" in w.meta["time_unit_reason"]
    assert (w.meta["repaired"], w.meta["lost_events"], w.meta["events"]) == (False, 0, 4)
    assert w.meta["host"] == "unknown"


def test_the_inner_name_counts_where_the_event_is_called_after_the_launch(imported):
    w = imported([kernel(name="mcLaunchKernel") | {"cat": "x"}, kernel(1)])
    assert w.text("kernel")[0] == "mcLaunchKernel"  # no inner name
    event = kernel()
    event["args"]["name"] = "flash_fwd"
    w = imported([event | {"name": "mcLaunchKernel"}, event, event | {"name": None}])
    assert w.text("kernel").tolist() == ["flash_fwd", "b16gemvn_kernel<64, 4, 4>", "flash_fwd"]


def test_queues_of_devices_are_streams(imported):
    w = imported([kernel(0), kernel(1, queue_id=5), kernel(2, device_id=1), kernel(3)])
    assert w["stream"].tolist() == [0, 1, 2, 0]


def test_events_without_sizes_still_import(imported):
    bare = {"ph": "X", "cat": "gpu_op", "name": "k", "ts": AT, "dur": 5000}
    odd = kernel(grid=[4, 5, 6], block="256", mem=None) | {"args": {"grid": [4, 5, 6]}}
    w = imported([bare, bare | {"args": None}, odd, kernel(grid=[2**31, 1, 1])])
    assert w["blocks"].tolist() == [0, 0, 120, 0]


@pytest.mark.parametrize(
    ("dur", "gap", "unit"),
    [
        (9_300, 20_000, "ns"),
        (9.3, 20.5, "us"),
        (400_000, 500_000, "ns"),
        (400, 500, "us"),
        (2, 5, "us"),
        (3_000_000, 4_000_000, "ns"),
        (600, 1000, "ns"),  # 0.6 us or 0.6 ms: both may be, ns is documented
    ],
)
def test_the_unit_follows_from_the_data(imported, dur, gap, unit):
    w = imported([kernel(i, start=1000 + i * gap, dur=dur) for i in range(50)])
    assert w.meta["time_unit"] == unit
    scale = 1e9 if unit == "ns" else 1e6
    assert w["duration_s"] == pytest.approx(np.full(50, dur / scale), rel=1e-15)
    assert ("both are plausible" in w.meta["time_unit_reason"]) == (dur == 600)


def test_a_long_capture_decides_between_plausible_kernels(imported):
    """Median 600: 0.6 us or 0.6 ms; but nobody traces for 5.6 hours."""
    w = imported([kernel(i, start=i * 10**9, dur=600) for i in range(21)])
    assert w.meta["time_unit"] == "ns"
    assert "5.556" not in w.meta["time_unit_reason"]
    assert "2e+04 s as us" in w.meta["time_unit_reason"]


def test_the_unit_can_be_given(tmp_path):
    file = tmp_path / "tracer_out-1.json"
    file.write_text(text([kernel()]))
    w = mctracer.read(file, "x", time_unit="us")
    assert (w.meta["time_unit"], w.meta["time_unit_reason"]) == ("us", "given")
    assert w["duration_s"].tolist() == [9_300 / 1e6]
    with pytest.raises(InputError, match="unknown time unit: 'ms'"):
        mctracer.read(file, "x", time_unit="ms")


def test_decimal_times_keep_their_digits(imported):
    events = [kernel(start=f"1750000000000000.{i}27", dur=f"9.{i}31") for i in range(2)]
    w = imported(events)
    assert w.meta["time_unit"] == "us"
    assert w["duration_s"].tolist() == [9.031e-6, 9.131e-6]
    assert w["start_s"] == pytest.approx([0, 0.1e-6], rel=1e-15)
    plain = text([kernel(dur=9), kernel(dur=9)]).replace(str(AT), "1750000000000000.027", 1)
    w = imported(plain.replace(str(AT), "1750000000000000.028"))
    assert w["start_s"][1] == pytest.approx(1e-9)


# ---------------------------------------------------------------- cut short

SMALL = [host(0), kernel(0), host(1), kernel(1), kernel(2, name='ö {[,]} \\ " },{')]


@pytest.mark.parametrize("closing", ["", "\n", ",", ",\n", "]", "\n]\n"])
def test_missing_brackets_are_mended(imported, closing):
    w = imported(text(SMALL, closing))
    assert len(w) == 3
    assert (w.meta["repaired"], w.meta["lost_events"]) == (True, 0)


@pytest.mark.parametrize("closing", [",\n]}\n", ",]}"])
def test_brackets_put_behind_by_hand_are_accepted(imported, closing):
    w = imported(text(SMALL, closing))
    assert (len(w), w.meta["repaired"], w.meta["lost_events"]) == (3, True, 0)


@pytest.mark.parametrize("more", ['], "displayTimeUnit": "ns"}', "]}", '],"otherData":{"a":[1]}}'])
def test_a_whole_file_is_not_mended(imported, more):
    assert imported(text(SMALL, more)).meta["repaired"] is False


def test_a_bare_list_is_read(imported):
    w = imported(text(SMALL, "]", "["))
    assert (len(w), w.meta["repaired"]) == (3, False)


@pytest.mark.parametrize("hand", ["", "]}", "\n]}\n", "]"])
def test_a_cut_anywhere_loses_the_event_it_is_in(imported, hand):
    """Cut at every byte, with and without brackets put behind by hand."""
    whole = text(SMALL).encode()
    ends, opening = [], len('{"traceEvents":[\n')
    for event in SMALL:
        ends.append((ends[-1] + 2 if ends else opening) + len(json.dumps(event)))
    for cut in range(ends[1], ends[-1], 3):
        done = sum(end <= cut for end in ends)
        started = any(a + 2 < cut < b for a, b in itertools.pairwise(ends))
        w = imported(whole[:cut] + hand.encode())
        assert w.meta["events"] == done
        assert w.meta["lost_events"] == started
        closed = cut in ends and hand.strip() == "]}"  # nothing tells that there was more
        assert w.meta["repaired"] != closed
        assert len(w) == sum(e["cat"] == "gpu_op" for e in SMALL[:done])


def test_a_cut_inside_a_character(imported):
    whole = text([kernel(0), kernel(1, name="ä" * 40)]).encode()
    whole = whole.replace(b"\\u00e4", "ä".encode())
    cut = whole.rindex("ä".encode()) + 1
    w = imported(whole[:cut])
    assert (len(w), w.meta["lost_events"]) == (1, 1)


def test_fifty_thousand_events_cut_at_random_places(imported):
    rng = random.Random(7)  # noqa: S311
    events = [kernel(i, dur=rng.randrange(2000, 500_000)) if i % 3 else host(i)
              for i in range(50_000)]  # fmt: skip
    parts = [json.dumps(e) for e in events]
    whole = text(events)
    ends = np.cumsum([len(p) + 2 for p in parts]) - 2 + len('{"traceEvents":[\n')
    assert whole[: ends[2]].endswith(parts[2])
    w = imported(whole)
    assert len(w) == 33_333
    assert round(w["duration_s"].sum() * 1e9) == sum(
        e["dur"] for e in events if e["cat"] == "gpu_op"
    )
    for cut in (int(ends[20_000]) + 50, rng.randrange(ends[100], ends[-1])):
        done = int((ends <= cut).sum())
        w = imported(whole[:cut])
        assert len(w) == sum(e["cat"] == "gpu_op" for e in events[:done])
        assert w.meta["events"] == done
        assert w.meta["lost_events"] == (cut > ends[done - 1] + 2)
        spent = sum(e["dur"] for e in events[:done] if e["cat"] == "gpu_op")
        assert round(w["duration_s"].sum() * 1e9) == spent


# ---------------------------------------------------------------- what it claims and refuses


def claimed(file):
    return next(i.FORMAT for i in importers() if i.sniff(file))


def test_it_is_found_by_what_is_in_it(tmp_path):
    file = tmp_path / "renamed.json"
    file.write_text(text([host(), kernel()]))
    assert claimed(file) == mctracer.FORMAT
    packed = tmp_path / "tracer_out.json.gz"
    packed.write_bytes(gzip.compress(text([kernel(cat="kernel")]).encode()))
    assert claimed(packed) == mctracer.FORMAT
    assert len(import_trace(packed)) == 1


@pytest.mark.parametrize("name", ["trace.json", "tracer_out-1.json"])
def test_a_kineto_trace_goes_to_kineto(tmp_path, name):
    t = Trace()
    with t.step(), t.op("aten::neg"):
        t.kernel("a")
    assert "Kineto" in claimed(t.write(tmp_path, name))


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "\0", '{"graph": []}', "gpu_op", "a,b\n1,2\n", "\x1f\x8bx"]
)
def test_other_files_are_not_claimed(tmp_path, content):
    file = tmp_path / "tracer_out-1.json"
    file.write_text(content, encoding="latin-1")
    assert not mctracer.sniff(file)
    assert not mctracer.sniff(tmp_path)
    assert not mctracer.sniff(tmp_path / "absent")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([host()], "no device operations: '1 events'"),
        ([kernel(), kernel(dur=-1)], "traceEvents[1].dur: not a time: -1"),
        ([kernel(dur=None)], "traceEvents[0].dur: not a time: None"),
        ([kernel(dur="soon")], "traceEvents[0].dur: not a time: 'soon'"),
        ([kernel(dur=True)], "traceEvents[0].dur: not a time: True"),
        ([kernel(dur=10**16)], "traceEvents[0].dur: not a time: 1"),
        ([kernel(dur=float("nan"))], "traceEvents[0].dur: not a time: nan"),
        ([kernel(start=float("inf"))], "traceEvents[0].ts: not a time: inf"),
        ([kernel(start=10**30)], "traceEvents[0].ts: not a time"),
        ([kernel(), 5], "traceEvents[1]: not an event: '5'"),
        (text([kernel()] * 4).replace('"dur"', "\0\0\0", 1), "traceEvents[0]: not JSON"),
        (text([kernel()] * 4).replace(',\n{"ph"', '\n{"ph"', 1), "no comma between events"),
        (text([kernel()] * 4).replace(',\n{"ph"', ',,\n{"ph"', 1), "traceEvents[1]: not JSON"),
        (text([kernel()], "]} and more"), "traceEvents[1]: not JSON after the events"),
        (text([kernel()], "] and more"), "not JSON after the events"),
        (text([kernel()], "}"), "traceEvents[1]: not JSON"),
        (text([kernel()], ", [") + "[" * 200_000, "traceEvents[1]: "),
        (text([kernel()], ', {"a": ') + "[" * 200_000, "traceEvents[1]: nested too deeply"),
        (text([kernel()], ', {"ts": ') + "9" * 5000 + "}]}", "thousands of digits"),
        (text([kernel()], ', {"a": "') + "x" * (3 << 20), "traceEvents[1]: not JSON: unterminated"),
        (text([kernel(name="K")]).encode().replace(b'"K"', b'"\xff"'), "not UTF-8"),
        ('{"traceEvents": {"cat": "gpu_op"}}', "no traceEvents"),
    ],
)
def test_damaged_traces_are_refused_with_their_place(imported, content, says):
    with pytest.raises(InputError) as refused:
        imported(content)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_bomb_is_refused(imported, monkeypatch):
    bomb = gzip.compress(text([kernel()] * 5000).encode())
    assert len(bomb) < 10_000
    monkeypatch.setattr(files, "LARGEST", 1 << 20)
    with pytest.raises(InputError, match="too large"):
        imported(bomb, "tracer_out-1.json.gz")
    monkeypatch.undo()
    monkeypatch.setattr(files, "MOST_OPERATIONS", 1000)
    with pytest.raises(InputError, match="too many operations"):
        imported(bomb, "tracer_out-1.json.gz")


def test_events_across_the_pieces_of_a_file(imported, monkeypatch):
    whole = [kernel(i, name=f"k{i} {'é' * (i % 50)}") for i in range(60)]
    content = "\ufeff" + text(whole).replace("\\u00e9", "é")
    pieces = files.chunks
    for size in (1, 7, 64):
        monkeypatch.setattr(
            files, "chunks", lambda path, start=0, size=size: pieces(path, size, start)
        )
        w = imported(content)
        assert len(w) == 60
        assert not w.meta["repaired"]


@settings(max_examples=300)
@example("", 20, 400, 0)
@given(st.text(max_size=20), st.integers(0, 1500), st.integers(0, 30), st.integers(0, 400))
def test_any_change_is_refused_or_read(tmp_path, change, at, length, cut):
    whole = text(SMALL)
    mutated = (whole[:at] + change + whole[at + length :]).encode(errors="replace")
    file = tmp_path / "tracer_out-1.json"
    file.write_bytes(mutated[: len(mutated) - cut])
    mctracer.sniff(file)
    try:
        w = mctracer.read(file, "x")
    except NpusimError as error:
        assert "\n" not in str(error)
    else:
        assert 1 <= len(w) <= 5
        assert np.isfinite(w["duration_s"]).all()


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_read(tmp_path, raw):
    file = tmp_path / "x.json"
    for content in (raw, b'{"traceEvents":[' + raw, b"\x1f\x8b" + raw):
        file.write_bytes(content)
        mctracer.sniff(file)
        try:
            assert all(isinstance(e, dict) for _, e in chrome_events.Events(file))
        except NpusimError as error:
            assert "\n" not in str(error)
