"""The natural experiments of ``npusim capture experiments`` (``axes.json``) as measured operations.

Operands are cold where the experiment cycles through many sets of them, and warm where it repeats
one; times are periods in a CUDA graph, those of ``sm_count`` of eager launches. How many sets there
are tells how long the device had been at work.

What is left out: axes that measure no single operation (``launch``, ``fusion``, ``energy``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npusim.errors import InputError
from npusim.graph_timing import copies as cold_sets
from npusim.importers import files
from npusim.measured import shapes
from npusim.measured.data import Gathered, Measured
from npusim.measured.shapes import Measurable

_MIB = 2**20
_MOST = 2**45
_LONGEST_US = 1e9
_PARTS = {"stream_1GiB", "gemm_4096x8192x8192", "gemv_6848x1280"}
_GEMV_WEIGHTS = 24  # cycled by the GEMV of `sm_count`

Row = dict[str, Any]


@dataclass(frozen=True)
class _Point:
    """One row of the file; its fields are checked as they are asked for."""

    path: Path
    number: int
    fields: Row

    def error(self, field: str, allowed: str) -> InputError:
        value = self.fields.get(field, "nothing")
        return InputError("not as capture writes it", file=self.path,
                          place=f"row {self.number}, {field}", value=value,
                          allowed=allowed)  # fmt: skip

    def whole(self, field: str) -> int:
        value = self.fields.get(field)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
            raise self.error(field, f"a whole number from 1 to {_MOST}")
        return value

    def one_of(self, field: str, *allowed: str) -> str:
        value = self.fields.get(field)
        if value not in allowed:
            raise self.error(field, ", ".join(allowed))
        return str(value)

    def us(self, field: str = "us_per_op") -> float:
        value = self.fields.get(field)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(field, "a number of us")
        if not 0 < value <= _LONGEST_US:
            raise self.error(field, f"above 0 to {_LONGEST_US:g} us")
        return float(value)


def is_experiments(path: Path) -> bool:
    """Return whether a file begins as a list of rows with an ``axis``; never raises."""
    start = files.head(path, 4096).lstrip()
    return start[:1] == b"[" and start[1:].lstrip()[:1] == b"{" and b'"axis"' in start


def read_axes(path: Path) -> Measured:
    """Read the experiments of one machine.

    Parameters
    ----------
    path : Path
        ``axes.json`` of a capture.

    Returns
    -------
    Measured
        `row` counts the rows of the file from 1. Which library ran an operation is not in it: see
        `Measured.labelled`.

    Raises
    ------
    InputError
        Not such a file, or a row that lacks what it should have.
    """
    found, left = Gathered(), Counter[str]()
    for number, fields in enumerate(files.decode_json(path, files.whole(path), list[Row]), 1):
        point = _Point(path, number, fields)
        axis = str(fields.get("axis"))
        if axis in _AXES:
            _AXES[axis](point, found)
        else:
            left[axis] += 1
    others = [axis for axis in left if axis != "device"]
    if not found.what and others:
        raise InputError("no measured operations: none of its axes measures single ones",
                         file=path, place="axis", value=", ".join(others),
                         allowed=", ".join(_AXES))  # fmt: skip
    notes = [f"axis {axis}: {left[axis]} rows left out, they measure no single operation"
             for axis in others]  # fmt: skip
    return found.done(path, notes)


def _linear(point: _Point, dtype: str, copies: float) -> Measurable:
    m, n, k = (point.whole(f) for f in "mnk")
    return shapes.linear(dtype, m, n, k, copies)


def _cold_linear(point: _Point, dtype: str, found: Gathered) -> None:
    sets = cold_sets(point.whole("n"), point.whole("k"), shapes.DTYPES[dtype][1])
    what = _linear(point, dtype, shapes.COLD)
    found.add(point.number, "linear", what, point.us(), sets=sets)


def _linear_shapes(point: _Point, found: Gathered) -> None:
    _cold_linear(point, "bf16", found)


def _precision(point: _Point, found: Gathered) -> None:
    _cold_linear(point, point.one_of("dtype", "fp8", "bf16"), found)


def _decode_attention(point: _Point, found: Gathered) -> None:
    batch, heads, kv_heads, size, context = (
        point.whole(f) for f in ("batch", "hq", "hk", "d", "ctx")
    )
    what = shapes.decode_attention("bf16", batch, heads, kv_heads, size, context, copies=1)
    found.add(point.number, "decode_attention", what, point.us(), sets=1)


def _prefill_attention(point: _Point, found: Gathered) -> None:
    sequence, heads, size = (point.whole(f) for f in ("s", "h", "d"))
    what = shapes.prefill_attention("bf16", 1, heads, heads, size, sequence, False, copies=1)
    found.add(point.number, "prefill_attention", what, point.us(), sets=1)


def _pointwise(point: _Point, found: Gathered) -> None:
    name = point.one_of("op", *shapes.POINTWISE)
    dtype = point.one_of("dtype", *shapes.DTYPES)
    what = shapes.pointwise(dtype, name, point.whole("elements"), copies=1)
    found.add(point.number, "pointwise", what, point.us(), sets=1)


def _l2_residency(point: _Point, found: Gathered) -> None:
    if point.one_of("op", "gemv", "mul_scalar") == "gemv":
        n, k, copies = (point.whole(f) for f in ("n", "k", "matrices"))
        what = shapes.linear("bf16", 1, n, k, copies)
        found.add(point.number, "linear", what, point.us(), sets=copies)
        return
    read, written = (float(point.whole(f) * _MIB) for f in ("mb_read", "mb_write"))
    what = shapes.stream("bf16", read, written, copies=1)
    found.add(point.number, "stream", what, point.us(), sets=1)


def _sm_count(point: _Point, found: Gathered) -> None:
    op, units = point.one_of("op", *_PARTS), point.whole("sms")
    if op.startswith("stream"):
        name, what = "stream", shapes.stream("bf16", 2.0**29, 2.0**29, copies=1)
    elif op.startswith("gemm"):
        name, what = "linear", shapes.linear("bf16", 4096, 8192, 8192, copies=1)
    else:
        name, what = "linear", shapes.linear("bf16", 1, 6848, 1280, _GEMV_WEIGHTS)
    found.add(point.number, name, what, point.us("us"), "eager", float(units))


_AXES: Mapping[str, Callable[[_Point, Gathered], None]] = {
    "linear_shapes": _linear_shapes,
    "precision": _precision,
    "decode_attention": _decode_attention,
    "prefill_attention": _prefill_attention,
    "pointwise": _pointwise,
    "l2_residency": _l2_residency,
    "sm_count": _sm_count,
}
