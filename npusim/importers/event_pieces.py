"""A Chrome trace in pieces that can be decoded apart, one after the other or side by side.

A piece ends between two events. Where that is follows from the text ``},{``: inside an event it
would leave brackets open, and then the piece does not decode, so a wrong guess is always noticed.
Whoever reads then goes on event by event (`chrome_events`), which is slow and exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from npusim.errors import InputError
from npusim.importers import files

PIECE = 768 << 10  # with what it decodes to, about what a core has of cache
_LONGEST_HEAD = 16 << 20
# From the first brace on, and from no other: where there are no events, each would be tried.
_EVENTS = re.compile(rb'[^{]*+\{.*?"traceEvents"\s*+:\s*+\[', re.DOTALL)
_BARE = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[")
_BETWEEN = re.compile(rb"\}\s*,\s*\{")
_LONGEST_PIECE = 64 << 20
_WINDOW = 1 << 16
_LONGEST_GAP = 256  # bytes between two events: a comma and blanks


@dataclass(frozen=True)
class Piece:
    """Some whole events without the brackets around them, or the end of the file.

    Attributes
    ----------
    raw : bytes, optional
        The text; absent for a plain file, of which whoever decodes reads the range itself.
    start, size : int
        Place in the unpacked file.
    last : bool
        Whether it goes on to the end of the file, closing brackets and what follows them.
    """

    path: Path
    start: int
    size: int
    last: bool
    raw: bytes | None = None

    def text(self) -> bytes:
        """Return the bytes of the piece."""
        if self.raw is not None:
            return self.raw
        with self.path.open("rb") as stream:
            stream.seek(self.start)
            return stream.read(self.size)

    def into(self, room: memoryview) -> int:
        """Put the bytes of the piece where there is room for them, and return how many."""
        if self.raw is not None:
            room[:] = self.raw
            return len(self.raw)
        with self.path.open("rb") as stream:
            stream.seek(self.start)
            return stream.readinto(room)


class Room:
    """Memory that the text of one piece after another is put into.

    Asked for anew for each piece it would come from the system, page by page, which takes a
    quarter as long as to decode it. Whoever takes a text is done with it before the next.
    """

    def __init__(self) -> None:
        self._room = bytearray(PIECE + 2 * _WINDOW)

    def text(self, before: bytes, piece: Piece, after: bytes) -> memoryview:
        """Return the text of a piece between two others."""
        most = len(before) + piece.size + len(after)
        room = memoryview(self._room if most <= len(self._room) else bytearray(most))
        room[: len(before)] = before
        stop = len(before) + piece.into(room[len(before) : most - len(after)])
        room[stop : stop + len(after)] = after
        return room[: stop + len(after)]


@dataclass(frozen=True)
class Head:
    """What comes before the first event: its bytes, and whether there is an object around."""

    raw: bytes
    in_object: bool


def head_of(path: Path) -> Head:
    """Return what a trace begins with, up to the bracket before its first event.

    Raises
    ------
    InputError
        Not a Chrome trace, or not readable.
    """
    start = b""
    for chunk in files.chunks(path):
        start += chunk
        bare = _BARE.match(start)
        if bare is not None:
            return Head(start[: bare.end()], in_object=False)
        found = _EVENTS.match(start)
        if found is not None:
            return Head(start[: found.end()], in_object=True)
        if len(start) > _LONGEST_HEAD:
            break
    else:
        files.decode_json(path, start, dict[str, Any])  # says so if it is no JSON at all
    raise InputError("not a profiler trace: no list of traceEvents", file=path)


def pieces(path: Path, head: Head, size: int = PIECE) -> Iterator[Piece]:
    """Yield a trace from its first event on; only the piece at hand is in memory.

    Raises
    ------
    InputError
        Damaged packing, or more bytes than are taken.
    """
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return _unpacked(path, head, size) if packed else _ranges(path, head, size)


def _ranges(path: Path, head: Head, size: int) -> Iterator[Piece]:
    """Yield pieces of a plain file, reading only what is around their ends."""
    start, total = len(head.raw), path.stat().st_size
    if total > files.LARGEST:
        raise files.too_large(path)
    with path.open("rb") as stream:
        while (cut := _cut(stream, start + size, total)) is not None:
            yield Piece(path, start, cut[0] - start, last=False)
            start = cut[1]
    if total - start > _LONGEST_PIECE:
        raise _endless(path)
    yield Piece(path, start, total - start, last=True)


def _endless(path: Path) -> InputError:
    return InputError("not a profiler trace: no event ends", file=path, place="traceEvents",
                      allowed=f"within {_LONGEST_PIECE} bytes")  # fmt: skip


def _cut(stream: BinaryIO, at: int, total: int) -> tuple[int, int] | None:
    """Return where an event ends and the next begins, from `at` on; None near the end."""
    while at < total:
        stream.seek(at)
        window = stream.read(_WINDOW)
        found = _BETWEEN.search(window)
        if found is not None:
            return at + found.start() + 1, at + found.end() - 1
        at += max(len(window) - _LONGEST_GAP, 1)
    return None


def _unpacked(path: Path, head: Head, size: int) -> Iterator[Piece]:
    """Yield pieces of a packed file as it is unpacked."""
    start, rest = -len(head.raw), b""
    for chunk in files.chunks(path):
        rest += chunk
        if start < 0:  # the head may reach over several chunks
            if len(rest) < -start:
                continue
            rest, start = rest[-start:], len(head.raw)
        while len(rest) >= size + _WINDOW and (found := _BETWEEN.search(rest, size)) is not None:
            end = found.start() + 1
            yield Piece(path, start, end, last=False, raw=rest[:end])
            start, rest = start + found.end() - 1, rest[found.end() - 1 :]
        if len(rest) > _LONGEST_PIECE:
            raise _endless(path)
    yield Piece(path, start, len(rest), last=True, raw=rest)
