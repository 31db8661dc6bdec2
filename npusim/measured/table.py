"""CSV tables with one measured operation a row.

Columns: ``op``, ``dtype``, ``latency_us`` and those of the operation (see `OPS`). Optional are
``weight_copies``, the operand sets in turn (blank: cold operands); ``units``, the compute units
that it may use (blank: all); ``launch``, what the latency is (see `npusim.measured.Measured`;
blank: ``graph``); ``library`` and ``routine``, what ran it. Other columns are ignored and noted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from npusim.errors import InputError, InputErrors
from npusim.importers import csv_rows
from npusim.library import ROUTINES
from npusim.measured import shapes
from npusim.measured.data import LAUNCHES, Gathered, Measured
from npusim.measured.shapes import COLD, Measurable
from npusim.models.attention_library import CALLED as ATTENTION

OPS = {
    "linear": ("m", "n", "k"),
    "decode_attention": ("batch", "heads", "kv_heads", "head_dim", "context"),
    "prefill_attention": ("batch", "heads", "kv_heads", "head_dim", "sequence", "causal"),
    "pointwise": ("name", "elements"),
    "stream": ("bytes_read", "bytes_written"),
}
_ROUTINES = ("split", "whole", *ROUTINES)
_ALWAYS = ("op", "dtype", "latency_us")
_SOMETIMES = ("weight_copies", "units", "launch", "library", "routine")
_KNOWN = {*_ALWAYS, *_SOMETIMES, *(c for columns in OPS.values() for c in columns)}
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_MOST_ROWS = 200_000
_MOST_ERRORS = 50
_LONGEST_US = 1e9


def is_table(path: Path) -> bool:
    """Return whether a file is meant as a table of measured operations; never raises."""
    header = csv_rows.header(path)
    return "op" in header and ("latency_us" in header or "dtype" in header)


def read_table(path: Path) -> Measured:
    """Read a table.

    Parameters
    ----------
    path : Path
        A CSV file, gzipped or not.

    Returns
    -------
    Measured
        `row` is the line in the file.

    Raises
    ------
    InputError, InputErrors
        No such table, or every cell that is wrong (the first `_MOST_ERRORS` of them), with its
        line, column and what is allowed.
    """
    table = csv_rows.Table(path)
    for column in _ALWAYS:
        table.need(column)
    found, errors, lacking = Gathered(), list[InputError](), set[str]()
    for row in table:
        if len(found.what) >= _MOST_ROWS:
            raise InputError("too many rows", file=path, allowed=f"up to {_MOST_ROWS}")
        _read_row(_Cells(row, path, errors, lacking), found)
        if len(errors) >= _MOST_ERRORS:
            break
    if errors:
        raise errors[0] if len(errors) == 1 else InputErrors(errors)
    return found.done(path, [*_not_read(table), *_taken_as_cold(found)])


def _not_read(table: csv_rows.Table) -> list[str]:
    """Say which columns and rows were left out."""
    notes = []
    if unknown := [c for c in table.columns if c not in _KNOWN]:
        notes.append(f"columns that are not known, ignored: {', '.join(unknown)}")
    if table.lost:
        notes.append("last row cut short, left out")
    return notes


def _taken_as_cold(found: Gathered) -> list[str]:
    """Say what was taken as cold, of the operations that many benchmarks repeat on one operand set.

    Only a linear layer's blank is plain: there everybody cycles through weights.
    """
    cold = Counter(
        op for op, what in zip(found.op, found.what, strict=True)
        if op != "linear" and what.is_cold
    )  # fmt: skip
    return [f"{op}: {n} rows say nothing of weight_copies, so their operands are taken as cold"
            for op, n in sorted(cold.items())]  # fmt: skip


@dataclass
class _Cells:
    """The cells of one row; what is wrong with them is collected, and something valid returned."""

    row: csv_rows.Row
    path: Path
    errors: list[InputError]
    lacking: set[str]

    def has(self, op: str) -> bool:
        """Return whether the table has the columns of an operation; complain of each once."""
        absent = [c for c in OPS[op] if c not in self.row.columns]
        for column in absent:
            if column not in self.lacking:
                self.lacking.add(column)
                self.errors.append(
                    InputError(f"{op} needs a column that is missing", file=self.path,
                               place=self.row.place, value=column,
                               allowed=", ".join(OPS[op])))  # fmt: skip
        return not absent

    def number(self, column: str, low: float, high: float) -> float:
        """Return a number."""
        try:
            return float(self.row.number(column, low, high))
        except InputError as error:
            self.errors.append(error)
            return low

    def whole(self, column: str, high: int = 2**31) -> int:
        """Return a whole number from 1."""
        try:
            if self.row.is_missing(column):
                raise self.row.error("is missing", column, f"a whole number from 1 to {high}")
            return self.row.whole(column, low=1, high=high)
        except InputError as error:
            self.errors.append(error)
            return 1

    def whole_or(self, blank: float, column: str, high: int) -> float:
        """Return a whole number from 1, or what a blank cell or no such column means."""
        absent = column not in self.row.columns or self.row.is_missing(column)
        return blank if absent else float(self.whole(column, high))

    def one_of(self, column: str, allowed: Sequence[str], blank: str | None = None) -> str:
        """Return one of some words; `blank` is what an empty cell means, if it may be empty."""
        text = self.row.text(column)
        if not text and blank is not None:
            return blank
        if text.lower() in allowed:
            return text.lower()
        self.errors.append(self.row.error("not known", column, ", ".join(allowed)))
        return allowed[0]

    def exactly(self, column: str, allowed: Sequence[str] | None) -> str:
        """Return a cell as it is written; blank, or one of those allowed if not all are."""
        text = self.row.text(column)
        if text and allowed is not None and text not in allowed:
            self.errors.append(self.row.error("not known", column, ", ".join(allowed)))
        return text


def _read_row(cells: _Cells, found: Gathered) -> None:
    """Add the operation of one row, if nothing is wrong with it."""
    before = len(cells.errors)
    op = cells.one_of("op", tuple(OPS))
    if len(cells.errors) > before or not cells.has(op):
        return
    dtype = cells.one_of("dtype", tuple(shapes.DTYPES))
    us = cells.number("latency_us", 1e-4, _LONGEST_US)
    copies = cells.whole_or(COLD, "weight_copies", 10**9)
    units = cells.whole_or(np.nan, "units", 10**6)
    launch = cells.one_of("launch", LAUNCHES, blank="graph")
    what = _READERS[op](cells, dtype, copies)
    routine = cells.exactly("routine", _ROUTINES)
    library = cells.exactly("library", ATTENTION if op.endswith("attention") else None)
    if len(cells.errors) == before:
        what = replace(what, library=library or what.library)
        if routine not in ("", what.routine):  # its grid is not known
            what = replace(what, routine=routine, blocks=0, threads=0)
        found.add(cells.row.line, op, what, us, launch, units)


def _linear(cells: _Cells, dtype: str, copies: float) -> Measurable:
    m, n, k = (cells.whole(c) for c in OPS["linear"])
    return shapes.linear(dtype, m, n, k, copies)


def _heads(cells: _Cells) -> tuple[int, int, int, int]:
    """Return batch, heads, key-value heads and head size."""
    batch, heads, kv_heads, size = (cells.whole(c, 2**24) for c in OPS["decode_attention"][:4])
    if heads % kv_heads:
        error = cells.row.error("does not divide heads", "kv_heads", f"a divisor of {heads}")
        cells.errors.append(error)
    return batch, heads, kv_heads, size


def _decode_attention(cells: _Cells, dtype: str, copies: float) -> Measurable:
    return shapes.decode_attention(dtype, *_heads(cells), cells.whole("context"), copies)


def _prefill_attention(cells: _Cells, dtype: str, copies: float) -> Measurable:
    sequence, causal = cells.whole("sequence"), _TRUTH[cells.one_of("causal", tuple(_TRUTH))]
    return shapes.prefill_attention(dtype, *_heads(cells), sequence, causal, copies)


def _pointwise(cells: _Cells, dtype: str, copies: float) -> Measurable:
    name = cells.one_of("name", shapes.POINTWISE)
    return shapes.pointwise(dtype, name, cells.whole("elements", 2**45), copies)


def _stream(cells: _Cells, dtype: str, copies: float) -> Measurable:
    read, written = (cells.number(c, 0.0, 2.0**50) for c in OPS["stream"])
    if read + written <= 0:
        error = cells.row.error("moves nothing", "bytes_read", "bytes read or written above zero")
        cells.errors.append(error)
        written = 1.0
    return shapes.stream(dtype, read, written, copies)


_READERS: Mapping[str, Callable[[_Cells, str, float], Measurable]] = {
    "linear": _linear,
    "decode_attention": _decode_attention,
    "prefill_attention": _prefill_attention,
    "pointwise": _pointwise,
    "stream": _stream,
}
