"""Where blocks are evaluated: in this process, in several of this machine, or on a Dask cluster.

All of them fill the same store with the same bytes. Local workers evaluate a block and write its
file themselves, so no table goes through a pipe; the task goes to each of them once. A worker that
dies (killed for its memory, say) costs the block it was at, which is done again by a fresh one.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from types import FrameType
from typing import Any

from npusim.errors import InputError
from npusim.sweeps.blocks import Store
from npusim.sweeps.task import Block, Stopped, Task
from npusim.sweeps.worker import ONE_THREAD, Reduce, command, done

Progress = Callable[[int, int], None]
Finished = Callable[[Block, Any], None]

_TRIES = 3
_DASK = "dask://"


def run(
    task: Task,
    store: Store,
    engine: str = "local",
    workers: int | None = None,
    progress: Progress | None = None,
    reduce: Reduce | None = None,
    blocks: Sequence[Block] | None = None,
) -> list[Any]:
    """Evaluate the blocks of a task that its store does not have.

    Parameters
    ----------
    task : Task
    store : Store
        Opened for this task.
    engine : str
        ``"local"``, or ``"dask://HOST:PORT"``, the address of a scheduler (extra ``dask``).
    workers : int, optional
        Processes of ``local``; by default one for each core this process may use. 1 evaluates in
        this process. A cluster has its own number.
    progress : callable, optional
        Called with (rows done, rows in all); those of earlier runs count as done.
    reduce : callable, optional
        Makes something small of each block and its table, where the table is: in the worker. It
        goes there by pickle.
    blocks : sequence of Block, optional
        Do these only, see `npusim.sweeps.task.part`.

    Returns
    -------
    list
        What `reduce` made of each block, in order, of those kept from earlier runs as well; empty
        without `reduce`.

    Raises
    ------
    Stopped
        Ctrl-C or SIGTERM; the store keeps what is done.
    InputError
        No such engine; what the task itself refuses; a block at which workers die three times; no
        room on the disk. The store keeps what is done.
    """
    wanted = list(task.blocks if blocks is None else blocks)
    if store.finished:
        _Tally(store, wanted, progress, lambda: None)
        if reduce is None:
            return []
        return [reduce(b, t) for b, t in zip(wanted, store.tables(wanted), strict=True)]
    kept = set() if reduce is None else {b.number for b in wanted if b.number in store.done}
    todo = [b for b in wanted if b.number in kept or b.number not in store.done]
    with _stoppable(store) as check:
        tally = _Tally(store, wanted, progress, check)
        if engine.startswith(_DASK):
            from npusim.sweeps.dask_engine import run_dask  # noqa: PLC0415 an extra

            if workers is not None:
                raise InputError("a cluster has its own number of workers", place="--workers",
                                 value=workers, hint="leave it out")  # fmt: skip
            run_dask(engine, task, store, todo, kept, reduce, tally.finished)
        elif engine == "local":
            _run_local(task, store, todo, kept, workers, reduce, tally.finished)
        else:
            raise InputError("no such engine", place="--engine", value=engine,
                             allowed="local, dask://HOST:PORT")  # fmt: skip
    return [] if reduce is None else [tally.reduced[b.number] for b in wanted]


class _Tally:
    """What is done: told to the store and to the user."""

    def __init__(
        self, store: Store, wanted: Sequence[Block], progress: Progress | None,
        check: Callable[[], None],
    ) -> None:  # fmt: skip
        self._store, self._progress, self._check = store, progress, check
        self._all = sum(block.rows for block in wanted)
        self._rows = sum(block.rows for block in wanted if block.number in store.done)
        self.reduced: dict[int, Any] = {}
        self._tell()

    def finished(self, block: Block, reduced: Any) -> None:
        """Take note of a block whose file is there."""
        self.reduced[block.number] = reduced
        if block.number not in self._store.done:
            self._store.done.add(block.number)
            self._rows += block.rows
        self._tell()
        self._check()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self._rows, self._all)


@contextmanager
def _stoppable(store: Store) -> Iterator[Callable[[], None]]:
    """Turn Ctrl-C and SIGTERM into `Stopped`.

    What a signal raises in the middle of a destructor (Dask has some) is printed and lost, so there
    it waits a moment. Gives a function that raises if one has come, to be called after each block.
    """
    arrived: list[int] = []
    later: list[threading.Timer] = []
    leaving = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal leaving
        if leaving:
            return
        arrived.append(number)
        if _in_destructor(frame):
            later.append(threading.Timer(0.01, os.kill, (os.getpid(), number)))
            later[-1].start()
            return
        leaving = True  # workers are ended once, undisturbed
        raise KeyboardInterrupt

    def check() -> None:
        nonlocal leaving
        if arrived:
            leaving = True
            raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, stop)
        yield check
        check()
    except KeyboardInterrupt:
        leaving = True
        first = arrived[0] if arrived else signal.SIGINT
        there, folder = len(store.done), store.folder
        raise Stopped(there, store.head.blocks, folder, 128 + first) from None
    finally:
        leaving = True
        for timer in later:
            timer.cancel()
            timer.join()
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _in_destructor(frame: FrameType | None) -> bool:
    """Say whether a frame was called, however far up, by a destructor."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_local(
    task: Task, store: Store, todo: Sequence[Block], kept: set[int], workers: int | None,
    reduce: Reduce | None, finished: Finished,
) -> None:  # fmt: skip
    """Evaluate blocks on this machine."""
    wanted = cores() if workers is None else workers
    if wanted < 1:
        raise InputError("too few workers", place="--workers", value=wanted, allowed="from 1")
    if wanted == 1:
        for block in todo:
            finished(block, done(task, store.writer, reduce, block, block.number in kept))
        return
    try:
        job = pickle.dumps((task, store.writer, reduce))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise InputError(f"the sweep cannot be sent to workers: {error}",
                         hint="--workers 1 needs none") from None  # fmt: skip
    pool = _Pool(job, kept)
    try:
        pool.work(todo, min(wanted, len(todo)), finished)
    finally:
        pool.end()


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    place: int
    block: Block | None = None


class _Pool:
    """Workers of this machine, each with a pipe of its own, so that it is known who died at what.

    `concurrent.futures` gives up all workers when one dies, and does not say at which block.
    """

    def __init__(self, job: bytes, kept: set[int]) -> None:
        self._job, self._kept = job, kept
        self._workers: dict[Connection, _Worker] = {}
        self._queues: list[deque[Block]] = []
        self._deaths: Counter[int | None] = Counter()
        # Nothing is ever written there: workers read its end when this process is gone.
        self._alive, self._held = os.pipe()

    def work(self, todo: Sequence[Block], count: int, finished: Finished) -> None:
        """Have all blocks done by `count` workers."""
        # Neighbours share what they have in common if one worker does them.
        ends = [len(todo) * i // count for i in range(count + 1)]
        self._queues = [deque(todo[i:j]) for i, j in pairwise(ends)]
        for place in range(count):
            self._start(place)
        while self._workers:
            for ready in wait(list(self._workers)):
                assert isinstance(ready, Connection)  # noqa: S101 for the type checker
                try:
                    said = ready.recv()
                except (EOFError, ConnectionError):
                    self._died(ready)
                    continue
                self._heard(ready, *said, finished=finished)

    def _next(self, place: int) -> Block | None:
        """Return the next block of a worker, at the end one from the end of the longest queue."""
        if self._queues[place]:
            return self._queues[place].popleft()
        longest = max(self._queues, key=len)
        return longest.pop() if longest else None

    def _start(self, place: int) -> None:
        ours, theirs = Pipe()
        path = json.dumps([entry or str(Path.cwd()) for entry in sys.path])
        descriptors = (theirs.fileno(), self._alive)
        # A worker inherits what is blocked: Ctrl-C while it starts must not show its traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process = subprocess.Popen(  # noqa: S603 this very interpreter
                command(*descriptors, path), stdin=subprocess.DEVNULL, pass_fds=descriptors,
                env={**os.environ, **ONE_THREAD})  # fmt: skip
            self._workers[ours] = _Worker(process, place)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def _heard(
        self, connection: Connection, what: str, number: int | None, content: Any, *,
        finished: Finished,
    ) -> None:  # fmt: skip
        """Take what a worker says, and give it what it needs next."""
        worker = self._workers[connection]
        if what == "refused":
            raise InputError(content)
        if what == "broken":
            raise RuntimeError(f"block {number}, in a worker:\n{content}")
        if what == "hello":
            with suppress(ConnectionError):  # if it has died, the next `recv` will say so
                connection.send_bytes(self._job)
            return
        if worker.block is not None:
            block, worker.block = worker.block, None
            finished(block, content)
        worker.block = self._next(worker.place)
        if worker.block is not None:
            with suppress(ConnectionError):
                connection.send((worker.block, worker.block.number in self._kept))
            return
        worker.process.kill()
        self._forget(connection)

    def _forget(self, connection: Connection) -> int:
        """Wait for a worker that has ended; return its exit status.

        Ctrl-C may come at any line: a worker that is not waited for yet must still be known.
        """
        status = self._workers[connection].process.wait()
        self._workers.pop(connection)
        connection.close()
        return status

    def _died(self, connection: Connection) -> None:
        """Put the block of a worker back and start another one, a few times."""
        worker = self._workers[connection]
        status = self._forget(connection)
        number = worker.block.number if worker.block is not None else None
        self._deaths[number] += 1
        if self._deaths[number] >= _TRIES:
            where = f"at block {number}" if number is not None else "before they could start"
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise InputError(f"{_TRIES} workers have died {where} ({how})",
                             hint="killed for memory? try fewer --workers")  # fmt: skip
        if worker.block is not None:
            self._queues[worker.place].appendleft(worker.block)
        self._start(worker.place)

    def end(self) -> None:
        """End all workers at once; a file that one is writing never gets its name."""
        for worker in self._workers.values():
            worker.process.kill()
        for connection in list(self._workers):
            self._forget(connection)
        os.close(self._held)
        os.close(self._alive)
