"""A whole Kineto trace as columns, read in pieces, on one core or several.

Pieces that decode go the quick way. Where one does not, because the trace is cut short, damaged or
split at a wrong place, the rest is read event by event, which mends a cut or says what is wrong.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from npusim.errors import InputError
from npusim.importers import files
from npusim.importers.chrome_events import Events
from npusim.importers.event_pieces import PIECE, Head, Piece, head_of, pieces
from npusim.importers.kineto_events import (
    COARSE_US,
    LATEST_US,
    LONGEST_US,
    Columns,
    Event,
    ExactEvent,
    Range,
    Short,
    Sizes,
    Spans,
    columns_of,
    shape_key,
)

Tick = Callable[[int, int], None]

_SMALL = 32 << 20  # bytes below which starting helpers takes longer than they save
_TIME = re.compile(rb'"ts"\s*:\s*(-?\d{1,30}(?:\.\d{1,30})?)')
_BATCH = 4096
_MOST_CALLS = 20_000_000  # of the host: a gigabyte of columns


class About(msgspec.Struct):
    """What stands around the events of a trace."""

    deviceProperties: Any = None  # noqa: N815  (as in the file)
    distributedInfo: Any = None  # noqa: N815
    cuda_driver_version: Any = None
    cuda_runtime_version: Any = None
    hip_driver_version: Any = None
    hip_runtime_version: Any = None


class _Rest(About):
    traceEvents: list[Event] = []  # noqa: N815


class _ExactRest(About):
    traceEvents: list[ExactEvent] = []  # noqa: N815


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


@dataclass(frozen=True)
class _Decoder:
    """How pieces of one trace are read: the time that counts as zero, and whether floats do."""

    base: Decimal
    exact: bool

    def piece(self, piece: Piece) -> tuple[Columns, About | None] | None:
        """Return a piece as columns, or None if it is not whole events.

        Raises
        ------
        msgspec.ValidationError
            An event with a field of a wrong type.
        """
        event = ExactEvent if self.exact else Event
        try:
            if not piece.last:
                found = msgspec.json.decode(b"[" + piece.text() + b"]", type=list[event])  # type: ignore[valid-type]
                return columns_of(found, self.base), None
            kind: type[_Rest | _ExactRest] = _ExactRest if self.exact else _Rest
            rest = msgspec.json.decode(b'{"traceEvents":[' + piece.text(), type=kind)
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return None
        return columns_of(rest.traceEvents, self.base), rest

    def batch(self, events: list[dict[str, Any]]) -> Columns:
        """Return events that were read one by one as columns."""
        raw = msgspec.json.Encoder(decimal_format="number").encode(events)
        event = ExactEvent if self.exact else Event
        return columns_of(msgspec.json.decode(raw, type=list[event]), self.base)  # type: ignore[valid-type]


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
    head = head_of(path)
    if not head.in_object:
        raise InputError("no traceEvents", file=path, allowed="an object with traceEvents")
    merger = _Merger(path)
    merger.about.append(_about(path, head))
    total = path.stat().st_size
    workers = workers if total >= _SMALL else 1
    found = pieces(path, head, piece_size)
    first = next(found)
    decoder = _decoder(first)
    stream = _chained(first, found)
    done = _in_turn(decoder, stream) if workers < 2 else _side_by_side(decoder, stream, workers)
    for piece, result in done:
        if isinstance(result, msgspec.ValidationError):
            raise _wrong_type(path, merger.events, result)
        if result is None:
            merger.add_one_by_one(decoder, piece)
            break
        merger.add(*result)
        if tick is not None:
            tick(piece.start + piece.size, total if piece.raw is None else 0)
    return merger.trace()


def _chained(first: Piece, rest: Iterator[Piece]) -> Iterator[Piece]:
    yield first
    yield from rest


def _decoder(first: Piece) -> _Decoder:
    found = _TIME.search(first.text())
    base = Decimal(found[1].decode()) if found is not None else Decimal(0)
    if abs(base) > LATEST_US:
        base = Decimal(0)
    return _Decoder(base, abs(base) > COARSE_US)


def _about(path: Path, head: Head) -> About:
    return files.decode_json(path, head.raw + b"]}", About)


_Result = tuple[Columns, About | None] | msgspec.ValidationError | None


def _attempt(decoder: _Decoder, piece: Piece) -> _Result:
    try:
        return decoder.piece(piece)
    except msgspec.ValidationError as error:
        return error


def _in_turn(decoder: _Decoder, stream: Iterable[Piece]) -> Iterator[tuple[Piece, _Result]]:
    for piece in stream:
        yield piece, _attempt(decoder, piece)


def _side_by_side(
    decoder: _Decoder, stream: Iterator[Piece], workers: int
) -> Iterator[tuple[Piece, _Result]]:
    """Yield pieces in order; this process decodes those that its helpers are too busy for."""
    waiting: deque[tuple[Piece, Future[_Result]]] = deque()
    # A fresh interpreter each: a fork of a process that draws a progress bar may hang.
    with ProcessPoolExecutor(workers - 1, mp_context=get_context("spawn")) as pool:
        try:
            for piece in stream:
                busy = sum(not future.done() for _, future in waiting)
                future = _handed(pool, decoder, piece) if busy < 2 * (workers - 1) else None
                if future is None:
                    future = Future()
                    future.set_result(_attempt(decoder, piece))
                waiting.append((piece, future))
                while waiting and (waiting[0][1].done() or len(waiting) > 8 * workers):
                    first, future = waiting.popleft()
                    yield first, _result(decoder, first, future)
            for piece, future in waiting:
                yield piece, _result(decoder, piece, future)
        finally:
            pool.shutdown(cancel_futures=True)


def _handed(pool: ProcessPoolExecutor, decoder: _Decoder, piece: Piece) -> Future[_Result] | None:
    """Hand a piece to a helper; None if they are gone."""
    try:
        return pool.submit(_attempt, decoder, piece)
    except BrokenProcessPool:
        return None


def _result(decoder: _Decoder, piece: Piece, future: Future[_Result]) -> _Result:
    """Return what a helper made of a piece; if it was killed, this process does its work."""
    try:
        return future.result()
    except BrokenProcessPool:
        return _attempt(decoder, piece)


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

    def add_one_by_one(self, decoder: _Decoder, piece: Piece) -> None:
        """Add what is left from a piece on, up to where the trace was cut."""
        events = Events(self.path, start=piece.start, count=self.events)
        numbered = iter(events)
        while batch := [event for _, event in islice(numbered, _BATCH)]:
            try:
                self.add(decoder.batch(batch))
            except msgspec.ValidationError as error:
                raise _wrong_type(self.path, self.events, error) from None
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
