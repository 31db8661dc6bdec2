"""Which floor each kind of operation has: those that start and end alike share one."""

import numpy as np
import pytest

from npusim.arch import Designs
from npusim.models.floor import floor_path, floor_time
from npusim.workload import KINDS
from tests.machines import machine, operations

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
