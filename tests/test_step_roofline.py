"""The roofline of a step by look-up is that of its operations added up."""

from __future__ import annotations

import numpy as np
import pytest

import npusim as ns
from npusim.arch import Designs
from npusim.models.roofline import compute_time, memory_time
from npusim.sweeps.roofline import StepRoofline


@pytest.mark.parametrize("name", ["deepseek_ocr_decode", "paddleocr_vl_prefill"])
@pytest.mark.parametrize("machine", ["decode_npu", "h200"])
def test_it_is_the_sum_of_the_larger_time_of_each_operation(name: str, machine: str) -> None:
    w, rng = ns.load_workload(name), np.random.default_rng(5)
    designs = Designs(ns.load_arch(machine), {
        "memories.dram.bandwidth": 10 ** rng.uniform(11, 14, 300),
        "matrix.bf16.rate": 10 ** rng.uniform(2, 4, 300),
        "vector.fp32.rate": 10 ** rng.uniform(0, 3, 300),
        "units.count": rng.integers(1, 200, 300).astype(float),
    })  # fmt: skip
    every = w.operations()
    slowest = np.maximum(compute_time(every, designs), memory_time(every, designs))
    expected = slowest.sum(axis=0) / len(w.steps)
    np.testing.assert_allclose(StepRoofline(w).seconds(designs), expected, rtol=1e-9)


def test_a_step_without_arithmetic_is_its_bytes_over_the_bandwidth() -> None:
    """1 B/s of bandwidth at an efficiency of 1: seconds are the bytes of a step."""
    w = ns.load_workload("paddleocr_vl_decode")
    slow = {"memories.dram.bandwidth": np.array([1e6]), "memories.dram.efficiency": np.array([1.0])}
    seconds = StepRoofline(w).seconds(Designs(ns.load_arch("h200"), slow)).item()
    assert seconds * 1e6 == pytest.approx(w.operations().bytes_moved.sum() / len(w.steps))


def test_no_replay_without_caches_is_faster() -> None:
    w, h200 = ns.load_workload("deepseek_ocr_prefill"), ns.load_arch("h200")
    busy = ns.replay(w, h200, launch="graph").device_busy_s
    assert StepRoofline(w).seconds(Designs(h200)).item() < busy
