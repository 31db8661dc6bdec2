"""What first loads wait for DRAM, by hand and against kernels measured warm and cold."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import Designs
from npusim.measured.shapes import operations as measured
from npusim.measured.shapes import pointwise
from npusim.models.first_wait import first_wait
from npusim.models.kernel import kernel_time
from npusim.models.links import links
from tests.machines import machine, operations

FILE = Path(__file__).parents[1] / "workloads/experiments/h200_small_kernels.json"
WAIT = 50e-9  # what DRAM's first data come later than the cache's
FAR = {"memories__dram__latency": 51e-9, "memories__l2__latency": 1e-9}


def found(links=0.0, **row):
    one = operations({"kind": "pointwise", "batch": 1, "m": 1, "n": 512, **row})
    return first_wait(one, np.array([[links]]), Designs(machine(**FAR))).item()


@pytest.mark.parametrize(
    ("row", "waits"),
    [
        ({"read_activation": 1024.0, "distance_activation": 1024.0}, 0),  # resident
        ({"read_activation": 1024.0}, 1),
        ({"read_weight": 2.0, "read_activation": 1024.0, "distance_activation": 1.0}, 1),
        ({"read_kv": 2.0}, 1),
        ({"write_activation": 1024.0}, 0),  # what is written is not waited for
        ({}, 0),
    ],
)
def test_one_operand_from_dram_holds_up_all(row, waits):
    for routine in ("vectorized", "cat_vectorized", "index"):
        assert found(4.0, threads=128, routine=routine, **row) == pytest.approx(waits * WAIT)


@pytest.mark.parametrize(
    ("dtype", "links", "threads", "read", "waits"),
    [
        ("bf16", 4, 128, 1024.0, 2),  # 256 B a link: DRAM gives two of them at once
        ("fp32", 2, 128, 2048.0, 2),  # 512 B
        ("fp32", 4, 128, 1024.0, 2),  # a cast from bf16: it loads two bytes an element
        ("bf16", 4, 1024, 1024.0, 4),  # never more than links
        ("bf16", 1, 32, 1024.0, 1),
        ("bf16", 0, 0, 1024.0, 1),  # a launch that nobody knows
    ],
)
def test_one_after_the_other_waits_for_each_512_bytes(dtype, links, threads, read, waits):
    row = {"routine": "strided", "dtype": dtype, "threads": threads, "read_activation": read}
    assert found(float(links), **row) == pytest.approx(waits * WAIT)


@given(st.floats(0, 8), st.integers(0, 1024), st.floats(1, 1e9))
def test_it_is_never_less_than_one_miss_nor_more_than_one_a_link(loads, threads, read):
    for routine in ("strided", "vectorized"):
        wait = found(loads, routine=routine, threads=threads, read_activation=read)
        assert WAIT * (1 - 1e-9) <= wait <= max(np.ceil(loads), 1) * WAIT * (1 + 1e-9)


def test_a_machine_whose_memory_is_no_slower_waits_for_nothing():
    one = operations({"kind": "pointwise", "routine": "vectorized", "read_activation": 8.0})
    assert first_wait(one, np.zeros((1, 1)), Designs(machine())).item() == 0.0


def test_cold_kernels_of_an_h200_take_longer_by_about_that():
    """Bandwidth included: 0.3 to 1.3 us measured, within half of it or 0.3 us."""
    h200 = Designs(ns.load_arch("h200"))
    rows = [r for r in json.loads(FILE.read_text())["rows"]
            if r["op"] in ("mul", "neg") and r["blocks"] in (128, 256, 512)]  # fmt: skip
    assert len(rows) == 12
    for r in rows:
        dtype = {"bfloat16": "bf16", "float32": "fp32"}[r["dtype"]]
        grid = {"blocks": r["grid"], "threads": 128}
        both = [replace(pointwise(dtype, r["op"], r["blocks"] * 1024, copies), **grid)
                for copies in (1, 1e6)]  # fmt: skip
        warm, cold = kernel_time(measured(both), h200)[:, 0] * 1e6
        seen = r["cold_us"] - r["kernel_us"]
        assert cold - warm == pytest.approx(seen, rel=0.5, abs=0.3)


def test_a_norms_weights_hold_up_the_kernel_that_reads_them():
    w = ns.load_workload("paddleocr_vl_decode_b32")
    rows = np.flatnonzero((w["read_weight"] == 2048) & w.mask("routine", "strided"))
    assert len(rows) > 50
    o = w.operations(rows)
    elements = np.full((len(rows), 1), 32 * 1024.0)
    assert (links(o, elements) == 4).all()
    wait = first_wait(o, links(o, elements), Designs(ns.load_arch("h200")))
    assert wait == pytest.approx(np.full(wait.shape, 0.8e-6), rel=0.01)
