"""Two sequences of kernels put beside each other: by launch, by name, by neighbours, by windows."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim import kernel_match
from npusim.kernel_match import Numbered, align, numbered
from tests.builder import kernel, workload


def numbers(values, launches=None):
    name = np.array(values, dtype=np.int64)
    return Numbered(name, name if launches is None else np.array(launches, dtype=np.int64))


def pairs(a, b):
    return [tuple(p) for p in np.column_stack(align(a, b)).tolist()]


def test_repeated_layers_stay_in_step_where_one_has_more_kernels():
    layer, longer = [1, 2, 3, 5, 4], [1, 2, 9, 3, 2, 5, 4]
    found = pairs(numbers(layer * 3), numbers(longer * 3))
    assert found == [(5 * i + p, 7 * i + q) for i in range(3)
                     for p, q in ((0, 0), (1, 1), (2, 3), (3, 5), (4, 6))]  # fmt: skip


def test_a_profile_of_the_first_kernels_takes_the_first_places():
    step = [1, 2, 3] * 50
    assert pairs(numbers(step[:31]), numbers(step)) == [(i, i) for i in range(31)]


def test_the_same_launch_counts_more_than_the_same_name():
    a = numbers([1, 1], [10, 11])
    b = numbers([1, 1, 1], [12, 10, 11])
    assert pairs(a, b) == [(0, 1), (1, 2)]


def longest(a, b):
    """Length of a longest common subsequence, the textbook way."""
    best = [0] * (len(b) + 1)
    for x in a:
        row = [0]
        for j, y in enumerate(b):
            row.append(best[j] + 1 if x == y else max(row[-1], best[j + 1]))
        best = row
    return best[-1]


@settings(max_examples=200)
@given(*[st.lists(st.integers(0, 3), max_size=14)] * 2)
def test_alignment_is_a_longest_common_subsequence(a, b):
    found = pairs(numbers(a), numbers(b))
    assert all(a[i] == b[j] for i, j in found)
    assert all(p[0] < q[0] and p[1] < q[1] for p, q in pairwise(found))
    assert len(found) == longest(a, b)


@pytest.mark.parametrize("extra", [0, 7, 90])
def test_long_sequences_are_aligned_in_windows(monkeypatch, extra):
    monkeypatch.setattr(kernel_match, "WINDOW", 64)
    rng = np.random.default_rng(1)
    a = np.arange(500)
    keep = np.sort(rng.permutation(500)[:450])
    b = np.concatenate([np.full(extra, 999), a[keep]])
    rows_a, rows_b = align(numbers(a), numbers(b))
    assert (a[rows_a] == b[rows_b]).all()
    assert len(rows_a) == 450


# ---------------------------------------------------------------- by name alone, by neighbours


def launches(*kernels):
    """Kernels as letter and launch: ``a`` is one of a launch that both have, ``a1`` another."""
    names = [ord(k[0]) for k in kernels]
    return numbers(names, [1000 * ord(k[0]) + int(k[1:] or 0) for k in kernels])


def aligned(a, b):
    return pairs(launches(*a.split()), launches(*b.split()))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("a1", "a2", [(0, 0)]),  # nothing but the name agrees, neighbours neither
        ("a1 b1", "a2 b2", [(0, 0), (1, 1)]),
        ("a1 b1 c1", "b2 a2 c2", [(1, 0), (2, 2)]),  # a or b: of two that cross, the earlier of b
        ("a1", "b2", []),
        ("a1", "a2 a3", [(0, 0)]),  # of equal ways the earliest
        ("a1 a2", "a3", [(0, 0)]),
    ],
)
def test_kernels_of_one_name_match_whatever_their_launch(a, b, expected):
    assert aligned(a, b) == expected


def test_one_launch_counts_more_than_several_names():
    """Either the launch of a, or the names of b and c, which cross it."""
    assert aligned("a b1 c1", "b2 c2 a") == [(0, 2)]


def test_seventeen_names_are_worth_one_launch():
    """A name is worth 8, a launch 128 more: 16 names are worth less than name and launch, 18 not.

    With 17 names (136) both ways are worth the same.
    """
    for count, matched in ((16, 1), (18, 18)):
        mine, theirs = (" ".join([f"b{2 * i + side}" for i in range(1, count + 1)])
                        for side in (0, 1))  # fmt: skip
        assert len(aligned(f"a {mine}", f"{theirs} a")) == matched


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        # z, the same on both sides, is as far behind the second x of b as it is behind that of a
        ("x1 z", "x2 x3 z", [(0, 1), (1, 2)]),
        ("x1 p1 z", "x2 x3 p2 z", [(0, 1), (1, 2), (2, 3)]),
        ("x1 p1 q1 z", "x2 x3 p2 q2 z", [(0, 1), (1, 2), (2, 3), (3, 4)]),
        ("x1 p1 q1 r1 z", "x2 x3 p2 q2 r2 z", [(0, 0), (1, 2), (2, 3), (3, 4), (4, 5)]),  # too far
        # z stands right before the last x of b, as before that of a
        ("y1 z x1 p1", "y2 z p2 x2 z x3", [(0, 0), (1, 1), (2, 5)]),
        # z stands as far before the last x of b as before that of a; the others of a match before
        # x or, the last of them, cross it
        ("y1 z p1 x1", "y2 z x2 x3 p2", [(0, 0), (1, 1), (3, 3)]),
        ("y1 z p1 q1 x1", "y2 z p2 x2 x3 q2", [(0, 0), (1, 1), (2, 2), (4, 4)]),
        (
            "y1 z p1 q1 r1 x1",
            "y2 z p2 q2 x2 x3 r2",
            [(0, 0), (1, 1), (2, 2), (3, 3), (5, 4)],
        ),  # too far
    ],
)
def test_three_neighbours_on_either_side_decide_between_equal_names(a, b, expected):
    assert aligned(a, b) == expected


def test_nothing_before_and_behind_a_sequence_is_no_neighbour():
    """Else the last x of b, like x of a one from the end, would have more in common with it."""
    assert aligned("y1 x1", "x2 x3 y2") == [(1, 0)]


def test_what_one_capture_does_not_tell_of_a_launch_is_not_compared():
    """Blocks are told by both, threads by one; of kernel b both tell all."""
    a = workload(kernel("a", blocks=8, threads=128), kernel("b", blocks=8, threads=128))
    b = workload(kernel("a", blocks=8, threads=0), kernel("a", blocks=4, threads=0),
                 kernel("b", blocks=8, threads=64))  # fmt: skip
    mine, theirs = numbered(a, b)
    assert mine.name.tolist() == [theirs.name[0], theirs.name[2]]
    assert theirs.name[0] == theirs.name[1] != theirs.name[2]
    assert mine.launch[0] == theirs.launch[0]
    assert mine.launch[0] != theirs.launch[1]
    assert mine.launch[1] != theirs.launch[2]
    # one launch that is not told takes the others of its kernel along
    c = workload(kernel("a", blocks=8), kernel("a", blocks=4), kernel("a", blocks=0))
    (alone,) = numbered(c)
    assert len(set(alone.launch.tolist())) == 1


# ---------------------------------------------------------------- edges of a window


WINDOW = 8


@pytest.fixture
def window(monkeypatch):
    monkeypatch.setattr(kernel_match, "WINDOW", WINDOW)


def bridged(gap, length=20):
    """How many of `length` kernels match across a gap of kernels that both have elsewhere."""
    run = list(range(1, length + 1))
    one, other = numbers([*run, 99]), numbers([99] * gap + run)
    found = pairs(one, other)
    assert pairs(other, one) == [(q, p) for p, q in found]
    return len(found)


@pytest.mark.parametrize(("gap", "matched"), [(2, 20), (3, 20), (4, 4), (5, 4)])
def test_a_gap_of_less_than_half_a_window_is_bridged(window, gap, matched):
    """Half a window is four: across as many, only the end is matched, where all that is left fits.

    a moves on by four to its last five, 17 to 20 and 99; then b does until it has eight left.
    """
    assert bridged(gap) == matched


@pytest.mark.parametrize(("gap", "length"), [(4, 4), (5, 3), (6, 2)])
def test_what_fits_into_one_window_is_matched_to_its_end(window, gap, length):
    assert gap + length == WINDOW
    assert bridged(gap, length) == length


def test_only_the_sequence_that_is_longer_than_a_window_moves_on(window):
    """Nine kernels are one too many: four of the gap go, and the rest fits."""
    run, longer = [1, 2, 3, 99], [99] * 6 + [1, 2, 3]
    assert pairs(numbers(run), numbers(longer)) == [(0, 6), (1, 7), (2, 8)]
    assert pairs(numbers(longer), numbers(run)) == [(6, 0), (7, 1), (8, 2)]


def test_the_next_window_knows_better_than_the_second_half_of_one(window):
    """The launch of t is in b once more, one behind the first window.

    Fifth of its window, t is matched in the next, which sees that; fourth, it is matched by name.
    """
    fifth = aligned("x1 m n o t g", "x2 m n o t2 g1 g2 g3 t")
    assert fifth == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 8)]
    fourth = aligned("x1 m n t g", "x2 m n t2 g1 g2 g3 g4 t")
    assert fourth == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]
