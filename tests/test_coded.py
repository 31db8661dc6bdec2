"""Items as numbers into the few distinct ones."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from npusim.importers.coded import Coded, by_appearance, by_identity, distinct, joined, used

few = st.lists(st.integers(0, 12), max_size=40)


@given(few)
def test_numbers_in_order_of_appearance(numbers):
    order, place = by_appearance(np.array(numbers, dtype=np.int64))
    assert order.tolist() == list(dict.fromkeys(numbers))
    assert order[place].tolist() == numbers


@given(st.lists(st.integers(-(2**62), 2**62) | st.integers(0, 9), max_size=40))
def test_distinct_numbers_whether_dense_sparse_or_negative(numbers):
    found, place = distinct(np.array(numbers, dtype=np.int64))
    assert found.tolist() == sorted(set(numbers))
    assert found[place].tolist() == numbers


def test_what_is_used_of_a_table():
    items = Coded(["a", "b", "c", "d"], np.array([3, 1, 3]))
    assert (list(items), items[1], len(items)) == (["d", "b", "d"], "b", 3)
    assert items.distinct() == ["b", "d"]
    assert used(items.codes).tolist() == [1, 3]
    assert not Coded(["a"], np.zeros(0, dtype=np.int64)).distinct()


def test_objects_are_told_apart_not_what_they_are_equal_to():
    one, other = [1], [1]
    found = by_identity([one, other, one])
    assert found.codes.tolist() == [0, 1, 0]
    assert found.table[0] is one
    assert found.table[1] is other


@given(few, few)
def test_parts_of_one_table_join_as_their_items_do(first, second):
    table = [object() for _ in range(13)]
    parts = [Coded(table, np.array(p, dtype=np.int64)) for p in (first, second)]
    quick, slow = joined(parts), joined([list(p) for p in parts])
    assert quick.table == slow.table
    assert quick.codes.tolist() == slow.codes.tolist()


def test_parts_of_different_tables_join_too():
    a, b = "a", "b"
    found = joined([Coded([a, b], np.array([1, 0])), Coded([b, a], np.array([1, 0])), [b]])
    assert list(found) == ["b", "a", "a", "b", "b"]
    assert found.table == ["b", "a"]
