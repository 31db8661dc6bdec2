"""The cache simulator: by hand, against a plain one in Python, and laws."""

import sys
from collections import OrderedDict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npusim.cache import Cache, simulate, stack_distances
from npusim.errors import InputError

pytest.importorskip("numba")

POLICIES = ("lru", "random", "srrip")
# 40 lines of 64 B in sectors of 16 B, read, written and streamed past
accesses = st.lists(st.tuples(st.integers(0, 40 * 64 - 1), st.booleans(), st.booleans()),
                    max_size=300)  # fmt: skip
shapes = st.builds(
    Cache, capacity=st.sampled_from([8 * 64, 24 * 64]), line=st.just(64),
    ways=st.sampled_from([0, 1, 2, 4, 8]), policy=st.sampled_from(("lru", "random")),
    sector=st.sampled_from([0, 16, 32]), hashed=st.booleans(), victim=st.sampled_from([0, 64, 256]),
    write_back=st.booleans(), seed=st.integers(0, 3),
)  # fmt: skip


def columns(stream):
    address, write, streams = zip(*stream, strict=True) if stream else ((), (), ())
    return np.array(address, np.int64), np.array(write, bool), np.array(streams, bool)


def run(stream, cache):
    address, writes, bypass = columns(stream)
    return simulate(address, cache, writes=writes, bypass=bypass)


def levels(lines, cache, **flags):
    return simulate(np.array(lines) * cache.line, cache, **flags).levels.tolist()


# ---------------------------------------------------------------- by hand


def test_lru_sets_by_hand():
    # two sets of two ways: even lines fall into one, odd lines into the other
    two = Cache(capacity=256, line=64, ways=2)
    assert levels([0, 2, 0, 4, 0, 2, 1, 1], two) == [2, 2, 0, 2, 0, 2, 2, 0]


def test_victim_cache_swaps_by_hand():
    # one way: 0 and 1 push each other into the victim cache, and 2 pushes 0 out of it
    one = Cache(capacity=64, line=64, ways=1, victim=64)
    assert levels([0, 1, 0, 1, 2, 1, 0], one) == [2, 2, 1, 1, 2, 1, 2]


def test_srrip_outlasts_a_scan_of_three_times_the_ways_left():
    # two of four ways were hit: 3 x (4 - 2) others leave them, one more takes the first
    four = Cache(capacity=256, line=64, ways=4, policy="srrip")
    hot = [0, 1, 0, 1]
    assert levels([*hot, *range(10, 16), 0, 1], four)[-2:] == [0, 0]
    assert levels([*hot, *range(10, 17), 1, 0], four)[-2:] == [0, 2]
    assert levels([*hot, *range(10, 16), 0, 1], replace(four, policy="lru"))[-2:] == [2, 2]


def test_srrip_by_hand():
    # the misses of 4 and 5 age all to 3 and take the leftmost, 0 and then 1; 2 was never moved
    four = Cache(capacity=256, line=64, ways=4, policy="srrip")
    assert levels([0, 1, 2, 3, 4, 5, 2, 0], four) == [2, 2, 2, 2, 2, 2, 0, 2]


def test_srrip_does_not_resist_thrashing():
    # nothing is hit, so nothing outlasts what came later: LRU to the last access
    stream = np.arange(50_000) % 1000 * 64
    for ways, hashed in ((16, False), (4, True), (16, True)):
        lru = Cache(capacity=768 * 64, line=64, ways=ways, hashed=hashed)
        same = simulate(stream, replace(lru, policy="srrip")).levels
        assert (same == simulate(stream, lru).levels).all()


def test_write_back_by_hand():
    # a write of sector 0 fetches nothing; its eviction writes it; sector 1 of line 1 stays dirty
    one = Cache(capacity=64, line=64, ways=1, sector=32)
    got = simulate([0, 0, 32, 64 + 32], one, writes=[True, False, False, True])
    assert got.levels.tolist() == [2, 0, 2, 2]
    assert (got.bytes_read_from_memory, got.bytes_written_to_memory, got.dirty) == (32, 32, 32)


def test_write_through_by_hand():
    # each write goes to memory; one that misses brings nothing in, one that hits is a use
    two = Cache(capacity=128, line=64, ways=2, write_back=False)
    got = simulate(np.array([0, 0, 1, 2, 0, 3, 0, 1]) * 64, two,
                   writes=[True, False, False, False, True, False, False, False])  # fmt: skip
    assert got.levels.tolist() == [2, 2, 2, 2, 2, 2, 2, 2]
    got = simulate(np.array([0, 1, 0, 2, 0]) * 64, two, writes=[False, False, True, False, False])
    assert got.levels.tolist() == [2, 2, 0, 2, 0]
    assert (got.bytes_written_to_memory, got.dirty) == (64, 0)


def test_a_dirty_line_keeps_its_data_through_the_victim_cache():
    one = Cache(capacity=64, line=64, ways=1, victim=64)
    lines, writes = np.array([0, 1, 0, 1, 2, 3]), np.array([True, *[False] * 5])
    got = simulate(lines * 64, one, writes=writes)
    assert got.bytes_written_to_memory == 64  # once, when 0 leaves the victim cache
    assert simulate(lines[:4] * 64, one, writes=writes[:4]).dirty == 64


def test_streams_past_by_hand():
    # 9 is never brought in; a stream that hits 0 does not make it newer
    two = Cache(capacity=128, line=64, ways=0)
    past = np.array([False, False, True, True, True, False, False])
    assert levels([0, 1, 9, 9, 0, 2, 0], two, bypass=past) == [2, 2, 2, 2, 0, 2, 2]


def test_random_replacement_evicts_evenly():
    # of eight ways, a miss takes each with the same chance: 1/8 of the accesses that follow miss
    full = Cache(capacity=8 * 64, line=64, ways=8, policy="random")
    survived = np.zeros(8)
    for seed in range(2000):
        got = levels([*range(8), 8, 0], replace(full, seed=seed))
        survived[0] += got[-1] == 0
    assert survived[0] / 2000 == pytest.approx(7 / 8, abs=0.03)  # four standard deviations


# ---------------------------------------------------------------- against a plain simulator


class Plain:
    """The same cache with an ordered dictionary a set; LRU, sets by remainder."""

    def __init__(self, cache):
        self.cache = cache
        self.sector = cache.sector or cache.line
        self.sets = [OrderedDict() for _ in range(cache.sets)]
        self.victim = OrderedDict()
        self.read = self.written = 0

    def access(self, address, write, streams):
        cache = self.cache
        line, sector = address // cache.line, address % cache.line // self.sector
        row = self.sets[line % cache.sets]
        where = 0 if line in row else 1 if line in self.victim else 2
        held = (row, self.victim, {})[where].get(line, ({}, 2))[0]
        hit = sector in held
        allocates = not streams and (cache.write_back or not write)
        if write and not (cache.write_back and (allocates or hit)):
            self.written += self.sector
        if not write and not hit:
            self.read += self.sector
        if allocates or hit:
            held[sector] = held.get(sector, False) or (write and cache.write_back)
        if where == 0:
            if not streams:
                row.move_to_end(line)
        elif allocates:
            self.victim.pop(line, None)
            if len(row) == (cache.ways or cache.lines):
                self.evict(*row.popitem(last=False))
            row[line] = (held, 0)
        return where if hit else 2

    def evict(self, line, held):
        self.victim[line] = held
        if len(self.victim) > self.cache.victim // self.cache.line:
            _, (held, _) = self.victim.popitem(last=False)
            self.written += self.sector * sum(held.values())

    @property
    def dirty(self):
        return self.sector * sum(sum(held.values()) for part in (*self.sets, self.victim)
                                 for held, _ in part.values())  # fmt: skip


@given(accesses, shapes)
def test_agrees_with_a_plain_simulator(stream, cache):
    cache = replace(cache, policy="lru", hashed=False)
    plain = Plain(cache)
    want = [plain.access(*one) for one in stream]
    got = run(stream, cache)
    assert got.levels.tolist() == want
    assert (got.bytes_read_from_memory, got.bytes_written_to_memory, got.dirty) == (
        plain.read, plain.written, plain.dirty)  # fmt: skip


# ---------------------------------------------------------------- laws


@given(accesses, shapes)
def test_every_access_is_served_once(stream, cache):
    got = run(stream, cache)
    assert got.hits + got.victim_hits + got.misses == got.accesses == len(stream)
    assert np.bincount(got.levels, minlength=3).tolist() == [got.hits, got.victim_hits, got.misses]
    # what is written through, past or back was written by someone
    writes = sum(write for _, write, _ in stream)
    assert got.bytes_written_to_memory + got.dirty <= writes * (cache.sector or cache.line)


@given(accesses)
def test_lru_never_misses_more_with_more_room(stream):
    address, _, bypass = columns(stream)
    misses = [simulate(address, Cache(capacity=64 * n, line=64, ways=0), bypass=bypass).misses
              for n in range(1, 42)]  # fmt: skip
    assert sorted(misses, reverse=True) == misses


@given(accesses, shapes, st.sampled_from(POLICIES))
def test_a_larger_victim_cache_never_loses(stream, cache, policy):
    # what is in the cache does not depend on where it came from, so that its hits stay as they are
    if policy == "srrip" and cache.ways == 0:
        return
    got = [run(stream, replace(cache, policy=policy, victim=64 * n)) for n in range(6)]
    assert all(a.misses >= b.misses for a, b in pairwise(got))
    if cache.sector == 0:
        assert len({traffic.hits for traffic in got}) == 1


@given(accesses, st.integers(1, 20), st.integers(0, 20))
def test_a_victim_cache_behind_full_lru_is_more_of_it(stream, lines, spare):
    address = columns(stream)[0]
    split = simulate(address, Cache(capacity=64 * lines, line=64, ways=0, victim=64 * spare))
    whole = simulate(address, Cache(capacity=64 * (lines + spare), line=64, ways=0))
    assert ((split.levels == 2) == (whole.levels == 2)).all()


@given(accesses, st.integers(1, 42))
def test_full_lru_hits_where_the_distance_fits(stream, lines):
    address, _, bypass = columns(stream)
    got = simulate(address, Cache(capacity=64 * lines, line=64, ways=0), bypass=bypass)
    fits = stack_distances(address // 64, 64, bypass=bypass) <= 64 * lines
    assert ((got.levels == 0) == fits).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_large_addresses_give_what_small_ones_do(policy):
    # tags that need 64 bits a word; the shift is a multiple of every number of sets
    cache = Cache(capacity=64 * 64, line=64, ways=4, policy=policy)
    near = np.random.default_rng(0).integers(0, 100, 5000) * 64
    far = near + np.where(near % 128 == 0, 2**61, 0)
    one = simulate(far, cache)
    assert one.levels.tolist() == simulate(near + (near % 128 == 0) * 2**20, cache).levels.tolist()


def test_rows_and_lists_are_one_cache():
    stream = np.random.default_rng(1).integers(0, 200, 20_000) * 64
    rows, lists = (simulate(stream, Cache(capacity=64 * 64, line=64, ways=n)) for n in (64, 0))
    assert (rows.levels == lists.levels).all()


def test_hashing_spreads_a_stride():
    # lines 1,024 apart all fall into one set by remainder; by hash two a set on average, where
    # P(Poisson(2) <= 3) = 0.857 of them share it with less than four others, nine rounds of ten
    stream = np.tile(np.arange(2048) * 1024 * 64, 10)
    plain, hashed = (simulate(stream, Cache(capacity=4096 * 64, line=64, ways=4, hashed=on))
                     for on in (False, True))  # fmt: skip
    assert plain.hits == 0
    assert hashed.hit_rate == pytest.approx(0.9 * 0.857, abs=0.03)


def test_same_seed_same_answer():
    stream = np.random.default_rng(2).integers(0, 200, 5000) * 64
    cache = Cache(capacity=64 * 64, line=64, ways=4, policy="random", seed=7)
    assert (simulate(stream, cache).levels == simulate(stream, cache).levels).all()
    assert (simulate(stream, cache).levels != simulate(stream, replace(cache, seed=8)).levels).any()


def test_nothing_accessed():
    got = simulate(np.empty(0, np.int64), Cache(capacity=1024, line=64, ways=0, victim=64))
    assert (got.accesses, got.hits, got.misses, got.dirty, got.hit_rate) == (0, 0, 0, 0, 0.0)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"capacity": 1000}, "this capacity: 1000"),
        ({"capacity": 0}, "this capacity: 0"),
        ({"capacity": 2**50}, "this capacity"),
        ({"capacity": 1024.0}, "this capacity: 1024.0"),
        ({"line": 0}, "this line: 0"),
        ({"ways": -1}, "this ways: -1"),
        ({"ways": 0, "policy": "srrip"}, "this ways: 0"),
        ({"policy": "fifo"}, "this policy: 'fifo' .allowed: lru, random, srrip"),
        ({"sector": 48}, "this sector: 48"),
        ({"sector": 2}, "this sector: 2"),
        ({"victim": 100}, "this victim: 100"),
        ({"hashed": 1}, "this hashed: 1"),
        ({"seed": -1}, "this seed: -1"),
    ],
)
def test_caches_that_cannot_be(wrong, message):
    with pytest.raises(InputError, match=message):
        Cache(**{"capacity": 1024, "line": 64, "ways": 4, **wrong})


@pytest.mark.parametrize(
    ("addresses", "flags", "message"),
    [
        ([0.5], {}, "whole numbers: .float64"),
        ([[1, 2]], {}, "whole numbers: .int64 of shape .1, 2."),
        ([-1], {}, "out of range: -1"),
        ([2**62], {}, "out of range"),
        ([1, 2], {"writes": [True]}, "writes are not a flag"),
        ([1, 2], {"bypass": [0, 1]}, "bypass are not a flag"),
    ],
)
def test_streams_that_cannot_be(addresses, flags, message):
    with pytest.raises(InputError, match=message):
        simulate(addresses, Cache(capacity=1024, line=64, ways=4), **flags)


def test_addresses_too_far_apart_for_their_sectors():
    with pytest.raises(InputError, match="too far apart"):
        simulate([0, 2**40], Cache(capacity=1024, line=64, ways=4, sector=4))


def test_without_numba(monkeypatch):
    from npusim.cache import compiled, replay

    compiled._compiled.cache_clear()
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(InputError, match=r"pip install 'npusim\[cache\]'"):
        simulate([0], Cache(capacity=1024, line=64, ways=4))
    monkeypatch.undo()
    assert compiled.compiled(replay.replay, *replay.HELPERS)
