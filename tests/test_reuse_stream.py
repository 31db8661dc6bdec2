"""Which operations touch the same memory, by hand, and the laws that every stream keeps."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npusim as ns
from npusim.reuse.stream import CLASSES, DATA, stream
from npusim.reuse.windows import windows

NAMES = list(DATA)
KB = 1024.0


def run(*rows, rounds=1):
    """Return the accesses of rows ``(kind, {column: bytes})``."""
    moved = {name: np.array([row.get(name, 0.0) for _, row in rows]) for name in DATA}
    return stream([kind for kind, _ in rows], moved, rounds)


def touched(s, count, operation, data, *, round_=0):
    """Return blocks that an operation of a round touches as some data."""
    of_round = np.arange(len(s)) // (len(s) // count) == round_
    chosen = of_round & (s.operation == operation) & (s.data == NAMES.index(data))
    return s.block[chosen].tolist()


def test_weights_are_an_operations_own_and_the_same_in_each_step():
    two = ("gemv", {"read_weight": 5e6}), ("gemv", {"read_weight": 5e6})
    s = run(*two, rounds=3)
    blocks = s.block.reshape(3, 2)
    assert (blocks == blocks[0]).all()
    assert blocks[0, 0] != blocks[0, 1]
    assert s.size.tolist() == s.moved.tolist() == [5e6] * 6
    assert {CLASSES[kind] for kind in s.kind} == {"weight"}


GROWN = (
    ("cat", {"read_kv": 64 * KB, "write_kv": 64 * KB}),
    ("cat", {"read_kv": 64 * KB, "write_kv": 64 * KB}),
    ("attention", {"read_kv": 128 * KB}),
)


def test_a_cache_that_grows_by_concatenation():
    # k reads its old cache and writes a new one, v the same, attention reads both new ones:
    # the first copy takes new memory, each other one that of the cache freed by the one before.
    s = run(*GROWN, rounds=3)
    by_round = s.block.reshape(3, 6).tolist()
    k, v = ([blocks[1] for blocks in by_round], [blocks[3] for blocks in by_round])
    for r in (1, 2):
        assert by_round[r][0] == k[r - 1]  # read what was written in the step before
        assert by_round[r][2] == v[r - 1]
        assert v[r] == k[r - 1]  # into what the copy before has freed
    assert k[2] == v[1 - 1]  # and so on in the next step
    assert all(set(blocks[4:]) == {blocks[1], blocks[3]} for blocks in by_round)
    assert len({k[1], v[1], k[2], v[2], k[0], v[0]}) == 3  # two caches and one on the way


def test_attention_reads_what_was_just_written_and_no_other_layer():
    s = run(*GROWN, *GROWN, rounds=3)
    for layer in (0, 3):
        written = [touched(s, 3, layer + i, "write_kv", round_=2)[0] for i in (0, 1)]
        assert sorted(touched(s, 3, layer + 2, "read_kv", round_=2)) == sorted(written)


def test_a_static_cache_stays_where_it_is():
    # a token is written, but attention reads far more: it has a cache of its own
    layer = ("scatter", {"write_kv": 1 * KB}), ("attention", {"read_kv": 512 * KB})
    s = run(*layer, *layer, rounds=3)
    read = [[touched(s, 3, i, "read_kv", round_=r) for r in range(3)] for i in (1, 3)]
    assert read[0][0] == read[0][1] == read[0][2]
    assert read[0][0] != read[1][0]


def test_an_attention_without_writes_has_a_cache_of_its_own():
    s = run(("attention", {"read_kv": 1e6}), ("attention", {"read_kv": 1e6}), rounds=2)
    first, second = s.block[:2].tolist()
    assert first != second
    assert s.block.tolist() == [first, second] * 2


WRITES = (
    ("a", {"write_activation": 4 * KB}),
    ("b", {"write_activation": 10 * KB}),
    ("c", {"write_activation": 4 * KB}),
)


def reading(size):
    """Return what is written by a, b, c, and ``(block, bytes)`` of a read that follows them."""
    s = run(*WRITES, ("d", {"read_activation": size}))
    written = dict(zip("abc", s.block[:3].tolist(), strict=True))
    return written, list(zip(s.block[3:].tolist(), s.moved[3:].tolist(), strict=True))


def test_an_activation_of_just_that_size_is_the_latest_one():
    s = run(*WRITES[:1], ("c", {"write_activation": 4 * KB, "read_activation": 4 * KB}),
            ("d", {"read_activation": 4 * KB}))  # fmt: skip
    a, read, c, last = s.block.tolist()
    assert read == a
    assert last == c != a


def test_two_activations_that_make_up_the_size():
    written, read = reading(14 * KB)
    # b, and the later one of the two that go with it
    assert sorted(read) == sorted([(written["c"], 4 * KB), (written["b"], 10 * KB)])


def test_the_larger_part_is_read_and_the_rest_is_a_constant():
    written, read = reading(12 * KB)  # 10 of them, and 2 of something else
    assert read[0] == (written["b"], 10 * KB)
    assert read[1][1] == 2 * KB
    assert read[1][0] not in written.values()


def test_a_part_of_a_larger_activation():
    written, read = reading(3 * KB)  # nothing of 1.5 to 3 KB: a part of the latest larger one
    s = run(*WRITES, ("d", {"read_activation": 3 * KB}))
    assert len(read) == 1
    assert read[0][1] == 3 * KB
    assert s.size[-1] == 4 * KB  # all of it is in the way, 3 KB are read
    assert read[0][0] in written.values()


def test_what_matches_nothing_is_a_constant_that_stays():
    s = run(("rope", {"read_activation": 6e6}), ("rope", {"read_activation": 6e6}), rounds=2)
    first, second = s.block[:2].tolist()
    assert first != second
    assert s.block.tolist() == [first, second, first, second]


def test_memory_that_nobody_reads_any_more_is_used_again():
    # a writes, b reads it and writes beside it, c may take the memory of a
    s = run(
        ("a", {"write_activation": 512.0}),
        ("b", {"read_activation": 512.0, "write_activation": 512.0}),
        ("c", {"read_activation": 512.0, "write_activation": 512.0}),
    )
    a, b_reads, b, c_reads, c = s.block.tolist()
    assert b_reads == a != b == c_reads
    assert c == a


def test_sizes_are_rounded_as_an_allocator_does():
    s = run(("a", {"write_activation": 513.0}), ("b", {"read_activation": 513.0}))
    assert s.size.tolist() == [1024.0, 1024.0]
    assert s.moved.tolist() == [513.0, 513.0]


def test_a_step_that_moves_nothing_has_no_accesses():
    assert len(run(("a", {}), ("b", {}), rounds=3)) == 0


sizes = st.sampled_from([0.0, 0.0, 512.0, 2048.0, 2560.0, 5000.0, 100_000.0])
kinds = st.sampled_from(["gemv", "cat", "attention", "pointwise"])
steps = st.lists(
    st.tuples(kinds, st.fixed_dictionaries(dict.fromkeys(DATA, sizes))), min_size=1, max_size=14
)


@settings(max_examples=60)
@given(steps)
def test_all_bytes_asked_for_are_moved(rows):
    s = run(*rows)
    moved = np.zeros((len(rows), len(DATA)))
    np.add.at(moved, (s.operation, s.data), s.moved)
    asked = np.array([[row[name] for name in DATA] for _, row in rows])
    assert moved == pytest.approx(asked, rel=0.005)  # padding that sizes count or not
    assert (s.moved <= s.size * 1.005).all()
    assert (np.diff(s.operation) >= 0).all()


def writers(s, rounds):
    """Return for each access of each round which operation had written its block before."""
    found, owner = defaultdict(list), {}
    each = len(s) // rounds
    writes = [flag for _, flag in DATA.values()]
    for i in range(len(s)):
        found[i // each].append(owner.get(s.block[i]))
        if writes[s.data[i]]:
            owner[s.block[i]] = s.operation[i]
    return found


@settings(max_examples=60)
@given(steps)
def test_in_each_step_an_operation_reads_what_the_same_one_wrote(rows):
    """No result is overwritten while somebody still reads it, however memory is passed on."""
    s = run(*rows, rounds=5)
    if not len(s):
        return
    found = writers(s, 5)
    reads = [not flag for _, flag in DATA.values()]
    is_read = [reads[d] for d in s.data[: len(s) // 5]]
    for r in (3, 4):
        same = [a == b for a, b, read in zip(found[2], found[r], is_read, strict=True) if read]
        assert all(same)


@settings(max_examples=60)
@given(steps, st.integers(2, 4))
def test_blocks_keep_their_size_and_rounds_their_order(rows, rounds):
    s = run(*rows, rounds=rounds)
    for b in np.unique(s.block):
        assert len(np.unique(s.size[s.block == b])) == 1
    each = len(s) // rounds
    for name in ("operation", "data", "moved", "kind"):
        column = getattr(s, name).reshape(rounds, each)
        assert (column == column[0]).all()


@pytest.mark.parametrize("name", ["paddleocr_vl_decode", "paddleocr_vl_vision"])
def test_a_step_has_settled_by_the_round_that_is_kept(name):
    """One round more moves what lies between two uses of the bytes by less than a percent."""
    w = ns.load_workload(name)
    rows = w["step"] == 0
    moved = {c: w[c][rows] for c in DATA}
    kept = 3 if moved["write_kv"].any() else 2
    total = []
    for rounds in (kept, kept + 1):
        s = stream(w.text("kind")[rows].tolist(), moved, rounds)
        last = slice(len(s) // rounds * (rounds - 1), None)
        size = np.zeros((len(s), len(CLASSES)))
        size[np.arange(len(s)), s.kind] = s.size
        window = windows(s.block, size)[last].sum(axis=1)
        assert np.isfinite(window).all()
        total.append(
            np.array([s.moved[last][window <= c].sum() for c in np.geomspace(1e5, 2e9, 40)])
        )
    assert total[1] == pytest.approx(total[0], abs=0.01 * s.moved[last].sum())
