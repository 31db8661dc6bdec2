"""Which floor each kind of operation has: those that start and end alike share one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from npusim import load_arch, load_workload
from npusim.arch import Designs
from npusim.models.floor import floor_path, floor_time
from npusim.models.kernel import kernel_time
from npusim.workload import KINDS
from tests.machines import machine, operations

ROOT = Path(__file__).parents[1]

FLOORS = {
    "matmul": ("gemv", "gemm", "grouped_gemm", "conv"),
    "attention": ("attention",),
    "reduction": ("reduction", "softmax", "norm", "splitk_reduce", "attention_combine"),
    "gather": ("gather", "scatter", "cat"),
    "sort": ("sort", "topk"),
    "memcpy": ("memcpy", "memset"),
    "pointwise": ("pointwise", "activation", "cast", "copy", "fill", "rope", "scan", "setup",
                  "collective", "fused", "unknown"),
}  # fmt: skip
GROUP = {kind: group for group, kinds in FLOORS.items() for kind in kinds}
MICROSECONDS = {"matmul": 1.0, "attention": 2.0, "pointwise": 3.0, "reduction": 0.8, "gather": 5.0,
                "sort": 6.0, "memcpy": 7.0}  # fmt: skip


def test_every_kind_has_the_floor_of_its_group():
    assert set(GROUP) == set(KINDS)
    assert {kind: floor_path(kind) for kind in KINDS} == {k: f"floor.{g}" for k, g in GROUP.items()}


def test_floors_of_several_designs():
    designs = Designs(machine(), {"floor.sort": np.array([6e-6, 1e-6])})
    kinds = [*KINDS]
    found = floor_time(operations(*({"kind": kind} for kind in kinds)), designs)
    assert found.shape == (len(kinds), 2)
    assert found[:, 0] * 1e6 == pytest.approx([MICROSECONDS[GROUP[kind]] for kind in kinds])
    assert found[:, 1] == pytest.approx(
        np.where([GROUP[kind] == "sort" for kind in kinds], 1e-6, found[:, 0])
    )


def test_sums_of_parts_have_their_own_floor_where_it_is_known():
    sums = operations({"kind": "splitk_reduce"}, {"kind": "reduction"})
    arch = replace(machine(), values={**machine().values, "floor.splitk_reduce": 5e-7})
    assert floor_time(sums, Designs(machine()))[:, 0] * 1e6 == pytest.approx([0.8, 0.8])
    assert floor_time(sums, Designs(arch))[:, 0] * 1e6 == pytest.approx([0.5, 0.8])


def test_sums_of_parts_take_what_was_measured():
    """115 of them beside products of one row on an H200."""
    w = load_workload(ROOT / "workloads" / "experiments" / "h200_one_row.parquet")
    rows = np.flatnonzero(w.text("kind") == "splitk_reduce")
    told = kernel_time(w.operations(rows), Designs(load_arch("h200")))[:, 0]
    error = told / w["duration_s"][rows] - 1
    assert len(error) == 115
    assert abs(np.median(error)) < 0.01
    assert np.quantile(np.abs(error), 0.9) < 0.18
