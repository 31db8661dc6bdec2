"""Request logs: CSV or JSON lines with when requests came and how long they were.

A column is found by its name; those of public logs are known (`NAMES`). Times are numbers or ISO
dates with times of day; only their distances count. Columns that are not known are left alone.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.serving.request import Request

Array = NDArray[np.float64]

# What a column may be called: in logs of vLLM and LLMServingSim, the Azure LLM inference traces,
# BurstGPT, Mooncake.
NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "arrival": ("arrival_s", "queued_ts", "arrival_time", "arrived_at", "TIMESTAMP", "Timestamp",
                "timestamp"),
    "prompt": ("prompt", "input_toks", "input_tokens", "prompt_tokens", "input_length",
               "num_prefill_tokens", "ContextTokens", "Request tokens"),
    "output": ("output", "output_toks", "output_tokens", "completion_tokens", "output_length",
               "num_decode_tokens", "GeneratedTokens", "Response tokens"),
    "prefix": ("prefix",),
    "prefix_tokens": ("prefix_tokens",),
    "image": ("image",),
    "image_tokens": ("image_tokens",),
    "first_token": ("first_token_s", "first_token_ts"),
    "last_token": ("last_token_s", "last_token_ts"),
})  # fmt: skip
_NEEDED = ("arrival", "prompt", "output")
_PAIRS = (("prefix", "prefix_tokens"), ("image", "image_tokens"), ("first_token", "last_token"))
_TIMES = ("arrival", "first_token", "last_token")
_NAMED = ("prefix", "image")
_OPTIONAL = ("prefix_tokens", "image_tokens")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?|[+-]?(nan|inf)", re.IGNORECASE)
_DATE = re.compile(r"\s*\d{4}-\d\d-\d\d(?!\d)")
_LONGEST = 400  # digits of a number; beyond, Python refuses to read some


@dataclass(frozen=True)
class Log:
    """Requests of a file, by arrival.

    Attributes
    ----------
    requests : tuple of Request
        The first comes at 0 s.
    first_s, last_s : array, shape (N,), optional
        When each had its first and last token, where the file tells [s].
    columns : mapping of str to str
        Which column of the file was taken for what.
    """

    requests: tuple[Request, ...]
    first_s: Array | None
    last_s: Array | None
    columns: Mapping[str, str]


@dataclass
class _Table:
    """Columns of a file that may be of use, the line of each row, and all names in it."""

    file: Path
    wanted: frozenset[str]
    lines: list[int] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)

    def add(self, line: int, row: Mapping[str, Any]) -> None:
        """Add a row; what it does not have is None."""
        self.names.update(dict.fromkeys(row))
        for name in self.wanted & row.keys() - self.columns.keys():
            self.columns[name] = [None] * len(self.lines)
        for name, values in self.columns.items():
            values.append(row.get(name))
        self.lines.append(line)

    def error(self, row: int, column: str, problem: str, **more: Any) -> InputError:
        """Return an error that names file, line and column."""
        place = f"line {self.lines[row]}, {column}"
        return InputError(problem, file=self.file, place=place, **more)


def read_requests(file: Path, columns: Mapping[str, str] | None = None, scale: float = 1.0) -> Log:
    """Read a log.

    Parameters
    ----------
    file : Path
        ``.jsonl``, ``.ndjson`` or ``.json``: one JSON object a line; else CSV.
    columns : mapping of str to str, optional
        What a column is called, where that is not in `NAMES`.
    scale : float
        Seconds of a unit of its times, where these are numbers.

    Raises
    ------
    InputError
        No such file, a column that is missing, a value that no request has, by its line.
    """
    asked = dict(columns or {})
    table = _table(file, asked)
    found = _columns(table, asked)
    times = _times(table, found, scale)
    order = np.argsort(times["arrival"], kind="stable")
    start = times["arrival"][order[0]]
    requests = tuple(
        _request(table, found, i, float(times["arrival"][i] - start)) for i in order.tolist()
    )
    ends = [times[name][order] - start if name in times else None for name in _TIMES[1:]]
    return Log(requests, ends[0], ends[1], found)


def _table(file: Path, asked: Mapping[str, str]) -> _Table:
    """Return the rows of a file, numbered by their lines."""
    known = {column for columns in NAMES.values() for column in columns}
    table = _Table(file, frozenset(known | set(asked.values())))
    rows = _objects if file.suffix.lower() in (".jsonl", ".ndjson", ".json") else _records
    try:
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise InputError("not a file", file=file)  # a pipe would wait, a device would not end
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for line, row in rows(file, lines):
                table.add(line, row)
    except FileNotFoundError:
        raise InputError("no such file", file=file) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=file) from None
    except UnicodeDecodeError:
        raise InputError("not UTF-8 text", file=file) from None
    except ValueError:
        raise InputError("not a path", file=file) from None
    if not table.lines:
        raise InputError("holds no requests", file=file)
    return table


def _objects(file: Path, lines: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the JSON object of each line that is not empty."""
    for i, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise InputError("not a JSON object on a line of its own", file=file,
                             place=f"line {i}", value=text.strip())  # fmt: skip
        yield i, row


def _records(file: Path, lines: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the fields of each record of a CSV file, numbers as such, by the names of its head."""
    reader = csv.reader(lines, skipinitialspace=True, strict=True)
    names: list[str] = []
    try:
        for fields in reader:
            if not any(part.strip() for part in fields):
                continue
            if not names:
                names = [name.strip() for name in fields]
                twice = [name for name in names if name and names.count(name) > 1]
                if twice:
                    raise InputError("column given twice", file=file,
                                     place=f"line {reader.line_num}", value=twice[0])  # fmt: skip
                continue
            if len(fields) != len(names):
                raise InputError("not as many values as columns", file=file,
                                 place=f"line {reader.line_num}", value=len(fields),
                                 allowed=str(len(names)))  # fmt: skip
            yield reader.line_num, {n: _field(text) for n, text in zip(names, fields, strict=True)}
    except csv.Error as error:
        raise InputError(f"not CSV: {error}", file=file, place=f"line {reader.line_num}") from None


class _Written(float):
    """A number of a CSV file that remembers how it was written, for names."""

    __slots__ = ("text",)
    text: str


def _field(text: str) -> Any:
    """Return a field of a CSV file: nothing, a number or text."""
    text = text.strip()
    if not text or len(text) > _LONGEST or not _NUMBER.fullmatch(text):
        return text or None
    found = _Written(text)
    found.text = text
    return found


def _columns(table: _Table, asked: Mapping[str, str]) -> dict[str, str]:
    for name, column in asked.items():
        if name not in NAMES:
            raise InputError("unknown", file=table.file, place="columns", value=name,
                             allowed=", ".join(NAMES))  # fmt: skip
        if column not in table.names:
            raise InputError("no such column", file=table.file, place=name, value=column,
                             allowed=", ".join(table.names))  # fmt: skip
    found = dict(asked)
    for name, known in NAMES.items():
        there = [c for c in known if c in table.names]
        if name not in found and there:
            found[name] = there[0]
    for name in _NEEDED:
        if name not in found:
            raise InputError(f"no column for {name}", file=table.file,
                             allowed=", ".join(NAMES[name]),
                             hint="say which under columns")  # fmt: skip
    for pair in _PAIRS:
        if (pair[0] in found) != (pair[1] in found):
            raise InputError("one column needs the other", file=table.file,
                             place=" and ".join(pair))  # fmt: skip
    return found


def _times(table: _Table, found: Mapping[str, str], scale: float) -> dict[str, Array]:
    """Return times of requests and of their tokens, all from one origin [s]."""
    given = {name: table.columns[found[name]] for name in _TIMES if name in found}
    dated = isinstance(given["arrival"][0], str)
    times: dict[str, Array] = {}
    origin: Any = None
    for name, values in given.items():
        if dated:
            dates = _dates(table, found[name], values)
            origin = dates.iloc[0] if origin is None else origin
            times[name] = np.asarray((dates - origin).dt.total_seconds(), dtype=np.float64)
        else:
            seconds = [_time(table, found[name], i, value) for i, value in enumerate(values)]
            times[name] = np.array(seconds) * scale
    for before, after in zip(times, list(times)[1:], strict=False):
        early = np.flatnonzero(times[after] < times[before])
        if early.size:
            raise table.error(int(early[0]), found[after], f"before {found[before]}",
                              value=_shown(given[after][early[0]]))  # fmt: skip
    return times


def _dates(table: _Table, column: str, values: Sequence[Any]) -> Any:
    texts = [v if isinstance(v, str) and _DATE.match(v) else None for v in values]
    dates = pd.to_datetime(pd.Series(texts), utc=True, format="ISO8601", errors="coerce")
    wrong = np.flatnonzero(dates.isna())
    if wrong.size:
        raise table.error(int(wrong[0]), column, "not a date", value=_shown(values[wrong[0]]),
                          allowed="2024-05-12 00:00:01.25")  # fmt: skip
    return dates


def _time(table: _Table, column: str, row: int, value: Any) -> float:
    if _is_number(value) and abs(value) < 1e300:
        return float(value)
    if value is None:
        raise table.error(row, column, "is missing")
    raise table.error(row, column, "not a time", value=_shown(value),
                      allowed="a number, or in all rows a date")  # fmt: skip


def _request(table: _Table, found: Mapping[str, str], row: int, arrival: float) -> Request:
    given: dict[str, Any] = {"arrival_s": arrival}
    for name, column in found.items():
        value = table.columns[column][row]
        if name in _NAMED:
            given[name] = "" if value is None else str(_shown(value))
        elif value is None and name in _OPTIONAL:
            given[name] = 0
        elif name not in _TIMES:
            if value is None:
                raise table.error(row, column, "is missing")
            if not _is_whole(value):
                raise table.error(row, column, "not a whole number", value=_shown(value))
            given[name] = int(value)
    try:
        return Request(**given)
    except InputError as error:
        place = f"line {table.lines[row]}"
        raise InputError(str(error), file=table.file, place=place) from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    """Return whether a value is a whole number, of any size."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return whole and not isinstance(value, bool)


def _shown(value: Any) -> Any:
    """Return a value as it stands in the file."""
    return value.text if isinstance(value, _Written) else value
