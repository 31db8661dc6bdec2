"""Rows of CSV reports whose headers carry units, with what the tool printed around the table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from npusim.errors import InputError
from npusim.importers import csv_rows
from npusim.importers.csv_rows import Column, Header

LONGEST_NS = Decimal(10) ** 15
LATEST_NS = Decimal(10) ** 20

_BRACKETS = re.compile(r"(.*?)[\s_]*[(\[]([^)\]]*)[)\]]\s*")
_SUFFIX = re.compile(r"(.+)_(ns|nsec|us|µs|usec|ms|msec|s|sec)")
_TIMES = {"ns": 0, "nsec": 0, "us": 3, "µs": 3, "usec": 3, "ms": 6, "msec": 6, "s": 9, "sec": 9}
_SIZES = {"b": 1, "byte": 1, "bytes": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9,
          "kbyte": 10**3, "mbyte": 10**6, "gbyte": 10**9,
          "kib": 2**10, "mib": 2**20, "gib": 2**30}  # fmt: skip
_LONGEST_LABEL = 80

Wanted = Callable[[Header], bool]


def columns(cells: Sequence[str]) -> Header:
    """Return the columns of a header by plain name; of two with one name the first.

    Examples
    --------
    >>> {name: c.unit for name, c in columns(["Time (%)", "Total Time (ns)", "avg_us"]).items()}
    {'time': '%', 'totaltime': 'ns', 'avg': 'us'}
    """
    found: Header = {}
    for at, label in enumerate(cells):
        if len(label) > _LONGEST_LABEL:  # no report has such a column, and the patterns backtrack
            continue
        parts = _BRACKETS.fullmatch(label) or _SUFFIX.fullmatch(label.strip())
        name, unit = parts.groups() if parts else (label, "")
        short = "".join(c for c in name.lower() if c.isalnum())
        found.setdefault(short, Column(at, label.strip(), unit.strip().lower()))
    return found


def _only(wanted: Wanted) -> csv_rows.Find:
    """Return what finds the header that is wanted and no other."""

    def find(cells: Sequence[str]) -> Header:
        found = columns(cells)
        return found if wanted(found) else {}

    return find


def has_header(path: Path, wanted: Wanted) -> bool:
    """Return whether one of the first lines is a header that is wanted; never raises."""
    start = csv_rows.head(path)
    if "\0" in start or start.lstrip().startswith("{"):  # thousands of lines of JSON are no header
        return False
    return bool(csv_rows.header(path, _only(wanted)))


class Report(csv_rows.Table):
    """The rows under the first header that is wanted; none of them may be cut short.

    Parameters
    ----------
    path : Path
    wanted : function
        Tells the header from what a tool prints before it.
    banner : pattern, optional
        Starts another table: the rows end before it.
    """

    def __init__(self, path: Path, wanted: Wanted, banner: re.Pattern[str] | None = None) -> None:
        super().__init__(path, _only(wanted))
        self._banner = banner

    def __iter__(self) -> Iterator[Record]:
        """Yield the rows that are left."""
        for line, cells in self._rows(may_be_cut=False):
            if self._banner is not None and self._banner.match(cells[0]):
                return
            if len(cells) != self._width:
                raise InputError("row is cut short or damaged", file=self.path,
                                 place=f"line {line}", value=f"{len(cells)} cells",
                                 allowed=str(self._width))  # fmt: skip
            yield Record(self, line, cells)


class Record(csv_rows.Row):
    """One row of a `Report`."""

    __slots__ = ()

    def name(self, column: str) -> str:
        """Return the name of a kernel, which must not be blank."""
        if text := self.text(column):
            return text
        raise self.error("no name", column, "the name of a kernel")

    def calls(self, column: str) -> int:
        """Return how often a kernel ran: at least once, and not missing."""
        if self.is_missing(column):
            raise self.error("no count", column, "a whole number from 1")
        return self.whole(column, low=1, high=2**53)

    def time_ns(self, column: str, low: Decimal | int = 0, high: Decimal = LONGEST_NS) -> Decimal:
        """Return a time [ns], which must not be missing; no unit in the header means ns."""
        unit, power = self._unit(column, "time", _TIMES, "ns")
        if self.is_missing(column):
            raise self.error("no time", column, f"a number of {unit}")
        scale = Decimal(10) ** power
        return self.number(column, low / scale, high / scale) * scale

    def size(self, column: str) -> float:
        """Return bytes, 0 where there are none; no unit in the header means bytes."""
        if column not in self.columns:
            return 0.0
        _, scale = self._unit(column, "size", _SIZES, "b")
        return float(self.number(column, 0, Decimal(2**50) / scale, Decimal(0)) * scale)

    def _unit(
        self, column: str, what: str, known: Mapping[str, int], default: str
    ) -> tuple[str, int]:
        label, unit = self.columns[column].label, self.columns[column].unit or default
        if unit not in known:
            raise InputError(f"unknown unit of {what}", file=self._table.path, place=label,
                             value=unit, allowed=", ".join(known))  # fmt: skip
        return unit, known[unit]
