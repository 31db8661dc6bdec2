"""Trace files as bytes: plain or gzipped, never more of them than fits, and errors a user can read.

What vendors' tools write is cut short, packed, or larger than it says. Every reader here has a
limit on what it takes after unpacking, so that a small file cannot fill the memory.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import msgspec

from npusim.errors import InputError

LARGEST = 4 * 2**30
LARGEST_WHOLE = 2**29
MOST_OPERATIONS = 4_000_000
_UNREADABLE = (OSError, EOFError, zlib.error)

T = TypeVar("T")


def open_bytes(path: Path) -> BinaryIO:
    """Open a file that may be gzipped, whatever it is called."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path, "rb")) if packed else path.open("rb")


def head(path: Path, size: int = 1 << 16) -> bytes:
    """Return how a file begins, unpacked; nothing if it cannot be read. Never raises.

    A pipe or a device is not opened: it could wait for ever.
    """
    if not path.is_file():
        return b""
    try:
        with open_bytes(path) as stream:
            return stream.read(size)
    except _UNREADABLE:
        return b""


def archive(path: Path) -> str | None:
    """Return what kind of archive of several files this is, None if it is none. Never raises."""
    start = head(path, 512)
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    return "tar" if start[257:262] == b"ustar" else None


def chunks(path: Path, size: int = 1 << 20, start: int = 0) -> Iterator[bytes]:
    """Yield a file piece by piece, unpacked, from some byte on.

    Raises
    ------
    InputError
        Damaged, not readable, or more than `LARGEST` bytes.
    """
    total = 0
    try:
        with open_bytes(path) as stream:
            stream.seek(start)
            while chunk := stream.read(size):
                total += len(chunk)
                if total > LARGEST:
                    raise too_large(path)
                yield chunk
    except _UNREADABLE as error:
        raise unreadable(path, error) from None


def whole(path: Path) -> bytes:
    """Return a file at once, unpacked; it raises what `chunks` raises, and sooner.

    What is decoded at once takes several times its size: `LARGEST_WHOLE` at most.
    """
    parts, total = [], 0
    for chunk in chunks(path):
        total += len(chunk)
        if total > LARGEST_WHOLE:
            raise too_large(path, LARGEST_WHOLE)
        parts.append(chunk)
    return b"".join(parts)


def too_large(path: Path, most: int | None = None) -> InputError:
    """Return the error for a file that holds more than we take."""
    limit = LARGEST if most is None else most
    return InputError("trace too large", file=path, allowed=f"up to {limit} bytes unpacked")


def too_many(path: Path) -> InputError:
    """Return the error for a trace with more operations than we take."""
    return InputError("too many operations in one trace", file=path,
                      allowed=f"up to {MOST_OPERATIONS}")  # fmt: skip


def unreadable(path: Path, error: Exception) -> InputError:
    """Return the error for a file that the system or its packing will not give us."""
    if isinstance(error, (EOFError, zlib.error, gzip.BadGzipFile)):
        return InputError("gzip data is damaged or cut short", file=path)
    return InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}", file=path)


def decode_json(path: Path, raw: bytes, kind: type[T]) -> T:
    """Return what `whole` gave of a JSON file as typed records.

    Raises
    ------
    InputError
        Cut short, not JSON, or a value that the records do not allow, with its place.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at ")
        raise InputError(problem[0].lower() + problem[1:], file=path,
                         place=place.strip("`$.") or None) from None  # fmt: skip
    except msgspec.DecodeError as error:
        text = str(error).removeprefix("JSON is malformed: ")
        if "truncated" in text:
            raise InputError(f"JSON is cut short after {len(raw)} bytes", file=path) from None
        raise InputError(f"not JSON: {text}", file=path) from None
    except (RecursionError, UnicodeDecodeError):
        raise InputError("not JSON that can be read: too deep or not UTF-8", file=path) from None


class Numbering(dict[Any, int]):
    """Numbers from 0 for whatever comes, in order of appearance.

    Examples
    --------
    >>> streams = Numbering()
    >>> streams["queue 7"], streams["queue 3"], streams["queue 7"]
    (0, 1, 0)
    """

    def __missing__(self, key: Any) -> int:
        """Give a new key the next number."""
        self[key] = len(self)
        return self[key]
