"""Workloads as Parquet files: one row an operation, the rest in the file's metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from npusim.atomic import whole_file
from npusim.errors import InputError
from npusim.workload import COLUMNS, LABELS, Steps, Workload

SCHEMA_VERSION = 1
_KEY = b"npusim.workload"


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
    indptr, indices = workload.edges
    about = {
        "schema": SCHEMA_VERSION,
        "name": workload.name,
        "wall_s": workload.steps.wall_s.tolist(),
        "tail_s": workload.steps.tail_s.tolist(),
        "meta": dict(workload.meta),
    }
    waits = np.split(indices, indptr[1:-1])
    arrays["waits_for"] = pa.array([w.tolist() for w in waits], pa.list_(pa.int64()))
    table = pa.table(arrays).replace_schema_metadata({_KEY: json.dumps(about).encode()})
    with whole_file(file) as temporary:
        pq.write_table(table, temporary, compression="zstd", compression_level=19)


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
            ArithmeticError, RecursionError) as error:  # fmt: skip
        raise InputError(f"not a workload: {_first_line(error)}", file=file) from None


def _read(file: Path) -> Workload:
    table = pq.read_table(file)
    about = _about(file, table)
    columns: dict[str, Any] = {}
    labels: dict[str, list[str]] = {}
    for c in COLUMNS:
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
    steps = Steps(np.array(about["wall_s"], dtype=float), np.array(about["tail_s"], dtype=float))
    waits = table["waits_for"].combine_chunks()
    edges = (
        waits.offsets.to_numpy().astype(np.int64),
        waits.values.cast(pa.int64()).to_numpy().astype(np.int64),
    )
    try:
        return Workload(str(about["name"]), columns, labels, steps, edges, about["meta"])
    except InputError as error:
        raise InputError(str(error), file=file) from None


def _about(file: Path, table: Any) -> dict[str, Any]:
    raw = (table.schema.metadata or {}).get(_KEY)
    if raw is None:
        raise InputError("Parquet, but not a workload", file=file,
                         hint="make one with `npusim import TRACE`")  # fmt: skip
    about: dict[str, Any] = dict(json.loads(raw))
    if about.get("schema") != SCHEMA_VERSION:
        raise InputError("workload of another version", file=file, value=about.get("schema"),
                         allowed=str(SCHEMA_VERSION), hint="import the trace again")  # fmt: skip
    return about


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
