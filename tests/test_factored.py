"""Grids evaluated by what differs give what designs evaluated one by one give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import Arch, Designs, with_value
from npusim.sweeps.evaluate import evaluate
from npusim.sweeps.factored import Factored, refused
from npusim.sweeps.felt import unfelt
from npusim.sweeps.grid import Chosen, Grid, distinct
from npusim.sweeps.order import slowest_first
from npusim.sweeps.term import Term
from npusim.transforms import transformed
from npusim.workload import Workload

SAME = 1e-9

# Values for axes of every kind of model: of the machine, its units, memories, launches and prices.
AXES = {
    "units.count": (24.0, 70.0, 132.0),
    "units.clock": (1.2e9, 1.8e9),
    "matrix.bf16.rate": (512.0, 2048.0, 4096.0),
    "vector.fp32.rate": (128.0, 512.0),
    "memories.dram.bandwidth": (1e12, 2.5e12, 4e12),
    "memories.dram.latency": (3e-7, 8e-7),
    "memories.l2.capacity": (16e6, 64e6, 256e6),
    "memories.victim.capacity": (0.0, 32e6),
    "memories.kv_sram.capacity": (0.0, 48e6),
    "memories.weight_sram.capacity": (0.0, 64e6),
    "memories.l1.capacity": (65536.0, 262144.0),
    "gemv.count": (0.0, 70.0),
    "gemv.lanes": (64.0, 256.0),
    "gemv.batch": (1.0, 8.0),
    "array.rows": (0.0, 8.0),
    "fusion.chain": (0.0, 2.0, 8.0),
    "fusion.branch": (0.0, 600.0),
    "special.rate": (16.0, 256.0),
    "products.place": (0.0, 1.0),
    "floor.matmul": (1e-7, 1e-6),
    "floor.pointwise": (2e-7, 1e-6),
    "launch.queue.interval": (2e-8, 2.8e-7),
    "launch.graph.node": (1e-7, 4e-7),
    "host.sync": (2e-6, 8e-6),
    "host.speed": (0.5, 2.0),
    "gating.clocks": (0.0, 0.9),
    "gating.leakage": (0.0, 0.5),
    "memories.dram.energy": (6.4e-11, 1.4e-10),
    "voltage.slope": (0.25, 0.5),
    "units.spare": (0.0, 4.0),
    "power.limit": (60.0, 120.0, 1e3),
}


def steps(*names: str) -> list[Workload]:
    return [ns.load_workload(name) for name in names]


def grid_over(arch: Arch, *paths: str) -> Grid:
    return Grid(arch, {path: AXES[path] for path in slowest_first(paths)})


def agree(grid: Grid, workloads: list[Workload], launch: str, rows: np.ndarray) -> None:
    counts = [float(i + 1) for i in range(len(workloads))]
    assert not refused(grid, workloads, launch)
    found = Factored(grid, workloads, launch, counts).columns(rows)
    alone = evaluate(grid.designs(rows), workloads, launch, counts=counts)
    assert set(found) == set(alone.columns) - {"launch"}
    for name, values in found.items():
        np.testing.assert_allclose(
            values.astype(float), alone[name].to_numpy(float), rtol=SAME, err_msg=name
        )


@settings(max_examples=10, deadline=None)
@given(
    paths=st.lists(st.sampled_from(sorted(AXES)), min_size=1, max_size=9, unique=True),
    machine=st.sampled_from(["decode_npu", "h200"]),
    step=st.sampled_from(["deepseek_ocr_decode", "paddleocr_vl_decode"]),
    launch=st.sampled_from(["graph", "queue"]),
    seed=st.integers(0, 99),
)
def test_any_axes_give_what_designs_alone_give(
    paths: list[str], machine: str, step: str, launch: str, seed: int
) -> None:
    arch = ns.load_arch(machine)
    grid = grid_over(arch, *(path for path in paths if path in arch.values))
    assume(grid.axes)
    rows = np.random.default_rng(seed).integers(0, len(grid), 40)
    agree(grid, steps(step), launch, rows)


def test_a_page_of_workloads_with_counts() -> None:
    arch = ns.load_arch("decode_npu")
    grid = grid_over(arch, "units.count", "memories.l2.capacity", "host.sync")
    page = steps("deepseek_ocr_vision", "deepseek_ocr_prefill", "deepseek_ocr_decode")
    agree(grid, page, "queue", np.arange(0, len(grid), 3))


def test_changed_work_and_operations_of_no_known_shape() -> None:
    changed = transformed(ns.load_workload("deepseek_ocr_decode"), {"workload.context": 8192.0})
    grid = grid_over(ns.load_arch("decode_npu"), "memories.kv_sram.capacity", "gemv.count")
    agree(grid, [changed], "graph", np.arange(len(grid)))


def test_designs_that_their_limit_slows_are_slowed() -> None:
    arch = with_value(ns.load_arch("decode_npu"), "gating.clocks", 0.0)
    grid = grid_over(arch, "power.limit", "units.count", "memories.dram.bandwidth")
    rows = np.arange(len(grid))
    agree(grid, steps("deepseek_ocr_decode"), "queue", rows)
    found = Factored(grid, steps("deepseek_ocr_decode"), "queue", [1.0]).columns(rows)
    slowed = found["clock_share"] < 1
    assert slowed.any()
    assert not slowed.all()
    assert not slowed[grid.designs(rows)["power.limit"] == 1e3].any()


def test_a_machine_without_energy() -> None:
    arch = ns.load_arch("mi300x")
    grid = grid_over(arch, "units.count", "memories.dram.bandwidth", "launch.graph.node")
    found = Factored(grid, steps("paddleocr_vl_decode"), "graph", [1.0]).columns(np.arange(4))
    assert "energy_j" not in found
    agree(grid, steps("paddleocr_vl_decode"), "graph", np.arange(len(grid)))


@pytest.mark.parametrize(
    ("launch", "path", "values", "why"),
    [
        ("eager", "host.sync", (1e-6, 2e-6), "issues each operation"),
        ("queue", "prefetch.depth", (0.0, 1e6), "loaded ahead"),
        ("queue", "gating.wake", (0.0, 1e-6), "gated wake"),
    ],
)
def test_what_is_no_sum_is_refused(
    launch: str, path: str, values: tuple[float, float], why: str
) -> None:
    arch = with_value(ns.load_arch("decode_npu"), "gating.leakage", 0.5)
    grid = Grid(arch, {path: values})
    assert why in refused(grid, steps("paddleocr_vl_decode"), launch)


def test_terms_read_less_than_all_axes() -> None:
    """Matrix products do not multiply with axes of launches and energy."""
    grid = grid_over(ns.load_arch("decode_npu"), "units.count", "launch.queue.interval",
                     "gating.clocks", "special.rate")  # fmt: skip
    seen: list[int] = []

    def area(designs: Designs) -> dict[str, np.ndarray]:
        seen.append(len(designs))
        return {"twice": 2.0 * designs["units.count"]}

    term = Term(grid, area)
    found = term.at(Chosen(grid, np.arange(len(grid))))
    assert term.axes == {"units.count"}
    assert seen == [2, 3]  # a look at two designs, then every value of the axis once
    assert found.of("twice", slice(None)).tolist() == [
        2 * x for x in AXES["units.count"] for _ in range(8)
    ]


def test_a_term_that_reads_more_for_some_designs_grows() -> None:
    """It asks for the clock only where there are 70 units, which the first look does not see."""
    grid = Grid(ns.load_arch("h200"), {"units.count": (24.0, 70.0, 132.0),
                                       "units.clock": (1e9, 2e9)})  # fmt: skip

    def rate(designs: Designs) -> dict[str, np.ndarray]:
        units = designs["units.count"]
        if (units == 70.0).any():
            return {"rate": np.where(units == 70.0, units * designs["units.clock"], units)}
        return {"rate": units}

    term = Term(grid, rate)
    found = term.at(Chosen(grid, np.arange(6))).of("rate", slice(None))
    assert found.tolist() == [24.0, 24.0, 70e9, 140e9, 132.0, 132.0]
    assert term.axes == {"units.count", "units.clock"}


def test_a_cache_that_holds_everything_is_not_felt() -> None:
    w = ns.load_workload("paddleocr_vl_decode")
    rows, _ = w.unique()
    large = Grid(ns.load_arch("h200"), {"memories.l2.capacity": (64e9, 128e9)})
    small = Grid(ns.load_arch("h200"), {"memories.l2.capacity": (1e6, 128e6)})
    axes = frozenset({"memories.l2.capacity"})
    assert set(unfelt(w.operations(rows), large)) == {axes}
    assert frozenset() in set(unfelt(w.operations(rows), small))


@given(st.lists(st.integers(0, 50) | st.integers(10**9, 10**9 + 50), min_size=1, max_size=60))
def test_distinct_numbers_and_their_places(numbers: list[int]) -> None:
    few, which = distinct(np.array(numbers))
    assert few.tolist() == sorted(set(numbers))
    assert few[which].tolist() == numbers


def test_a_grid_counts_like_itertools() -> None:
    axes = {"units.count": (1.0, 2.0, 3.0), "host.speed": (1.0, 2.0), "host.sync": (1e-6, 2e-6)}
    grid = Grid(ns.load_arch("h200"), axes)
    made = grid.designs(np.arange(len(grid)))
    every = [(u, h, s) for u in axes["units.count"] for h in axes["host.speed"]
             for s in axes["host.sync"]]  # fmt: skip
    assert list(zip(*(made[p].tolist() for p in axes), strict=True)) == every
