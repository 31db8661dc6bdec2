"""Broken and hostile input: every reader refuses it in a line of text, or reads it; none hangs."""

import contextlib
import gzip
import io
import json
import math
import os
import random
import signal
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import fuzz_corpus, fuzz_mutators
from benchmarks.fuzz_corpus import FORMATS, seeds
from npusim import catalog, intake
from npusim.atomic import whole_file
from npusim.cli import main
from npusim.config import read_arch, read_setting
from npusim.errors import InputError, NpusimError
from npusim.importers import csv_rows, event_pieces, files, import_trace, ncu_csv
from npusim.parameters import PARAMETERS
from npusim.request_file import read_requests
from npusim.workload_file import load_workload, save_workload
from tests.builder import kernel, workload

NAMES = list(FORMATS)
OF_YAML = [name for name in NAMES if FORMATS[name].kind == "yaml"]
OF_JSON = [name for name in NAMES if FORMATS[name].kind == "json"]
TRACES = [name for name in NAMES if FORMATS[name].read is fuzz_corpus.read_trace]


@contextlib.contextmanager
def in_time(seconds=120):
    """Fail where a block does not come to an end."""

    def late(*_):
        pytest.fail(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def put(folder, name, content):
    """Write a file of a format and what must lie beside it."""
    of = FORMATS[name]
    path = folder / of.file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    for other, write in of.beside.items():
        (folder / other).write_bytes(write())
    return path


def read(name, path):
    """Read a file; return what it is refused with, None if it is not."""
    with in_time(), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            FORMATS[name].read(path)
        except NpusimError as error:
            text = str(error)
            assert text and all(line.isprintable() for line in text.split("\n"))
            return text
    return None


def refused(name, path):
    text = read(name, path)
    assert text is not None, f"{name}: {path.name} is read"
    return text


# ---------------------------------------------------------------- any change of any file


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10)
@given(st.integers(0, 2**63))
def test_a_broken_file_is_refused_or_read(tmp_path, name, seed):
    """Changes as benchmarks/fuzz.py makes them; it makes a hundred thousand."""
    r = random.Random(seed)  # noqa: S311
    of = FORMATS[name]
    read(name, put(tmp_path, name, fuzz_mutators.mutate(r, r.choice(seeds(name)), of.kind, False)))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8)
@given(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=12), st.integers(0, 9))
def test_any_bytes_in_a_file_are_refused_or_read(tmp_path, name, where, length, new, which):
    content = seeds(name)[which % len(seeds(name))]
    at = int(where * len(content))
    read(name, put(tmp_path, name, content[:at] + new + content[at + length :]))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner,
                                                                max_size=3),
    max_leaves=6,
)  # fmt: skip


@pytest.mark.parametrize("name", [n for n in OF_JSON if not n.startswith("requests")])
@settings(max_examples=10)
@given(VALUES, st.floats(0, 1, exclude_max=True))
def test_any_value_anywhere_is_refused_or_read(tmp_path, name, value, where):
    for content in seeds(name)[:1]:
        root = json.loads(content)
        places = fuzz_mutators._places(root)[1:]
        *path, last = places[int(where * len(places))]
        fuzz_mutators._at(root, path)[last] = value
        read(name, put(tmp_path, name, json.dumps(root).encode()))


# ---------------------------------------------------------------- YAML


@pytest.mark.parametrize("name", OF_YAML)
def test_aliases_that_expand_are_refused_before_they_do(tmp_path, name):
    text = refused(name, put(tmp_path, name, fuzz_mutators._LAUGHS + seeds(name)[0]))
    assert "aliases are not accepted" in text


@pytest.mark.parametrize("name", OF_YAML)
@pytest.mark.parametrize("tag", ["object/apply:os.system ['touch made']", "name:os.system",
                                 "object/new:os.system ['touch made']", "module:os"])  # fmt: skip
def test_tags_of_python_do_nothing(tmp_path, monkeypatch, name, tag):
    monkeypatch.chdir(tmp_path)
    text = refused(name, put(tmp_path, name, seeds(name)[0] + f"\nzz: !!python/{tag}\n".encode()))
    assert "tag is not accepted" in text
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", OF_YAML)
@pytest.mark.parametrize("opening", [b"zz: " + b"[" * 200_000, b"zz: " + b"{a: " * 100_000,
                                     b"\n".join(b" " * i + b"a:" for i in range(300)),
                                     b"- " * 100_000])  # fmt: skip
def test_deep_nesting_of_yaml_is_refused(tmp_path, name, opening):
    refused(name, put(tmp_path, name, seeds(name)[0] + b"\n" + opening))


@pytest.mark.parametrize("name", OF_YAML)
def test_merge_keys_are_refused(tmp_path, name):
    refused(name, put(tmp_path, name, seeds(name)[0] + b"\n<<: {a: 1}\n"))


def test_a_lowering_may_not_stand_on_itself_or_climb_to_nothing(tmp_path):
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    text = fuzz_corpus._LOWERING.decode()
    one.write_text(text.replace("base: npu", f"base: {other}"))
    other.write_text(text.replace("base: npu", f"base: {one}"))
    assert "stands on itself" in refused("lowering", one)
    one.write_text(text.replace("base: npu", "base: ../../../../etc/shadow.yaml"))
    assert "no such file" in refused("lowering", one)


# ---------------------------------------------------------------- JSON


@pytest.mark.parametrize("name", OF_JSON)
@pytest.mark.parametrize("deep", ["[" * 200_000, '{"a":' * 200_000, "[" * 5000 + "]" * 5000])
def test_deep_nesting_of_json_is_refused_or_read(tmp_path, name, deep):
    content = seeds(name)[0]
    for text in (deep.encode(), content.rstrip()[:-1] + b', "zz": ' + deep.encode() + b"}"):
        read(name, put(tmp_path, name, text))


@pytest.mark.parametrize("name", OF_JSON)
@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400", "1" + "0" * 400, "9" * 5000])
def test_numbers_that_are_none_are_refused_or_read(tmp_path, name, number):
    content = seeds(name)[0].decode()
    found = next(i for i, c in enumerate(content) if c.isdigit() and content[i - 1] in ": [")
    end = next(i for i in range(found, len(content)) if not content[i].isdigit())
    read(name, put(tmp_path, name, (content[:found] + number + content[end:]).encode()))


def test_half_of_a_character_in_a_trace_is_told_with_its_place(tmp_path):
    text = seeds("kineto")[0].decode().replace('"gemm_bf16"', '"\\ud800"', 1)
    assert "half of a surrogate pair" in refused("kineto", put(tmp_path, "kineto", text.encode()))


@pytest.mark.parametrize("name", ["mctracer", "chakra_json", "execution", "rocprof_json"])
def test_half_of_a_character_in_a_name_is_refused(tmp_path, name):
    text = seeds(name)[0].decode()
    known = {"mctracer": "b16gemvn_kernel<64, 4, 4>", "chakra_json": "layer1",
             "execution": "aten::addmm", "rocprof_json": "k()"}[name]  # fmt: skip
    assert known in text
    refused(name, put(tmp_path, name, text.replace(known, "\\udc80").encode()))


# ---------------------------------------------------------------- encodings, empty and packed files


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16", "utf-32", "utf-7", "nul", "bom"])
def test_wrong_encodings_are_refused_or_read(tmp_path, name, encoding):
    text = seeds(name)[0].decode("latin-1")
    raw = {"nul": lambda: text.replace(" ", "\0").encode("latin-1"),
           "bom": lambda: b"\xff\xfe" + text.encode("latin-1")}  # fmt: skip
    read(name, put(tmp_path, name, raw[encoding]() if encoding in raw else text.encode(encoding)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 4096, gzip.compress(b"", mtime=0),
                                     gzip.compress(b"", mtime=0)[:8],
                                     b"\x1f\x8b", b"\xef\xbb\xbf"])  # fmt: skip
def test_files_without_content_are_refused(tmp_path, name, content):
    if name == "captured" and not content:
        return  # the folder holds nothing yet
    refused(name, put(tmp_path, name, content))


@pytest.mark.parametrize("fill", [b"\n", b" ", b"[", b"0", b",", b'{"a":'])
def test_a_bomb_is_refused_in_time(tmp_path, fill):
    """64 MB of one thing, packed to some ten kilobytes."""
    path = tmp_path / "bomb.json"
    path.write_bytes(gzip.compress(fill * (2**26 // len(fill)), 1))
    with in_time(), pytest.raises(InputError):
        import_trace(path)


def test_blank_lines_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_rows, "_MOST_BLANK", 10)
    path = tmp_path / "table.csv"
    table = fuzz_corpus.seeds("kernel_table")[0]
    path.write_bytes(table + b"\n" * 9 + b"k,1,1,1,1,\n")
    assert len(import_trace(path)) == 6
    path.write_bytes(table + b" \r\n" * 11)
    with pytest.raises(InputError, match="too many blank lines"):
        import_trace(path)


# ---------------------------------------------------------------- time that grows with the square


def test_texts_that_are_searched_for_patterns_take_no_longer_than_they_are_long(tmp_path):
    """Each of these took minutes when every place was a beginning."""
    with in_time():
        assert not ncu_csv.is_page("x" * 400_000)
        assert ncu_csv.is_page("breakdown:sm__a.sum,lts__b.avg\n")
        path = tmp_path / "t.json"
        path.write_bytes(b'{"a":' * 200_000)
        with pytest.raises(InputError):
            event_pieces.head_of(path)
        path.write_bytes(b' \n{"a": {"b": 1}, "traceEvents" : [{"ph"')
        assert event_pieces.head_of(path).raw.endswith(b"[")


@pytest.mark.parametrize("text", fuzz_mutators.LONG)
def test_names_of_kernels_that_never_end(tmp_path, text):
    trace = fuzz_corpus.seeds("kineto")[0].decode().replace("gemm_bf16", json.dumps(text)[1:-1])
    with in_time():
        read("kineto", put(tmp_path, "kineto", trace.encode()))


# ---------------------------------------------------------------- things that are no files


@pytest.fixture
def no_file(tmp_path):
    """Make something that is not a plain file, called as one."""

    def make(kind, ending):
        path = tmp_path / f"x{ending}"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            target = {"device": "/dev/zero", "loop": path.name, "dangling": "gone",
                      "tty": "/dev/tty"}  # fmt: skip
            path.symlink_to(target[kind])
        return path

    return make


KINDS = ["pipe", "device", "folder", "loop", "dangling", "tty"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("captured", "results")])
def test_what_is_no_file_is_refused_at_once(no_file, kind, name):
    refused(name, no_file(kind, "." + FORMATS[name].file.split(".", 1)[1]))


@pytest.mark.parametrize("kind", KINDS)
def test_results_that_are_no_file_are_refused_at_once(no_file, kind):
    path = no_file(kind, "")
    refused("results", path.rename(path.with_name("results.parquet")))


@pytest.mark.parametrize("kind", KINDS)
def test_commands_refuse_what_is_no_file(no_file, kind, tmp_path):
    path = str(no_file(kind, ".json"))
    for command in (["validate", path, "--arch", "h200"], ["inspect", path], ["compare", path],
                    ["calibrate", path, "--arch", "h200", "-o", str(tmp_path / "o.yaml")],
                    ["archs", path], ["memory", path, "--memory", "24 GB"],
                    ["replay", path, "--arch", "h200"], ["diff", path, path],
                    ["sweep", path, "-o", str(tmp_path / "o")], ["serve-sim", path],
                    ["study", path, "-o", str(tmp_path / "o")]):  # fmt: skip
        with in_time():
            done = CliRunner().invoke(main, command, catch_exceptions=False)
        assert done.exit_code == 1, command
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "o").exists() and not (tmp_path / "o.yaml").exists()


@pytest.mark.parametrize("name", [n for n in NAMES if not FORMATS[n].beside])
def test_a_link_to_a_file_is_that_file(tmp_path, name):
    path = put(tmp_path, name, seeds(name)[0])
    (tmp_path / "moved").mkdir()
    path.symlink_to(path.rename(tmp_path / "moved" / path.name))
    found = [text and text.rpartition(path.name)[2] for text in
             (read(name, path), read(name, path.resolve()))]  # fmt: skip
    assert found[0] == found[1]


# ---------------------------------------------------------------- what names may not do


@pytest.mark.parametrize("name", ["../evil", "/root/evil", "a/b", "..", ".", "", "a\\b", "a\nb"])
def test_a_workload_is_not_written_where_its_own_name_leads(tmp_path, name):
    inside = tmp_path / "inside"
    inside.mkdir()
    save_workload(workload(kernel("k"), name=name), inside / "w.parquet")
    loaded = load_workload(inside / "w.parquet")
    with pytest.raises(InputError, match="name is none of a file"):
        intake.apart([loaded], inside)
    assert [t.file for t in intake.joined([loaded], inside / "x.parquet")] == [inside / "x.parquet"]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["inside", "w.parquet"]


@pytest.mark.parametrize("collection", ["archs", "workloads", "studies", "models", "lowerings",
                                        "serving"])  # fmt: skip
@pytest.mark.parametrize("name", ["../archs/h200", "..", "/", "", ".", "a\0b", "x" * 5000,
                                  "../" * 2000, "libraries/attention"])  # fmt: skip
def test_a_name_that_ships_is_no_way_to_climb(collection, name):
    with pytest.raises(InputError):
        catalog.find(collection, name)


@pytest.mark.parametrize("field", ["arch", "workloads"])
@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "/dev/zero", "../x/../y"])
def test_files_that_a_study_names_are_read_as_what_they_are_said_to_be(tmp_path, field, name):
    """A path may lead anywhere, as one on the command line; what is there is no machine."""
    text = fuzz_corpus._STUDY.decode()
    old = "arch: decode_npu" if field == "arch" else "[paddleocr_vl_decode]"
    path = tmp_path / "s.yaml"
    path.write_text(text.replace(old, f"arch: {name}" if field == "arch" else f"[{name}]"))
    done = CliRunner().invoke(main, ["sweep", str(path), "-o", str(tmp_path / "out")],
                              catch_exceptions=False)  # fmt: skip
    assert done.exit_code == 1 and done.stderr.startswith("error: ")
    assert "root:" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_link_in_the_way_of_an_output_is_replaced_and_not_followed(tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    for target in (victim, tmp_path / "gone"):
        link = tmp_path / "link.json"
        link.symlink_to(target)
        with whole_file(link) as made:
            made.write_text("new")
        assert link.read_text() == "new" and not link.is_symlink()
        link.unlink()
    assert victim.read_text() == "mine" and not (tmp_path / "gone").exists()


@pytest.mark.parametrize("target", ["/dev/null", "pipe", "loop.json"])
def test_an_output_that_is_no_file_is_refused_or_replaced(tmp_path, target):
    os.mkfifo(tmp_path / "pipe")
    link = tmp_path / "loop.json"
    link.symlink_to(target)
    with in_time():
        try:
            with whole_file(link) as made:
                made.write_text("new")
        except InputError as error:
            assert "no plain file" in str(error)
            assert link.is_symlink()
        else:
            assert target == "loop.json" and link.read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["loop.json", "pipe"]


@pytest.mark.parametrize("target", ["gone", "out"])
def test_a_folder_that_is_a_link_to_nothing_is_refused(tmp_path, target):
    (tmp_path / "out").symlink_to(target)
    (tmp_path / "w.parquet").write_bytes(seeds("workload")[0])
    done = CliRunner().invoke(main, ["inspect", str(tmp_path / "w.parquet"), "--report",
                                     str(tmp_path / "out")], catch_exceptions=False)  # fmt: skip
    assert done.exit_code in (1, 2) and "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "w.parquet"]


# ---------------------------------------------------------------- numbers that are none

NO_NUMBERS = ("nan", "inf", "-inf", "NaN", "1e999", "-1e999", "1" + "0" * 400, "0x10", "1_0", "1e",
              "--1", "", " ", "true", "null", "1" * 5000)  # fmt: skip


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_no_parameter_can_be_set_to_what_is_no_number(text):
    for path in PARAMETERS:
        with pytest.raises(InputError):
            read_setting(f"{path}={text}")


def test_no_parameter_of_a_machine_may_be_what_is_no_number(tmp_path):
    path = tmp_path / "chip.yaml"
    lines = catalog.find("archs", "mi210").read_text(encoding="utf-8").splitlines()
    at = [i for i, line in enumerate(lines) if "value: " in line and "," in line]
    assert len(at) > 40
    wrong = [".nan", ".inf", "-.inf", "1e999", "'nan'", "1" + "0" * 400, "[1]", "null"]
    for i, number in zip(at, wrong * len(at), strict=False):
        head, _, rest = lines[i].partition("value: ")
        broken = [*lines[:i], f"{head}value: {number}{rest[rest.index(',') :]}", *lines[i + 1 :]]
        path.write_text("\n".join(broken), encoding="utf-8")
        with pytest.raises(NpusimError, match=f"line {i + 1}"):
            read_arch(path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 1e308])
@pytest.mark.parametrize("column", ["duration_s", "host_s", "flop", "read_weight", "start_s"])
def test_no_column_of_a_workload_may_be_what_is_no_number(tmp_path, column, value):
    with pytest.raises(InputError):
        save_workload(workload(kernel("k", **{column: value}) if column != "duration_s" else
                               {"kernel": "k", "duration_s": value}),
                      tmp_path / "w.parquet")  # fmt: skip
        load_workload(tmp_path / "w.parquet")


@pytest.mark.parametrize(
    ("meta", "said"),
    [({"devices": "two"}, "devices"), ({"notes": 7}, "notes"), ({"transforms": {"x": 1}}, "'x'"),
     ({"page": {"parts": [{"name": "decode"}], "new": 1}}, "times"), ({"units": -4}, "units"),
     ({"host": ["measured"]}, "host"), ({"experts": "many"}, "experts")],
)  # fmt: skip
def test_provenance_of_another_kind_is_refused_by_its_key(tmp_path, meta, said):
    path = tmp_path / "w.parquet"
    save_workload(workload(kernel("k")).renamed("w", **meta), path)
    with pytest.raises(InputError, match=said):
        load_workload(path)


def test_a_log_of_requests_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "log.csv")
    with in_time(), pytest.raises(InputError, match="not a file"):
        read_requests(tmp_path / "log.csv")


def test_words_of_the_file_cannot_move_the_cursor():
    error = InputError("no column", file="a\x1b[2Jb", value="\x1b]0;x\x07", allowed="a\r, \x9b",
                       hint="\u202e")  # fmt: skip
    assert str(error).isprintable()


def test_nothing_but_plain_files_is_looked_into(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with in_time():
        assert files.head(tmp_path / "pipe") == b""
        assert files.archive(Path("/dev/zero")) is None


def test_a_number_of_tokens_of_any_size_is_refused_by_its_line(tmp_path):
    log = tmp_path / "log.jsonl"
    for number in ("1" + "0" * 400, "1e400", "-1", "1.5", "true", "NaN"):
        log.write_text(f'{{"arrival_s": 0, "prompt": {number}, "output": 4}}')
        with pytest.raises(InputError, match="line 1"):
            read_requests(log)


def test_a_number_of_thousands_of_digits_in_a_chakra_trace(tmp_path):
    text = seeds("chakra_json")[3].decode()
    assert '"int64Val": "1000000"' in text
    read("chakra_json", put(tmp_path, "chakra_json", text.replace("1000000", "9" * 5000).encode()))


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    path = put(tmp_path, "study", fuzz_corpus._STUDY.replace(b"decode_npu", b"x" * 70_000, 1))
    assert "not a path" in refused("study", path)


def results_with(tmp_path, column=None, **about):
    """Write the results of a sweep with another column, or another description."""
    data = pq.read_table(io.BytesIO(seeds("results")[0]))
    told = json.loads(data.schema.metadata[b"npusim.sweep"]) | about
    if column is not None:
        name, values = column
        at = data.column_names.index(name)
        data = data.set_column(at, name, pa.array([values] * data.num_rows))
    data = data.replace_schema_metadata({b"npusim.sweep": json.dumps(told).encode()})
    pq.write_table(data, tmp_path / "results.parquet")
    return tmp_path / "results.parquet"


def test_results_of_a_sweep_are_compared(tmp_path):
    assert read("results", results_with(tmp_path)) is None


@pytest.mark.parametrize(
    ("how", "said"),
    [({"column": ("wall_s", "x")}, "wall_s: not numbers"),
     ({"column": ("wall_s", -1.0)}, "wall_s: not a time"),
     ({"column": ("wall_s", math.nan)}, "wall_s: not a time"),
     ({"column": ("wall_low_s", math.inf)}, "wall_low_s: not a time"),
     ({"column": ("allowed", 1)}, "allowed: not true or false"),
     ({"column": ("allowed", False)}, "holds no designs"),
     ({"workloads": 7}, "description is damaged"), ({"axes": []}, "description is damaged"),
     ({"axes": {"gone": {}}}, "gone: column is missing"), ({"name": None}, "description"),
     ({"made_by": {}}, "description"), ({"made_by": {"workloads": ["x"]}}, "description"),
     ({"made_by": {"workloads": [{"given": 4}]}}, "description")],
)  # fmt: skip
def test_results_that_are_damaged_are_refused_by_what_is_wrong(tmp_path, how, said):
    assert said in refused("results", results_with(tmp_path, **how))
