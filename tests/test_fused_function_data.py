"""Special functions of fused chains against kernels of an H200, and what docs/fusion.md says."""

import importlib.util
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import npusim as ns
from npusim.fusion.chains import Limits
from npusim.fusion.program import fused
from npusim.measured.patterns import pattern

ROOT = Path(__file__).parent.parent
FILE = ROOT / "workloads/experiments/h200_fused_functions.json"
AGAIN = FILE.with_name("h200_fused_functions_again.json")

# Greatest median of the error's size [%], eight elements a thread and two. Chains without special
# functions say what is wrong with the form: it knows of no blocks. For GELU and tanh it is wrong
# with eight too: their polynomials on the lanes are not counted.
WITHIN = {
    "mul": (7, 17),
    "steps2": (9, 18),
    "steps12": (11, 25),
    "div": (6, 22),
    "rsqrt": (7, 22),
    "exp": (10, 11),
    "silu": (8, 8),
    "exp4": (9, 13),
    "tanh": (30, 31),
    "gelu": (25, 35),
}


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location(
        "fused_functions", ROOT / "benchmarks/fused_functions.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page():
    return re.sub(r"\s+", " ", (ROOT / "docs/fusion.md").read_text())


def median(bench, name, each, functions):
    """Return the median of the size of the error of a chain's kernels [%]."""
    found = bench.errors(bench.of_chain(name, each), functions)
    return 100 * np.median(np.abs(found))


def said(page, sentence):
    """Return the numbers of a sentence of the page."""
    found = re.search(sentence, page)
    assert found, sentence
    return [float(v) for v in found.groups()]


# ---------------------------------------------------------------- the file


def test_the_run_is_whole(bench):
    found = json.loads(FILE.read_text())
    assert found["errors"] == found["left_out"] == []
    assert (found["device"], found["software"]["torch"]) == ("NVIDIA H200", "2.11.0+cu130")
    steps = Counter((r["function"], r["n"]) for r in bench.rows_of("steps"))
    assert steps == dict.fromkeys(((f, n) for f in bench.CHAINS for n in bench.SIZES), 2)
    rows = Counter((r["function"], r["m"], r["n"]) for r in bench.rows_of("rows"))
    assert rows == dict.fromkeys(((f, *at) for f in ("norm", "norm, weight")
                                  for at in bench.NORMS), 1)  # fmt: skip


def test_a_chain_was_run_in_both_blocks_and_the_compiler_took_one(bench):
    for r in bench.rows_of("steps"):
        assert (r["block"], r["threads"]) in ((1024, 128), (512, 256))
        assert r["grid"] == -(-r["n"] // r["block"])
        assert r["least"] <= r["us"]
    taken = Counter((r["function"], r["n"]) for r in bench.rows_of("steps") if r["taken"])
    assert len(taken) == 80
    assert set(taken.values()) == {1}


def test_compiled_code_has_the_special_functions_that_a_chain_is_said_to_have(bench):
    for r in bench.rows_of("steps"):
        has = bench.CHAINS[r["function"]][1]
        ways = 2 if r["function"] == "tanh" else 1  # small and large arguments, a branch each
        assert r["special"] / bench.each(r) == has * ways


# ---------------------------------------------------------------- the model


def test_counted_are_those_of_the_steps(bench):
    counted = {name: bench.counted(name) for name in bench.CHAINS}
    assert {n: c for n, c in counted.items() if c} == {"exp": 1, "silu": 2, "exp4": 4, "gelu": 1}


@pytest.mark.parametrize("tokens", [1, 64, 1024])
def test_the_benchmark_predicts_what_the_engine_does(bench, tokens):
    h200 = ns.load_arch("h200")
    r = ns.replay(fused(pattern("silu_mul", tokens), Limits(16)), h200, "graph")
    us = (r.device_busy_s + r.launches * h200["launch.graph.interval"]) * 1e6
    row = {"form": "steps", "function": "silu", "m": 1, "n": tokens * 6848}
    assert bench.predicted_us([row], 2) == pytest.approx([us])


@pytest.mark.parametrize("name", WITHIN)
def test_errors_stay_within_what_they_are(bench, name):
    eight, two = WITHIN[name]
    assert median(bench, name, 8, bench.counted(name)) < eight
    assert median(bench, name, 2, bench.counted(name)) < two


@pytest.mark.parametrize("each", [8, 2])
@pytest.mark.parametrize("name", ["silu", "exp4", "gelu"])
def test_without_their_functions_chains_would_be_further_off(bench, name, each):
    assert median(bench, name, each, 0) > median(bench, name, each, bench.counted(name))


def test_in_kernels_that_the_compiler_took_the_term_halves_the_error(bench):
    rows = [r for r in bench.rows_of("steps") if r["taken"]]
    without, counted = [], []
    for name in ("exp", "silu", "exp4"):
        some = [r for r in rows if r["function"] == name]
        without += bench.errors(some)
        counted += bench.errors(some, bench.counted(name))
    assert np.median(np.abs(counted)) < 0.55 * np.median(np.abs(without))


# ---------------------------------------------------------------- the page


def test_the_table_of_the_page_is_that_of_the_benchmark(bench):
    assert bench.by_function() in (ROOT / "docs/fusion.md").read_text()


def test_what_the_page_says_of_functions(bench, page):
    def off(name, functions, each=8):
        return round(100 * np.median(bench.errors(bench.of_chain(name, each), functions)))

    assert said(page, r"without it they are (\d+) and (\d+) % too fast") == [
        -off("silu", 0), -off("exp4", 0),
    ]  # fmt: skip
    assert said(page, r"counted, they would be (\d+) and (\d+) % too slow") == [
        off("div", 1), off("rsqrt", 1),
    ]  # fmt: skip
    assert said(page, r"wrong: (\d+) and (\d+) % too fast \(.*? counted (\d+) %\)") == [
        -off("gelu", 1), -off("tanh", 0), -off("tanh", 1),
    ]  # fmt: skip
    listed = [bench.of_chain(name, 8)[0]["instructions"] / 8 for name in ("gelu", "tanh")]
    assert said(page, r"(\d+) and (\d+) instructions an element") == [round(v) for v in listed]
    longer = [v / 128 * 16 for v in listed]
    assert 3 <= min(longer) < max(longer) <= 5
    # a single exponential is nearer without
    assert median(bench, "exp", 8, 0) < median(bench, "exp", 8, 1)


def test_what_the_page_says_of_blocks(bench, page):
    us = {(r["function"], r["n"], bench.each(r)): r["us"] for r in bench.rows_of("steps")}
    over = [us[f, n, 2] / us[f, n, 8] - 1 for f in bench.CHAINS for n in bench.SIZES if n > 1.1e6]
    assert said(page, r"elements on they take (\d+) to (\d+) % longer") == [
        round(100 * min(over)), round(100 * max(over)),
    ]  # fmt: skip
    few = [us[f, n, 2] / us[f, n, 8] - 1 for f in bench.CHAINS for n in bench.SIZES if n < 6e5]
    assert said(page, r"half a million (\d+) % less to (\d+) % more") == [
        round(-100 * min(few)), round(100 * max(few)),
    ]  # fmt: skip
    first, again = (
        {(r["function"], r["n"]): r["block"] for r in bench.rows_of("steps", f) if r["taken"]}
        for f in (FILE, AGAIN)
    )
    other = sum(first[at] != again[at] for at in first)
    assert said(page, r"the other for (\d+) of (\d+) chains") == [other, len(first)]
    n = 4096 * 1024
    assert said(
        page, r"take ([\d.]+) and ([\d.]+) µs with eight, ([\d.]+) and ([\d.]+) µs with"
    ) == [round(us[f, n, each], 1) for each in (8, 2) for f in ("steps2", "steps12")]


def test_what_the_page_says_of_norms(bench, page):
    of = {}
    for name in ("norm", "norm, weight"):
        rows = [r for r in bench.rows_of("rows") if r["function"] == name]
        of[name] = [round(100 * e) for e in bench.errors(rows)], [r["us"] for r in rows]
    (bare, bare_us), (weighted, weighted_us) = of.values()
    more = np.subtract(weighted_us, bare_us)
    sentence = (
        r"seven sizes are (\d+) % too fast to (\d+) % too slow; .*? "
        r"takes ([\d.]+) to ([\d.]+) µs, (\d+) % too fast to (\d+) % too slow"
    )
    assert said(page, sentence) == [
        -min(bare), max(bare), round(min(more), 2), round(max(more), 2), -min(weighted),
        max(weighted),
    ]  # fmt: skip
