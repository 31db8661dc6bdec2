"""What a sweep comes to: front, best, counts, and what is shown of it; block by block, and joined.

A sweep of thousands of designs fits into one table; one of a billion never has to. Each block is
digested where it is made, and digests of blocks join to that of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from npusim.axes import ARCH
from npusim.sweeps.front import Front, pareto
from npusim.sweeps.task import Block

TABLE = 200_000  # designs that are kept as one table
_SHOWN = 20_000  # designs of a larger sweep that figures show
_SAME = 1e-9
_BANDS = {"wall_s", "wall_low_s", "wall_high_s", "device_busy_s", "device_busy_low_s",
          "device_busy_high_s", "energy_j", "energy_low_j", "energy_high_j"}  # fmt: skip


@dataclass(frozen=True)
class Digest:
    """What some designs of a sweep come to. Tables are numbered by the rows of the sweep.

    Attributes
    ----------
    designs, allowed : int
        All of them, and those that meet the constraints.
    front : DataFrame
        The Pareto front of those.
    ahead : DataFrame
        The best of those: one row, or none.
    fastest : tuple of (float, int)
        For each block its shortest time [s], and how many designs have it.
    over : int
        Designs that take more than their power limit at any clock.
    shown : DataFrame
        All designs, or those that were asked for, the front and the best.
    """

    designs: int
    allowed: int
    front: pd.DataFrame
    ahead: pd.DataFrame
    fastest: tuple[tuple[float, int], ...]
    over: int
    shown: pd.DataFrame

    @property
    def best(self) -> pd.Series[Any]:
        """The fastest design; of several as fast, the one that costs least."""
        best: pd.Series[Any] = self.ahead.iloc[0]
        return best

    @property
    def as_fast(self) -> int:
        """How many designs are as fast as the best."""
        least = min((time for time, _ in self.fastest), default=np.nan)
        return sum(count for time, count in self.fastest if time <= least * (1 + _SAME))


@dataclass(frozen=True)
class Digesting:
    """How blocks are digested; goes to workers.

    Attributes
    ----------
    time : str
        Column that ranks designs.
    costs : tuple of str
        What a designer pays for.
    size : int
        Rows of a block, all but the last.
    bands : bool
        Whether the front holds what is not surely beaten (`npusim.sweeps.front.pareto`).
    power : mapping of str to float
        ``power.limit`` of each machine that has one, where it is no axis [W].
    shown : array of int, optional
        Rows that are shown; all where there is none.
    """

    time: str
    costs: tuple[str, ...]
    size: int
    bands: bool = False
    power: Mapping[str, float] = field(default_factory=dict)
    shown: NDArray[np.int64] | None = None

    def __call__(self, block: Block, table: pa.Table) -> Digest:
        """Return the digest of one block."""
        start = block.number * self.size
        wanted = {self.time, *self.costs, ARCH, "allowed", "power_w", "power.limit"}
        wanted |= _BANDS if self.bands else set()
        ranks = table.select([name for name in table.column_names if name in wanted]).to_pandas()
        fair = ranks[ranks["allowed"]]
        front = pareto(fair, [self.time, *self.costs], self.bands).index.to_numpy()
        first = [ranked(fair, self.time, self.costs)] if len(fair) else []
        others = self._shown(start, len(ranks))
        places = np.unique(np.concatenate([front, np.array(first, dtype=np.int64), others]))
        shown = table.take(pa.array(places)).to_pandas().set_axis(start + places)
        return Digest(len(ranks), len(fair), shown.loc[start + front],
                      shown.loc[[start + i for i in first]], tuple(self._fastest(fair)),
                      _over(ranks, self.power), shown)  # fmt: skip

    def _shown(self, start: int, count: int) -> NDArray[np.int64]:
        """Return the places of a block that are shown."""
        if self.shown is None:
            return np.arange(count)
        low, high = np.searchsorted(self.shown, (start, start + count))
        return self.shown[low:high] - start

    def _fastest(self, fair: pd.DataFrame) -> Iterator[tuple[float, int]]:
        """Yield the shortest time of some designs, and how many have it."""
        if len(fair):
            least = float(fair[self.time].min())
            yield least, int((fair[self.time] <= least * (1 + _SAME)).sum())

    def joined(self, parts: Sequence[Digest]) -> Digest:
        """Return the digest of several blocks from theirs."""
        front = Front([self.time, *self.costs], self.bands)
        for part in parts:
            if len(part.front):
                front.add(part.front)
        ahead = pd.concat([part.ahead for part in parts])
        if len(ahead):
            ahead = ahead.loc[[ranked(ahead, self.time, self.costs)]]
        shown = pd.concat([part.shown for part in parts])
        return Digest(
            sum(part.designs for part in parts), sum(part.allowed for part in parts), front.table,
            ahead, tuple(each for part in parts for each in part.fastest),
            sum(part.over for part in parts), shown[~shown.index.duplicated()],
        )  # fmt: skip


def evenly(designs: int, beside: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of a large sweep that are shown: an even sample, and those beside it."""
    even = np.linspace(0, designs - 1, _SHOWN).astype(np.int64)
    return np.union1d(even, np.asarray(beside, dtype=np.int64))


def ranked(table: pd.DataFrame, time: str, costs: Sequence[str]) -> int:
    """Return the row of the fastest design; of several as fast, of the one that costs least.

    Examples
    --------
    >>> designs = pd.DataFrame({"wall_s": [2.0, 1.0, 1.0], "cost": [1.0, 3.0, 2.0]})
    >>> ranked(designs, "wall_s", ["cost"])
    2
    """
    times = table[time].round(15)
    few = table[times == times.min()]
    return int(few.sort_values(list(costs), kind="stable").index[0] if costs else few.index[0])


def _over(table: pd.DataFrame, power: Mapping[str, float] = MappingProxyType({})) -> int:
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
