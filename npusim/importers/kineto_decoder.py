"""A piece of a Kineto trace decoded: typed records, and at once columns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec

from npusim.importers.event_pieces import Piece, Room
from npusim.importers.kineto_events import (
    COARSE_US,
    LATEST_US,
    Columns,
    Event,
    ExactEvent,
    columns_of,
    decoder,
)

_TIME = re.compile(rb'"ts"\s*:\s*(-?\d{1,30}(?:\.\d{1,30})?)')


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


Result = tuple[Columns, About | None] | msgspec.ValidationError | None


@dataclass(frozen=True)
class Decoder:
    """How pieces of one trace are read: the time that counts as zero, and whether floats do."""

    base: Decimal
    exact: bool

    def attempt(self, piece: Piece, room: Room | None = None) -> Result:
        """Return a piece as columns, or what is wrong with it; None if it is not whole events.

        Nothing that is returned is in the room any more.
        """
        try:
            return self._piece(piece, room if room is not None else Room())
        except msgspec.ValidationError as error:
            return error
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return None

    def _piece(self, piece: Piece, room: Room) -> tuple[Columns, About | None]:
        if not piece.last:
            found = decoder(self._events).decode(room.text(b"[", piece, b"]"))
            return columns_of(found, self.base), None
        kind: type[_Rest | _ExactRest] = _ExactRest if self.exact else _Rest
        rest = decoder(kind).decode(room.text(b'{"traceEvents":[', piece, b""))
        return columns_of(rest.traceEvents, self.base), rest

    def batch(self, events: list[dict[str, Any]]) -> Columns:
        """Return events that were read one by one as columns."""
        raw = msgspec.json.Encoder(decimal_format="number").encode(events)
        return columns_of(decoder(self._events).decode(raw), self.base)

    @property
    def _events(self) -> type[list[ExactEvent]] | type[list[Event]]:
        return list[ExactEvent] if self.exact else list[Event]


def decoder_of(first: Piece) -> Decoder:
    """Return how to read a trace: zero is the first time in it."""
    found = _TIME.search(first.text())
    base = Decimal(found[1].decode()) if found is not None else Decimal(0)
    if abs(base) > LATEST_US:
        base = Decimal(0)
    return Decoder(base, abs(base) > COARSE_US)
