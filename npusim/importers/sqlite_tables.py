"""The plain tables of a SQLite file that comes from elsewhere.

The file is data: it is opened read-only, only plain tables are read (a view or a virtual table
would run text of the file), only columns that it says it stores, and no more than it has room
for, so that a page that points back to itself comes to an end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from npusim.errors import InputError

_MAGIC = b"SQLite format 3\0"
_LEAST_ROW = 4  # bytes that any row takes in a file


def is_sqlite(path: Path) -> bool:
    """Return whether a file starts as a SQLite file does."""
    with path.open("rb") as stream:
        return stream.read(len(_MAGIC)) == _MAGIC


def _whole_size(path: Path) -> int:
    """Return how many bytes the header says that the file has, 0 where it does not say."""
    with path.open("rb") as stream:
        head = stream.read(100)
    if len(head) < 100 or head[24:28] != head[92:96]:  # written by a version that did not count
        return 0
    page = int.from_bytes(head[16:18], "big")
    return int.from_bytes(head[28:32], "big") * (65536 if page == 1 else page)


class Tables:
    """The plain tables of a SQLite file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    InputError
        Not SQLite, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._size = path.stat().st_size
            uri = path.resolve().as_uri() + "?mode=ro&immutable=1"
            self._db = sqlite3.connect(uri, uri=True)
        except (sqlite3.Error, OSError) as error:
            raise InputError("cannot be read", file=path, value=str(error)) from None
        if self._size < (whole := _whole_size(path)):
            self._db.close()
            raise InputError("SQLite file is cut short", file=path,
                             value=f"{self._size} of {whole} bytes")  # fmt: skip
        self._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, min(max(self._size, 1 << 16), 10**9))
        self._db.text_factory = lambda raw: raw.decode("utf-8", "replace")
        try:
            self._db.execute("PRAGMA trusted_schema = OFF")
            query = "SELECT name, sql FROM sqlite_master WHERE type = 'table'"
            self.tables = frozenset(
                str(name)
                for name, sql in self._db.execute(query)
                if not str(sql).upper().startswith("CREATE VIRTUAL")
            )
        except sqlite3.Error as error:
            self._db.close()
            raise self._damaged("sqlite_master", error) from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def columns(self, table: str) -> frozenset[str]:
        """Return the columns that a table stores; none if there is no such table."""
        if table not in self.tables:
            return frozenset()
        try:
            about = self._db.execute(f'PRAGMA table_info("{table}")').fetchall()
        except sqlite3.Error as error:
            raise self._damaged(table, error) from None
        return frozenset(str(column) for _, column, *_ in about)

    def need(self, table: str, *columns: str) -> None:
        """Raise if a table or one of its columns is missing."""
        there = self.columns(table)
        if not there:
            raise InputError("no such table", file=self.path, place=table)
        for column in columns:
            if column not in there:
                raise InputError("column is missing", file=self.path, place=f"{table}.{column}")

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Yield every row of a table with its number from 1.

        Parameters
        ----------
        table : str
            One that may be missing: then there are no rows.
        columns : sequence of str
            What to read; None stands for a column that is not there.
        """
        there = self.columns(table)
        if not there:
            return
        picked = ", ".join(f'"{c}"' if c in there else "NULL" for c in columns)
        query = f'SELECT {picked} FROM "{table}" NOT INDEXED'  # noqa: S608  (names of ours)
        room = self._size
        try:
            for number, row in enumerate(self._db.execute(query), 1):
                room -= _LEAST_ROW + sum(len(v) for v in row if isinstance(v, (str, bytes)))
                if room < 0:
                    raise InputError("damaged SQLite file: more rows than it has room for",
                                     file=self.path, place=table)  # fmt: skip
                yield number, row
        except sqlite3.Error as error:
            raise self._damaged(table, error) from None

    def _damaged(self, table: str, error: sqlite3.Error) -> InputError:
        text = str(error)
        problem = "not a SQLite file" if "not a database" in text else "damaged SQLite file"
        return InputError(problem, file=self.path, place=table, value=text)
