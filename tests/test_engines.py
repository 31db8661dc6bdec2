"""Engines: the same store whoever fills it, and nothing lost when processes are killed."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from npusim.errors import InputError
from npusim.sweeps import engines
from npusim.sweeps.blocks import Store
from npusim.sweeps.engines import run
from npusim.sweeps.results import LEFT
from npusim.sweeps.task import Stopped, part
from tests.block_tasks import Broken, Deadly, Refusing, Squares, Threads, total

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")

PATH = [entry or str(Path.cwd()) for entry in sys.path]
ENGINES = {"here": {"workers": 1}, "processes": {"workers": 2}}


def contents(folder):
    """Return the bytes of every file of a store."""
    return {f.name: f.read_bytes() for f in (folder / "blocks").iterdir() if f.name != ".lock"}


def ran(folder, task, resume=False, **how):
    with Store.open(folder, task, resume) as store:
        return run(task, store, **how)


@pytest.fixture
def expected(tmp_path):
    ran(tmp_path / "expected", Squares(), workers=1)
    return contents(tmp_path / "expected")


def state(pid):
    """Return the state of a process and who started it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return "Z", 0
    return fields[0], int(fields[1])


def gone(pid):
    return state(pid)[0] == "Z"


def tracks(pid):
    """Say whether a process is the one that Python keeps beside all that it spawned."""
    try:
        return b"multiprocessing.resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def children(parent):
    """Return the running processes that a process has started."""
    running = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]
    own = {pid for pid in running if state(pid)[1] == parent and not gone(pid)}
    return {pid for pid in own if not tracks(pid)}


def until(condition, seconds=10.0):
    """Wait for something that happens soon; say whether it did."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


# ---------------------------------------------------------------- what all engines do


@pytest.mark.parametrize("engine", ENGINES)
def test_the_store_is_filled(tmp_path, engine, expected):
    heard = []
    ran(tmp_path, Squares(), progress=lambda *rows: heard.append(rows), **ENGINES[engine])
    assert contents(tmp_path) == expected
    assert heard[0] == (0, 828) and heard[-1] == (828, 828) and heard == sorted(heard)
    assert len(heard) == 9
    assert children(os.getpid()) == set()


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_there_is_not_done_again(tmp_path, engine, expected):
    task, heard = Squares(), []
    ran(tmp_path, task, workers=1, blocks=part(task.blocks, "1/2"))
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "blocks").glob("*.parquet")}
    ran(tmp_path, task, resume=True, progress=lambda *rows: heard.append(rows), **ENGINES[engine])
    assert heard[0] == (412, 828) and heard[-1] == (828, 828) and len(heard) == 5
    assert contents(tmp_path) == expected
    assert all(f.stat().st_mtime_ns == then for f, then in before.items())


@pytest.mark.parametrize("engine", ENGINES)
def test_each_block_is_reduced_where_it_is_made_or_kept(tmp_path, engine):
    task = Squares()
    ran(tmp_path, task, workers=1, blocks=part(task.blocks, "2/3"))
    sums = ran(tmp_path, task, resume=True, reduce=total, **ENGINES[engine])
    assert sums == [total(b, task.table(b.number)) for b in task.blocks]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_part_counts_for_itself(tmp_path, engine):
    task, heard = Squares(), []
    chosen = part(task.blocks, "2/4")
    ran(tmp_path, task, blocks=chosen, progress=lambda *r: heard.append(r), **ENGINES[engine])
    assert heard == [(0, 206), *([heard[1]]), (206, 206)]
    assert sorted(f.stem for f in (tmp_path / "blocks").glob("*.parquet")) == [
        "00000001",
        "00000005",
    ]


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_task_refuses_is_an_error_of_the_sweep(tmp_path, engine):
    with pytest.raises(InputError) as error:
        ran(tmp_path, Refusing(), **ENGINES[engine])
    assert str(error.value) == "clock.boost: no such design: -1"
    with Store.open(tmp_path, Refusing(), resume=True) as store:
        assert 2 not in store.done
    assert children(os.getpid()) == set()


def test_a_bug_in_a_task_keeps_its_place(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)block 2.*block_tasks\.py.*ZeroDivisionError"):
        ran(tmp_path, Broken(), workers=2)
    assert children(os.getpid()) == set()


@pytest.mark.parametrize(
    ("how", "told"),
    [({"engine": "gpu"}, r"--engine: no such engine: 'gpu' \(allowed: local, dask"),
     ({"workers": 0}, "--workers: too few workers: 0"),
     ({"workers": -3}, "--workers: too few workers"),
     ({"engine": "dask://h:1", "workers": 2}, "--workers: a cluster has its own number")],
)  # fmt: skip
def test_wrong_engines_are_told(tmp_path, how, told):
    with pytest.raises(InputError, match=told):
        ran(tmp_path, Squares(), **how)


def test_a_task_that_cannot_be_sent_is_told(tmp_path):
    task = Squares()
    with pytest.raises(InputError, match="the sweep cannot be sent to workers"):
        ran(tmp_path, task, workers=2, reduce=lambda _, table: table)


def test_workers_have_one_thread_each(tmp_path):
    ran(tmp_path, Threads(), workers=2)
    rows = pq.read_table(sorted((tmp_path / "blocks").glob("*.parquet"))).to_pandas()
    assert set(rows["said"]) == {"1/1"} and set(rows["arrow"]) == {1}
    assert os.getpid() not in set(rows["pid"]) and 1 <= rows["pid"].nunique() <= 2


def test_no_guard_is_needed(tmp_path):
    """A script without ``if __name__ == "__main__"``, from standard input: workers run no part."""
    code = f"""
import sys
sys.path[:] = {PATH!r}
print("once")
from pathlib import Path
from npusim.sweeps.blocks import Store
from npusim.sweeps.engines import run
from tests.block_tasks import Squares
with Store.open(Path({str(tmp_path)!r}), Squares()) as store:
    run(Squares(), store, workers=2)
    print(len(store.done))
"""
    done = subprocess.run([sys.executable], input=code, capture_output=True, text=True, check=True)
    assert done.stdout == "once\n8\n" and not done.stderr


# ---------------------------------------------------------------- workers that die


@pytest.mark.parametrize("times", [1, 2])
def test_a_block_of_a_dead_worker_is_done_again(tmp_path, times):
    task = Deadly(folder=str(tmp_path), times=times)
    ran(tmp_path / "out", task, workers=2)
    assert len(list(tmp_path.glob("died*"))) == times
    ran(tmp_path / "plain", Squares(), workers=1)
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")


def test_a_block_that_always_kills_is_told(tmp_path):
    task = Deadly(folder=str(tmp_path), times=9)
    with pytest.raises(InputError) as error:
        ran(tmp_path / "out", task, workers=2)
    assert str(error.value) == (
        "3 workers have died at block 3 (signal 9); killed for memory? try fewer --workers"
    )
    assert len(list(tmp_path.glob("died*"))) == 3
    with Store.open(tmp_path / "out", task, resume=True) as store:
        assert 3 not in store.done and store.done >= {0, 1, 2}
    assert children(os.getpid()) == set()


def test_workers_killed_from_outside_cost_nothing_but_time(tmp_path, expected):
    killed = []

    def progress(done, _all):
        if done > 0 and len(killed) < 3:
            killed.append(min(children(os.getpid())))
            os.kill(killed[-1], signal.SIGKILL)

    ran(tmp_path, Squares(seconds=0.05), workers=2, progress=progress)
    # a file that one was writing never got its name, and goes when the store is opened again
    named = {name: f for name, f in contents(tmp_path).items() if not name.startswith(LEFT)}
    assert len(set(killed)) == 3 and named == expected


def test_workers_that_cannot_start_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(
        engines, "command", lambda *_: [sys.executable, "-c", "raise SystemExit(7)"]
    )
    with pytest.raises(InputError, match=r"3 workers have died before they could start \(exit st"):
        ran(tmp_path, Squares(), workers=2)


# ---------------------------------------------------------------- stopping

SWEEP = """
import sys
sys.path[:] = {path!r}
from pathlib import Path
from npusim.errors import NpusimError
from npusim.sweeps.blocks import Store
from npusim.sweeps.engines import run
from npusim.sweeps.task import Stopped
from tests.block_tasks import Squares
task = Squares(count={count}, rows=20, seconds={seconds})
try:
    with Store.open(Path({folder!r}), task, resume=True) as store:
        run(task, store, workers={workers},
            progress=lambda done, rows: print(done, flush=True))
        store.finish()
except NpusimError as error:
    print(error, file=sys.stderr)
    sys.exit(getattr(error, "status", 1))
"""


@contextmanager
def sweeping(folder, count, seconds, workers=2):
    """Give a process, of a group of its own, that sweeps into a folder."""
    code = SWEEP.format(path=PATH, folder=str(folder), count=count, seconds=seconds,
                        workers=workers)  # fmt: skip
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, start_new_session=True, **pipes) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("everyone", [True, False])
def test_stopping_keeps_what_is_done(tmp_path, workers, number, status, everyone):
    """By Ctrl-C, which all processes of the group get, or a signal to the first alone."""
    with sweeping(tmp_path, 2000, 0.02, workers) as process:
        for _ in range(4):
            process.stdout.readline()
        helpers = children(process.pid)
        assert len(helpers) == (2 if workers == 2 else 0)
        start = time.monotonic()
        (os.killpg if everyone and number == signal.SIGINT else os.kill)(process.pid, number)
        told = process.communicate()[1]
        assert time.monotonic() - start < 5
    assert process.returncode == status
    assert told.count("\n") == 1 and told.startswith("stopped: ")
    assert told.endswith(f"of 2000 blocks are kept in {tmp_path}; go on with --resume\n")
    assert all(gone(helper) for helper in helpers)
    with Store.open(tmp_path, Squares(2000, 20), resume=True) as store:
        assert len(store.done) >= int(told.split()[1]) >= 3
        assert not list((tmp_path / "blocks").glob(".npusim-*"))


class Swallowing:
    """Ctrl-C arrives in a destructor, where Python drops what it raises."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_is_not_lost_in_a_destructor(tmp_path, engine):
    def progress(done, _all):
        if done:
            Swallowing()

    with pytest.raises(Stopped) as stopped:
        ran(tmp_path, Squares(), progress=progress, **ENGINES[engine])
    assert stopped.value.status == 130
    assert str(stopped.value).startswith("stopped: 1 of 8 blocks")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert children(os.getpid()) == set()


def test_stopped_says_what_is_kept():
    assert str(Stopped(37, 80, "OUT")) == (
        "stopped: 37 of 80 blocks are kept in OUT; go on with --resume"
    )


def test_killed_twenty_times_and_complete(tmp_path):
    """kill -9 of all processes at random moments, from before the start to the last block."""
    count, rng, kills = 260, random.Random(7), 0  # noqa: S311
    out = tmp_path / "out"
    for attempt in range(60):
        seconds = 0.01 if kills < 20 else 0
        with sweeping(out, count, seconds) as process:
            if kills < 20:
                # a few attempts are killed while they start, the others while they work
                if attempt % 5:
                    process.stdout.readline()
                    time.sleep(rng.uniform(0, 0.25))
                else:
                    time.sleep(rng.uniform(0, 0.5))
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                process.wait()
                continue
            assert process.communicate()[1] == "" and process.returncode == 0
            break
    assert kills == 20
    task = Squares(count, 20)
    assert [f.name for f in out.iterdir()] == ["results.parquet"]
    assert pq.read_table(out / "results.parquet").equals(task.whole())


def test_orphans_end_and_harm_nothing(tmp_path):
    """kill -9 of the first process alone: workers go, and a sweep may go on at once beside them."""
    task = Squares(60, 20)
    with sweeping(tmp_path, 60, 0.05) as process:
        for _ in range(4):
            process.stdout.readline()
        helpers = children(process.pid)
        assert len(helpers) == 2
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        ran(tmp_path, task, resume=True, workers=1)
        assert until(lambda: all(map(gone, helpers)), 5)
    ran(tmp_path / "plain", task, workers=1)
    assert contents(tmp_path) == contents(tmp_path / "plain")
