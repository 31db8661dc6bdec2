"""Area by block: a machine worked out by hand, properties, and published dies."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import Arch, Designs, Provenance, with_value
from npusim.cli import main
from npusim.commands.area import area as command
from npusim.constants import quadrature
from npusim.errors import InputError
from npusim.models import area, carbon, die_cost, technology
from npusim.parameters import PARAMETERS
from npusim.silicon import silicon
from npusim.store import model_version
from npusim.technology import DRAM_TYPES, NODES

ROOT = Path(__file__).parent.parent
MM2, MTR = 1e-6, 1e6
NPU, H100 = ns.load_arch("decode_npu"), ns.load_arch("h100")

# Counts that a designer may raise: the die never shrinks. `link.bandwidth` and
# `memories.dram.bandwidth` step from one link or site to the next.
GROWS = (
    "units.count", "units.spare", "units.registers", "matrix.bf16.rate", "matrix.int4.rate",
    "matrix.fp64.rate", "vector.fp32.rate", "vector.int32.rate", "special.rate",
    "memories.l1.capacity", "memories.l2.capacity", "memories.l2.spare",
    "memories.victim.capacity", "memories.kv_sram.capacity", "memories.weight_sram.capacity",
    "sram_compute.capacity", "prefetch.depth", "gemv.count", "gemv.lanes", "gemv.batch",
    "array.rows", "array.columns", "fusion.chain", "fusion.buffer", "memories.dram.bandwidth",
    "memories.dram.sites", "link.bandwidth", "link.spare", "host.lanes",
)  # fmt: skip


def small(**more):
    """A machine with round numbers in a node of 100 MTr/mm2 and 1 mm2/MB."""
    values = {
        "technology.node": NODES.index("n7"), "technology.memory": 1.0,  # hbm2e
        "node.n7.logic": 100 * MTR / MM2, "node.n7.sram": 1 * MM2 / 1e6,
        "units.count": 10.0, "units.registers": 25_000.0, "memories.l1.capacity": 100e3,
        "matrix.bf16.rate": 2000.0, "matrix.int8.rate": 4000.0, "vector.fp32.rate": 200.0,
        "memories.l2.capacity": 5e6, "memories.dram.bandwidth": 1e12,
        "area.mac": 50e3, "area.element": 80e3, "area.fp32": 100e3, "area.int32": 100e3,
        "area.fp64": 500e3, "area.special": 100e3, "area.accumulator": 1e3, "area.registers": 4.0,
        "area.l1": 2.0, "area.sram_compute": 3.0, "area.control": 100 * MTR, "area.fusion": 20e6,
        "area.noc": 50 * MTR, "area.rest": 150 * MTR,
        "dram_type.hbm2e.phy": 10 * MM2, "dram_type.hbm2e.control": 500 * MTR,
        "dram_type.hbm2e.bandwidth": 450e9,
        **more,
    }  # fmt: skip
    return Arch("small", "small", values, {p: Provenance("test", "assumed", v, v)
                                          for p, v in values.items()})  # fmt: skip


def blocks(arch):
    return {name: value.item() / MM2 for name, value in area.block_areas(Designs(arch)).items()}


def test_a_small_machine_by_hand():
    found = blocks(small())
    expected = {
        "matrix": 10 * 1000 * 50e3 / 100e6,  # both types are 1,000 products of 16 bits: 5 mm2
        "vector": 10 * 100 * 100e3 / 100e6,
        "registers": 10 * 0.1 * 4,  # 100 kB a unit
        "l1": 10 * 0.1 * 2,
        "control": 10.0,
        "l2": 5.0,
        "noc": 5.0,
        "dram_phy": 3 * (10 + 5),  # three sites of 450 GB/s for 1 TB/s
        "rest": 15.0,
    }
    assert {name: v for name, v in found.items() if v} == pytest.approx(expected)
    assert area.die_area(Designs(small())).item() / MM2 == pytest.approx(5 + 1 + 4 + 2 + 85 - 5)


def test_units_that_a_machine_may_have_by_hand():
    before = blocks(small())
    more = small(**{
        "gemv.count": 4.0, "gemv.lanes": 100.0, "gemv.batch": 10.0, "array.rows": 10.0,
        "array.columns": 20.0, "fusion.chain": 8.0, "fusion.buffer": 50e3,
        "memories.kv_sram.capacity": 3e6, "sram_compute.capacity": 1e6, "special.rate": 10.0,
        "vector.fp64.rate": 20.0, "matrix.fp64.rate": 40.0, "memories.l2.spare": 1e6,
        "memories.dram.sites": 4.0, "technology.link": 1.0, "link.bandwidth": 120e9,
        "link.spare": 1.0, "link_type.nvlink4.phy": 1 * MM2, "link_type.nvlink4.control": 1e8,
        "link_type.nvlink4.bandwidth": 50e9, "technology.host": 4.0, "host.lanes": 16.0,
        "link_type.pcie5.phy": 0.5 * MM2, "link_type.pcie5.control": 1e7,
    })  # fmt: skip
    after = blocks(more)
    grown = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert grown == pytest.approx({
        "gemv_unit": 400 * (50e3 + 10 * 1e3) / 100e6,
        "array": 10 * 200 * 80e3 / 100e6,
        "fusion": 10 * (0.2 + 0.05 * 2),
        "kv_sram": 3.0, "sram_compute": 3.0, "l2": 1.0,
        "special": 10 * 10 * 100e3 / 100e6,
        "fp64": 10 * 20 * 500e3 / 100e6,  # the larger rate: lanes are shared
        "dram_phy": 15.0,
        "link": (3 + 1) * 2.0,  # 120 GB/s take three links of 50
        "host_link": 16 * 0.6,
    })  # fmt: skip


def test_a_matrix_unit_is_as_large_as_its_fastest_type():
    def macs(**rates):
        named = {f"matrix.{dtype}.rate": rate for dtype, rate in rates.items()}
        return area.macs(Designs(small(**{"matrix.bf16.rate": 1.0, "matrix.int8.rate": 1.0,
                                          **named}))).item()  # fmt: skip

    assert macs(bf16=2048.0) == macs(bf16=2048.0, int8=4096.0, int4=8192.0) == 1024
    assert macs(bf16=2048.0, int8=8192.0) == 2048
    assert macs(tf32=1024.0) == macs(fp32=512.0) == 1024


def test_blocks_sum_to_the_die_and_none_is_negative():
    for name in ("h100", "a100", "mi210", "l40s", "rtx_5090", "decode_npu"):
        designs = Designs(ns.load_arch(name))
        found = area.block_areas(designs)
        assert tuple(found) == area.BLOCKS
        assert all(block.shape == (1,) and block.item() >= 0 for block in found.values())
        total = sum(block.item() for block in found.values())
        assert area.die_area(designs).item() == pytest.approx(total, rel=1e-14)
    assert sum(f.value for f in silicon(H100).shares.values()) == pytest.approx(1)


@settings(max_examples=60)
@given(path=st.sampled_from(GROWS), factor=st.floats(1.0, 16.0))
def test_more_of_anything_never_shrinks_the_die(path, factor):
    arch = with_value(NPU, "array.rows", 8.0)
    now = max(arch.values.get(path, 0.0), 1.0)
    values = np.minimum([now, np.ceil(now * factor)], PARAMETERS[path].high)
    die = area.die_area(Designs(arch, {path: values}))
    assert die[1] >= die[0]


@given(path=st.sampled_from([p for p in GROWS if p not in ("memories.dram.sites", "link.bandwidth",
                                                          "memories.dram.bandwidth",
                                                          "fusion.chain", "matrix.fp64.rate",
                                                          "matrix.bf16.rate")]))  # fmt: skip
def test_twice_as_much_takes_more(path):
    arch = with_value(NPU, "array.rows", 8.0)
    now = max(arch.values.get(path, 0.0), 1.0)
    die = area.die_area(Designs(arch, {path: np.array([now, 2 * now])}))
    assert die[1] > die[0]


@pytest.mark.parametrize("name", ["h100", "mi210", "l40s", "decode_npu"])
def test_a_smaller_node_never_gives_a_larger_die(name):
    nodes = {"technology.node": np.arange(len(NODES), dtype=float)}
    die = area.die_area(Designs(ns.load_arch(name), nodes))
    assert np.all(np.diff(die) <= 0)


def test_rows_of_a_sweep_are_single_machines():
    columns = {
        "units.count": np.array([60.0, 70.0, 80.0, 70.0]),
        "memories.l2.capacity": np.array([128e6, 192e6, 256e6, 1e6]),
        "technology.node": np.array([2.0, 5.0, 6.0, 0.0]),
    }
    designs = Designs(NPU, columns)
    found = area.block_areas(designs)
    for row in range(4):
        alone = NPU
        for path, column in columns.items():
            alone = with_value(alone, path, float(column[row]))
        for name, value in area.block_areas(Designs(alone)).items():
            assert found[name][row] == value.item(), name


@pytest.mark.parametrize("name", ["mi300x", "b200", "metax_c500", "rtx_3060"])
def test_a_machine_that_does_not_say_enough_has_no_area(name):
    designs = Designs(ns.load_arch(name), {"units.count": np.array([50.0, 60.0])})
    assert not area.has_area(designs)
    assert np.isnan(area.die_area(designs)).tolist() == [True, True]
    assert silicon(ns.load_arch(name)).figures == {}


# mm2, as published; of these the first three have no part in any constant that is set here
PUBLISHED = {"a100": 826, "h100": 814, "mi210": 724, "l40s": 608.5, "rtx_pro_6000_server": 750}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_dies(name):
    found = silicon(ns.load_arch(name))
    assert found.published == pytest.approx(PUBLISHED[name] * MM2)
    assert found.figures["die"].value == pytest.approx(found.published, rel=0.15)
    assert found.figures["die"].low < found.published < found.figures["die"].high


def test_what_no_source_gives_is_set_from_two_dies():
    """`area.rest` is the mean of what AD102 and GB202 have beside all other blocks."""
    beside = []
    for name in ("l40s", "rtx_pro_6000_server"):
        arch = with_value(ns.load_arch(name), "area.rest", 0.0)
        units = arch["units.count"] + arch["units.spare"]
        gap = PUBLISHED[name] * MM2 - area.die_area(Designs(arch)).item()
        beside.append(gap * arch["node.n4.logic"] / units)
    mark = NPU.provenance["area.rest"]
    assert NPU["area.rest"] == pytest.approx(np.mean(beside), rel=0.01)
    assert (mark.low, mark.high) == pytest.approx((min(beside), max(beside)), rel=0.01)


class Recorder(Designs):
    """Designs that remember what was asked of them."""

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "seen", set())

    def __getitem__(self, path):
        self.seen.add(path)
        return super().__getitem__(path)


def test_what_the_models_declare_is_what_they_read():
    declared = {path for model in (technology, area, die_cost, carbon) for path in model.PARAMETERS}
    arch = with_value(NPU, "technology.link", 0.0)
    for path in declared - set(arch.values):
        arch = with_value(arch, path, max(PARAMETERS[path].low, 1.0))
    choices = np.arange(len(DRAM_TYPES), dtype=float)  # the longest list
    designs = Recorder(arch, {path: np.minimum(choices, PARAMETERS[path].high)
                              for path in technology.PARAMETERS})  # fmt: skip
    die_cost.machine_cost(designs)
    carbon.operational(carbon.embodied(designs), designs)
    assert designs.seen == declared


def test_the_published_die_is_no_input():
    assert "area.die" not in area.PARAMETERS
    other = with_value(H100, "area.die", 1e-4)
    assert area.die_area(Designs(other)) == area.die_area(Designs(H100))


def test_quadrature_by_hand():
    def mark(low, high):
        return Provenance("test", "assumed", low, high)

    values = {"area.fp32": 3.0, "area.fp64": 5.0, "area.int32": 2.0, "area.mac": 1.0}
    base = Arch("x", "x", values, {
        "area.fp32": mark(0.0, 6.0), "area.fp64": mark(1.0, 6.0), "area.int32": mark(1.0, 4.0),
        "area.mac": mark(1.0, 1.0),
    })  # fmt: skip

    def value(d):
        return d["area.fp32"] + d["area.fp64"] - d["area.int32"] + d["area.mac"]

    paths = ["area.fp32", "area.fp64", "area.int32", "area.mac", "area.noc", "area.fp32"]
    low, high = quadrature(value, Designs(base), paths)
    assert low.tolist() == pytest.approx([7 - (9 + 16 + 4) ** 0.5])
    assert high.tolist() == pytest.approx([7 + (9 + 1 + 1) ** 0.5])
    column = Designs(base, {"area.fp64": np.array([5.0, 7.0])})  # stays as the sweep has it
    low, high = quadrature(value, column, paths)
    assert low.tolist() == pytest.approx([7 - 13**0.5, 9 - 13**0.5])
    assert high.tolist() == pytest.approx([7 + 10**0.5, 9 + 10**0.5])


def run(*arguments):
    return CliRunner().invoke(command, list(arguments))


def test_the_command_shows_blocks_the_published_die_and_cost():
    result = run("h100", "mi300x")
    assert result.exit_code == 0
    for words in ("matrix", "published: 814 mm2", "chip and memory", "dies that work",
                  "mi300x: no area: it does not say technology.node"):  # fmt: skip
        assert words in result.output


def test_the_command_as_json():
    content = json.loads(run("h100", "mi300x", "--set", "technology.node=n3", "--json").output)
    h100, mi300x = content["machines"]
    assert h100["node"] == "n3"
    assert h100["error"] < -0.1
    total = sum(block["value"] for block in h100["blocks"].values())
    assert total == pytest.approx(h100["figures"]["die"]["value"])
    assert mi300x["missing"] == ["technology.memory", "units.registers"]
    assert mi300x["figures"] == {}
    assert content["model"] == model_version()


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_none_with_an_area_is_an_error_with_all_that_is_missing(more):
    done = CliRunner().invoke(main, ["area", "b200", "mi300x", *more])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "error: b200: no area: it does not say technology.node, technology.memory",
        "error: mi300x: no area: it does not say technology.node, technology.memory, "
        "units.registers",
    ]
    assert CliRunner().invoke(main, ["area", "b200", "h100", *more]).exit_code == 0


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("host.sync=1 us", "changes neither area nor cost"),
        ("units.cuont=1", "unknown parameter"),
        ("technology.node=n2", "not one of the names"),
        ("units.count=20000", "too large for a wafer"),
    ],
)
def test_what_the_command_refuses(setting, words):
    result = run("decode_npu", "--set", setting)
    assert isinstance(result.exception, InputError)
    assert words in str(result.exception)


def test_a_die_larger_than_a_reticle_is_told():
    assert "no such die is made" in run("decode_npu", "--set", "technology.node=n16").output


def test_tables_of_the_page_are_those_of_the_benchmark():
    spec = importlib.util.spec_from_file_location("area_benchmark", ROOT / "benchmarks/area.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    page = (ROOT / "docs/area.md").read_text(encoding="utf-8")
    for table in (benchmark.of_rest, benchmark.of_dies, benchmark.of_ends, benchmark.of_blocks,
                  benchmark.of_matrix, benchmark.of_transistors, benchmark.of_rates):  # fmt: skip
        assert table() in page, f"{table.__name__}: run python benchmarks/area.py"
