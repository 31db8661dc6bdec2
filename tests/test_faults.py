"""Full disks, read-only places, kills, clocks that go back, two at once: nothing is lost."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from npusim.atomic import UNFINISHED, reason, whole_file, whole_folder
from npusim.cli import main
from npusim.errors import InputError
from npusim.studies import run as studies
from npusim.workload_file import save_workload
from tests.builder import kernel, workload

NO_ROOM = os.strerror(errno.ENOSPC)
STUDY = """title: a study
question: what is it worth?
source: made up
arch: decode_npu
sweep:
  workloads: [w.parquet]
  launch: [LAUNCH]
  axes:
    memories.dram.bandwidth: {start: 1 TB/s, stop: 4 TB/s, steps: 64}
    units.count: {start: 60, stop: 123, steps: 64}
  costs: [units.count]
"""
SWEEP = ["sweep", "study.yaml", "--no-figures", "--json", "-o"]
FILES = ["comparison.csv", "pareto.csv", "results.parquet"]
KEPT = "; what is done is kept, go on with --resume"


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Run npusim where a small study is."""
    monkeypatch.chdir(tmp_path)
    save_workload(workload(kernel("k")), tmp_path / "w.parquet")
    (tmp_path / "study.yaml").write_text(STUDY.replace("LAUNCH", "queue"))
    return lambda *words: CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def whole(cli, tmp_path):
    """Return the files of a sweep that nothing disturbed."""
    assert cli(*SWEEP, "whole").exit_code == 0
    return tree(tmp_path / "whole")


def tree(folder):
    """Return the results in a folder; the summary holds how long it took."""
    return {name: (folder / name).read_bytes() for name in FILES}


def refused(done, *words):
    """Check that a command ended with one line that says so many things."""
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert str(word) in line, (word, line)


def filling(monkeypatch, room):
    """Have a disk on which so many files have room; return what makes more room."""
    left, sync = [room], os.fsync

    def full(handle):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, NO_ROOM)
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    return lambda: monkeypatch.setattr(os, "fsync", sync)


# ---------------------------------------------------------------- full disks


@pytest.mark.parametrize("room", range(1, 14, 2))
def test_a_sweep_goes_on_when_there_is_room(cli, tmp_path, monkeypatch, whole, room):
    """Full at its description, a block, the results, the tables beside them."""
    more = filling(monkeypatch, room)
    refused(cli(*SWEEP, "out"), "out", f"cannot be written: {NO_ROOM}")
    more()
    assert not list(tmp_path.rglob("*.npusim-*")) and not list(tmp_path.rglob(f"{UNFINISHED}*"))
    assert cli(*SWEEP, "out", "--resume").exit_code == 0
    assert tree(tmp_path / "out") == whole


def test_a_full_disk_in_a_block_says_how_to_go_on(cli, monkeypatch):
    filling(monkeypatch, 5)
    done = cli(*SWEEP, "out")
    refused(done, "out/blocks/0000000", f"cannot be written: {NO_ROOM}{KEPT}")
    assert len(list(Path("out/blocks").glob("*.parquet"))) >= 1


@pytest.fixture
def small_disk(tmp_path):
    """Give a folder with a file system of its own, and what sets its size or how it is mounted."""
    disk, mount = tmp_path / "disk", shutil.which("mount")
    disk.mkdir()

    def mounted(*options):
        command = [mount, "-t", "tmpfs", "-o", ",".join(options), "none", disk]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if mount is None or not mounted("size=40k"):
        pytest.skip("a file system cannot be mounted here")
    yield disk, lambda *options: mounted("remount", *options)
    subprocess.run([shutil.which("umount"), disk], check=True)


def test_a_disk_that_is_really_full(cli, small_disk, whole):
    disk, remount = small_disk
    before = {}
    for size in ("40k", "100k", "160k", "220k"):
        assert remount(f"size={size}")
        done = cli(*SWEEP, disk / "out", "--resume")
        if done.exit_code == 0:
            break
        refused(done, disk / "out", f"cannot be written: {NO_ROOM}")
        kept = {f.name: f.read_bytes() for f in disk.rglob("0*.parquet")}
        assert before.items() <= kept.items() or (disk / "out/results.parquet").exists()
        before = kept
    assert remount("size=20m")
    assert cli(*SWEEP, disk / "out", "--resume").exit_code == 0
    assert tree(disk / "out") == whole


def test_a_disk_that_is_read_only(cli, small_disk, whole):
    disk, remount = small_disk
    assert remount("size=20m") and cli(*SWEEP, disk / "out").exit_code == 0
    assert remount("ro")
    try:
        refused(cli(*SWEEP, disk / "out"), disk / "out", "Read-only file system")
        refused(cli("compare", disk / "out", "-o", disk / "c.csv"), disk / "c.csv", "Read-only")
        assert tree(disk / "out") == whole
        assert cli("compare", disk / "out", "--json").exit_code == 0
    finally:
        remount("rw")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    "words",
    [SWEEP, ["search", "study.yaml", "-o"], ["sensitivity", "study.yaml", "--no-sobol", "-o"],
     ["inspect", "w.parquet", "--report"], ["study", "host", "-o"],
     ["template", "qwen3_8b", "--phase", "decode", "--lowering", "npu", "-o"]],
    ids=lambda words: words[0])  # fmt: skip
def test_a_place_where_not_even_root_may_write(cli, words):
    refused(
        cli(*words, "/proc/npusim/out.parquet"), "/proc/npusim/out.parquet", "cannot be written"
    )


@pytest.mark.parametrize("room", [1, 2, 4])
def test_a_full_disk_leaves_all_of_earlier_studies(tmp_path, monkeypatch, room):
    for name in ("verdicts.csv", "index.html"):
        (tmp_path / name).write_text("earlier")
    monkeypatch.setattr(studies, "decide", lambda *_: ())
    more = filling(monkeypatch, room)
    with pytest.raises(InputError, match=f"cannot be written: {NO_ROOM}") as error:
        studies.run([], {}, tmp_path, figures=False)
    assert str(error.value).startswith(str(tmp_path)) and UNFINISHED not in str(error.value)
    assert {f.name: f.read_text() for f in tmp_path.iterdir()} == {
        "verdicts.csv": "earlier", "index.html": "earlier"}  # fmt: skip
    more()
    studies.run([], {}, tmp_path, figures=False)
    assert all(f.read_text() != "earlier" for f in tmp_path.iterdir())


def test_a_folder_is_named_by_where_its_files_go(tmp_path):
    with (
        pytest.raises(InputError) as error,
        whole_folder(tmp_path, ["a/b.csv"]) as made,
        whole_file(made / "a" / "b.csv"),
    ):
        raise OSError(errno.ENOSPC, NO_ROOM)
    assert str(error.value) == f"{tmp_path}/a/b.csv: cannot be written: {NO_ROOM}"
    assert list(tmp_path.iterdir()) == []


def test_arrow_is_not_quoted_when_a_file_cannot_grow(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="errno 27") as error:
            pq.write_table(pa.table({"a": range(100_000)}), tmp_path / "a.parquet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert reason(error.value) == os.strerror(errno.EFBIG)


# ---------------------------------------------------------------- killed

PATH = [entry or str(Path.cwd()) for entry in sys.path]
WRITING = """
import sys
sys.path[:] = {path!r}
from pathlib import Path
from npusim.atomic import whole_file, whole_folder
folder = Path({folder!r})
with whole_file(folder / "a.json") as file, whole_folder(folder, ["b.csv"]) as made:
    file.write_text("half")
    (made / "b.csv").write_text("half")
    print("writing", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_writer_leaves_is_removed_by_the_next(tmp_path, number):
    (tmp_path / "a.json").write_text("old")
    code = WRITING.format(path=PATH, folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as writer:  # fmt: skip
        try:
            assert writer.stdout.readline() == "writing\n"
            with whole_file(tmp_path / "mine.json") as file:
                file.write_text("mine")
            # It is alive: what it holds is not taken from it.
            assert len(list(tmp_path.glob(f"{UNFINISHED}*"))) == 2
        finally:
            writer.send_signal(number)
    assert (tmp_path / "a.json").read_text() == "old"
    with whole_file(tmp_path / "mine.json") as file:
        file.write_text("again")
    found = {f.name: f.read_text() for f in tmp_path.iterdir()}
    assert found == {"a.json": "old", "mine.json": "again"}


def test_a_sweep_that_is_killed_goes_on(cli, tmp_path):
    """kill -9 of `npusim sweep` with two workers, after its first block."""
    (tmp_path / "study.yaml").write_text(STUDY.replace("LAUNCH", "eager"))
    assert cli(*SWEEP, "whole").exit_code == 0
    command = [sys.executable, "-m", "npusim", *SWEEP, "out", "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PATH)}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as sweep:
        while sweep.poll() is None and not list(tmp_path.glob("out/blocks/0*.parquet")):
            time.sleep(0.002)
        sweep.kill()
    Path("out/blocks").mkdir(parents=True, exist_ok=True)
    assert cli(*SWEEP, "out", "--resume").exit_code == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


POOL = """
import os, sys, time
sys.path[:] = {path!r}
from npusim.errors import InputError
from npusim.studies.processes import processes
try:
    with processes(2) as pool:
        list(pool.map(os._exit, [9, 9]))
except InputError as error:
    print(error)
try:
    with processes(2) as pool:
        asleep = [pool.submit(time.sleep, 1000) for _ in range(4)]
        raise KeyboardInterrupt
except KeyboardInterrupt:
    print("stopped")
with processes(2) as pool:
    print(pool.submit(os.getpid).result(), flush=True)
    list(pool.map(time.sleep, [1000, 1000]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_processes_of_studies_end_with_it(number):
    """One that dies is told; Ctrl-C waits for none; none outlives the first process."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    command = [sys.executable, "-c", POOL.format(path=PATH)]
    with subprocess.Popen(command, **pipes) as first:
        late = threading.Timer(60, first.kill)
        late.start()
        try:
            said = [first.stdout.readline() for _ in range(3)]
        finally:
            late.cancel()
            first.send_signal(number)
        first.communicate(timeout=60)  # ends when all that have its output have
    died = "a worker has died; killed for memory? try fewer --workers\n"
    assert said[:2] == [died, "stopped\n"]
    assert int(said[2]) != first.pid


HOLD = """
import sys, time
from pathlib import Path
sys.path[:] = {path!r}
from npusim.atomic import whole_file
from npusim.cli import main

@main.command()
def hold():
    with whole_file(Path("x")) as temporary:
        temporary.write_text("half")
        print("at it", flush=True)
        time.sleep(1000)

main(["hold"])
"""


def test_a_command_that_is_terminated_leaves_nothing_unfinished(tmp_path):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    with subprocess.Popen([sys.executable, "-c", HOLD.format(path=PATH)], **pipes) as held:
        assert held.stdout.readline() == "at it\n"
        held.terminate()
        assert held.communicate(timeout=60) == ("", "")
    assert held.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- two at once


def test_a_second_sweep_on_a_folder_is_refused_with_its_name(cli, tmp_path, monkeypatch, whole):
    """The first is at its third block; then it ends, and its lock is no obstacle."""
    told, sync = [], os.fsync

    def second(handle):
        sync(handle)
        if not told and len(list(Path("out/blocks").glob("*.parquet"))) == 3:
            told.append(None)
            told[0] = cli(*SWEEP, "out", "--resume")

    monkeypatch.setattr(os, "fsync", second)
    assert cli(*SWEEP, "out").exit_code == 0
    refused(told[0], "out/blocks: another sweep is at work in this folder; wait for it")
    assert tree(tmp_path / "out") == whole
    Path("out/blocks").mkdir()
    Path("out/blocks/.lock").write_text("")
    assert cli(*SWEEP, "out").exit_code == 0
    assert tree(tmp_path / "out") == whole


def test_two_writers_of_one_file_are_both_whole(tmp_path):
    target = tmp_path / "w.parquet"
    with whole_file(target) as first:
        first.write_text("first")
        with whole_file(target) as second:
            second.write_text("second")
        assert target.read_text() == "second"
    assert target.read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


# ---------------------------------------------------------------- damaged stores


@pytest.fixture
def stopped(cli, tmp_path, monkeypatch):
    """Give the store of a sweep that a full disk has stopped."""
    more = filling(monkeypatch, 8)
    assert cli(*SWEEP, "out").exit_code == 1
    more()
    inside = tmp_path / "out" / "blocks"
    assert len(list(inside.glob("*.parquet"))) >= 2
    return inside


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: f.unlink(),
        lambda f: os.truncate(f, 100),
        lambda f: os.truncate(f, 0),
        lambda f: f.write_bytes(b"x" * 999),
    ],
)
def test_a_block_that_is_spoilt_or_gone_is_done_again(cli, tmp_path, whole, stopped, spoil):
    spoil(sorted(stopped.glob("*.parquet"))[0])
    assert cli(*SWEEP, "out", "--resume").exit_code == 0
    assert tree(tmp_path / "out") == whole


def test_a_store_of_other_models_says_so(cli, stopped):
    file = stopped / "sweep.json"
    said = json.loads(file.read_text())
    said["id"] = "0" * 32
    said["about"]["made_by"]["model"] = "0.0.1+abc"
    file.write_text(json.dumps(said))
    hint = "finish it with the npusim that began it, remove the folder, or give another -o"
    refused(cli(*SWEEP, "out", "--resume"), "out/blocks", "by other models, 0.0.1+abc (", hint)
    said["about"] = []
    file.write_text(json.dumps(said))
    refused(cli(*SWEEP, "out", "--resume"), "sweep.json: damaged; remove the folder and sweep")


# ---------------------------------------------------------------- clocks


def test_a_clock_that_goes_back_changes_nothing(cli, tmp_path, monkeypatch, whole, stopped):
    """Files are from the future, and each look at the clock is earlier than the last."""
    for file in stopped.iterdir():
        os.utime(file, (4e9, 4e9))
    now = [2e9]

    def back():
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", back)
    assert cli(*SWEEP, "out", "--resume").exit_code == 0
    assert tree(tmp_path / "out") == whole
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["seconds"] > 0
