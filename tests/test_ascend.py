import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.errors import InputError, NpusimError
from npusim.importers import ascend, ascend_types, files, import_trace, importers
from npusim.workload import KINDS

SHORT = "Device_id,Name,Type,Accelerator Core,Start Time(us),Duration(us),Wait Time(us),Block Dim\n"
LONG = (
    "Step Id,Device_id,Model ID,Task ID,Stream ID,Name,Type,OP State,Accelerator Core,"
    "Start Time(us),Duration(us),Wait Time(us),Block Num,Mix Block Num,HF32 Eligible,"
    "Input Shapes,Input Data Types,Input Formats,Output Shapes,Output Data Types,Output Formats,"
    "mac_ratio,mte2_ratio\n"
)
SUMMARY = (
    "Device_id,Model ID,Task ID,Stream ID,Op Name,OP Type,Task Type,Task Start Time(us),"
    "Task Duration(us),Task Wait Time(us),Block Dim\n"
)
AT = 1774670741777000  # microseconds since 1970: a float keeps only every quarter


def short(kind="Add", at="0.000", dur="18.320", name="aclnnAdd_AddAiCore_Add", blocks="8"):
    return f"0,{name},{kind},AI_VECTOR_CORE,{AT}{at[1:]}\t,{dur},0.02,{blocks}\n"


def matmul(shapes, result, step=1, kind="MatMulV2", dtypes="DT_BF16;DT_BF16", formats="ND;ND", at=0,
           stream=7, wide="DT_BF16"):  # fmt: skip
    return (
        f"{step},0,4294967295,1,{stream},aclnnMatmul,{kind},dynamic,AI_CORE,{AT + at}.5\t,10.25,0,"
        f'24,0,NO,"""{shapes}""",{dtypes},{formats},"""{result}""",{wide},ND,0.7,0.1\n'
    )


@pytest.fixture
def table(tmp_path):
    """Import a table of some text."""

    def run(text, name="kernel_details.csv"):
        file = tmp_path / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return import_trace(file)

    return run


def row(w, i=0):
    return {c: w[c][i] for c in w.columns} | {c: w.text(c)[i] for c in w.labels}


def test_the_short_table_by_hand(table):
    w = table(SHORT + short() + short("Cast", "0.027", "7.001") + short("N/A", "1.5", "0.004"))
    assert w.text("kind").tolist() == ["pointwise", "cast", "pointwise"]
    assert set(w.text("basis")) == {"name"}
    assert w["flop"].sum() == w.bytes_moved.sum() == 0
    assert w["duration_s"].tolist() == [18.32e-6, 7.001e-6, 0.004e-6]
    assert w["start_s"] == pytest.approx([0, 0.027e-6, 0.5e-6], rel=1e-14)
    assert w.steps.wall_s == pytest.approx([18.32e-6])
    assert w["blocks"].tolist() == [8, 8, 8]
    assert w.meta["format"] == "ascend csv"
    assert w.meta["cores"] == {"AI_VECTOR_CORE": 3}
    assert (w.meta["host"], w.meta["marked_steps"], w.meta["repaired"]) == ("unknown", 0, False)


def test_the_summary_of_msprof(table):
    text = SUMMARY + (
        f"0,1,1,5,FlashAttentionScore_1,FlashAttentionScore,MIX_AIC,{AT}.125,280.6,0.01,24\n"
        f"0,1,2,5,EventWait,EVENT_WAIT,EVENT_WAIT,{AT + 300},50,0,0\n"
        f"0,1,3,6,hcom_allReduce_,hcom_allReduce_,HCCL,{AT + 400},100,0,0\n"
        "0,1,4,6,lost,Add,AI_CPU,N/A,N/A,0,0\n"
    )
    w = table(text, "op_summary_20251121.csv")
    assert w.text("kind").tolist() == ["attention", "collective"]
    assert w["stream"].tolist() == [0, 1]
    assert w["start_s"].tolist()[1] == pytest.approx(399.875e-6, rel=1e-14)
    assert (w.meta["waits"], w.meta["untimed"]) == (1, 1)


def test_a_product_with_shapes_has_flop_and_bytes(table):
    w = table(LONG + matmul("1,4096;4096,11008", "1,11008"))
    r = row(w)
    assert (r["kind"], r["basis"], r["dtype"]) == ("gemv", "shape", "bf16")
    assert (r["batch"], r["m"], r["n"], r["k"]) == (1, 1, 11008, 4096)
    assert r["flop"] == 2 * 4096 * 11008
    assert r["read_activation"] == (4096 + 4096 * 11008) * 2
    assert r["read_weight"] == 0  # which operand is weight is not in the table
    assert r["write_activation"] == 11008 * 2
    assert r["duration_s"] == 10.25e-6


@pytest.mark.parametrize(
    ("shapes", "result", "found"),
    [
        ("128,64;64,32", "128,32", (1, 128, 32, 64)),
        ("128,64;32,64", "128,32", (1, 128, 32, 64)),  # second transposed
        ("64,128;64,32", "128,32", (1, 128, 32, 64)),  # first transposed
        ("128,64;64,32;32", "128,32", (1, 128, 32, 64)),  # bias
        ("128,64;64,32;", "128,32", (1, 128, 32, 64)),
        ("128,64;64,32", "", (1, 128, 32, 64)),
        ("2,3,8,4;2,3,4,16", "2,3,8,16", (6, 8, 16, 4)),
        ("8,8;8,8", "8,8", (1, 8, 8, 8)),
        ("16,4;16,4", "", None),  # 16 x 16 or 4 x 4
        ("16,4;16,4", "16,16", (1, 16, 16, 4)),
        ("128,64;63,32", "128,32", None),
        ("128,64;64,32;128,32", "128,32", None),  # not a bias
        ("128,64;64,32", "32,128", None),
        ("2,8,4;3,4,16", "2,8,16", None),
        ("128;64,32", "128,32", None),
        ("128,64", "128,32", None),
        ("N/A", "N/A", None),
        ("1,x;2,3", "1,3", None),
    ],
)
def test_shapes_count_only_where_one_reading_fits(table, shapes, result, found):
    r = row(table(LONG + matmul(shapes, result)))
    if found is None:
        assert (r["kind"], r["basis"], r["flop"]) == ("gemm", "name", 0)
    else:
        batch, m, n, k = found
        assert (r["batch"], r["m"], r["n"], r["k"]) == found
        assert r["flop"] == 2 * batch * m * n * k
        bias = n if shapes.endswith(";32") else 0
        assert r["read_activation"] == 2 * (batch * (m * k + k * n) + bias)
        assert r["write_activation"] == 2 * batch * m * n


@pytest.mark.parametrize(
    "change",
    [
        {"formats": "ND;FRACTAL_NZ"},
        {"dtypes": "INT8;INT8"},
        {"dtypes": "DT_BF16;FLOAT"},
        {"dtypes": ""},
        {"kind": "QuantBatchMatmulV3"},
        {"kind": "MatmulAllReduce"},
        {"wide": "INT32"},
    ],
)
def test_packed_or_quantised_products_keep_their_name_only(table, change):
    r = row(table(LONG + matmul("128,64;64,32", "128,32", **change)))
    assert (r["basis"], r["flop"]) == ("name", 0)
    assert r["kind"] in ("gemm", "fused")


def test_a_wider_result_is_written_wider(table):
    r = row(table(LONG + matmul("128,64;64,32", "128,32", dtypes="FLOAT16;FLOAT16", wide="FLOAT")))
    assert (r["dtype"], r["write_activation"]) == ("fp16", 128 * 32 * 4)


def test_step_ids_are_steps(table):
    shapes = ("8,4;4,2", "8,2")
    rows = [matmul(*shapes, step=s, at=20 * i, stream=i % 2) for i, s in enumerate([3, 3, "", 4])]
    w = table(LONG + "".join(rows))
    assert w["step"].tolist() == [0, 0, 1]
    assert w["start_s"] == pytest.approx([0, 20e-6, 0])
    assert w.steps.wall_s == pytest.approx([30.25e-6, 10.25e-6])
    assert w["stream"].tolist() == [0, 1, 1]
    assert (w.meta["marked_steps"], w.meta["outside_steps"]) == (2, 1)
    assert w.meta["outside_steps_s"] == pytest.approx(10.25e-6)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("MatMulV3", "gemm"), ("BatchMatMulV2", "gemm"), ("GroupedMatmul", "grouped_gemm"),
        ("Conv2D", "conv"), ("PromptFlashAttention", "attention"), ("RmsNorm", "norm"),
        ("IncreFlashAttention", "attention"), ("FusedInferAttentionScore", "attention"),
        ("PagedAttentionMaskNdKernel", "attention"), ("FlashAttentionScoreGrad", "attention"),
        ("LayerNormV4", "norm"), ("SwiGlu", "activation"), ("GeluV2", "activation"),
        ("Silu", "activation"), ("Mul", "pointwise"), ("RealDiv", "pointwise"),
        ("Transpose", "copy"), ("TransData", "copy"), ("StridedSliceD", "copy"),
        ("ConcatD", "cat"), ("GatherV2", "gather"), ("ScatterNdUpdate", "scatter"),
        ("ReduceSum", "reduction"), ("ArgMaxV2", "reduction"), ("SoftmaxV2", "softmax"),
        ("RotaryMul", "rope"), ("ApplyRotaryPosEmb", "rope"), ("InterleaveRope", "rope"),
        ("Cumsum", "scan"), ("Sort", "sort"), ("TopKV2", "topk"), ("MoeGatingTopK", "topk"),
        ("ZerosLike", "fill"), ("MemSet", "memset"), ("hcom_allReduce_", "collective"),
        ("AllGather", "collective"), ("DynamicQuant", "cast"), ("MatmulAllReduce", "fused"),
        ("LaserAttention", "attention"), ("ReshapeAndCacheNd", "scatter"), ("Nonsense", "unknown"),
    ],
)  # fmt: skip
def test_types_have_kinds(name, kind):
    assert ascend_types.kind(name, "x") == kind
    assert ascend_types.kind("N/A", f"aclnnSome_{name}") == kind or "_" in name


def test_the_table_of_types_knows_only_our_kinds():
    assert {kind for _, kind in ascend_types._KINDS} <= set(KINDS)


def test_csv_as_other_systems_write_it(table):
    text = "\ufeff\n" + SHORT + "\n" + short(name='"a, ""b"""') + ",,,,,,,\n"
    w = table(text.replace("\n", "\r\n"))
    assert w.text("kernel").tolist() == ['a, "b"']
    assert table(gzip.compress(text.encode()), "x.csv.gz").id == w.id


def test_a_row_cut_by_an_interrupt_is_dropped_and_counted(table):
    w = table((SHORT + short() + short())[:-20])
    assert (len(w), w.meta["lost_events"], w.meta["repaired"]) == (1, 1, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SHORT, "no device tasks"),
        (SHORT.replace("Duration(us)", "Duration"), "column is missing: 'Duration(us)'"),
        (SUMMARY.replace("Start Time(us)", "Start Time"), "column is missing: 'Start Time(us)'"),
        (SHORT.replace(",Type", ",Sort"), "column is missing: 'Type'"),
        (SHORT + short(dur="-1"), "line 2, Duration(us): out of range: '-1'"),
        (SHORT + short() + short(dur="nan"), "line 3, Duration(us): not a number: 'nan'"),
        (SHORT + short(dur="1e13"), "line 2, Duration(us): out of range: '1e13'"),
        (SHORT + short(dur="1e999999"), "not a number"),
        (SHORT + short(dur="fast"), "line 2, Duration(us): not a number: 'fast'"),
        (SHORT + short(blocks="many"), "line 2, Block Dim: not a number: 'many'"),
        (SHORT + short(blocks="2.5"), "line 2, Block Dim: not a whole number: '2.5'"),
        (SHORT + "0,a,Add\n", "line 2: fewer values than columns: 3"),
        (SHORT + short().strip() + ",9\n", "line 2: more values than columns: 9"),
        (SHORT + short(name="a\0"), "line 2: not text: a zero byte"),
        (SHORT.encode() + short(name="K").encode().replace(b"K", b"\xc3"), "line 2: not UTF-8"),
        (SHORT + '0,"open\n' + short(), "line 2: not CSV"),
    ],
)
def test_a_damaged_table_is_refused_with_its_line(table, text, says):
    with pytest.raises(InputError) as refused:
        table(text)
    assert says in str(refused.value)
    assert "kernel_details.csv: " in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_bomb_is_refused(table, monkeypatch):
    bomb = gzip.compress((SHORT + short() * 20_000).encode())
    assert len(bomb) < 20_000
    monkeypatch.setattr(files, "LARGEST", 1 << 20)
    with pytest.raises(InputError, match="too large"):
        table(bomb, "x.csv.gz")
    monkeypatch.undo()
    monkeypatch.setattr(files, "MOST_OPERATIONS", 1000)
    with pytest.raises(InputError, match="too many operations"):
        table(bomb, "x.csv.gz")


OTHERS = [
    "Device_id,OP Type,Core Type,Count,Total Time(us),Min Time(us),Avg Time(us),Ratio(%)\n",
    "Time (%),Total Time (ns),Instances,Avg (ns),Name\n50,10,1,10,k\n",
    "Start (ns),Duration (ns),CorrId,GrdX,Device,Strm,Name\n1,2,3,4,A,7,k\n",
    "kernel,calls,total_us\nk,1,10\n",
    '"ID","Kernel Name","Metric Name","Metric Value"\n0,k,m,2\n',
    '"Kind","Agent_Id","Kernel_Name","Start_Timestamp","End_Timestamp"\n',
    '{"traceEvents": []}',
    "",
    '"',
    "\x1f\x8b",
]


@pytest.mark.parametrize("text", OTHERS)
def test_other_files_are_not_claimed(tmp_path, text):
    file = tmp_path / "kernel_details.csv"
    file.write_text(text, encoding="latin-1")
    assert not ascend.sniff(file)
    assert not ascend.sniff(tmp_path)
    assert not ascend.sniff(tmp_path / "absent")


@pytest.mark.parametrize("text", [SHORT + short(), LONG, SUMMARY])
def test_nobody_else_claims_it(tmp_path, text):
    file = tmp_path / "kernel_details.csv"
    file.write_text(text)
    assert [i.FORMAT for i in importers() if i.sniff(file)] == [ascend.FORMAT]


@settings(max_examples=250)
@given(st.text(max_size=30), st.integers(0, 700), st.integers(0, 40), st.integers(0, 300))
def test_any_change_is_refused_or_read(tmp_path, change, at, length, cut):
    text = LONG + matmul("8,4;4,2", "8,2") + matmul("1,4;4,2", "1,2", at=30)
    mutated = (text[:at] + change + text[at + length :]).encode(errors="replace")
    file = tmp_path / "kernel_details.csv"
    file.write_bytes(mutated[: len(mutated) - cut])
    ascend.sniff(file)
    try:
        w = ascend.read(file, "x")
    except NpusimError as error:
        assert "\n" not in str(error)
    else:
        assert 1 <= len(w) <= 3
        assert np.isfinite(w["duration_s"]).all()
        assert np.isfinite(w["flop"]).all()


@settings(max_examples=150)
@given(st.text("0123456789,;[]\"' N/Ax-", max_size=40), st.text("0123456789,;", max_size=12))
def test_any_shapes_are_read(tmp_path, shapes, result):
    work = ascend_types.product("MatMulV2", shapes, "FLOAT;FLOAT", "ND;ND", (result, "FLOAT"))
    assert work is None or (work.flop == 2.0 * work.batch * work.m * work.n * work.k)
