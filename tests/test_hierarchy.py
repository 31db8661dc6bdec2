"""Which level serves what: by hand, and the laws that every machine and workload keeps."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import poisson

import npusim as ns
from npusim.arch import Designs, with_value
from npusim.models import memory
from npusim.models.hierarchy import LEVELS, READS, Traffic, is_felt
from npusim.models.hierarchy import served as served_by_class
from npusim.models.kernel import kernel_time
from npusim.models.residency import resident_share, usable
from npusim.reuse import DATA, periodic
from npusim.transforms import set_context
from npusim.workload import Operations
from tests.builder import workload
from tests.machines import machine, operations

MB, KIB = 1e6, 1024.0
SHARP = {"memories__l2__ways": 4096}  # a cache that holds all or nothing
SHIPPED = (
    "paddleocr_vl_vision", "paddleocr_vl_prefill", "paddleocr_vl_decode",
    "paddleocr_vl_decode_b8", "paddleocr_vl_decode_b32", "deepseek_ocr_vision",
    "deepseek_ocr_decode", "deepseek_ocr_decode_grouped",
    "deepseek_ocr_decode_grouped_b16",
)  # fmt: skip


@pytest.fixture(scope="module")
def shipped():
    """Return the distinct operations of a shipped workload, each loaded once."""
    known = {}

    def load(name):
        if name not in known:
            w = ns.load_workload(name)
            known[name] = w.operations(w.unique()[0])
        return known[name]

    return load


def step(*rows):
    """Return operations that make up a step, from ``(kind, {column: bytes})``."""
    made = operations(*({"kind": kind, **row} for kind, row in rows))
    reuse = periodic([kind for kind, _ in rows], made.columns, np.zeros(len(rows), dtype=np.int64))
    return Operations(made.kind, made.dtype, made.library, made.routine, made.columns, reuse)


def shares(operations_, arch, data):
    """Return the share that each level serves of some data, of all operations together."""
    traffic = Traffic(operations_, arch if isinstance(arch, Designs) else Designs(arch))
    asked = operations_[data].sum()
    return {level: (traffic.bytes(level, data).sum(axis=0) / asked).tolist() for level in LEVELS}


def served(operations_, arch, data):
    """Return the levels that serve any of some data, with their shares."""
    found = {level: s[0] for level, s in shares(operations_, arch, data).items()}
    return {level: share for level, share in found.items() if share > 1e-12}


def dram(operations_, designs):
    return Traffic(operations_, designs).moved("dram").sum(axis=0)


# --- shares ----------------------------------------------------------------------------------

AXES = {
    "memories.l2.capacity": (10e6, 60e6, 200e6),
    "memories.victim.capacity": (0.0, 16e6),
    "memories.kv_sram.capacity": (0.0, 8e6, 48e6),
    "memories.weight_sram.capacity": (0.0, 100e6, 2e9),
    "memories.weight_sram.replacement": (0.0, 1.0),
    "memories.l2.bypass": (0.0, 0.5, 1.0),
    "memories.l2.replacement": (0.0, 1.0),
}


def some_designs(arch, count):
    """Return designs drawn from the values of `AXES`, the first one with the first of each."""
    generator = np.random.default_rng(0)
    columns = {p: np.append(v[0], generator.choice(v, count - 1)) for p, v in AXES.items()}
    return Designs(arch, columns)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_byte_is_served_once(shipped, name):
    o, designs = shipped(name), some_designs(ns.load_arch("h200"), 24)
    traffic = Traffic(o, designs)
    total = np.zeros((len(o), len(designs)))
    for data in DATA:
        if o[data].any():
            parts = [traffic.share(level, data) for level in LEVELS]
            assert min(part.min() for part in parts) >= -1e-12
            assert np.add.reduce(parts)[o[data] > 0] == pytest.approx(1.0)
    for level in LEVELS:
        moved = traffic.moved(level)
        assert moved == pytest.approx(traffic.read(level) + traffic.written(level))
        total += moved
    assert total == pytest.approx(np.broadcast_to(o.bytes_moved[:, None], total.shape))


@pytest.mark.parametrize("name", ["paddleocr_vl_decode", "deepseek_ocr_decode_grouped"])
def test_bytes_by_class_are_those_of_all_operations(name):
    w = ns.load_workload(name)
    o, designs = w.operations(), some_designs(ns.load_arch("h200"), 12)
    traffic, found = Traffic(o, designs), served_by_class(o, designs)
    for level in LEVELS:
        for group in ("weight", "kv", "activation"):
            columns = [data for data, (what, _) in DATA.items() if what == group]
            expected = traffic.bytes(level, *columns).sum(axis=0)
            assert found.get((level, group), np.zeros(12)) == pytest.approx(expected, abs=1e-3)


def test_operations_that_move_nothing_are_served_nothing():
    o, designs = step(("nop", {}), ("nop", {})), Designs(machine())
    assert Traffic(o, designs).moved("dram").tolist() == [[0.0], [0.0]]
    for level in LEVELS:
        assert Traffic(o, designs).share(level, "read_weight").tolist() == [[0.0], [0.0]]
    assert all(not moved.any() for moved in served_by_class(o, designs).values())
    assert not is_felt(o, Designs(machine(), {"memories.l2.capacity": np.array([1e5, 1e9])}), 1e-9)


amounts = st.floats(0, 3e7)
caps = {
    "memories.l2.capacity": st.floats(1e3, 1e9), "memories.l2.usable": st.floats(0.05, 1),
    "memories.l2.ways": st.floats(1, 4096), "memories.victim.capacity": amounts,
    "memories.kv_sram.capacity": amounts, "memories.weight_sram.capacity": amounts,
    "memories.weight_sram.replacement": st.sampled_from([0.0, 1.0]),
    "memories.l2.replacement": st.sampled_from([0.0, 1.0]), "memories.l2.bypass": st.floats(0, 1),
}  # fmt: skip
design = st.fixed_dictionaries(caps)
rows = st.lists(
    st.tuples(
        st.sampled_from(["gemv", "cat", "attention", "pointwise"]),
        st.fixed_dictionaries({data: st.one_of(st.just(0.0), st.floats(1, 1e7)) for data in DATA}),
    ),
    min_size=1, max_size=6,
)  # fmt: skip


@settings(max_examples=40)
@given(rows, st.lists(design, min_size=1, max_size=4))
def test_every_byte_is_served_once_on_any_machine(given_rows, given_designs):
    o = step(*given_rows)
    columns = {path: np.array([d[path] for d in given_designs]) for path in caps}
    traffic = Traffic(o, Designs(machine(), columns))
    moved = [traffic.moved(level) for level in LEVELS]
    assert min(m.min() for m in moved) >= -1e-6
    assert np.add.reduce(moved) == pytest.approx(
        np.broadcast_to(o.bytes_moved[:, None], (len(o), len(given_designs))), abs=1e-6
    )


@settings(max_examples=40)
@given(rows, st.lists(design, min_size=2, max_size=5))
def test_designs_side_by_side_are_served_as_each_alone(given_rows, given_designs):
    """In whatever order they come, and whether or not some are alike."""
    o = step(*given_rows)
    columns = {path: np.array([d[path] for d in given_designs]) for path in caps}
    together = Traffic(o, Designs(machine(), columns))
    for i, one in enumerate(given_designs):
        alone_ = Traffic(o, Designs(machine(**{p.replace(".", "__"): v for p, v in one.items()})))
        for level in LEVELS:
            apart = alone_.moved(level)[:, 0]
            assert together.moved(level)[:, i] == pytest.approx(apart, rel=1e-9, abs=1e-3)


def test_designs_that_are_not_in_order_by_hand():
    o = operations({"kind": "gemv", "read_weight": 2 * MB, "distance_weight": 2 * MB})
    large_first = Designs(machine(**SHARP), {"memories.l2.capacity": np.array([60e6, 1e6, 30e6])})
    assert dram(o, large_first) == pytest.approx([0.0, 2 * MB, 0.0], abs=1.0)


def test_times_of_designs_that_are_not_in_order():
    o = operations({"kind": "gemv", "m": 1, "n": 1000, "k": 1000, "read_weight": 2 * MB,
                    "distance_weight": 2 * MB})  # fmt: skip
    base = machine(memories__dram__bandwidth=1e9)
    columns = {"units.count": np.array([1.0, 2.0]), "memories.l2.capacity": np.array([60e6, 1e6])}
    for order in (slice(None), slice(None, None, -1)):
        time = kernel_time(o, Designs(base, {p: c[order] for p, c in columns.items()}))[0][order]
        assert time[1] > 1e-3 > time[0]  # 2 MB at 1 GB/s against 2 MB from the cache


# --- more memory, less traffic ---------------------------------------------------------------

GROWS = ("memories.l2.capacity", "memories.victim.capacity", "memories.kv_sram.capacity",
         "memories.weight_sram.capacity")  # fmt: skip


def columns_of(one, path, values):
    columns = {p: np.full(len(values), v) for p, v in one.items()}
    return {**columns, path: np.asarray(values)}


@settings(max_examples=60)
@given(rows, design, st.sampled_from(GROWS), st.lists(st.floats(1e3, 1e8), min_size=2, max_size=6))
def test_more_of_a_memory_never_means_more_from_dram(given_rows, one, path, capacities):
    o = step(*given_rows)
    found = dram(o, Designs(machine(), columns_of(one, path, sorted(capacities))))
    assert (np.diff(found) <= 1e-6 * o.bytes_moved.sum() + 1e-6).all()


@pytest.mark.parametrize("path", GROWS)
@pytest.mark.parametrize("name", ["paddleocr_vl_decode", "paddleocr_vl_prefill"])
def test_more_of_a_memory_never_means_more_from_dram_in_real_steps(shipped, name, path):
    o, values = shipped(name), np.geomspace(1e5, 2e9, 60)
    found = dram(o, Designs(ns.load_arch("h200"), {path: values}))
    assert (np.diff(found) <= 1e-9 * found[0]).all()


# --- memories of single classes --------------------------------------------------------------

# Paddle keeps 36 caches of 512 B a key (one of keys and one of values a layer), and copies them
# one after the other: 37 lie in memory.
KEY = 37 * 512.0


@pytest.mark.parametrize("capacity", [0.0, 4e6, 12e6, 13e6, 100e6])
def test_the_kv_sram_keeps_a_share_of_the_cache(shipped, capacity):
    arch = with_value(ns.load_arch("h200"), "memories.kv_sram.capacity", capacity)
    share = shares(shipped("paddleocr_vl_decode"), arch, "read_kv")["kv_sram"][0]
    assert share == pytest.approx(min(1.0, capacity / (675 * KEY)), rel=0.002)
    share = shares(shipped("paddleocr_vl_decode"), arch, "write_kv")["kv_sram"][0]
    assert share == pytest.approx(min(1.0, capacity / (675 * KEY)), rel=0.002)


@pytest.mark.parametrize("keys", [100, 1000, 8192, 65536])
def test_the_kv_sram_spills_as_the_context_grows(keys):
    arch = with_value(ns.load_arch("h200"), "memories.kv_sram.capacity", 48e6)
    longer = set_context(ns.load_workload("paddleocr_vl_decode"), keys)
    share = shares(longer.operations(longer.unique()[0]), arch, "read_kv")["kv_sram"][0]
    assert share == pytest.approx(min(1.0, 48e6 / (keys * KEY)), rel=0.01)


@pytest.mark.parametrize(("name", "batch"), [("_b8", 8), ("_b32", 32)])
def test_the_kv_sram_holds_the_caches_of_all_sequences(shipped, name, batch):
    arch = with_value(ns.load_arch("h200"), "memories.kv_sram.capacity", 16e6)
    share = shares(shipped(f"paddleocr_vl_decode{name}"), arch, "read_kv")["kv_sram"][0]
    assert share == pytest.approx(16e6 / (batch * 675 * KEY), rel=0.005)


STEP = (
    ("gemv", {"read_weight": 6 * MB}),
    ("attention", {"read_kv": 1 * MB}),
    ("gemv", {"read_weight": 4 * MB}),
)


@pytest.mark.parametrize(
    ("capacity", "pinned", "lru"), [(2e6, 0.2, 0.0), (8e6, 0.8, 0.0), (10e6, 1, 1), (40e6, 1, 1)]
)
def test_pinned_weights_stay_in_part_and_under_lru_all_or_none(capacity, pinned, lru):
    for placement, expected in enumerate((pinned, lru)):
        arch = machine(memories__weight_sram__capacity=capacity,
                       memories__weight_sram__replacement=float(placement))  # fmt: skip
        found = shares(step(*STEP), arch, "read_weight")
        assert found["weight_sram"][0] == pytest.approx(expected)
        assert found["dram"][0] == pytest.approx(1 - expected)  # the cache of 1 MB holds none


def test_weights_are_pinned_unless_the_machine_says_otherwise():
    arch = machine(memories__weight_sram__capacity=5 * MB)
    assert served(step(*STEP), arch, "read_weight")["weight_sram"] == pytest.approx(0.5)


def test_weights_that_have_a_memory_leave_room_for_the_cache():
    # 10 MB of weights and 1 MB of cache: the window of the cache is 11 MB, then 6, then 1
    for capacity, hit in ((0.0, False), (5 * MB, False), (10 * MB, True)):
        arch = machine(**SHARP, memories__l2__capacity=2 * MB,
                       memories__weight_sram__capacity=capacity)  # fmt: skip
        found = served(step(*STEP), arch, "read_kv")
        assert found == {"l2" if hit else "dram": pytest.approx(1.0)}


def test_weights_that_miss_under_lru_pass_through_the_cache():
    """A memory of 5 MB keeps none of 8 MB in a circle: what lies between is in the way still."""
    o = step(
        ("gemv", {"read_weight": 4 * MB, "write_activation": 512 * KIB}),
        ("gemv", {"read_weight": 4 * MB, "read_activation": 512 * KIB}),
    )
    without = machine(**SHARP, memories__l2__capacity=2 * MB)
    with_lru = machine(**SHARP, memories__l2__capacity=2 * MB, memories__weight_sram__capacity=5e6,
                       memories__weight_sram__replacement=1.0)  # fmt: skip
    for arch in (without, with_lru):
        assert served(o, arch, "read_weight") == {"dram": pytest.approx(1.0)}
        assert served(o, arch, "read_activation") == {"dram": pytest.approx(1.0)}


def test_weights_streamed_past_the_cache_leave_the_rest_resident():
    # an L2 of 2 MB; the window of the 1 MB of KV is 11 MB, of which 10 are weights
    for bypass, kv, weight in ((0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (0.95, 1.0, 0.05), (1.0, 1, 0)):
        arch = machine(**SHARP, memories__l2__capacity=2 * MB, memories__l2__bypass=bypass)
        assert shares(step(*STEP), arch, "read_kv")["l2"][0] == pytest.approx(kv, abs=1e-9)
        found = shares(step(*STEP), arch, "read_weight")
        # what is not streamed past stays: 5 % of 10 MB with the KV in the cache
        assert found["l2"][0] == pytest.approx(weight, abs=1e-9)
        assert found["dram"][0] == pytest.approx(1 - weight, abs=1e-9)


def test_a_victim_cache_adds_its_capacity_and_no_more():
    # a circle of 3 MB: 2 MB of cache miss it, with 1.5 MB of victim cache it hits
    o = step(("gemv", {"read_weight": 1 * MB}), ("gemv", {"read_weight": 2 * MB}))
    for extra, hit in ((0.0, 0.0), (0.5e6, 0.0), (1.5e6, 1.0)):
        arch = machine(**SHARP, memories__l2__capacity=2 * MB, memories__victim__capacity=extra)
        found = shares(o, arch, "read_weight")
        assert found["l2"][0] + found["victim"][0] == pytest.approx(hit, abs=1e-6)
        assert found["dram"][0] == pytest.approx(1 - hit, abs=1e-6)


def test_a_victim_cache_serves_nothing_where_there_is_none():
    found = shares(step(*STEP), machine(memories__l2__capacity=1e9), "read_weight")
    assert found["victim"] == [0.0]
    assert found["l2"][0] == pytest.approx(1.0)


def test_a_machine_without_a_cache_reads_all_from_dram():
    arch = machine()
    values = {p: v for p, v in arch.values.items() if not p.startswith("memories.l2.")}
    bare = type(arch)("bare", "No cache", values, {p: arch.provenance[p] for p in values})
    for data in ("read_weight", "read_kv"):
        assert served(step(*STEP), bare, data) == {"dram": pytest.approx(1.0)}


def test_what_is_cold_comes_from_dram_whatever_the_machine_holds():
    o = operations({"kind": "gemv", "read_weight": 1.0, "read_kv": 1.0, "read_activation": 1.0})
    sizes = {f"memories__{name}__capacity": 1e12
             for name in ("l2", "victim", "kv_sram", "weight_sram")}  # fmt: skip
    arch = machine(**sizes)
    for placement in (0.0, 1.0):
        with_it = with_value(arch, "memories.weight_sram.replacement", placement)
        for data in ("read_weight", "read_kv", "read_activation"):
            assert served(o, with_it, data) == {"dram": 1.0}


def test_a_memory_without_latency_serves_at_its_bandwidth():
    o = step(("cat", {"read_kv": 3 * MB}))
    arch = machine(memories__kv_sram__capacity=8 * MB, memories__kv_sram__bandwidth=1e12,
                   memories__kv_sram__latency=0.0)  # fmt: skip
    d = Designs(arch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        time = memory.own_time(Traffic(o, d), np.ones((1, 1)), d)
    assert time.item() == pytest.approx(3e-6)


def test_a_memory_far_away_serves_what_its_units_have_in_flight():
    # two units with 1,000 B on the way for 1 us each: 2 GB/s of the 1 TB/s that it has
    o = step(("cat", {"read_kv": 3 * MB}))
    arch = machine(memories__kv_sram__capacity=8 * MB, memories__kv_sram__bandwidth=1e12,
                   memories__kv_sram__latency=1e-6, memories__dram__in_flight=1e3)  # fmt: skip
    d = Designs(arch)
    time = memory.own_time(Traffic(o, d), np.full((1, 1), 2.0), d)
    assert time.item() == pytest.approx(3 * MB / 2e9)


def test_attention_over_a_cache_in_its_own_memory_does_not_wait_for_the_last_level_cache(shipped):
    o = shipped("paddleocr_vl_decode_b32")
    attention, h200 = o.take(o.kind == "attention"), ns.load_arch("h200")
    for path, value in {"capacity": 1e10, "bandwidth": 1e14}.items():
        h200 = with_value(h200, f"memories.kv_sram.{path}", value)
    slow = with_value(h200, "memories.l2.clock", h200["memories.l2.clock"] / 4)
    fast, time = (kernel_time(attention, Designs(arch)) for arch in (h200, slow))
    assert time == pytest.approx(fast, rel=0.02)


def test_whether_designs_are_felt():
    o = step(*STEP)
    felt = {"memories.l2.capacity": np.array([1e5, 60e6])}
    too_small = {"memories.l2.capacity": np.array([1e5, 2e5])}
    assert is_felt(o, Designs(machine(**SHARP), felt), 1e-9)
    assert not is_felt(o, Designs(machine(**SHARP), too_small), 1e-9)
    assert not is_felt(o, Designs(machine(), {"units.count": np.array([4.0, 8.0])}), 1e-9)


# --- residency -------------------------------------------------------------------------------

MACHINES = sorted(
    path.stem for path in (Path(__file__).resolve().parent.parent / "archs").glob("*.yaml")
)


@pytest.mark.parametrize("name", MACHINES)
def test_resident_share_is_the_chance_that_a_set_holds_a_line(name):
    """With a Poisson number of other lines in its set, at most ways - 1: summed term by term."""
    arch = ns.load_arch(name)
    d = Designs(arch)
    if "memories.l2.capacity" not in d:
        assert usable(d).tolist() == [0.0]
        return
    capacity, ways = usable(d)[0], arch["memories.l2.ways"]
    extra = arch.values.get("memories.victim.capacity", 0.0)
    assert capacity == arch["memories.l2.capacity"] * arch["memories.l2.usable"] + extra
    assert float(ways).is_integer()
    load = np.array([0.1, 0.5, 0.9, 1.0, 1.1, 2.0])
    expected = poisson.cdf(ways - 1, ways * load)
    assert resident_share(load * capacity, d)[:, 0] == pytest.approx(expected, rel=1e-9)


def test_residency_of_an_h200_is_as_it_was():
    # 60 MiB, two thirds usable, distances in MB: half of what lies in a circle of 42 MB stays
    d = Designs(ns.load_arch("h200"))
    found = resident_share(np.array([0.0, 20e6, 42e6, 80e6, np.inf]), d).ravel()
    assert found.round(1).tolist() == [1.0, 1.0, 0.5, 0.0, 0.0]


@given(st.floats(1.001, 500))
def test_random_replacement_is_its_own_fixed_point(load):
    """A line lives through as many misses as the circle has: h = exp(-x (1 - h))."""
    d = Designs(machine(memories__l2__replacement=1.0))
    hit = resident_share(np.array([load * 1e6]), d).item()
    assert 0 <= hit < 1
    assert math.exp(-load * (1 - hit)) == pytest.approx(hit, rel=1e-6, abs=1e-300)


@pytest.mark.parametrize(("load", "hit"), [(1.5, 0.4172), (2.0, 0.2032), (4.0, 0.0198)])
def test_random_replacement_by_hand(load, hit):
    # each found by putting h into exp(-x (1 - h)) until it stays
    d = Designs(machine(memories__l2__replacement=1.0))
    h = 0.0
    for _ in range(500):
        h = math.exp(-load * (1 - h))
    assert h == pytest.approx(hit, abs=1e-4)
    assert resident_share(np.array([load * 1e6]), d).item() == pytest.approx(h, abs=1e-6)


def test_on_a_circle_beyond_capacity_random_replacement_beats_lru():
    distance = np.array([1.2, 1.5, 2.0, 3.0, 10.0]) * 1e6
    lru, random = (
        resident_share(distance, Designs(machine(**SHARP, memories__l2__replacement=r)))
        for r in (0.0, 1.0)
    )
    assert (random > lru).all()


def test_random_replacement_against_a_cache_that_does_it():
    """A circle of 1.5 and 2 capacities, played through a fully associative cache of 512 lines."""
    generator = np.random.default_rng(1)
    d = Designs(machine(memories__l2__replacement=1.0))
    for load in (1.5, 2.0):
        lines, circle = 512, int(512 * load)
        held, where, hits = list(range(lines)), {i: i for i in range(lines)}, 0
        rounds, warm = 60, 20
        for r in range(rounds):
            for i in range(circle):
                if i in where:
                    hits += r >= warm
                    continue
                at = int(generator.integers(lines))
                del where[held[at]]
                held[at], where[i] = i, at
        expected = hits / circle / (rounds - warm)
        assert resident_share(np.array([load * 1e6]), d).item() == pytest.approx(expected, abs=0.01)


# --- workloads -------------------------------------------------------------------------------


def made(caches=None):
    first = {"kind": "gemv", "m": 1, "n": 1024, "k": 1024, "read_weight": 3 * MB,
             "write_activation": 64 * KIB, "blocks": 8}  # fmt: skip
    second = {**first, "read_weight": 5 * MB, "read_activation": 64 * KIB}
    w = workload(first, second)
    return w if caches is None else w.renamed(w.name, caches=caches)


def test_warm_and_cold_protocols_by_hand():
    arch = machine(**SHARP, memories__l2__capacity=6 * MB)
    hits = {}
    for caches in ("step", "warm", "cold"):
        w = made(caches)
        hits[caches] = Traffic(w.operations(), Designs(arch)).read("l2").ravel().tolist()
    # in a step all 8 MB of weights lie between two uses, alone only an operation's own
    # and 5 MB between the result and its reader
    assert hits["step"] == pytest.approx([0.0, 64 * KIB], abs=1.0)
    assert hits["warm"] == pytest.approx([3 * MB, 5 * MB + 64 * KIB])
    assert hits["cold"] == [0.0, 0.0]


def test_protocols_are_part_of_what_a_workload_is():
    ids = {caches: made(caches).id for caches in (None, "warm", "cold")}
    assert len(set(ids.values())) == 3
    assert made().id == made().id


def test_operations_that_differ_only_in_what_lies_between_are_told_apart():
    copy = {"kind": "pointwise", "read_activation": 8 * MB, "write_activation": 8 * MB}
    large = {"kind": "pointwise", "read_activation": 40 * MB, "write_activation": 40 * MB}
    w = workload(copy, copy, large, copy)
    # the second follows the first, the last one has read its input 80 MB ago
    assert len(set(w.unique()[1][1:].tolist())) == 3
    _, second, _, last = w.operations().reuse.signature().tolist()
    assert second != last


def test_a_protocol_that_nobody_knows_is_an_error():
    with pytest.raises(ns.errors.InputError, match="caches"):
        _ = made("hot").reuse


@pytest.mark.parametrize("name", ["paddleocr_vl_decode", "deepseek_ocr_decode_grouped_b16"])
def test_distinct_operations_have_the_traffic_of_all(name):
    w = ns.load_workload(name)
    rows, inverse = w.unique()
    d = Designs(ns.load_arch("h200"), {"memories.l2.capacity": np.array([2e8, 1e7])})
    few = Traffic(w.operations(rows), d).moved("dram")[inverse]
    assert few == pytest.approx(Traffic(w.operations(), d).moved("dram"))


def test_parameters_of_the_hierarchy_are_all_read():
    assert {"memories.victim.capacity", "memories.l2.replacement", *AXES} <= set(READS)
