"""Routines, chains and conversions by hand, on four units of 1 GHz."""

import numpy as np
import pytest

from npusim.arch import Designs
from npusim.models.conversion import one_pass, single_cycle, weight_time, widens
from npusim.models.fused import FORMS, fused_cost, known
from npusim.models.routine import routine_cost, routine_shape
from tests.machines import machine, operations

NS = 1e-9


def design(**changes):
    return Designs(machine(host__bandwidth=1e10, **changes))  # which no row here uses


def library(routine, **numbers):
    full = {"floor": 0, "element": 0, "block": 0, "chain": 0, **numbers}
    return {f"library__{routine}__{name}": value for name, value in full.items()}


def rows(**more):
    return operations({"kind": "pointwise", "routine": "strided", "batch": 1, "m": 1, **more})


@pytest.mark.parametrize(
    ("blocks", "threads", "elements", "links"),
    [
        (1, 1, 7, 7),  # a thread alone does them one after the other
        (1, 2, 7, 4),
        (2, 2, 7, 2),
        (2, 4, 7, 1),
        (0, 4, 7, 0),  # nobody knows of how many threads
        (4, 0, 7, 0),
    ],
)
def test_links_of_a_chain(blocks, threads, elements, links):
    row = rows(n=elements, blocks=blocks, threads=threads)
    found = routine_cost(row, design(**library("strided", floor=1, chain=500)))
    assert found.time.item() == pytest.approx(3e-6 + links * 500 * NS)


@pytest.mark.parametrize(
    ("blocks", "rounds", "part"), [(0, 1, 1 / 4), (1, 1, 1), (4, 1, 1 / 4), (9, 3, 3 / 9)]
)
def test_what_lies_on_the_busiest_unit(blocks, rounds, part):
    shape = routine_shape(rows(n=900, blocks=blocks, threads=32), design())
    assert shape.rounds.item() == rounds
    assert shape.part.item() == pytest.approx(part)
    assert shape.share.item() == pytest.approx(900 * part)


# --- how well memory and issue overlap ----------------------------------------------------------

# 64,000 B from the cache at 4 units x 64 B a clock: 250 cycles, as many as a block's issue takes.
EQUAL = {"batch": 1, "m": 1, "n": 1000, "blocks": 4, "threads": 32, "read_activation": 64_000.0,
         "distance_activation": 64_000.0}  # fmt: skip


@pytest.mark.parametrize(
    ("routine", "power"),
    [(name, 5) for name in ("vectorized", "special", "fill", "unrolled", "softmax_warp", "layout",
                            "gather_vectorized", "index_large", "unrolled_cast")]
    + [(name, 2) for name in ("strided", "reduce_rows", "layer_norm", "scan_rows", "index", "cat",
                              "softmax_block", "strided_cast", "fused_steps")],
)  # fmt: skip
def test_where_nothing_waits_for_another_memory_and_issue_overlap_almost_fully(routine, power):
    row = operations({"kind": "cast", "routine": routine, **EQUAL})
    found = routine_cost(row, design(**library(routine, block=250))).time.item()
    assert found == pytest.approx(2 ** (1 / power) * 250 * NS, rel=1e-3)


# --- conversions that wait for each access -------------------------------------------------------


def converting(kind, waves, **more):
    # a unit of 2,048 threads holds 16 blocks of 128 threads, four units 64; four elements a thread
    return operations({"kind": kind, "routine": "unrolled_cast", "batch": 1, "m": 1,
                       "n": waves * 64 * 128 * 4, "blocks": waves * 64, "threads": 128,
                       **more})  # fmt: skip


@pytest.mark.parametrize("waves", [1, 2, 5])
def test_each_wave_of_a_conversion_waits_again(waves):
    given = design(**library("unrolled_cast", chain=100), units__threads=2048)
    # four elements of 100 cycles a wave
    assert routine_cost(converting("cast", waves), given).time.item() == pytest.approx(
        waves * 400 * NS
    )
    # a second input makes three accesses of two
    assert routine_cost(converting("pointwise", waves), given).time.item() == pytest.approx(
        waves * 600 * NS
    )
    # nobody says how many a unit holds: all at once
    bare = design(**library("unrolled_cast", chain=100))
    assert routine_cost(converting("cast", waves), bare).time.item() == pytest.approx(400 * NS)


def test_other_routines_wait_once():
    row = operations({"kind": "cast", "routine": "strided_cast", "batch": 1, "m": 1,
                      "n": 3 * 64 * 128 * 4, "blocks": 3 * 64, "threads": 128})  # fmt: skip
    given = design(**library("strided_cast", chain=100), units__threads=2048)
    assert routine_cost(row, given).time.item() == pytest.approx(400 * NS)


def test_waves_after_the_first_wait_for_dram_besides():
    numbers = library("unrolled_cast", chain=100)
    far = {"units__threads": 2048, "memories__dram__latency": 51e-9, "memories__l2__latency": 1e-9,
           "units__load_rate": 1e9, "memories__l2__slice_width": 1e12}  # fmt: skip
    near = converting("cast", 3, read_activation=1000.0, distance_activation=1000.0)
    cold = converting("cast", 3, read_activation=1000.0)  # nothing is in the cache
    # 400 cycles at first, then two waves of four elements: 100 cycles and of what is cold 50 more;
    # of the first wave the four loads of 128 threads lie in 512 B, which come at once
    assert routine_cost(near, design(**numbers, **far)).time.item() == pytest.approx(1200 * NS)
    assert routine_cost(cold, design(**numbers, **far)).time.item() == pytest.approx(1650 * NS)


def test_waiting_issue_and_transfers_overlap():
    # two waves, so 400 cycles of waiting after the first 400; issue of 32 blocks on a unit takes as
    # long at 12.5 cycles a block: together the fifth root of two times one of them
    given = design(**library("unrolled_cast", chain=100, block=12.5), units__threads=2048)
    found = routine_cost(converting("cast", 2), given).time.item()
    assert found == pytest.approx((400 + 2**0.2 * 400) * NS)
    # and transfers of 102,400 B at 256 B a clock: the fifth root of three times
    moved = converting("cast", 2, read_activation=102_400.0, distance_activation=102_400.0)
    assert routine_cost(moved, given).time.item() == pytest.approx(
        (400 + 3**0.2 * 400) * NS, rel=1e-3
    )


# --- chains -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["fused_steps", "fused_rows", "fused_passes"])
def test_a_chain_of_each_form_waits_at_its_branches(form):
    assert form in FORMS
    # two branches of 500 cycles in each of three rounds, beside half a floor of 3 us
    row = operations({"kind": "fused", "routine": form, "k": 2, "blocks": 9, "threads": 128,
                      "batch": 1, "m": 1, "n": 9})  # fmt: skip
    numbers = library(form, floor=0.5)
    floor = routine_cost(row, design(**numbers)).time.item()
    without, branch = (design(**numbers, **more)
                       for more in ({}, {"fusion__branch": 500}))  # fmt: skip
    assert known(row, without).tolist() == [True]
    assert fused_cost(row, without).time.item() == floor
    assert fused_cost(row, branch).time.item() - floor == pytest.approx(3000 * NS)


def test_other_routines_are_no_chains():
    names = ("strided", "fused", "")
    row = operations(*({"kind": "fused", "routine": name} for name in names))
    given = {**library("strided"), **library("fused_steps")}
    assert known(row, design(**given)).tolist() == [False] * 3
    # nor are those whose numbers the machine does not have
    row = operations({"kind": "fused", "routine": "fused_rows"})
    assert known(row, design(**given)).tolist() == [False]


# --- conversions --------------------------------------------------------------------------------


def product(stored, **more):
    """Return a product of two rows with 1,000 x 500 weights of so many bytes each."""
    return operations({"kind": "gemm", "batch": 1, "m": 2, "n": 1000, "k": 500,
                       "flop": 2.0 * 2 * 500_000, "read_weight": stored * 5e5, **more})  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "width"), [("bf16", 2), ("fp32", 4), ("fp8", 1), ("int4", 0.5), ("other", 2)]
)
def test_weights_are_narrow_by_a_byte_in_all(dtype, width):
    assert not widens(product(width, dtype=dtype)).item()
    assert widens(product(width - 1 / 500_000, dtype=dtype)).item()
    assert not widens(product(width + 1 / 500_000, dtype=dtype)).item()
    assert not widens(product(0.0, dtype=dtype)).item()


@pytest.mark.parametrize(
    ("kind", "groups", "narrow"),
    [("gemv", 0, True), ("gemm", 0, True), ("conv", 0, True), ("attention", 0, False),
     ("grouped_gemm", 0, False), ("gemm", 1, False)],
)  # fmt: skip
def test_products_whose_weights_are_known(kind, groups, narrow):
    assert widens(product(1.0, kind=kind, groups=groups)).item() is narrow


def test_a_pass_over_all_weights():
    # 500,000 at 16 a clock of 1 GHz on 4 units: 7,812.5 ns, whatever the rows
    designs = design(conversion__rate=16)
    assert weight_time(product(1.0), designs).item() == pytest.approx(NS / 16)
    four = np.array([4.0])
    assert one_pass(product(1.0), four, designs).item() == pytest.approx(7812.5 * NS)
    more = product(1.0, m=8, flop=8.0 * 2 * 500_000)
    assert one_pass(more, four, designs).item() == pytest.approx(7812.5 * NS)
    assert one_pass(product(2.0), four, designs).item() == 0
    # a kernel that does half of the product widens half; steps behind one add no weights
    half = product(0.5, flop=1.0 * 2 * 500_000)
    assert one_pass(half, four, designs).item() == pytest.approx(7812.5 / 2 * NS)
    chain = product(1.0, flop=3.0 * 2 * 500_000)
    assert one_pass(chain, four, designs).item() == pytest.approx(7812.5 * NS)


def test_a_port_of_64_bytes_brings_128_weights_of_four_bits():
    assert single_cycle(design(), 4).item() == 128
    assert single_cycle(design(), 8).item() == 64
