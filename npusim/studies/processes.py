"""Processes of a study: they end when it does, whatever ends it, and one that dies is told."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection

from npusim.errors import InputError


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Give some processes; a main program that asks for them has to be guarded.

    Raises
    ------
    InputError
        One of them has died.
    """
    context = get_context("forkserver")
    # Nothing is ever written there: they read its end when this process is gone or gives up.
    alive, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(count, context, _begin, (alive,))
    try:
        yield pool
    except BrokenProcessPool:
        raise InputError(
            "a worker has died", hint="killed for memory? try fewer --workers"
        ) from None
    except BaseException:
        held.close()  # what they are at is not waited for
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        held.close()
        alive.close()


def _begin(alive: Connection) -> None:
    """Prepare a process: Ctrl-C reaches all of them, and the first one decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(alive,), daemon=True).start()


def _watch(alive: Connection) -> None:
    """End this process, whatever it is doing, when the one that started it is gone."""
    alive.poll(None)
    os._exit(1)
