"""CSV tables as profilers write them, read strictly and a row at a time.

Byte order marks, CRLF, blank lines and quoted commas are read; a row that does not fit its header,
a number that is none and bytes that are no text are errors with the line. Only the last row of a
file without a final newline may be short: the writer was interrupted, so it is dropped and counted.
"""

from __future__ import annotations

import csv
import io
import re
import zlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from npusim.errors import InputError
from npusim.importers import files

_LONGEST_LINE = 1 << 20
_NUMBER = re.compile(r"[+-]?[0-9]{1,25}(?:\.[0-9]{0,20})?(?:[eE][+-]?[0-9]{1,2})?")


def header(path: Path) -> tuple[str, ...]:
    """Return the column names of a CSV file, nothing if it is none. Never raises."""
    try:
        text = files.head(path).decode("utf-8-sig", errors="ignore")
        first = next((r for r in csv.reader(io.StringIO(text, newline="")) if any(r)), [])
    except (csv.Error, ValueError):
        return ()
    return tuple(name.strip() for name in first)


class Table:
    """The rows of a CSV file.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    columns : dict of str to int
        Position of each column.
    lost : int
        Rows at the end that were cut short, known once all rows are read.

    Raises
    ------
    InputError
        At once or while reading: not text, no header, or a row that does not fit it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        self._complete = True
        self._reader = csv.reader(self._lines(), strict=True)
        first = next(self._fields(), None)
        if first is None:
            raise InputError("no header", file=path, allowed="column names in the first row")
        self.columns = {name.strip(): i for i, name in reversed(list(enumerate(first[1])))}
        self._width = len(first[1])

    def need(self, *choices: str) -> str:
        """Return the one of some names that the header has.

        Raises
        ------
        InputError
            It has none of them.
        """
        found = next((name for name in choices if name in self.columns), None)
        if found is None:
            raise InputError("column is missing", file=self.path, place="header",
                             value=choices[0], allowed=" or ".join(choices))  # fmt: skip
        return found

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows that are left."""
        for line, fields in self._fields():
            if len(fields) > self._width and any(f.strip() for f in fields[self._width :]):
                raise InputError("more values than columns", file=self.path, place=f"line {line}",
                                 value=len(fields), allowed=f"{self._width}")  # fmt: skip
            if len(fields) < self._width:
                if next(self._fields(), None) is None and not self._complete:
                    self.lost += 1
                    return
                raise InputError("fewer values than columns", file=self.path,
                                 place=f"line {line}", value=len(fields),
                                 allowed=f"{self._width}")  # fmt: skip
            yield Row(self, line, fields)

    def _lines(self) -> Iterator[str]:
        """Yield the lines of the file; remember whether the last one ended."""
        number, total = 0, 0
        try:
            with files.open_bytes(self.path) as stream:
                while raw := stream.readline(_LONGEST_LINE):
                    number, total = number + 1, total + len(raw)
                    self._complete = raw.endswith((b"\n", b"\r"))
                    self._check(raw, number, total)
                    yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise InputError("not UTF-8", file=self.path, place=f"line {number}") from None
        except (OSError, EOFError, zlib.error) as error:
            raise files.unreadable(self.path, error) from None

    def _check(self, raw: bytes, number: int, total: int) -> None:
        if total > files.LARGEST:
            raise files.too_large(self.path)
        if number > 10 * files.MOST_OPERATIONS:
            raise files.too_many(self.path)
        if len(raw) >= _LONGEST_LINE:
            raise InputError("line is too long", file=self.path, place=f"line {number}",
                             allowed=f"below {_LONGEST_LINE} bytes")  # fmt: skip
        if b"\0" in raw:
            raise InputError("not text: a zero byte", file=self.path, place=f"line {number}")

    def _fields(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of the line and the values of each row that is not blank."""
        while True:
            start = self._reader.line_num + 1
            try:
                fields = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                if self._complete or self._reader.line_num != start:
                    raise InputError("not CSV", file=self.path, place=f"line {start}",
                                     value=str(error)) from None  # fmt: skip
                self.lost += 1  # a quote still open where the writer was interrupted
                return
            if any(f.strip() for f in fields):
                yield start, fields


class Row:
    """One row of a `Table`; values come without the blanks and tabs around them."""

    __slots__ = ("_fields", "_table", "line")

    def __init__(self, table: Table, line: int, fields: list[str]) -> None:
        self._table = table
        self._fields = fields
        self.line = line

    def text(self, *columns: str) -> str:
        """Return the value of the first of these columns that there is, or nothing."""
        for column in columns:
            if column in self._table.columns:
                return self._fields[self._table.columns[column]].strip()
        return ""

    def error(self, problem: str, column: str, value: object, allowed: str) -> InputError:
        """Return an error at this row."""
        return InputError(problem, file=self._table.path, place=f"line {self.line}, {column}",
                          value=value, allowed=allowed)  # fmt: skip

    def number(self, column: str, low: float, high: float) -> Decimal:
        """Return an exact number.

        Raises
        ------
        InputError
            Not a number, or out of bounds.
        """
        text = self.text(column).strip("\"' \t")
        value = Decimal(text) if _NUMBER.fullmatch(text) else None
        if value is None or not low <= value <= high:
            raise self.error("out of range" if value is not None else "not a number",
                             column, text, f"{low:g} to {high:g}")  # fmt: skip
        return value

    def whole(self, low: int, high: int, *columns: str, default: int = 0) -> int:
        """Return a whole number of the first of these columns that there is and is not empty.

        Raises
        ------
        InputError
            Not a whole number, or out of bounds.
        """
        column = next((c for c in columns if c in self._table.columns), None)
        if column is None or self.text(column) in ("", "N/A"):
            return default
        value = self.number(column, low, high)
        if value != int(value):
            raise self.error("not a whole number", column, self.text(column), f"{low} to {high}")
        return int(value)
