"""Time against footprint over the edge of the last-level cache, as benchmarks/cache_curves.py."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

import npusim as ns
from npusim.arch import Designs, with_value

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def bench():
    place = importlib.util.spec_from_file_location(
        "cache_curves", ROOT / "benchmarks/cache_curves.py"
    )
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def h200(bench):
    return {c.case: c for c in bench.h200()}


def public(bench, name):
    file = bench.PUBLIC / f"{bench.MACHINES[name]}.txt"
    if not file.is_file():
        pytest.skip(f"the public curve of {name} is not beside the checkout")
    return bench.public(name)


# ---------------------------------------------------------------- the numbers of a curve, by hand


def test_a_knee_by_hand(bench):
    footprint = np.array([1.0, 2.0, 8.0, 16.0])
    # from 1 to 3 the half is 2: between 2 and 8 half-way by the logarithm
    assert bench.knee(footprint, np.array([1.0, 1.0, 3.0, 3.0]), 1.0, 3.0) == pytest.approx(4.0)
    # a start above the half is what few bytes cost, no knee
    assert bench.knee(footprint, np.array([9.0, 1.0, 1.0, 3.0]), 1.0, 3.0) == pytest.approx(
        math.sqrt(128)
    )
    # of several the first
    assert bench.knee(footprint, np.array([1.0, 3.0, 1.0, 3.0]), 1.0, 3.0) == pytest.approx(
        math.sqrt(2)
    )


@pytest.mark.parametrize("time", [[1.0, 1.0, 1.0], [5.0, 5.0, 5.0]])
def test_a_curve_without_an_edge_has_no_knee(bench, time):
    with pytest.raises(ValueError, match=r"no (cold|resident) part"):
        bench.knee(np.array([1.0, 2.0, 4.0]), np.array(time), 1.0, 3.0)


def test_blocks_share_pieces_while_there_are_fewer_of_them(bench):
    pieces = np.array([25, 50, 100, 200])
    assert bench.readers(pieces * bench.PIECE, 100.0).tolist() == [4, 2, 1, 1]


def test_a_curve_is_made_of_its_two_bandwidths(bench):
    """Far below the capacity the cache sets the time, far above it DRAM, whatever blocks share."""
    arch = ns.load_arch("l40")
    time = bench.reading(np.array([2.0**22, 2.0**30]), Designs(arch))
    slow = with_value(arch, "memories.dram.bandwidth", arch["memories.dram.bandwidth"] / 2)
    again = bench.reading(np.array([2.0**22, 2.0**30]), Designs(slow))
    assert again[0] == pytest.approx(time[0], rel=1e-6)
    assert again[1] == pytest.approx(2 * time[1], rel=0.01)


def test_public_points_are_read_as_written(bench, tmp_path):
    file = tmp_path / "curve.txt"
    file.write_text(
        "     data set   exec time     spread       Eff. bw\n"
        "       512 kB      1536 kB        12ms       0.5%    4315.9 GB/s        0 GB/s \n"
        "       512 kB   4881920 kB        30ms       0.1%    1732.3 GB/s        0 GB/s \n"
    )
    footprint, bandwidth = bench.public_points(file)
    assert footprint.tolist() == [1536 * 1024, 4881920 * 1024]
    assert bandwidth == pytest.approx([4315.9e9, 1732.3e9])


# ---------------------------------------------------------------- the H200's own experiment


def test_the_axis_is_whole(h200):
    assert {case: len(c.footprint) for case, c in h200.items()} == {
        "h200, GEMV 1280x1280": 17, "h200, GEMV 6848x1280": 8, "h200, mul_scalar": 18,
    }  # fmt: skip


CASES = ("h200, GEMV 1280x1280", "h200, GEMV 6848x1280", "h200, mul_scalar")


@pytest.mark.parametrize("case", CASES)
def test_every_point_of_the_h200_within_ten_percent(h200, case):
    assert h200[case].errors.max() < 0.10


@pytest.mark.parametrize("case", CASES)
def test_what_a_miss_costs_on_the_h200_within_a_quarter(h200, case):
    c = h200[case]
    assert 0.75 < c.ratio(c.difference) < 1.25


@pytest.mark.parametrize("case", CASES)
def test_knees_of_the_h200(h200, case):
    c = h200[case]
    assert 0.85 < c.ratio(c.knee) < 1.15


# ---------------------------------------------------------------- public curves of other GPUs

NAMES = ("a100", "h100_pcie", "l40", "mi210")


@pytest.mark.shared
@pytest.mark.parametrize("name", NAMES)
def test_knees_of_public_curves(bench, name):
    c = public(bench, name)
    assert 0.85 < c.ratio(c.knee) < 1.15


@pytest.mark.shared
@pytest.mark.parametrize("name", NAMES)
def test_plateaus_of_public_curves(bench, name):
    """DRAM of the models is that of a stream both ways: reads alone reach up to a sixth more."""
    c = public(bench, name)
    ends = zip(c.plateaus(c.measured), c.plateaus(c.predicted), strict=True)
    cache, dram = (predicted / measured for measured, predicted in ends)
    assert 0.9 < cache < 1.1
    assert 0.9 < dram < 1.2


@pytest.mark.shared
def test_without_shared_pieces_the_mi210_would_fall_at_its_capacity(bench, monkeypatch):
    """Blocks that read the same piece together are why it falls at three times its 8 MiB."""
    c = public(bench, "mi210")
    monkeypatch.setattr(bench, "readers", lambda footprint, units: np.ones_like(footprint))
    alone = public(bench, "mi210")
    assert alone.knee(alone.predicted) < 1.25 * 8 * 2**20
    assert c.knee(c.measured) > 3 * 8 * 2**20
