import json
import os

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim import catalog
from npusim.arch import Designs
from npusim.atomic import whole_file
from npusim.errors import InputError
from npusim.graph import from_networkx, to_networkx
from npusim.load import load_arch, load_workload
from npusim.models.kernel import kernel_time
from npusim.workload import COLUMNS, COST_COLUMNS, LABELS, Steps, Workload, stream_order
from npusim.workload_file import load_workload as read_workload
from npusim.workload_file import save_workload
from tests.builder import workload

SHIPPED = catalog.names("workloads")
KEY = b"npusim.workload"


@pytest.fixture
def small():
    """Two steps on two streams: a product waits for a copy on the other stream."""
    gemv = {"kind": "gemv", "dtype": "bf16", "batch": 1, "m": 1, "n": 2048, "k": 1024,
            "flop": 2.0 * 2048 * 1024, "read_weight": 2.0 * 2048 * 1024,
            "kernel": "nvjet"}  # fmt: skip
    rows = [
        gemv | {"duration_s": 4e-6, "host_s": 1e-5},
        {"kind": "memcpy", "stream": 9, "duration_s": 1e-6, "read_activation": 8.0},
        gemv | {"duration_s": 5e-6, "sync": True, "presync_s": 2e-6},
        gemv | {"duration_s": 6e-6, "step": 1, "layer": 3},
    ]
    edges = (np.array([0, 0, 0, 2, 2]), np.array([0, 1]))
    return workload(*rows, wall=(1e-3, 2e-3), tail=(1e-5, 0.0), edges=edges)


def parts(w):
    """What the constructor takes, as plain data to break."""
    return {
        "name": w.name,
        "columns": {c: v.copy() for c, v in w.columns.items()},
        "labels": {c: list(v) for c, v in w.labels.items()},
        "steps": w.steps,
        "edges": tuple(e.copy() for e in w.edges),
        "meta": dict(w.meta),
    }


def same(a, b):
    assert a.id == b.id
    assert a.name == b.name
    assert dict(a.meta) == dict(b.meta)
    for c in COLUMNS:
        assert (a[c] == b[c]).all()
        assert a[c].dtype == b[c].dtype
    for c in LABELS:
        assert a.text(c).tolist() == b.text(c).tolist()
    assert a.steps.wall_s.tolist() == b.steps.wall_s.tolist()
    assert a.steps.tail_s.tolist() == b.steps.tail_s.tolist()
    for x, y in zip(a.edges, b.edges, strict=True):
        assert x.tolist() == y.tolist()


# ---------------------------------------------------------------- what a workload may hold


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("duration_s", np.nan, ["row 2, duration_s", "nan", "a number of s from 0"]),
        ("duration_s", -1e-6, ["row 2, duration_s", "-1e-06"]),
        ("duration_s", np.inf, ["row 2, duration_s", "inf"]),
        ("flop", np.nan, ["row 2, flop", "FLOP"]),
        ("read_kv", -1.0, ["row 2, read_kv", "number of B"]),
        ("m", -1, ["row 2, m", "whole number from 0"]),
        ("m", 1.5, ["row 2, m", "1.5"]),
        ("layer", -2, ["row 2, layer", "whole number from -1"]),
        ("kind", 7, ["row 2, kind", "0 to 1"]),
        ("kernel", -1, ["row 2, kernel", "0 to 1"]),
        ("sync", 2, ["row 2, sync", "true or false"]),
    ],
)
def test_a_wrong_number_names_its_row(small, column, value, words):
    p = parts(small)
    changed = p["columns"][column].astype(float)
    changed[2] = value
    p["columns"][column] = changed
    with pytest.raises(InputError) as error:
        Workload(**p)
    for word in ("made", *words):
        assert word in str(error.value)


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_is_needed(small, column):
    p = parts(small)
    del p["columns"][column]
    with pytest.raises(InputError, match=f"{column}: column is missing"):
        Workload(**p)
    p = parts(small)
    p["columns"][column] = p["columns"][column][:-1]
    with pytest.raises(InputError, match="differ in length"):
        Workload(**p)
    p["columns"][column] = np.array(["a"] * len(small))
    with pytest.raises(InputError, match=f"row 0, {column}"):
        Workload(**p)
    p["columns"][column] = small[column].reshape(2, 2)
    with pytest.raises(InputError, match="one-dimensional"):
        Workload(**p)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"edges": (np.array([0, 1, 1, 1, 1]), np.array([2]))}, "not before it"),  # forward
        ({"edges": (np.array([0, 0, 1, 1, 1]), np.array([1]))}, "not before it"),  # on itself
        ({"edges": (np.array([0, 0, 1, 1, 1]), np.array([-1]))}, "not before it"),
        ({"edges": (np.array([0, 0, 1, 1]), np.array([0]))}, "CSR"),
        ({"edges": (np.array([0, 0, 1, 0, 1]), np.array([0]))}, "CSR"),
        ({"edges": (np.array([1, 1, 1, 1, 1]), np.array([0]))}, "CSR"),
        ({"edges": (np.array([0, 0, 1, 1, 2]), np.array([0]))}, "CSR"),
        ({"steps": Steps(np.array([1.0]), np.array([0.0]))}, "a step that is not listed"),
        ({"steps": Steps(np.array([1.0, 1.0]), np.array([0.0]))}, "a step that is not listed"),
        ({"steps": Steps(np.array([1.0, np.nan]), np.zeros(2))}, "wall_s: not a duration"),
        ({"steps": Steps(np.ones(2), np.array([0.0, -1.0]))}, "tail_s: not a duration"),
        ({"steps": Steps(np.ones((2, 1)), np.zeros(2))}, "wall_s: not a duration"),
    ],
)
def test_broken_dependencies_and_steps(small, change, words):
    with pytest.raises(InputError, match=words):
        Workload(**{**parts(small), **change})


def test_steps_are_in_order_and_kinds_are_known(small):
    p = parts(small)
    p["columns"]["step"] = np.array([0, 1, 0, 1])
    with pytest.raises(InputError, match="not in order of their steps"):
        Workload(**p)
    p = parts(small)
    p["labels"]["kind"][0] = "sorcery"
    with pytest.raises(InputError, match=r"unknown kind: 'sorcery' \(allowed: gemv, gemm"):
        Workload(**p)
    p = parts(small)
    p["columns"] = {c: v[:0] for c, v in p["columns"].items()}
    with pytest.raises(InputError, match="no device operations"):
        Workload(**{**p, "edges": None})


def test_a_workload_cannot_be_changed(small):
    with pytest.raises(ValueError, match="read-only"):
        small["flop"][0] = 1.0
    with pytest.raises(TypeError):
        small.columns["flop"] = np.zeros(4)


def test_sums_by_hand(small):
    weight = 2 * 2048 * 1024
    assert small.bytes_moved.tolist() == [weight, 8, weight, weight]
    assert small.mask("kind", "gemv").tolist() == [True, False, True, True]
    assert small.classified_busy_share == 1
    p = parts(small)
    p["labels"]["kind"] = ["gemv", "unknown"]
    assert Workload(**p).classified_busy_share == pytest.approx(15 / 16)  # 4, 1, 5 and 6 us


@pytest.mark.parametrize("what", [*COLUMNS, "labels", "wall", "edges"])
def test_the_id_depends_on_everything(small, what):
    p = parts(small)
    if what == "wall":
        p["steps"] = Steps(small.steps.wall_s * 2, small.steps.tail_s)
    elif what == "edges":
        p["edges"] = None
    elif what == "labels":
        p["labels"]["kernel"][0] += "x"
    elif what in LABELS:
        other = {"basis": "launch", "origin": "generated"}.get(what, "cast")
        p["labels"][what] = [*p["labels"][what], other]
        p["columns"][what][0] = len(p["labels"][what]) - 1
    elif what == "step":
        p["columns"][what][2] = 1
    else:
        p["columns"][what][0] = not p["columns"][what][0] if what == "sync" else 12
    assert Workload(**p).id != small.id
    assert Workload(**parts(small)).id == small.id


# ---------------------------------------------------------------- stream order, distinct costs


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=30).map(
        lambda rows: sorted(rows, key=lambda r: r[1])
    )
)
def test_each_operation_waits_for_the_one_before_it_on_its_stream(rows):
    stream, step = (np.array([r[i] for r in rows], dtype=np.int64) for i in (0, 1))
    indptr, indices = stream_order(stream, step)
    assert len(indptr) == len(rows) + 1
    for i, row in enumerate(rows):
        before = [j for j in range(i) if rows[j] == row]
        assert indices[indptr[i] : indptr[i + 1]].tolist() == before[-1:]


@pytest.mark.parametrize("name", ["paddleocr_vl_decode", "deepseek_ocr_decode_grouped_b16"])
@pytest.mark.parametrize("machine", ["h200", "metax_c500"])
def test_distinct_operations_cost_what_all_of_them_cost(name, machine):
    w = load_workload(name)
    rows, inverse = w.unique()
    for c in COST_COLUMNS:
        assert (w[c][rows][inverse] == w[c]).all()
    windows = w.reuse.signature()
    assert (windows[rows][inverse] == windows).all()
    told = {(*(w[c][i] for c in COST_COLUMNS), *windows[i]) for i in rows}
    assert len(told) == len(rows)
    assert len(rows) < len(w) / 10
    designs = Designs(load_arch(machine), {"memories.dram.bandwidth": np.array([1e12, 4e12])})
    each = kernel_time(w.operations(), designs)
    assert (kernel_time(w.operations(rows), designs)[inverse] == each).all()


@given(st.lists(st.tuples(st.sampled_from(["gemm", "cast"]), st.integers(0, 2)), min_size=1))
def test_distinct_is_by_cost_alone(rows):
    w = workload(*({"kind": k, "m": m, "duration_s": i} for i, (k, m) in enumerate(rows)))
    found, inverse = w.unique()
    assert len(found) == len(set(rows))
    assert [rows[found[j]] for j in inverse] == rows


# ---------------------------------------------------------------- to a graph and back


def test_a_graph_and_back(small):
    graph = to_networkx(small)
    assert sorted(graph.edges) == [(0, 2), (1, 2)]
    assert graph.nodes[0]["kind"] == "gemv"
    assert graph.nodes[1]["read_activation"] == 8
    assert nx.is_directed_acyclic_graph(graph)
    same(from_networkx(graph), small)


@pytest.mark.parametrize("name", ["paddleocr_vl_decode", "deepseek_ocr_vision"])
def test_a_shipped_workload_to_a_graph_and_back(name):
    w = load_workload(name)
    same(from_networkx(to_networkx(w)), w)


def test_a_graph_with_a_new_kernel_comes_back_in_order(small):
    graph = to_networkx(small)
    graph.add_node(10, **{**graph.nodes[1], "kernel": "prefetch", "step": 0})
    graph.add_edges_from([(1, 10), (10, 2)])
    w = from_networkx(graph)
    assert w.text("kernel").tolist() == ["nvjet", "k", "prefetch", "nvjet", "nvjet"]
    indptr, indices = w.edges
    assert indices[indptr[3] : indptr[4]].tolist() == [0, 1, 2]
    assert w["step"].tolist() == [0, 0, 0, 0, 1]


def test_graphs_that_are_no_workloads(small):
    graph = to_networkx(small)
    graph.add_edge(2, 0)
    with pytest.raises(InputError, match="made: dependencies form a cycle"):
        from_networkx(graph)
    graph = to_networkx(small)
    del graph.nodes[1]["flop"]
    with pytest.raises(InputError, match="made: node 1: node lacks an attribute: 'flop'"):
        from_networkx(graph)
    graph = to_networkx(small)
    del graph.graph["wall_s"]
    with pytest.raises(InputError, match="graph lacks an attribute: 'wall_s'"):
        from_networkx(graph)
    graph = to_networkx(small)
    graph.add_edge(3, 0)  # a step that waits for a later one
    with pytest.raises(InputError, match="not in order of their steps"):
        from_networkx(graph)
    graph = to_networkx(small)
    graph.nodes[1]["duration_s"] = float("nan")
    with pytest.raises(InputError, match="row 1, duration_s"):
        from_networkx(graph)


# ---------------------------------------------------------------- files


def test_saved_and_loaded_is_the_same(small, tmp_path):
    file = tmp_path / "deep" / "er" / "made.parquet"
    save_workload(small, file)
    same(read_workload(file), small)
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_workload_saved_and_loaded_is_the_same(name, tmp_path):
    w = load_workload(name)
    assert w.classified_busy_share >= 0.97
    assert w.name == name
    if len(w) < 10_000:
        save_workload(w, tmp_path / "again.parquet")
        same(read_workload(tmp_path / "again.parquet"), w)


@pytest.fixture
def stored(small, tmp_path):
    """A stored workload as a table and its description; and a way to store a changed one."""
    file = tmp_path / "made.parquet"
    save_workload(small, file)
    table = pq.read_table(file)

    def refused(changed=table, about=None, raw=None):
        found = raw or json.dumps({**json.loads(table.schema.metadata[KEY]), **(about or {})})
        found = found if isinstance(found, bytes) else found.encode()
        pq.write_table(changed.replace_schema_metadata({KEY: found}), file)
        with pytest.raises(InputError) as error:
            read_workload(file)
        message = str(error.value)
        assert message.startswith(f"{file}: ")
        assert "\n" not in message
        return message

    return table, refused


@pytest.mark.parametrize(
    "raw", [b"{", b"\xff\xfe", b"[1]", b"5", b"null", b"{}", b'{"a":' * 100_000, b'{"schema": 1}']
)
def test_a_damaged_description(stored, raw):
    assert "workload" in stored[1](raw=raw)


@pytest.mark.parametrize("key", ["wall_s", "tail_s"])
@pytest.mark.parametrize(
    "value",
    [None, 5, "x", [], [1], [1, "x"], [[1], [2]], [1, -2], [1, None], [1, float("nan")], {}],
)
def test_damaged_step_times(stored, key, value):
    assert stored[1](about={key: value})


def test_another_version_says_what_to_do(stored):
    assert "import the trace again" in stored[1](about={"schema": 99})
    assert stored[1](about={"meta": 5})


ODD_COLUMNS = [
    pa.nulls(4),
    pa.array([None, 1.0, 2.0, 3.0]),
    pa.array([[1]] * 4),
    pa.array([{"a": 1}] * 4),
    pa.array([b"\xff"] * 4),
    pa.array([-1] * 4),
    pa.array([float("nan")] * 4),
    pa.array([2**64 - 1] * 4, pa.uint64()),
    pa.array([1] * 4, pa.timestamp("s")),
    pa.array([[None]] * 4, pa.list_(pa.int64())),
    pa.array([["a"]] * 4),
    pa.array([[50]] * 4),
]


def _is_odd(column, values):
    """Numbers name a kernel too, and a duration may be long."""
    whole = pa.types.is_primitive(values.type) and not values.null_count
    return not (
        whole and (column == "kernel" or (column, values.type) == ("duration_s", pa.uint64()))
    )


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (column, values)
        for column in ("duration_s", "m", "sync", "kind", "kernel", "waits_for")
        for values in ODD_COLUMNS
        if _is_odd(column, values)
    ],
)
def test_a_column_of_something_else(stored, column, values):
    table, refused = stored
    message = refused(table.set_column(table.column_names.index(column), column, values))
    assert column in message or "not a workload" in message or "dependenc" in message or (
        column == "kind" and "unknown kind" in message
    ) or "depends" in message  # fmt: skip


@pytest.mark.parametrize("column", [*COLUMNS, "waits_for"])
def test_a_column_is_gone(stored, column):
    table, refused = stored
    assert column in refused(table.drop_columns([column]))


def test_rows_are_gone(stored):
    table, refused = stored
    assert "no device operations" in refused(table.slice(0, 0))
    assert "not before it" in refused(table.slice(2))


def test_another_parquet_file(tmp_path):
    file = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), file)
    with pytest.raises(InputError, match="Parquet, but not a workload; make one with"):
        read_workload(file)


def test_a_damaged_file_never_crashes(small, tmp_path):
    file = tmp_path / "made.parquet"
    save_workload(small, file)
    whole = file.read_bytes()
    damaged = [whole[: len(whole) * i // 20] for i in range(20)]
    damaged += [b"", b"PAR1", b"PAR1" + bytes(8) + b"PAR1", np.random.default_rng(1).bytes(5000)]
    for content in damaged:
        file.write_bytes(content)
        with pytest.raises(InputError) as error:
            read_workload(file)
        assert str(error.value).startswith(f"{file}: ")
        assert "\n" not in str(error.value)


@settings(max_examples=150)
@given(at=st.floats(0, 1), new=st.binary(min_size=1, max_size=8), drop=st.integers(0, 20))
def test_changed_bytes_are_refused_or_read(tmp_path_factory, at, new, drop):
    file = tmp_path_factory.getbasetemp() / "changed.parquet"
    whole = catalog.find("workloads", "paddleocr_vl_prefill").read_bytes()
    place = int(at * (len(whole) - 1))
    file.write_bytes(whole[:place] + new + whole[place + drop :])
    try:
        w = read_workload(file)
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert np.isfinite(w["duration_s"]).all()


# ---------------------------------------------------------------- whole files


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_only_a_plain_file_is_replaced(tmp_path, make):
    target = tmp_path / "there"
    make(target)
    with pytest.raises(InputError, match="cannot be written: "), whole_file(target):
        pass
    assert target.is_fifo() or target.is_dir()
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_appears_whole(tmp_path):
    target = tmp_path / "new" / "file.txt"
    with whole_file(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.suffix == ".txt"
        temporary.write_text("all")
    assert target.read_text() == "all"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_what_was_there(tmp_path, error):
    target = tmp_path / "file.txt"
    for before in ([], [target]):
        with pytest.raises(error), whole_file(target) as temporary:
            temporary.write_text("half")
            raise error
        assert list(tmp_path.iterdir()) == before
        if before:
            assert target.read_text() == "old"
        target.write_text("old")


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    for target in (tmp_path / "file" / "below", tmp_path / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match="cannot be written"), whole_file(target) as temporary:
            temporary.write_text("new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "x"
    with pytest.raises(InputError, match="cannot be written"), whole_file(tmp_path / "full"):
        raise OSError(28, "No space left on device")
    assert not (tmp_path / "full").exists()
