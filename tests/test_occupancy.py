"""Occupancy: blocks and threads by hand, laws, and what Nsight Compute says of 754 kernels."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim import catalog
from npusim.arch import Designs
from npusim.models.occupancy import LIMITS, occupancy
from tests.machines import machine, operations

ROOT = Path(__file__).parents[1]
NCU = ROOT.parent / "shared" / "baselines" / "h200" / "ncu"
# Four units as large as those of compute capability 9.0.
HOLDS = {"units__threads": 2048, "units__blocks": 32, "units__registers": 65536,
         "units__shared_memory": 233472}  # fmt: skip


def launch(blocks=1000, threads=256, registers=0, shared=0.0):
    return {"blocks": blocks, "threads": threads, "registers": registers, "shared_memory": shared}


def held(row, **changes):
    return occupancy(operations(row), Designs(machine(**{**HOLDS, **changes})))


# --- limits by hand --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "limit", "blocks"),
    [
        (launch(threads=256), "threads", 8),  # 2048 / 256
        (launch(threads=100), "threads", 16),  # 64 warps / 4: a warp is whole
        (launch(threads=32), "blocks", 32),
        (launch(registers=64), "registers", 4),  # 65536 / (64 x 256)
        (launch(registers=65), "registers", 3),  # 2080 a warp are 2304: 28 warps of 8
        (launch(threads=96, registers=48), "registers", 13),  # 42 warps are 40: quarters of a unit
        (launch(threads=384, registers=168), "registers", 1),  # 12 warps of 5376
        (launch(threads=32, shared=16384.0), "shared_memory", 13),  # of 17 KiB
        (launch(threads=128, shared=86336.0), "shared_memory", 2),  # 87360 are 87424
        (launch(threads=64, registers=16, shared=16.0), "threads", 32),  # blocks too: the first
    ],
)
def test_the_scarcest_resource_decides(row, limit, blocks):
    found = held(row)
    assert found.resident.item() == blocks == found.limits[limit].item()
    assert found.decides.item() == limit
    assert found.blocks.item() == blocks
    assert found.threads.item() == 4 * blocks * row["threads"]


def test_a_grid_gives_some_units_a_block():
    found = held(launch(blocks=3, threads=512, registers=32))
    assert found.resident.item() == 4
    assert found.blocks.item() == 1 and found.decides.item() == "grid"
    assert found.threads.item() == 3 * 512
    assert held(launch(blocks=10, threads=512)).blocks.item() == 2.5  # on average


def test_what_a_machine_or_a_trace_does_not_say_limits_nothing():
    d = Designs(machine())
    found = occupancy(operations(launch(blocks=100, registers=255, shared=1e5)), d)
    assert found.resident.item() == np.inf and found.threads.item() == 100 * 256
    unknown = held({"blocks": 0, "threads": 0})
    assert np.isnan(unknown.blocks).all() and np.isnan(unknown.threads).all()
    assert unknown.decides.item() == ""
    bare = operations({"blocks": 100, "threads": 256})  # no column of registers
    assert occupancy(bare, Designs(machine(**HOLDS))).decides.item() == "threads"


def test_a_block_that_does_not_fit_runs_alone():
    for row in (launch(threads=4096), launch(registers=2000), launch(shared=1e6)):
        assert held(row).resident.item() == 1


def test_each_design_has_its_own_limits():
    d = Designs(machine(**HOLDS), {"units.registers": np.array([16384.0, 65536.0])})
    found = occupancy(operations(launch(registers=64), launch(registers=32)), d)
    assert found.resident.tolist() == [[1, 4], [2, 8]]
    assert found.decides.tolist() == [["registers", "registers"], ["registers", "threads"]]


@given(threads=st.integers(1, 1024), registers=st.integers(0, 255), shared=st.floats(0, 1e5),
       blocks=st.integers(1, 10**6), limit=st.sampled_from(LIMITS),
       factor=st.floats(0.01, 1))  # fmt: skip
def test_more_of_anything_holds_no_fewer_blocks(threads, registers, shared, blocks, limit, factor):
    path = f"units.{limit}"
    whole = HOLDS[path.replace(".", "__")]
    less = max(whole * factor, {"blocks": 1, "threads": 32}.get(limit, 1024))
    d = Designs(machine(**HOLDS), {path: np.array([less, whole])})
    found = occupancy(operations(launch(blocks, threads, registers, shared)), d)
    assert found.resident[0, 0] <= found.resident[0, 1]
    assert found.threads[0, 0] <= found.threads[0, 1] <= blocks * threads
    assert (found.blocks <= found.resident).all()


# --- machines and traces ---------------------------------------------------------------------


@pytest.mark.parametrize("name", catalog.names("archs"))
def test_a_machine_says_all_of_its_limits_or_none(name):
    given_ = [limit for limit in LIMITS if f"units.{limit}" in ns.load_arch(name).values]
    assert given_ in ([], list(LIMITS))
    assert "units.thread_in_flight" not in ns.load_arch(name).values  # nothing measured asks for it


def test_decode_kernels_are_small_grids():
    def by_grid(name):
        w = ns.load_workload(name)
        columns = {c: w[c] for c in launch_columns}
        found = occupancy(replace(w.operations(), columns=columns), Designs(ns.load_arch("h200")))
        return (found.decides == "grid").sum() / (found.decides != "").sum()

    launch_columns = ("blocks", "threads", "registers", "shared_memory")
    assert by_grid("paddleocr_vl_decode") > 0.75
    assert by_grid("deepseek_ocr_vision") < 0.5


# --- Nsight Compute on an H200 ---------------------------------------------------------------


@pytest.fixture(scope="module")
def pages():
    if not NCU.exists():
        pytest.skip("../shared/baselines/h200/ncu is not here")
    place = importlib.util.spec_from_file_location("occupancy", ROOT / "benchmarks/occupancy.py")
    bench = importlib.util.module_from_spec(place)
    place.loader.exec_module(bench)
    return bench, [bench.kernels(path) for path in sorted(NCU.glob("ncu_*.csv.gz"))]


def test_limits_are_those_of_nsight_compute(pages):
    bench, tables = pages
    assert [len(table) for table in tables] == [472, 282]
    for table in tables:
        found = bench.agreement(table, ns.load_arch("h200"))
        assert set(found) == {*LIMITS, "resident", "theory"}
        assert set(found.values()) == {len(table)}


def test_few_blocks_and_no_limit_keep_occupancy_low(pages):
    bench, tables = pages
    for table in tables:
        found = bench.of_grids(table, ns.load_arch("h200"))
        assert found["theory"] > 0.8 and found["achieved"] < 0.11
        assert 1.0 < found["law"] / found["achieved"] < 1.4  # blocks start and end one by one
        assert found["correlation"] > 0.98
        assert found["grid"] > 0.75 and found["one wave"] > 0.9
