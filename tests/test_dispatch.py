"""Handing blocks to units: by hand, as laws, and beside kernels of 1 to 4,096 blocks on an H200."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import Designs
from npusim.models.dispatch import rate_time, stagger_time
from tests.machines import machine

FILE = Path(__file__).parents[1] / "workloads/experiments/h200_small_kernels.json"


def designs(**more):
    return Designs(machine(**more))


def test_by_hand():
    # half a block a clock at 1 GHz: 2 ns each; three more units, 5 ns each
    d = designs(units__block_rate=0.5, units__stagger=5)
    blocks = np.array([[0.0], [1.0], [3.0], [4.0], [100.0]])
    np.testing.assert_allclose(rate_time(blocks, d)[:, 0] * 1e9, [0, 2, 6, 8, 200])
    np.testing.assert_allclose(stagger_time(blocks, d)[:, 0] * 1e9, [0, 0, 10, 15, 15])


def test_a_machine_that_does_not_say_starts_all_at_once():
    blocks = np.array([[0.0], [1e6]])
    assert not rate_time(blocks, designs()).any()
    assert not stagger_time(blocks, designs()).any()


@given(
    blocks=st.integers(0, 10**7),
    units=st.integers(1, 500),
    rate=st.floats(0.01, 100),
    stagger=st.floats(0, 100),
)
def test_laws(blocks, units, rate, stagger):
    d = designs(units__count=units, units__block_rate=rate, units__stagger=stagger)
    faster = designs(units__count=units, units__block_rate=2 * rate, units__stagger=stagger)
    one = np.array([[float(blocks)]])
    assert rate_time(2 * one, d) == pytest.approx(2 * rate_time(one, d))
    assert 2 * rate_time(one, faster) == pytest.approx(rate_time(one, d))
    assert stagger_time(one, d) <= stagger_time(one + 1, d) <= (units - 1) * stagger * 1e-9 + 1e-15


@pytest.fixture(scope="module")
def rows():
    return json.loads(FILE.read_text())["rows"]


def kernel(rows, op, dtype, blocks):
    (found,) = (r for r in rows if (r["op"], r["dtype"], r["blocks"]) == (op, dtype, blocks))
    return found["kernel_us"] * 1e-6


def period(rows, op, dtype, blocks):
    (found,) = (r for r in rows if (r["op"], r["dtype"], r["blocks"]) == (op, dtype, blocks))
    return found["period_us"] * 1e-6


@pytest.mark.parametrize("op", ["mul", "neg", "fill"])
def test_what_a_block_more_takes(rows, op):
    """Of 2, 4 and 6 KB alike; the file of the H200 lies between launches alone and in a graph."""
    h200 = Designs(ns.load_arch("h200"))
    alone = (kernel(rows, op, "bfloat16", 4096) - kernel(rows, op, "bfloat16", 1024)) / 3072
    ends = [period(rows, op, "bfloat16", blocks) for blocks in (256, 2048)]
    inside = (ends[1] - ends[0]) / 1792
    assert alone == pytest.approx(0.65e-9, rel=0.03)
    assert inside < rate_time(np.ones((1, 1)), h200).item() * 1.15
    assert rate_time(np.ones((1, 1)), h200).item() < alone


@pytest.mark.parametrize("op", ["mul", "neg", "fill"])
def test_what_all_units_take_more_than_one(rows, op):
    """The rate of blocks, their stagger, and transfers of 0.1 us at most, a tick less or more."""
    h200 = Designs(ns.load_arch("h200"))
    more = kernel(rows, op, "bfloat16", 128) - kernel(rows, op, "bfloat16", 1)
    blocks = np.full((1, 1), 128.0)
    told = (stagger_time(blocks, h200) + rate_time(blocks, h200)).item()
    assert -32e-9 < more - told < 100e-9
