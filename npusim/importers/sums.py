"""Tables of kernels in CSV: strict rows, units in the header, and sums laid out as operations.

A sum says how often a kernel ran and for how long in all, not when. It is laid out as that many
operations of the average time, end to end, so that totals and counts hold; order, spread, gaps
and the host are not in it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from npusim.errors import InputError
from npusim.importers.assembly import Operation, Step, assemble
from npusim.importers.describe import describe
from npusim.importers.work import Launch, Work
from npusim.workload import Steps, Workload

NOTE = "kernel sums: order and spread unknown"
MOST_CALLS = 1_000_000
LONGEST_NS = Decimal(10) ** 15
LATEST_NS = Decimal(10) ** 20

_HEAD = 1 << 16
_LONGEST_LINE = 1 << 20
_BRACKETS = re.compile(r"(.*?)[\s_]*[(\[]([^)\]]*)[)\]]\s*")
_SUFFIX = re.compile(r"(.+)_(ns|nsec|us|µs|usec|ms|msec|s|sec)")
_NUMBER = re.compile(
    r"[+-]?(?=\.?[0-9])(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,2})?"
)
_TIMES = {"ns": 0, "nsec": 0, "us": 3, "µs": 3, "usec": 3, "ms": 6, "msec": 6, "s": 9, "sec": 9}
_SIZES = {"b": 1, "byte": 1, "bytes": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9,
          "kbyte": 10**3, "mbyte": 10**6, "gbyte": 10**9,
          "kib": 2**10, "mib": 2**20, "gib": 2**30}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """A column of a table: where it is, what the file calls it, and its unit (or "")."""

    at: int
    label: str
    unit: str


_LONGEST_LABEL = 80

Header = Mapping[str, Field]
Wanted = Callable[[Header], bool]


def fields(cells: Sequence[str]) -> dict[str, Field]:
    """Return the columns of a header by plain name; of two with one name the first.

    >>> {name: f.unit for name, f in fields(["Time (%)", "Total Time (ns)", "avg_us"]).items()}
    {'time': '%', 'totaltime': 'ns', 'avg': 'us'}
    """
    found: dict[str, Field] = {}
    for at, label in enumerate(cells):
        if len(label) > _LONGEST_LABEL:  # no report has such a column, and the patterns backtrack
            continue
        parts = _BRACKETS.fullmatch(label) or _SUFFIX.fullmatch(label.strip())
        name, unit = parts.groups() if parts else (label, "")
        plain = "".join(c for c in name.lower() if c.isalnum())
        found.setdefault(plain, Field(at, label.strip(), unit.strip().lower()))
    return found


@dataclass(frozen=True)
class Record:
    """One row of a table, read strictly."""

    file: Path
    line: int
    cells: Sequence[str]
    header: Header

    @property
    def place(self) -> str:
        """Where the row is, for messages."""
        return f"line {self.line}"

    def text(self, name: str) -> str:
        """Return a cell without the blanks around it, "" if there is no such column."""
        return self.cells[self.header[name].at].strip() if name in self.header else ""

    def name(self, column: str) -> str:
        """Return the name of a kernel, which must not be blank."""
        if text := self.text(column):
            return text
        raise self.wrong(column, "no name", "the name of a kernel")

    def wrong(self, name: str, problem: str, allowed: str) -> InputError:
        """Return the error that says what is wrong with a cell."""
        field = self.header[name]
        return InputError(problem, file=self.file, place=f"{self.place}, {field.label}",
                          value=self.text(name), allowed=allowed)  # fmt: skip

    def number(self, name: str, low: Decimal | int, high: Decimal | int) -> Decimal | None:
        """Return a number with or without thousands separators, None where there is none."""
        text = self.text(name)
        if text in ("", "-"):
            return None
        value = _decimal(text)
        if value is None:
            raise self.wrong(name, "not a number", f"a number from {low} to {high:.4g}")
        if not low <= value <= high:
            raise self.wrong(name, "out of range", f"a number from {low} to {high:.4g}")
        return value

    def whole(self, name: str, low: int = 0, high: int = 2**31) -> int:
        """Return a whole number, 0 where there is none."""
        text = self.text(name)
        if text.isdecimal() and text.isascii() and len(text) < 20 and low <= int(text) <= high:
            return int(text)  # the most of the cells of a trace
        value = self.number(name, low, high)
        if value is not None and value != int(value):
            raise self.wrong(name, "not a whole number", f"{low} to {high}")
        return 0 if value is None else int(value)

    def calls(self, name: str) -> int:
        """Return how often a kernel ran: at least once, and no blank."""
        if self.text(name) in ("", "-"):
            raise self.wrong(name, "no count", "a whole number from 1")
        return self.whole(name, 1, 2**53)

    def time_ns(self, name: str, low: Decimal | int = 0, high: Decimal = LONGEST_NS) -> Decimal:
        """Return a time [ns], which must not be blank; no unit in the header means ns."""
        unit = self.header[name].unit or "ns"
        if unit not in _TIMES:
            raise InputError("unknown unit of time", file=self.file, place=self.header[name].label,
                             value=unit, allowed=", ".join(_TIMES))  # fmt: skip
        scale = Decimal(10) ** _TIMES[unit]
        value = self.number(name, low / scale, high / scale)
        if value is None:
            raise self.wrong(name, "no time", f"a number of {unit}")
        return value * scale

    def size(self, name: str) -> float:
        """Return bytes, 0 where there are none; no unit in the header means bytes."""
        if name not in self.header:
            return 0.0
        unit = self.header[name].unit or "b"
        if unit not in _SIZES:
            raise InputError("unknown unit of size", file=self.file, place=self.header[name].label,
                             value=unit, allowed=", ".join(_SIZES))  # fmt: skip
        value = self.number(name, 0, Decimal(2**50) / _SIZES[unit])
        return 0.0 if value is None else float(value * _SIZES[unit])


@lru_cache(maxsize=1 << 16)
def _decimal(text: str) -> Decimal | None:
    """Return a number with or without thousands separators, None if it is none.

    >>> _decimal("1,234.5"), _decimal(".5"), _decimal("1,23"), _decimal("nan"), _decimal("1_0")
    (Decimal('1234.5'), Decimal('0.5'), None, None, None)
    """
    if len(text) > 60 or not _NUMBER.fullmatch(text):
        return None
    return Decimal(text.replace(",", ""))


def has_header(path: Path, wanted: Wanted) -> bool:
    """Return whether one of the first lines is a header that is wanted; never raises."""
    try:
        with _open(path, "replace") as stream:
            head = stream.read(_HEAD)
    except (OSError, UnicodeError, ValueError):
        return False
    return "\0" not in head and any(_header(line, wanted) for line in head.splitlines())


def records(path: Path, wanted: Wanted, banner: re.Pattern[str] | None = None) -> Iterator[Record]:
    """Yield the rows under the first header that is wanted.

    Parameters
    ----------
    path : Path
    wanted : function
        Tells the header from what a tool prints before it.
    banner : pattern, optional
        Starts another table: the rows end before it.

    Raises
    ------
    InputError
        No such header, a row with too few or too many cells, broken quotes, or no text.
    """
    at = 0
    try:
        with _open(path, "strict") as stream:
            lines = _lines(stream, path)
            header, count, at = _find(path, lines, wanted)
            reader = csv.reader(lines, strict=True)
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if banner is not None and banner.match(cells[0]):
                    return
                line = at + reader.line_num
                if len(cells) != count:
                    raise InputError("row is cut short or damaged", file=path, place=f"line {line}",
                                     value=f"{len(cells)} cells", allowed=str(count))  # fmt: skip
                yield Record(path, line, cells, header)
    except csv.Error as error:
        raise InputError("not CSV", file=path, place=f"line {at + reader.line_num}",
                         value=str(error)) from None  # fmt: skip
    except UnicodeError:
        raise InputError("not UTF-8 text", file=path) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=path) from None


def _open(path: Path, errors: str) -> TextIO:
    with path.open("rb") as stream:
        start = stream.read(2)
    # a redirection in Windows PowerShell writes UTF-16
    encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return path.open(encoding=encoding, errors=errors, newline="")


def _lines(stream: TextIO, path: Path) -> Iterator[str]:
    number = 0
    while line := stream.readline(_LONGEST_LINE + 1):
        number += 1
        if len(line) > _LONGEST_LINE:
            raise InputError("line too long", file=path, place=f"line {number}",
                             allowed=f"up to {_LONGEST_LINE} characters")  # fmt: skip
        yield line


def _find(path: Path, lines: Iterator[str], wanted: Wanted) -> tuple[Header, int, int]:
    """Return the header, its cells and its line, looking no further than `has_header` does."""
    seen = 0
    for number, line in enumerate(lines, 1):
        if found := _header(line, wanted):
            return *found, number
        seen += len(line)
        if seen > _HEAD:
            break
    raise InputError("no header of a kernel table", file=path)


def _header(line: str, wanted: Wanted) -> tuple[Header, int] | None:
    """Return the header that a line is and how many cells it has, or None."""
    if "," not in line or len(line) > _HEAD:
        return None
    try:
        cells = next(csv.reader([line], strict=True))
    except csv.Error:
        return None
    found = fields(cells)
    return (found, len(cells)) if wanted(found) else None


@dataclass(frozen=True)
class Sum:
    """All calls of one kernel: how many, and their time in all [ns]."""

    place: str
    kernel: str
    calls: int
    total_ns: Decimal
    grid: tuple[int, int, int] = (0, 0, 0)
    threads: int = 0


def described(launch: Launch) -> Work:
    """Return what a kernel known by name does; copies of unknown size stay unclassified.

    >>> described(Launch("Memcpy HtoD")).basis, described(Launch("Memcpy HtoD", nbytes=8)).basis
    ('name', 'launch')
    """
    work = describe(None, launch)
    return work if launch.nbytes or work.basis != "launch" else Work(work.kind, basis="name")


def lay_out(path: Path, name: str, sums: Sequence[Sum], meta: Mapping[str, Any]) -> Workload:
    """Return sums as one step of operations, each of its kernel's average time, end to end.

    The average is rounded down to a picosecond and the last call takes the rest, so that the
    times of a kernel add up to its total.

    Raises
    ------
    InputError
        No kernels, more calls than can be laid out, or values that no workload may have.
    """
    _check_amount(path, sums)
    about = {"file": path.name, "device": "", "launch": "eager", "host": "unknown",
             "marked_steps": 0, "outside_steps": 0, "outside_steps_s": 0.0,
             "note": NOTE}  # fmt: skip
    launches = [Launch(s.kernel, s.grid, s.threads) for s in sums]
    once = Step([Operation(launch, described(launch), 0.0, 0.0) for launch in launches], 0.0)
    try:
        w = assemble(name, [once], {**about, **meta})
    except InputError as error:
        raise InputError(str(error), file=path) from None
    calls = np.array([s.calls for s in sums])
    total = np.array([int(s.total_ns * 1000) for s in sums])
    time = np.repeat(total // calls, calls)
    time[np.cumsum(calls) - 1] += total % calls
    end = np.cumsum(time)
    columns = {c: np.repeat(values, calls) for c, values in w.columns.items()}
    columns |= {"start_s": (end - time) / 1e12, "duration_s": time / 1e12}
    columns["layer"] = np.full(len(time), -1)  # the order is ours, so none may be read from it
    steps = Steps(np.array([end[-1] / 1e12]), np.zeros(1))
    return Workload(name, columns, w.labels, steps, meta=w.meta)


def _check_amount(path: Path, sums: Sequence[Sum]) -> None:
    if not sums:
        raise InputError("no kernels", file=path, allowed="at least one row under the header")
    calls, time = 0, Decimal(0)
    for s in sums:
        calls, time = calls + s.calls, time + s.total_ns
        if calls > MOST_CALLS:
            raise InputError("too many kernel calls to lay out", file=path, place=s.place,
                             value=calls, allowed=f"up to {MOST_CALLS} in all")  # fmt: skip
        if time > LONGEST_NS:
            raise InputError("times add up to too much", file=path, place=s.place,
                             value=f"{time / 10**9} s", allowed="up to 1e6 s")  # fmt: skip
