"""The two CSV pages of Nsight Compute, read into a `Profile`.

The raw page has one kernel a row and one metric a column, with a row of units under the header. The
details page has one metric of a kernel a row, with its unit; old versions lack the sizes of a
launch. Rows that carry advice instead of a metric are counted, and so are messages of the tool
between the rows. What is printed above the header is skipped.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from npusim.errors import InputError
from npusim.importers import csv_rows
from npusim.importers.csv_rows import Header, Row
from npusim.importers.ncu_metrics import MOST, WANTED, allowed_units, is_unknown, source
from npusim.importers.ncu_profile import Kernel, Profile

EXPORT = "export with ncu --import FILE --csv --page raw"

_FURTHEST = 1 << 20  # characters before the header; a header of all metrics is 100,000 long
_IDENTITY = {"ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Kernel Time",
             "Context", "Stream", "Block Size", "Grid Size", "Device", "CC"}  # fmt: skip
_DETAILS = {"Metric Name", "Metric Unit", "Metric Value"}
_METRIC = re.compile(r"\b[a-z0-9]+__\w+\.(?:sum|avg|max|min|pct|ratio)\b")
_SIZE = re.compile(r"\(\s*([0-9]{1,10}),\s*([0-9]{1,10}),\s*([0-9]{1,10})\s*\)")
_MISSING = ("", "-", "n/a", "N/A", "no data", "nan", "-nan", "(!) n/a", "(!) nan")
_NAME, _DEVICE_NAME = "Kernel Name", "device__attribute_display_name"


def is_page(text: str) -> bool:
    r"""Return whether a file that begins so is one of the pages, or somebody's table of metrics.

    Examples
    --------
    >>> is_page('==PROF== Connected\n"ID","Process ID","Kernel Name","gpu__time_duration.sum"\n')
    True
    >>> is_page("kernel,calls,total_us\n")
    False
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and lines[0][0] not in "{[" and len(_METRIC.findall(lines[0])) > 1:
        return True
    return any(
        line.lstrip("\ufeff").startswith(('"ID",', "ID,"))
        and _NAME in line
        and ("Metric Name" in line or "__" in line)
        for line in lines
    )


def read(path: Path) -> tuple[Profile, dict[str, Any]]:
    """Read a page.

    Parameters
    ----------
    path : Path

    Returns
    -------
    profile : Profile
    about : dict
        What the file says of itself.

    Raises
    ------
    InputError
        No such page, a damaged row, a number that is none, or a unit that is not known.
    """
    page = _Page(path)
    profile = Profile(path)
    details = page.columns.keys() >= _DETAILS
    if details:
        _read_details(page, profile)
    else:
        _read_raw(page, profile)
    if not profile.kernels:
        raise InputError("no kernels", file=path, allowed="at least one row under the header")
    return profile, {"format": f"ncu {'details' if details else 'raw'} csv", **page.about()}


class _Page(csv_rows.Table):
    """The rows of a page, each whole; what is true of all rows is noted on the way."""

    def __init__(self, path: Path) -> None:
        # instead of Table's own: a raw page has a longer header than Table looks for
        self.path, self.lost, self._complete = path, 0, True
        lines = self._lines()
        self.columns, self._width, self._header_line = _header(path, lines)
        # a metric of the details page ends before the advice, which has columns of its own
        rule = self.columns.get("Rule Name")
        self._widths = {self._width, rule.at + 1} if rule else {self._width}
        self._reader = csv.reader(lines, strict=True)
        self.notes: Counter[str] = Counter()
        self.names: dict[str, Counter[str]] = {"device": Counter(), "cc": Counter()}

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows that are left."""
        for line, cells in self._rows(may_be_cut=False):
            if cells[0].startswith("=="):
                self.notes["tool_messages"] += 1
                continue
            if len(cells) not in self._widths:
                raise InputError("row is cut short or damaged", file=self.path,
                                 place=f"line {line}", value=f"{len(cells)} cells",
                                 allowed=" or ".join(map(str, sorted(self._widths))))  # fmt: skip
            yield Row(self, line, cells + [""] * (self._width - len(cells)))

    def about(self) -> dict[str, Any]:
        """Return what the rows had in common, and how many were no metrics."""
        common = {what: found.most_common(1)[0][0] for what, found in self.names.items() if found}
        return {**common, **self.notes}


def _header(path: Path, lines: Iterable[str]) -> tuple[Header, int, int]:
    """Return the columns of the first header of a page, its width and its line."""
    seen = 0
    for number, line in enumerate(lines, 1):
        try:
            cells = next(csv.reader([line], strict=True), [])
        except csv.Error:
            cells = []
        found = csv_rows.plain(cells)
        if found.keys() >= {"ID", _NAME}:
            return found, len(cells), number
        seen += len(line)
        if seen > _FURTHEST:
            break
    raise InputError("no table of kernels: a row needs the ID and the name of its kernel",
                     file=path, allowed=f"columns ID and {_NAME}", hint=EXPORT)  # fmt: skip


def _read_raw(page: _Page, profile: Profile) -> None:
    """Read one kernel a row."""
    rows = iter(page)
    units = next(rows, None)
    if units is None:
        return
    if units.text("ID") or units.text(_NAME):
        raise InputError("no row of units under the header", file=page.path, place=units.place,
                         value=units.text("ID"), hint=EXPORT)  # fmt: skip
    metrics = [name for name in page.columns if name not in _IDENTITY]
    profile.unknown.update(name for name in metrics if is_unknown(name))
    metrics = [name for name in metrics if name in WANTED]
    for row in rows:
        process, number, name = _identity(row)
        if profile.find(process, number) is not None:
            raise row.error("kernel is listed twice", "ID", "one row a kernel of a process")
        at = profile.add(_kernel(page, row, process, number, name))
        for metric in metrics:
            _put(profile, at, row, metric, metric, units.text(metric))


def _read_details(page: _Page, profile: Profile) -> None:
    """Read one metric of a kernel a row."""
    for row in page:
        process, number, name = _identity(row)
        at = profile.find(process, number)
        if at is None:
            at = profile.add(_kernel(page, row, process, number, name))
        elif profile.kernels[at].name != name:
            raise row.error("another kernel has this ID", _NAME, "one name a kernel")
        metric = row.text("Metric Name")
        if not metric:
            page.notes["rules"] += 1
        elif row.text("Body Item Label"):  # a table or chart that repeats metrics
            page.notes["chart_items"] += 1
        elif metric in WANTED:
            _put(profile, at, row, "Metric Value", metric, row.text("Metric Unit"))
        elif is_unknown(metric):
            profile.unknown.add(metric)


def _put(profile: Profile, at: int, row: Row, column: str, name: str, unit: str) -> None:
    """Keep a metric of a kernel, unless there is no value."""
    text = row.text(column)
    if text in _MISSING:
        return
    found = source(name, unit)
    if found is None:
        raise row.error(f"unknown unit of {name}", column, allowed_units(name), unit)
    metric, power = found
    value = row.number(column, 0, Decimal(MOST[metric.dimension]).scaleb(-power))
    last = int(value.as_tuple().exponent)  # of a number, which has one
    rounding = Decimal(5).scaleb(last - 1 + power) if last < 0 else Decimal(0)
    profile.put(at, metric, float(value.scaleb(power)), float(rounding))


def _identity(row: Row) -> tuple[int, int, str]:
    """Return the process, the number and the name of the kernel that a row is about."""
    if row.is_missing("ID"):
        raise row.error("no number", "ID", "a whole number")
    if not (name := row.text(_NAME)):
        raise row.error("no name", _NAME, "the name of a kernel")
    return row.whole("Process ID", high=2**53), row.whole("ID", high=2**53), name


def _kernel(page: _Page, row: Row, process: int, number: int, name: str) -> Kernel:
    """Return the kernel that a row is about, with how it was launched."""
    for what, text in (("device", row.text(_DEVICE_NAME)), ("cc", row.text("CC"))):
        if text not in _MISSING:
            page.names[what][text] += 1
    x, y, z = _size(row, "Block Size")
    return Kernel(
        process, number, name, row.text("Device"),
        row.whole("Context", high=2**53), row.whole("Stream", high=2**53),
        _size(row, "Grid Size"), x * y * z,
    )  # fmt: skip


def _size(row: Row, column: str) -> tuple[int, int, int]:
    """Return the three numbers of a cell, zeros where there are none."""
    text = row.text(column)
    if text in _MISSING:
        return 0, 0, 0
    found = _SIZE.fullmatch(text)
    if found is None:
        raise row.error("not a size", column, "three whole numbers in brackets")
    x, y, z = map(int, found.groups())
    return x, y, z
