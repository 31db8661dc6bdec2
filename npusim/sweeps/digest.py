"""What a sweep comes to, from tables that are read one at a time: front, best, and what is shown.

A sweep of a million designs fits into one table; one of a billion never has to. The first pass
reads what designs are ranked by, the second the whole rows of those that stand out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike

from npusim.axes import ARCH
from npusim.constraints import Limit, refuse_none
from npusim.errors import InputError
from npusim.sweeps import results
from npusim.sweeps.front import Front

TABLE = 1_000_000  # designs that are read as one table
_SHOWN = 20_000  # designs of a larger sweep that figures show
_SAME = 1e-9
_BANDS = {"wall_s", "wall_low_s", "wall_high_s", "device_busy_s", "device_busy_low_s",
          "device_busy_high_s", "energy_j", "energy_low_j", "energy_high_j"}  # fmt: skip


class Rows(Protocol):
    """A table that can be read in part."""

    @property
    def names(self) -> Sequence[str]:
        """Return the names of its columns."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return some columns, or all."""


@dataclass(frozen=True)
class Held:
    """A table in memory."""

    table: pa.Table

    @property
    def names(self) -> Sequence[str]:
        """Return the names of its columns."""
        return list(self.table.column_names)

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.table.num_rows)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return some columns, or all."""
        return self.table if columns is None else self.table.select(list(columns))


@dataclass(frozen=True)
class Group:
    """A row group of a Parquet file."""

    file: Path
    number: int
    rows: int

    @property
    def names(self) -> Sequence[str]:
        """Return the names of its columns."""
        return list(pq.read_schema(self.file).names)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.rows

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return some columns, or all.

        Raises
        ------
        InputError
            The file is damaged.
        """
        wanted = None if columns is None else list(columns)
        try:
            with pq.ParquetFile(self.file) as opened:
                return opened.read_row_group(self.number, columns=wanted, use_threads=False)
        except (pa.ArrowException, OSError, ValueError):
            raise InputError("a file of the results is damaged", file=self.file,
                             hint="sweep again") from None  # fmt: skip


def stored(path: Path) -> list[Group]:
    """Return the pieces of results on disk, in the order of the designs.

    Parameters
    ----------
    path : Path
        ``results.parquet``, a file or a folder.
    """
    found = []
    for file in results.files(path):
        about = pq.read_metadata(file)
        counts = (about.row_group(i).num_rows for i in range(about.num_row_groups))
        found += [Group(file, i, rows) for i, rows in enumerate(counts)]
    return found


@dataclass(frozen=True)
class Digest:
    """What the designs of a sweep come to.

    Attributes
    ----------
    designs, allowed : int
        All of them, and those that meet the constraints.
    front : DataFrame
        The Pareto front of those.
    best : Series
        The fastest of those.
    as_fast : int
        How many are as fast as it.
    over : int
        Designs that take more than their power limit at any clock.
    shown : DataFrame
        All designs up to `TABLE`; else the front, the best, an even sample of all, and those asked
        for. Numbered as rows of the sweep.
    """

    designs: int
    allowed: int
    front: pd.DataFrame
    best: pd.Series[Any]
    as_fast: int
    over: int
    shown: pd.DataFrame


def digest(
    pieces: Sequence[Rows], time: str, costs: Sequence[str], limits: Sequence[Limit],
    bands: bool = False, power: Mapping[str, float] = MappingProxyType({}), beside: ArrayLike = (),
) -> Digest:  # fmt: skip
    """Return what some results come to.

    Parameters
    ----------
    pieces : sequence of Rows
        The results, in the order of the designs.
    time : str
        Column that ranks designs.
    costs : sequence of str
        What a designer pays for.
    limits : sequence of Limit
        What column ``allowed`` says of.
    bands : bool
        Whether the front holds what is not surely beaten (`npusim.sweeps.front.pareto`).
    power : mapping of str to float
        ``power.limit`` of each machine that has one, where it is no axis [W].
    beside : array_like of int
        Rows of a large sweep that are shown beside the others.

    Raises
    ------
    InputError
        No design meets the limits.
    """
    designs = sum(len(piece) for piece in pieces)
    if designs <= TABLE:
        pieces = [Held(pa.concat_tables([piece.read() for piece in pieces]))]
    first = _First(pieces, time, costs, bands, power)
    if not first.allowed:
        columns = [limit.column for limit in limits]
        refuse_none(_arrays(pieces, columns), limits)
    numbers = first.front.table.index.to_numpy()
    if designs <= TABLE:
        shown: pd.DataFrame = pieces[0].read().to_pandas()
        front = shown.loc[numbers]
    else:
        even = np.linspace(0, designs - 1, _SHOWN).astype(np.int64)
        asked = np.append(np.asarray(beside, dtype=np.int64), first.best)
        shown = _whole(pieces, np.unique(np.concatenate([even, numbers, asked])))
        front = shown.loc[numbers]
    best: pd.Series[Any] = shown.loc[first.best]  # type: ignore[assignment]
    return Digest(designs, first.allowed, front, best, first.as_fast, first.over, shown)


class _First:
    """The first pass: the numbers of the rows that stand out, and counts."""

    def __init__(
        self, pieces: Sequence[Rows], time: str, costs: Sequence[str], bands: bool,
        power: Mapping[str, float],
    ) -> None:  # fmt: skip
        self.front, self.allowed, self.over = Front([time, *costs], bands), 0, 0
        self._time, self._costs, self._power = time, list(costs), power
        self._ahead = pd.DataFrame()
        self._times: list[tuple[float, int]] = []
        wanted = {time, *costs, ARCH, "allowed", "power_w", "power.limit"} | (
            _BANDS if bands else set()
        )
        start = 0
        for piece in pieces:
            self._add(_ranks(piece, wanted, start))
            start += len(piece)
        self.best = int(self._ahead.index[0]) if len(self._ahead) else -1

    @property
    def as_fast(self) -> int:
        """How many designs are as fast as the best."""
        least = min((time for time, _ in self._times), default=np.nan)
        return sum(count for time, count in self._times if time <= least * (1 + _SAME))

    def _add(self, table: pd.DataFrame) -> None:
        self.over += _over(table, self._power)
        fair = table[table["allowed"]]
        self.allowed += len(fair)
        if not len(fair):
            return
        self.front.add(fair)
        ahead = pd.concat([self._ahead, fair.loc[[ranked(fair, self._time, self._costs)]]])
        self._ahead = ahead.loc[[ranked(ahead, self._time, self._costs)]]
        least = float(fair[self._time].min())
        self._times.append((least, int((fair[self._time] <= least * (1 + _SAME)).sum())))


def _over(table: pd.DataFrame, power: Mapping[str, float]) -> int:
    """Return how many designs take more than their power limit at any clock."""
    if "power_w" not in table:
        return 0
    if "power.limit" in table:
        limit = table["power.limit"]
    elif ARCH in table:
        limit = table[ARCH].map(dict(power)).astype(float)
    else:
        limit = pd.Series(next(iter(power.values()), np.nan), index=table.index)
    return int((table["power_w"] > limit * 1.01).sum())


def _ranks(piece: Rows, wanted: Collection[str], start: int) -> pd.DataFrame:
    """Return what designs are ranked by, numbered from the first of all."""
    names = [name for name in piece.names if name in wanted]
    table: pd.DataFrame = piece.read(names).to_pandas()
    return table.set_axis(np.arange(start, start + len(table)))


def ranked(table: pd.DataFrame, time: str, costs: Sequence[str]) -> int:
    """Return the row of the fastest design; of several as fast, of the one that costs least."""
    order = table.assign(**{time: table[time].round(15)}).sort_values([time, *costs], kind="stable")
    return int(order.index[0])


def _arrays(pieces: Sequence[Rows], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield some columns of each piece."""
    for piece in pieces:
        table = piece.read(columns)
        yield {name: table.column(name).to_numpy() for name in columns}


def _whole(pieces: Sequence[Rows], numbers: np.ndarray[Any, np.dtype[np.int64]]) -> pd.DataFrame:
    """Return whole rows by number, as many pieces at a time as they lie in."""
    found, start = [], 0
    for piece in pieces:
        here = numbers[(numbers >= start) & (numbers < start + len(piece))]
        if len(here):
            rows = piece.read().take(pa.array(here - start)).to_pandas()
            found.append(rows.set_axis(here))
        start += len(piece)
    whole: pd.DataFrame = pd.concat(found)
    return whole
