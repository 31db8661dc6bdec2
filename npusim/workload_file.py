"""Workloads as Parquet files: one row an operation, the rest in the file's metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from npusim.atomic import whole_file
from npusim.counters import COUNTERS
from npusim.errors import InputError
from npusim.parameters import PARAMETERS
from npusim.workload import COLUMNS, HOST_PARTS, LABELS, HostCosts, Steps, Workload

SCHEMA_VERSION = 3
_READABLE = (1, 2, SCHEMA_VERSION)
_SINCE = {2: (*HOST_PARTS, "thread", "records"), 3: ("origin",)}  # columns by version
UNSPLIT = (
    "written by an older npusim: host work is not split by what it was, all of it counts as the "
    "interpreter's; import the trace again to split it"
)
_KEY = b"npusim.workload"
_COUNTER = "counter."
_SMALL, _SMALLEST, _QUICK = 50_000, 19, 3  # operations; levels of compression


def save_workload(workload: Workload, file: Path) -> None:
    """Write a workload, whole or not at all.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    arrays: dict[str, Any] = {}
    for c in COLUMNS:
        if c in LABELS:
            codes = pa.array(workload[c], pa.int32())
            arrays[c] = pa.DictionaryArray.from_arrays(
                codes, pa.array(workload.labels[c], pa.string())
            )
        else:
            arrays[c] = pa.array(workload[c])
    for name, counter in workload.counters.items():
        arrays[_COUNTER + name] = pa.array(counter)
    indptr, indices = workload.edges
    about = {
        "schema": SCHEMA_VERSION,
        "name": workload.name,
        "wall_s": workload.steps.wall_s.tolist(),
        "tail_s": workload.steps.tail_s.tolist(),
        "start_s": None if workload.steps.start_s is None else workload.steps.start_s.tolist(),
        "meta": dict(workload.meta),
    }
    if workload.host is not None:
        about["host"] = _host_rows(workload.host)
    arrays["waits_for"] = pa.LargeListArray.from_arrays(pa.array(indptr), pa.array(indices))
    table = pa.table(arrays).replace_schema_metadata({_KEY: json.dumps(about).encode()})
    with whole_file(file) as temporary:
        level = _SMALLEST if len(workload) <= _SMALL else _QUICK
        pq.write_table(table, temporary, compression="zstd", compression_level=level)


def load_workload(file: Path) -> Workload:
    """Read a workload written by `save_workload`.

    Raises
    ------
    InputError
        Not such a file, a version that this npusim cannot read, or values that no workload has.
    """
    try:
        return _read(file)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError,
            ArithmeticError, RecursionError, msgspec.MsgspecError) as error:  # fmt: skip
        raise InputError(f"not a workload: {_first_line(error)}", file=file) from None


def _read(file: Path) -> Workload:
    table = pq.read_table(file)
    about = _about(file, table)
    columns: dict[str, Any] = {}
    labels: dict[str, list[str]] = {}
    lacks = _lacks(about["schema"], table.column_names)
    for c in COLUMNS:
        if c in lacks:
            continue
        if c not in table.column_names:
            raise InputError("column is missing", file=file, place=c)
        column = table[c].combine_chunks()
        if column.null_count:
            raise InputError("holds an empty value", file=file, place=c)
        if c in LABELS:
            if not pa.types.is_dictionary(column.type):
                column = column.cast(pa.string()).dictionary_encode()
            columns[c] = column.indices.to_numpy(zero_copy_only=False)
            labels[c] = column.dictionary.cast(pa.string()).to_pylist()
        else:
            columns[c] = column.to_numpy(zero_copy_only=False)
    unsplit = "records" in lacks
    if unsplit:
        columns |= _unsplit(columns["host_s"])
    if "origin" in lacks:
        columns["origin"] = np.zeros(len(table), dtype=np.int32)
        labels["origin"] = ["rescaled" if about["meta"].get("transforms") else "measured"]
    counters = _counters(file, table)
    begins = about.get("start_s")
    steps = Steps(np.array(about["wall_s"], dtype=float), np.array(about["tail_s"], dtype=float),
                  None if begins is None else np.array(begins, dtype=float))  # fmt: skip
    waits = table["waits_for"].combine_chunks()
    edges = (
        waits.offsets.to_numpy().astype(np.int64),
        waits.values.cast(pa.int64()).to_numpy().astype(np.int64),
    )
    try:
        return Workload(str(about["name"]), columns, labels, steps, edges, _meta(about, unsplit),
                        counters, _host(about.get("host")))  # fmt: skip
    except InputError as error:
        raise InputError(str(error), file=file) from None


def _lacks(schema: int, names: list[str]) -> set[str]:
    """Return the columns that a file lacks because it is older than they are."""
    later = [columns for version, columns in _SINCE.items() if version > schema]
    return {c for columns in later if not set(columns) & set(names) for c in columns}


def _unsplit(host_s: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return host work as files of version 1 have it, all of one kind."""
    nothing = np.zeros(len(host_s))
    return {**dict.fromkeys(HOST_PARTS, nothing), "interpreter_s": host_s,
            "thread": np.full(len(host_s), -1), "records": nothing}  # fmt: skip


class _Part(msgspec.Struct):
    """A step of a page, and how many there are."""

    name: str
    times: Annotated[int, msgspec.Meta(ge=1, le=10**9)]


class _Page(msgspec.Struct):
    parts: list[_Part]
    new: Annotated[int, msgspec.Meta(ge=1, le=10**9)]


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Known(msgspec.Struct, omit_defaults=True):
    """What is read of the provenance somewhere; the rest of it is only shown."""

    host: str = ""
    device: str | None = None
    launch: str = ""
    lowering: str | None = None
    profiler: str = ""
    caches: str = "step"
    duration_basis: str | None = None
    measured: bool = True
    repaired: bool = False
    marked_steps: _Count = 0
    devices: _Count | None = None
    processes: _Count | None = None
    lost_events: _Count = 0
    left_out: _Count = 0
    outside_steps: _Count = 0
    outside_steps_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    launches_of_one_id: _Count = 0
    units: Annotated[float, msgspec.Meta(gt=0)] | None = None
    batch: _Count = 1
    tokens: _Count = 0
    experts: float | list[float] = 0.0
    notes: list[str] = []
    against: list[str] = []
    steps_of_trace: list[_Count] | None = None
    transforms: dict[str, float] = {}
    page: _Page | None = None


def _check_meta(meta: dict[str, Any]) -> None:
    """Refuse provenance that whoever reads it could not work with."""
    try:
        msgspec.convert(meta, _Known)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at ")
        raise ValueError(f"{place.strip('`$.') or 'meta'}: {problem.lower()}") from None
    for path in meta.get("transforms", ()):
        if path not in PARAMETERS:
            raise ValueError(f"transforms: no parameter: {path!r}")


def _meta(about: dict[str, Any], unsplit: bool) -> dict[str, Any]:
    """Return provenance, with a note where host work is there and not split."""
    meta: dict[str, Any] = about["meta"]
    _check_meta(meta)
    if unsplit and meta.get("host") == "measured":
        return {**meta, "notes": [*meta.get("notes", ()), UNSPLIT]}
    return meta


def _counters(file: Path, table: Any) -> dict[str, Any]:
    """Return the counters of a file; a column that nobody knows is not dropped in silence."""
    names = [c for c in table.column_names if c not in COLUMNS and c != "waits_for"]
    unknown = [c for c in names if c.removeprefix(_COUNTER) not in COUNTERS or c in COUNTERS]
    if unknown:
        raise InputError("unknown column", file=file, value=unknown[0],
                         allowed=f"{_COUNTER}NAME with a known counter")  # fmt: skip
    return {c.removeprefix(_COUNTER): table[c].combine_chunks().to_numpy(zero_copy_only=False)
            for c in names}  # fmt: skip


def _host_rows(host: HostCosts) -> list[list[Any]]:
    columns = (host.calls.tolist(), host.self_s.tolist(), host.total_s.tolist())
    return [list(row) for row in zip(host.names, host.group, *columns, strict=True)]


def _host(rows: list[list[Any]] | None) -> HostCosts | None:
    if rows is None:
        return None
    names, group, calls, self_s, total_s = zip(*rows, strict=True) if rows else ((),) * 5
    return HostCosts(
        tuple(map(str, names)),
        tuple(map(str, group)),
        np.array(calls, dtype=np.int64),
        np.array(self_s, dtype=np.float64),
        np.array(total_s, dtype=np.float64),
    )


def _about(file: Path, table: Any) -> dict[str, Any]:
    raw = (table.schema.metadata or {}).get(_KEY)
    if raw is None:
        raise InputError("Parquet, but not a workload", file=file,
                         hint="make one with `npusim import TRACE`")  # fmt: skip
    about = msgspec.json.decode(raw, type=dict[str, Any])  # no NaN, no half of a character
    version = about.get("schema")
    if type(version) is int and version > SCHEMA_VERSION:  # bool is an int to isinstance
        raise InputError("written by a newer npusim", file=file, place="schema", value=version,
                         allowed=f"up to {SCHEMA_VERSION}",
                         hint="update npusim, or import the trace again with this one")  # fmt: skip
    if type(version) is not int or version not in _READABLE:
        raise InputError("not a version of a workload", file=file, place="schema", value=version,
                         allowed=" or ".join(map(str, _READABLE)),
                         hint="the file is damaged: import the trace again")  # fmt: skip
    return about


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
