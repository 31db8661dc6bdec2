"""Matrix products: tiles, waves and splits worked out by hand, and laws for every machine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npusim as ns
from npusim import catalog
from npusim.arch import Designs
from npusim.models import kernel
from npusim.models.gemm import gemm_cost
from npusim.parameters import PARAMETERS
from tests.machines import machine, operations

# Of the machine of round numbers. A k-step of a 64 x 64 tile is 2 x 64^3 FLOP on 1,024 a clock;
# beside its steps a block takes 100 clocks (gemm.fill). Outside of it: 1 us and 500 clocks.
NS = 1e-9
STEP, FILL, OUTSIDE = 512 * NS, 100 * NS, 1500 * NS
SUM = 1000 * NS  # gemm.reduce
SUMMED = 1000 * NS  # what the kernel that sums takes elsewhere: 0.8 us and an interval of 0.2 us


def busy(product, **changes):
    """Return what a product takes beside floor and start on the machine of round numbers [s]."""
    return time(product, machine(**changes)) - OUTSIDE


def time(product, arch):
    return gemm_cost(operations(product), Designs(arch)).time.item()


# ---------------------------------------------------------------- one tile, several, many


def test_one_tile_runs_on_one_unit():
    # two k-steps of 64; loads of (64 + 64) x 64 x 2 B take 256 clocks each and hide behind them
    one = {"m": 64, "n": 64, "k": 128}
    assert busy(one) == pytest.approx(2 * STEP + FILL)
    assert busy(one, units__count=1, units__powered=1) == pytest.approx(2 * STEP + FILL)
    assert busy({**one, "k": 129}) == pytest.approx(3 * STEP + FILL)


def test_the_parts_of_the_time_are_told_apart():
    cost = gemm_cost(operations({"m": 64, "n": 64, "k": 128}), Designs(machine()))
    assert cost.floor.item() == pytest.approx(1e-6 + 500 * NS)
    assert cost.compute.item() == pytest.approx(2 * STEP + FILL)
    assert cost.memory.item() == 0


def test_a_tile_is_filled_by_rows_of_eight():
    # one row takes the matrix unit as long as eight: 2 x 8 x 64 x 64 FLOP are 64 clocks, but the
    # loads of 8 + 64 rows take 72 x 64 x 2 / 64 = 144
    assert busy({"m": 1, "n": 64, "k": 128}) == pytest.approx(2 * 144 * NS + FILL)
    assert busy({"m": 8, "n": 64, "k": 128}) == busy({"m": 1, "n": 64, "k": 128})
    assert busy({"m": 9, "n": 64, "k": 128}) == pytest.approx(2 * 160 * NS + FILL)


@pytest.mark.parametrize(("problems", "waves"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_units_take_tiles_in_waves(problems, waves):
    batch = {"batch": problems, "m": 64, "n": 64, "k": 128}
    assert busy(batch) == pytest.approx(waves * (2 * STEP + FILL))


def test_the_fastest_tile_is_taken():
    # five tiles of 64 x 64 are two waves of 1,124 clocks; three of 64 x 128 one of 2,148
    assert busy({"m": 64, "n": 320, "k": 128}) == pytest.approx(2 * 1024 * NS + FILL)
    # four of 64 x 64 are one wave: larger ones would leave units idle
    assert busy({"m": 64, "n": 256, "k": 128}) == pytest.approx(2 * STEP + FILL)


def test_sizes_that_are_not_known_count_as_one():
    assert busy({}) == pytest.approx(busy({"batch": 1, "m": 1, "n": 1, "k": 1}))


def test_types_without_a_matrix_rate_run_on_the_vector_unit():
    # 64 FLOP a clock: sixteen times as long, loads of 4 B behind it
    one = {"m": 64, "n": 64, "k": 128, "dtype": "fp32"}
    assert busy(one) == pytest.approx(2 * 16 * STEP + FILL)


# ---------------------------------------------------------------- splitting K


DEEP = {"m": 64, "n": 64, "k": 1024}  # one tile of 16 k-steps on four units


def test_k_is_split_where_units_idle():
    # in four: 4 steps and the fill, then 64 x 64 sums of 4 B, four times out and in, at 256 B/clock
    whole = 16 * STEP + FILL
    four = 4 * STEP + FILL + SUM + 512 * NS
    assert busy({**DEEP, "routine": "whole"}) == pytest.approx(whole)
    assert busy(DEEP) == pytest.approx(four)
    # the sum is left out where it is an operation of its own, but for what that one does not do
    assert busy({**DEEP, "routine": "split"}) == pytest.approx(four - SUMMED)
    # never less than nothing
    assert busy({**DEEP, "routine": "split"}, gemm__reduce=0) == pytest.approx(4 * STEP + FILL)


def test_k_is_not_split_where_summing_takes_longer():
    assert busy(DEEP, gemm__reduce=1e-5) == pytest.approx(16 * STEP + FILL)
    busy_units = {**DEEP, "batch": 4}
    assert busy(busy_units) == pytest.approx(16 * STEP + FILL)


def test_parts_of_k_are_two_steps_or_more():
    # 255 is less than two parts of two steps; 256 is not. In two parts of a step 512 clocks are
    # saved, and the sum costs nothing here
    free = {"gemm__reduce": 0, "units__load_rate": 1e6}
    assert busy({**DEEP, "k": 255}, **free) == pytest.approx(4 * STEP + FILL)
    assert busy({**DEEP, "k": 256}, **free) == pytest.approx(2 * STEP + FILL, rel=1e-3)


@pytest.mark.parametrize(
    "product", [{"m": 64, "n": 64, "k": 64}, {"m": 4096, "n": 4096, "k": 4096}],
    ids=["too short", "no idle units"],
)  # fmt: skip
def test_a_product_that_was_split_has_a_time_on_every_machine(product):
    found = busy({**product, "routine": "split"})
    assert np.isfinite(found)
    assert found > 0
    if product["k"] == 64:  # in two all the same: one step each
        assert found == pytest.approx(STEP + FILL + SUM + 256 * NS - SUMMED)


# ---------------------------------------------------------------- loads


# Each side of a 64 x 64 tile is 8,192 B a step: 1,024 clocks at 8 B a clock, beside which the
# arithmetic of 512 does not count.
@pytest.mark.parametrize("cluster", [1, 2, 8])
@pytest.mark.parametrize(("m", "n", "rows"), [(64, 256, 64), (128, 128, 64), (1, 256, 8)])
def test_a_unit_takes_in_all_that_its_tile_needs(m, n, rows, cluster):
    found = busy({"m": m, "n": n, "k": 128}, units__load_rate=8, gemm__cluster=cluster)
    assert found == pytest.approx(2 * (16 * rows + 1024) * NS + FILL)


# The same from a cache that gives 8 B a clock to all blocks together, with room for this tile only.
@pytest.mark.parametrize(
    ("m", "n", "cluster", "step"),
    [
        (64, 256, 1, 1024 + 1024),
        (64, 256, 2, 512 + 1024),  # two blocks of a line have the same rows, not the same columns
        (64, 256, 4, 256 + 1024),
        (64, 256, 8, 256 + 1024),  # no more than four blocks lie there
        (256, 64, 4, 1024 + 256),
        (128, 128, 4, 512 + 512),  # two by two: each side is shared by two
        (128, 128, 8, 512 + 512),
        (64, 64, 4, 1024 + 1024),  # one block has nobody to share with
        (1, 256, 4, 32 + 1024),  # a GEMV: of eight rows a quarter, the weights alone
    ],
)
def test_blocks_of_a_cluster_share_one_side(m, n, cluster, step):
    cache = {"units__load_rate": 1e9, "memories__l2__slices": 1, "memories__l2__slice_width": 8,
             "memories__l1__capacity": 32768}  # fmt: skip
    found = busy({"m": m, "n": n, "k": 128}, **cache, gemm__cluster=cluster)
    blocks = -(-m // 64) * n / 64
    assert found == pytest.approx(2 * blocks * step * NS + FILL, rel=1e-3)


def test_all_units_together_are_held_by_the_cache():
    # four blocks of two steps of 16,384 B at four slices x 8 B/clock: 4,096 clocks; the units could
    # pull 4 x 64, eight times as much, so that the 1.5-norm adds (1 + 8^-1.5)^(2/3) = 2.9 %
    four = {"batch": 4, "m": 64, "n": 64, "k": 128}
    held = 4096 * NS * (1 + 8**-1.5) ** (2 / 3)
    assert busy(four, memories__l2__slice_width=8) == pytest.approx(held + FILL)
    assert busy(four, memories__l2__slices=8, memories__l2__slice_width=4) == pytest.approx(
        held + FILL
    )


def test_every_wave_is_filled_beside_what_the_cache_takes():
    # eight blocks are two waves: twice the bytes and twice the fill
    eight = {"batch": 8, "m": 64, "n": 64, "k": 128}
    held = 8192 * NS * (1 + 8**-1.5) ** (2 / 3)
    assert busy(eight, memories__l2__slice_width=8) == pytest.approx(held + 2 * FILL)


READING = {"m": 64, "n": 64, "k": 128, "read_weight": 1e5}  # at 100 GB/s: 1 us
CORE = 2 * STEP + FILL


def test_transfers_and_arithmetic_overlap_but_at_the_ends():
    slow = {"memories__dram__bandwidth": 1e5 / CORE * 4 / 3}  # 100 kB in three quarters of it
    lost = 0.25 * CORE  # 3, 4, 5: beside the longer one a quarter of it
    assert busy(READING, **slow) == pytest.approx(CORE)
    assert busy(READING, **slow, gemm__ramp=1e9) == pytest.approx(CORE + lost)
    # at most so many cycles: as many as are lost leave half of it, ever fewer leave these
    assert busy(READING, **slow, gemm__ramp=lost * 1e9) == pytest.approx(CORE + lost / 2)
    assert busy(READING, **slow, gemm__ramp=1) == pytest.approx(CORE + NS, abs=0.01 * NS)
    late = {"memories__dram__bandwidth": 1e5 / CORE * 3 / 4}  # and in four thirds of it
    assert busy(READING, **late, gemm__ramp=1e9) == pytest.approx(CORE * 5 / 3)
    every = {**READING, "read_weight": 2e4, "read_activation": 2e4, "read_kv": 2e4,
             "write_kv": 2e4, "write_activation": 2e4}  # fmt: skip
    assert busy(every, **late) == pytest.approx(CORE * 4 / 3)


def test_units_before_a_fast_memory_are_held_by_their_misses():
    # 4 units x 1 B/clock: 100 kB take 25 us
    assert busy(READING, units__miss_rate=1) == pytest.approx(25e-6)


def test_few_active_units_pull_little():
    # one block: 1 kB in flight for 100 ns are 10 GB/s, far below the DRAM's; the first of them come
    # 99 ns later than from the cache
    held = {"memories__dram__in_flight": 1e3, "memories__dram__latency": 1e-7}
    assert busy(READING, **held) == pytest.approx(99 * NS + 1e-5)
    four = {**READING, "batch": 4}
    assert busy(four, **held) == pytest.approx(99 * NS + 2.5e-6)


def test_the_first_data_come_later_from_dram_as_far_as_they_are_not_in_the_cache():
    # 50.2 us against 200 ns: all of it, a quarter, nothing; and never earlier than from the cache
    late = {"memories__dram__in_flight": 1e12, "memories__dram__latency": 50_200 * NS,
            "memories__l2__latency": 200 * NS}  # fmt: skip
    quarter = {**READING, "read_activation": 3e5, "distance_activation": 1e3}
    none = {**READING, "distance_weight": 1e3}
    # (the misses themselves: 100 kB at 4 x 1e6 B/clock, 0.025 ns)
    for product, time in ((READING, 50_000 * NS), (quarter, 12_500 * NS), (none, CORE)):
        assert busy(product, **late) == pytest.approx(time, abs=0.05 * NS)
    assert busy(READING, memories__l2__latency=200 * NS) == pytest.approx(CORE, abs=0.05 * NS)


def test_what_stays_in_the_cache_is_not_read_again():
    slow = {"memories__dram__bandwidth": 1e10}
    both = {**READING, "read_activation": 1e5}
    near, far = 1e3, 1e8  # of a cache of 1 MB
    for weight, activation, time in ((near, near, CORE), (far, near, 1e-5), (far, far, 2e-5)):
        o = {**both, "distance_weight": weight, "distance_activation": activation}
        assert busy(o, **slow) == pytest.approx(time, rel=1e-3)


# ---------------------------------------------------------------- tiles of a library


def test_a_finer_library_has_tiles_that_fit():
    # 320 columns on four units: 64 x 80 tiles make one wave of 640 clocks a step
    product = {"m": 64, "n": 320, "k": 128}
    assert busy(product, gemm__tile_step=16) == pytest.approx(2 * 640 * NS + FILL)
    assert busy(product, gemm__tile_step=64) == pytest.approx(2 * 1024 * NS + FILL)
    # 80 is no multiple of 96: the tiles are 64, 96, 128, 192 and 256; four of 96
    assert busy(product, gemm__tile_step=96) == pytest.approx(2 * 768 * NS + FILL)


@pytest.mark.parametrize("step", [64, 65.5, 100, 128, 200.5, 256])
def test_every_library_has_a_tile_for_the_smallest_product(step):
    assert busy({"m": 64, "n": 64, "k": 128}, gemm__tile_step=step) == pytest.approx(
        2 * STEP + FILL
    )


@pytest.mark.parametrize(
    ("step", "rounds", "rows"),
    [
        (8, 1, 16),  # four blocks of 16 rows on four units
        (14.4, 1, 28),  # three of 28, not five of 14
        (48, 1, 48),
    ],
)
def test_units_that_would_stand_idle_share_rows(step, rounds, rows):
    library = {"gemm__tile_step": step, "units__load_rate": 1e6}
    found = busy({"m": 64, "n": 64, "k": 128}, **library)
    assert found == pytest.approx(rounds * (2 * STEP * rows / 64 + FILL))
    # columns are not cut finer than 64
    wide = busy({"m": 8, "n": 64, "k": 128}, **library)
    assert wide == pytest.approx(2 * STEP * 8 / 64 + FILL)


def test_a_library_has_whole_steps():
    # a fit that tries 16 a little up and down sees no difference
    near = Designs(machine(), {"gemm.tile_step": np.array([15.99, 16.0, 16.01, 17.0])})
    found = gemm_cost(operations({"m": 64, "n": 320, "k": 128}), near).time[0] - OUTSIDE
    assert found[:3] == pytest.approx(2 * 640 * NS + FILL)
    assert found[3] == pytest.approx(2 * 680 * NS + FILL)  # 64 x 85


# ---------------------------------------------------------------- laws


some = settings(max_examples=30)  # each looks at hundreds of tiles and splits
few = settings(max_examples=15)  # of those that took longest

RANGES = {
    "units.count": (1, 300), "gemm.tile_step": (8, 256), "gemm.cluster": (1, 8),
    "memories.dram.bandwidth": (1e10, 1e14), "gemm.reduce": (0, 1e-5), "gemm.fill": (0, 3000),
    "units.load_rate": (4, 256), "gemm.ramp": (0, 1e6), "memories.l2.capacity": (1e5, 1e9),
}  # fmt: skip
products = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["gemv", "gemm", "grouped_gemm", "conv"]),
        "dtype": st.sampled_from(["bf16", "fp8", "fp32"]),
        "routine": st.sampled_from(["", "split", "whole"]),
        "batch": st.integers(0, 20),
        "m": st.integers(0, 3000),
        "n": st.integers(0, 3000),
        "k": st.integers(0, 9000),
        "read_weight": st.floats(0, 1e9),
        "read_activation": st.floats(0, 1e9),
        "distance_weight": st.floats(0, 1e9),
    }
)


@st.composite
def designs(draw, most=3):
    """A few designs that differ in a few parameters."""
    paths = draw(st.lists(st.sampled_from(sorted(RANGES)), min_size=1, max_size=4, unique=True))
    count = draw(st.integers(2, most))
    columns = {}
    for path in paths:
        whole = path.endswith(".count")
        values = st.integers(*RANGES[path]) if whole else st.floats(*RANGES[path])
        columns[path] = np.array(draw(st.lists(values, min_size=count, max_size=count)), float)
    return Designs(ns.load_arch("h200"), columns)


@some
@given(st.lists(products, min_size=1, max_size=3), designs())
def test_designs_and_products_do_not_see_each_other(rows, many):
    whole = gemm_cost(operations(*rows), many).time
    assert np.isfinite(whole).all() and (whole > 0).all()
    for i, row in enumerate(rows):
        for j, one in enumerate(many.blocks(1)):
            assert gemm_cost(operations(row), one).time.item() == pytest.approx(whole[i, j])


@some
@given(st.lists(products, min_size=1, max_size=3), designs(), st.randoms(use_true_random=False))
def test_the_order_of_designs_does_not_matter(rows, many, random):
    order = list(range(len(many)))
    random.shuffle(order)
    mixed = Designs(many.base, {path: c[order] for path, c in many.columns.items()})
    before, after = (gemm_cost(operations(*rows), d).time for d in (many, mixed))
    assert after == pytest.approx(before[:, order])


FASTER = ("memories.dram.bandwidth", "memories.dram.efficiency", "memories.dram.in_flight",
          "units.load_rate", "units.miss_rate", "memories.l2.slices", "memories.l2.slice_width",
          "memories.l2.clock", "matrix.bf16.rate", "matrix.efficiency",
          "matrix.boost_share", "gemm.cluster")  # fmt: skip


@few
@given(products, st.sampled_from(FASTER), st.floats(0.1, 1))
def test_a_machine_that_gives_more_is_never_slower(row, path, factor):
    h200 = ns.load_arch("h200")
    less = max(h200[path] * factor, PARAMETERS[path].low)
    two = Designs(h200, {path: np.array([less, h200[path]])})
    slow, fast = gemm_cost(operations(row), two).time[0]
    assert fast <= slow * (1 + 1e-12)


# Products that there are: of one tile or of whole ones (a tile of 176 columns fits twice
# 88, which themselves take two narrow ones),
# each weight stored in half a byte or more.
sides = st.integers(1, 64) | st.integers(1, 46).map(lambda tiles: 64 * tiles)
widths = st.sampled_from([0.5, 1.0, 2.0, 4.0])


@few
@given(products, sides, sides, st.integers(1, 9000), widths,
       st.sampled_from(["m", "n", "k", "batch", "read_weight", "distance_weight"]))  # fmt: skip
def test_more_of_the_product_is_never_faster(row, m, n, k, width, what):
    changes = {}
    row = {**row, "routine": "whole", "batch": max(row["batch"], 1), "m": m, "n": n, "k": k,
           "read_weight": width * n * k}  # fmt: skip
    if what in ("m", "n", "batch"):  # more blocks pull the same bytes faster
        row |= {"read_weight": 0.0, "read_activation": 0.0}
        changes["gemm.cluster"] = np.ones(1)  # and have more to share
    if what == "read_weight":  # else a smaller share of all is missed, and waited for
        row["read_activation"] = 0.0
    grow = ("k", "read_weight", "read_activation") if what == "k" else (what,)  # both operands
    more = {**row, **{column: 2 * row[column] for column in grow}}
    h200 = Designs(ns.load_arch("h200"), changes)
    small, large = (gemm_cost(operations(r), h200).time.item() for r in (row, more))
    assert large >= small * (1 - 1e-12)


@some
@given(products)
def test_who_may_choose_is_no_slower_than_who_may_not_split(row):
    h200 = Designs(ns.load_arch("h200"))
    free, whole = (gemm_cost(operations({**row, "routine": r}), h200).time.item()
                   for r in ("", "whole"))  # fmt: skip
    assert free <= whole


# What boards took [s], the first product on two of them before their power limit held it
# (h200_power_window.json): PyTorch 2.11, CUDA graph, weights cold.
MEASURED = [(4096, 8192, 8192, 678.6e-6), (1, 103424, 1024, 54.5e-6)]


@pytest.mark.parametrize(("m", "n", "k", "seconds"), MEASURED)
def test_products_of_an_h200_take_what_was_measured(m, n, k, seconds):
    o = operations({"m": m, "n": n, "k": k, "read_weight": 2.0 * n * k,
                    "read_activation": 2.0 * m * k, "write_activation": 2.0 * m * n})  # fmt: skip
    found = kernel.kernel_time(o, Designs(ns.load_arch("h200"))).item()
    assert found == pytest.approx(seconds, rel=0.05)


@pytest.mark.parametrize("name", catalog.names("archs"))
def test_no_machine_computes_faster_than_its_peak(name):
    arch = ns.load_arch(name)
    o = operations({"m": 8192, "n": 8192, "k": 8192})
    peak = arch["matrix.bf16.rate"] * arch["units.count"] * arch["matrix.clock"]
    least = 2 * 8192**3 / peak
    assert least < gemm_cost(o, Designs(arch)).time.item() < 4 * least
