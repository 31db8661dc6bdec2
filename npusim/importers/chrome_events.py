"""The events of a Chrome trace one by one, up to where the file was cut.

Whole pieces of a large trace are decoded at once; from the first that does not decode, and in the
last one, events are read singly. A tail that holds the beginning of one event, with or without
brackets that somebody closed by hand, is dropped and counted; anything else that is not JSON is an
error with the number of the event.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Generator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from npusim.errors import InputError
from npusim.importers import files
from npusim.importers.event_pieces import PIECE, head_of, pieces

_LONGEST_EVENT = 1 << 20
_LONGEST_HEAD = 1 << 20
_START = re.compile(r'\s*(?:\[|\{.*?"traceEvents"\s*:\s*\[)', re.DOTALL)
_BETWEEN = re.compile(r"\s*(,?)\s*")
# What may stand where the parser gave up, if that is the end of the file: part of one string, word
# or number, and the brackets that people put behind it to make it JSON.
_LAST_TOKEN = re.compile(r',?\s*(?:"(?:[^"\\]|\\.)*\\?|\\?[\w.+-]*)\s*(?:\]\s*\}?\s*)?', re.DOTALL)


class Events:
    """The events of a file, with their number; iterate once.

    Parameters
    ----------
    path : Path
    start : int, optional
        Byte of the unpacked file at which to go on, inside the list of events; by default the
        beginning of the file.
    count : int
        Events before that.

    Attributes
    ----------
    count : int
        Events read so far.
    lost : int
        Events cut short at the end.
    repaired : bool
        Whether the end of the file was missing or had to be mended.
    """

    def __init__(self, path: Path, start: int | None = None, count: int = 0) -> None:
        self.path = path
        self.start = start
        self.count = count
        self.lost = 0
        self.repaired = False
        # Decimals keep what a float would round: 16 digits before the point and some behind.
        self._decoder = json.JSONDecoder(parse_float=Decimal)
        self._pieces = self._text()
        self._buffer = ""
        self._at = 0

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the events that are objects.

        Raises
        ------
        InputError
            Not a Chrome trace, not JSON in the middle, not UTF-8, or too large.
        """
        in_object = True
        if self.start is None:
            in_object = yield from self._quick()
        if self.start is None:
            in_object = self._open()
        first = self.count
        while True:
            comma = self._skip()
            if self._at == len(self._buffer):
                self.repaired = True  # no closing bracket
                return
            if self._buffer[self._at] == "]":
                self._close(in_object, comma)
                return
            if self.count > first and not comma:
                raise self._error("not JSON: no comma between events")
            event = self._event()
            if event is None:
                return
            self.count += 1
            yield self.count - 1, event

    def _quick(self) -> Generator[tuple[int, dict[str, Any]], None, bool]:
        """Yield what decodes in large pieces; `start` is where that ends, if there is any."""
        if self.path.stat().st_size < PIECE // 16:  # packed traces grow sixteenfold
            return True
        decoder = msgspec.json.Decoder(list[dict[str, Any]], float_hook=Decimal)
        head = head_of(self.path)
        for piece in pieces(self.path, head):
            self.start = piece.start
            if piece.last:
                break
            try:
                events = decoder.decode(b"[" + piece.text() + b"]")
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                break
            yield from enumerate(events, self.count)
            self.count += len(events)
        return head.in_object

    def _text(self) -> Iterator[str]:
        """Yield the file as text; bytes of a character cut at the end are dropped with it."""
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        try:
            for chunk in files.chunks(self.path, start=self.start or 0):
                yield decoder.decode(chunk)
        except UnicodeDecodeError as error:
            raise self._error(f"not UTF-8 ({error.reason})") from None

    def _error(self, problem: str, value: str | None = None) -> InputError:
        place = f"traceEvents[{self.count}]"
        if value is None:
            return InputError(problem, file=self.path, place=place)
        return InputError(problem, file=self.path, place=place, value=value)

    def _more(self) -> bool:
        """Put the next piece of the file behind what is not used yet."""
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._buffer = self._buffer[self._at :] + piece
        self._at = 0
        return True

    def _open(self) -> bool:
        """Go to the first event; return whether the events are in an object."""
        while (found := _START.match(self._buffer)) is None:
            if len(self._buffer) > _LONGEST_HEAD or not self._more():
                raise InputError("no traceEvents", file=self.path,
                                 allowed="a list of events, or an object with one")  # fmt: skip
        self._at = found.end()
        return found[0].lstrip().startswith("{")

    def _skip(self) -> bool:
        """Go over blanks and a comma; return whether there was one."""
        comma = False
        while True:
            found = _BETWEEN.match(self._buffer, self._at)
            if found is not None:
                if comma and found[1]:
                    raise self._error("not JSON: two commas between events")
                comma = comma or bool(found[1])
                self._at = found.end()
            if self._at < len(self._buffer) or not self._more():
                return comma

    def _event(self) -> dict[str, Any] | None:
        """Return the next event, or None where the file was cut in the middle of it."""
        while True:
            try:
                event, end = self._decoder.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                problem, place = error.msg, error.pos - self._at
            except RecursionError:
                raise self._error("nested too deeply") from None
            except ValueError:
                raise self._error("a number of thousands of digits") from None
            else:
                if not isinstance(event, dict):
                    raise self._error("not an event", json.dumps(event, default=str)[:60])
                self._at = end
                return event
            if len(self._buffer) - self._at > _LONGEST_EVENT or not self._more():
                break
        self._cut(problem, place)
        return None

    def _cut(self, problem: str, place: int) -> None:
        """Drop what is left if it is the beginning of one event, or say what is wrong with it."""
        rest = self._buffer[self._at :]
        if len(rest) > _LONGEST_EVENT or rest[0] != "{" or not _LAST_TOKEN.fullmatch(rest, place):
            raise self._error(f"not JSON: {problem[0].lower()}{problem[1:]}", rest[:200])
        self.lost += 1
        self.repaired = True

    def _close(self, in_object: bool, comma: bool) -> None:
        """Look at what follows the events: closing brackets, or more keys of the object."""
        self._at += 1
        self.repaired = comma and self.count > 0  # brackets put behind a comma by hand
        while len(self._buffer) - self._at < 16 and self._more():
            pass
        rest = self._buffer[self._at :].lstrip()
        expected = ("}", ",") if in_object else ()
        if not rest:
            self.repaired = self.repaired or in_object
        elif not rest.startswith(expected) or not expected or re.match(r"\}\s*\S", rest):
            raise self._error("not JSON after the events", rest[:60])
