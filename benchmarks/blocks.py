"""How fast blocks of a sweep are encoded, written, finished and merged, and ids are made.

    python benchmarks/blocks.py [ROWS]

Rows are those of a large sweep: an id, ten axes, sixteen columns that repeat, twelve that do not.
Encoding is timed in processor seconds of one core, the rest by the clock, so with fsync.
"""

import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from npusim.sweeps.blocks import Store
from npusim.sweeps.encoding import Head
from npusim.sweeps.engines import cores, run
from npusim.sweeps.ids import design_ids, head, lanes_of, of_values
from npusim.sweeps.merge import merge
from npusim.sweeps.task import Block, part

BLOCK = 131_072


@dataclass(frozen=True)
class Rows:
    """A sweep that costs little more than its file."""

    rows: int
    id: str = "0" * 32

    @property
    def about(self):
        return {"name": "benchmark", "workloads": [], "axes": {}, "made_by": {"model": "0"}}

    @cached_property
    def blocks(self):
        whole, rest = divmod(self.rows, BLOCK)
        sizes = [BLOCK] * whole + [rest] * (rest > 0)
        return [Block(number, size) for number, size in enumerate(sizes)]

    def table(self, number):
        size = self.blocks[number].rows
        at, random = np.arange(size) + number * BLOCK, np.random.default_rng(number)
        columns, parts = {}, []
        for i in range(10):
            values = np.linspace(1, 2, 5) * 10.0**i
            place = at // 5**i % 5
            columns[f"axis.{i}"] = values[place]
            parts.append(of_values(f"axis.{i}", values)[place])
        parts.append(of_values("row", at.astype(float)))  # 5**10 designs are not enough
        for i in range(10):
            columns[f"constant.{i}"] = np.full(size, 0.1 * i)
        for i in range(6):
            columns[f"repeats.{i}"] = np.sqrt(columns["axis.1"] * columns["axis.2"] + i)
        base = random.lognormal(size=size) * 1e-3
        for i in range(12):
            columns[f"result.{i}"] = base * (1 + 0.1 * i) + random.random(size) * 1e-5
        ids = design_ids(head({"sweep": "benchmark"}), parts)
        return pa.table({"design_id": ids, "launch": pa.array(["graph"] * size), **columns})


def best(function, times=5, clock=time.process_time):
    found = []
    for _ in range(times):
        start = clock()
        function()
        found.append(clock() - start)
    return min(found)


def show(what, rows, seconds):
    print(f"{what:44} {rows / seconds / 1e6:8.2f} million rows/s")


def main(rows):
    task = Rows(rows)
    table, first = task.table(0), task.blocks[0]
    made = Head.of(task).encoded(first, table)
    show("encoded, one core", first.rows, best(lambda: Head.of(task).encoded(first, table)))
    show("read, one core", first.rows,
         best(lambda: pq.read_table(pa.BufferReader(made), use_threads=False)))  # fmt: skip
    print(f"{'size':44} {made.size / first.rows:8.1f} B/row of {table.nbytes / first.rows:.0f}")
    ids, random = table["design_id"].chunk(0), np.random.default_rng(0).random(1_000_000)
    parts = [of_values(f"axis.{i}", random) for i in range(10)]
    show("ids of ten axes", 1_000_000, best(lambda: design_ids(head({}), parts)))
    show("what one axis adds", 1_000_000, best(lambda: of_values("axis", random)))
    show("ids read back", first.rows, best(lambda: lanes_of(ids)))
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        for i in (1, 2):
            with Store.open(folder / str(i), task) as store:
                start = time.perf_counter()
                run(task, store, blocks=part(task.blocks, f"{i}/2"))
        show(f"swept by {cores()} processes, to the disk", rows / 2, time.perf_counter() - start)
        start = time.perf_counter()
        merge([folder / "1", folder / "2"], folder / "out")
        show("parts merged and finished", rows, time.perf_counter() - start)
        start = time.perf_counter()
        merge([folder / "out", folder / "1"], folder / "again")
        show("merged row by row, half of them twice", 1.5 * rows, time.perf_counter() - start)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{'most memory of this process':44} {used:8.0f} MiB")


if __name__ == "__main__":
    import blocks  # workers load the task by its module

    blocks.main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000)
