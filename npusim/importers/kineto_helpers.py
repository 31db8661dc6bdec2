"""Pieces of a Kineto trace decoded by several processes side by side.

This process decodes as well: a helper has two pieces at most, one at work and one to go on with,
and whatever comes meanwhile is decoded here. So neither waits for the other, whichever is faster,
and nobody waits for a helper to start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import replace
from multiprocessing import get_context
from typing import TYPE_CHECKING

from npusim.importers.event_pieces import Piece
from npusim.importers.kineto_decoder import Decoder, Result

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

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

    def __init__(self, decoder: Decoder) -> None:
        # A fresh interpreter: a fork of a process that draws a progress bar may hang.
        context = get_context("spawn")
        self.link, far = context.Pipe()
        self.process = context.Process(target=serve, args=(far, decoder), daemon=True)
        self.process.start()
        far.close()  # its own end is then the only one: if it is gone, so is the link
        self.decoder = decoder
        self.started = self.gone = False
        self.owed: deque[_Task] = deque()

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
        while self.owed:
            task = self.owed.popleft()
            task.finish(self.decoder.attempt(task.piece))

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.join()
        self.link.close()


def serve(link: Connection, decoder: Decoder) -> None:
    """Say that this process has started, then decode what comes until nothing does."""
    try:
        link.send(None)
        while True:
            link.send(decoder.attempt(link.recv()))
    except (*_GONE, KeyboardInterrupt):
        pass


def side_by_side(
    decoder: Decoder, stream: Iterable[Piece], helpers: int
) -> Generator[tuple[Piece, Result], None, None]:
    """Decode pieces with some helpers, or alone.

    Parameters
    ----------
    decoder : Decoder
    stream : iterable of Piece
    helpers : int
        Processes besides this one; close the generator to end them.

    Yields
    ------
    Piece, Result
        In order: each piece, and what `Decoder.attempt` makes of it.
    """
    crew: list[Helper] = []
    waiting: deque[_Task] = deque()
    try:
        for _ in range(helpers):
            crew.append(Helper(decoder))
        for piece in stream:
            task = _Task(piece)
            waiting.append(task)
            if not any(h.give(task) for h in crew):
                task.finish(decoder.attempt(piece))
            while waiting and (waiting[0].done or len(waiting) > _MOST_WAITING):
                yield _finished(waiting.popleft(), crew)
        while waiting:
            yield _finished(waiting.popleft(), crew)
    finally:
        for h in crew:
            h.end()


def _finished(task: _Task, crew: list[Helper]) -> tuple[Piece, Result]:
    while not task.done:
        next(h for h in crew if task in h.owed).collect(wait=True)
    return task.piece, task.result
