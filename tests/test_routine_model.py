"""Times of routines: by hand, as the machine grows, and on the half of a trace held back."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import Designs
from npusim.library import ROUTINES
from npusim.models.amount import amount
from npusim.models.links import VECTORS
from npusim.models.memory import l2_bandwidth
from npusim.models.routine import known, routine_cost
from npusim.reuse import alone
from npusim.workload import BYTES, Operations
from tests.machines import DISTANCES

H200 = ns.load_arch("h200")
CLOCK = H200["units.clock"]


class Machine:
    """Designs with numbers of routines, whether or not the machine's file has them."""

    def __init__(self, numbers, **columns):
        self.base = Designs(H200, {k: np.asarray(v, float) for k, v in columns.items()})
        self.numbers = {f"library.{path}": np.array([v]) for path, v in numbers.items()}

    def __len__(self):
        return len(self.base)

    def __contains__(self, path):
        if path in ("units.block_rate", "units.stagger"):  # all blocks start at once here
            return False
        return path in self.numbers or (path in self.base and not path.startswith("library."))

    def __getitem__(self, path):
        return self.numbers[path] if path in self.numbers else self.base[path]

    def distinct(self, paths):
        return self, np.arange(len(self))


def operations(routine, *, kind="pointwise", dtype="bf16", **columns):
    """Return operations of one routine; columns that are not given are zero."""
    size = max([np.size(v) for v in columns.values()] + [1])
    names = (
        "batch",
        "m",
        "n",
        "k",
        "heads",
        "groups",
        "blocks",
        "threads",
        "flop",
        *BYTES,
        *DISTANCES,
    )
    table = {c: np.broadcast_to(np.asarray(columns.get(c, 0.0)), (size,)) for c in names}
    text = (np.full(size, t, object) for t in (kind, dtype, "ATen", routine))
    return Operations(*text, table, alone(*(table.pop(c) for c in DISTANCES)))


def seconds(ops, machine):
    return routine_cost(ops, machine).time


# ---------------------------------------------------------------- by hand


def test_one_element_takes_the_floor_and_one_link_of_the_chain():
    machine = Machine({"strided.floor": 2.0, "strided.chain": 500.0})
    floor = 2 * H200["floor.pointwise"]
    one = operations("strided", batch=1, m=1, n=1, blocks=1, threads=128)
    assert seconds(one, machine)[0, 0] == pytest.approx(floor + 500 / CLOCK)


def test_a_thread_takes_its_elements_one_after_the_other():
    machine = Machine({"strided.floor": 0.0, "strided.chain": 500.0})
    full = operations("strided", batch=1, m=4, n=[128, 129], blocks=1, threads=128)
    assert seconds(full, machine)[:, 0] == pytest.approx([4 * 500 / CLOCK, 5 * 500 / CLOCK])


def test_issue_goes_by_the_busiest_unit():
    """133 blocks of 1,000 elements on 132 units: one unit has two blocks."""
    machine = Machine({"vectorized.floor": 0.0, "vectorized.element": 0.5,
                       "vectorized.block": 100.0})  # fmt: skip
    for blocks, rounds in ((132, 1), (133, 2), (264, 2)):
        ops = operations("vectorized", batch=1, m=blocks, n=1000, blocks=blocks, threads=128)
        assert seconds(ops, machine)[0, 0] == pytest.approx(rounds * (100 + 500) / CLOCK)


@pytest.mark.parametrize(("routine", "power"), [("vectorized", 5), ("strided", 2)])
def test_memory_and_issue_overlap_in_part(routine, power):
    machine = Machine({f"{routine}.floor": 0.0, f"{routine}.element": 1.0})
    ops = operations(routine, batch=1, m=132, n=10_000, blocks=132, threads=128,
                     read_activation=1e7, distance_activation=1e7)  # fmt: skip
    cost = routine_cost(ops, machine)
    loads = 1e7 / l2_bandwidth(np.array([[132.0]]), machine)[0, 0]  # 10 MB stay in the cache
    both = (loads**power + (10_000 / CLOCK) ** power) ** (1 / power)
    assert cost.time[0, 0] == pytest.approx(both, rel=1e-3)


def test_the_cache_takes_twice_as_long_to_write():
    machine = Machine({"vectorized.floor": 0.0})
    read = operations("vectorized", blocks=1000, threads=128, read_activation=1e6)
    write = operations("vectorized", blocks=1000, threads=128, write_activation=1e6)
    assert seconds(write, machine) == pytest.approx(2 * seconds(read, machine))


def test_copies_to_the_host_go_by_its_link():
    machine = Machine({"copy_to_host.floor": 1.5})
    floor = 1.5 * H200["floor.memcpy"]
    machine.numbers["host.bandwidth"] = np.array([50e9])
    ops = operations("copy_to_host", kind="memcpy", read_activation=1e9, write_activation=1e9)
    assert seconds(ops, machine)[0, 0] == pytest.approx(floor + 1e9 / 50e9, rel=1e-9)


@pytest.mark.parametrize(
    ("routine", "columns", "wanted"),
    [
        ("strided", {"batch": 3, "m": 4, "n": 5}, 60),
        ("strided", {"m": 0, "n": 7}, 7),
        ("copy_engine", {"kind": "memcpy", "read_activation": 8, "write_activation": 8}, 16),
        ("write_indices", {"blocks": 3, "threads": 256}, 768),
        ("conv_vector", {"kind": "conv", "flop": 2e6}, 1e6),
        ("cat", {"kind": "cat", "dtype": "fp32", "m": 9, "n": 9, "read_activation": 400,
                 "write_activation": 400}, 100),
    ],
)  # fmt: skip
def test_work_is_counted_in_what_the_routine_goes_by(routine, columns, wanted):
    assert amount(operations(routine, **columns)).tolist() == [wanted]


def test_routines_without_numbers_are_not_known():
    machine = Machine({"strided.floor": 1e-6})
    ops = operations("strided", m=[1, 1, 1])
    ops.routine[1:] = ["cat", ""]
    assert known(ops, machine).tolist() == [True, False, False]


# ---------------------------------------------------------------- properties

NUMBERS = {"floor": 1.0, "element": 0.5, "block": 100.0, "chain": 50.0}
NUMBERS_OF_ALL = {f"{r}.{n}": value for r in ROUTINES for n, value in NUMBERS.items()}
SIZES = st.integers(0, 10**7)


@given(st.sampled_from(sorted(ROUTINES)), SIZES, SIZES, st.integers(0, 10**5))
def test_more_work_never_takes_less_time(routine, elements, moved, blocks):
    n = np.array([elements, 2 * elements + 1])
    if routine in VECTORS:  # of which full blocks take less time than others
        n, blocks = 1024 * (n + 1), n + 1
    nbytes = np.array([moved, 2 * moved])
    ops = operations(routine, kind="pointwise", batch=1, m=1, n=n, flop=2 * n, blocks=blocks,
                     threads=128, read_activation=nbytes, distance_activation=nbytes)  # fmt: skip
    time = seconds(ops, Machine(NUMBERS_OF_ALL))[:, 0]
    assert np.isfinite(time).all()
    assert H200["floor.pointwise"] <= time[0] * (1 + 1e-12) <= time[1] * (1 + 1e-11)


@pytest.mark.parametrize(("dtype", "item"), [
    ("fp64", 8), ("int64", 8), ("fp32", 4), ("int32", 4), ("bf16", 2), ("fp16", 2), ("int16", 2),
    ("fp8", 1), ("int8", 1), ("uint8", 1), ("bool", 1),
])  # fmt: skip
def test_a_concatenation_counts_what_it_moves(dtype, item):
    # 800 bytes are read and as many written, whatever the sizes of one of its inputs
    cat = operations("cat", kind="cat", dtype=dtype, m=3, n=5,
                     read_activation=800.0, write_activation=800.0)  # fmt: skip
    assert amount(cat).tolist() == [800 / item]


def test_a_grouped_product_multiplies_on_the_matrix_unit():
    # 132 units x 4,096 FLOP at 1.59 GHz and a share of the 0.39 GHz up to the clock of the units;
    # nothing is loaded, and its instructions take nothing
    share, boost = H200["matrix.efficiency"], H200["matrix.boost_share"]
    rate = 132 * 4096 * share * (1.59e9 + boost * 0.39e9)
    product = operations("grouped_matrix", kind="grouped_gemm", flop=8e12)
    floor = 2.0 * H200["floor.matmul"]
    found = seconds(product, Machine({"grouped_matrix.floor": 2.0}))
    assert found.item() == pytest.approx(floor + 8e12 / rate, rel=1e-9)
    # instructions that take three quarters as long: by Pythagoras 5 / 4 of it
    cycles = 0.75 * 8e12 / rate * CLOCK
    both = Machine({"grouped_matrix.floor": 2.0, "grouped_matrix.block": cycles})
    assert seconds(product, both).item() == pytest.approx(floor + 1.25 * 8e12 / rate, rel=1e-9)


@given(st.sampled_from(sorted(ROUTINES)), SIZES, st.integers(0, 10**5))
def test_more_units_are_never_slower(routine, elements, blocks):
    units = np.array([1, 7, 132, 133, 1000, 10_000])
    nbytes = 4.0 * elements
    ops = operations(routine, batch=1, m=1, n=elements, blocks=blocks, threads=256,
                     read_activation=nbytes, distance_activation=nbytes)  # fmt: skip
    time = seconds(ops, Machine(NUMBERS_OF_ALL, **{"units.count": units}))
    assert time.shape == (1, 6)
    assert (np.diff(time[0]) <= 1e-9 * time[0, :-1]).all()


def test_designs_and_operations_are_costed_as_one_by_one():
    columns = {"units.count": np.array([8, 132, 500]), "units.clock": np.array([1e9, 2e9, 3e9])}
    sizes = np.array([1, 5000, 10**6])
    ops = operations("strided", batch=1, m=1, n=sizes, blocks=1 + sizes // 512, threads=128,
                     read_activation=2.0 * sizes)  # fmt: skip
    whole = seconds(ops, Machine(NUMBERS_OF_ALL, **columns))
    for d in range(3):
        one = Machine(NUMBERS_OF_ALL, **{p: c[d : d + 1] for p, c in columns.items()})
        assert whole[:, d] == pytest.approx(seconds(ops, one)[:, 0])


# ---------------------------------------------------------------- a trace, half held back

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def held_back():
    """Return the errors of each routine on the half that its numbers were not fitted to."""
    spec = importlib.util.spec_from_file_location("routines", ROOT / "benchmarks" / "routines.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    w = ns.load_workload(ROOT / "workloads" / "experiments" / "h200_routines.parquet")
    wanted = ("strided", "strided_4d", "strided_5d", "transposed", "write_indices",
              "grouped_matrix", "cat_vectorized", "fill", "vectorized", "special", "reduce_arg",
              "layer_norm", "rms_norm")  # fmt: skip
    return {found.routine: found.errors for found in script.calibrate(w, "h200", wanted)}


@pytest.mark.parametrize(
    ("routine", "median", "p90"),
    [
        ("strided", 0.10, 0.25),
        ("strided_4d", 0.10, 0.20),
        ("strided_5d", 0.12, 0.20),
        ("transposed", 0.10, 0.35),
        ("write_indices", 0.08, 0.12),
        ("grouped_matrix", 0.10, 0.20),
        ("cat_vectorized", 0.10, 0.20),
        ("fill", 0.06, 0.20),
        ("vectorized", 0.10, 0.25),
        ("special", 0.12, 0.25),
        ("reduce_arg", 0.06, 0.20),
        ("layer_norm", 0.12, 0.25),
        ("rms_norm", 0.12, 0.25),
    ],
)
def test_the_half_held_back_is_predicted(held_back, routine, median, p90):
    errors = held_back[routine]
    assert np.median(errors) < median
    assert np.quantile(errors, 0.9) < p90
