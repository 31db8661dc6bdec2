"""The Dask engine, against a scheduler and workers on loopback: the store that processes make."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest

from npusim.errors import InputError
from npusim.sweeps import dask_engine
from npusim.sweeps.blocks import Store
from npusim.sweeps.task import part
from tests.block_tasks import Broken, Deadly, Refusing, Squares, total
from tests.test_engines import PATH, SWEEP, contents, ran, until


@pytest.fixture
def impatient(monkeypatch):
    """Nothing on loopback takes the ten seconds that a far scheduler may take."""
    monkeypatch.setattr(dask_engine, "_ANSWER", 1)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def answers(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def cluster(workers, folder, nanny="--no-nanny"):
    """Give a scheduler on loopback: its address, its process and those of its workers."""
    pytest.importorskip("distributed")
    port, env = free_port(), {**os.environ, "PYTHONPATH": os.pathsep.join(PATH)}
    dask = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": env, "cwd": folder}
    with ExitStack() as stack:

        def start(*command):
            process = subprocess.Popen([*dask, *command], **quiet)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        scheduler = start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard",
                          "--no-show")  # fmt: skip
        how = [nanny, "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1"]
        started = [start("worker", f"tcp://127.0.0.1:{port}", *how) for _ in range(workers)]
        assert until(lambda: answers(port), 60)
        yield f"dask://127.0.0.1:{port}", scheduler, started


def test_a_cluster_makes_the_same_store(tmp_path):
    """Byte for byte, with one of two workers killed on the way; kept blocks are not sent."""
    task, heard = Squares(seconds=0.2), []
    with cluster(2, tmp_path) as (address, _, workers):

        def progress(*rows):
            heard.append(rows)
            if len(heard) == 4:
                workers[0].kill()

        ran(tmp_path / "plain", Squares(), workers=1)
        ran(tmp_path, task, workers=1, blocks=part(task.blocks, "1/8"))
        sums = ran(tmp_path, task, resume=True, engine=address, progress=progress, reduce=total)
        assert workers[0].poll() is not None
        assert contents(tmp_path) == contents(tmp_path / "plain") and heard[-1] == (828, 828)
        assert sums == [total(b, task.table(b.number)) for b in task.blocks]

        with pytest.raises(InputError, match="no such design: -1"):
            ran(tmp_path / "refusing", Refusing(), engine=address)
        with pytest.raises(RuntimeError, match="block 2, on the cluster"):
            ran(tmp_path / "broken", Broken(), engine=address)


def test_a_block_that_always_kills_is_told(tmp_path):
    """Workers with a nanny come again, so that there are some to be killed."""
    task = Deadly(folder=str(tmp_path), times=99)
    told = r"--engine: workers keep dying, at block \d or one that was with it: 'dask://"
    with (
        cluster(1, tmp_path, "--nanny") as (address, _, _),
        pytest.raises(InputError, match=told),
    ):
        ran(tmp_path / "out", task, engine=address)
    assert 3 <= len(list(tmp_path.glob("died*"))) <= 9  # the first time and some more


def test_a_scheduler_without_workers_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(dask_engine, "_WORKERS", 1)
    told = "--engine: the scheduler has no workers"
    with cluster(0, tmp_path) as (address, _, _), pytest.raises(InputError, match=told):
        ran(tmp_path / "out", Squares(), engine=address)


def test_workers_of_another_version_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(dask_engine, "model_version", lambda: "0.0.1+other")
    told = r"a worker has another version.*0\.0\.1\+other"
    with cluster(1, tmp_path) as (address, _, _), pytest.raises(InputError, match=told):
        ran(tmp_path / "out", Squares(), engine=address)


def test_a_cluster_can_be_stopped(tmp_path):
    with cluster(1, tmp_path) as (address, _, _):
        code = SWEEP.format(path=PATH, folder=str(tmp_path / "out"), count=500, seconds=0.02,
                            workers=f"None, engine={address!r}")  # fmt: skip
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as process:  # fmt: skip
            for _ in range(4):
                process.stdout.readline()
            process.send_signal(signal.SIGINT)
            told = process.communicate()[1]
        assert process.returncode == 130
        assert told.startswith("stopped: ") and told.count("\n") == 1


def test_a_lost_scheduler_is_told(tmp_path, monkeypatch):
    with cluster(1, tmp_path) as (address, scheduler, _):

        def progress(done, _all):
            if done > 300:
                scheduler.kill()

        monkeypatch.setattr(dask_engine, "_ANSWER", 3)

        task = Squares(40, seconds=0.05)
        with pytest.raises(InputError, match=r"connection to the scheduler is lost.*; go on with"):
            ran(tmp_path / "out", task, engine=address, progress=progress)
        with Store.open(tmp_path / "out", task, resume=True) as store:
            assert len(store.done) >= 3


def test_no_scheduler_is_told(tmp_path, capfd, impatient):
    pytest.importorskip("distributed")
    address = f"dask://127.0.0.1:{free_port()}"
    with pytest.raises(InputError, match=f"--engine: no Dask scheduler answers there: '{address}'"):
        ran(tmp_path, Squares(), engine=address)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("address", ["dask://", "dask://host", "dask://host:", "dask://host:0",
                                     "dask://host:99999", "dask://ho st:80", "dask://:80",
                                     "dask://tcp://host:80", "dask://host:80/x"])  # fmt: skip
def test_wrong_addresses_are_told(tmp_path, address):
    with pytest.raises(InputError, match="--engine: not the address of a Dask scheduler"):
        ran(tmp_path, Squares(), engine=address)


def test_without_dask_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"Dask is not installed.*pip install 'npusim\[dask\]'"):
        ran(tmp_path, Squares(), engine="dask://localhost:8786")
