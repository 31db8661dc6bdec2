import math

import pint
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.errors import InputError
from npusim.parameters import PARAMETERS
from npusim.units import CHOICES, dimension, parse, show

PINT = pint.UnitRegistry()
PINT.define("FLOP = [operation]")
PINT.define("clock = [cycle]")

# our spelling -> pint's; what pint converts to is its own base, so bytes are asked for by name
SPELLINGS = {
    "s": ("s", "s"), "ms": ("ms", "s"), "us": ("us", "s"), "µs": ("us", "s"),
    "μs": ("us", "s"), "ns": ("ns", "s"), "ps": ("ps", "s"), "fs": ("fs", "s"),
    "B": ("byte", "byte"), "kB": ("kilobyte", "byte"), "MB": ("megabyte", "byte"),
    "GB": ("gigabyte", "byte"), "TB": ("terabyte", "byte"), "PB": ("petabyte", "byte"),
    "EB": ("exabyte", "byte"),
    "KiB": ("kibibyte", "byte"), "MiB": ("mebibyte", "byte"), "GiB": ("gibibyte", "byte"),
    "TiB": ("tebibyte", "byte"), "PiB": ("pebibyte", "byte"),
    "bit": ("bit", "byte"), "kbit": ("kilobit", "byte"), "Gbit": ("gigabit", "byte"),
    "Mibit": ("mebibit", "byte"),
    "B/s": ("byte/s", "byte/s"), "TB/s": ("terabyte/s", "byte/s"),
    "GiB/s": ("gibibyte/s", "byte/s"), "Gbit/s": ("gigabit/s", "byte/s"),
    "B/ns": ("byte/ns", "byte/s"), "bit/ns": ("bit/ns", "byte/s"),
    "GHz": ("GHz", "1/s"), "MHz": ("MHz", "1/s"), "kHz": ("kHz", "1/s"), "Hz": ("Hz", "1/s"),
    "W": ("W", "W"), "kW": ("kW", "W"), "mW": ("mW", "W"),
    "J": ("J", "J"), "mJ": ("mJ", "J"), "pJ": ("pJ", "J"), "fJ": ("fJ", "J"),
    "W*s": ("W*s", "J"), "J/s": ("J/s", "W"),
    "pJ/bit": ("pJ/bit", "J/byte"), "pJ/FLOP": ("pJ/FLOP", "J/FLOP"),
    "nJ/B": ("nJ/byte", "J/byte"),
    "FLOP": ("FLOP", "FLOP"), "OP": ("FLOP", "FLOP"),
    "GFLOP/s": ("1e9*FLOP/s", "FLOP/s"), "TOP/s": ("1e12*FLOP/s", "FLOP/s"),
    "FLOP/clock": ("FLOP/clock", "FLOP/clock"), "B/clock": ("byte/clock", "byte/clock"),
    "FLOP/B": ("FLOP/byte", "FLOP/byte"),
    "mm2": ("mm**2", "m**2"), "W/mm2": ("W/mm**2", "W/m**2"),
    "%": ("percent", ""), "1": ("", ""),
    "s^2": ("s**2", "s**2"), "s^-1": ("1/s", "1/s"), "B*s/s": ("byte", "byte"),
}  # fmt: skip


@pytest.mark.parametrize("ours", SPELLINGS)
@settings(max_examples=20)
@given(number=st.floats(1e-6, 1e6))
def test_parse_agrees_with_pint(ours, number):
    theirs, base = SPELLINGS[ours]
    expected = number * PINT.Quantity(f"1 {theirs}").to(base).magnitude
    assert parse(f"{number!r} {ours}", ours) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("ours", SPELLINGS)
@pytest.mark.parametrize("other", ["s", "B", "FLOP/clock", "B/s", "J", "1"])
def test_same_dimension_exactly_where_pint_says_so(ours, other):
    a, b = (PINT.Quantity(f"1 {SPELLINGS[u][0]}") for u in (ours, other))
    # pint takes byte, bit and percent as numbers; the mapping keeps bytes apart by name
    in_bytes = ("byte" in SPELLINGS[ours][1]) == ("byte" in SPELLINGS[other][1])
    if in_bytes:
        assert (dimension(ours) == dimension(other)) == (a.dimensionality == b.dimensionality)
    else:
        assert dimension(ours) != dimension(other)


def test_decimal_is_not_binary():
    assert parse("1 GB", "B") == 1_000_000_000
    assert parse("1 GiB", "B") == 1_073_741_824
    assert parse("1 kB", "B") == 1000
    assert parse("1 KiB", "B") == 1024


def test_bit_is_not_byte():
    assert parse("8 bit", "B") == 1
    assert parse("400 Gbit/s", "B/s") == 50e9
    assert parse("1 pJ/bit", "J/B") == pytest.approx(8e-12)


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("4.8 TB/s", "B/s", 4.8e12),
        ("4.8TB/s", "B/s", 4.8e12),
        ("  4.8   TB / s ", "B/s", 4.8e12),
        ("+1e3 B", "B", 1000),
        ("-2 s", "s", -2),
        (".5 s", "s", 0.5),
        ("5. s", "s", 5),
        ("1.5e-2 s", "s", 0.015),
        (3, "1", 3),
        (0.75, "1", 0.75),
        (1e22, "1", 1e22),
        ("75 %", "1", 0.75),
        ("814 mm2", "mm2", 814e-6),
    ],
)
def test_accepted_spellings(text, unit, value):
    assert parse(text, unit) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "unit", "hint"),
    [
        ("1 KB", "B", "write kB (1000 B) or KiB (1024 B)"),
        ("1 KB/s", "B/s", "write kB (1000 B) or KiB (1024 B)"),
        ("1 MAC", "FLOP", "1 MAC is 2 FLOP"),
        ("1 GMAC/s", "FLOP/s", "1 MAC is 2 FLOP"),
        ("1 TFLOPS", "FLOP/s", "write FLOP/s"),
        ("1 TOPS", "FLOP/s", "write OP/s"),
        ("1 Gbps", "B/s", "write bit/s"),
        ("1 GBps", "B/s", "write B/s"),
        ("1 Gb/s", "B/s", "write bit or B"),
    ],
)
def test_ambiguous_units_are_refused_with_a_hint(text, unit, hint):
    with pytest.raises(InputError) as error:
        parse(text, unit)
    assert hint in str(error.value)
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("text", "unit", "problem"),
    [
        ("4.8 TB", "B/s", "wrong unit"),
        ("4.8 TB/s", "B", "wrong unit"),
        ("1 s", "1", "wrong unit"),
        ("50 %", "B/s", "no unit"),
        ("4.8", "B/s", "no unit"),
        (4.8, "B/s", "no unit"),
        (5, "s", "no unit"),
        ("0", "s", "no unit"),
        ("1 parsec", "s", "unknown unit"),
        ("1 ks", "s", "unknown unit"),
        ("1 mB", "B", "unknown unit"),
        ("1 Kis", "s", "unknown unit"),
        ("1 B/", "B", "cannot read the unit"),
        ("1 B//s", "B/s", "cannot read the unit"),
        ("1 B^9", "B", "cannot read the unit"),
        ("", "s", "not a quantity"),
        ("   ", "s", "not a quantity"),
        ("fast", "s", "not a quantity"),
        ("nan", "1", "not a quantity"),
        ("inf", "1", "not a quantity"),
        ("nan s", "s", "not a quantity"),
        ("-inf s", "s", "not a quantity"),
        (math.nan, "1", "not a quantity"),
        (math.inf, "1", "not a quantity"),
        ("0x10", "1", "cannot read the unit"),
        ("1 + 1", "1", "cannot read the unit"),
        ("1e999", "1", "not a finite number"),
        ("9e300 EB^3", "B^3", "not a finite number"),
        ("9" * 79, "s", "no unit"),
        pytest.param("9" * 5000, "1", "not a quantity", id="5000 digits"),
        pytest.param("1 " + "s*" * 5000 + "s", "s", "not a quantity", id="5000 factors"),
        pytest.param(10**400, "1", "number too large", id="10^400"),
        pytest.param(10**5000, "1", "number too large", id="10^5000"),
        (True, "1", "not a quantity"),
        (None, "s", "not a quantity"),
        (["1 s"], "s", "not a quantity"),
    ],
)
def test_refused(text, unit, problem):
    with pytest.raises(InputError) as error:
        parse(text, unit)
    message = str(error.value)
    assert problem in message
    assert "\n" not in message
    assert len(message) < 300


@pytest.mark.parametrize("text", ["4.8 TB", "fast", 4.8])
def test_message_says_which_unit_is_wanted(text):
    with pytest.raises(InputError, match=r"allowed: .*unit of B/s"):
        parse(text, "B/s")


@given(st.text())
def test_any_text_is_a_finite_number_or_an_input_error(text):
    for unit in ("1", "B/s"):
        try:
            value = parse(text, unit)
        except InputError:
            continue
        assert math.isfinite(value)


_PIECES = ["1", "9", ".", "e", "E", "+", "-", " ", "*", "/", "·", "^", "2", "µ", "%",
           "k", "K", "i", "G", "B", "bit", "s", "FLOP", "OP", "clock", "mm2", "W", "J"]  # fmt: skip


@given(st.lists(st.sampled_from(_PIECES), max_size=30).map("".join))
def test_any_almost_quantity_is_a_finite_number_or_an_input_error(text):
    for unit in ("1", "B/s", "FLOP/clock"):
        try:
            value = parse(text, unit)
        except InputError:
            continue
        assert math.isfinite(value)


_UNITS = sorted({p.unit for p in PARAMETERS.values()} | {"FLOP/s", "FLOP", "J", "J/B", "J/FLOP"})


@pytest.mark.parametrize("unit", [u for u in _UNITS if u not in CHOICES])
@given(value=st.floats(-1e21, 1e21, allow_subnormal=False), digits=st.integers(2, 15))
def test_what_is_shown_reads_back(unit, value, digits):
    text = show(value, unit, digits)
    # `digits` significant digits: off by at most half a unit of the last one
    assert parse(text, unit) == pytest.approx(value, rel=0.51 * 10.0 ** (1 - digits), abs=1e-300)


@pytest.mark.parametrize(
    ("unit", "names"),
    [("replacement", ["lru", "random"]), ("placement", ["pinned", "lru"])],
)
def test_a_name_that_is_shown_reads_back(unit, names):
    assert unit in _UNITS
    for place, name in enumerate(names):
        assert show(float(place), unit) == name
        assert parse(name, unit) == place


@pytest.mark.parametrize("unit", CHOICES)
@pytest.mark.parametrize("text", ["fifo", "LRU", "", "0", 0, 1.0, True, None])
def test_what_is_none_of_the_names_is_refused(unit, text):
    with pytest.raises(InputError, match=f"allowed: {', '.join(CHOICES[unit])}"):
        parse(text, unit)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1e-6, "s", "1 µs"),
        (1e3, "B", "1 kB"),
        (62914560.0, "B", "62.91 MB"),
        (1.83e9, "Hz", "1.83 GHz"),
        (989.4e12, "FLOP/s", "989.4 TFLOP/s"),
        (700, "W", "700 W"),
        (814e-6, "mm2", "814 mm2"),
        (0.753, "1", "0.753"),
        (-1, "B/s", "-1 B/s"),
    ],
)
def test_shown_as_people_write_it(value, unit, text):
    assert show(value, unit) == text
