"""One block of a sweep as the bytes of a Parquet file: fast to write, small, the same each time.

What was measured (one core, 200,000 rows: an id, 38 floats of which 26 are constant or repeat):

==============================================  ============  ======
options                                         rows a s      B/row
==============================================  ============  ======
pyarrow's own (dictionary for all, snappy)      0.9 million   154
no dictionary, no compression                   3.0 million   349
no dictionary, zstd-1                           1.0 million   126
dictionary for what repeats, else plain, none   2.6 million   142
same, zstd-1                                    1.7 million   117
dictionary, BYTE_STREAM_SPLIT, zstd-1           1.7 million   110
same, ids DELTA_LENGTH_BYTE_ARRAY               1.7 million   108
==============================================  ============  ======

A dictionary of a column whose values all differ costs most of the time and is thrown away; of one
that repeats it is the fastest encoding and makes an axis almost nothing. So a sample of each column
decides. Floats that do not repeat share sign and exponent with their neighbours: split by byte,
zstd finds that. Digits of an id carry half a byte each: without length prefixes zstd gets there.

Left out: statistics of ids (least and greatest of a random number tell nothing).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from npusim.sweeps.task import Block, Task

ABOUT = b"npusim.sweep"
PLACE = b"npusim.block"
ROW_GROUP = 131_072
_SAMPLE = 4_096


@dataclass(frozen=True)
class Head:
    """What all files of a sweep say of it.

    Parameters
    ----------
    id : str
        Strong id of the sweep.
    about : str
        Its description, JSON.
    blocks, rows : int
        How many it has in all.
    """

    id: str
    about: str
    blocks: int
    rows: int

    @classmethod
    def of(cls, task: Task) -> Head:
        """Return the head of a sweep, equal for equal descriptions whatever the order of keys."""
        rows = sum(block.rows for block in task.blocks)
        return cls(task.id, written(task.about), len(task.blocks), rows)

    def metadata(self, block: Block | None = None) -> dict[bytes, bytes]:
        """Return what a file says in its schema: that of one block, or of all of them."""
        place = {"id": self.id, "blocks": self.blocks, "rows": self.rows}
        if block is not None:
            place |= {"block": block.number, "rows": block.rows}
        return {ABOUT: self.about.encode(), PLACE: json.dumps(place).encode()}

    def encoded(self, block: Block, table: pa.Table) -> pa.Buffer:
        """Return the bytes of the file of a block: equal tables give equal bytes.

        Raises
        ------
        ValueError
            The table has not the rows of the block.
        """
        if table.num_rows != block.rows:
            raise ValueError(f"block {block.number}: {table.num_rows} rows, not {block.rows}")
        metadata = {**(table.schema.metadata or {}), **self.metadata(block)}
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, table.schema.with_metadata(metadata), **options(table)) as file:
            file.write_table(table, row_group_size=ROW_GROUP)
        return sink.getvalue()


def written(about: Mapping[str, Any]) -> str:
    """Return a description as it is kept."""
    return json.dumps(about, sort_keys=True, allow_nan=False)


def options(table: pa.Table) -> dict[str, Any]:
    """Return how to write a table, or a file that begins with it, see the head of this module."""
    repeats, encodings, ordered = [], {}, []
    sample = pa.array(np.arange(0, table.num_rows, max(1, table.num_rows // _SAMPLE)))
    for name, kind in zip(table.schema.names, table.schema.types, strict=True):
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if _repeats(table.column(name), sample):
            repeats.append(name)
        elif pa.types.is_floating(kind):
            encodings[name] = "BYTE_STREAM_SPLIT"
        elif text:
            encodings[name] = "DELTA_LENGTH_BYTE_ARRAY"
        if name not in encodings or not text:
            ordered.append(name)
    return {"use_dictionary": repeats, "column_encoding": encodings or None,
            "write_statistics": ordered, "compression": "zstd", "compression_level": 1,
            "write_page_checksum": True}  # fmt: skip


def _repeats(column: pa.ChunkedArray, rows: pa.Array) -> bool:
    """Say whether values of a column come again so often that a dictionary pays."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return True
    number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    if not (number or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return False
    distinct = pc.count_distinct(column.take(rows), mode="all").as_py()
    return bool(2 * distinct <= len(rows))


def place(file: Path) -> dict[str, Any] | None:
    """Return which block of which sweep a file is, or None: no such file, damaged, or no block."""
    try:
        with pq.ParquetFile(file) as opened:
            rows, raw = opened.metadata.num_rows, opened.metadata.metadata or {}
        found = json.loads(raw[PLACE])
        sound = found["rows"] == rows and isinstance(found["block"], int)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if sound else None
