"""Decode attention by hand, on a machine of round numbers."""

import numpy as np
import pytest

from npusim.arch import Designs
from npusim.models.attention import attention_cost
from npusim.models.attention_combine import combine_cost
from npusim.models.attention_library import (
    even_tiles,
    fill_waves,
    library_of,
    powers_of_two,
)
from tests.machines import machine, operations


def test_query_heads_beyond_the_rows_of_a_tile_are_blocks_of_their_own():
    # 32 query heads on one of keys are two tiles of cuDNN's 16 rows; on two they are as many.
    # 4 sequences: 8 blocks, two on each of 4 units. A tile of 128 keys of 128 numbers is 64 KiB at
    # 64 GB/s and 4 x 16 x 128 x 128 FLOP at 1,024 a nanosecond: 1.024 us each, and two blocks load
    # in turn, or one loads and multiplies: 2.048 us. Eight tiles behind two starts of 1,000 cycles.
    numbers = {"start": 1, "helpers": 0, "block": 1000, "share": 1, "combine": 0, "part": 0}
    library = {f"library__cudnn_decode__{name}": value for name, value in numbers.items()}
    call = {"kind": "attention", "batch": 4, "m": 1, "n": 1024, "k": 128, "heads": 32}
    both = attention_cost(operations(*({**call, "kv_heads": n} for n in (1, 2))),
                          Designs(machine(**library)))  # fmt: skip
    floor = 2e-6
    assert both.time[:, 0] == pytest.approx([floor + 2e-6 + 8 * 2.048e-6] * 2, rel=1e-5)


@pytest.mark.parametrize(
    ("blocks", "tiles", "units", "parts"),
    [
        (
            1,
            3,
            1,
            2,
        ),  # two places: one part leaves half of them empty, three a quarter of two waves
        (2, 6, 3, 3),  # six places: two blocks in three parts; in six they would be two full waves
        (4, 6, 2, 1),  # four places are full
        (1, 1, 64, 1),  # a tile has no parts
    ],
)
def test_the_fewest_parts_that_fill_the_places(blocks, tiles, units, parts):
    one = (np.full((1, 1), float(x)) for x in (1, blocks, tiles, units))
    found, combined = fill_waves(*one)
    assert found.item() == parts
    assert combined.item() == (parts > 1)


@pytest.mark.parametrize(
    ("blocks", "tiles", "units", "parts"),
    [
        (1, 4, 8, 4),  # as many as there are tiles
        (1, 3, 8, 1),  # too few tiles to split
        (4, 64, 8, 2),  # two make eight blocks of four
        (5, 64, 8, 1),  # a second part would not fit
        (3, 64, 8, 4),  # two make only six
        (1, 1024, 1024, 64),  # no more than that
    ],
)
def test_powers_of_two_until_the_units_are_covered(blocks, tiles, units, parts):
    one = (np.full((1, 1), float(x)) for x in (1, blocks, tiles, units))
    found, combined = powers_of_two(*one)
    assert found.item() == parts
    assert combined.item() == (parts > 1)


@pytest.mark.parametrize(
    ("batch", "blocks", "tiles", "parts"),
    [
        (1, 1, 5, 3),  # ceil(5 x 1.1 / 5) = 2 tiles a unit
        (1, 1, 4, 1),  # too few tiles to split
        (2, 1, 5, 2),  # ceil(2 x 5 x 1.1 / 5) = 3 tiles a unit
        (1, 3, 5, 2),  # ceil(3 x 5 x 1.1 / 5) = 4
        (1, 4, 5, 1),  # four of five units have work
    ],
)
def test_as_many_tiles_on_each_of_five_units(batch, blocks, tiles, parts):
    one = (np.full((1, 1), float(x)) for x in (batch, blocks, tiles, 5))
    assert even_tiles(*one)[0].item() == parts


def test_what_combines_parts_is_a_floor_the_parts_and_their_transfer():
    # 0.5 floors of 2 us, 3 parts of 200 cycles; 1 MB from DRAM at 1 TB/s takes longer than its FLOP
    numbers = {"start": 1, "helpers": 0, "block": 0, "share": 1, "combine": 0.5, "part": 200}
    library = {f"library__cudnn_decode__{name}": value for name, value in numbers.items()}
    designs = Designs(machine(**library, memories__dram__bandwidth=1e12))
    row = {"kind": "attention_combine", "k": 3, "read_activation": 1e6}
    found = combine_cost(operations(row), designs)
    assert found.time.item() == pytest.approx(1e-6 + 0.6e-6 + 1e-6, rel=1e-3)
    assert found.channel.item() == pytest.approx(1e-6, rel=1e-9)  # DRAM is at work for all of it


@pytest.mark.parametrize(("microseconds", "longer"), [(30.0, "compute"), (38.0, "memory")])
def test_a_last_wave_of_one_block_counts(microseconds, longer):
    # Nine sequences in eight places: a wave of two on each unit, 2 us and eight times 2.048, then
    # one alone, 1 us and eight times 1.024 to load and 1.024 to multiply: 35.77 us in all. Without
    # the last they are 18.38; of what DRAM gives in 38 us, the first eight take 33.8.
    numbers = {"start": 1, "helpers": 0, "block": 1000, "share": 1, "combine": 0, "part": 0}
    library = {f"library__cudnn_decode__{name}": value for name, value in numbers.items()}
    nbytes = 9 * 1024 * 128 * 2 * 2.0  # keys and values of two bytes
    call = {"kind": "attention", "batch": 9, "m": 1, "n": 1024, "k": 128, "heads": 16,
            "kv_heads": 1, "read_kv": nbytes}  # fmt: skip
    arch = machine(**library, memories__dram__bandwidth=nbytes / (microseconds * 1e-6))
    found = attention_cost(operations(call), Designs(arch))
    other = "memory" if longer == "compute" else "compute"
    assert getattr(found, other).item() == 0
    assert getattr(found, longer).item() > 35.7e-6
    assert found.channel.item() == pytest.approx(microseconds * 1e-6, rel=1e-9)


def test_head_sizes_are_padded_to_those_that_have_a_kernel():
    sizes = np.array([40.0, 64.0, 65.0, 128.0, 200.0, 256.0, 300.0])
    assert library_of("cuDNN").width(sizes).tolist() == [64, 64, 128, 128, 256, 256, 300]
    assert library_of("fa3").width(sizes).tolist() == [64, 64, 96, 128, 256, 256, 300]
