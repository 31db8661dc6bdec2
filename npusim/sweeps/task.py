"""What a sweep asks, cut into blocks that are evaluated one by one, anywhere, in any order.

A task is what engines run and stores keep. It knows nothing of either, so the same task gives the
same blocks in one process, on all cores and on a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from npusim.errors import InputError, NpusimError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Block:
    """One piece of a sweep.

    Parameters
    ----------
    number : int
        Its place in the sweep, from 0.
    rows : int
        Rows of its table.
    """

    number: int
    rows: int


class Task(Protocol):
    """A sweep that can be run in blocks; goes to other processes by pickle.

    Attributes
    ----------
    id : str
        Strong id of everything that was asked, 32 hexadecimal digits: equal ids mean equal tables.
    about : mapping
        The sweep described in JSON.
    blocks : sequence of Block
        All of them, numbered 0, 1, 2 and so on.
    """

    @property
    def id(self) -> str:
        """Return the strong id."""

    @property
    def about(self) -> Mapping[str, Any]:
        """Return the description."""

    @property
    def blocks(self) -> Sequence[Block]:
        """Return all blocks."""

    def table(self, number: int) -> pa.Table:
        """Return the table of one block; expensive."""


class Stopped(NpusimError):
    """A sweep was told to stop (Ctrl-C, SIGTERM); what it has done is kept.

    Parameters
    ----------
    done, blocks : int
        Blocks that are kept, and all of them.
    folder : object
        Where.
    status : int
        Exit status for the command line: 128 and the number of the signal, as shells have it, so
        that a script can tell a sweep that was stopped (130, 143) from one that was refused (1).

    Examples
    --------
    >>> print(Stopped(37, 80, "results/x", 130))
    stopped: 37 of 80 blocks are kept in results/x; go on with --resume
    """

    def __init__(self, done: int, blocks: int, folder: object, status: int = 130) -> None:
        kept = f"{done} of {blocks} blocks are kept in {folder}; go on with --resume"
        super().__init__(f"stopped: {kept}")
        self.status = status


class Unfinished(NpusimError):
    """A part of a sweep is done, other parts are not."""

    def __init__(self, which: str, done: int, blocks: int, folder: object) -> None:
        super().__init__(f"part {which} is done: {done} of {blocks} blocks are in {folder}; join "
                         "them with those of other machines by npusim merge")  # fmt: skip


def part(blocks: Sequence[Block], text: str) -> list[Block]:
    """Return the blocks that one of several machines does: I of N are those of rest I - 1.

    The parts of one N share nothing and are the whole together. Blocks are dealt, not cut into
    ranges, because neighbours cost alike.

    Parameters
    ----------
    blocks : sequence of Block
    text : str
        ``"I/N"``, from 1/N to N/N.

    Raises
    ------
    InputError
        Not two whole numbers, I beyond N, or more parts than blocks.

    Examples
    --------
    >>> [b.number for b in part([Block(i, 10) for i in range(7)], "2/3")]
    [1, 4]
    """
    form = "I/N with 1 <= I <= N, e.g. 2/3"
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
    if found is None:
        raise InputError("not a part of a sweep", place="--part", value=text, allowed=form)
    which, parts = int(found[1]), int(found[2])
    if not 1 <= which <= parts:
        raise InputError("no such part", place="--part", value=text, allowed=form)
    if parts > len(blocks):
        raise InputError("more parts than the sweep has blocks", place="--part", value=text,
                         allowed=f"up to {len(blocks)} parts")  # fmt: skip
    return [block for block in blocks if block.number % parts == which - 1]
