"""Merging: every design once, never two answers, parts of a sweep become the sweep."""

import json
import shutil
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.commands.merge import merge as command
from npusim.errors import InputError
from npusim.sweeps import merge as module
from npusim.sweeps import results
from npusim.sweeps.blocks import Store
from npusim.sweeps.engines import run
from npusim.sweeps.merge import merge
from npusim.sweeps.task import Block, part
from tests.block_tasks import Squares
from tests.test_engines import contents


@dataclass(frozen=True)
class Given:
    """A sweep whose rows are given, in blocks of so many."""

    rows: pa.Table
    id: str
    name: str = "given"
    model: str = "1"
    size: int = 10
    extra: dict = field(default_factory=dict)

    @property
    def about(self):
        return {"name": self.name, "workloads": ["w"], "axes": {},
                "made_by": {"command": f"npusim sweep {self.name}", "model": self.model,
                            "arch": {"name": "a", "id": "1"}}, **self.extra}  # fmt: skip

    @property
    def blocks(self):
        count = -(-self.rows.num_rows // self.size)
        return [Block(i, self.table(i).num_rows) for i in range(count)]

    def table(self, number):
        return self.rows.slice(number * self.size, self.size).combine_chunks()


def designs(numbers, **columns):
    numbers = np.asarray(list(numbers))
    ids = [f"{n * 0x9E3779B97F4A7C15 % 2**128:032x}" for n in numbers.tolist()]
    plain = {"x": numbers.astype(float), "wall_s": np.sqrt(numbers)}
    return pa.table({"design_id": pa.array(ids, pa.string()), **(columns or plain)})


_COUNT = iter(range(10**9))


def swept(folder, rows, only=None, finish=True, **how):
    task = Given(rows, how.pop("id", f"{next(_COUNT):032x}"), **how)
    with Store.open(folder, task, resume=True) as store:
        run(task, store, workers=1, blocks=only and part(task.blocks, only))
        if finish:
            store.finish()
    return folder


def merged(folder):
    return pq.read_table(folder / "results.parquet")


# ---------------------------------------------------------------- parts of one sweep


@pytest.mark.parametrize("limit", [500, 1000])
def test_parts_of_two_machines_become_the_sweep(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(results, "ONE_FILE", limit)
    task = Squares()
    for i in (1, 2):
        with Store.open(tmp_path / str(i), task) as store:
            run(task, store, workers=1, blocks=part(task.blocks, f"{i}/2"))
    done = merge([tmp_path / "1", tmp_path / "2" / "blocks"], tmp_path / "out")
    assert (done.path, done.rows, done.missing) == (tmp_path / "out" / "results.parquet", 828, [])
    assert done.path.is_dir() == (limit < 828)
    assert merged(tmp_path / "out").equals(task.whole())
    assert list((tmp_path / "out").iterdir()) == [done.path]
    with Store.open(tmp_path / "out", task, resume=True) as store:
        assert store.finished
    with Store.open(tmp_path / "1", task, resume=True) as store:  # inputs stay as they were
        assert store.done == {0, 2, 4, 6}


def test_missing_parts_are_told_and_can_be_done(tmp_path):
    task = Squares()
    for i in (1, 3):
        with Store.open(tmp_path / str(i), task) as store:
            run(task, store, workers=1, blocks=part(task.blocks, f"{i}/3"))
    done = merge([tmp_path / "1", tmp_path / "3"], tmp_path / "out")
    assert done.path == tmp_path / "out" / "blocks" and done.missing == [1, 4, 7]
    assert (
        done.rows == 828 - 101 - 104 - 107 and not (tmp_path / "out" / "results.parquet").exists()
    )
    with Store.open(tmp_path / "out", task, resume=True) as store:
        run(task, store, workers=1)
        with Store.open(tmp_path / "whole", task) as whole:
            run(task, whole, workers=1)
            assert contents(tmp_path / "out") == contents(tmp_path / "whole")
        store.finish()
    assert merged(tmp_path / "out").equals(task.whole())


def test_a_block_that_both_have_is_there_once(tmp_path):
    task = Squares()
    for i, which in enumerate(("1/1", "2/2")):
        with Store.open(tmp_path / str(i), task) as store:
            run(task, store, workers=1, blocks=part(task.blocks, which))
    (tmp_path / "0" / "blocks" / "00000005.parquet").write_bytes(b"damaged")
    done = merge([tmp_path / "0", tmp_path / "1"], tmp_path / "out")
    assert done.duplicates == 101 + 103 + 107 and not done.missing
    assert merged(tmp_path / "out").equals(task.whole())


@pytest.mark.parametrize(("factor", "fits"), [(1 + 5e-10, True), (1 + 2e-9, False)])
def test_one_block_with_two_answers_is_refused(tmp_path, factor, fits):
    rows = designs(range(1, 41))
    other = rows.set_column(2, "wall_s", [pa.array(rows["wall_s"].to_numpy() * factor)])
    for name, table in (("a", rows), ("b", other)):
        swept(tmp_path / name, table, finish=False, id="c" * 32)
    if fits:
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
        assert merged(tmp_path / "out").equals(rows)
        return
    with pytest.raises(InputError) as error:
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    told = str(error.value)
    assert "wall_s: two answers for one design: " in told and rows["design_id"][0].as_py() in told
    assert all(str(tmp_path / n / "blocks" / "00000000.parquet") in told for n in "ab")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- rows of several sweeps


@pytest.mark.parametrize("limit", [15, 1000])
def test_designs_of_overlapping_sweeps_are_there_once(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(results, "ONE_FILE", limit)
    monkeypatch.setattr(results, "ROW_GROUP", 7)
    swept(tmp_path / "a", designs(range(25)))
    swept(tmp_path / "b", designs(range(40, 12, -1)))
    swept(tmp_path / "c", designs([5, 50, 5, 30]), finish=False)
    done = merge([tmp_path / n for n in "abc"], tmp_path / "out")
    expected = [*range(25), *range(40, 24, -1), 50]
    assert merged(tmp_path / "out").equals(designs(expected))
    assert (done.rows, done.duplicates) == (len(expected), 25 + 28 + 4 - len(expected))
    assert done.path.is_dir() == (limit == 15)


@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=30), min_size=1, max_size=4),
       st.integers(1, 9))  # fmt: skip
@settings(max_examples=20)
def test_any_overlap(tmp_path, lists, group):
    """The union in the order of first appearance, whatever is where."""
    results_group, results.ROW_GROUP = results.ROW_GROUP, group
    try:
        for i, numbers in enumerate(lists):
            swept(tmp_path / str(i), designs(numbers))
        merge([tmp_path / str(i) for i in range(len(lists))], tmp_path / "out")
        union = dict.fromkeys(number for numbers in lists for number in numbers)
        assert merged(tmp_path / "out").equals(designs(union))
    finally:
        results.ROW_GROUP = results_group
        for path in tmp_path.iterdir():
            shutil.rmtree(path)


@pytest.mark.parametrize("first", ["a", "b"])
def test_two_answers_are_refused(tmp_path, first):
    rows = designs(range(20))
    wall = rows["wall_s"].to_numpy().copy()
    wall[13] *= 1 + 1e-8
    swept(tmp_path / "a", rows)
    swept(tmp_path / "b", rows.set_column(2, "wall_s", [wall]).slice(10))
    order = [tmp_path / first, tmp_path / ("b" if first == "a" else "a")]
    with pytest.raises(InputError) as error:
        merge(order, tmp_path / "out")
    files = ", ".join(str(path / "results.parquet") for path in order)
    assert str(error.value) == (
        f"{files}: wall_s: two answers for one design: '{rows['design_id'][13].as_py()}'; "
        "sweep again with one version"
    )
    assert not (tmp_path / "out" / "results.parquet").exists()


@pytest.mark.parametrize(
    ("a", "b", "fits"),
    [(1.0, 1.0 + 5e-10, True), (1.0, 1.0 + 2e-9, False), (0.0, 1e-300, False), (0.0, -0.0, True),
     (np.nan, np.nan, True), (np.nan, 1.0, False), (np.inf, np.inf, True), (np.inf, -np.inf, False),
     (np.inf, 1.7e308, False), (1.7e308, -1.7e308, False), (None, 1.0, True), (1.0, None, True),
     (-1.0, 1.0, False), (1e-12, 1.0000001e-12, False), ("a", "a", True), ("a", "b", False),
     (None, "b", True), (True, True, True), (True, False, False), (3, 3, True), (3, 4, False)],
)  # fmt: skip
def test_what_is_the_same_answer(tmp_path, a, b, fits):
    for name, value in (("a", a), ("b", b)):
        swept(tmp_path / name, designs([1, 2], y=pa.array([value, value], from_pandas=False)))
    if not fits:
        with pytest.raises(InputError, match="y: two answers"):
            merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
        return
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    found = merged(tmp_path / "out")["y"].to_pylist()
    wanted = b if a is None else a
    assert found == [wanted] * 2 or np.isnan([wanted, *found]).all()


def test_a_column_of_nothing_gives_no_answer(tmp_path):
    for name in ("a", "b"):
        swept(tmp_path / name, designs([1, 2], y=pa.nulls(2)))
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert merged(tmp_path / "out")["y"].to_pylist() == [None, None]


def test_a_column_that_no_sweep_writes_is_refused_and_nothing_is_left(tmp_path):
    for name in ("a", "b"):
        swept(tmp_path / name, designs([1, 2], y=pa.array([[1], [2]])))
    with pytest.raises(InputError, match="y: neither numbers nor text: 'list<"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_columns_are_joined(tmp_path):
    swept(tmp_path / "a", designs([1, 2], x=[1.0, 2.0], n=[7, 8]))
    swept(tmp_path / "b", designs([3, 2], x=[3.0, 2.0], y=["c", "b"], n=[0.5, 8.0]))
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert merged(tmp_path / "out").drop_columns("design_id").to_pydict() == {
        "x": [1.0, 2.0, 3.0], "n": [7.0, 8.0, 0.5], "y": [None, "b", "c"]}  # fmt: skip
    merge([tmp_path / "out", tmp_path / "b", tmp_path / "a"], tmp_path / "again")
    assert merged(tmp_path / "again").equals(merged(tmp_path / "out"))


def test_columns_that_do_not_fit_are_refused(tmp_path):
    swept(tmp_path / "a", designs([1], x=[1.0]))
    swept(tmp_path / "b", designs([2], x=["one"]))
    with pytest.raises(InputError, match=r"column 'x' is double in .* and string here"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


def test_rows_say_which_sweep_they_are_of(tmp_path):
    """Only where there are several: other names, or one name and another description."""
    swept(tmp_path / "a", designs([1, 2]))
    swept(tmp_path / "b", designs([2, 3]))
    swept(tmp_path / "c", designs([3, 4]), name="other")
    swept(tmp_path / "d", designs([5]), extra={"workloads": ["v"]})
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "ab")
    assert "sweep" not in merged(tmp_path / "ab").schema.names
    merge([tmp_path / "ab", tmp_path / "c", tmp_path / "d"], tmp_path / "out")
    assert merged(tmp_path / "out")["sweep"].to_pylist() == [
        "given", "given", "given", "other", "given (2)"]  # fmt: skip
    about = json.loads(
        pq.read_schema(tmp_path / "out" / "results.parquet").metadata[b"npusim.sweep"]
    )
    assert about["name"] == "given + other" and about["workloads"] == ["w", "v"]
    assert [one["name"] for one in about["merged"]] == ["given", "other", "given"]
    assert about["made_by"]["arch"] == {"name": "a", "id": "1"}


def test_models_are_not_mixed_unless_asked(tmp_path):
    swept(tmp_path / "a", designs([1, 2]))
    swept(tmp_path / "b", designs([3]), model="2")
    with pytest.raises(InputError) as error:
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert str(error.value) == (
        f"made by different models ({tmp_path / 'a'}: 1, {tmp_path / 'b'}: 2); "
        "sweep again, or --any-model"
    )
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out", any_model=True)
    assert merged(tmp_path / "out").num_rows == 3


def test_few_row_groups_are_held(tmp_path, monkeypatch):
    """A hundred row groups in the opposite order: no more than a few are in memory at a time."""
    monkeypatch.setattr(results, "ROW_GROUP", 10)
    swept(tmp_path / "a", designs(range(1000)))
    swept(tmp_path / "b", designs(range(999, -1, -1)))
    held = []
    taken = module._Rows.take

    def take(self, *given):
        found = taken(self, *given)
        held.append(len(self._held))
        return found

    monkeypatch.setattr(module._Rows, "take", take)
    assert merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out").duplicates == 1000
    assert max(held) <= 4 and merged(tmp_path / "out").equals(designs(range(1000)))


# ---------------------------------------------------------------- what is refused


def test_what_is_no_result_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("no")
    pq.write_table(designs([1]), tmp_path / "plain.parquet")
    swept(tmp_path / "good", designs([1]))
    swept(tmp_path / "bad", pa.table({"design_id": ["abc"], "x": [1.0]}))
    swept(tmp_path / "without", pa.table({"x": [1.0]}))
    swept(tmp_path / "both", designs([1]))
    swept(tmp_path / "other", designs([1]), finish=False)
    shutil.move(tmp_path / "other" / "blocks", tmp_path / "both" / "blocks")
    for name, told in {
        "nothing": "no results there", "empty": "no results there",
        "text.parquet": "not the results of a sweep",
        "plain.parquet": "Parquet, but not the results of a sweep",
        "bad": "design_id: an id has not 32 digits", "without": "design_id: results without ids",
        "both": "holds results and an unfinished sweep; name results.parquet or blocks in it",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=told) as error:
            merge([tmp_path / "good", tmp_path / name], tmp_path / "out")
        assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)
    merge([tmp_path / "both" / "results.parquet", tmp_path / "both" / "blocks"], tmp_path / "out")
    assert merged(tmp_path / "out").equals(designs([1]))


def test_results_are_not_overwritten(tmp_path):
    swept(tmp_path / "a", designs([1]))
    swept(tmp_path / "b", designs([2]))
    swept(tmp_path / "c", designs([3]), finish=False)
    for output in "ac":
        with pytest.raises(InputError, match="--output: holds results already"):
            merge([tmp_path / "a", tmp_path / "b"], tmp_path / output)


# ---------------------------------------------------------------- the command


def test_the_command(tmp_path):
    swept(tmp_path / "a", designs([1, 2]))
    swept(tmp_path / "b", designs([2, 3]))
    paths = [str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(command, paths)
    assert done.output == (
        f"3 designs, 1 duplicate dropped: {tmp_path / 'out' / 'results.parquet'}\n"
    )
    shutil.rmtree(tmp_path / "out")
    content = json.loads(CliRunner().invoke(command, [*paths, "--json"]).output)
    assert content["rows"] == 3 and content["duplicates"] == 1 and content["finished"]
    assert [one["name"] for one in content["inputs"]] == ["given", "given"]


def test_the_command_says_what_is_missing(tmp_path):
    swept(tmp_path / "a", designs(range(30)), only="1/3", finish=False)
    paths = [str(tmp_path / "a"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(command, paths)
    assert done.output == (
        f"10 designs: {tmp_path / 'out' / 'blocks'}\n"
        "unfinished: 2 blocks missing (1, 2); go on with sweep --resume\n"
    )
    shutil.rmtree(tmp_path / "out")
    content = json.loads(CliRunner().invoke(command, [*paths, "--json"]).output)
    assert content["missing_blocks"] == [1, 2] and not content["finished"]
    assert content["inputs"][0]["blocks"] == 1 and content["inputs"][0]["of"] == 3
