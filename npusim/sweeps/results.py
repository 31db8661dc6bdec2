"""``results.parquet``: one file, or a folder of files above a million rows, whole or not there.

pandas, DuckDB and Polars read both. What replaces an earlier result is made beside it and takes its
name at the end; after a kill at any moment there is the earlier one, the new one, or (for the time
between two renames of a folder) none, but never half of one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from npusim.atomic import reason
from npusim.errors import InputError
from npusim.sweeps.encoding import ROW_GROUP, options

RESULTS = "results.parquet"
ONE_FILE = 1_000_000  # rows
LEFT = ".npusim-"  # what a killed process may leave behind begins so
_NUMBERS = count()


@contextmanager
def writing(target: Path, hint: str | None = None) -> Iterator[None]:
    """Turn what the operating system says about a file into one line, with what to do.

    Raises
    ------
    InputError
        The disk is full, the folder may not be written, and so on.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot be written: {reason(error)}", file=target, hint=hint) from None


def temporary(folder: Path) -> Path:
    """Return a name in a folder that no other process and no other call uses."""
    return folder / f"{LEFT}{os.getpid()}-{next(_NUMBERS)}"


def put(target: Path, content: pa.Buffer | bytes, hint: str | None = None) -> None:
    """Write a file that is there whole or not at all, and still is after a loss of power.

    Raises
    ------
    InputError
        It cannot be written.
    """
    fresh = temporary(target.parent)
    with writing(target, hint):
        try:
            with fresh.open("xb") as file:
                file.write(content)
            keep(fresh)
            fresh.replace(target)
            keep(target.parent)
        finally:
            fresh.unlink(missing_ok=True)


def keep(path: Path) -> None:
    """Have a file or folder on the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or a folder, if there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def clean(folder: Path) -> None:
    """Remove what killed processes have left in a folder; nobody else may be writing there."""
    with writing(folder):
        for path in folder.glob(LEFT + "*"):
            remove(path)


def replace(made: Path, target: Path) -> None:
    """Give a finished file or folder its name, whatever had it before."""
    with writing(target):
        if target.is_dir() or (made.is_dir() and target.exists()):
            old = temporary(target.parent)
            target.rename(old)
            made.rename(target)
            keep(target.parent)
            remove(old)
        else:
            made.replace(target)
            keep(target.parent)


def save(
    folder: Path, tables: Iterable[pa.Table], rows: int, metadata: Mapping[bytes, bytes],
    hint: str | None = None,
) -> Path:  # fmt: skip
    """Write tables as the results in a folder, in pieces of `ROW_GROUP` rows; return their path.

    Parameters
    ----------
    folder : Path
    tables : iterable of Table
        All of one schema; taken one by one.
    rows : int
        Not fewer than they have together: above `ONE_FILE` they go to a folder of files.
    metadata : mapping of bytes to bytes
        What goes into the schema of each file.
    hint : str, optional
        What to do if they cannot be written.

    Raises
    ------
    InputError
        The results cannot be written.
    """
    target = folder / RESULTS
    with writing(target, hint):
        folder.mkdir(parents=True, exist_ok=True)
        made = temporary(folder)
        try:
            if rows <= ONE_FILE:
                _write(_pieces(tables), iter([made]), metadata)
            else:
                made.mkdir()
                _write(_pieces(tables), (made / f"{i:08d}.parquet" for i in count()), metadata)
                keep(made)
            replace(made, target)
        finally:
            remove(made)
    return target


def _pieces(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows as tables of `ROW_GROUP` rows, so that small blocks make no small groups.

    An empty table is yielded only if there is nothing else.
    """
    waiting: list[pa.Table] = []
    held, sent = 0, False
    for table in tables:
        waiting.append(table)
        held += table.num_rows
        while held >= ROW_GROUP:
            joined = pa.concat_tables(waiting)
            yield joined.slice(0, ROW_GROUP)
            sent, held = True, held - ROW_GROUP
            waiting = [joined.slice(ROW_GROUP)]
    if waiting and (held or not sent):
        yield pa.concat_tables(waiting)


def _write(
    pieces: Iterator[pa.Table], names: Iterator[Path], metadata: Mapping[bytes, bytes]
) -> None:
    """Write pieces to files of up to `ONE_FILE` rows each."""
    written, file, writer = 0, None, None
    try:
        for piece in pieces:
            if writer is None or written + piece.num_rows > ONE_FILE:
                if writer is not None and file is not None:
                    writer.close()
                    keep(file)
                written, file = 0, next(names)
                said = {**(piece.schema.metadata or {}), **metadata}
                schema = piece.schema.with_metadata(said)
                writer = pq.ParquetWriter(str(file), schema, **options(piece))
            writer.write_table(piece, row_group_size=ROW_GROUP)
            written += piece.num_rows
    finally:
        if writer is not None and file is not None:
            writer.close()
            keep(file)


def files(results: Path) -> list[Path]:
    """Return the Parquet files that results consist of, in order."""
    return sorted(results.glob("*.parquet")) if results.is_dir() else [results]


def schema_of(file: Path) -> pa.Schema:
    """Return the columns of a Parquet file and what is said about it.

    Raises
    ------
    InputError
        Not readable as Parquet.
    """
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError, ValueError):
        raise InputError("not the results of a sweep", file=file) from None


def described(schema: pa.Schema, key: bytes, file: Path) -> dict[str, Any]:
    """Return one JSON object in the metadata of a file.

    Raises
    ------
    InputError
        Not there, or damaged.
    """
    try:
        found = json.loads((schema.metadata or {})[key])
        json.dumps(found, allow_nan=False)
    except (KeyError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError("Parquet, but not the results of a sweep", file=file)
    return found
