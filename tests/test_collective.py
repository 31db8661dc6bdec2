"""Collectives: times worked out by hand, laws, and what two and four H200s measured."""

import importlib.util
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim import catalog
from npusim.arch import Designs, with_value
from npusim.models import kernel, link
from npusim.models.collective import PROTOCOLS, ROUTINES, collective_cost, known, ways
from npusim.units import CHOICES
from tests.conftest import ROOT
from tests.machines import machine, operations

# Links of 100 GB/s each way, a microsecond a hop, starts of 10 us; one block of a byte's thousandth
# of a nanosecond, so that links decide.
ROUND = {
    "link.bandwidth": 200e9, "link.efficiency": 1.0, "link.latency": 1e-6, "floor.pointwise": 1e-6,
    "library.collective.channels": 1, "library.collective.least": 1, "library.collective.slice": 1,
    **{f"library.collective_{p}.{name}": value for p in PROTOCOLS
       for name, value in (("start", 10), ("hop", 0), ("channel", 1e12), ("share", 1))},
    **{f"library.collective_{p}.{name}": value for p in ("flagged", "lines", "bulk", "switch")
       for name, value in (("guess_start", 1e-6), ("guess_hop", 1e-6), ("guess_share", 1))},
}  # fmt: skip
MB = 1e6
START, HOP, MB_US = 10.0, 1.0, 10.0  # us; a megabyte at 100 GB/s
SIZES = {"all_gather": "write_activation", "reduce_scatter": "read_activation"}


def boards(**changes):
    """Return the machine of round numbers with round links."""
    return machine(**{path.replace(".", "__"): v for path, v in ROUND.items()} | changes)


def chosen(of, name):
    """Return the number of an algorithm or a topology."""
    return float(CHOICES[of].index(name))


def of(routine, chips, size, **more):
    """Return one collective of a message of `size` bytes."""
    given = {"read_activation": size, "write_activation": size}
    if routine == "all_gather":
        given["read_activation"] = size / chips
    if routine == "reduce_scatter":
        given["write_activation"] = size / chips
    return {"kind": "collective", "routine": routine, "k": chips, **given, **more}


def us(arch, *rows):
    """Return the time of each row [us]."""
    return 1e6 * collective_cost(operations(*rows), Designs(arch)).time[:, 0]


def one(routine, chips, algorithm, topology, **changes):
    changes["link__topology"] = chosen("topology", topology)
    arch = boards(library__collective__algorithm=chosen("algorithm", algorithm), **changes)
    return us(arch, of(routine, chips, MB))[0]


# ------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("routine", "chips", "algorithm", "topology", "hops", "megabytes"),
    [
        ("all_reduce", 2, "ring", "switch", 2, 1.0),  # two passes of a half
        ("all_gather", 2, "ring", "switch", 1, 0.5),
        ("reduce_scatter", 2, "ring", "switch", 1, 0.5),
        ("all_reduce", 8, "ring", "switch", 14, 2 * 7 / 8),
        ("all_reduce", 8, "ring", "full", 14, 2 * 7 / 8),
        ("all_reduce", 8, "ring", "ring", 14, 2 * 7 / 8),
        # 2 x 4: 3/4 along the longer side, then half of 3/4; two passes
        ("all_reduce", 8, "ring", "mesh", 2 * 4, 2 * (3 / 4 + 3 / 8)),
        ("all_reduce", 16, "ring", "mesh", 2 * 6, 2 * 15 / 16),  # 4 x 4
        ("all_reduce", 7, "ring", "mesh", 12, 2 * 6 / 7),  # a ring
        ("all_gather", 8, "ring", "ring", 7, 7 / 8),
        ("broadcast", 8, "ring", "switch", 7, 1.0),
        ("all_reduce", 8, "tree", "switch", 6, 2 * 7 / 8),
        ("all_gather", 8, "tree", "full", 3, 7 / 8),
        ("broadcast", 5, "tree", "switch", 3, 1.0),
        ("all_reduce", 8, "tree", "ring", 14, 2 * 7 / 8),  # there is none: a ring
        ("all_reduce", 8, "one_shot", "switch", 1, 7.0),
        ("all_reduce", 8, "one_shot", "full", 1, 7.0),
        # 1 + 1 + 2 + 2 + 3 + 3 + 4 links to the others, of which half go each way
        ("all_reduce", 8, "one_shot", "ring", 4, 16.0),
        # 4 chips of a ring lie 4 links away in all, in each of 2 rows; of 2 dimensions
        ("all_reduce", 8, "one_shot", "mesh", 3, 2 * 2 * 4.0),
        ("all_gather", 8, "one_shot", "switch", 1, 7 / 8),
        ("all_to_all", 8, "ring", "switch", 1, 7 / 8),
        ("all_to_all", 8, "ring", "full", 1, 7 / 8),
        ("all_to_all", 8, "ring", "ring", 4, 2.0),
        ("all_to_all", 4, "ring", "mesh", 2, 1.0),  # 2 x 2: 1 + 1 + 2 links, all bandwidth
        ("send", 8, "ring", "switch", 1, 1.0),
        ("send", 8, "ring", "full", 1, 7.0),
        ("send", 8, "ring", "ring", 1, 2.0),
        ("send", 16, "ring", "mesh", 1, 4.0),
        ("send", 2, "ring", "ring", 1, 1.0),
    ],
)
def test_a_megabyte_by_hand(routine, chips, algorithm, topology, hops, megabytes):
    found = one(routine, chips, algorithm, topology)
    assert found == pytest.approx(START + hops * HOP + megabytes * MB_US, rel=1e-5)


@pytest.mark.parametrize(
    ("routine", "chips", "reduces", "hops", "megabytes"),
    [
        ("all_reduce", 8, 1, 2, 1 + 1 / 8),
        ("all_reduce", 8, 0, 14, 2 * 7 / 8),  # the switch only switches
        ("all_reduce", 2, 1, 2, 1.0),  # nothing to win
        ("all_gather", 8, 1, 7, 7 / 8),
    ],
)
def test_a_switch_that_sums(routine, chips, reduces, hops, megabytes):
    found = one(routine, chips, "in_switch", "switch", link__reduces=reduces)
    assert found == pytest.approx(START + hops * HOP + megabytes * MB_US, rel=1e-5)


def test_links_that_lead_to_no_chip_are_not_used():
    # seven links of a seventh each; four chips use three of them
    found = one("all_reduce", 4, "ring", "full", link__peers=7)
    assert found == pytest.approx(START + 6 * HOP + 7 / 3 * 1.5 * MB_US, rel=1e-5)
    assert one("all_reduce", 8, "ring", "full", link__peers=7) == pytest.approx(
        one("all_reduce", 8, "ring", "switch"), rel=1e-9
    )


def test_few_blocks_carry_a_small_message():
    # 2 B a clock at 1 GHz is 2 GB/s a block; one block for each 8 KiB, no more than four
    changes = {"library__collective__channels": 4, "library__collective__least": 8192,
               "library__collective__algorithm": chosen("algorithm", "ring")}  # fmt: skip
    arch = boards(**changes)
    for protocol in PROTOCOLS:
        arch = with_value(arch, f"library.collective_{protocol}.channel", 2.0)
    sizes = np.array([4096, 8192, 16384, 32768, 65536])
    flagged = ways(operations(*(of("all_reduce", 2, s) for s in sizes)), Designs(arch))
    found = 1e6 * flagged["ring", "flagged"][:, 0] - START - 2 * HOP
    blocks = np.array([1, 1, 2, 4, 4])
    assert found == pytest.approx(sizes / blocks / 2e3)


def test_in_bulk_the_first_slice_and_the_own_part_are_alone():
    # 8 MB on 2 chips: 8 MB over links of 100 GB/s; own half at 1,000 GB/s; a quarter first, or
    # what a slice holds
    arch = boards(
        library__collective__slice=1e9, library__collective__algorithm=chosen("algorithm", "ring")
    )
    arch = with_value(arch, "library.collective_bulk.channel", 1000.0)
    rows = operations(of("all_reduce", 2, 8 * MB))
    found = 1e6 * ways(rows, Designs(arch))["ring", "bulk"][0, 0]
    assert found == pytest.approx(START + 2 * HOP + 80 + 4 + 20)
    arch = with_value(arch, "library.collective.slice", MB / 2)
    found = 1e6 * ways(rows, Designs(arch))["ring", "bulk"][0, 0]
    assert found == pytest.approx(START + 2 * HOP + 80 + 4 + 5)


def test_the_library_takes_what_it_guesses_and_the_fastest_what_is():
    arch = boards()
    for path, value in (("flagged.start", 1), ("flagged.guess_start", 5e-5), ("lines.start", 2),
                        ("bulk.guess_start", 0), ("lines.guess_start", 5e-5)):  # fmt: skip
        arch = with_value(arch, f"library.collective_{path}", value)
    row = of("all_reduce", 2, 8.0)
    assert us(arch, row)[0] == pytest.approx(12, abs=1e-3)  # bulk
    fastest = with_value(arch, "library.collective.algorithm", chosen("algorithm", "fastest"))
    assert us(fastest, row)[0] == pytest.approx(3, abs=1e-3)  # flagged, two hops


def test_what_is_not_known_costs_what_it_did():
    arch = ns.load_arch("h200")
    rows = [of("all_reduce", 0, MB), of("all_reduce", 1, MB), of("", 4, MB),
            {**of("all_reduce", 4, MB), "kind": "copy"}]  # fmt: skip
    ops = operations(*rows, of("all_reduce", 4, MB))
    assert known(ops, Designs(arch)).tolist() == [False] * 4 + [True]
    assert not known(ops, Designs(ns.load_arch("metax_c500"))).any()  # no link is known
    streamed = kernel.kernel_cost(operations(rows[0]), Designs(arch)).time
    assert kernel.kernel_cost(ops, Designs(arch)).time[0] == pytest.approx(streamed[0])
    assert kernel.kernel_cost(ops, Designs(arch)).time[4] == pytest.approx(
        collective_cost(ops.take(slice(4, 5)), Designs(arch)).time[0]
    )


def test_choices_differ_by_design_side_by_side():
    names = CHOICES["algorithm"]
    columns = {"library.collective.algorithm": np.arange(len(names), dtype=float)}
    base = with_value(boards(), "library.collective.algorithm", 0.0)
    ops = operations(*(of(r, 8, MB) for r in ROUTINES))
    together = collective_cost(ops, Designs(base, columns)).time
    for i, name in enumerate(names):
        alone = collective_cost(
            ops,
            Designs(with_value(base, "library.collective.algorithm", chosen("algorithm", name))),
        )
        assert together[:, i] == pytest.approx(alone.time[:, 0])


@pytest.mark.parametrize(
    ("routine", "megabytes", "read"),
    [
        ("all_reduce", 7, 8),  # gets seven messages, and sums eight
        ("reduce_scatter", 7 / 8, 1),  # eight eighths
        ("all_gather", 7 / 8, 0),  # they are where they belong
    ],
)
def test_what_came_in_one_exchange_is_read_and_summed(routine, megabytes, read):
    # blocks handle a kilobyte a clock: a microsecond a megabyte, after the link's ten
    paths = ("library__collective_direct__channel", "library__collective_direct_bulk__channel")
    found = one(routine, 8, "one_shot", "switch", **dict.fromkeys(paths, 1e3))
    assert found == pytest.approx(START + HOP + MB_US * megabytes + read, rel=1e-9)


# ---------------------------------------------------------------------- laws

_MACHINES = [n for n in catalog.names("archs") if "link.bandwidth" in ns.load_arch(n).values]
_PLANS = {"routine": st.sampled_from(ROUTINES), "chips": st.integers(2, 64),
          "size": st.floats(64, 1e10), "algorithm": st.sampled_from(CHOICES["algorithm"]),
          "topology": st.sampled_from(CHOICES["topology"])}  # fmt: skip


def variant(name, algorithm, topology):
    arch = with_value(
        ns.load_arch(name), "library.collective.algorithm", chosen("algorithm", algorithm)
    )
    return with_value(arch, "link.topology", chosen("topology", topology))


@given(name=st.sampled_from(_MACHINES), factor=st.floats(1, 100), **_PLANS)
def test_more_bandwidth_is_never_slower(name, factor, routine, chips, size, algorithm, topology):
    # the library may guess otherwise and be wrong, as it does not choose what is fastest
    algorithm = "fastest" if algorithm == "library" else algorithm
    arch = variant(name, algorithm, topology)
    wide = with_value(arch, "link.bandwidth", min(arch["link.bandwidth"] * factor, 1e18))
    row = of(routine, chips, size)
    assert us(wide, row)[0] <= us(arch, row)[0] * (1 + 1e-9)


@given(name=st.sampled_from(_MACHINES), factor=st.floats(1, 100), **_PLANS)
def test_a_larger_message_is_never_faster(
    name, factor, routine, chips, size, algorithm, topology
):  # fmt: skip
    algorithm = "fastest" if algorithm == "library" else algorithm
    arch = variant(name, algorithm, topology)
    small, large = us(arch, of(routine, chips, size), of(routine, chips, size * factor))
    assert large >= small * (1 - 1e-9)


@given(name=st.sampled_from(_MACHINES), **_PLANS)
def test_nothing_beats_the_links_and_the_start(name, routine, chips, size, algorithm, topology):
    arch = variant(name, algorithm, topology)
    found = us(arch, of(routine, chips, size))[0]
    # every chip must get what it does not have; a sum of all needs a message out and in
    least = 1.0 if routine in ("all_reduce", "broadcast", "send") else (chips - 1) / chips
    rate = arch["link.bandwidth"] / 2 * arch["link.efficiency"]
    assert found >= 1e6 * (least * size / rate + arch["link.latency"]) * (1 - 1e-9)
    assert math.isfinite(found)


@given(name=st.sampled_from(_MACHINES), **_PLANS)
def test_the_fastest_is_the_fastest(name, routine, chips, size, algorithm, topology):
    row = of(routine, chips, size)
    fastest = us(variant(name, "fastest", topology), row)[0]
    assert fastest <= us(variant(name, algorithm, topology), row)[0] * (1 + 1e-9)


@given(st.integers(2, 200))
def test_loads_of_links_by_counting_them(chips):
    """Put every transfer of an exchange onto its links, and look for the busiest."""
    a, b = link.grid(chips)
    assert a * b == chips
    for sides, topology in (((1, chips), "ring"), ((a, b), "mesh")):
        arch = boards(link__topology=chosen("topology", topology))
        found = link.exchange_way(np.array([float(chips)]), Designs(arch)).load[0, 0]
        active = [side for side in sides if side > 1]
        busiest = 0.0
        for side in active:  # dimension by dimension, the shorter way round
            hops = sum(min(d, side - d) for d in range(side)) * chips / side
            busiest = max(busiest, hops / 2 / (1 / len(active) / 2))
        assert found == pytest.approx(busiest)


@pytest.mark.parametrize("routine", ROUTINES)
def test_two_chips_have_the_same_links_on_every_topology(routine):
    found = [one(routine, 2, "ring", topology) for topology in CHOICES["topology"]]
    assert found == pytest.approx([found[0]] * 4)


def test_small_messages_wait_and_large_ones_flow():
    arch = ns.load_arch("h200")
    doubled = with_value(arch, "link.bandwidth", 1.8e12)
    small, large = of("all_reduce", 8, 1024), of("all_reduce", 8, 1e9)
    assert us(arch, small)[0] == pytest.approx(us(doubled, small)[0], rel=0.02)
    assert us(arch, large)[0] / us(doubled, large)[0] > 1.7
    assert us(arch, of("all_reduce", 8, 8192))[0] > us(arch, of("all_reduce", 2, 8192))[0]


# ------------------------------------------------------------------ measured


@pytest.fixture(scope="module")
def bench():
    """The benchmark, which holds the model against measurements."""
    spec = importlib.util.spec_from_file_location("bench", ROOT / "benchmarks" / "collectives.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench"] = module
    spec.loader.exec_module(module)
    return module


def median_error(bench, rows, launch):
    arch = ns.load_arch("h200")
    took = np.array([r["us"] for r in rows])
    return np.median(np.abs(bench.predicted(rows, arch, launch) / took - 1))


@pytest.mark.parametrize("routine", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all"])
@pytest.mark.parametrize("path", ["OURS", "AGAIN"])
def test_our_two_boards_at_sizes_that_were_held_back(bench, routine, path):
    rows = [r for r in bench.measured(getattr(bench, path))
            if r["op"] == routine and bench.second_half(r) and not r.get("protocol")]  # fmt: skip
    assert len(rows) == 11
    assert median_error(bench, rows, "graph") < 0.1


@pytest.mark.parametrize("routine", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all"])
def test_four_boards_of_ours_measured_after_the_fit(bench, routine):
    """Two boards tell four: the switch's sums are off there, so it is a ring."""
    ring = with_value(ns.load_arch("h200"), "link.reduces", 0)
    rows = [r for r in bench.measured(bench.FOUR) if r["op"] == routine and "protocol" not in r]
    assert {r["gpus"] for r in rows} == {4}
    off = bench.predicted(rows, ring) / np.array([r["us"] for r in rows]) - 1
    assert np.median(np.abs(off)) < 0.15
    large = np.array([r["bytes"] >= 2**26 for r in rows])
    assert np.abs(off[large]).max() < 0.15


def test_messages_that_only_go_one_way(bench):
    for routine in bench.ONE_WAY:  # their period is less than what they take: see the benchmark
        rows = [r for r in bench.measured(bench.AGAIN) if r["op"] == routine]
        assert median_error(bench, rows, "graph") < 0.3
        large = [r for r in rows if r["bytes"] >= 2**24]
        assert median_error(bench, large, "graph") < 0.1


@pytest.mark.shared
@pytest.mark.parametrize("gpus", [2, 4])
@pytest.mark.parametrize("routine", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all"])
def test_boards_of_others_to_which_nothing_is_fitted(bench, shared, routine, gpus):
    if not bench.OTHER.exists():
        pytest.skip("aiconfigurator's measurements are not in ../shared")
    rows = [r for r in bench.other_rows() if r["op"] == routine and r["gpus"] == gpus]
    assert len(rows) == 21
    assert median_error(bench, rows, "eager") < 0.15


def test_eight_boards_reach_what_the_authors_of_the_library_say(bench):
    # github.com/NVIDIA/nccl-tests/issues/212: 370 GB/s in a ring, about 480 where the switch sums
    found = bench.bus_rates(ns.load_arch("h200"))
    assert found["ring"] == pytest.approx(370e9, rel=0.05)
    assert found["in_switch"] == pytest.approx(480e9, rel=0.05)


def test_the_shipped_numbers_are_those_that_the_fit_finds(bench):
    arch = ns.load_arch("h200")
    for name, (value, _) in bench.fit(arch).items():
        assert arch[f"library.collective_{name}"] == pytest.approx(value, rel=0.1, abs=200), name
