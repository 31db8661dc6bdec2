"""The reuse profile: by hand, and against an exact cache of tiles."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npusim as ns
from npusim.reuse import CLASSES, DATA, alone, periodic, zipf
from npusim.reuse.profile import Experts
from npusim.reuse.stream import stream

KIB, MB = 1024.0, 1e6
NAMES = list(DATA)
WRITES = np.array([writes for _, writes in DATA.values()])


def columns(*rows):
    return {name: np.array([row.get(name, 0.0) for _, row in rows]) for name in DATA}


def profile(*rows, step=None):
    """Return the profile of rows ``(kind, {column: bytes})``, by default of one step."""
    step = np.zeros(len(rows), dtype=np.int64) if step is None else np.array(step)
    return periodic([kind for kind, _ in rows], columns(*rows), step)


def window(reuse, operation, data):
    """Return the windows of what an operation reads or writes, one a part."""
    parts = reuse.share[data][operation] > 0
    return reuse.windows[reuse.window[data][operation][parts]].tolist()


def gemv(weight, read=0.0, write=0.0):
    return "gemv", {"read_weight": weight, "read_activation": read, "write_activation": write}


# --- by hand ---------------------------------------------------------------------------------


def test_weights_have_the_window_of_the_whole_step():
    a = 256 * KIB
    r = profile(gemv(3 * MB, 0.0, a), gemv(5 * MB, a, a), gemv(7 * MB, a, a))
    for i in range(3):
        # all weights, and two results in turn
        assert window(r, i, "read_weight") == [[15 * MB, 0, 2 * a]]
    assert r.kept[0].tolist() == [15 * MB, 0]


def test_an_activation_is_read_just_after_it_was_written():
    a = 256 * KIB
    r = profile(gemv(3 * MB, 0.0, a), gemv(5 * MB, a, a))
    # between the write and the read lie the weights of the reader
    assert window(r, 1, "read_activation") == [[5 * MB, 0, a]]


def test_a_residual_waits_for_what_lies_between():
    big, small = 512 * KIB, 128 * KIB
    r = profile(
        gemv(2 * MB, 0.0, big),
        gemv(3 * MB, 0.0, small),
        gemv(4 * MB, small, small),
        ("add", {"read_activation": big}),
    )
    # since the write: two products with their weights, the two small results, and itself
    assert window(r, 3, "read_activation") == [[7 * MB, 0, big + 2 * small]]


def test_a_write_has_the_largest_window_since_the_write_before():
    a = 256 * KIB
    r = profile(
        gemv(2 * MB, 0.0, a), ("wait", {"read_weight": 9 * MB}), ("read", {"read_activation": a})
    )
    # Its memory was read at the end of the step before, 2 MB ago; but between the write before and
    # that read lay 9 MB, and a cache of 5 MB has sent it to DRAM by then.
    assert window(r, 2, "read_activation") == [[9 * MB, 0, a]]
    assert window(r, 0, "write_activation") == [[9 * MB, 0, a]]


def test_a_result_that_nobody_reads_is_written_over_a_step_later():
    a = 64 * KIB
    r = profile(("gemv", {"read_weight": 4 * MB, "write_activation": a}))
    assert window(r, 0, "write_activation") == [[4 * MB, 0, a]]


def test_a_cache_that_grows_by_hand():
    c = 512 * KIB
    layer = (
        ("cat", {"read_kv": c, "write_kv": c}),
        ("cat", {"read_kv": c, "write_kv": c}),
        ("attention", {"read_kv": 2 * c}),
        ("gemv", {"read_weight": 8 * MB}),
    )
    r = profile(*layer)
    # k and v of attention were just written, and lie in the memory of three caches in all
    assert max(sum(w) for w in window(r, 2, "read_kv")) <= 3 * c
    # the old k was read by attention, before the weights
    assert [w[0] for w in window(r, 0, "read_kv")] == [8 * MB]
    assert r.kept[0].tolist() == [8 * MB, 3 * c]  # two caches, and one on its way


def test_parts_of_a_read_by_hand():
    a, b = 256 * KIB, 768 * KIB
    r = profile(gemv(0, 0, a), gemv(0, 0, b), gemv(1 * MB), ("add", {"read_activation": a + b}))
    share = r.share["read_activation"][3]
    assert sorted(share[share > 0].tolist()) == [0.25, 0.75]
    # the later one is read first: since it was written the weights were touched; since the
    # earlier one was, the later one too
    assert sorted(window(r, 3, "read_activation")) == [[1 * MB, 0, b], [1 * MB, 0, a + b]]


def test_two_steps_of_different_length_each_repeat_themselves():
    r = profile(gemv(2 * MB), gemv(2 * MB), gemv(30 * MB), step=[0, 0, 1])
    assert window(r, 0, "read_weight") == [[4 * MB, 0, 0]]
    assert window(r, 2, "read_weight") == [[30 * MB, 0, 0]]
    assert r.kept[0].tolist() == [30 * MB, 0]  # a memory of their own has to hold either


def test_identical_steps_have_identical_profiles():
    rows = [gemv(2 * MB, 0.0, 64 * KIB), gemv(3 * MB, 64 * KIB, 128 * KIB)]
    one = profile(*rows)
    r = profile(*rows * 3, step=[0, 0, 1, 1, 2, 2])
    assert r.windows.tolist() == one.windows.tolist()
    for name in DATA:
        for part in ("share", "window"):
            assert (getattr(r, part)[name] == np.tile(getattr(one, part)[name], (3, 1))).all()
    signature = r.signature()
    assert (signature[:2] == signature[2:4]).all()
    assert (signature[0] != signature[1]).any()


def test_rows_that_are_taken_keep_their_windows():
    r = profile(gemv(2 * MB, 0.0, 64 * KIB), gemv(3 * MB, 64 * KIB, 128 * KIB))
    taken = r.take(np.array([1]))
    assert window(taken, 0, "read_weight") == window(r, 1, "read_weight")
    assert set(taken.used("read_weight")) <= set(taken.used()) <= set(r.used())


def test_operations_that_move_nothing_have_no_windows():
    r = profile(("nop", {}), ("nop", {}))
    assert len(r.used()) == 0
    assert not any(part.any() for part in r.share.values())


def test_what_runs_alone_has_the_windows_it_is_given():
    r = alone([3 * MB, np.inf], [np.inf, 5.0], [7.0, 8.0])
    assert window(r, 0, "read_weight") == [[3 * MB, 0, 0]]
    assert window(r, 0, "read_kv") == [[0, np.inf, 0]] == window(r, 0, "write_kv")
    assert window(r, 1, "write_activation") == [[0, 0, 8]]
    for i, (weight, kv) in enumerate([(3 * MB, np.inf), (np.inf, 5.0)]):
        assert r.kept[r.window["read_kv"][i, 0]].tolist() == [weight, kv]


def test_experts_that_a_router_chooses_by_hand():
    # two of four experts of 20 kB, and 1 MB of other weights. Half of those in use were used a
    # step ago (two touched since, themselves included), a quarter two steps ago (three).
    rows = ("grouped_gemm", {"read_weight": 40e3}), gemv(1 * MB)
    r = periodic([kind for kind, _ in rows], columns(*rows), np.zeros(2, dtype=np.int64),
                 Experts(np.array([2.0, 0.0]), {0: zipf(4, 0.0)}))  # fmt: skip
    assert r.share["read_weight"][0][:2] == pytest.approx([0.5, 0.25])
    assert r.share["read_weight"].sum(axis=1) == pytest.approx([1.0, 1.0])
    assert window(r, 0, "read_weight")[:2] == [
        [pytest.approx(1 * MB + 40e3), 0, 0], [pytest.approx(1 * MB + 60e3), 0, 0]
    ]  # fmt: skip
    assert len(r.kept) == len(r.windows)
    assert r.kept[r.used()] == pytest.approx(np.tile([1 * MB + 80e3, 0], (len(r.used()), 1)))


rows_of_any_kind = st.lists(
    st.tuples(
        st.sampled_from(["gemv", "cat", "attention", "pointwise"]),
        st.fixed_dictionaries(
            dict.fromkeys(DATA, st.sampled_from([0.0, 0.0, 1e3, 65536.0, 131072.0, 1e6]))
        ),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


@settings(max_examples=50)
@given(rows_of_any_kind)
def test_every_byte_has_a_window_and_in_a_step_that_repeats_none_is_infinite(rows):
    r = profile(*rows)
    asked = columns(*rows)
    for name in DATA:
        total = r.share[name].sum(axis=1)
        assert total == pytest.approx((asked[name] > 0).astype(float))
        assert (r.window[name] < max(len(r.windows), 1)).all()
    assert np.isfinite(r.windows[r.used()]).all()


# --- against an exact cache ------------------------------------------------------------------


class Tiles:
    """A fully associative LRU cache of tiles that writes back, one access after the other."""

    def __init__(self, lines):
        self.lines, self.held = lines, OrderedDict()
        self.written_back = 0.0

    def touch(self, tile, written):
        """Return whether a tile was there; one that is written weighs so many bytes on eviction."""
        hit = tile in self.held
        dirty = self.held.pop(tile, 0.0)
        self.held[tile] = written or dirty
        if len(self.held) > self.lines:
            self.written_back += self.held.popitem(last=False)[1]
        return hit


def simulated(kind, moved, tile, capacity, rounds=5):
    """Return the bytes that the last round of a step reads from DRAM and writes to it."""
    s = stream(kind, moved, rounds)
    cache, read = Tiles(int(capacity // tile)), 0.0
    each, before = len(s) // rounds, 0.0
    for i, (block, size, data, bytes_) in enumerate(
        zip(s.block, s.size, s.data, s.moved, strict=True)
    ):
        if i == each * (rounds - 1):
            before = cache.written_back
            read = 0.0
        count = int(-(-size // tile))
        for t in range(count):
            writes = bytes_ / count if WRITES[data] else 0.0
            hit = cache.touch((block, t), writes)
            read += 0.0 if hit or writes else bytes_ / count
    return read, cache.written_back - before


def profiled(reuse, moved, capacity):
    """Return the bytes read from and written to DRAM by a cache of a capacity."""
    total = np.zeros(2)
    late = reuse.windows.sum(axis=1) > capacity
    for name, writes in zip(NAMES, WRITES, strict=True):
        missed = (reuse.share[name] * late[reuse.window[name]]).sum(axis=1)
        total[int(writes)] += (missed * moved[name]).sum()
    return total


def away_from_knees(reuse, capacities):
    """Return capacities that no window is within 5 % of: the profile merges those within 3 %."""
    total = reuse.windows[reuse.used()].sum(axis=1)
    return [c for c in capacities if (np.abs(np.log(total / c)) > 0.05).all()]


def whole_tiles(tile, largest, zeros=2):
    return st.sampled_from([*[0.0] * zeros, *(float(tile * n) for n in range(1, largest + 1))])


@st.composite
def tiled_steps(draw):
    """Up to ten operations whose tensors are whole tiles of 64 KiB."""
    kinds = draw(st.lists(st.sampled_from(["gemv", "pointwise", "cat", "attention"]), min_size=2,
                          max_size=10))  # fmt: skip
    rows = []
    for kind in kinds:
        size = draw(whole_tiles(65536, 6, zeros=0))
        row = {"read_activation": draw(whole_tiles(65536, 6)),
               "write_activation": draw(whole_tiles(65536, 6))}  # fmt: skip
        if kind == "gemv":
            row["read_weight"] = size
        elif kind == "cat":
            row |= {"read_kv": size, "write_kv": size}
        elif kind == "attention":
            row["read_kv"] = size
        rows.append((kind, row))
    return rows


@settings(max_examples=60)
@given(tiled_steps())
def test_any_small_step_hits_as_in_an_exact_cache(rows):
    moved = columns(*rows)
    r = profile(*rows)
    asked = sum(column.sum() for column in moved.values())
    for capacity in away_from_knees(r, 65536.0 * np.array([2.5, 6.5, 12.5, 24.5])):
        exact = simulated([kind for kind, _ in rows], moved, 65536, capacity)
        assert profiled(r, moved, capacity) == pytest.approx(exact, abs=0.01 * asked)


@pytest.fixture(scope="module")
def decode():
    w = ns.load_workload("paddleocr_vl_decode")
    rows = w["step"] == 0
    kind = w.text("kind")[rows].tolist()
    return kind, {c: w[c][rows] for c in DATA}


@pytest.mark.parametrize("megabytes", [4, 24, 100, 600, 900])
def test_a_real_step_hits_as_in_an_exact_cache(decode, megabytes):
    kind, moved = decode
    r = periodic(kind, moved, np.zeros(len(kind), dtype=np.int64))
    assert away_from_knees(r, [megabytes * MB])
    exact = simulated(kind, moved, 65536, megabytes * MB, rounds=4)
    asked = sum(column.sum() for column in moved.values())
    assert profiled(r, moved, megabytes * MB) == pytest.approx(exact, abs=0.01 * asked)


def test_a_real_step_hits_as_in_the_simulator_of_the_tool(decode):
    pytest.importorskip("numba")
    from npusim.cache.simulator import Cache, simulate

    kind, moved = decode
    tile, rounds, capacity = 65536, 4, 64 * 2**20
    s = stream(kind, moved, rounds)
    counts = (-(-s.size // tile)).astype(int)
    access = np.repeat(np.arange(len(s)), counts)
    within = np.arange(len(access)) - np.repeat(np.cumsum(counts) - counts, counts)
    base = np.zeros(s.block.max() + 1, dtype=np.int64)
    np.maximum.at(base, s.block, counts)
    base = np.cumsum(base) - base
    levels = simulate((base[s.block[access]] + within) * tile, Cache(capacity, line=tile, ways=0),
                      writes=WRITES[s.data[access]]).levels  # fmt: skip
    last = (access >= len(s) // rounds * (rounds - 1)) & ~WRITES[s.data[access]]
    read = (s.moved / counts)[access][last & (levels == 2)].sum()
    r = periodic(kind, moved, np.zeros(len(kind), dtype=np.int64))
    assert away_from_knees(r, [float(capacity)])
    asked = sum(column.sum() for column in moved.values())
    assert profiled(r, moved, capacity)[0] == pytest.approx(read, abs=0.01 * asked)


@pytest.mark.parametrize("name", ["paddleocr_vl_decode", "paddleocr_vl_prefill"])
def test_windows_that_are_merged_keep_the_curve_of_hits(name, decode):
    """Hits over capacity, from windows as they are and as the profile keeps them."""
    from npusim.reuse.profile import _until_written
    from npusim.reuse.windows import windows

    w = ns.load_workload(name)
    rows = w["step"] == 0
    kind, moved = w.text("kind")[rows].tolist(), {c: w[c][rows] for c in DATA}
    r = periodic(kind, moved, np.zeros(len(kind), dtype=np.int64))
    rounds = 3 if moved["write_kv"].any() else 2
    s = stream(kind, moved, rounds)
    size = np.zeros((len(s), len(CLASSES)))
    size[np.arange(len(s)), s.kind] = s.size
    last = slice(len(s) // rounds * (rounds - 1), None)
    exact = _until_written(s, windows(s.block, size))[last].sum(axis=1)
    asked = sum(column.sum() for column in moved.values())
    for capacity in away_from_knees(r, np.geomspace(2e6, 2e9, 30)):
        missed = s.moved[last][exact > capacity].sum()
        assert profiled(r, moved, capacity).sum() == pytest.approx(missed, abs=0.01 * asked)
