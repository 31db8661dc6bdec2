"""Workloads at another batch or context: laws worked out by hand, marks, and traced sizes."""

import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.cli import main
from npusim.columns import BYTES, COLUMNS, COST_COLUMNS, LABELS, ORIGINS
from npusim.counterparts import counterparts
from npusim.errors import InputError
from npusim.inspection import inspection
from npusim.rescaling import rescale
from npusim.transforms import changes, quantize_weights, set_batch, set_context, transformed
from npusim.transforms.record import changed
from npusim.workload_file import load_workload, save_workload
from tests.builder import kernel, timed, workload

AMOUNTS = ("flop", *BYTES)
PRODUCT, ATTENTION, ADD, TABLE, HALF, REDUCE = range(6)


def row(kind, name, blocks, **more):
    return kernel(
        name, 1.0, blocks, kind=kind, dtype="bf16", **{"batch": 1, "m": 1, "n": 1, **more}
    )


def rows(b, keys, gemm="tile_64", blocks=16, split=0):
    """Return a step of b sequences over so many keys.

    A product of 8 x 4 weights, attention of two heads of 8, a sum of 2048 numbers a sequence, a
    table that all share although it is as large as one of their rows, a copy that reads 1000 bytes
    and 100 a sequence, and what combines parts of the keys if they are split.
    """
    kind = "gemv" if b == 1 else "gemm"
    return (
        row(kind, gemm, blocks, routine="whole", m=b, n=4, k=8, flop=64.0 * b, read_weight=64.0,
            read_activation=16.0 * b, write_activation=8.0 * b),
        row("attention", "flash", 8 * b, batch=b, n=keys, k=8, heads=2, kv_heads=2,
            flop=64.0 * b * keys, read_kv=64.0 * b * keys, read_activation=32.0 * b,
            write_activation=32.0 * b),
        row("pointwise", "add", 2 * b, routine="vectorized", m=b, n=2048, flop=2048.0 * b,
            read_activation=8192.0 * b, write_activation=4096.0 * b),
        row("pointwise", "table", 1, routine="vectorized", n=64, flop=64.0,
            read_activation=128.0, write_activation=128.0),
        row("pointwise", "half", b, routine="vectorized", m=b, n=1024, flop=1024.0 * b,
            read_activation=1000.0 + 100.0 * b, write_activation=2048.0 * b),
        *[row("attention_combine", "combine", b, n=16 * b, flop=64.0 * b,
              write_activation=32.0 * b)] * split,
    )  # fmt: skip


def traced(b, *keys, name="", **more):
    """Return a trace of some steps, one for each number of keys (100 by default)."""
    steps = [{**r, "step": i} for i, k in enumerate(keys or (100,)) for r in rows(b, k, **more)]
    return workload(*steps, wall=(1.0,) * len(keys or (100,)), device="NVIDIA H200",
                    name=name or f"b{b}")  # fmt: skip


def marks(w):
    return w.text("origin").tolist()


def at(w, operation, *columns):
    return [w[c][operation] for c in columns]


# ---------------------------------------------------------------- one trace


def test_one_trace_is_changed_by_rule():
    one = traced(2, 100, 101)
    assert rescale(one, batch=6).id == set_batch(one, 6).id
    assert rescale(one, context=300).id == set_context(one, 300).id
    both = {"workload.context": 300.0, "workload.batch": 6.0}
    assert rescale(one, batch=6, context=300).id == transformed(one, both).id
    assert rescale(one, batch=2) is one


def test_one_trace_knows_the_kernels_of_rules_alone():
    """A grid that is no longer known and a routine that never was: another kernel may do it."""
    expected = ["extrapolated", "extrapolated", "rescaled", "rescaled", "rescaled"]
    assert marks(rescale(traced(2), batch=6)) == expected
    longer = rescale(traced(2), context=300)
    assert marks(longer) == ["measured", "extrapolated", *["measured"] * 3]
    assert marks(rescale(longer, context=100))[ATTENTION] == "extrapolated"  # never again better


def test_what_has_no_shapes_stays_measured():
    w = workload(*rows(2, 100), timed(1e-6), device="NVIDIA H200")
    assert marks(rescale(w, batch=6))[-1] == "measured"


def test_other_widths_are_beyond_all_that_was_measured():
    assert marks(quantize_weights(traced(2), 8)) == ["extrapolated", *["measured"] * 4]


def test_what_was_generated_stays_so():
    made = workload(*({**r, "origin": "generated"} for r in rows(2, 100)), device="NVIDIA H200")
    assert set(marks(rescale(made, batch=6))) == {"generated"}


def test_a_static_cache_is_put_in_and_attention_under_its_mask_was_never_measured():
    w = transformed(ns.load_workload("paddleocr_vl_decode"), {"workload.static_cache": 700})
    found = Counter(marks(w))
    assert found["generated"] == len(w) - 2346 + 2 * 54  # two concatenations of each attention
    assert found["extrapolated"] == 54 and set(w.text("origin")[w.mask("kind", "attention")]) == {
        "extrapolated"}  # fmt: skip


def test_another_label_is_another_kernel():
    w = traced(2)
    cast = {"kind": np.array(["cast"] * 5, dtype=object)}
    assert marks(changed(w, {}, {}, cast)) == ["extrapolated"] * 5
    assert marks(changed(w, {}, {"flop": w["flop"] * 2})) == [
        "rescaled", "extrapolated", *["rescaled"] * 3]  # fmt: skip
    assert marks(changed(w, {}, {"flop": w["flop"] * 2}, origin="generated")) == ["generated"] * 5
    assert marks(changed(w, {}, {"duration_s": w["duration_s"] * 2})) == ["measured"] * 5


# ---------------------------------------------------------------- several traces


def test_laws_of_two_traces():
    w = rescale(traced(2), batch=6, against=[traced(10)])
    assert at(w, PRODUCT, "m", "flop", "read_weight", "blocks", "threads") == [6, 384, 64, 16, 128]
    assert at(w, ATTENTION, "batch", "n", "flop", "blocks") == [6, 100, 38_400, 48]
    assert at(w, ADD, "m", "write_activation", "blocks") == [6, 24_576, 12]
    assert at(w, TABLE, "m", "flop", "read_activation", "blocks") == [1, 64, 128, 1]
    assert at(w, HALF, "m", "read_activation", "blocks") == [6, 1600, 6]  # 1200 and 2000
    assert marks(w) == ["rescaled", "rescaled", "rescaled", "measured", "extrapolated"]
    assert w.meta["notes"][-1] == (
        "compared with b10 (batch 10): 1 operations follow the traces rather than the rule"
    )
    assert w.meta["against"] == ["b10"] and changes(w) == {"workload.batch": 6.0}


def test_three_traces_on_a_line_confirm_it():
    one, others = traced(10), [traced(2), traced(4)]
    w = rescale(one, batch=6, against=others)
    assert (w["read_activation"][HALF], marks(w)[HALF]) == (1600, "rescaled")
    bent = workload(*({**r, "read_activation": 5.0} if r["kernel"] == "half" else r
                      for r in rows(4, 100)), name="bent")  # fmt: skip
    w = rescale(one, batch=7, against=[traced(2), bent])
    assert (w["read_activation"][HALF], marks(w)[HALF]) == (1002.5, "extrapolated")


def test_beyond_the_traces_all_that_changes_is_extrapolated():
    for batch, read in ((18, 2800), (1, 1100)):
        w = rescale(traced(2), batch=batch, against=[traced(10)])
        assert marks(w) == [*["extrapolated"] * 3, "measured", "extrapolated"]
        assert w["read_activation"][HALF] == read
        assert w["blocks"].tolist() == [0, 8 * batch, 2 * batch, 1, batch]


def test_the_size_of_a_trace_is_that_trace():
    other = traced(10, gemm="tile_128", blocks=32)
    w = rescale(traced(2), batch=10, against=[other])
    assert set(marks(w)) == {"measured"}
    assert all(np.array_equal(w.text(c), other.text(c)) for c in ("kernel", "kind", "routine"))
    assert all(np.array_equal(w[c], other[c]) for c in COST_COLUMNS if c not in LABELS)
    assert rescale(traced(2), batch=2, against=[other]).id == traced(2).id


@pytest.mark.parametrize(("name", "blocks"), [("tile_128", 16), ("tile_64", 32)])
def test_between_two_kernels_either_may_run(name, blocks):
    w = rescale(traced(2), batch=6, against=[traced(10, gemm=name, blocks=blocks)])
    assert at(w, PRODUCT, "m", "flop", "blocks", "threads") == [6, 384, 0, 0]
    assert marks(w)[:2] == ["extrapolated", "rescaled"]


def test_only_the_kernels_next_to_the_size_count():
    others = [traced(1, gemm="gemv"), traced(10), traced(40, gemm="tile_256", blocks=99)]
    w = rescale(traced(2), batch=6, against=others)
    assert (w["blocks"][PRODUCT], w.text("kernel")[PRODUCT], marks(w)[PRODUCT]) == (
        16, "tile_64", "rescaled")  # fmt: skip


def test_contexts_go_step_by_step():
    w = rescale(traced(2, 100, 102), context=150, against=[traced(2, 200, 202, 203, name="long")])
    attends = w.mask("kind", "attention")
    assert w["n"][attends].tolist() == [150, 150]
    assert w["read_kv"][attends].tolist() == [19_200, 19_200]
    assert w["blocks"][attends].tolist() == [16, 16]
    assert Counter(marks(w)) == {"measured": 8, "rescaled": 2}
    beyond = rescale(traced(2, 100, 102), context=201, against=[traced(2, 200, 202)])
    assert [m for m in marks(beyond) if m != "measured"] == ["extrapolated", "rescaled"]


def test_batch_and_context_are_multiplied():
    others = [traced(10), traced(2, 200, name="long")]
    w = rescale(traced(2), batch=6, context=150, against=others)
    assert at(w, ATTENTION, "batch", "n", "flop", "read_kv") == [6, 150, 57_600, 57_600]
    assert w["read_activation"][HALF] == 1600 and w["blocks"][ATTENTION] == 48
    assert marks(w) == ["rescaled", "rescaled", "rescaled", "measured", "extrapolated"]
    assert w.meta["against"] == ["long", "b10"]
    by_rule = rescale(traced(2), batch=6, context=150, against=others[:1])
    assert marks(by_rule)[ATTENTION] == "extrapolated"
    assert at(by_rule, ATTENTION, "flop", "blocks") == [57_600, 48]


def test_a_grid_of_another_context_is_not_taken_from_a_trace():
    """Of 200 keys, 8 blocks a sequence; at ten sequences the library does not split them."""
    ten = workload(*({**r, "blocks": 20} if r["kernel"] == "flash" else r for r in rows(10, 100)))
    w = rescale(traced(2), batch=10, context=200, against=[ten])
    assert (w["blocks"][ATTENTION], marks(w)[ATTENTION]) == (0, "extrapolated")
    assert rescale(traced(2), batch=10, against=[ten])["blocks"][ATTENTION] == 20


def test_a_kernel_that_comes_and_goes():
    split, whole = traced(2, split=1), traced(10)
    assert counterparts(split, whole).tolist() == [0, 1, 2, 3, 4, -1]
    assert counterparts(whole, split).tolist() == [0, 1, 2, 3, 4]
    w = rescale(split, batch=10, against=[whole])
    assert marks(w) == [*["measured"] * 5, "extrapolated"]
    assert w.meta["notes"][-1].endswith("; 1 are not in every trace")
    assert at(w, REDUCE, "n", "flop") == [160, 640]


# ---------------------------------------------------------------- properties


@given(st.integers(2, 40), st.integers(2, 40), st.integers(1, 60))
def test_laws_hold_for_any_traces(a, b, target):
    if a == b:
        return
    w = rescale(traced(a), batch=target, against=[traced(b)])
    exact = traced(target)
    rest = [PRODUCT, ATTENTION, ADD, TABLE]
    for c in ("batch", "m", "n", *AMOUNTS):
        assert w[c][rest] == pytest.approx(exact[c][rest], rel=1e-12), c
    assert w["read_activation"][HALF] == pytest.approx(1000 + 100 * target)
    assert marks(w)[TABLE] == "measured"
    within, found = min(a, b) <= target <= max(a, b), set(marks(w)) - {"measured"}
    assert found == (set() if target in (a, b) else
                     {"rescaled", "extrapolated"} if within else {"extrapolated"})  # fmt: skip


@given(st.integers(1, 500), st.integers(1, 5000))
def test_marks_never_get_better(batch, context):
    w = rescale(traced(2), batch=batch)
    later = rescale(w, context=context)
    rank = [[ORIGINS.index(m) for m in marks(x)] for x in (w, later)]
    assert all(a <= b for a, b in zip(*rank, strict=True))


@given(st.permutations([1, 4, 9, 30]), st.integers(1, 40))
def test_the_order_of_traces_says_nothing(order, target):
    # The workload is the first: labels and names come from it.
    others = [traced(b) for b in order]
    a, b = (rescale(traced(2), batch=target, against=x) for x in (others, others[::-1]))
    assert marks(a) == marks(b)
    assert all(a[c] == pytest.approx(b[c], rel=1e-12) for c in (*AMOUNTS, "blocks", "m"))


# ---------------------------------------------------------------- what is refused


OTHER_KIND = workload(*({**r, "kind": "cast"} if r["kernel"] == "add" else r
                        for r in rows(10, 100)), name="other")  # fmt: skip
WIDER = workload(*({**r, "k": 16} if r["kernel"] == "tile_64" else r for r in rows(10, 100)),
                 name="wider")  # fmt: skip
REFUSED = [
    (traced(2), {"batch": 0}, [], "out of bounds: 0 .allowed: 1 to 1e"),
    (traced(2), {"context": float("nan")}, [], "out of bounds: nan"),
    (traced(2), {}, [], "b2: nothing to rescale to .allowed: a batch, a context or both"),
    (workload(*rows(2, 100)[2:]), {"batch": 4}, [], "has no decode attention"),
    (workload(*rows(2, 100)[2:]), {"batch": 4}, [traced(10)], "has no decode attention"),
    (
        traced(2),
        {"batch": 4},
        [traced(2)],
        "b2: has the batch of another one: 'context 100, batch 2'",
    ),
    (traced(2), {"batch": 4}, [traced(10), traced(10)], "b10: has the batch of another one"),
    (traced(2), {"batch": 4}, [traced(10, 200)], "differs from the workload in batch and in cont"),
    (traced(2), {"batch": 4}, [traced(2, 200)], "differs in context, which is not asked for"),
    (traced(2), {"batch": 4}, [workload(*rows(10, 100)[1:])], "'4 operations' .allowed: 5, as in"),
    (traced(2), {"batch": 4}, [OTHER_KIND], "operation 2 of those that stay: .*'cast' .*pointwise"),
    (traced(2), {"batch": 4}, [WIDER], "operation 0, k: .*a product with other weights: 16 .*8"),
    (traced(2, 100, 101), {"batch": 4}, [traced(10)], "fewer steps than the workload has: 1"),
    (traced(2), {"batch": 4}, [set_batch(traced(2), 10)], "comparing traces needs what was meas"),
    (set_batch(traced(10), 2), {"batch": 4}, [traced(10)], "comparing traces needs what was meas"),
]


@pytest.mark.parametrize(("w", "size", "against", "message"), REFUSED)
def test_what_cannot_be_rescaled_is_refused(w, size, against, message):
    with pytest.raises(InputError, match=message) as error:
        rescale(w, **size, against=against)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- files and the command line


def test_a_rescaled_workload_is_the_same_from_its_file(tmp_path):
    w = rescale(traced(2), batch=6, against=[traced(10)])
    save_workload(w, tmp_path / "made.parquet")
    again = load_workload(tmp_path / "made.parquet")
    assert again.id == w.id and marks(again) == marks(w) and again.meta == w.meta


@pytest.mark.parametrize(("w", "origin"), [
    (traced(2), "measured"), (set_batch(traced(2), 6), "rescaled")])  # fmt: skip
def test_files_from_before_do_not_say_what_operations_are(tmp_path, w, origin):
    file = tmp_path / "made.parquet"
    save_workload(w, file)
    table = pq.read_table(file)
    about = json.loads(table.schema.metadata[b"npusim.workload"])
    assert about["schema"] == 3
    older = {b"npusim.workload": json.dumps({**about, "schema": 2}).encode()}
    pq.write_table(table.drop_columns(["origin"]).replace_schema_metadata(older), file)
    read = load_workload(file)
    assert set(marks(read)) == {origin}
    assert all(np.array_equal(read[c], w[c]) for c in COLUMNS if c != "origin")
    assert read.id == w.id or origin == "rescaled"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, w in (("two", traced(2)), ("ten", traced(10))):
        save_workload(w.renamed(name), tmp_path / f"{name}.parquet")
    return lambda *args: CliRunner().invoke(main, ["rescale", *args])


def test_the_command_writes_and_tells_the_marks(run, tmp_path):
    asked = ["two.parquet", "--batch", "6", "--against", "ten.parquet", "-o", "six.parquet"]
    done = run(*asked)
    assert done.exit_code == 0 and "six.parquet: 5 operations, batch 6, context 100" in done.stdout
    assert [x.split() for x in done.stdout.splitlines()][-3:] == [
        ["rescaled", "3", "3", "µs", "60.0%"], ["extrapolated", "1", "1", "µs", "20.0%"],
        ["measured", "1", "1", "µs", "20.0%"]]  # fmt: skip
    found = json.loads(run(*asked, "--json").stdout)
    assert (found["operations"], found["batch"], found["context"]) == (5, 6.0, 100.0)
    assert found["out"] == "six.parquet"
    counts = {origin: entry["count"] for origin, entry in found["origins"].items()}
    assert counts == {"rescaled": 3, "measured": 1, "extrapolated": 1}
    made = load_workload(tmp_path / "six.parquet")
    assert made.name == "six" and inspection(made)["origins"] == found["origins"]
    shown = CliRunner().invoke(main, ["inspect", "six.parquet"])
    assert "operations by origin" in shown.stdout
    assert "origin" not in CliRunner().invoke(main, ["inspect", "two.parquet"]).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["two.parquet", "-o", "x.parquet"], "two: nothing to rescale to"),
        (["two.parquet", "--batch", "0", "-o", "x.parquet"], "workload.batch: out of bounds: 0"),
        (["two.parquet", "--batch", "4", "-o", "x.json"], "not a name for a workload: 'x.json'"),
        (["two.parquet", "--batch", "4", "-o", "two.parquet"], "would be replaced by what is made"),
        (["two.parquet", "--batch", "4", "--against", "two.parquet", "-o", "x.parquet"],
         "has the batch of another one"),
        (["two.parquet", "--batch", "4", "--against", "no.json", "-o", "x.parquet"], "no.json"),
        (["nothing", "--batch", "4", "-o", "x.parquet"], "nothing"),
        (["paddleocr_vl_prefill", "--batch", "4", "-o", "x.parquet"], "has no decode attention"),
        (["paddleocr_vl_decode", "--batch", "4", "--against", "deepseek_ocr_decode_grouped", "-o",
          "x.parquet"], "not a trace of the same program"),
    ],
)  # fmt: skip
def test_the_command_refuses_in_one_line(run, tmp_path, arguments, message):
    done = run(*arguments)
    assert done.exit_code == 1 and done.stdout == ""
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
    assert sorted(f.name for f in tmp_path.iterdir()) == ["ten.parquet", "two.parquet"]


# ---------------------------------------------------------------- measured on an H200


@pytest.fixture(scope="module")
def paddle():
    return {b: ns.load_workload(f"paddleocr_vl_decode{s}")
            for b, s in ((1, ""), (8, "_b8"), (32, "_b32"))}  # fmt: skip


@pytest.mark.parametrize(("batch", "against"), [(8, ()), (32, ()), (8, (32,)), (32, (8,))])
def test_a_step_rescaled_is_the_step_traced_at_that_batch(paddle, batch, against):
    w = rescale(paddle[1], batch=batch, against=[paddle[b] for b in against])
    other = paddle[batch]
    for c in AMOUNTS:
        assert w[c] == pytest.approx(other[c], rel=1e-9), c
    busy = ns.replay(w, ns.load_arch("h200")).device_busy_s
    assert busy == pytest.approx(other["duration_s"].sum() / len(other.steps), rel=0.08)


def test_between_batches_1_and_32_only_products_may_have_other_kernels(paddle):
    w = rescale(paddle[1], batch=8, against=[paddle[32]])
    kinds = Counter(w.text("kind")[w.mask("origin", "extrapolated")].tolist())
    assert set(kinds) == {"gemm", "splitk_reduce", "cat", "gather"}
    assert kinds["cat"] + kinds["gather"] == 9
    known = w.mask("origin", "rescaled")
    assert known.sum() == 1890 and (w["blocks"] == paddle[8]["blocks"])[known].all()
    there = rescale(paddle[1], batch=32, against=[paddle[8], paddle[32]])
    assert set(marks(there)) == {"measured"}
    assert (there["blocks"] == paddle[32]["blocks"]).all()


def test_experts_and_attention_that_is_no_longer_split():
    one, many = (ns.load_workload("deepseek_ocr_decode_grouped" + b) for b in ("", "_b16"))
    w = rescale(one, batch=8, against=[many])
    experts = w.mask("kind", "grouped_gemm") & (w["read_weight"] > 0)
    assert set(w.text("origin")[experts]) == {"rescaled"}  # the rule is that of both traces
    assert w["read_weight"][experts] == pytest.approx(set_batch(one, 8)["read_weight"][experts])
    attends = w.mask("kind", "attention", "attention_combine")
    assert set(w.text("origin")[attends]) == {"extrapolated"}
    assert (w["blocks"][w.mask("kind", "attention")] == 0).all()  # 80 of one, 160 of 16
    assert "36 are not in every trace" in w.meta["notes"][-1]


def test_a_template_confirms_the_laws_of_a_trace():
    """The template of 32 sequences has the kernels of that trace: 8 lie between it and 1."""
    w = ns.load_workload("paddleocr_vl_decode")
    of_32 = ns.template("paddleocr_vl", "decode", batch=32, context=673, steps=3)
    made = ns.rescale(w, batch=8, against=[of_32])
    kept = w["duration_s"] * made.mask("origin", "rescaled", "measured")
    assert kept.sum() > 0.99 * w["duration_s"].sum()
    traced = ns.load_workload("paddleocr_vl_decode_b8")
    assert made["flop"].sum() == pytest.approx(traced["flop"].sum(), rel=1e-9)
