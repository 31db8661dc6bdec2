"""Which model costs an operation, and how operations and designs are taken apart for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim import catalog
from npusim.arch import Designs
from npusim.models import kernel
from npusim.models.cost import Cost
from npusim.models.kernel import kernel_cost, kernel_time
from npusim.workload import KINDS
from tests.machines import machine, operations
from tests.test_models import Recorder, machine_with_everything, operations_of_every_sort

NAMES = ("collective", "fused", "routine", "attention", "attention_combine", "gemm", "stream")

# ---------------------------------------------------------------- dispatch


@pytest.fixture
def models(monkeypatch):
    """Models that note what they are asked, and answer with the FLOP of each operation."""
    asked = []

    def noting(name):
        def cost(operations, designs):
            asked.append((name, operations["flop"].tolist(), len(designs)))
            flop = operations["flop"][:, None] * np.ones(len(designs))
            clock = designs["units.clock"] / 1e9
            return Cost(flop, 10 * flop, 100 * flop * clock)

        return cost

    real = kernel._MODELS
    assert len(real) == len(NAMES)
    fakes = tuple(
        (takes, reads, noting(n)) for (takes, reads, _), n in zip(real, NAMES, strict=True)
    )
    monkeypatch.setattr(kernel, "_MODELS", fakes)
    return asked


ROWS = [
    {"kind": "gemm", "flop": 1.0},
    {"kind": "pointwise", "flop": 2.0},
    {"kind": "attention", "flop": 3.0},
    {"kind": "gemv", "flop": 4.0, "routine": "split"},
    {"kind": "pointwise", "flop": 5.0, "routine": "vectorized"},
    {"kind": "conv", "flop": 6.0, "routine": "conv_vector"},
    {"kind": "unknown", "flop": 7.0},
    {"kind": "pointwise", "flop": 8.0, "routine": "strided"},  # not on this machine
    {"kind": "attention_combine", "flop": 9.0, "k": 4},
    {"kind": "attention_combine", "flop": 10.0},  # of how many parts is not known
]


def of_routines(**changes):
    return machine(library__vectorized__floor=1, library__conv_vector__floor=1, **changes)


def test_each_operation_is_costed_once_by_the_first_model_that_knows_it(models):
    cost = kernel_cost(operations(*ROWS), Designs(of_routines()))
    assert sorted(models) == [
        ("attention", [3.0], 1), ("attention_combine", [9.0], 1), ("gemm", [1.0, 4.0], 1),
        ("routine", [5.0, 6.0], 1), ("stream", [2.0, 7.0, 8.0, 10.0], 1),
    ]  # fmt: skip
    flop = np.arange(1.0, 11)
    assert cost.floor[:, 0].tolist() == flop.tolist()
    assert cost.memory[:, 0].tolist() == (10 * flop).tolist()
    assert cost.time[:, 0].tolist() == (111 * flop).tolist()


def test_a_model_without_operations_is_not_asked(models):
    kernel_cost(operations({"kind": "copy"}), Designs(machine()))
    assert [name for name, *_ in models] == ["stream"]


def test_designs_that_differ_in_nothing_that_is_read_are_costed_once(models):
    columns = {"host.speed": [1.0, 2, 1, 2], "units.clock": [1e9, 2e9, 2e9, 1e9],
               "gemm.fill": [1.0, 1, 2, 2]}  # fmt: skip
    many = Designs(of_routines(), {p: np.array(v) for p, v in columns.items()})
    cost = kernel_cost(operations(*ROWS), many)
    assert {name: count for name, _, count in models} == {
        "routine": 2, "attention": 2, "attention_combine": 2, "stream": 2, "gemm": 4}  # fmt: skip
    assert cost.compute.tolist() == [[100 * f, 200 * f, 200 * f, 100 * f] for f in range(1, 11)]


def test_what_designs_do_not_read_leaves_the_times_alone():
    w = ns.load_workload("paddleocr_vl_decode")
    o = w.operations(w.unique()[0])
    h200 = ns.load_arch("h200")
    columns = {"host.speed": np.array([1.0, 2.0, 4.0]), "area.die": np.array([1e-4, 2e-4, 3e-4])}
    alone = kernel_time(o, Designs(h200))
    assert kernel_time(o, Designs(h200, columns)).tolist() == np.repeat(alone, 3, axis=1).tolist()


def resident(distance):
    return {"kind": "gemv", "m": 1, "n": 8192, "k": 2048, "read_weight": 3.3e7,
            "distance_weight": distance, "distance_activation": 0.0}  # fmt: skip


@pytest.mark.parametrize("sizes", [(4e8, 8e8), (1e6, 2e6), (1e6, 8e8)], ids=str)
def test_caches_that_hold_alike_cost_as_each_of_them_does(sizes):
    # 50 MB between two uses: all of it stays, none, or it depends; on the H200's own 60 MiB half
    h200, path = ns.load_arch("h200"), "memories.l2.capacity"
    o = operations(resident(5e7))
    together = kernel_time(o, Designs(h200, {path: np.array(sizes)}))[0]
    alone = [kernel_time(o, Designs(ns.with_value(h200, path, size))).item() for size in sizes]
    assert together == pytest.approx(alone, rel=1e-6)


def test_caches_that_hold_alike_are_costed_once(models):
    caches = {"memories.l2.capacity": np.array([4e8, 8e8, 9e8])}
    many = Designs(ns.load_arch("h200"), caches)
    kernel_cost(operations(resident(5e7)), many)
    kernel_cost(operations(resident(5e8)), many)
    assert [count for *_, count in models] == [1, 3]


@pytest.mark.parametrize("which", range(len(NAMES)), ids=NAMES)
def test_a_model_reads_no_more_than_it_says(which):
    takes, reads, model = kernel._MODELS[which]
    designs = Recorder(machine_with_everything())
    o = operations_of_every_sort()
    rows = takes(o, designs)
    assert rows.any()
    designs.seen.clear()
    model(o.take(rows), designs)
    # whether there is a buffer is the same for all designs, how deep it is `kernel` leaves out
    assert designs.seen - {"prefetch.depth"} <= set(reads)
    assert designs.valued <= set(reads)


@pytest.mark.parametrize("name", catalog.names("archs"))
def test_every_kind_of_operation_has_a_time_on_every_machine(name):
    sizes = {"batch": 1, "m": 64, "n": 64, "k": 64, "heads": 4, "kv_heads": 4, "flop": 1e6}
    o = operations(*({"kind": kind} for kind in KINDS), **sizes)
    found = kernel_time(o, Designs(ns.load_arch(name)))
    assert np.isfinite(found).all()
    assert (found > 0).all()


@pytest.mark.parametrize("units", [1, 4, 16, 1000])
@pytest.mark.parametrize("name", catalog.names("workloads"))
def test_every_shipped_operation_has_a_time_on_few_and_on_many_units(name, units):
    w = ns.load_workload(name)
    arch = ns.with_value(ns.load_arch("h200"), "units.count", units)
    found = kernel_time(w.operations(w.unique()[0]), Designs(arch))
    assert np.isfinite(found).all()
    assert (found > 0).all()


# ---------------------------------------------------------------- distinct designs


def test_distinct_designs_by_hand():
    many = Designs(machine(), {"units.count": np.array([4.0, 2, 4, 2]),
                               "units.clock": np.array([1e9, 1e9, 2e9, 1e9]),
                               "host.speed": np.array([1.0, 2, 3, 4])})  # fmt: skip
    few, which = many.distinct(["units.count", "units.clock", "memories.dram.bandwidth"])
    assert len(few) == 3
    assert set(few.columns) == {"units.count", "units.clock"}
    assert few["units.count"][which].tolist() == [4, 2, 4, 2]
    assert few["units.clock"][which].tolist() == [1e9, 1e9, 2e9, 1e9]
    assert which[1] == which[3]


def test_designs_that_differ_in_nothing_are_one():
    many = Designs(machine(), {"host.speed": np.array([1.0, 2, 3])})
    few, which = many.distinct(["units.count"])
    assert (len(few), dict(few.columns), which.tolist()) == (1, {}, [0, 0, 0])
    one, which = Designs(machine()).distinct(["units.count"])
    assert (len(one), which.tolist()) == (1, [0])


values = st.lists(st.integers(1, 3).map(float), min_size=1, max_size=8)


@given(values, st.data())
def test_distinct_designs_are_the_same_designs(counts, data):
    clocks = data.draw(st.lists(st.sampled_from([1e9, 2e9]), min_size=len(counts),
                                max_size=len(counts)))  # fmt: skip
    columns = {"units.count": np.array(counts), "units.clock": np.array(clocks)}
    few, which = Designs(machine(), columns).distinct(list(columns))
    assert len(few) == len(set(zip(counts, clocks, strict=True)))
    for path, column in columns.items():
        assert few[path][which].tolist() == column.tolist()


# ---------------------------------------------------------------- some operations


ALL = operations(*({"kind": k, "m": i, "routine": k[:2]} for i, k in enumerate(KINDS[:5])))


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        (np.array([3, 0, 3]), [3, 0, 3]),
        (np.array([False, True, False, False, True]), [1, 4]),
        (slice(1, 4), [1, 2, 3]),
        (np.array([], dtype=int), []),
    ],
    ids=["index", "mask", "slice", "none"],
)
def test_some_operations_keep_all_that_is_known_of_them(rows, kept):
    found = ALL.take(rows)
    assert len(found) == len(kept)
    assert found["m"].tolist() == kept
    for label in ("kind", "dtype", "library", "routine"):
        whole = getattr(ALL, label)
        assert getattr(found, label).tolist() == [whole[i] for i in kept]
    assert set(found.columns) == set(ALL.columns)
    assert all(len(column) == len(kept) for column in found.columns.values())
