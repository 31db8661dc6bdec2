"""In how many parts libraries cut the keys: each number of their rules at its edge, by hand."""

import numpy as np
import pytest

from npusim.models.attention_library import even_tiles, fill_waves, powers_of_two


def parts(rule, batch, blocks, tiles, units):
    found, combined = rule(*(np.full((1, 1), float(x)) for x in (batch, blocks, tiles, units)))
    return found.item(), combined.item()


def test_no_more_than_128_parts_and_85_of_100_of_the_best():
    # one block, places without end: the best of 128 parts is 128, 85 % of it 108.8
    assert parts(fill_waves, 1, 1, 1_000_000, 1000) == (109, True)
    assert parts(even_tiles, 1, 1, 1_000_000, 1000) == (109, True)


@pytest.mark.parametrize(
    ("blocks", "found"),
    [
        (
            7,
            4,
        ),  # 28 of 30 places in three waves; two parts 14 of 20, three 21 of 30, as one 7 of 10
        (8, 1),  # of ten places eight are taken: good enough, though five parts fill four waves
    ],
)
def test_four_of_five_places_are_enough(blocks, found):
    assert parts(fill_waves, 1, blocks, 60, 5) == (found, found > 1)


def test_four_of_five_units_are_enough():
    # two parts would be eight blocks for five units; at three blocks six
    assert parts(even_tiles, 1, 4, 64, 5) == (1, False)
    # three blocks: 3 x 64 x 1.1 / 5 = 42.2 tiles a unit, so two parts
    assert parts(even_tiles, 1, 3, 64, 5) == (2, True)


@pytest.mark.parametrize(
    ("tiles", "found"),
    [
        (18, 9),  # 18 x 1.1 / 10 = 1.98: two tiles a part
        (19, 7),  # 2.09: three
    ],
)
def test_a_margin_of_a_tenth(tiles, found):
    assert parts(even_tiles, 1, 1, tiles, 10) == (found, True)


@pytest.mark.parametrize(("tiles", "combined"), [(4, False), (5, True)])
def test_five_tiles_are_split(tiles, combined):
    assert parts(even_tiles, 1, 1, tiles, 100)[1] is combined


@pytest.mark.parametrize(
    ("blocks", "tiles", "units", "found"),
    [
        (1, 3, 64, 1), (1, 4, 64, 4), (1, 7, 64, 4), (1, 8, 64, 8),  # no more than tiles
        (1, 1000, 128, 64), (1, 1000, 64, 64), (1, 1000, 33, 64), (1, 1000, 32, 32),
        (16, 1000, 32, 2), (17, 1000, 32, 1),  # two blocks of each are more than the units
    ],
)  # fmt: skip
def test_powers_of_two_up_to_64(blocks, tiles, units, found):
    assert parts(powers_of_two, 1, blocks, tiles, units) == (found, found > 1)
