"""Measured operations: tables, experiments and traces, on figures worked out by hand."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim import measured
from npusim.arch import Designs
from npusim.errors import InputError, NpusimError
from npusim.holdout import anchor, split
from npusim.measured import period, shapes
from npusim.measured.data import LAUNCHES
from npusim.workload import BYTES, COST_COLUMNS, COST_LABELS
from tests.builder import timed, workload
from tests.machines import distance

AXES = Path(__file__).parent.parent / "workloads/experiments/h200_axes.json"
HEADER = [
    "op", "dtype", "latency_us", "m", "n", "k", "batch", "heads", "kv_heads", "head_dim",
    "context", "sequence", "causal", "name", "elements", "bytes_read", "bytes_written",
    "weight_copies", "units", "launch",
]  # fmt: skip
LINEAR = {"op": "linear", "dtype": "bf16", "latency_us": 3, "m": 1, "n": 256, "k": 512}
DECODE = {"op": "decode_attention", "dtype": "bfloat16", "latency_us": 9, "batch": 2, "heads": 8,
          "kv_heads": 2, "head_dim": 64, "context": 100}  # fmt: skip


def table(folder, *rows, header=HEADER, end="\n"):
    lines = [",".join(header), *(",".join(str(r.get(c, "")) for c in header) for r in rows)]
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + end)
    return path


def read(folder, *rows, **more):
    return measured.read_table(table(folder, *rows, **more))


def test_a_linear_layer_by_hand(tmp_path):
    m = read(tmp_path, {**LINEAR, "weight_copies": 6}, {**LINEAR, "m": 3, "launch": "Eager",
                                                        "units": 40})  # fmt: skip
    o = m.operations
    assert m.seconds.tolist() == [3e-6, 3e-6]
    assert m.row.tolist() == [2, 3]
    assert m.launch.tolist() == ["graph", "eager"]
    assert math.isnan(m.units[0]) and m.units[1] == 40
    assert o.kind.tolist() == ["gemv", "gemm"]
    assert o["flop"].tolist() == [2 * 256 * 512, 3 * 2 * 256 * 512]
    assert o["read_weight"].tolist() == [262144, 262144]
    assert o["read_activation"].tolist() == [1024, 3072]
    assert o["write_activation"].tolist() == [512, 1536]
    # six weights in turn, and the input and the result that stay
    assert distance(o, "weight").tolist() == [6 * 262144 + 1536, math.inf]
    assert distance(o, "activation").tolist() == [262144 + 1536, 262144 + 4608]
    assert not m.notes


def test_attention_by_hand(tmp_path):
    prefill = {**DECODE, "op": "prefill_attention", "sequence": 3, "causal": "true", "kv_heads": 8}
    m = read(tmp_path, {**DECODE, "weight_copies": 1}, DECODE, prefill, {**prefill, "causal": 0})
    o = m.operations
    assert o.kind.tolist() == ["attention"] * 4
    assert [o[c].tolist() for c in ("m", "n", "k")] == [[1, 1, 3, 3], [100, 100, 3, 3], [64] * 4]
    assert o["read_kv"].tolist() == [2 * 2 * 2 * 100 * 64 * 2] * 2 + [0, 0]
    assert distance(o, "kv").tolist()[:2] == [102400 + 2 * 2048, math.inf]
    # 3 queries see 1, 2 and 3 keys if causal, else 3 each; 4 FLOP a pair and element
    assert o["flop"].tolist()[2:] == [4 * 2 * 8 * 64 * 6, 4 * 2 * 8 * 64 * 9]
    assert o["read_activation"].tolist()[2:] == [3 * 2 * 8 * 3 * 64 * 2] * 2
    assert m.notes == (
        "decode_attention: 1 rows say nothing of weight_copies, so their operands are taken as "
        "cold",
        "prefill_attention: 2 rows say nothing of weight_copies, so their operands are taken as "
        "cold",
    )


def test_a_cache_of_one_token_is_a_cache():
    one = shapes.decode_attention("bf16", 1, 4, 4, 128, 1, copies=1)
    assert (one.work.read_kv, one.work.read_activation) == (2 * 4 * 128 * 2, 4 * 128 * 2)
    alone = shapes.prefill_attention("bf16", 1, 4, 4, 128, 1, causal=True, copies=1)
    assert (alone.work.read_kv, alone.work.read_activation) == (0, 3 * 4 * 128 * 2)


@pytest.mark.parametrize(
    ("name", "dtype", "kind", "read", "written"),
    [
        ("mul", "bf16", "pointwise", 4, 2),
        ("mul_scalar", "bf16", "pointwise", 2, 2),
        ("silu", "fp32", "activation", 4, 4),
        ("cast", "bf16", "cast", 2, 4),
        ("cast", "fp32", "cast", 4, 2),
        ("copy", "fp16", "copy", 2, 2),
        ("fill", "fp32", "fill", 0, 4),
        ("cat", "bf16", "cat", 4, 4),
        ("mean", "bf16", "reduction", 2, 2 / 1280),
        ("softmax", "bf16", "softmax", 2, 2),
        ("rmsnorm", "fp32", "norm", 4, 4),
    ],
)
def test_bytes_of_pointwise_operators_by_hand(name, dtype, kind, read, written):
    o = shapes.pointwise(dtype, name, 12800, copies=2)
    assert o.work.kind == kind
    assert (o.work.read_activation, o.work.write_activation) == (12800 * read, 12800 * written)
    apart = read / 2 if name == "cat" else read  # its two inputs are one tensor
    assert o.activation == 2 * 12800 * (apart + written)


@pytest.mark.parametrize(("copies", "first"), [(1, 2), (3, 8), (math.inf, math.inf)])
def test_a_concatenation_reads_its_input_twice(copies, first):
    """All of x, as much of the result, all of x again: 2 x each time if there is one of it.

    With three in turn, 3 x 3 x lie between two of the same, less the x that was read last.
    """
    x = 2 * 1000.0
    many = [shapes.pointwise("bf16", n, 1000, copies) for n in ("cat", "mul", "cat")]
    reuse = shapes.operations(many).reuse
    parts = [
        sorted(reuse.windows[i, 2] for i in reuse.window["read_activation"][row]) for row in (0, 2)
    ]
    assert parts == [[2 * x, first * x]] * 2
    assert reuse.share["read_activation"].tolist() == [[0.5, 0.5], [1, 0], [0.5, 0.5]]
    assert reuse.windows[reuse.window["read_activation"][1, 0], 2] == copies * 3 * x
    assert reuse.windows[reuse.window["write_activation"][0, 0], 2] == copies * 3 * x


def test_every_name_of_a_pointwise_operator_is_one():
    for name in shapes.POINTWISE:
        assert shapes.pointwise("bf16", name, 100).work.write_activation > 0
    assert shapes.pointwise("bf16", "mean", 100).work.m == 25  # rows of 4, which divides 100


@given(st.integers(1, 4096), st.integers(1, 4096), st.integers(1, 4096), st.integers(1, 99),
       st.sampled_from(["bf16", "fp32", "fp8"]))  # fmt: skip
def test_linear_layers_obey_the_formula(m, n, k, copies, dtype):
    size = shapes.DTYPES[dtype][1]
    one = shapes.linear(dtype, m, n, k, copies)
    assert (one.work.kind == "gemv") == (m == 1)
    assert one.work.flop == 2 * m * n * k
    assert one.work.read_weight == n * k * size
    assert one.work.write_activation == m * n * max(size, 2)
    assert one.weight >= one.activation >= one.work.read_weight
    assert (one.weight == one.activation) == (copies == 1)


def test_a_table_and_a_trace_agree_on_what_a_layer_does():
    w = ns.load_workload("paddleocr_vl_decode")
    plain = w.mask("kind", "gemv", "gemm") & w.mask("operator", "aten::mm", "aten::linear")
    rows = np.flatnonzero(plain & (w["read_weight"] > 0))
    assert len(rows) > 100
    for i in rows[:100]:
        m, n, k = (int(w[c][i]) for c in "mnk")
        work = shapes.linear("bf16", m, n, k).work
        assert work.kind == w.text("kind")[i]
        assert [getattr(work, c) for c in ("flop", *BYTES)] == [w[c][i] for c in ("flop", *BYTES)]


def test_operations_have_every_column_that_a_model_may_look_at(tmp_path):
    o = read(tmp_path, LINEAR, DECODE).operations
    assert set(COST_COLUMNS) - set(COST_LABELS) <= set(o.columns)
    assert all(len(column) == 2 for column in o.columns.values())


def test_what_ran_it_may_be_in_the_table_or_said_later(tmp_path):
    header = [*HEADER, "library", "routine"]
    m = read(tmp_path, {**LINEAR, "library": "cuBLAS", "routine": "whole"}, DECODE, header=header)
    assert m.operations.library.tolist() == ["cuBLAS", "unknown"]
    assert m.operations.routine.tolist() == ["whole", ""]
    told = m.labelled(m.op == "decode_attention", library="fa3")
    assert told.operations.library.tolist() == ["cuBLAS", "fa3"]
    assert told.operations.routine.tolist() == ["whole", ""]


@pytest.mark.parametrize(
    ("row", "column", "allowed"),
    [({**LINEAR, "routine": "spilt"}, "routine", "split, whole"),
     ({**DECODE, "library": "flash"}, "library", "fa3")],
)  # fmt: skip
def test_a_library_or_routine_that_nobody_knows_is_an_error(tmp_path, row, column, allowed):
    with pytest.raises(InputError) as error:
        read(tmp_path, row, header=[*HEADER, "library", "routine"])
    assert f"line 2, {column}: not known" in str(error.value) and allowed in str(error.value)


def test_what_is_not_known_is_ignored_and_said(tmp_path):
    m = read(tmp_path, {**LINEAR, "framework": "x", "version": 1},
             header=[*HEADER, "framework", "version"])  # fmt: skip
    assert m.notes == ("columns that are not known, ignored: framework, version",)


def test_only_the_columns_of_the_operations_there_are_needed(tmp_path):
    m = read(tmp_path, LINEAR, header=["op", "m", "n", "k", "dtype", "latency_us"])
    assert len(m) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"m": ""}, "line 2, m: is missing: '' (allowed: a whole number from 1 to 2147483648)"),
        ({"m": "1.5"}, "line 2, m: not a whole number: '1.5'"),
        ({"m": "0"}, "line 2, m: out of range: '0'"),
        ({"m": "many"}, "line 2, m: not a number: 'many'"),
        ({"latency_us": ""}, "line 2, latency_us: not a number: ''"),
        ({"latency_us": "0"}, "line 2, latency_us: out of range: '0'"),
        ({"latency_us": "nan"}, "line 2, latency_us: not a number: 'nan'"),
        ({"dtype": "bf17"}, "line 2, dtype: not known: 'bf17' (allowed: bf16, fp16, fp32"),
        ({"dtype": ""}, "line 2, dtype: not known: ''"),
        ({"op": "Linar"}, "line 2, op: not known: 'Linar' (allowed: linear, decode_attention"),
        ({"launch": "cpu"}, "line 2, launch: not known: 'cpu' (allowed: graph, kernel, eager)"),
        ({"units": "0"}, "line 2, units: out of range: '0'"),
        ({"weight_copies": "-1"}, "line 2, weight_copies: out of range: '-1'"),
        ({"op": "pointwise", "name": "mull", "elements": 1}, "line 2, name: not known: 'mull'"),
        ({"op": "stream", "bytes_read": 0, "bytes_written": 0}, "bytes_read: moves nothing: '0'"),
        ({**DECODE, "kv_heads": 3}, "line 2, kv_heads: does not divide heads: '3' (allowed: a "
                                    "divisor of 8)"),
        ({**DECODE, "op": "prefill_attention", "sequence": 8}, "causal: not known: ''"),
    ],
)  # fmt: skip
def test_a_bad_cell_is_one_line(tmp_path, change, told):
    with pytest.raises(InputError) as caught:
        read(tmp_path, {**LINEAR, **change})
    assert told in str(caught.value)
    assert str(tmp_path / "table.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_bad_cells_are_told_at_once(tmp_path):
    with pytest.raises(NpusimError) as caught:
        read(tmp_path, {**LINEAR, "m": 0, "k": "x"}, LINEAR, {**LINEAR, "op": ""})
    places = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert places == ["line 2, m", "line 2, k", "line 4, op"]


def test_a_column_that_an_operation_needs_is_missed_once(tmp_path):
    with pytest.raises(NpusimError) as caught:
        read(tmp_path, DECODE, DECODE, header=[h for h in HEADER if h != "context"])
    assert str(caught.value).endswith(
        "line 2: decode_attention needs a column that is missing: 'context' (allowed: batch, "
        "heads, kv_heads, head_dim, context)"
    )


def test_tables_that_are_none(tmp_path):
    with pytest.raises(InputError, match="no measured operations"):
        read(tmp_path)
    with pytest.raises(InputError, match="header: column is missing: 'latency_us'"):
        measured.read(table(tmp_path, LINEAR, header=["op", "dtype", "m"]))
    other = tmp_path / "other.txt"
    other.write_text("hello\n")
    assert not measured.is_measured(other)
    with pytest.raises(InputError, match="not a table of measured operations"):
        measured.read(other)
    assert not measured.is_measured(tmp_path / "absent.csv")


def test_a_last_row_that_was_cut_short_is_left_out_and_said(tmp_path):
    path = table(tmp_path, LINEAR)
    with path.open("a") as stream:
        stream.write("linear,bf16,")
    m = measured.read(path)
    assert len(m) == 1
    assert m.notes == ("last row cut short, left out",)


def test_the_shipped_experiments():
    m = measured.read(AXES)
    # the rows of each axis as workloads/experiments/h200.md lists them
    assert Counter(m.op) == {"linear": 198 + 30 + 25 + 24, "pointwise": 112, "stream": 18 + 12,
                             "decode_attention": 64, "prefill_attention": 48}  # fmt: skip
    assert set(m.launch[~np.isnan(m.units)]) == {"eager"}
    assert sorted(set(m.units[~np.isnan(m.units)]))[:2] == [8, 16]
    assert set(m.launch[np.isnan(m.units)]) == {"graph"}
    assert [note.split(":")[0] for note in m.notes] == ["axis fusion", "axis launch", "axis energy"]
    assert m.row.min() > 1 and m.row.max() <= 567
    cold = np.isinf(distance(m.operations, "weight")) & (m.operations["read_weight"] > 0)
    assert cold.sum() == 198 + 30
    assert not np.isinf(distance(m.operations, "kv")[m.op == "decode_attention"]).any()


def test_the_partial_machine_by_hand():
    m = measured.read(AXES)
    part = m.take(m.units == 8)
    assert part.op.tolist() == ["linear", "stream", "linear"]
    assert part.operations["flop"].tolist() == [2 * 6848 * 1280, 0, 2 * 4096 * 8192 * 8192]
    assert distance(part.operations, "weight")[0] == 24 * 2 * 6848 * 1280 + 2 * (1280 + 6848)
    assert part.operations.bytes_moved[1] == 2**30
    # 642 GB/s and 56.6 TFLOP/s, as the file says
    assert 2**30 / part.seconds[1] == pytest.approx(642.15e9, rel=1e-3)
    assert part.operations["flop"][2] / part.seconds[2] == pytest.approx(56.64e12, rel=1e-3)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"axis": "linear_shapes", "m": 1, "n": 2, "us_per_op": 1}]', "row 1, k: not as capture"),
        ('[{"axis": "linear_shapes", "m": 1, "n": 2, "k": 3, "us_per_op": "x"}]', "row 1, us_per"),
        ('[{"axis": "linear_shapes", "m": 1, "n": 2, "k": true, "us_per_op": 1}]', "row 1, k"),
        ('[{"axis": "pointwise", "op": "who", "dtype": "bf16"}]', "row 1, op"),
        ('[{"axis": "device"}]', "no measured operations"),
        (
            '[{"axis": "device"}, {"axis": "new"}, {"axis": "fusion"}]',
            r"axis: no measured operations: .*: 'new, fusion' \(allowed: linear_shapes, ",
        ),
        ('[{"axis": ', "cut short"),
        ('[{"axis": 1}, 2]', "expected `object`"),
    ],
)
def test_damaged_experiments_are_one_line(tmp_path, text, told):
    path = tmp_path / "axes.json"
    path.write_text(text)
    assert measured.is_measured(path)
    with pytest.raises(InputError, match=told) as caught:
        measured.read(path)
    assert "\n" not in str(caught.value)


def test_kernels_of_a_trace():
    rows = [{"duration_s": 2e-6, "kind": "cast"}, timed(1e-3), {"duration_s": 0.0}]
    m = measured.from_workload(workload(*rows))
    assert (m.op.tolist(), m.launch.tolist(), m.row.tolist()) == (["cast"], ["kernel"], [0])
    assert m.notes == ("kernels without shapes or time, left out: 2 of 3",)
    with pytest.raises(InputError, match="no kernel with known shapes"):
        measured.from_workload(workload(timed(1e-3)))


def test_periods_by_hand(monkeypatch, tmp_path):
    rows = [{**LINEAR, "launch": launch} for launch in LAUNCHES]
    m = read(tmp_path, *rows)
    h200 = ns.load_arch("h200")
    for path, value in {"launch.graph.interval": 7e-7, "launch.graph.node": 3e-7,
                        "launch.eager.interval": 2e-6,
                        "launch.eager.host": 5e-6}.items():  # fmt: skip
        h200 = ns.with_value(h200, path, value)
    for kernel, expected in ((1e-6, [2e-6, 1e-6, 5e-6]), (4e-6, [5e-6, 4e-6, 6e-6])):
        monkeypatch.setattr(period, "kernel_time", lambda o, d, t=kernel: np.full((len(o), 1), t))
        assert period.predicted(m, Designs(h200))[:, 0] == pytest.approx(expected)
    monkeypatch.setattr(period, "kernel_time", lambda o, d: np.zeros((len(o), 1)))
    with pytest.raises(InputError, match="row 3: the model gives no time above zero"):
        period.predicted(m, Designs(h200))


def test_few_units_are_a_machine_with_few_units():
    m = measured.read(AXES)
    part = m.take(m.units == 64)
    h200 = ns.load_arch("h200")
    small = ns.with_value(h200, "units.count", 64)
    alone = part.take(np.arange(len(part)))
    object.__setattr__(alone, "units", np.full(len(part), np.nan))
    assert period.predicted(part, Designs(h200)) == pytest.approx(
        period.predicted(alone, Designs(small)))  # fmt: skip
    with pytest.raises(InputError, match=r"more compute units.*: 64 \(allowed: up to 32\)"):
        period.predicted(part, Designs(ns.with_value(h200, "units.count", 32)))


@given(st.integers(0, 99))
def test_halves_are_halves_of_each_op(seed):
    m = measured.read(AXES)
    a, b = split(m, seed)
    assert sorted([*a.row, *b.row]) == sorted(m.row)
    for op, count in Counter(m.op).items():
        assert (a.op == op).sum() == (count + 1) // 2
    again = split(m, seed)[0]
    assert again.row.tolist() == a.row.tolist()


@given(st.integers(1, 276), st.integers(0, 9))
def test_an_anchor_is_spread_over_bytes(count, seed):
    m = measured.read(AXES)
    m = m.take(m.op == "linear")
    few, rest = anchor(m, count, seed)
    assert len(few) == count
    assert sorted([*few.row, *rest.row]) == sorted(m.row)
    if count >= 16:  # every quarter by bytes has its share
        edges = np.quantile(m.operations.bytes_moved, [0.25, 0.5, 0.75])
        at = np.searchsorted(edges, few.operations.bytes_moved)
        assert np.bincount(at, minlength=4).min() >= count // 8


def test_an_anchor_of_nothing_or_of_all_is_refused(tmp_path):
    m = read(tmp_path, LINEAR, LINEAR)
    for count in (0, 2):
        with pytest.raises(InputError, match="cannot sample"):
            anchor(m, count, 0)


@pytest.mark.shared
@pytest.mark.parametrize("gpu", ["a100_sxm", "h100_sxm", "l40s"])
def test_published_products_read_as_the_contract_says(shared, tmp_path, gpu):
    text = (shared / f"external/aiconfigurator/aic_gemm_bf16_{gpu}.csv").read_text()
    path = tmp_path / "gemm.csv"
    lines = text.splitlines()
    names = {"gemm_dtype": "dtype", "weight_copies_in_loop": "weight_copies"}
    header = ",".join(names.get(c, c) for c in lines[0].split(","))
    path.write_text("\n".join([f"op,{header}", *(f"linear,{line}" for line in lines[1:])]) + "\n")
    m = measured.read(path)
    assert len(m) == 3240
    assert m.notes == ("columns that are not known, ignored: device, framework, version, "
                       "kernel_source",)  # fmt: skip
    o = m.operations
    assert (distance(o, "weight") >= 6 * o["read_weight"]).all()
    assert (o.kind == "gemv").sum() == 3240 // 9  # one of nine row counts
