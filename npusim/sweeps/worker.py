"""A process that evaluates blocks and writes their files, for `npusim.sweeps.engines`.

It is started bare (``python -c``) and told by pipe what to do, so a program that sweeps needs no
guarded entry point, and a notebook sweeps as well. It ends when it is told to, when the pipe
closes, and at once when the process that started it is gone, whatever it is doing.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from npusim.errors import NpusimError

if TYPE_CHECKING:
    import pyarrow as pa

    from npusim.sweeps.blocks import Writer
    from npusim.sweeps.task import Block, Task

# What numerical libraries read when they are loaded: one block a process is all there is to do.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
     "VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")  # fmt: skip

Reduce = Callable[["Block", "pa.Table"], Any]


def serve(pipe: int, alive: int) -> None:
    """Answer requests until the pipe closes.

    Parameters
    ----------
    pipe : int
        File descriptor: the job and then blocks come in, what became of them goes out.
    alive : int
        File descriptor that reads as ended when the starting process is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process decides
    threading.Thread(target=_watch, args=(alive,), daemon=True).start()
    connection = Connection(pipe)
    try:
        connection.send(("hello", None, None))
        job = connection.recv_bytes()
        try:
            task, writer, reduce = _loaded(job)
        except Exception as error:  # whatever a foreign class raises
            told = f"the task cannot be loaded in a worker: {error}"
            connection.send(("refused", None, f"{told}; define its class in a module"))
            return
        connection.send(("ready", None, None))
        while (asked := connection.recv()) is not None:
            connection.send(_answer(task, writer, reduce, *asked))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _watch(alive: int) -> None:
    """End this process, whatever it is doing, when the one that started it has."""
    os.read(alive, 1)
    os._exit(1)


def _loaded(job: bytes) -> tuple[Task, Writer, Reduce | None]:
    import pyarrow as pa  # noqa: PLC0415 the environment has to say how many threads first

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    task, writer, reduce = pickle.loads(job)  # noqa: S301 from the process that started this one
    return task, writer, reduce


def _answer(
    task: Task, writer: Writer, reduce: Reduce | None, block: Block, kept: bool
) -> tuple[str, int, Any]:
    """Do one block and return what became of it."""
    try:
        return "done", block.number, done(task, writer, reduce, block, kept)
    except MemoryError:
        os._exit(1)  # as if the system had ended it: another worker may find room
    except NpusimError as error:
        return "refused", block.number, str(error)
    except Exception:
        return "broken", block.number, traceback.format_exc()


def done(task: Task, writer: Writer, reduce: Reduce | None, block: Block, kept: bool) -> Any:
    """Do one block, or read it where it is kept; return what it is reduced to."""
    if kept:
        return reduce(block, writer.read(block.number)) if reduce is not None else None
    table = task.table(block.number)
    writer.write(block, table)
    return reduce(block, table) if reduce is not None else None


START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[3]); "
    "from npusim.sweeps.worker import serve; serve(int(sys.argv[1]), int(sys.argv[2]))"
)


def command(pipe: int, alive: int, path: str) -> list[str]:
    """Return the command that starts a worker."""
    return [sys.executable, "-c", START, str(pipe), str(alive), path]
