"""Request logs: CSV or JSON lines with when requests came and how long they were.

A column is found by its name; those of public logs are known (`NAMES`). Times are seconds, or dates
with times of day; only their distances count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

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


def read_requests(file: Path, columns: Mapping[str, str] | None = None, scale: float = 1.0) -> Log:
    """Read a log.

    Parameters
    ----------
    file : Path
        ``.csv``, or one JSON object a line (``.jsonl``).
    columns : mapping of str to str, optional
        What a column is called, where that is not in `NAMES`.
    scale : float
        Seconds of a unit of its times, where these are numbers.

    Raises
    ------
    InputError
        No such file, a column that is missing, a value that no request has, by its line.
    """
    table = _table(file)
    found = _columns(file, table, columns or {})
    times = {name: _times(file, table, found[name], scale)
             for name in ("arrival", "first_token", "last_token") if name in found}  # fmt: skip
    order = np.argsort(times["arrival"], kind="stable")
    start = times["arrival"][order[0]]
    values = {name: table[found[name]].tolist() for name in found if name not in times}
    requests = tuple(
        _request(file, table.index[i], {n: v[i] for n, v in values.items()},
                 float(times["arrival"][i] - start))
        for i in order.tolist()
    )  # fmt: skip
    ends = [times[name][order] - start if name in times else None
            for name in ("first_token", "last_token")]  # fmt: skip
    return Log(requests, ends[0], ends[1], found)


def _table(file: Path) -> pd.DataFrame:
    """Return the rows of a file, numbered by their lines."""
    lines = file.suffix.lower() in (".jsonl", ".ndjson", ".json")
    try:
        if not lines:
            table = pd.read_csv(file, skipinitialspace=True)
            table.index += 2
        else:
            table = pd.read_json(file, lines=True)
            table.index += 1
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", file=file) from None
    except (ValueError, pd.errors.ParserError) as error:
        what = "JSON lines" if lines else "CSV"
        raise InputError(f"not {what}: {str(error).splitlines()[0][:100]}", file=file) from None
    if table.empty:
        raise InputError("holds no requests", file=file)
    return table


def _columns(file: Path, table: pd.DataFrame, asked: Mapping[str, str]) -> dict[str, str]:
    for name, column in asked.items():
        if name not in NAMES:
            raise InputError("unknown", file=file, place="columns", value=name,
                             allowed=", ".join(NAMES))  # fmt: skip
        if column not in table.columns:
            raise InputError("no such column", file=file, place=name, value=column,
                             allowed=", ".join(map(str, table.columns)))  # fmt: skip
    found = dict(asked)
    for name, known in NAMES.items():
        there = [c for c in known if c in table.columns]
        if name not in found and there:
            found[name] = there[0]
    for name in _NEEDED:
        if name not in found:
            raise InputError(f"no column for {name}", file=file,
                             allowed=", ".join(NAMES[name]),
                             hint="say which under columns")  # fmt: skip
    for pair in _PAIRS:
        if (pair[0] in found) != (pair[1] in found):
            raise InputError("one column needs the other", file=file, place=" and ".join(pair))
    return found


def _times(file: Path, table: pd.DataFrame, column: str, scale: float) -> Array:
    """Return times [s]."""
    given = table[column]
    seconds: Array
    if pd.api.types.is_numeric_dtype(given):
        seconds = np.asarray(given, dtype=np.float64) * scale
    else:
        try:
            dates = pd.to_datetime(given, utc=True, format="ISO8601")
        except (ValueError, TypeError):
            raise InputError("neither seconds nor dates", file=file, place=column,
                             value=given.iloc[0]) from None  # fmt: skip
        seconds = np.asarray((dates - dates.iloc[0]).dt.total_seconds(), dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(seconds))
    if wrong.size:
        raise InputError("not a time", file=file, place=f"line {table.index[wrong[0]]}, {column}",
                         value=given.iloc[wrong[0]])  # fmt: skip
    return seconds


def _request(file: Path, line: int, values: Mapping[str, Any], arrival: float) -> Request:
    given: dict[str, Any] = {"arrival_s": arrival}
    for name, value in values.items():
        if name in ("prefix", "image"):
            given[name] = "" if pd.isna(value) else str(value)
        elif pd.isna(value) and name in ("prefix_tokens", "image_tokens"):
            given[name] = 0
        elif isinstance(value, str | bool) or pd.isna(value) or value != int(value):
            raise InputError("not a whole number", file=file, place=f"line {line}, {name}",
                             value=value)  # fmt: skip
        else:
            given[name] = int(value)
    try:
        return Request(**given)
    except InputError as error:
        raise InputError(str(error), file=file, place=f"line {line}") from None
