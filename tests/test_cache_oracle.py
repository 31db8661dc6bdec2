"""Caches and reuse windows against libCacheSim, a cache simulator that others wrote.

It knows one associative memory of objects with sizes. A cache with sets is as many of its caches as
there are sets, so set-associative LRU is held against it too. It has no SRRIP and no victim cache:
those are held against a plain simulator and against laws in test_cache_simulator.py; the optimum
(Belady) bounds them here.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.cache import Cache, hit_rate_random, profile, simulate, stack_distances
from npusim.locality import locality
from npusim.reuse import CLASSES, DATA, stream
from npusim.reuse.windows import windows
from tests.conftest import ROOT

pytest.importorskip("numba")
other = pytest.importorskip("libcachesim", reason="libCacheSim is not installed")

LINE = 64
NEVER = 2**62
SHIPPED = [path.stem for path in sorted((ROOT / "workloads").glob("*.parquet"))]


def hits(cache, blocks, sizes=None, following=None):
    """Return which accesses hit in a cache of libCacheSim."""
    request, found = other.Request(), []
    sizes = np.ones(len(blocks), np.int64) if sizes is None else sizes
    following = np.full(len(blocks), -2) if following is None else following
    for block, size, after in zip(blocks.tolist(), sizes.tolist(), following.tolist(), strict=True):
        request.obj_id, request.obj_size, request.next_access_vtime = block, size, after
        found.append(cache.get(request))
    return np.array(found, dtype=bool)


def lru(blocks, capacity, sizes=None):
    return hits(other.LRU(cache_size=int(capacity), hashpower=16), blocks, sizes)


def zipf(count=60_000, blocks=4000, power=0.9, seed=0):
    chance = 1.0 / np.arange(1, blocks + 1) ** power
    return np.random.default_rng(seed).choice(blocks, count, p=chance / chance.sum())


def accesses_of(workload, rounds=3, step=0):
    """Return the accesses of a step to its tensors, the step done so many times."""
    rows = np.flatnonzero(workload["step"] == step)
    kinds = workload.text("kind")[rows].tolist()
    return stream(kinds, {name: workload[name][rows] for name in DATA}, rounds)


def whole(accesses):
    """Return sizes in whole bytes; the mean of a step's experts may be half a one."""
    return np.maximum(np.ceil(accesses.size), 1).astype(np.int64)


# --- lines: the simulator ----------------------------------------------------------------------

ACCESSES = st.lists(st.integers(0, 60), max_size=500).map(lambda a: np.array(a, dtype=np.int64))


@given(ACCESSES, st.integers(1, 64))
def test_every_hit_of_a_full_cache_is_a_hit_there(blocks, lines):
    got = simulate(blocks * LINE, Cache(capacity=lines * LINE, line=LINE, ways=0))
    assert np.array_equal(got.levels == 0, lru(blocks, lines))


@given(ACCESSES, st.sampled_from([1, 2, 4, 8]), st.integers(1, 8))
def test_every_hit_of_a_set_is_a_hit_there(blocks, ways, sets):
    cache = Cache(capacity=sets * ways * LINE, line=LINE, ways=ways, hashed=False)
    want = np.zeros(len(blocks), dtype=bool)
    for one in range(sets):
        mine = blocks % sets == one
        want[mine] = lru(blocks[mine], ways)
    assert np.array_equal(simulate(blocks * LINE, cache).levels == 0, want)


@given(ACCESSES, st.integers(1, 30), st.integers(0, 30))
def test_a_victim_cache_behind_it_is_one_larger_cache_there(blocks, lines, spare):
    cache = Cache(capacity=lines * LINE, line=LINE, ways=0, victim=spare * LINE)
    assert np.array_equal(simulate(blocks * LINE, cache).levels < 2, lru(blocks, lines + spare))


@pytest.mark.parametrize("lines", [10, 100, 1000, 3000])
def test_one_profile_is_its_miss_curve(lines):
    blocks = zipf()
    missed = profile(stack_distances(blocks, LINE)).miss_bytes(lines * LINE)
    assert missed == np.sum(~lru(blocks, lines))


@pytest.mark.parametrize("lines", [100, 1000, 3000])
def test_random_replacement_misses_as_often(lines):
    # two simulators that draw apart: 60,000 accesses, a standard deviation of 0.2 points or less
    blocks = zipf()
    theirs = hits(other.Random(cache_size=lines, hashpower=16), blocks).mean()
    full = Cache(capacity=lines * LINE, line=LINE, ways=lines, policy="random")
    assert simulate(blocks * LINE, full).hit_rate == pytest.approx(theirs, abs=0.01)
    solved = hit_rate_random(blocks, lines * LINE, lines, LINE)
    assert solved == pytest.approx(theirs, abs=0.01)


@pytest.mark.parametrize("policy", ["lru", "random", "srrip"])
@pytest.mark.parametrize("lines", [64, 512, 2048])
def test_no_policy_beats_the_optimum(policy, lines):
    blocks = zipf(20_000)
    after = np.full(len(blocks), NEVER)
    last = {}
    for at in range(len(blocks) - 1, -1, -1):
        after[at] = last.get(blocks[at], NEVER)
        last[blocks[at]] = at
    best = hits(other.Belady(cache_size=lines, hashpower=16), blocks, following=after).sum()
    cache = Cache(capacity=lines * LINE, line=LINE, ways=16, policy=policy)
    for ways in {16, lines if policy == "random" else 16}:
        got = simulate(blocks * LINE, replace(cache, ways=ways)).hits
        assert 0.2 * best < got <= best


# --- tensors: the reuse windows ----------------------------------------------------------------


@given(ACCESSES, st.lists(st.integers(1, 50), min_size=61, max_size=61), st.integers(50, 1500))
def test_windows_of_unequal_blocks_are_its_hits(blocks, sizes, capacity):
    each = np.array(sizes)[blocks]
    want = lru(blocks, capacity, each)
    assert np.array_equal(windows(blocks, each[:, None].astype(float))[:, 0] <= capacity, want)
    assert np.array_equal(stack_distances(blocks, each) <= capacity, want)


def test_all_that_the_page_of_oracles_counts_is_held_against_it():
    counted = sum(len(accesses_of(ns.load_workload(name))) for name in SHIPPED)
    assert f"{counted:,} of them" in (ROOT / "docs" / "oracles.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SHIPPED)
def test_windows_of_a_real_step_are_its_hits(name):
    accesses = accesses_of(ns.load_workload(name))
    sizes = whole(accesses)
    window = windows(accesses.block, sizes[:, None].astype(float))[:, 0]
    finite = np.unique(window[np.isfinite(window)])
    # an object larger than the whole cache is not let in there, and fills it here
    for capacity in np.unique(np.quantile(finite, [0.5, 0.9, 0.99, 1.0], method="lower")):
        if capacity >= sizes.max():
            want = lru(accesses.block, capacity, sizes)
            assert np.array_equal(window <= capacity, want)
            assert not np.array_equal(window <= capacity - 1, want)  # at the very edge


@pytest.mark.parametrize(
    "name", ["deepseek_ocr_decode", "paddleocr_vl_decode", "paddleocr_vl_vision"]
)
@pytest.mark.parametrize("share", [0.3, 0.9, 1.1])
def test_what_a_workload_misses_is_what_it_misses_there(name, share):
    # share of a step's footprint; reads alone: a write misses by what becomes of it later
    w = ns.load_workload(name)
    accesses = accesses_of(w)
    sizes = whole(accesses)
    _, first = np.unique(accesses.block, return_index=True)
    capacity = max(share * sizes[first].sum(), 1.01 * sizes.max())
    hit = lru(accesses.block, capacity, sizes)
    third = np.arange(len(accesses)) >= len(accesses) // 3 * 2
    reads = np.isin(accesses.data, [i for i, (_, writes) in enumerate(DATA.values()) if not writes])
    rows = w["step"] == 0
    for at, kind in enumerate(CLASSES):
        mine = third & reads & (accesses.kind == at)
        missed = accesses.moved[mine & ~hit].sum()
        moved = sum(w[data][rows].sum() for data, (of, writes) in DATA.items()
                    if of == kind and not writes)  # fmt: skip
        assert accesses.moved[mine].sum() == pytest.approx(moved)
        told = read_misses(w, kind, capacity)
        assert told == pytest.approx(missed, abs=0.005 * max(moved, 1.0))


def read_misses(workload, kind, capacity):
    """Return what the reuse profile says of reads, for the first step of a workload [B]."""
    reuse, rows = workload.reuse, np.flatnonzero(workload["step"] == 0)
    window, missed = reuse.windows.sum(axis=1), 0.0
    for data, (of, writes) in DATA.items():
        if of == kind and not writes:
            parts = workload[data][rows, None] * reuse.share[data][rows]
            missed += float(parts[window[reuse.window[data][rows]] > capacity].sum())
    return missed


def test_a_step_misses_all_of_its_weights_until_it_fits():
    # the claim of the memory page, by their simulator: nothing of the weights stays below 720 MB
    accesses = accesses_of(ns.load_workload("paddleocr_vl_decode"))
    sizes = whole(accesses)
    weights = accesses.kind == CLASSES.index("weight")
    last = np.arange(len(accesses)) >= len(accesses) // 3 * 2
    kept = [lru(accesses.block, capacity, sizes)[last & weights].mean()
            for capacity in (256e6, 512e6, 1024e6)]  # fmt: skip
    assert kept == [0.0, 0.0, 1.0]
    found = locality(ns.load_workload("paddleocr_vl_decode"), [256e6, 512e6, 1024e6])
    assert (found.missed["weight"] / found.moved["weight"]) == pytest.approx([1.0, 1.0, 0.0])
