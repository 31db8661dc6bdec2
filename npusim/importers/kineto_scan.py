"""A whole Kineto trace as columns, read in pieces, on one core or several.

Pieces that decode go the quick way. Where one does not, because the trace is cut short, damaged or
split at a wrong place, the rest is read event by event, which mends a cut or says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from npusim.errors import InputError
from npusim.importers import files
from npusim.importers.chrome_events import Events
from npusim.importers.event_pieces import PIECE, Head, Piece, head_of, pieces
from npusim.importers.kineto_decoder import About, Decoder, decoder_of
from npusim.importers.kineto_events import (
    LATEST_US,
    LONGEST_US,
    Columns,
    Range,
    Short,
    Spans,
    shape_key,
)
from npusim.importers.kineto_helpers import Helper, crew, side_by_side
from npusim.importers.kineto_sizes import Sizes

Tick = Callable[[int, int], None]

_BATCH = 4096
_MOST_CALLS = 20_000_000  # of the host: a gigabyte of columns


@dataclass(frozen=True)
class Trace:
    """The events of a trace as columns; see `Columns` for the fields.

    Attributes
    ----------
    about : list of About
        What stands before the events and behind them.
    lost : int
        Events cut short at the end.
    repaired : bool
        Whether the end was missing or mended.
    """

    operators: Spans
    runtime: Spans
    device: Spans
    marks: Spans
    names: list[str]
    threads: list[tuple[Any, Any]]
    shapes: list[bytes]
    sizes: list[Sizes]
    ranges: list[Range]
    events: int
    about: list[About]
    lost: int = 0
    repaired: bool = False


def scan(path: Path, workers: int = 1, tick: Tick | None = None, piece_size: int = PIECE) -> Trace:
    """Read the events of a trace.

    Parameters
    ----------
    path : Path
    workers : int
        Processes that decode; a small file takes one whatever is asked.
    tick : function, optional
        Called with bytes done and bytes in all (0 if not known).
    piece_size : int
        About how much is decoded at once [B].

    Raises
    ------
    InputError
        Not a profiler trace, damaged other than at its end, or with times that are none.
    """
    with crew(path, workers) as helpers:
        return trace_of(path, helpers, tick, piece_size)


def trace_of(
    path: Path, helpers: Sequence[Helper], tick: Tick | None = None, piece_size: int = PIECE
) -> Trace:
    """Read the events of a trace with helpers that have been started; see `scan`."""
    head = head_of(path)
    if not head.in_object:
        raise InputError("no traceEvents", file=path, allowed="an object with traceEvents")
    merger = _Merger(path)
    merger.about.append(_about(path, head))
    size = path.stat().st_size
    found = pieces(path, head, piece_size)
    first = next(found)
    decoder = decoder_of(first)
    total = size if first.raw is None else 0
    with closing(side_by_side(decoder, chain([first], found), helpers)) as done:
        for piece, result in done:
            if isinstance(result, msgspec.ValidationError):
                raise _wrong_type(path, merger.events, result)
            if result is None:
                merger.add_one_by_one(decoder, piece)
                break
            merger.add(*result)
            if tick is not None:
                tick(piece.start + piece.size, total)
    return merger.trace()


def _about(path: Path, head: Head) -> About:
    return files.decode_json(path, head.raw + b"]}", About)


def _wrong_type(path: Path, before: int, error: msgspec.ValidationError) -> InputError:
    problem, _, place = str(error).partition(" - at ")
    found = re.search(r"\[(\d+)\](.*)`", place)
    at = f"traceEvents[{before + int(found[1])}]{found[2]}" if found else place.strip("`$.")
    return InputError(problem[0].lower() + problem[1:], file=path, place=at)


class _Merger:
    """Pieces put together: their numbers stand for the same texts afterwards."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about: list[About] = []
        self.events = self.lost = self.operations = self.calls = 0
        self.repaired = False
        self._tables: dict[str, dict[Any, int]] = {
            t: {} for t in ("names", "threads", "shapes", "sizes")
        }
        self._spans: dict[str, list[Spans]] = {
            g: [] for g in ("operators", "runtime", "device", "marks")
        }
        self._shapes: list[bytes] = []
        self._ranges: list[Range] = []

    def add(self, c: Columns, about: About | None = None) -> None:
        """Add one piece."""
        if c.wrong is not None:
            at = f"traceEvents[{self.events + c.wrong.event}].{c.wrong.field}"
            if c.wrong.field == "args":
                raise InputError("not a profiler's arguments", file=self.path, place=at,
                                 value=c.wrong.value)  # fmt: skip
            low = "from 0 to " if c.wrong.field == "dur" else "up to "
            limit = LONGEST_US if c.wrong.field == "dur" else LATEST_US
            raise InputError("not a time", file=self.path, place=at, value=c.wrong.value,
                             allowed=f"microseconds, finite, {low}{limit:g}")  # fmt: skip
        name, thread = self._lookup("names", c.names), self._lookup("threads", c.threads)
        shape, size = self._shape_codes(c.shapes), self._lookup("sizes", c.sizes)
        none = np.zeros(1, dtype=np.int32)
        self._add_spans("operators", c.operators, name, thread, shape)
        self._add_spans("runtime", c.runtime, name, thread, none)
        self._add_spans("device", c.device, name, none, size)
        self._add_spans("marks", c.marks, name, none, none)
        self._ranges += c.ranges
        self.events += c.events
        self.operations += len(c.device)
        self.calls += len(c.operators) + len(c.runtime)
        if self.operations > files.MOST_OPERATIONS:
            raise files.too_many(self.path)
        if self.calls > _MOST_CALLS:
            raise InputError("too many calls of the host in one trace", file=self.path,
                             allowed=f"up to {_MOST_CALLS}")  # fmt: skip
        if about is not None:
            self.about.append(about)

    def add_one_by_one(self, decoder: Decoder, piece: Piece) -> None:
        """Add what is left from a piece on, up to where the trace was cut."""
        events = Events(self.path, start=piece.start, count=self.events)
        numbered = iter(events)
        while batch := [event for _, event in islice(numbered, _BATCH)]:
            try:
                self.add(decoder.batch(batch))
            except msgspec.ValidationError as error:
                raise _wrong_type(self.path, self.events, error) from None
            except UnicodeEncodeError as error:
                raise InputError("not text: half of a surrogate pair", file=self.path,
                                 place=f"after traceEvents[{self.events}]",
                                 value=repr(error.object[error.start])) from None  # fmt: skip
        self.lost, self.repaired = events.lost, events.repaired

    def _lookup(self, table: str, keys: list[Any]) -> Short:
        codes = self._tables[table]
        return np.array([codes.setdefault(k, len(codes)) for k in keys], dtype=np.int32)

    def _shape_codes(self, shapes: list[bytes]) -> Short:
        """Return the number of each operator's arguments, the same whatever their ids."""
        keys = [shape_key(raw) for raw in shapes]
        codes = self._lookup("shapes", keys)
        for raw, code in zip(shapes, codes.tolist(), strict=True):
            if code == len(self._shapes):
                self._shapes.append(raw)
        return codes

    def _add_spans(
        self, group: str, spans: Spans, name: Short, thread: Short, detail: Short
    ) -> None:
        if len(spans):
            self._spans[group].append(
                Spans(spans.start, spans.length, name[spans.name], thread[spans.thread],
                      detail[spans.detail], spans.correlation)
            )  # fmt: skip

    def trace(self) -> Trace:
        """Return all pieces as one."""
        parts, tables = self._spans, self._tables
        spans = [_joined(parts.pop(g)) for g in ("operators", "runtime", "device", "marks")]
        return Trace(
            spans[0], spans[1], spans[2], spans[3], list(tables["names"]), list(tables["threads"]),
            self._shapes, list(tables["sizes"]), self._ranges, self.events, self.about, self.lost,
            self.repaired,
        )  # fmt: skip


def _joined(parts: list[Spans]) -> Spans:
    columns = ("start", "length", "name", "thread", "detail", "correlation")
    if not parts:
        return Spans.none()
    return Spans(*(np.concatenate([getattr(p, c) for p in parts]) for c in columns))
