"""One process a GPU: a group of ranks that all do what they are told, and answer.

Collective operations need every GPU at once. Each rank is a process of its own that makes one GPU
its own and joins a process group of PyTorch (NCCL, or RCCL); the parent sends all of them the same
point and takes the figures of the slowest. Processes end with the parent.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from npusim.capture.gpu import Row, Unavailable, load, root_cause

Work = Callable[[Any, "Rank", Row], Row]

_START_S, _POINT_S, _END_S = 180.0, 120.0, 5.0


@dataclass(frozen=True)
class Rank:
    """One of the processes.

    Attributes
    ----------
    index, count : int
        Which rank it is, and of how many.
    """

    index: int
    count: int


class Ranks:
    """A group of processes, one a GPU.

    Parameters
    ----------
    torch : module
        PyTorch of the parent.
    work : callable
        What a rank does with a point: a function of a module, which the processes import.
    settings : mapping of str to str
        Environment variables of the processes alone, set before PyTorch is there.

    Raises
    ------
    Unavailable
        There are fewer than two GPUs, this PyTorch has no process groups, or a rank did not start.
    """

    def __init__(self, torch: Any, work: Work, settings: Mapping[str, str]) -> None:
        self.closed = False
        self.count = int(torch.cuda.device_count())
        if self.count < 2:
            raise Unavailable(f"it needs two GPUs or more, this machine has {self.count}")
        if not torch.distributed.is_available():
            raise Unavailable("this PyTorch has no torch.distributed")
        spawn = torch.multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        store = Path(self._folder.name) / "ranks"
        pairs = [spawn.Pipe() for _ in range(self.count)]
        self._ends = [near for near, _ in pairs]
        self._processes = [
            spawn.Process(target=_serve, daemon=True,
                          args=(far, Rank(i, self.count), str(store), work, dict(settings)))
            for i, (_, far) in enumerate(pairs)
        ]  # fmt: skip
        for process, (_, far) in zip(self._processes, pairs, strict=True):
            process.start()
            far.close()  # the rank's own is then the only one: if it is gone, so is the pipe
        try:
            self._answers(_START_S)
        except RuntimeError as error:
            self.close()
            raise Unavailable(f"the processes did not start: {error}") from None

    def ask(self, point: Row) -> list[Row]:
        """Return the figures of every rank for a point.

        Raises
        ------
        RuntimeError
            A rank failed; its words are the error. The group has ended then, as others may wait
            for the rank that failed.
        """
        try:
            for end in self._ends:
                end.send(point)
            return self._answers(_POINT_S)
        except (RuntimeError, OSError) as error:
            self.close()
            reason = str(error) if isinstance(error, RuntimeError) else "a process ended"
            raise RuntimeError(reason) from None

    def close(self) -> None:
        """End the processes."""
        self.closed = True
        for end in self._ends:
            end.close()
        for process in self._processes:
            process.join(_END_S / self.count)
            if process.is_alive():
                process.terminate()
        self._folder.cleanup()

    def _answers(self, seconds: float) -> list[Row]:
        """Return one answer of each rank, in their order."""
        found: dict[int, Row] = {}
        while len(found) < self.count:
            ready = wait([end for i, end in enumerate(self._ends) if i not in found], seconds)
            if not ready:
                raise RuntimeError(f"no answer within {seconds:g} s")
            for end in ready:
                index = self._ends.index(end)
                found[index] = _answer(self._ends[index])
        return [found[i] for i in range(self.count)]


def _answer(end: Connection) -> Row:
    try:
        figures, reason = end.recv()
    except (EOFError, OSError):
        raise RuntimeError("a process ended") from None
    if reason:
        raise RuntimeError(reason)
    row: Row = figures
    return row


def slowest(answers: Sequence[Row], field: str) -> float:
    """Return the largest figure of all ranks: a collective is done when the last of them is.

    Examples
    --------
    >>> slowest([{"us": 5.0}, {"us": 6.0}], "us")
    6.0
    """
    return max(float(row[field]) for row in answers)


def _serve(
    end: Connection, rank: Rank, store: str, work: Work, settings: Mapping[str, str]
) -> None:
    """Join the group, then answer points until the parent is gone."""
    os.environ.update(settings)
    torch = load("torch", "ranks need PyTorch")
    told = partial(_told, end)
    if not told(lambda: _join(torch, rank, store)):
        return
    while True:
        try:
            point = end.recv()
        except (EOFError, OSError):
            return  # the group goes with the process
        if not told(partial(work, torch, rank, point)):
            return


def _told(end: Connection, run: Callable[[], Row]) -> bool:
    """Send what a run returns, or why it failed."""
    try:
        answer = (run(), "")
    except Exception as error:
        answer = ({}, root_cause(error))
    try:
        end.send(answer)
    except OSError:
        return False  # the parent is gone
    return not answer[1]


def _join(torch: Any, rank: Rank, store: str) -> Row:
    torch.cuda.set_device(rank.index)
    torch.distributed.init_process_group(
        "nccl", init_method=f"file://{store}", rank=rank.index, world_size=rank.count,
        device_id=torch.device("cuda", rank.index),
    )  # fmt: skip
    return {}
