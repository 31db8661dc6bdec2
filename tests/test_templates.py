"""Templates from the inside: expressions, kernels, what is asked, experts, work of a decoder."""

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.errors import InputError
from npusim.reuse.experts import expected_hit, loads, zipf
from npusim.templates import load_lowering, load_model, template
from npusim.templates.expressions import Expression
from npusim.templates.kernels import kernel_row
from npusim.templates.lower import Phase, lower
from npusim.templates.lowering import Step
from npusim.templates.operators import operator

PRODUCTS = ("gemv", "gemm", "grouped_gemm")


# ---------------------------------------------------------------- expressions


@pytest.mark.parametrize(("text", "names", "value"), [
    ("2 * rows + 1", {"rows": 3}, 7),
    ("ceil(rows / 64) * 64", {"rows": 65}, 128),
    ("floor(7 / 2) + min(1, 2) + max(1, 2)", {}, 6),
    ("sqrt(16) + log2(8)", {}, 7),
    ("'split' if rows < 64 else 'whole'", {"rows": 64}, "whole"),
    ("1 < rows <= 512", {"rows": 512}, True),
    ("context or new", {"context": 0, "new": 5}, 5),
    ("not sigmoid", {"sigmoid": 0}, True),
    ("2 ** 10 % 1000", {}, 24),
])  # fmt: skip
def test_values_of_expressions(text, names, value):
    assert Expression(text).value(names) == value


def test_parts_of_flash_attention_by_hand():
    """Six tiles of keys and two heads of a sequence, for 132 units: each tile is a part."""
    assert Expression("parts('FlashAttention', 1, 2, 6, 132)").value({}) == 6


@pytest.mark.parametrize("text", ["exp(rows)", "open('file')", "__import__('os')", "eval('1')"])
def test_other_functions_are_refused_when_read(text):
    with pytest.raises(InputError, match="unknown function"):
        Expression(text)


@pytest.mark.parametrize("text", [
    "", "rows +", "rows; rows", "import os", "a = 3", "(", "(" * 400, "rows.real",
    "rows.__class__", "''.join(['a'])", "[r for r in rows]", "{r: r for r in rows}",
    "(lambda: 1)()", "[1, 2][0]", "{}['a']", "rows['a']", "rows if", "f'{rows}'", "{1}",
    "(a := 3)", "max(*rows)", "min(key=rows)",
])  # fmt: skip
def test_what_is_no_expression_is_refused_when_read(text):
    with pytest.raises(InputError, match="not an expression"):
        Expression(text)


@pytest.mark.parametrize("text", [
    "other", "1 / 0", "log2(0)", "sqrt(-1)", "9**9**9", "10.0 ** 400", "'a' * 10**9",
    "1 << 10**9", "'a' + 1", "ceil('a')", "max()", "min(1)", "parts('nobody', 1, 1, 1, 1)",
    "parts('cuDNN')", "parts('cuDNN', 'a', 1, 1, 1)",
])  # fmt: skip
def test_what_is_no_arithmetic_is_refused_in_one_line(text):
    with pytest.raises(InputError) as error:
        Expression(text).value({"rows": 3})
    assert len(str(error.value).splitlines()) == 1


def test_names_are_those_that_are_not_called():
    assert Expression("min(rows, ceil(width))").names == {"rows", "width"}


# ---------------------------------------------------------------- one kernel

UNITS = 132
NAMES = {"rows": 4, "width": 100, "inner": 50, "item": 2, "units": UNITS}


def made(**given):
    """Return the columns of a kernel of a few fields; text goes to labels."""
    labels = {"dtype": "model", "routine": ""}
    labels |= {f: v for f, v in given.items() if f in ("kind", "dtype", "of", "routine")}
    numbers = {f: Expression(str(v)) for f, v in given.items() if f not in labels}
    one = Expression("1")
    step = Step("a kernel", None, (), {}, one, one, labels, numbers, False, "0")
    return kernel_row(step, NAMES, "bf16", "ATen")


def amounts(row):
    return tuple(row[c] for c in ("flop", "read_weight", "read_activation", "write_activation"))


MAP = {"m": "rows", "n": "width"}  # 400 elements


@pytest.mark.parametrize(("given", "told"), [
    # FLOP, bytes of weights, read and written
    ({"kind": "pointwise"}, (400, 0, 800, 800)),
    ({"kind": "pointwise", "inputs": 2}, (400, 0, 1600, 800)),
    ({"kind": "pointwise", "weights": "item * width", "work": 3}, (1200, 200, 800, 800)),
    ({"kind": "activation"}, (1600, 0, 800, 800)),
    ({"kind": "norm"}, (3200, 0, 800, 800)),
    ({"kind": "softmax", "dtype": "fp32"}, (2000, 0, 1600, 1600)),
    ({"kind": "cast", "dtype": "fp32", "of": "model"}, (0, 0, 800, 1600)),
    ({"kind": "cast", "of": "fp32"}, (0, 0, 1600, 800)),
    ({"kind": "reduction", "dtype": "fp32", "results": "rows"}, (400, 0, 1600, 16)),
    ({"kind": "fill", "reads": 0}, (0, 0, 0, 800)),
    ({"kind": "topk", "dtype": "int64", "writes": 48}, (400, 0, 3200, 48)),
    ({"kind": "attention"}, (0, 0, 0, 0)),
    ({"kind": "memcpy", "reads": 4, "writes": 4}, (0, 0, 4, 4)),
    ({"kind": "pointwise", "dtype": "int4"}, (400, 0, 200, 200)),
])  # fmt: skip
def test_what_a_kind_moves_and_computes_unless_told(given, told):
    assert amounts(made(**{**MAP, **given})) == told


def test_a_product_by_hand():
    """Three products of 4 x 50 by 50 x 100: weights 3 x 50 x 100, rows 3 x 4 x 50, results."""
    row = made(kind="product", batch=3, k="inner", **MAP)
    assert amounts(row) == (2 * 3 * 4 * 50 * 100, 30_000, 1200, 2400)
    assert row["kind"] == "gemm"


@pytest.mark.parametrize(("batch", "rows", "kind"), [
    (1, 1, "gemv"), (1, 2, "gemm"), (3, 1, "gemm"), (1, 0, "gemv"),
])  # fmt: skip
def test_one_row_of_one_problem_is_a_gemv(batch, rows, kind):
    assert made(kind="product", batch=batch, k=50, m=rows, n=100)["kind"] == kind
    assert made(kind="gemm", batch=batch, k=50, m=rows, n=100)["kind"] == "gemm"


@pytest.mark.parametrize(("given", "blocks", "threads"), [
    ({"kind": "pointwise", "routine": "vectorized", "m": 11, "n": 1000}, 11, 128),  # of 1,024
    ({"kind": "fill", "routine": "indexed_fill", "n": 130}, 3, 64),
    # two blocks a unit for each tensor; in fours, 16 B a thread, 12,800 B of each of three
    ({"kind": "cat", "routine": "cat", "n": 100}, 2 * 2 * UNITS, 512),
    ({"kind": "cat", "routine": "cat", "n": 100, "inputs": 3}, 2 * 3 * UNITS, 512),
    ({"kind": "cat", "routine": "cat_vectorized", "m": 64, "n": 100, "inputs": 3}, 3 * 7, 128),
    ({"kind": "cat", "routine": "cat_vectorized", "m": 10**6, "n": 100}, 2 * 32 * UNITS, 128),
    ({"kind": "grouped_gemm", "routine": "grouped_matrix", "m": 64, "n": 9}, UNITS, 384),
    ({"kind": "setup", "routine": "grouped_setup", "m": 64}, 1, 64),
    ({"kind": "memset", "routine": "fill_engine", "n": 4}, 0, 0),
    ({"kind": "pointwise", "routine": "mine", "n": 4}, 0, 0),
    ({"kind": "pointwise", "routine": "vectorized", "n": 4, "blocks": 7, "threads": 96}, 7, 96),
])  # fmt: skip
def test_launch_grids(given, blocks, threads):
    row = made(**given)
    assert (row["blocks"], row["threads"]) == (blocks, threads)


@pytest.mark.parametrize(("given", "said"), [
    ({"kind": "pointwise", "dtype": "fp12"}, "unknown type: 'fp12'"),
    ({"kind": "pointwise", "of": "fp12"}, "unknown type: 'fp12'"),
    ({"kind": "matmul"}, "unknown kind: 'matmul'"),
    ({"kind": "pointwise", "n": "rows - 5"}, "a kernel, n: not a number from 0: -1"),
    ({"kind": "pointwise", "reads": "-1"}, "a kernel, reads: not a number from 0: -1"),
    ({"kind": "pointwise", "reads": "10.0 ** 31"}, "not a number from 0"),
    ({"kind": "pointwise", "flop": "'many'"}, "not a number from 0: 'many'"),
])  # fmt: skip
def test_values_that_no_kernel_has_are_refused(given, said):
    with pytest.raises(InputError) as error:
        made(**given)
    assert said in str(error.value)


# ---------------------------------------------------------------- files of lowerings

ALONE = {
    "title": "a lowering", "source": "a test", "units": 10, "library": "mine",
    "experts": "together", "latent": "expanded",
    "ngram": {"fixed": "1 us", "token": "0 s", "source": "a test"},
    "ops": {
        "residual": {"steps": [{"kernel": "add", "kind": "pointwise", "m": "rows", "n": "width"}]},
        "ffn": {
            "let": {"half": "width / 2", "quarter": "half / 2"},
            "steps": [
                {"op": "residual", "times": 2, "when": "rows > 1",
                 "sizes": {"rows": "rows", "width": "quarter"}},
                {"do": [{"kernel": "a", "kind": "fill", "n": "half", "library": "other"},
                        {"kernel": "b", "kind": "fill", "n": 1}], "times": "bias + 1"},
            ],
        },
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    file = tmp_path_factory.mktemp("lowerings") / "alone.yaml"
    file.write_text(yaml.safe_dump(ALONE))
    return file


def lowered(file, *operators):
    return lower("t", [Phase("decode", operators)], load_lowering(str(file)), "bf16", {})


FFN = {"rows": 3, "inner": 8, "width": 16, "operations": 4, "bias": 1}


def test_times_when_and_lists_by_hand(alone):
    w = lowered(alone, operator("ffn", 5, **FFN))
    assert w.text("kernel").tolist() == ["add", "add", "a", "b", "a", "b"]
    assert w["n"].tolist() == [4, 4, 8, 1, 8, 1]
    assert w.text("library").tolist() == ["mine", "mine", "other", "mine", "other", "mine"]
    assert set(w["layer"]) == {5}
    one = lowered(alone, operator("ffn", **FFN | {"rows": 1, "bias": 0}))
    assert one.text("kernel").tolist() == ["a", "b"]


def test_a_lowering_takes_what_it_does_not_say_from_its_base(alone):
    file = alone.with_name("above.yaml")
    adds = [{"kernel": "mine", "kind": "pointwise"}]
    above = {"title": "another", "source": "a test", "base": str(alone), "library": "yours"}
    file.write_text(yaml.safe_dump({**above, "ops": {"residual": {"steps": adds}}}))
    how = load_lowering(str(file))
    assert (how.name, how.units, how.library, how.experts) == ("above", 10, "yours", "together")
    assert how.ngram_s == (1e-6, 0.0)
    w = lowered(file, operator("ffn", **FFN))  # what stands on an operator has the new one
    assert w.text("kernel").tolist()[:2] == ["mine", "mine"]
    assert w.text("library").tolist()[:2] == ["yours", "yours"]


def test_an_operator_without_kernels_is_told_with_the_lowering(alone):
    with pytest.raises(InputError, match=r"alone: .*no kernels for this operator: 'argmax'"):
        lowered(alone, operator("argmax", rows=1, width=5))
    with pytest.raises(InputError, match=r"alone: .*no kernels for this operator: 'embed'"):
        template("paddleocr_vl", "decode", lowering=str(alone))


def test_operators_that_are_made_of_each_other_are_refused(alone):
    """Two of them, each with another size every time, so that none is known already."""

    def larger():
        return {"rows": "rows + 1", "width": "width"}

    file = alone.with_name("circle.yaml")
    ops = {"residual": {"steps": [{"op": "rms_norm", "sizes": larger()}]},
           "rms_norm": {"steps": [{"op": "residual", "sizes": larger()}]}}  # fmt: skip
    file.write_text(yaml.safe_dump(ALONE | {"ops": ops}))
    with pytest.raises(InputError, match=r"circle: .*operators that are made of each other"):
        lowered(file, operator("residual", rows=1, width=1))


def test_two_lowerings_that_stand_on_each_other_are_refused(alone):
    files = [alone.with_name(name) for name in ("one.yaml", "two.yaml")]
    for file, base in zip(files, reversed(files), strict=True):
        file.write_text(yaml.safe_dump(ALONE | {"base": str(base)}))
    with pytest.raises(InputError, match="stands on itself"):
        load_lowering(str(files[0]))


def test_kernels_of_layers_that_repeat_are_made_once(monkeypatch):
    import npusim.templates.lower as module

    calls = []
    monkeypatch.setattr(module, "kernel_row", lambda *a: calls.append(a) or kernel_row(*a))
    counts = []
    for layers in (2, 40):
        calls.clear()
        w = template("paddleocr_vl", "decode", settings={"decoder.layers": layers})
        counts.append((len(calls), len(w)))
    assert counts[0][0] == counts[1][0] < counts[0][1]
    assert counts[1][1] - counts[0][1] == 38 * 42  # as many kernels a layer as in the trace


# ---------------------------------------------------------------- what is asked


@pytest.mark.parametrize(("phase", "asked", "said"), [
    ("train", {}, "unknown phase: 'train' (allowed: prefill, decode, vision, page)"),
    ("decode", {"batch": 0}, "batch: out of range: 0 (allowed: 1 to 1,000,000)"),
    ("decode", {"batch": True}, "batch: not a whole number: True"),
    ("decode", {"batch": 2.0}, "batch: not a whole number: 2.0"),
    ("decode", {"batch": 10**6 + 1}, "batch: out of range"),
    ("decode", {"context": -1}, "context: out of range: -1 (allowed: 1 to 1,000,000,000)"),
    ("decode", {"context": 0}, "context: out of range: 0"),
    ("decode", {"context": True}, "context: not a whole number: True"),
    ("decode", {"new": 3}, "new: not of decode: 3"),
    ("decode", {"steps": 0}, "steps: out of range: 0"),
    ("decode", {"steps": 10**6}, "steps: out of range"),
    ("decode", {"draft": 2}, "draft: drafted tokens and their acceptance go together: 2"),
    ("decode", {"acceptance": 0.5}, "acceptance: drafted tokens and their acceptance go together"),
    ("decode", {"draft": 2, "acceptance": 1.5}, "acceptance: out of range: 1.5 (allowed: 0 to 1)"),
    ("decode", {"draft": 2, "acceptance": -0.1}, "acceptance: out of range: -0.1"),
    ("decode", {"draft": 2, "acceptance": float("nan")}, "acceptance: out of range: nan"),
    ("decode", {"draft": -1, "acceptance": 0.5}, "draft"),
    ("decode", {"image": (64, 64)}, "image: not of decode: (64, 64)"),
    ("decode", {"images": 2}, "images: not of decode: 2"),
    ("decode", {"logits": "all"}, "logits: not of decode: 'all'"),
    ("decode", {"experts_hit": 5.9}, "experts_hit: out of range: 5.9 (allowed: 6 to 6)"),
    ("decode", {"experts_hit": 25.0, "batch": 4}, "experts_hit: out of range: 25.0"),
    ("decode", {"experts_hit": 65.0, "batch": 40}, "experts_hit: out of range: 65.0"),
    ("decode", {"experts_hit": float("nan")}, "experts_hit: out of range: nan"),
    ("prefill", {"steps": 2}, "steps: not of prefill: 2"),
    ("prefill", {"draft": 2, "acceptance": 0.5}, "draft: not of prefill: 2"),
    ("prefill", {"acceptance": 0.5}, "acceptance: not of prefill: 0.5"),
    ("prefill", {"context": 0}, "context: out of range: 0"),
    ("prefill", {"context": -1, "new": 1}, "context: out of range: -1"),
    ("prefill", {"new": 0}, "new: out of range: 0"),
    ("prefill", {"logits": "some"}, "unknown choice of logits: 'some' (allowed: all, last)"),
    ("prefill", {"image": (64, 64)}, "image: not of prefill: (64, 64)"),
    ("vision", {"batch": 2}, "batch: not of vision: 2"),
    ("vision", {"new": 2}, "new: not of vision: 2"),
    ("vision", {"experts_hit": 6.0}, "experts_hit: not of vision: 6.0"),
    ("vision", {"images": 10**5}, "images: out of range: 100000"),
    ("page", {"context": 9}, "context: not of page: 9"),
    ("page", {"steps": 9}, "steps: not of page: 9"),
    ("page", {"logits": "all"}, "logits: not of page: 'all'"),
    ("page", {"image": (64, 64)}, "image: not of page: (64, 64)"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(phase, asked, said):
    with pytest.raises(InputError) as error:
        template("deepseek_ocr", phase, **asked)
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_experts_of_a_dense_model_are_refused():
    with pytest.raises(InputError, match="experts_hit: of a model without experts"):
        template("paddleocr_vl", "decode", experts_hit=2.0)


def test_more_steps_than_a_workload_holds_are_refused_before_they_are_made(monkeypatch):
    import npusim.templates.lower as module

    monkeypatch.setattr(module, "_MOST", 10_000)
    assert len(template("paddleocr_vl", "decode", steps=12)) == 12 * 782
    with pytest.raises(InputError, match=r"too many kernels: 10166 .allowed: up to 10,000"):
        template("paddleocr_vl", "decode", steps=10**5)  # thirteen of them are made


def test_tokens_are_those_of_the_page_or_a_thousand():
    assert template("paddleocr_vl", "decode").meta["context"] == 628
    assert template("llama_3_1_8b", "decode", lowering="npu").meta["context"] == 1024
    whole = template("paddleocr_vl", "prefill").meta
    assert (whole["context"], whole["new"]) == (0, 628)
    chunk = template("paddleocr_vl", "prefill", context=100, new=28).meta
    assert (chunk["context"], chunk["new"]) == (100, 28)


def test_each_decode_step_has_a_key_more():
    w = template("paddleocr_vl", "decode", context=9, steps=3)
    keys = [set(w["n"][w.mask("kind", "attention") & (w["step"] == i)]) for i in range(3)]
    assert keys == [{10}, {11}, {12}]


def test_logits_of_all_tokens_or_of_the_last():
    rows = {}
    for logits in ("last", "all"):
        w = template("paddleocr_vl", "prefill", context=50, batch=3, logits=logits)
        rows[logits] = set(w["m"][w["n"] == 103424])
    assert rows == {"last": {3}, "all": {150}}


def test_drafted_tokens_are_verified_together():
    w = template("paddleocr_vl", "decode", context=50, batch=3, draft=4, acceptance=0.5)
    assert set(w["m"][w["n"] == 103424]) == {3 * 5}
    # 1 + 1/2 + 1/4 + 1/8 + 1/16 of each sequence
    assert w.meta["tokens_per_step"] == pytest.approx(3 * 1.9375)


# ---------------------------------------------------------------- experts


def test_experts_that_are_hit_by_hand():
    # of four, each token misses an expert with 1/2: two tokens hit 4 x 3/4, three 4 x 7/8
    assert expected_hit(zipf(4, 0.0), 2, 2) == pytest.approx(3)
    assert expected_hit(zipf(4, 0.0), 2, 3) == pytest.approx(3.5)
    assert loads(zipf(4, 0.0), 2, 2) == [2, 1, 1]
    assert loads(zipf(4, 0.0), 2, 6, 4) == [3, 3, 3, 3]
    # each of six tokens chooses the popular one, and none chooses it twice
    assert loads(np.array([1e9, 1.0, 1.0]), 2, 6, 3) == [6, 3, 3]


@given(st.integers(1, 300), st.floats(0, 3), st.data())
def test_loads_of_experts(count, skew, data):
    chosen = data.draw(st.integers(1, count))
    tokens = data.draw(st.integers(1, 5000))
    popularity = zipf(count, skew)
    found = loads(popularity, chosen, tokens)
    assert sum(found) == chosen * tokens
    assert found == sorted(found, reverse=True) and 1 <= min(found) <= max(found) <= tokens
    assert chosen <= len(found) <= min(count, chosen * tokens)
    expected = expected_hit(popularity, chosen, tokens)
    assert abs(len(found) - expected) <= 0.5 + 1e-6 * expected
    hit = data.draw(st.integers(chosen, min(count, chosen * tokens)))
    told = loads(popularity, chosen, tokens, hit)
    assert len(told) == hit and sum(told) == chosen * tokens


@given(st.integers(2, 200), st.integers(1, 100))
def test_experts_alike_have_loads_alike(count, tokens):
    found = loads(zipf(count, 0.0), 1, tokens)
    assert max(found) - min(found) <= 1


@given(st.integers(2, 200), st.floats(0.1, 3), st.integers(1, 500))
def test_popular_experts_leave_others_alone(count, skew, tokens):
    even, skewed = (expected_hit(zipf(count, s), 1, tokens) for s in (0.0, skew))
    assert skewed <= even * (1 + 1e-9)
    assert expected_hit(zipf(count, skew), 1, tokens + 1) >= skewed


def test_experts_hit_are_the_mean_of_the_layers():
    w = template("deepseek_ocr", "decode", context=9, batch=4, experts_hit=10.5)
    # gate and up of an expert are one product of 2 x 896; those of the shared are two of 1,792
    wide = w.mask("kind", *PRODUCTS) & (w["n"] == 1792) & (w["k"] == 1280)
    each = [int(wide[w["layer"] == layer].sum()) - 2 for layer in range(1, 12)]
    assert sum(each) == round(11 * 10.5) and set(each) == {10, 11}


# ---------------------------------------------------------------- work of a decoder


@st.composite
def decoders(draw):
    """Return settings of a dense decoder, and the elements of the weights of its layers."""
    kv, size = draw(st.integers(1, 3)), 2 * draw(st.integers(1, 20))
    heads = kv * draw(st.integers(1, 4))
    layers, hidden, wide = (draw(st.integers(1, n)) for n in (4, 60, 60))
    gated, vocabulary = draw(st.booleans()), draw(st.integers(60, 200))
    values = {
        "layers": layers, "hidden": hidden, "vocabulary": vocabulary, "intermediate": wide,
        "gated": gated, "tied": draw(st.booleans()),
        "attention": {"heads": heads, "kv_heads": kv, "head_size": size},
    }  # fmt: skip
    each = hidden * size * (2 * heads + 2 * kv) + (3 if gated else 2) * hidden * wide
    return values, layers * each


def flop(w):
    """Return FLOP of products with weights, and of attention."""
    return (w["flop"][w.mask("kind", *PRODUCTS) & (w["k"] != 1) & (w["read_weight"] > 0)].sum(),
            w["flop"][w.mask("kind", "attention")].sum())  # fmt: skip


def of(values, phase, **asked):
    return template("llama_3_1_8b", phase, settings={"decoder": values}, **asked)


@settings(max_examples=30)
@given(decoders(), st.integers(1, 5), st.integers(2, 40))
def test_products_are_two_flop_a_row_and_weight(decoder, batch, tokens):
    values, weights = decoder
    if values["hidden"] == 1 or values["intermediate"] == 1:
        return  # k = 1 is how positions become angles
    head = values["hidden"] * values["vocabulary"]
    w = of(values, "prefill", batch=batch, context=tokens)
    products, attention = flop(w)
    assert products == 2 * batch * (tokens * weights + head)
    a = values["attention"]
    pairs = tokens * (tokens + 1) / 2
    assert attention == batch * values["layers"] * a["heads"] * 4 * pairs * a["head_size"]


@settings(max_examples=20)
@given(decoders(), st.integers(1, 4), st.integers(1, 500))
def test_bytes_of_the_cache_are_linear_in_the_context(decoder, batch, context):
    """What attention reads; keys and values of two bytes."""
    values, _ = decoder
    read = []
    for keys in (context, 2 * context + 1):  # and the new token: k + 1, 2 (k + 1)
        w = of(values, "decode", batch=batch, context=keys)
        read.append(w["read_kv"][w.mask("kind", "attention")].sum())
    a = values["attention"]
    per_key = 2 * 2 * a["kv_heads"] * a["head_size"] * values["layers"] * batch
    assert read == [per_key * (context + 1), per_key * 2 * (context + 1)]


@settings(max_examples=20)
@given(decoders(), st.lists(st.integers(1, 30), min_size=2, max_size=4))
def test_chunks_of_a_prompt_are_the_work_of_it(decoder, chunks):
    values, _ = decoder
    if values["hidden"] == 1 or values["intermediate"] == 1:
        return  # k = 1 is how positions become angles
    whole = np.array(flop(of(values, "prefill", context=sum(chunks), logits="all")))
    parts, before = np.zeros(2), 0
    for new in chunks:
        parts += flop(of(values, "prefill", context=before, new=new, logits="all"))
        before += new
    assert parts.tolist() == whole.tolist()


def test_a_name_is_that_of_the_model_and_what_it_does():
    w = template("paddleocr_vl", "decode")
    assert w.name == "paddleocr_vl_decode"
    assert w.meta["model"] == load_model("paddleocr_vl").title
    assert set(w.text("origin")) == {"generated"} and not w["duration_s"].any()
