"""Blocks on a Dask cluster: workers evaluate and encode, this process writes.

What comes back is the bytes of a block's file, so workers and this machine share no file system.
The task goes to each worker once, also to those that join later, as a worker plugin: scattered
data would be gone with the last worker that holds it. Two blocks for each thread of the cluster are
under way at a time, however many there are, so memory stays flat here and there. Blocks of a worker
that is lost go to others; Dask gives a block up after so many losses as its scheduler allows
(``distributed.scheduler.allowed-failures``, three).

Left out: workers whose packages encode Parquet in another way make files of other bytes, with the
same rows. Another version of the models is refused.
"""

from __future__ import annotations

import logging
import pickle
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from npusim.errors import InputError, NpusimError
from npusim.store import model_version
from npusim.sweeps.blocks import Store
from npusim.sweeps.encoding import Head
from npusim.sweeps.task import Block, Task
from npusim.sweeps.worker import Reduce

_PLACE = "--engine"
_ANSWER = 10  # seconds for a scheduler to answer
_WORKERS = 60  # seconds for a first worker to be there
_LOGGERS = {"asyncio", "distributed", "tornado"}
_AHEAD = 2  # blocks under way for each thread of the cluster


def address(engine: str) -> str:
    """Return the address of a scheduler as Dask has it.

    Raises
    ------
    InputError
        Not of the form ``dask://HOST:PORT``.

    Examples
    --------
    >>> address("dask://localhost:8786")
    'tcp://localhost:8786'
    """
    found = re.fullmatch(r"dask://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", engine)
    if found is None or not 1 <= int(found[2]) <= 65535:
        raise InputError("not the address of a Dask scheduler", place=_PLACE, value=engine,
                         allowed="dask://HOST:PORT, e.g. dask://localhost:8786")  # fmt: skip
    return f"tcp://{found[1]}:{found[2]}"


def run_dask(
    engine: str, task: Task, store: Store, todo: Sequence[Block], kept: set[int],
    reduce: Reduce | None, finished: Callable[[Block, Any], None],
) -> None:  # fmt: skip
    """Evaluate blocks on a cluster and write them here.

    Raises
    ------
    InputError
        Dask is not installed; no scheduler answers, or it has no workers; workers have another
        version of npusim, or die at a block; the connection is lost; what the task itself refuses.
    """
    where = address(engine)
    for block in todo:
        if block.number in kept and reduce is not None:
            finished(block, reduce(block, store.writer.read(block.number)))
    fresh = [block for block in todo if block.number not in kept]
    if not fresh:
        return
    _dask(engine)  # which sets up its loggers when it is imported
    with _quiet(), _connected(engine, where) as client:
        name = f"npusim-{store.head.id}-{uuid.uuid4().hex[:8]}"
        _send(client, name, engine, task, store.head, reduce)
        try:
            for block, content, reduced in _results(client, name, engine, fresh):
                store.writer.put(block.number, content)
                finished(block, reduced)
        finally:
            with suppress(Exception):  # a cluster that is gone needs no tidying
                client.unregister_worker_plugin(name)


def _dask(engine: str) -> Any:
    """Return the package, which is an extra; without its types, which it has only in part."""
    try:
        import distributed  # noqa: PLC0415
    except ImportError:
        raise InputError("Dask is not installed", place=_PLACE, value=engine,
                         hint="pip install 'npusim[dask]'") from None  # fmt: skip
    return distributed


@contextmanager
def _connected(engine: str, where: str) -> Iterator[Any]:
    """Give a client of a scheduler that answers and has workers."""
    try:
        client = _dask(engine).Client(where, timeout=_ANSWER, set_as_default=False)
    except (OSError, TimeoutError, ValueError):
        raise InputError("no Dask scheduler answers there", place=_PLACE, value=engine,
                         hint="start one with `dask scheduler`") from None  # fmt: skip
    try:
        try:
            client.wait_for_workers(1, timeout=_WORKERS)
        except TimeoutError:
            raise InputError("the scheduler has no workers", place=_PLACE, value=engine,
                             hint="start some with `dask worker`") from None  # fmt: skip
        yield client
    finally:
        with suppress(Exception):  # the way out matters more than how the cluster takes it
            client.close(timeout=2)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Dask logs about lost connections from the terminal: errors say what matters."""
    names = [n for n in logging.root.manager.loggerDict if n.split(".")[0] in _LOGGERS]
    before = {name: logging.getLogger(name).disabled for name in names}
    for name in names:
        logging.getLogger(name).disabled = True
    try:
        yield
    finally:
        for name, disabled in before.items():
            logging.getLogger(name).disabled = disabled


def _send(
    client: Any, name: str, engine: str, task: Task, head: Head, reduce: Reduce | None
) -> None:
    """Send the task to all workers, those that come later too."""

    class Carrier(_dask(engine).WorkerPlugin):  # type: ignore[misc]
        """Holds a pickled job on a worker until its blocks want it."""

        def __init__(self, job: bytes) -> None:
            self.job = job

    try:
        job = pickle.dumps((task, head, reduce))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise InputError(f"the sweep cannot be sent to workers: {error}", place=_PLACE) from None
    try:
        client.register_plugin(Carrier(job), name=name)
    except ImportError as error:
        raise InputError(f"a worker cannot load npusim: {error}", place=_PLACE, value=engine,
                         hint="install the same npusim there") from None  # fmt: skip


def _results(
    client: Any, name: str, engine: str, blocks: Sequence[Block]
) -> Iterator[tuple[Block, bytes, Any]]:
    """Yield blocks as they come, a bounded number of them under way."""
    waiting = iter(blocks)
    under_way: dict[Any, Block] = {}
    coming = _dask(engine).as_completed(loop=client.loop, with_results=True, raise_errors=False)
    room, asked = 0, -1.0

    def fill() -> None:
        nonlocal room, asked
        if time.monotonic() - asked > 1:  # workers come and go
            try:
                threads = sum(client.nthreads().values())
            except OSError:  # which Dask's errors of connections are
                raise _lost(engine) from None
            room, asked = _AHEAD * max(1, threads), time.monotonic()
        while len(under_way) < room and (block := next(waiting, None)) is not None:
            future = client.submit(_evaluated, name, block, model_version(), pure=False,
                                   key=f"{name}-{block.number}")  # fmt: skip
            under_way[future] = block
            coming.add(future)

    try:
        fill()
        for future, result in coming:
            block = under_way.pop(future)
            if future.status != "finished":
                _refuse(engine, block, result)
            content, reduced = result
            yield block, content, reduced
            del future, result, content, reduced
            fill()
    finally:
        with suppress(Exception):
            client.cancel(list(under_way), force=True)


def _refuse(engine: str, block: Block, result: Any) -> None:
    """Raise what became of a block that has no result."""
    error = result[1] if isinstance(result, tuple) else result
    if isinstance(error, NpusimError):
        raise error
    if isinstance(error, ImportError):
        raise InputError(f"a worker cannot load npusim: {error}", place=_PLACE, value=engine,
                         hint="install the same npusim there")  # fmt: skip
    if isinstance(error, _dask(engine).KilledWorker):
        # Dask blames all blocks that a worker had when it died, one of them too often.
        told = f"workers keep dying, at block {block.number} or one that was with it"
        raise InputError(told, place=_PLACE, value=engine,
                         hint="killed for memory? give them more, go on with --resume")  # fmt: skip
    if isinstance(error, Exception) and type(error).__name__ not in _LOST:
        raise RuntimeError(f"block {block.number}, on the cluster") from error
    raise _lost(engine)


def _lost(engine: str) -> InputError:
    return InputError("the connection to the scheduler is lost", place=_PLACE, value=engine,
                      hint="go on with --resume")  # fmt: skip


_LOST = {"CancelledError", "FutureCancelledError", "FuturesCancelledError", "CommClosedError"}


def _evaluated(name: str, block: Block, model: str) -> tuple[bytes, Any]:
    """Return the bytes of the file of a block, and what it is reduced to; runs on a worker."""
    if model_version() != model:
        raise InputError("a worker has another version of npusim", place=_PLACE,
                         value=model_version(), allowed=model)  # fmt: skip
    carrier = _dask(name).get_worker().plugins[name]
    job = getattr(carrier, "loaded", None)
    if job is None:
        job = carrier.loaded = pickle.loads(carrier.job)  # noqa: S301 from the one who sweeps
    task, head, reduce = job
    table = task.table(block.number)
    content = head.encoded(block, table).to_pybytes()
    return content, reduce(block, table) if reduce is not None else None
