"""Pieces of a Kineto trace decoded by several processes side by side.

This process decodes as well: a helper has two pieces at most, one at work and one to go on with,
and whatever comes meanwhile is decoded here. So neither waits for the other, whichever is faster,
and nobody waits for a helper to start.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from npusim.importers.event_pieces import Piece, Room

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from npusim.importers.kineto_decoder import Decoder, Result

_SMALL = 32 << 20  # bytes below which starting helpers takes longer than they save
_AHEAD = 2  # pieces that a helper has
_MOST_WAITING = 64  # pieces of which the columns wait for those of one before them
_GONE = (EOFError, OSError)


class _Task:
    """A piece, and what became of it."""

    def __init__(self, piece: Piece) -> None:
        self.piece = piece
        self.done = False
        self.result: Result = None

    def finish(self, result: Result) -> None:
        self.done, self.result = True, result
        self.piece = replace(self.piece, raw=None)  # what waits is columns, not text


class Helper:
    """A process that decodes pieces in the order in which it gets them."""

    def __init__(self) -> None:
        # A fresh interpreter: a fork of a process that draws a progress bar may hang.
        context = get_context("spawn")
        self.link, far = context.Pipe()
        self.process = context.Process(target=serve, args=(far,), daemon=True)
        self.process.start()
        far.close()  # its own end is then the only one: if it is gone, so is the link
        self.decoder: Decoder | None = None
        self.started = self.gone = False
        self.owed: deque[_Task] = deque()

    def learn(self, decoder: Decoder) -> None:
        """Say how the trace is read; pieces can be given then."""
        self.decoder = decoder
        try:
            self.link.send(decoder)
        except _GONE:
            self.gone = True

    def give(self, task: _Task) -> bool:
        """Hand over a piece; False if there is enough to do already, or nobody to do it."""
        self.collect()
        if self.gone or not self.started or len(self.owed) >= _AHEAD:
            return False
        self.owed.append(task)
        try:
            self.link.send(task.piece)
        except _GONE:
            self._take_over()
        return True

    def collect(self, wait: bool = False) -> None:
        """Take the answers that are there, or wait for one."""
        try:
            while (self.owed or not (self.started or self.gone)) and (wait or self.link.poll()):
                answer, wait = self.link.recv(), False
                if self.started:
                    self.owed.popleft().finish(answer)
                self.started = True
        except _GONE:
            self._take_over()

    def _take_over(self) -> None:
        """Do here what a helper did not: the system may have killed it for its memory."""
        self.gone = True
        while self.decoder is not None and self.owed:
            task = self.owed.popleft()
            task.finish(self.decoder.attempt(task.piece))

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.join()
        self.link.close()


def serve(link: Connection) -> None:
    """Say that this process has started, then decode what comes until nothing does.

    Pieces are taken in aside: where both sides sent at once, more than a pipe holds, each would
    wait for the other for ever.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # they would take the core of another
    pieces: SimpleQueue[Piece | None] = SimpleQueue()
    room = Room()
    try:
        # What takes longest to load, before anybody asks for it.
        from npusim.importers import kineto_decoder  # noqa: F401, PLC0415

        decoder: Decoder = link.recv()
        link.send(None)
        Thread(target=_take_in, args=(link, pieces), daemon=True).start()
        while (piece := pieces.get()) is not None:
            link.send(decoder.attempt(piece, room))
    except (*_GONE, KeyboardInterrupt):
        pass


def _take_in(link: Connection, pieces: SimpleQueue[Piece | None]) -> None:
    with suppress(Exception):  # whatever ends this ends the process, and the reader takes over
        while True:
            pieces.put(link.recv())
    pieces.put(None)


@contextmanager
def crew(path: Path, workers: int) -> Iterator[list[Helper]]:
    """Start as many processes as a file is worth besides this one; they end with the context."""
    helpers: list[Helper] = []
    try:
        large = workers > 1 and path.stat().st_size >= _SMALL
    except OSError:  # whoever reads the file says what is wrong with it
        large = False
    try:
        for _ in range(workers - 1 if large else 0):
            helpers.append(Helper())
        yield helpers
    finally:
        for h in helpers:
            h.end()


def side_by_side(
    decoder: Decoder, stream: Iterable[Piece], crew: Sequence[Helper]
) -> Generator[tuple[Piece, Result], None, None]:
    """Decode pieces with some helpers, or alone.

    Parameters
    ----------
    decoder : Decoder
    stream : iterable of Piece
    crew : sequence of Helper
        Processes besides this one.

    Yields
    ------
    Piece, Result
        In order: each piece, and what `Decoder.attempt` makes of it.
    """
    waiting: deque[_Task] = deque()
    room = Room()
    for h in crew:
        h.learn(decoder)
    for piece in stream:
        task = _Task(piece)
        waiting.append(task)
        if not any(h.give(task) for h in crew):
            task.finish(decoder.attempt(piece, room))
        while waiting and (waiting[0].done or len(waiting) > _MOST_WAITING):
            yield _finished(waiting.popleft(), crew)
    while waiting:
        yield _finished(waiting.popleft(), crew)


def _finished(task: _Task, crew: Sequence[Helper]) -> tuple[Piece, Result]:
    while not task.done:
        next(h for h in crew if task in h.owed).collect(wait=True)
    return task.piece, task.result
