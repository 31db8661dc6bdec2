"""DRAM bytes and times of benchmarks/dram_counters.py: measured ones beside the models."""

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
NCU = ROOT.parent / "shared" / "baselines" / "h200" / "ncu"
CASES = ("paddleocr_vl_decode", "deepseek_ocr_decode")
PRODUCTS, ATTENTION, COPIES, REST = (
    "weight products", "attention", "KV cache copies", "the rest",
)  # fmt: skip
TENTH = 0.1

measured = pytest.mark.skipif(not NCU.exists(), reason="../shared/baselines/h200/ncu is not here")


@pytest.fixture(scope="module")
def bench():
    place = importlib.util.spec_from_file_location(
        "dram_counters", ROOT / "benchmarks/dram_counters.py"
    )
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    module.profiled = lru_cache(module.profiled)
    return module


def off(predicted, found):
    return abs(predicted / found - 1)


# ---------------------------------------------------------------- a step of hand-made numbers


def test_sums_are_those_of_groups_and_of_all(bench):
    rows = pd.DataFrame({"group": [REST, PRODUCTS, REST], "read": [1.0, 4.0, 2.0]})
    found = bench.sums(rows)
    assert found["read"].tolist() == [4.0, 0.0, 0.0, 3.0, 7.0]
    assert found["count"].tolist() == [1, 0, 0, 2, 3]


def test_the_cost_of_profiling_is_that_of_kernels_whose_data_are_in_cache_anyway(bench):
    rows = pd.DataFrame({"group": [REST, REST, REST, PRODUCTS],
                         "profiled": [2.0, 3.5, 9.0, 4.0],
                         "traced": [1.0, 2.0, 1.0, 9.0]})  # fmt: skip
    assert bench.overhead(rows) == 1.5  # the middle one of 1, 1.5 and 8


# ---------------------------------------------------------------- the running step


def test_a_running_step_reads_weights_and_old_cache_from_dram(bench):
    """Counters of one pass, which saves nothing: in all, products and copies within a tenth."""
    found = bench.running_step()
    for name in (PRODUCTS, COPIES, "all"):
        assert off(found.read_step[name], found.read[name]) < TENTH
    # what attention reads was just written: 2 % of its 11.7 MB, with the code of the kernels
    assert found.read[ATTENTION] < 0.02 * found.read_cold[ATTENTION]
    assert found.read_step[ATTENTION] < 0.02 * found.read_cold[ATTENTION]


@pytest.mark.shared
@measured
@pytest.mark.parametrize("name", CASES)
def test_bytes_of_the_kernels_covered_are_within_a_tenth(bench, name):
    """All kernels of the file have an operation; running and emptied caches are both near."""
    p = bench.profiled(name, "dram")
    assert len(p.rows) == p.kernels
    found = bench.sums(p.rows)
    for told in (found.read_step, found.read_cold):
        assert off(told["all"], found.read["all"]) < TENTH
        assert off(told[PRODUCTS], found.read[PRODUCTS]) < TENTH


# ---------------------------------------------------------------- what saving memory does


@pytest.mark.shared
@measured
@pytest.mark.parametrize(("name", "keys", "row"), [(CASES[0], 630, 512), (CASES[1], 1028, 2560)])
def test_the_profiled_context_is_that_of_the_grid_of_its_copies(bench, name, keys, row):
    """A block of 128 threads copies 16 B each, for key and value rows of all heads apart."""
    p = bench.profiled(name, "dram")
    assert p.keys == keys
    profile = bench.load_workload(NCU / f"dram_{bench.CASES[name]}.csv.gz")
    copies = np.array([k.startswith("void at::<unnamed>::CatArrayBatchedCopy_vectorized")
                       for k in profile.text("kernel")])  # fmt: skip
    blocks = profile["blocks"][copies & (profile["blocks"] > 100)]
    assert set(blocks.tolist()) == {2 * -(-(keys - 1) * row // 2048)}


@pytest.mark.shared
@measured
@pytest.mark.parametrize("name", CASES)
def test_three_passes_begin_with_emptied_caches(bench, name):
    """Attention reads from DRAM what the kernel before it wrote: no step leaves that so."""
    found = bench.sums(bench.profiled(name, "dram").rows)
    assert off(found.read_cold[ATTENTION], found.read[ATTENTION]) < TENTH
    assert found.read_step[ATTENTION] < 0.02 * found.read[ATTENTION]


@pytest.mark.shared
@measured
@pytest.mark.parametrize(("name", "all_of_it"), [(CASES[0], 15), (CASES[1], 8)])
def test_a_copy_of_the_cache_reads_all_of_it_or_none(bench, name, all_of_it):
    """Emptied, or at the end of what was saved: nothing between but 4 KB of code."""
    rows = bench.profiled(name, "dram").rows
    copies = rows[rows.group == COPIES]
    share = copies.read / copies.read_cold
    whole = share > 0.5
    assert whole.sum() == all_of_it
    assert (abs(share[whole] - 1) < 0.02).all() and (share[~whole] < 0.02).all()


# ---------------------------------------------------------------- each kernel again and again


@pytest.mark.shared
@measured
def test_a_warm_replay_reads_no_weights_from_dram(bench):
    rows = bench.profiled(CASES[0], "ncu").rows
    products = rows[rows.group == PRODUCTS]
    assert len(products) == 45
    assert products.weights.sum() > 100e6
    assert products.read.sum() < 20e3
    assert products.read_warm.sum() < 20e3


@pytest.mark.shared
@measured
@pytest.mark.parametrize("name", CASES)
def test_times_of_a_warm_replay_with_what_the_profiler_adds(bench, name):
    p = bench.profiled(name, "ncu")
    assert 1.9e9 < p.clock < 1.98e9  # not locked: the boost clock, nearly
    told = p.rows.time_warm.sum() + len(p.rows) * bench.overhead(p.rows)
    assert off(told, p.rows.profiled.sum()) < TENTH


# ---------------------------------------------------------------- weight products of a step


@pytest.mark.shared
@measured
def test_products_of_a_step_take_as_long_as_cold_ones(bench):
    """Each shape of a traced step that the axis has, and the model of it, within a tenth."""
    rows = bench.gemvs().dropna(subset=["cold"])
    assert len(rows) == 19
    assert (off(rows.call, rows.cold) < TENTH).all()
    assert (off(rows.model, rows.cold) < TENTH).all()
