"""Sweeps that cost nothing: a table for each block, computed from row numbers alone."""

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from npusim.errors import InputError
from npusim.sweeps.task import Block


@dataclass(frozen=True)
class Squares:
    """Row i holds i and its square; block sizes differ so that no two can be confused."""

    count: int = 8
    rows: int = 100
    seconds: float = 0.0
    id: str = "00000000000000000000000000000abc"
    model: str = "1"
    blocks: list = field(default_factory=list)

    def __post_init__(self):
        self.blocks.extend(Block(i, self.rows + i) for i in range(self.count))

    @property
    def about(self):
        return {"name": "squares", "workloads": ["w"], "axes": {},
                "made_by": {"model": self.model, "arch": {"name": "a", "id": "1"}}}  # fmt: skip

    def first(self, number):
        return number * self.rows + number * (number - 1) // 2

    def table(self, number):
        if self.seconds:
            time.sleep(self.seconds)
        rows = np.arange(self.rows + number) + self.first(number)
        return pa.table({
            "design_id": [f"{row:032x}" for row in rows], "launch": ["graph"] * len(rows),
            "x": rows.astype(float), "square": rows.astype(float) ** 2,
        })  # fmt: skip

    def whole(self):
        return pa.concat_tables([self.table(block.number) for block in self.blocks])


@dataclass(frozen=True)
class Deadly(Squares):
    """One block kills the process that evaluates it, so many times."""

    folder: str = ""
    times: int = 1
    at: int = 3

    def table(self, number):
        if number == self.at:
            for one in range(self.times):
                try:
                    Path(self.folder, f"died{one}").touch(exist_ok=False)
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)
        return super().table(number)


@dataclass(frozen=True)
class Refusing(Squares):
    def table(self, number):
        if number == 2:
            raise InputError("no such design", place="clock.boost", value=-1)
        return super().table(number)


@dataclass(frozen=True)
class Broken(Squares):
    def table(self, number):
        if number == 2:
            raise ZeroDivisionError("a bug")
        return super().table(number)


@dataclass(frozen=True)
class Threads(Squares):
    """Says what the process it runs in was told about threads."""

    def table(self, number):
        said = [os.environ.get(n, "") for n in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")]
        rows = self.rows + number
        return pa.table({"said": ["/".join(said)] * rows, "arrow": [pa.cpu_count()] * rows,
                         "pid": [os.getpid()] * rows})  # fmt: skip


def total(block, table):
    assert table.num_rows == block.rows
    return float(np.sum(table["square"].to_numpy()))
