"""Energy by block: machines worked out by hand, what must hold, and the counter of a board."""

import importlib.util
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npusim as ns
from npusim import catalog
from npusim.arch import Arch, Designs, Provenance, with_value
from npusim.durations import Durations, durations
from npusim.energy import KINDS, PRODUCTS, Part, Spent, step_energy, wake_up
from npusim.measured.patterns import pattern
from npusim.models import energy
from npusim.models.area import die_area
from npusim.sweeps.run import sweep
from npusim.sweeps.space import Space
from npusim.technology import NODES
from tests.builder import workload
from tests.energy_machines import MM2, N4, PJ, small, with_die

ROOT = Path(__file__).parent.parent
MS = 1e-3
H200, NPU = ns.load_arch("h200"), ns.load_arch("decode_npu")
EXAMPLES = settings(max_examples=15)

FLOP = 2.0 * 12 * 1280 * 1280
GEMM = {"kind": "gemm", "dtype": "bf16", "batch": 1, "m": 12, "n": 1280, "k": 1280, "flop": FLOP,
        "read_weight": 2.0 * 1280**2, "read_activation": 2.0 * 12 * 1280,
        "write_activation": 2.0 * 12 * 1280}  # fmt: skip
MOVED = 2.0 * 1280**2 + 4.0 * 12 * 1280
ADD = {"kind": "pointwise", "dtype": "fp32", "batch": 1, "m": 1, "n": 1000, "flop": 1000.0,
       "read_activation": 8000.0, "write_activation": 4000.0}  # fmt: skip


def spent_by(arch, *rows, wall=4 * MS, busy=1 * MS, caches="cold"):
    """Energy of a step of rows that take a millisecond each."""
    w = workload(*rows).under(caches)
    table = np.vstack([np.full((len(w.unique()[0]), 1), busy), np.ones((1, 1))])
    time = Durations(table, w.unique()[1], np.ones(len(w)))
    return step_energy(w, Designs(arch), time, np.array([wall]))


def by_path(spent):
    found = {}
    for part in spent.parts:
        key = part.block, part.paths[0]
        found[key] = found.get(key, 0) + part.joules.item()
    return found


@cache
def layer():
    return pattern("rmsnorm_linear", 12)


@cache
def benchmark(name="energy"):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"benchmarks/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- by hand ------------------------------------------------------------------------------------


def test_a_product_by_hand():
    found = by_path(spent_by(small(), GEMM))
    assert found == pytest.approx({
        # but what operands' way stands for: of weights 12 rows of 256, of all inputs
        ("matrix", "energy.matrix.bf16"): (FLOP - 100 * (1280**2 * 12 / 256 + 12 * 1280)) * PJ,
        ("matrix", "energy.padding"): FLOP / 3 * 0.25 * PJ,  # 4 of 16 rows fill the second tile
        ("dram", "energy.dram.hbm3e"): MOVED * 60 * PJ,
        ("dram", "energy.cache"): MOVED * 50 * PJ,  # on the way to the units
        ("launch", "energy.launch"): 3e-6,
        ("units", "energy.cycle"): 1e-3 * 1e9 * 4 * 40 * PJ,
        ("die", "power.clocks"): 20 * 4 * MS,
        ("board", "power.idle"): 50 * 4 * MS,
    }, rel=1e-12)  # fmt: skip


def test_special_functions_and_lanes_by_hand():
    silu = {"kind": "activation", "dtype": "fp32", "batch": 1, "m": 1, "n": 1_000_000, "flop": 4e6}
    found = by_path(spent_by(small(), silu))
    assert found["vector", "energy.vector"] == pytest.approx(4e6 * 10 * PJ)
    assert found["special", "energy.special"] == pytest.approx(2e6 * 30 * PJ)  # exp, reciprocal
    assert not any(block == "matrix" for block, _ in found)


def test_a_cache_of_four_times_the_size_is_twice_as_far():
    few = {**GEMM, "n": 64, "k": 64, "read_weight": 8192.0, "read_activation": 1536.0,
           "write_activation": 1536.0}  # fmt: skip
    found = by_path(spent_by(small(memories__l2__capacity=4e6), few, caches="warm"))
    assert found["l2", "energy.cache"] == pytest.approx((8192 + 3072) * 50 * PJ * 2, rel=1e-6)


def test_dram_and_a_cache_that_say_what_a_byte_takes():
    own = small(memories__dram__energy=100 * PJ, memories__l2__energy=5 * PJ)
    found = by_path(spent_by(own, GEMM))
    assert found["dram", "memories.dram.energy"] == pytest.approx(MOVED * 100 * PJ)
    assert ("dram", "energy.cache") not in found
    near = energy.of_byte("l2", Designs(own))["memories.l2.energy"].item()
    assert near == pytest.approx(5 * PJ)  # of any size: it does not say for which one


def test_a_memory_that_says_nothing_is_not_free():
    assert np.isnan(energy.of_byte("victim", Designs(small()))["memories.victim.energy"]).all()
    kv = with_value(H200, "memories.kv_sram.capacity", 30e6)
    for path in ("bandwidth", "latency"):
        kv = with_value(kv, f"memories.kv_sram.{path}", NPU[f"memories.kv_sram.{path}"])
    assert ns.replay(ns.load_workload("paddleocr_vl_decode"), kv, "graph").energy_j is None


def test_rows_that_only_fill_tiles():
    def share(**row):
        one = workload({**GEMM, **row}).operations()
        return (energy.padded(one) / one["flop"]).item()

    assert share(m=8) == 0.0
    assert share(m=9) == pytest.approx(7 / 9)
    assert share(kind="gemv", m=1) == 0.0  # lanes or whole rows: no tile to fill
    grouped = {"kind": "grouped_gemm", "groups": 8, "m": 96, "routine": "grouped_matrix"}
    assert share(**grouped) == pytest.approx(64 / 12 - 1)  # 12 rows each in a tile of 64
    assert share(**{**grouped, "m": 4}) == pytest.approx(63)  # four of the groups have a row


def test_leakage_and_clocks_by_hand():
    arch = with_die()
    assert die_area(Designs(arch)).item() / MM2 == pytest.approx(10)
    found = spent_by(arch, GEMM)
    leak, clocks = found.by_block("leakage"), found.by_block("clocks")
    assert {b: j.item() for b, j in leak.items()} == pytest.approx(
        {"matrix": 2 * 4 * MS, "rest": 3 * 4 * MS, "board": 7 * 4 * MS}
    )
    assert {b: j.item() for b, j in clocks.items()} == pytest.approx(
        {"matrix": 4 * 4 * MS, "rest": 6 * 4 * MS}
    )


def test_half_the_clock_by_hand():
    volts = {"voltage__clock": 2e9, "voltage__slope": 0.5, "voltage__least": 0.6}
    full, half = spent_by(with_die(), GEMM), spent_by(with_die(**volts), GEMM)
    v2 = 0.75**2  # 1 - 0.5 x 0.5
    for kind, block, factor in (
        ("leakage", "matrix", v2), ("clocks", "rest", v2 / 2), ("leakage", "board", 1.0),
        ("dynamic", "matrix", v2), ("dynamic", "units", v2), ("dynamic", "launch", v2),
        ("dynamic", "dram", (60 + 50 * v2) / 110),
    ):  # fmt: skip
        before, after = (s.by_block(kind)[block].item() for s in (full, half))
        assert after / before == pytest.approx(factor), (kind, block)


def test_an_idle_power_that_was_measured_is_kept_in_proportion():
    arch = with_die(power__idle=24, voltage__clock=1e9, voltage__slope=0.5, voltage__least=0.5)
    arch = replace(arch, values={**arch.values, "power.idle": 24.0})
    rest, leaks = energy.resting(Designs(arch))
    total = 7 + 5 * 0.25  # at the lowest voltage
    assert rest.item() == pytest.approx(7 * 24 / total)
    assert leaks["matrix"].item() == pytest.approx(2 * 24 / total)
    assert (rest + energy.asleep(Designs(arch), leaks)).item() == pytest.approx(24)


def test_gated_clocks_and_leakage_by_hand():
    """The product runs 1 of 4 ms, an addition 1: matrix units rest 3 ms, the cache 2, `rest` never.

    The cache, 2 mm2, keeps what it holds: it leaks on.
    """
    gated = with_die(gating__clocks=0.5, gating__leakage=0.8, node__n4__sram=2 * MM2 / 1e6)
    found = spent_by(gated, GEMM, ADD)
    assert found.by_block("clocks")["matrix"].item() == pytest.approx(4 * (4 - 0.5 * 3) * MS)
    assert found.by_block("clocks")["l2"].item() == pytest.approx(2 * (4 - 0.5 * 2) * MS)
    assert found.by_block("leakage")["l2"].item() == pytest.approx(1 * 4 * MS)
    assert found.by_block("clocks")["rest"].item() == pytest.approx(6 * 4 * MS)
    assert found.by_block("leakage")["matrix"].item() == pytest.approx(2 * (4 - 0.8 * 3) * MS)
    assert found.by_block("leakage")["rest"].item() == pytest.approx(3 * 4 * MS)


def test_a_unit_wakes_for_the_first_of_some_products():
    gated = with_die(gating__leakage=0.5, gating__wake=2e-6)
    w = workload(GEMM, GEMM, ADD, GEMM, {**GEMM, "step": 1}, {**ADD, "step": 1},
                 wall=(1.0, 1.0))  # fmt: skip
    assert wake_up(w, Designs(gated)).item() == pytest.approx(2e-6 * (2 + 1) / 2)
    assert wake_up(w, Designs(with_value(gated, "gating.leakage", 0.0))).item() == 0.0
    assert wake_up(workload(ADD), Designs(gated)).item() == 0.0


def test_the_band_by_hand():
    marks = {"energy.vector": Provenance("t", "assumed", 5 * PJ, 20 * PJ),
             "power.rest": Provenance("t", "assumed", 4.0, 7.0)}  # fmt: skip
    arch = Arch("a", "a", {"energy.vector": 10 * PJ, "power.rest": 5.0}, marks)
    parts = (Part("vector", "dynamic", ("energy.vector",), np.array([3.0])),
             Part("special", "dynamic", ("energy.special", "energy.vector"), np.array([1.0])),
             Part("board", "leakage", ("power.rest",), np.array([10.0])))  # fmt: skip
    ends = Spent(parts, np.array([2.0])).band(Designs(arch), np.array([1.0]), np.array([3.0]))
    # a second more or less is 5 J; 4 J of the first constant, 10 J of the second
    assert ends[0].item() == pytest.approx(14 - (5**2 + 2**2 + 2**2) ** 0.5)
    assert ends[1].item() == pytest.approx(14 + (5**2 + 4**2 + 4**2) ** 0.5)


# --- what must hold -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "launch"), [("h200", "graph"), ("decode_npu", "queue"), ("metax_c500", "eager")]
)
def test_blocks_add_up_and_the_band_holds_the_value(arch, launch):
    r = ns.replay(ns.load_workload("paddleocr_vl_decode"), ns.load_arch(arch), launch)
    each = [joules for kinds in r.energy_by_block.values() for joules in kinds.values()]
    assert min(each) >= 0
    assert {kind for kinds in r.energy_by_block.values() for kind in kinds} <= set(KINDS)
    assert sum(each) == pytest.approx(r.energy_j, rel=1e-12)
    low, high = r.energy_band_j
    assert 0 < low < r.energy_j < high
    assert 0 < r.movement_j < r.energy_j
    assert r.power_w == pytest.approx(r.energy_j / r.wall_s, rel=1e-12)


@pytest.mark.parametrize("arch", [H200, NPU, ns.load_arch("metax_c500")], ids=lambda a: a.name)
def test_energy_is_linear_in_every_constant_and_grows_with_it(arch):
    w, wall = layer(), np.full(2, 1e-4)
    time = durations(w, Designs(arch))
    spent = step_energy(w, Designs(arch), time, wall[:1])
    paths = {path for part in spent.parts for path in part.paths}
    assert {"energy.vector", "energy.launch", "energy.cycle"} < paths
    for path in paths:
        more = Designs(arch, {path: arch[path] * np.array([1.0, 1.5])})
        before, after = step_energy(w, more, durations(w, more), wall).joules
        own = sum(p.joules.item() for p in spent.parts if path in p.paths)
        assert own > 0
        assert after - before == pytest.approx(0.5 * own, rel=1e-6, abs=1e-15), path


@EXAMPLES
@given(st.sampled_from(("gating.clocks", "gating.leakage")), st.floats(0, 1), st.floats(0, 1))
def test_more_gating_never_costs_energy_without_a_wake_up(path, one, other):
    w, wall = layer(), np.full(2, 1e-4)
    d = Designs(NPU, {path: np.sort([one, other]), "gating.wake": np.zeros(2)})
    less, more = step_energy(w, d, durations(w, d), wall + wake_up(w, d)).joules
    assert more <= less * (1 + 1e-12)


def test_waking_takes_time_and_a_long_one_costs_more_than_gating_saves():
    w = ns.load_workload("paddleocr_vl_decode")
    gated = with_value(H200, "gating.leakage", 0.9)
    free, none = ns.replay(w, gated, "graph"), ns.replay(w, H200, "graph")
    assert free.wall_s == none.wall_s
    assert free.energy_j < none.energy_j
    slow = with_value(gated, "gating.wake", 1e-6)
    r, wakes = ns.replay(w, slow, "graph"), wake_up(w, Designs(slow)).item() / 1e-6
    products = w.mask("kind", "gemm", "gemv", "attention").sum() / len(w.steps)
    assert 1 <= wakes <= products
    assert r.wall_s == pytest.approx(free.wall_s + wakes * 1e-6, rel=1e-12)
    assert r.band.wall_s[0] > free.band.wall_s[0]
    assert ns.replay(w, with_value(gated, "gating.wake", 1e-3), "graph").energy_j > none.energy_j


@pytest.mark.parametrize("launch", ["eager", "queue"])
def test_gating_that_is_off_changes_no_bit(launch):
    w, off = ns.load_workload("paddleocr_vl_decode"), H200
    for path in ("gating.clocks", "gating.leakage", "gating.wake"):
        off = with_value(off, path, 0.0)
    off = with_value(off, "gating.wake", 1e-3)  # nothing sleeps, nothing wakes
    with_it, without = (ns.replay(w, arch, launch).as_dict() for arch in (off, H200))
    for name in ("made_by", "notes"):
        with_it.pop(name), without.pop(name)
    assert with_it == without


def test_energy_changes_no_time():
    w = ns.load_workload("paddleocr_vl_decode")
    bare = replace(H200, values={p: v for p, v in H200.values.items() if p != "technology.node"})
    with_it, without = (ns.replay(w, arch, "graph") for arch in (H200, bare))
    assert (without.energy_j, without.power_w, without.energy_by_block) == (None, None, {})
    for name in ("wall_s", "device_busy_s", "host_busy_s", "band", "traffic"):
        assert getattr(with_it, name) == getattr(without, name)


def test_a_machine_that_says_too_little_has_no_energy_in_a_sweep():
    w, mi300x = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("mi300x")
    assert ns.replay(w, mi300x, "graph").energy_j is None
    table = sweep(Space(mi300x, {"units.count": [152, 304]}, ["graph"]), w)
    assert not [name for name in table if name.startswith(("energy", "power", "movement", "edp"))]
    less = replace(H200, values={p: v for p, v in H200.values.items() if p != "power.rest"})
    assert energy.missing(Designs(less)) == ("power.rest",)


def test_every_machine_that_says_its_node_has_energy():
    found = []
    for name in catalog.names("archs"):
        arch = ns.load_arch(name)
        if "technology.node" in arch.values:
            d = Designs(arch)
            spent = step_energy(layer(), d, durations(layer(), d), np.array([1e-4]))
            assert 1e-5 < spent.joules < 1e-1, name  # 0.1 W to 1 kW
            found.append(name)
    assert {"h200", "decode_npu", "a100", "metax_c500"} <= set(found)


def test_an_older_node_takes_more():
    d = Designs(H200, {"technology.node": np.array([NODES.index(n) for n in ("n7", "n5", "n4")])})
    w = layer()
    spent = step_energy(w, d, durations(w, d), np.full(3, 1e-4))
    assert (np.diff(spent.joules) < 0).all()
    vector = spent.by_block("dynamic")["vector"]
    ratio = H200["node.n7.energy"] / H200["node.n4.energy"]
    assert vector[0] / vector[2] == pytest.approx(ratio)


def test_work_that_moves_to_the_gemv_unit_is_computed_once(monkeypatch):
    # whose operations hold no way of operands
    monkeypatch.setattr("npusim.energy.of_way", lambda operations: np.zeros(len(operations)))
    w = ns.load_workload("paddleocr_vl_decode")

    def flop(count):
        arch = with_value(NPU, "gemv.count", count)
        spent = step_energy(w, Designs(arch), durations(w, Designs(arch)), np.array([1e-3]))
        each = {p: arch[p] for p in energy.OPERATIONS if p in arch.values}
        of = {(p.block, p.paths[0]): p.joules.item() / each[p.paths[0]] for p in spent.parts
              if p.paths[0] in each and p.block in (*PRODUCTS, "vector")}  # fmt: skip
        return sum(of.values()), of.get(("gemv_unit", "energy.engine"), 0.0)

    (total, there), (without, nothing) = flop(NPU["gemv.count"]), flop(0)
    assert total == pytest.approx(without, rel=1e-9)
    assert nothing == 0 < there < total


def test_many_designs_at_once_are_as_one_by_one():
    w = layer()
    axes = {"units.clock": [1.2e9, 1.8e9], "gating.clocks": [0.0, 0.7],
            "power.limit": [60.0, 400.0], "technology.node": [N4, N4 - 3]}  # fmt: skip
    table = sweep(Space(NPU, axes, ["queue"]), w)
    assert table["clock_share"].min() < 1 == table["clock_share"].max()
    for row in table.iloc[::6].to_dict("records"):
        arch = NPU
        for path in axes:
            arch = with_value(arch, path, row[path])
        r = ns.replay(w, arch, "queue")
        one = (r.energy_j, *r.energy_band_j, r.movement_j, r.power_w, r.clock_share)
        names = ("energy_j", "energy_low_j", "energy_high_j", "movement_j", "power_w",
                 "clock_share")  # fmt: skip
        assert [row[name] for name in names] == pytest.approx(one, rel=1e-12)


# --- the counter of a board ---------------------------------------------------------------------


@pytest.mark.shared
def test_power_of_every_work_on_the_board_is_within_8_percent():
    found = benchmark().of_board("baseline")
    assert set(found) == {"idle", *benchmark().WORKS}
    for what, seen in found.items():
        assert seen.at_rate == pytest.approx(seen.watts, rel=0.08), what
        assert seen.whole == pytest.approx(seen.watts, rel=0.08), what


@pytest.mark.shared
def test_the_bf16_product_runs_at_the_clock_of_the_board():
    product = benchmark().of_board("baseline")["gemm_bf16"]
    assert product.clock == 1440e6
    assert product.own_clock == pytest.approx(product.clock, rel=0.03)
    assert product.result.power_w == pytest.approx(700, rel=1e-3)


@pytest.mark.shared
def test_works_do_what_the_board_did():
    rows = benchmark().axis(benchmark().BOARDS["baseline"])
    for what in benchmark().WORKS:
        r, row = benchmark().of_board("baseline")[what].result, rows[what]
        for level in ("dram", "l2"):
            if f"{level}_bytes" in row:
                moved = sum(r.traffic[level].values())
                assert moved == pytest.approx(row[f"{level}_bytes"] / row["iters"], rel=0.001)
        if "launches" in row:
            assert r.launches == row["launches"] / row["iters"]


@pytest.mark.shared
def test_joules_of_decode_steps_are_within_10_percent():
    found = benchmark().steps()
    for name, (joules, _, result, at_wall) in found.items():
        assert at_wall == pytest.approx(joules, rel=0.10), name
        if "eager" not in name:  # its wall is that of a host, and of a profiler
            assert result.energy_j == pytest.approx(joules, rel=0.10), name
            assert result.energy_band_j[0] < joules < result.energy_band_j[1]


@pytest.mark.shared
def test_constants_are_those_of_the_fit():
    fit = benchmark("energy_fit")
    x, _ = fit.fit([r for r in fit.read(fit.FILES) if fit.is_fitted(*r[:3])])
    for name, path, times in (
        ("dram", "memories.dram.energy", PJ), ("l2", "memories.l2.energy", PJ),
        *((t, f"energy.matrix.{t}", PJ) for t in ("bf16", "fp16", "tf32", "fp8", "int8")),
        ("fp32 product", "energy.vector", PJ), ("cycle", "energy.cycle", PJ),
        ("launch [uJ]", "energy.launch", 1e-6), ("zeros, of bf16", "energy.padding", 1.0),
        ("slope", "voltage.slope", 1.0),
    ):  # fmt: skip
        assert H200[path] == pytest.approx(x[name] * times, rel=0.03), name
    clocks = H200["clocks.density"] * die_area(Designs(H200)).item()
    assert clocks == pytest.approx(x["clocks [W]"], rel=0.03)
    special = x["special"] - 2 * x["fp32 multiply-add"]  # two additions beside each
    assert H200["energy.special"] == pytest.approx(special * PJ, rel=0.03)
    assert H200["energy.dram.hbm3e"] == pytest.approx((x["dram"] - x["l2"]) * PJ, rel=0.03)


def test_a_c500_that_serves_lies_in_its_band():
    watts, low, high, parts = benchmark().c500()
    assert low < benchmark().C500_WATTS < high
    assert sum(parts.values()) == pytest.approx(watts)
    assert parts["board"] == 38.0  # read on that machine


@pytest.mark.shared
def test_tables_of_the_page_are_those_of_the_benchmark():
    page = (ROOT / "docs/energy.md").read_text(encoding="utf-8")
    for table in (benchmark().of_axis, benchmark().of_steps, benchmark().of_c500):
        assert table() in page, f"{table.__name__}: run python benchmarks/energy.py"
