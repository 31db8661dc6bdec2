"""Tiles of attention libraries, and how two bounds meet, by hand on a machine of round numbers.

A unit multiplies 1,024 FLOP and loads 64 B a nanosecond. A tile of r rows and c keys of 128 numbers
of two bytes takes 4 x r x c x 128 FLOP, which is r c / 2 ns, and loads 512 c bytes: 8 c ns.
"""

import pytest

from npusim.arch import Designs
from npusim.models.attention import NUMBERS as DECODE
from npusim.models.attention import attention_cost
from npusim.models.attention_library import library_of
from npusim.models.attention_prefill import NUMBERS as PREFILL
from tests.machines import machine, operations

US = 1e-6
FLOOR = 2 * US
LIBRARIES = ("fa2", "fa3", "fa3_sm80", "cudnn")


def time(row, library="cudnn", changes=None, **numbers):
    """Return the time beside the floor, with numbers of the library that cost nothing [us]."""
    free = {**dict.fromkeys((*DECODE, *PREFILL), 0), "start": 1, "share": 1, "softmax": 1e9}
    values = {**free, **numbers}
    given = {f"library__{name}_{phase}__{number}": values[number]
             for name in LIBRARIES
             for phase, names in (("decode", DECODE), ("prefill", PREFILL))
             for number in names}  # fmt: skip
    full = {"kind": "attention", "library": library, "k": 128, "kv_heads": row.get("heads", 1),
            **row}  # fmt: skip
    designs = Designs(machine(**given, **(changes or {})))
    return (attention_cost(operations(full), designs).time.item() - FLOOR) / US


# --- decode, keys in one part: one block after the other on each of four units ------------------


@pytest.mark.parametrize(
    ("library", "keys", "tiles", "expected"),
    [
        # 64 x 128: 1.024 us to load, 4.096 to multiply; eight blocks are two rounds
        ("fa2", 1024, 8, 2 * 8 * (1.024 + 4.096)),
        ("fa3", 512, 4, 2 * 4 * (1.024 + 4.096)),
        # 128 x 64: 4.096 us to multiply; two blocks a unit (256 columns of K) take turns
        ("fa3_sm80", 448, 7, 7 * 2 * 4.096),
        # 16 x 128: 1.024 us to load and to multiply: two take turns as well
        ("cudnn", 384, 3, 3 * 2 * 1.024),
    ],
)
def test_a_block_walks_over_all_keys(library, keys, tiles, expected):
    call = {"batch": 8, "m": 1, "n": keys, "heads": 1}
    assert time(call, library) == pytest.approx(expected, rel=1e-5)
    # the last key begins a tile of its own: one more of each block
    more = time({**call, "n": keys + 1, "routine": "whole", "blocks": 8}, library)
    assert more == pytest.approx(expected * (tiles + 1) / tiles, rel=1e-5)


def test_blocks_of_wide_heads_have_a_unit_for_themselves():
    # 256 columns of K are one head of 256: two rounds of tiles of 1.024 us to load and 8.192 us to
    # multiply (128 x 64) or twice 2.048 us (16 x 128)
    call = {"batch": 8, "m": 1, "k": 256, "heads": 1}
    whole = time({**call, "n": 256}, "fa3_sm80")
    assert whole == pytest.approx(2 * 4 * (1.024 + 8.192), rel=1e-5)
    assert time({**call, "n": 384}) == pytest.approx(2 * 3 * (2.048 + 2.048), rel=1e-5)


# --- decode, keys in parts ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("library", "keys", "expected"),
    [
        # eight parts of one tile (eight places on four units), two on each unit in two rounds
        ("fa2", 1024, 2 * (1.024 + 4.096)),
        # ceil(8 x 1.1 / 4) = 3 tiles a unit: three parts
        ("fa3", 1024, 3 * (1.024 + 4.096)),
        # 128 x 112: 0.896 us to load, 7.168 to multiply; ten tiles, three a unit in four parts
        ("fa3_sm80", 1120, 3 * (0.896 + 7.168)),
        # four parts cover the units: two tiles each
        ("cudnn", 1024, 2 * (1.024 + 1.024)),
    ],
)
def test_parts_of_the_keys_lie_on_units_side_by_side(library, keys, expected):
    call = {"batch": 1, "m": 1, "n": keys, "heads": 1}
    assert time(call, library) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("library", "keys"), [("fa3_sm80", 448), ("cudnn", 512)])
def test_parts_of_two_blocks_share_a_unit_where_the_kernel_lets_them(library, keys):
    # Eight parts of half a tile or one, asked for: 16 x 128 run two at a time, 128 x 112 do not
    call = {"batch": 1, "m": 1, "n": keys, "heads": 1, "routine": "split", "blocks": 8}
    expected = {"fa3_sm80": 2 * (0.896 + 7.168), "cudnn": 2 * 1.024}[library]
    assert time(call, library) == pytest.approx(expected, rel=1e-5)


def test_starts_are_bare_in_the_first_round_and_for_every_round_count():
    # fa2, two rounds of one tile, a start of 1,000 cycles each
    call = {"batch": 1, "m": 1, "n": 1024, "heads": 1}
    assert time(call, "fa2", block=1000) == pytest.approx(2 * (1 + 5.12), rel=1e-5)
    # a combining kernel of half a floor (2 us), and eight parts of 100 cycles
    more = time(call, "fa2", combine=0.5, part=100) - time(call, "fa2")
    assert more == pytest.approx(1 + 0.8, rel=1e-9)


# --- many queries -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("library", "rows", "heads", "expected"),
    [
        ("fa2", 64, 4, 8 * 4.096),  # 64 x 128: loads of 1.024 us hide behind 4.096
        ("fa3", 128, 4, 8 * 8.192),  # 128 x 128
        ("fa3_sm80", 128, 8, 16 * 2 * 4.096),  # 128 x 64, two blocks a unit take turns
        ("cudnn", 128, 4, 8 * 8.192),
    ],
)
def test_a_block_of_queries_walks_over_all_keys(library, rows, heads, expected):
    call = {"batch": 1, "m": rows, "n": 1024, "heads": heads}
    assert time(call, library) == pytest.approx(expected, rel=1e-5)
    # one query more: twice the blocks, and twice the rounds
    more = time({**call, "m": rows + 1}, library)
    assert more == pytest.approx(2 * expected, rel=1e-5)


def test_head_sizes_have_their_kernels():
    sizes = [32, 65, 97, 129, 192, 193, 257]
    for name in ("fa2", "fa3", "fa3_sm80"):
        assert library_of(name).width(sizes).tolist() == [64, 96, 128, 192, 192, 256, 257]
    assert library_of("cudnn").width(sizes).tolist() == [64, 128, 128, 256, 256, 256, 257]


# --- how two bounds meet: (a^4 + a^4)^(1/4) = 2^(1/4) a -------------------------------------------

PROMPT = {"batch": 1, "m": 128, "n": 1024, "heads": 4}  # of cuDNN: a block on each unit


def test_products_and_softmax_as_long_as_each_other():
    # 16,384 scores at two a cycle are 8.192 us, as long as the products of a tile
    found = time(PROMPT, softmax=2)
    assert found == pytest.approx(8 * 8.192 * 2**0.25, rel=1e-6)


def test_tiles_and_dram_as_long_as_each_other():
    # 4 heads x 1,024 keys and values of 256 B: 2,097,152 B in 65.536 us
    stored = {**PROMPT, "read_kv": 2097152.0}
    slow = {"memories__dram__bandwidth": 2097152 / 65.536e-6}
    assert time(stored, changes=slow) == pytest.approx(65.536 * 2**0.25, rel=1e-6)
    # one query: 4 sequences of 384 keys, three tiles of 2.048 us; 786,432 B in 6.144 us, and a
    # start of a microsecond before both
    call = {"batch": 4, "m": 1, "n": 384, "heads": 1, "read_kv": 786432.0}
    slow = {"memories__dram__bandwidth": 786432 / 6.144e-6}
    found = time(call, changes=slow, block=1000)
    assert found == pytest.approx(1 + 6.144 * 2**0.25, rel=1e-6)


def test_half_a_byte_a_score_is_a_mask():
    # Beside queries of 4 x 128 x 128 x 2 B = 131,072: 128 x 1,024 scores of half a byte are 65,536.
    # With a mask a tile is the sum of products, softmax and 16,384 scores of 2 B at 64 B/ns.
    stored = {**PROMPT, "read_kv": 2097152.0}
    masked = time({**stored, "read_activation": 131072 + 65536.0}, softmax=2)
    assert masked == pytest.approx(8 * (8.192 + 8.192 + 0.512), rel=1e-6)
    almost = time({**stored, "read_activation": 131072 + 65535.0}, softmax=2)
    assert almost == pytest.approx(8 * 8.192 * 2**0.25, rel=1e-6)


def test_a_causal_mask_ends_half_a_tile_after_the_mean():
    # 16 heads are four rounds. Half of all scores: half of 8 tiles, and half a tile more: 4.5.
    # The slowest unit: 4.5 x 16 / 4 + 8 (1 - 4 / 16) = 24 tiles of 8.192 us, of 32 without a mask.
    full = 4.0 * 16 * 128 * 1024 * 128
    row = {**PROMPT, "heads": 16}
    assert time({**row, "flop": full / 2}) == pytest.approx(24 * 8.192, rel=1e-6)
    assert time({**row, "flop": full}) == pytest.approx(32 * 8.192, rel=1e-6)
