"""CSV tables as profilers write them, read strictly and a row at a time.

Byte order marks, UTF-16, CRLF, blank lines and quoted commas are read; a row that does not fit its
header, a number that is none and bytes that are no text are errors with the line. Only the last row
of a file without a final newline may be short: the writer was interrupted, so it is dropped and
counted.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

from npusim.errors import InputError
from npusim.importers import files

_HEAD = 1 << 16
_LONGEST_LINE = 1 << 20
_MOST_BLANK = 1 << 20  # lines without anything: a packed file holds millions of them in a kilobyte
_NUMBER = re.compile(
    r"[+-]?(?=\.?[0-9])(?:[0-9]{1,3}(?:,[0-9]{3}){1,9}|[0-9]{0,30})(?:\.[0-9]{0,30})?"
    r"(?:[eE][+-]?[0-9]{1,2})?"
)
_MISSING = ("", "-", "N/A")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: where it is, what the file calls it, and its unit (or "")."""

    at: int
    label: str
    unit: str = ""


Header = dict[str, Column]
Find = Callable[[Sequence[str]], Header]


def plain(cells: Sequence[str]) -> Header:
    """Return the columns of a header by their names (of two the first), none if all are blank."""
    if not any(c.strip() for c in cells):
        return {}
    found: Header = {}
    for at, label in enumerate(cells):
        found.setdefault(label.strip(), Column(at, label.strip()))
    return found


def head(path: Path) -> str:
    """Return how a file begins, as text; nothing if it cannot be read. Never raises."""
    return files.head(path, _HEAD).decode(_encoding(path), errors="ignore")


def header(path: Path, find: Find = plain) -> tuple[str, ...]:
    """Return the names of a file's columns, nothing if it begins without any. Never raises."""
    return tuple(_first(io.StringIO(head(path), newline=""), find)[0])


def _encoding(path: Path) -> str:
    # a redirection in Windows PowerShell writes UTF-16
    utf16 = files.head(path, 2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return "utf-16" if utf16 else "utf-8-sig"


def _first(lines: Iterable[str], find: Find) -> tuple[Header, int, int]:
    """Return the first header near the top of a file, its width, and the number of its line."""
    seen = 0
    for number, line in enumerate(lines, 1):
        try:
            cells = next(csv.reader([line], strict=True)) if len(line) <= _HEAD else []
        except csv.Error:
            cells = []
        if found := find(cells):
            return found, len(cells), number
        seen += len(line)
        if seen > _HEAD:
            break
    return {}, 0, 0


class Table:
    """The rows of a CSV file.

    Parameters
    ----------
    path : Path
    find : function, optional
        Gives the columns of a line that is the header, nothing for one that is not.

    Attributes
    ----------
    columns : dict of str to Column
    lost : int
        Rows at the end that were cut short, known once all rows are read.

    Raises
    ------
    InputError
        At once or while reading: not text, no header, or a row that does not fit it.
    """

    def __init__(self, path: Path, find: Find = plain) -> None:
        self.path = path
        self.lost = 0
        self._complete = True
        lines = self._lines()
        self.columns, self._width, self._header_line = _first(lines, find)
        if not self.columns:
            raise InputError("no header of a kernel table", file=path)
        self._reader = csv.reader(lines, strict=True)

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
        """Yield the rows that are left; the last one may be cut short."""
        rows = self._rows(may_be_cut=True)
        for line, cells in rows:
            if len(cells) > self._width and any(c.strip() for c in cells[self._width :]):
                raise InputError("more values than columns", file=self.path, place=f"line {line}",
                                 value=len(cells), allowed=f"{self._width}")  # fmt: skip
            if len(cells) < self._width:
                if next(rows, None) is None and not self._complete:
                    self.lost += 1
                    return
                raise InputError("fewer values than columns", file=self.path,
                                 place=f"line {line}", value=len(cells),
                                 allowed=f"{self._width}")  # fmt: skip
            yield Row(self, line, cells)

    def _rows(self, *, may_be_cut: bool) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of the line and the cells of each row that is not blank."""
        while True:
            start = self._header_line + self._reader.line_num + 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                one_line = self._header_line + self._reader.line_num == start
                if may_be_cut and one_line and not self._complete:
                    self.lost += 1  # a quote still open where the writer was interrupted
                    return
                raise InputError("not CSV", file=self.path, place=f"line {start}",
                                 value=str(error)) from None  # fmt: skip
            if any(c.strip() for c in cells):
                yield start, cells

    def _lines(self) -> Iterator[str]:
        """Yield the lines of the file; remember whether the last one ended."""
        number = total = blank = 0
        try:
            with io.TextIOWrapper(
                files.open_bytes(self.path), _encoding(self.path), "surrogateescape", newline=""
            ) as stream:
                while line := stream.readline(_LONGEST_LINE):
                    number += 1
                    total += len(line.encode())  # fails on bytes that are no text
                    self._complete = line.endswith(("\n", "\r"))
                    self._check(line, number, total)
                    blank += line.isspace()
                    if blank > _MOST_BLANK:
                        raise InputError("too many blank lines", file=self.path,
                                         allowed=f"up to {_MOST_BLANK}")  # fmt: skip
                    yield line
        except UnicodeError:
            raise InputError("not UTF-8 text", file=self.path, place=f"line {number}") from None
        except (OSError, EOFError, zlib.error) as error:
            raise files.unreadable(self.path, error) from None

    def _check(self, line: str, number: int, total: int) -> None:
        if total > files.LARGEST:
            raise files.too_large(self.path)
        if number > 10 * files.MOST_OPERATIONS:
            raise files.too_many(self.path)
        if len(line) >= _LONGEST_LINE:
            raise InputError("line is too long", file=self.path, place=f"line {number}",
                             allowed=f"below {_LONGEST_LINE} characters")  # fmt: skip
        if "\0" in line:
            raise InputError("not text: a zero byte", file=self.path, place=f"line {number}")


class Row:
    """One row of a `Table`; values come without the blanks and tabs around them."""

    __slots__ = ("_cells", "_table", "line")

    def __init__(self, table: Table, line: int, cells: list[str]) -> None:
        self._table = table
        self._cells = cells
        self.line = line

    @property
    def columns(self) -> Header:
        """The columns of the table."""
        return self._table.columns

    @property
    def place(self) -> str:
        """Where the row is, for messages."""
        return f"line {self.line}"

    def text(self, *columns: str) -> str:
        """Return the value of the first of these columns that there is, or nothing."""
        for column in columns:
            if column in self._table.columns:
                return self._cells[self._table.columns[column].at].strip()
        return ""

    def is_missing(self, column: str) -> bool:
        """Return whether there is no value, or one of those that say that there is none."""
        return self.text(column) in _MISSING

    def error(
        self, problem: str, column: str, allowed: str, value: object | None = None
    ) -> InputError:
        """Return an error at this row, by default about the value as it stands in the file."""
        return InputError(problem, file=self._table.path,
                          place=f"{self.place}, {self.columns[column].label}", allowed=allowed,
                          value=self.text(column) if value is None else value)  # fmt: skip

    def number(
        self, column: str, low: Decimal | float, high: Decimal | float,
        default: Decimal | None = None,
    ) -> Decimal:  # fmt: skip
        """Return an exact number, or the default (if there is one) where the value is missing.

        Raises
        ------
        InputError
            Not a number, or out of bounds.
        """
        if default is not None and self.is_missing(column):
            return default
        value = _decimal(self.text(column).strip("\"' \t"))
        if value is None or not low <= value <= high:
            raise self.error("out of range" if value is not None else "not a number",
                             column, f"a number from {low:.4g} to {high:.4g}")  # fmt: skip
        return value

    def whole(self, *columns: str, low: int = 0, high: int = 2**31, default: int = 0) -> int:
        """Return a whole number of the first of these columns that there is and is not missing.

        Raises
        ------
        InputError
            Not a whole number, or out of bounds.
        """
        column = next((c for c in columns if c in self._table.columns), None)
        if column is None or self.is_missing(column):
            return default
        text = self.text(column)
        if text.isdecimal() and text.isascii() and len(text) < 20 and low <= int(text) <= high:
            return int(text)  # the most of the cells of a trace
        value = self.number(column, low, high)
        if value != int(value):
            raise self.error("not a whole number", column, f"{low} to {high}")
        return int(value)


@lru_cache(maxsize=1 << 16)
def _decimal(text: str) -> Decimal | None:
    """Return a number with or without thousands separators, None if it is none.

    Examples
    --------
    >>> _decimal("1,234.5"), _decimal(".5"), _decimal("1,23"), _decimal("nan"), _decimal("1_0")
    (Decimal('1234.5'), Decimal('0.5'), None, None, None)
    """
    return Decimal(text.replace(",", "")) if _NUMBER.fullmatch(text) else None
