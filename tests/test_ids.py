"""Ids of designs: equal for equal designs however they were found, else without anything common."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npusim.errors import InputError
from npusim.sweeps.ids import design_ids, head, lanes_of, mix, of_values

HEAD = head({"arch": "a", "model": "1"})


def one_id(values, own=None, start=HEAD):
    own = own or {}
    parts = [of_values(path, [value], own.get(path)) for path, value in values.items()]
    return design_ids(start, parts)[0].as_py()


def grid(axes):
    """Return the contributions of every combination of values."""
    places = np.meshgrid(*(np.arange(len(v)) for v in axes.values()), indexing="ij")
    return [of_values(p, v)[place.ravel()]
            for (p, v), place in zip(axes.items(), places, strict=True)]  # fmt: skip


def apart(lanes):
    """Say whether each half alone tells all designs from each other."""
    return all((np.diff(np.sort(lanes[:, lane])) > 0).all() for lane in (0, 1))


def test_neighbours_in_a_large_grid_all_differ():
    """Designs on evenly spaced axes: plain sums of such values collide by the thousand."""
    axes = {f"axis.{i}": np.arange(1, 5) * 1e9 for i in range(10)}
    lanes = lanes_of(design_ids(HEAD, grid(axes)))
    assert len(lanes) == 4**10 and apart(lanes)


def test_values_a_bit_apart_all_differ():
    close = np.float64(1e12).view(np.uint64) + np.arange(1_000_000, dtype=np.uint64)
    lanes = lanes_of(design_ids(HEAD, [of_values("memories.dram.bandwidth", close.view(float))]))
    assert apart(lanes)


@pytest.mark.parametrize("lane", [0, 1])
def test_each_bit_of_what_is_mixed_flips_half_of_the_bits(lane):
    """64 of 128 on the average, with a standard deviation of 5.7; each output bit half the time."""
    start = np.random.default_rng(1).integers(0, 2**64, (2000, 2), dtype=np.uint64)
    for bit in range(64):
        other = start.copy()
        other[:, lane] ^= np.uint64(1 << bit)
        flipped = np.unpackbits((mix(start) ^ mix(other)).view(np.uint8), axis=1)
        assert flipped.sum(axis=1).mean() == pytest.approx(64, abs=1)
        assert flipped.mean(axis=0) == pytest.approx(np.full(128, 0.5), abs=0.06)  # 5 sigma


@given(st.floats(1e-12, 1e15), st.integers(0, 51))
def test_a_bit_of_a_value_flips_half_of_the_id(value, bit):
    """128 coins: fewer than 30 or more than 98 heads once in a billion."""
    other = (np.float64(value).view(np.uint64) ^ np.uint64(1 << bit)).view(np.float64)
    a, b = (lanes_of(pa.array([one_id({"x": v})])) for v in (value, other))
    assert 30 < np.unpackbits((a ^ b).view(np.uint8)).sum() < 98


def test_mixing_is_one_to_one():
    """Undone step by step: the finaliser is inverted, sums are subtracted."""

    def unshift(x, by):
        found = x
        for _ in range(0, 64, by):
            found = x ^ (found >> np.uint64(by))
        return found

    def undone(x):
        x = unshift(x, 31) * np.uint64(pow(0x94D049BB133111EB, -1, 2**64))
        x = unshift(x, 27) * np.uint64(pow(0xBF58476D1CE4E5B9, -1, 2**64))
        return unshift(x, 30)

    given = np.random.default_rng(2).integers(0, 2**64, (1000, 2), dtype=np.uint64)
    low, high = mix(given).T.copy()
    for _ in range(2):
        low = low - high
        high = undone(high)
        high = high - low
        low = undone(low)
    assert (np.stack([low, high], axis=1) == given).all()


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.floats(), min_size=1, max_size=6),
       st.randoms())  # fmt: skip
def test_the_order_of_axes_does_not_matter(values, random):
    shuffled = list(values.items())
    random.shuffle(shuffled)
    assert one_id(values) == one_id(dict(shuffled))


def test_the_space_does_not_matter():
    """The design x = 2, y = 3 of a grid, of a list, and alone."""
    in_grid = design_ids(HEAD, grid({"x": [1.0, 2.0], "y": [3.0, 4.0, 5.0]}))[3].as_py()
    in_list = design_ids(HEAD, [of_values("y", [9.0, 3.0]), of_values("x", [8.0, 2.0])])[1].as_py()
    shared = design_ids(HEAD, [of_values("y", [3.0]), of_values("x", [1.0, 2.0])])[1].as_py()
    assert in_grid == in_list == shared == one_id({"x": 2.0, "y": 3.0})


def test_the_machines_own_value_adds_nothing():
    own = {"x": 1.0, "y": 2.0, "launch": "graph"}
    bare = one_id({})
    assert one_id({"x": 1.0}, own) == one_id({"y": 2.0, "x": 1.0}, own) == bare
    assert one_id({"launch": "graph"}, own) == bare
    assert one_id({"x": 1.0, "y": 5.0}, own) == one_id({"y": 5.0}, own) != bare
    assert one_id({"x": 2.0}, own) != bare and one_id({"launch": "eager"}, own) != bare
    # a value is compared with its own parameter only
    assert one_id({"x": 2.0, "y": 1.0}, own) != bare


def test_every_part_counts():
    different = [
        one_id({"a.x": 1.0, "b.y": 2.0}), one_id({"a.x": 2.0, "b.y": 1.0}),
        one_id({"a.x": 1.0}), one_id({"b.y": 1.0}), one_id({}),
        one_id({"a.x": 1.0}, start=head({"arch": "b", "model": "1"})),
        one_id({"a.x": 1.0}, start=head({"arch": "a", "model": "2"})),
        one_id({"a.x": "1.0"}), one_id({"a.x1": 0.0}), one_id({"a.x": 10.0}),
        one_id({"a.x": 1.0 + 2**-52}), one_id({"a.x": -1.0}), one_id({"a.x": 0.0}),
        one_id({"a.x": np.nan}), one_id({"a.x": np.inf}),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    pairs = [one_id({"a": x, "b": y}) for x, y in itertools.product(np.arange(30.0), repeat=2)]
    assert len(set(pairs)) == 900


def test_one_zero_and_one_nan():
    odd = np.array([0x7FF8000000000001, 0xFFF8000000000000, 0x7FF0000000000001], np.uint64)
    assert {one_id({"x": v}) for v in odd.view(float)} == {one_id({"x": np.nan})}
    assert one_id({"x": -0.0}) == one_id({"x": 0.0}) == one_id({"x": 0})
    assert one_id({"x": np.nan}, {"x": np.nan}) == one_id({"x": -0.0}, {"x": 0.0}) == one_id({})


def test_integers_are_the_numbers_they_are():
    whole, floating = of_values("n", np.array([1, 2**40])), of_values("n", [1.0, 2.0**40])
    assert (whole == floating).all()


def test_ids_are_the_same_tomorrow_and_elsewhere():
    """Written down: an id in a paper or a table has to be found again."""
    assert one_id({}) == design_ids(HEAD, [], 3)[2].as_py()
    assert len(one_id({})) == 32 and set(one_id({})) <= set("0123456789abcdef")
    assert one_id({"clock.boost": 1.5e9, "launch": "graph"}) == "a37da4c233c30ed404a781fd5b1648ba"


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=20),
       st.integers(0, 3))  # fmt: skip
def test_digits_and_bytes_are_the_same_numbers(pairs, skip):
    texts = [f"{a:016x}{b:016x}" for a, b in pairs]
    array = pa.array(texts, pa.string())[skip:]
    assert lanes_of(array).tolist() == [list(pair) for pair in pairs[skip:]]
    assert [f"{a:016x}{b:016x}" for a, b in lanes_of(array).tolist()] == texts[skip:]
    assert lanes_of(array.cast(pa.large_string())).tolist() == lanes_of(array).tolist()


@pytest.mark.parametrize("wrong", ["", "a" * 31, "g" * 32, "A" * 32, None])
def test_what_is_no_id_is_refused(wrong):
    with pytest.raises(InputError, match="design_id: an id has"):
        lanes_of(pa.array(["0" * 32, wrong]))
    with pytest.raises(InputError, match="design_id: an id has"):
        lanes_of(pa.array(["0" * 31, "0" * 33]))


def test_too_many_at_once_are_refused():
    with pytest.raises(InputError, match="too many designs"):
        design_ids(HEAD, [], 2**31)
