"""Output files are there whole or not at all: writing that fails keeps what was there before."""

import ast
import contextlib
import os
import resource
import stat
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from npusim import atomic, store
from npusim.atomic import whole_file, whole_folder
from npusim.capture.folder import Folder
from npusim.cli import main
from npusim.errors import InputError
from npusim.workload_file import save_workload
from tests.builder import kernel, workload
from tests.conftest import ROOT
from tests.kineto_builder import Trace, tensor
from tests.test_measured import LINEAR, table

STUDY = """title: a study
question: what is it worth?
source: made up
arch: decode_npu
sweep:
  workloads: [w.parquet]
  launch: [queue]
  axes:
    memories.dram.bandwidth: [2 TB/s, 3 TB/s]
    units.count: [60, 70]
  costs: [units.count]
"""
SERVED = """title: served
question: how fast?
source: made up
arch: rtx_4090
serving:
  model: qwen3_8b
  lowering: npu
  engine: {max_num_seqs: 4, max_num_batched_tokens: 256, max_model_len: 512, kv_blocks: 100}
  requests: {arrivals: poisson, rate_per_s: 1, count: 2, prompt: 64, output: 4}
"""
# What is written by which command, and which files are there afterwards.
COMMANDS = {
    "import": (["import", "t.json", "-o", "out/w.parquet"], ["w.parquet"]),
    "timeline": (["replay", "t.json", "--arch", "h200", "--timeline", "out/t.json"], ["t.json"]),
    "packed timeline": (["replay", "t.json", "--arch", "h200", "--launch", "graph", "--timeline",
                         "out/t.json.gz"], ["t.json.gz"]),
    "template": (["template", "qwen3_8b", "--phase", "decode", "--lowering", "npu", "-o",
                  "out/m.parquet"], ["m.parquet"]),
    "compare": (["compare", "paddleocr_vl_decode", "-o", "out/c.csv"], ["c.csv"]),
    "calibrate": (["calibrate", "table.csv", "--arch", "h200", "--free", "floor.matmul", "-o",
                   "out/c.yaml"], ["c.yaml"]),
    "report": (["inspect", "t.json", "--report", "out"], ["report.html"]),
    "serve-sim": (["serve-sim", "served.yaml", "--no-band", "-o", "out"],
                  ["summary.json", "requests.parquet"]),
    "sensitivity": (["sensitivity", "study.yaml", "--no-sobol", "-w", "w.parquet", "-o", "out"],
                    ["summary.json", "sensitivity.csv", "tornado.png"]),
}  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command where its inputs are."""
    monkeypatch.chdir(tmp_path)
    trace = Trace()
    with trace.step(), trace.op("aten::linear", tensor(4, 64), tensor(32, 64)):
        trace.kernel("gemm")
    trace.write(tmp_path, "t.json")
    save_workload(workload(kernel("k")), tmp_path / "w.parquet")
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "served.yaml").write_text(SERVED)
    table(tmp_path, *({**LINEAR, "m": m} for m in (1, 2, 4, 8)))
    (tmp_path / "out").mkdir()
    return lambda words: CliRunner().invoke(main, words, catch_exceptions=False)


@contextlib.contextmanager
def full(size=48):
    """Let no file grow beyond so many bytes: writing fails in the middle, in C code too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_cannot_write_keeps_what_was_there(run, tmp_path, monkeypatch, name):
    words, made = COMMANDS[name]
    out = tmp_path / "out"
    with full():
        done = run(words)
    assert done.exit_code == 1
    assert "cannot be written: " in done.stderr and "File too large" in done.stderr
    assert tree(out) == {}

    done = run(words)
    assert done.exit_code == 0, done.stderr
    there = tree(out)
    assert set(made) <= set(there)
    assert not [file for file in there if Path(file).name.startswith(".")]
    assert all(stat.S_IMODE((out / f).stat().st_mode) & 0o400 for f in there)

    for file in there:
        (out / file).write_bytes(b"old")
    old = tree(out)
    with full():
        done = run(words)
    assert done.exit_code == 1 and done.stderr.splitlines()[-1].startswith("error: ")
    assert tree(out) == old

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fails)
    done = run(words)
    assert done.exit_code == 1 and "No space left on device" in done.stderr
    assert tree(out) == old


WRITERS = {
    "workload": lambda file: save_workload(workload(kernel("k")), file),
    "csv": lambda file: store.save_csv(file, pd.DataFrame({"a": range(99)})),
    "json": lambda file: store.save_json(file, {"a": "x" * 99}),
    "record of a capture": lambda file: Folder(file.parent).add_record({"run": "x" * 99}),
    "wall time of a capture": lambda file: Folder(file.parent).add_wall({"case": "x" * 99}),
    "energy of a capture": lambda file: Folder(file.parent).add_energy([{"case": "x" * 99}]),
    "trace of a capture": lambda file: Folder(file.parent).add_file(
        file.name, lambda made: made.write_bytes(b"x" * 99)),
    "experiment of a capture": lambda file: Folder(file.parent).add_experiment(
        {"axis": "device"}, ["a"], [{"axis": "a", "x": "x" * 99}], {"run": "1"}),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_that_fails_leaves_nothing(tmp_path, name):
    file = tmp_path / "out.dat"
    file.write_bytes(b"old")
    with full(), pytest.raises(InputError, match="cannot be written"):
        WRITERS[name](file)
    assert tree(tmp_path) == {"out.dat": b"old"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ValueError, SystemExit])
def test_whatever_ends_writing_leaves_the_old_file(tmp_path, error):
    file = tmp_path / "a.json"
    file.write_text("old")
    with pytest.raises(error), whole_file(file) as made:
        made.write_text("half of")
        raise error
    with pytest.raises(error), whole_folder(tmp_path, ["a.json", "b.json"]) as folder:
        (folder / "a.json").write_text("half of")
        raise error
    assert tree(tmp_path) == {"a.json": b"old"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json"]


def test_a_folder_gets_all_files_of_one_run(tmp_path):
    (tmp_path / "b.csv").write_text("of an earlier run")
    (tmp_path / "mine.txt").write_text("mine")
    with whole_folder(tmp_path, ["a.csv", "b.csv"]) as made:
        (made / "a.csv").write_text("new")
    assert tree(tmp_path) == {"a.csv": b"new", "mine.txt": b"mine"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"), whole_file(tmp_path / "a"):
        pass
    tmp_path.chmod(0o700)


def test_a_check_of_a_folder_writes_nothing(tmp_path):
    atomic.check_folder(tmp_path / "new")
    assert tree(tmp_path) == {}


# ---------------------------------------------------------------- nobody writes past it

WRITES = {"write_text", "write_bytes", "to_csv", "to_parquet", "to_json", "to_excel", "savefig",
          "write_table", "ParquetWriter", "dump", "tofile", "savetxt", "savez", "writelines",
          "symlink_to", "hardlink_to"}  # fmt: skip
# Modules that may call them outside of a ``with whole_file`` or ``whole_folder`` of their own.
ELSEWHERE = {
    "cli.py": "into the help of click",
    "search_output.py": "a summary into the folder that its callers have from whole_folder",
    "capture/folder.py": "rows into the file that its callers have from whole_file",
    "capture/trace.py": "into a file of Folder.add_file",
    "capture/counters.py": "into a temporary folder, and a file of Folder.add_file",
    "importers/ncu_report_file.py": "unpacks into a temporary folder",
    "studies/figures/picture.py": "into memory",
    "sweeps/results.py": "the store of sweeps, with renames and fsync of its own",
    "sweeps/encoding.py": "into memory",
    "sweeps/blocks.py": "the lock of the store",
}


def writing_calls(node, inside=False):
    """Yield the names and lines of calls that write a file outside of a whole one."""
    if isinstance(node, ast.With):
        calls = [i.context_expr for i in node.items if isinstance(i.context_expr, ast.Call)]
        names = [getattr(c.func, "id", getattr(c.func, "attr", "")) for c in calls]
        inside = inside or any(name.startswith("whole_") for name in names)
    if isinstance(node, ast.Call) and not inside:
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        modes = [a.value for a in [*node.args, *(k.value for k in node.keywords)]
                 if isinstance(a, ast.Constant) and isinstance(a.value, str)]  # fmt: skip
        opens = name in ("open", "GzipFile") and any(set(m) & set("wax+") and len(m) < 4
                                                     for m in modes)  # fmt: skip
        if name in WRITES or opens:
            yield name, node.lineno
    for child in ast.iter_child_nodes(node):
        yield from writing_calls(child, inside)


def test_every_file_is_written_through_whole_file():
    package = ROOT / "npusim"
    found = {}
    for file in sorted(package.rglob("*.py")):
        calls = list(writing_calls(ast.parse(file.read_text(encoding="utf-8"))))
        if calls:
            found[str(file.relative_to(package))] = calls
    assert {name: calls for name, calls in found.items() if name not in ELSEWHERE} == {}
    assert set(ELSEWHERE) == set(found)
