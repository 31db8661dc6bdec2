"""The store of a sweep: whole files or none, resumed where it was, read by what people use."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from npusim.errors import InputError
from npusim.sweeps import encoding, results
from npusim.sweeps.blocks import Store, read
from npusim.sweeps.encoding import Head, place
from npusim.sweeps.engines import run
from npusim.sweeps.task import Block, part
from tests.block_tasks import Squares, total


def filled(folder, task, blocks=None, resume=False):
    with Store.open(folder, task, resume) as store:
        run(task, store, workers=1, blocks=blocks)
        return store


def finished(folder, task):
    with Store.open(folder, task) as store:
        run(task, store, workers=1)
        return store.finish()


@pytest.fixture
def small_files(monkeypatch):
    """Results above 500 rows are a folder."""
    monkeypatch.setattr(results, "ONE_FILE", 500)


# ---------------------------------------------------------------- files of blocks


def test_a_block_file_says_what_it_is(tmp_path):
    task = Squares()
    filled(tmp_path, task, part(task.blocks, "1/1"))
    file = tmp_path / "blocks" / "00000003.parquet"
    assert place(file) == {"id": task.id, "block": 3, "rows": 103, "blocks": 8}
    said = pq.read_schema(file).metadata
    assert json.loads(said[b"npusim.sweep"]) == task.about
    deep = {encoding.PLACE: b"[" * 100_000}
    pq.write_table(pq.read_table(file).replace_schema_metadata(deep), file)
    assert place(file) is None
    assert read(file).equals(task.table(3))
    assert json.loads((tmp_path / "blocks" / "sweep.json").read_text()) == {
        "version": 1, "id": task.id, "blocks": 8, "rows": 828, "about": task.about}  # fmt: skip


def test_equal_tables_are_equal_bytes_however_they_are_chunked():
    head, table = Head.of(Squares()), Squares().table(5)
    chunked = pa.concat_tables([table.slice(0, 40), table.slice(40)])
    whole, again = (head.encoded(Block(5, 105), t).to_pybytes() for t in (table, chunked))
    assert whole == again


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.int64(), pa.int32(), pa.string(),
                                  pa.bool_(), pa.dictionary(pa.int32(), pa.string())])  # fmt: skip
@pytest.mark.parametrize("make", ["constant", "distinct", "null", "none"])
def test_every_kind_of_column_comes_back(tmp_path, kind, make):
    rows = {"constant": [1] * 9000, "distinct": range(9000), "null": [None, 1] * 4500, "none": []}
    plain = pa.array(list(rows[make]), pa.int64())
    column = (
        plain.cast(pa.string()).cast(kind) if pa.types.is_dictionary(kind) else plain.cast(kind)
    )
    table = pa.table({"x": column, "y": np.arange(len(column), dtype=float)})
    file = tmp_path / "x.parquet"
    file.write_bytes(Head("0", "{}", 1, len(table)).encoded(Block(0, len(table)), table))
    assert read(file).equals(table)


def test_a_column_of_nulls_comes_back(tmp_path):
    table, file = pa.table({"x": pa.nulls(9), "y": [[1]] * 9}), tmp_path / "x.parquet"
    file.write_bytes(Head("0", "{}", 1, 9).encoded(Block(0, 9), table))
    assert read(file).equals(table)


def test_special_numbers_come_back_to_the_bit(tmp_path):
    special = np.array(
        [0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, 1.7e308, *np.random.default_rng(0).random(9)]
    )
    table, file = pa.table({"x": special}), tmp_path / "x.parquet"
    file.write_bytes(Head("0", "{}", 1, 16).encoded(Block(0, 16), table))
    assert read(file)["x"].to_numpy().tobytes() == special.tobytes()


def test_a_column_that_repeats_takes_almost_nothing():
    """A dictionary where values repeat; where none do, no more than the values themselves."""
    rows, random = 50_000, np.random.default_rng(0)

    def size(column):
        table = pa.table({"x": column})
        return Head("0", "{}", 1, rows).encoded(Block(0, rows), table).size

    assert size(np.full(rows, 1e12)) < 2_000
    assert size(np.tile([1e12, 2e12, 4e12, 8e12], rows // 4)) < rows / 2
    assert size(random.random(rows)) < 8.1 * rows
    assert size([f"{value:032x}" for value in range(rows)]) < 17 * rows
    drawn = random.integers(0, 16, (rows, 32))
    digits = np.array(list("0123456789abcdef"))[drawn]
    assert size(["".join(row) for row in digits]) < 17.5 * rows  # 16 bytes of entropy


def test_a_table_of_other_rows_is_a_bug():
    with pytest.raises(ValueError, match="block 0: 105 rows, not 100"):
        Head.of(Squares()).encoded(Block(0, 100), Squares().table(5))


# ---------------------------------------------------------------- opening


def test_a_store_goes_on_only_when_told_to(tmp_path):
    task = Squares()
    filled(tmp_path, task, part(task.blocks, "1/3"))
    with pytest.raises(InputError) as error:
        Store.open(tmp_path, task)
    assert str(error.value) == (
        f"{tmp_path / 'blocks'}: 3 of 8 blocks of this sweep are done; go on with --resume, "
        "or remove the folder"
    )
    with Store.open(tmp_path, task, resume=True) as store:
        assert store.done == {0, 3, 6}
        assert [b.number for b in store.missing()] == [1, 2, 4, 5, 7]


@pytest.mark.parametrize("resume", [True, False])
def test_a_store_of_another_sweep_is_left_alone(tmp_path, resume):
    task, other = Squares(), Squares(id="f" * 32)
    filled(tmp_path, task, part(task.blocks, "1/2"))
    with pytest.raises(InputError) as error:
        Store.open(tmp_path, other, resume)
    assert "an unfinished sweep of something else (4 of 8 blocks); finish" in str(error.value)
    assert filled(tmp_path, task, resume=True).done == set(range(8))


def test_nothing_is_left_where_nothing_was_done(tmp_path):
    for task in (Squares(), Squares(id="f" * 32)):
        Store.open(tmp_path, task).close()
        assert list(tmp_path.iterdir()) == []


def test_a_killed_start_is_a_new_start(tmp_path):
    """Killed before the first block, with or without a description; then something else is run."""
    inside = tmp_path / "blocks"
    inside.mkdir()
    (inside / ".npusim-1-1").write_text("half")
    filled(tmp_path, Squares(), part(Squares().blocks, "1/8"))
    (inside / "00000000.parquet").unlink()
    other = Squares(id="f" * 32)
    assert filled(tmp_path, other).done == set(range(8))
    assert json.loads((inside / "sweep.json").read_text())["id"] == other.id


def test_blocks_of_no_known_sweep_are_left_alone(tmp_path):
    filled(tmp_path, Squares())
    (tmp_path / "blocks" / "sweep.json").unlink()
    with pytest.raises(InputError, match=r"something else \(8 blocks\)"):
        Store.open(tmp_path, Squares(), resume=True)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 1}', "\udcff"])
def test_a_damaged_description_is_told(tmp_path, text):
    filled(tmp_path, Squares())
    (tmp_path / "blocks" / "sweep.json").write_text(text, errors="surrogateescape")
    with pytest.raises(InputError, match=r"sweep\.json: damaged"):
        Store.open(tmp_path, Squares(), resume=True)


def test_a_later_description_is_told(tmp_path):
    filled(tmp_path, Squares())
    file = tmp_path / "blocks" / "sweep.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": 2}))
    with pytest.raises(InputError, match=r"version: written by another version of npusim: 2"
                       r".*; finish it with the npusim that began it, or remove the"):  # fmt: skip
        Store.open(tmp_path, Squares(), resume=True)


def _short(file, _folder):
    file.write_bytes(file.read_bytes()[:-7])


def _empty(file, _folder):
    file.write_bytes(b"")


def _garbage(file, _folder):
    file.write_bytes(os.urandom(5000))


def _neighbour(file, folder):
    file.write_bytes((folder / "blocks" / "00000004.parquet").read_bytes())


def _foreign(file, folder):
    other = Squares(id="f" * 32)
    filled(folder / "other", other)
    file.write_bytes((folder / "other" / "blocks" / file.name).read_bytes())


def _plain(file, _folder):
    pq.write_table(Squares().table(3), file)


def _fewer(file, _folder):
    """What a sweep with the id but smaller blocks would have written."""
    table = Squares().table(3).slice(0, 50)
    file.write_bytes(Head.of(Squares()).encoded(Block(3, 50), table))


@pytest.mark.parametrize("spoil", [_short, _empty, _garbage, _neighbour, _foreign, _plain, _fewer])
def test_a_bad_block_is_done_again(tmp_path, spoil):
    task = Squares()
    filled(tmp_path, task)
    file = tmp_path / "blocks" / "00000003.parquet"
    good = file.read_bytes()
    spoil(file, tmp_path)
    with Store.open(tmp_path, task, resume=True) as store:
        assert store.missing() == [task.blocks[3]]
        run(task, store, workers=1)
        assert file.read_bytes() == good
        store.finish()
    assert pq.read_table(tmp_path / "results.parquet").equals(task.whole())


def test_a_flipped_bit_is_not_read_as_a_result(tmp_path):
    """Footers do not show it; checksums of pages do, when the results are made."""
    task = Squares(count=1, rows=5000)
    filled(tmp_path, task)
    file = tmp_path / "blocks" / "00000000.parquet"
    content = bytearray(file.read_bytes())
    content[2000] ^= 1
    file.write_bytes(content)
    with (
        Store.open(tmp_path, task, resume=True) as store,
        pytest.raises(InputError, match=r"00000000\.parquet: a block is damaged"),
    ):
        store.finish()
    with Store.open(tmp_path, task, resume=True) as store:  # the way out that the line names
        assert store.missing() == list(task.blocks)
        run(task, store, workers=1)
        store.finish()
    assert pq.read_table(tmp_path / "results.parquet").equals(task.whole())


def test_damaged_results_are_not_removed(tmp_path):
    task = Squares(count=1, rows=5000)
    with Store.open(tmp_path, task) as store:
        run(task, store, workers=1)
        file = store.finish()
    content = bytearray(file.read_bytes())
    content[2000] ^= 1
    file.write_bytes(content)
    with (
        Store.open(tmp_path, task, resume=True) as store,
        pytest.raises(InputError, match="remove these results and sweep again"),
    ):
        list(store.tables())
    assert file.read_bytes() == content


def test_leftovers_are_removed(tmp_path):
    task = Squares()
    filled(tmp_path, task, part(task.blocks, "1/2"))
    (tmp_path / "blocks" / ".npusim-77-0").write_bytes(b"half a block")
    (tmp_path / ".npusim-77-1").mkdir()
    (tmp_path / ".npusim-77-1" / "00000000.parquet").write_bytes(b"")
    (tmp_path / "mine.txt").write_text("kept")
    Store.open(tmp_path, task, resume=True).close()
    assert not list(tmp_path.rglob(".npusim-*"))
    assert (tmp_path / "mine.txt").is_file()


# ---------------------------------------------------------------- one at a time

HOLD = """
import sys
from pathlib import Path
sys.path[:] = {path!r}
from npusim.sweeps.blocks import Store
from tests.block_tasks import Squares, total
store = Store.open(Path({folder!r}), Squares(), resume=True)
print("held", flush=True)
sys.stdin.read()
"""


def test_two_sweeps_in_one_folder(tmp_path):
    """The second is told in one line; after kill -9 of the first the folder is free."""
    task = Squares()
    filled(tmp_path, task, part(task.blocks, "1/2"))
    code = HOLD.format(path=[p or str(Path.cwd()) for p in sys.path], folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as holder:  # fmt: skip
        assert holder.stdout.readline() == "held\n"
        for resume in (True, False):
            with pytest.raises(InputError) as error:
                Store.open(tmp_path, task, resume)
            assert str(error.value) == (
                f"{tmp_path / 'blocks'}: another sweep is at work in this folder; wait for it, "
                "or give another -o"
            )
        holder.kill()
        holder.wait()
    Store.open(tmp_path, task, resume=True).close()


# ---------------------------------------------------------------- finishing


def test_a_small_sweep_becomes_one_file(tmp_path):
    task = Squares()
    target = finished(tmp_path, task)
    assert target == tmp_path / "results.parquet" and target.is_file()
    assert list(tmp_path.iterdir()) == [target]
    assert json.loads(pq.read_schema(target).metadata[b"npusim.sweep"]) == task.about
    assert pq.read_table(target).equals(task.whole())


@pytest.mark.parametrize("group", [7, 100, 150, 10_000])
def test_small_blocks_are_put_together(tmp_path, monkeypatch, group):
    monkeypatch.setattr(results, "ROW_GROUP", group)
    file = pq.ParquetFile(finished(tmp_path, Squares()))
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sum(sizes) == 828 and set(sizes[:-1]) <= {group} and sizes[-1] <= group
    assert file.read().equals(Squares().whole())


def test_a_large_sweep_becomes_a_folder(tmp_path, small_files):
    target = finished(tmp_path, Squares())
    assert list(tmp_path.iterdir()) == [target]
    assert [f.name for f in sorted(target.iterdir())] == [f"{i:08d}.parquet" for i in range(8)]


@pytest.mark.parametrize("limit", [500, 1000])
def test_people_can_read_it(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(results, "ONE_FILE", limit)
    target = finished(tmp_path, Squares())
    assert target.is_dir() == (limit < 828)
    whole = Squares().whole().to_pandas()
    pd.testing.assert_frame_equal(pd.read_parquet(target), whole, check_dtype=False)
    pd.testing.assert_frame_equal(
        pd.read_parquet(target, columns=["x"], filters=[("x", ">=", 700.0)]),
        whole.loc[700:, ["x"]].reset_index(drop=True),
    )


@pytest.mark.parametrize("limit", [500, 1000])
def test_duckdb_reads_it(tmp_path, monkeypatch, limit):
    duckdb = pytest.importorskip("duckdb")
    monkeypatch.setattr(results, "ONE_FILE", limit)
    target = finished(tmp_path, Squares())
    files = f"{target}/*.parquet" if target.is_dir() else str(target)
    query = f"select design_id, launch, x, square from read_parquet('{files}') where x >= 820"  # noqa: S608
    with duckdb.connect() as connection:
        rows = connection.execute(query + " order by x").fetchall()
    assert rows == [(f"{i:032x}", "graph", float(i), float(i * i)) for i in range(820, 828)]


@pytest.mark.parametrize("limit", [500, 1000])
def test_polars_reads_it(tmp_path, monkeypatch, limit):
    polars = pytest.importorskip("polars")
    monkeypatch.setattr(results, "ONE_FILE", limit)
    target = finished(tmp_path, Squares())
    assert polars.read_parquet(target).to_arrow().to_pydict() == Squares().whole().to_pydict()
    late = polars.scan_parquet(target).filter(polars.col("x") >= 820).collect()
    assert late["square"].to_list() == [float(i * i) for i in range(820, 828)]


@pytest.mark.parametrize("before", [500, 1000])
@pytest.mark.parametrize("after", [500, 1000])
def test_results_replace_those_of_an_earlier_sweep(tmp_path, monkeypatch, before, after):
    monkeypatch.setattr(results, "ONE_FILE", before)
    finished(tmp_path, Squares(rows=110))
    monkeypatch.setattr(results, "ONE_FILE", after)
    later = Squares(id="f" * 32)
    target = finished(tmp_path, later)
    assert list(tmp_path.iterdir()) == [target] and target.is_dir() == (after < 828)
    assert pq.read_table(target).equals(later.whole())


def test_what_is_not_done_is_not_finished(tmp_path):
    task = Squares()
    with Store.open(tmp_path, task) as store:
        run(task, store, workers=1, blocks=part(task.blocks, "1/2"))
        with pytest.raises(InputError, match="not finished: 4 of 8 blocks are done"):
            store.finish()
    assert not (tmp_path / "results.parquet").exists()


def test_a_block_of_an_orphan_of_another_sweep_does_not_get_in(tmp_path):
    """Written over ours after it was done, as a worker might whose sweep was killed just before."""
    task, other = Squares(), Squares(id="f" * 32)
    filled(tmp_path / "other", other)
    with Store.open(tmp_path / "out", task) as store:
        run(task, store, workers=1)
        file = store.writer.file(4)
        file.write_bytes((tmp_path / "other" / "blocks" / file.name).read_bytes())
        with pytest.raises(InputError, match="not finished: 7 of 8 blocks are done"):
            store.finish()
        run(task, store, workers=1)
        assert pq.read_table(store.finish()).equals(task.whole())


@pytest.mark.parametrize("limit", [500, 1000])
def test_finished_blocks_can_still_be_reduced(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(results, "ONE_FILE", limit)
    task, heard = Squares(), []
    finished(tmp_path, task)
    with Store.open(tmp_path, task, resume=True) as store:
        some = part(task.blocks, "2/3")
        sums = run(task, store, progress=lambda *r: heard.append(r), reduce=total, blocks=some)
    assert sums == [total(block, task.table(block.number)) for block in some]
    assert heard == [(312, 312)]


class Killed(BaseException):
    """What kill -9 does, at a chosen step."""


@pytest.mark.parametrize("limit", [500, 1000])
@pytest.mark.parametrize("earlier", [None, 500, 1000])
@pytest.mark.parametrize("step", range(1, 9))
def test_finishing_can_be_killed_anywhere(tmp_path, monkeypatch, limit, earlier, step):
    """Killed before its nth rename, removal or sync, then resumed: always the full results."""
    if earlier is not None:
        monkeypatch.setattr(results, "ONE_FILE", earlier)
        finished(tmp_path, Squares(2, 400, id="e" * 32))
    monkeypatch.setattr(results, "ONE_FILE", limit)
    task = Squares(2, 400)
    filled(tmp_path, task)
    store = Store.open(tmp_path, task, resume=True)
    calls = 0

    def counted(function):
        def once(*given, **named):
            nonlocal calls
            calls += 1
            if calls >= step:  # a killed process does nothing any more, no clean-up either
                raise Killed
            return function(*given, **named)

        return once

    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "unlink"):
            patch.setattr(Path, name, counted(getattr(Path, name)))
        patch.setattr(results, "keep", counted(results.keep))
        patch.setattr(results, "remove", counted(results.remove))
        with pytest.raises(Killed):
            store.finish()
            raise Killed
    store._lock.close()  # as the system does
    with Store.open(tmp_path, task, resume=True) as store:
        run(task, store, workers=1)
        target = store.finish()
    assert list(tmp_path.iterdir()) == [target]
    assert not target.is_dir() or {f.suffix for f in target.iterdir()} == {".parquet"}
    assert pq.read_table(target).equals(task.whole())


def test_finishing_twice_is_finishing_once(tmp_path):
    task = Squares()
    target = finished(tmp_path, task)
    before = target.stat().st_mtime_ns
    with Store.open(tmp_path, task, resume=True) as store:
        assert store.finished and store.missing() == []
        assert run(task, store, workers=1) == []
        assert store.finish() == target
    assert target.stat().st_mtime_ns == before
    with Store.open(tmp_path, task) as store:  # not told to go on: from the start
        assert not store.finished and len(store.missing()) == 8


# ---------------------------------------------------------------- disks


@pytest.mark.parametrize("where", ["write", "fsync"])
def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch, where):
    task = Squares()
    filled(tmp_path, task, part(task.blocks, "1/2"))
    names = sorted(f.name for f in (tmp_path / "blocks").iterdir())

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Store.open(tmp_path, task, resume=True) as store:
        if where == "fsync":
            monkeypatch.setattr(os, "fsync", full)
        else:
            monkeypatch.setattr(encoding.Head, "encoded", full)
        with pytest.raises(InputError if where == "fsync" else OSError, match="No space left"):
            run(task, store, workers=1)
    assert sorted(f.name for f in (tmp_path / "blocks").iterdir()) == names


def test_a_really_full_disk_is_told_in_one_line(tmp_path):
    """A limit on the size of files stands for a disk that is full in the middle of a block."""
    code = f"""
import resource, signal, sys
from pathlib import Path
sys.path[:] = {[p or str(Path.cwd()) for p in sys.path]!r}
from npusim.errors import InputError
from npusim.sweeps.blocks import Store
from npusim.sweeps.engines import run
from tests.block_tasks import Squares, total
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
task = Squares(rows=5000)
try:
    with Store.open(Path({str(tmp_path)!r}), task) as store:
        run(task, store, workers=1)
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("00000000.parquet: cannot be written: File too large; "
                                        "what is done is kept, go on with --resume")  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        Store.open(tmp_path / "file", Squares())


# ---------------------------------------------------------------- parts


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 8])
def test_parts_are_the_whole_and_share_nothing(parts):
    blocks = Squares().blocks
    dealt = [part(blocks, f"{i + 1}/{parts}") for i in range(parts)]
    assert sorted((b for one in dealt for b in one), key=lambda b: b.number) == blocks
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


@pytest.mark.parametrize(
    ("text", "told"),
    [("0/3", "no such part"), ("4/3", "no such part"), ("1/0", "no such part"),
     ("2", "not a part"), ("a/b", "not a part"), ("1/2/3", "not a part"), ("-1/3", "not a part"),
     ("", "not a part"), ("1/9", r"more parts than the sweep has blocks.*up to 8"),
     ("1/99999999999999", "not a part"), ("\u0661/2", "not a part")],
)  # fmt: skip
def test_wrong_parts_are_told(text, told):
    with pytest.raises(InputError, match=f"--part: {told}"):
        part(Squares().blocks, text)
