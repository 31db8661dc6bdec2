"""Windows against a count of distinct blocks, one access after the other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npusim.reuse.windows import previous, windows


def counted(block, size):
    """Return windows by the definition: distinct blocks since the last use, itself included."""
    result = np.full(size.shape, np.inf)
    for i, b in enumerate(block):
        before = [j for j in range(i) if block[j] == b]
        if before:
            between = {block[j]: size[j] for j in range(before[-1] + 1, i)}
            result[i] = sum(between.values(), np.zeros(size.shape[1])) + size[i]
    return result


@st.composite
def accesses(draw):
    """Up to 60 accesses to up to 12 blocks of whole bytes in three classes."""
    names = draw(st.lists(st.integers(-5, 10**12), min_size=1, max_size=12, unique=True))
    sizes = draw(
        st.lists(st.tuples(*[st.integers(0, 10**9)] * 3), min_size=len(names), max_size=len(names))
    )
    chosen = draw(st.lists(st.integers(0, len(names) - 1), max_size=60))
    block = np.array([names[i] for i in chosen], dtype=np.int64)
    return block, np.array([sizes[i] for i in chosen], dtype=float).reshape(-1, 3)


@given(accesses())
def test_windows_are_the_distinct_bytes_since_the_last_use(given_accesses):
    block, size = given_accesses
    assert windows(block, size).tolist() == counted(block.tolist(), size).tolist()


@given(accesses())
def test_a_first_touch_has_no_window_and_no_other_access_is_without(given_accesses):
    block, size = given_accesses
    first = np.zeros(len(block), dtype=bool)
    first[np.unique(block, return_index=True)[1]] = True
    assert (np.isinf(windows(block, size)) == first[:, None]).all()
    assert ((previous(block) < 0) == first).all()


def test_classes_are_counted_apart_by_hand():
    # blocks a (3 B of weights), b (5 B of KV), c (7 B of activations): a b c b a c
    a, b, c = [3.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 7.0]
    found = windows(np.array([0, 1, 2, 1, 0, 2]), np.array([a, b, c, b, a, c]))
    assert np.isinf(found[:3]).all()
    assert found[3:].tolist() == [[0, 5, 7], [3, 5, 7], [3, 5, 7]]


def test_a_block_used_twice_in_a_row_has_its_own_bytes_alone():
    assert windows(np.array([4, 4, 4]), np.full((3, 1), 9.0)).ravel().tolist() == [np.inf, 9, 9]


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_and_a_single_access(count):
    found = windows(np.zeros(count, dtype=np.int64), np.ones((count, 3)))
    assert found.shape == (count, 3)
    assert np.isinf(found).all()


@pytest.mark.parametrize("count", [2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 1000])
def test_a_circle_of_blocks_has_the_window_of_the_whole_circle(count):
    """Each length, beside powers of two, where the halves of a merge are uneven."""
    block = np.tile(np.arange(count), 3)
    size = np.tile(np.arange(1.0, count + 1)[:, None], (3, 1))
    found = windows(block, size).ravel()
    assert np.isinf(found[:count]).all()
    assert (found[count:] == count * (count + 1) / 2).all()


def test_large_sums_stay_whole_bytes():
    """A million accesses of a few bytes beside tens of gigabytes lose none of them."""
    size = np.array([[3e10], [1.0], [7e10], [1.0]])
    assert windows(np.array([0, 1, 2, 1]), size)[3, 0] == 7e10 + 1
