"""Stack distances, profiles and corrections: by hand, against plain code, and the simulator."""

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npusim.cache import (
    Cache,
    hit_chances,
    hit_rate_random,
    hit_rate_set_associative,
    hit_rate_srrip,
    profile,
    simulate,
    stack_distances,
)
from npusim.errors import InputError

pytest.importorskip("numba")

INF = math.inf
LINE, WAYS, SETS, N = 128, 16, 4096, 800_000
LINES = WAYS * SETS
CAPACITY = LINES * LINE


def plain_distances(blocks, size_of, bypass):
    """The definition: a stack of blocks, the newest on top, and the sum down to the one used."""
    stack, found = [], []
    for block, streams in zip(blocks, bypass, strict=True):
        at = stack.index(block) if block in stack else None
        found.append(INF if at is None else float(sum(size_of[b] for b in stack[: at + 1])))
        if not streams:
            if at is not None:
                del stack[at]
            stack.insert(0, block)
    return found


# ---------------------------------------------------------------- distances


def test_distances_by_hand():
    # a b c b a a: b is used again after c, a after b and c, and then at once
    assert stack_distances([5, 6, 7, 6, 5, 5], 10).tolist() == [INF, INF, INF, 20, 30, 10]
    assert stack_distances([5, 6, 7, 6, 5, 5]).tolist() == [INF, INF, INF, 2, 3, 1]


def test_distances_of_unequal_blocks_by_hand():
    # between the two uses of the block of 1 byte come those of 10 and 100
    got = stack_distances([0, 1, 2, 1, 0], [1, 10, 100, 10, 1])
    assert got.tolist() == [INF, INF, INF, 110, 111]


def test_a_block_that_streams_past_is_in_no_stack():
    past = np.array([False, True, False, True, False])
    got = stack_distances([0, 9, 1, 0, 0], 1, bypass=past)
    assert got.tolist() == [INF, INF, INF, 2, 2]


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=400),
       st.lists(st.integers(1, 10**12), min_size=31, max_size=31),
       st.sampled_from([1, -7, 10**9]))  # fmt: skip
def test_distances_agree_with_their_definition(stream, sizes, scale):
    blocks, bypass = (
        np.array([one[i] for one in stream], kind) for i, kind in ((0, int), (1, bool))
    )
    each = np.array(sizes)[blocks]
    got = stack_distances(blocks * scale, each, bypass=bypass)
    assert got.tolist() == plain_distances(blocks, sizes, bypass)
    got = stack_distances(blocks * scale, 128, bypass=bypass)
    assert got.tolist() == plain_distances(blocks, [128] * 31, bypass)


def test_distances_over_all_tiers_of_sums():
    # 300,000 blocks: 600,000 slots in three parts of 2^18; back and forth, where each is known
    blocks = np.arange(300_000)
    there_and_back = np.concatenate([blocks, blocks[::-1], blocks])
    got = stack_distances(there_and_back, 2)
    assert np.isinf(got[:300_000]).all()
    assert (got[300_000:600_000] == 2 * (blocks + 1)).all()
    assert (got[600_000:] == 2 * (blocks + 1)).all()
    wide = stack_distances(there_and_back * 10**6, np.full(900_000, 2))
    assert (wide == got).all()


def test_distances_of_nothing():
    assert stack_distances(np.empty(0, int), 128).size == 0
    assert profile([]).miss_bytes([0, 1]).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("blocks", "sizes", "bypass", "message"),
    [
        ([0.5], 1, None, "blocks are not whole numbers: .?float64"),
        ([[1]], 1, None, "not a list of accesses"),
        ([1, 2], [1], None, "sizes are not one for each"),
        ([1, 2], 0, None, "no size: 0"),
        ([1, 2, 1], [5, 6, 7], None, "access 2: the size of a block changes: 7 .allowed: 5"),
        ([1, 2], 1, [True], "bypass is not a flag"),
        ([1, 2], 1, [0, 1], "bypass is not a flag"),
    ],
)
def test_streams_that_cannot_be(blocks, sizes, bypass, message):
    with pytest.raises(InputError, match=message):
        stack_distances(blocks, sizes, bypass=bypass)


# ---------------------------------------------------------------- profiles


def test_profile_by_hand():
    p = profile([INF, 30, 10, 30, INF], [1, 2, 4, 8, 16])
    assert p.miss_bytes([0, 9.9, 10, 29, 30, 1e18]).tolist() == [31, 31, 27, 27, 17, 17]
    assert p.miss_bytes(30).item() == 17
    assert profile([INF, 30, 10]).miss_bytes([[0], [10]]).tolist() == [[3], [2]]


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 9)), max_size=100))
def test_profile_counts_what_is_farther(pairs):
    far, weight = (np.array([one[i] for one in pairs], float) for i in (0, 1))
    at = np.arange(0.0, 52.0)
    want = [weight[far > capacity].sum() for capacity in at]
    got = profile(far, weight).miss_bytes(at)
    assert got.tolist() == want
    assert (np.diff(got) <= 0).all()


@pytest.mark.parametrize(
    ("far", "weight", "message"),
    [([1.0, 2.0], [1.0], "not one for each"), ([math.nan], [1.0], "no number"),
     ([1.0], [-1.0], "not 0 or more"), ([1.0], [INF], "not 0 or more")],
)  # fmt: skip
def test_profiles_that_cannot_be(far, weight, message):
    with pytest.raises(InputError, match=message):
        profile(far, weight)


# ---------------------------------------------------------------- corrections by hand


def test_hit_chances_by_hand():
    # three sets of two ways and two other lines: all but both in the same set, 1 - 1/9
    got = hit_chances(np.array([[128.0], [384.0]]), 3 * 2 * 128, 2, 128)
    assert got[:, 0].tolist() == pytest.approx([1.0, 8 / 9])
    # one set is fully associative
    for ways in (2, 0):
        assert hit_chances([256.0, 384.0, INF], 256, ways, 128).tolist() == [1.0, 0.0, 0.0]


def test_many_ways_are_nearly_full():
    far = np.array([0.9, 1.1]) * 2**30
    assert hit_chances(far, 2**30, 2048, 128).tolist() == pytest.approx([1.0, 0.0], abs=1e-5)


def test_random_replacement_of_a_cycle_solves_its_equation():
    # a line survives 2 C (1 - h) evictions of 1 in C: h = exp(-2 (1 - h)), of which 0.2032 is one
    stream = np.arange(1_000_000) % 2000
    late = hit_rate_random(stream, 1000 * 128, 0, 128) * stream.size
    assert late / (stream.size - 2000) == pytest.approx(0.2032, abs=1e-3)


def test_a_cache_that_cannot_be():
    for corrected in (hit_chances, hit_rate_set_associative, hit_rate_random, hit_rate_srrip):
        with pytest.raises(InputError, match="this capacity: 1000"):
            corrected([1, 2], 1000, 4, 128)


# ---------------------------------------------------------------- against the simulator


def cyclic(share):
    return np.arange(N) % int(share * LINES)


def uniform(share):
    return np.random.default_rng(1).integers(0, int(share * LINES), N)


def zipf(exponent):
    random = np.random.default_rng(2)
    chance = np.arange(1.0, 5 * LINES) ** -exponent
    return random.permutation(5 * LINES)[random.choice(chance.size, N, p=chance / chance.sum())]


def mixed(cycle, hot):
    random = np.random.default_rng(3)
    turns = random.random(N) < 0.5
    far = 10 * LINES + np.cumsum(turns) % int(cycle * LINES)
    return np.where(turns, far, random.integers(0, int(hot * LINES), N))


def layers(weights, activations):
    """40 layers: what one leaves is what the next takes in, and its weights come by in turn."""
    weight, kept = int(weights * LINES / 40), int(activations * LINES)
    sides = [np.arange(kept), np.arange(kept) + kept]
    parts = [part for i in range(N // weight + 1)
             for part in (sides[i % 2], 10 * LINES + i % 40 * weight + np.arange(weight),
                          sides[1 - i % 2])]  # fmt: skip
    return np.concatenate(parts)[:N]


STREAMS = {
    **{f"cyclic {s}": (cyclic, s) for s in (0.5, 0.8, 0.95, 1.05, 1.25, 1.5, 2, 3)},
    **{f"uniform {s}": (uniform, s) for s in (0.5, 1, 1.5, 3)},
    **{f"zipf {s}": (zipf, s) for s in (0.8, 1.1)},
    "mixed 1.5 0.5": (mixed, 1.5, 0.5),
    "mixed 3 0.3": (mixed, 3, 0.3),
    "mixed 0.7 0.7": (mixed, 0.7, 0.7),
    "layers 0.8": (layers, 0.8, 0.05),
    "layers 1.3": (layers, 1.3, 0.05),
    "layers 2": (layers, 2, 0.1),
}


@cache
def stream(name):
    make, *shares = STREAMS[name]
    return make(*shares)


def simulated(name, policy="lru", ways=WAYS, hashed=True):
    shape = Cache(CAPACITY, LINE, ways, policy, hashed=hashed)
    return simulate(stream(name) * LINE, shape)


@pytest.mark.parametrize("name", STREAMS)
def test_distances_and_hashed_sets_are_what_the_simulator_says(name):
    far = stack_distances(stream(name), LINE)
    full = simulated(name, ways=0, hashed=False)
    assert ((far <= CAPACITY) == (full.levels == 0)).all()
    assert profile(far).miss_bytes(CAPACITY) == full.misses
    got = hit_rate_set_associative(far, CAPACITY, WAYS, LINE)
    assert got == pytest.approx(simulated(name).hit_rate, abs=0.01)


@pytest.mark.parametrize("name", STREAMS)
def test_random_replacement_is_close_to_the_simulator(name):
    got = hit_rate_random(stream(name), CAPACITY, WAYS, LINE)
    assert got == pytest.approx(simulated(name, "random").hit_rate, abs=0.015)
    full = hit_rate_random(stream(name), CAPACITY, 0, LINE)
    assert full == pytest.approx(simulated(name, "random", 0, False).hit_rate, abs=0.002)


@pytest.mark.parametrize("name", STREAMS)
def test_srrip_is_not_far_from_the_simulator(name):
    got = hit_rate_srrip(stream(name), CAPACITY, WAYS, LINE)
    worst = 0.045 if name in ("mixed 0.7 0.7", "cyclic 0.95") else 0.03
    assert got == pytest.approx(simulated(name, "srrip").hit_rate, abs=worst)


@pytest.mark.parametrize("ways", [4, 8, 32])
@pytest.mark.parametrize("name", ["cyclic 1.05", "uniform 1", "mixed 0.7 0.7", "layers 1.3"])
def test_other_ways(name, ways):
    got = hit_rate_set_associative(stack_distances(stream(name), LINE), CAPACITY, ways, LINE)
    assert got == pytest.approx(simulated(name, ways=ways).hit_rate, abs=0.01)


def test_streaming_past_needs_no_correction():
    # a cycle of 3 capacities streams past a hot set of 0.7: its distances alone decide
    blocks = stream("mixed 3 0.3")
    past = blocks >= 10 * LINES
    far = stack_distances(blocks, LINE, bypass=past)
    full = simulate(blocks * LINE, Cache(CAPACITY, LINE, 0), bypass=past)
    assert ((far <= CAPACITY) == (full.levels == 0)).all()
    sets = simulate(blocks * LINE, Cache(CAPACITY, LINE, WAYS, hashed=True), bypass=past)
    assert hit_rate_set_associative(far, CAPACITY, WAYS, LINE) == pytest.approx(
        sets.hit_rate, abs=0.01)  # fmt: skip
    assert sets.hit_rate > simulated("mixed 3 0.3").hit_rate + 0.04
