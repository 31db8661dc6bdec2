"""Walls of benchmarks/walls.py: measured steps beside replays of their own traces and of others."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import npusim as ns
from npusim.arch import Designs
from npusim.durations import as_measured
from npusim.lanes import replay

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def walls():
    place = importlib.util.spec_from_file_location("walls", ROOT / "benchmarks" / "walls.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


# What was asked: worst and median error.
@pytest.mark.shared
@pytest.mark.parametrize(
    ("section", "worst", "median"),
    [("traced", 0.02, 0.02), ("unprofiled", 0.20, 0.10), ("graphs", 0.04, 0.04),
     ("static", 0.12, 0.12), ("batches", 0.12, 0.12)],
)  # fmt: skip
def test_walls_are_as_measured(walls, section, worst, median):
    rows = [r for r in getattr(walls, section)() if not r.fitted]
    errors = np.abs([r.error for r in rows])
    assert len(errors) >= 3
    assert errors.max() < worst and np.median(errors) < median, rows


# Device times as measured: several streams, copies and threads of other programs.
@pytest.mark.parametrize(
    "name", ["hta/trace_diff_control_control", "hta/timeline_analysis_sampled_rank-0",
             "tracelens/h100_google_owlv2-large-patch14-ensemble__1016001"]
)  # fmt: skip
def test_steps_of_others_are_replayed_as_traced(shared, name):
    file = shared / "external" / "traces" / f"{name}.json.gz"
    if not file.is_file():
        pytest.skip("../shared/external/traces is not beside the checkout")
    w = ns.import_trace(file)
    found = replay(w, Designs(ns.load_arch("h200")), as_measured(w), "eager")
    assert found.wall_s[0] == pytest.approx(w.steps.wall_s.mean(), rel=0.005)
    assert found.device_active_s[0] <= found.device_busy_s[0] * (1 + 1e-9)
