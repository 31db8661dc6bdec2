"""Special functions of one unit by hand: 64 results a clock of 1 GHz, lanes of 64 FLOP a clock."""

import numpy as np
import pytest

from npusim.arch import Designs
from npusim.models.special import evaluations, unit_time, whole_elements
from tests.machines import machine, operations

NS = 1e-9
FASTEST, SPECIAL, VECTOR = 0.0, 1.0, 2.0


def time(instructions, needed, elements, **special):
    """Return how long a unit is at work [ns]."""
    given = {f"special__{name}": value for name, value in {"rate": 64, **special}.items()}
    amounts = (np.full((1, 1), float(x)) for x in (instructions * NS, needed, elements))
    return unit_time(*amounts, Designs(machine(**given))).item() / NS


def test_one_element_is_enough_for_a_whole_unit():
    # one element in 1 / 64 ns in place of 10 ns of instructions; none of them: as they are
    assert time(10, 128, 1, whole=1) == pytest.approx(1 / 64)
    assert time(10, 128, 0, whole=1) == pytest.approx(10)
    assert time(10, 1280, 0, whole=1) == pytest.approx(20)
    # a unit that is no whole one does the functions alone
    assert time(10, 1280, 640, whole=0) == pytest.approx(20)
    assert time(10, 1280, 640, whole=1) == pytest.approx(10)
    assert time(10, 1280, 64000, whole=1, place=SPECIAL) == pytest.approx(1000)
    assert time(10, 1280, 64000, whole=1, place=FASTEST) == pytest.approx(20)


def test_lanes_take_polynomials_behind_the_rest():
    # 1,280 of 8 FLOP at 64 a ns: 160 ns behind 10
    both = {"emulated": 8, "place": VECTOR}
    assert time(10, 1280, 0, **both) == pytest.approx(170)
    assert time(10, 1280, 0, **both, rate=1) == pytest.approx(170)
    assert time(10, 1280, 0, emulated=8, rate=1) == pytest.approx(170)
    assert time(10, 1280, 0, emulated=8) == pytest.approx(20)
    assert time(10, 1280, 0, emulated=8, place=SPECIAL, rate=1) == pytest.approx(1280)


@pytest.mark.parametrize(
    ("kind", "flop", "needed"),
    [
        ("activation", 2.9, 0), ("activation", 3, 200), ("activation", 7.9, 200),
        ("activation", 8, 100),
        ("softmax", 5, 100 + 10), ("norm", 8, 10), ("attention", 0, 100 + 10),
    ],
)  # fmt: skip
def test_functions_of_ten_rows_of_ten(kind, flop, needed):
    row = {"kind": kind, "batch": 2, "m": 5, "n": 10, "k": 16, "flop": flop * 100.0}
    assert evaluations(operations(row)).item() == needed
    assert whole_elements(operations(row)).item() == (0 if kind == "attention" else 100)


def test_scores_under_a_mask_are_those_that_are_multiplied():
    # 4 FLOP for each score and number of a key: of 6 x 6 scores of 3 heads of 16, 63 are 4,032
    row = {"kind": "attention", "batch": 1, "m": 6, "n": 6, "k": 16, "heads": 3, "flop": 4032.0}
    assert evaluations(operations(row)).item() == 63 + 18
    # never more than there are, and all where nobody counted
    assert evaluations(operations({**row, "flop": 1e9})).item() == 108 + 18
    assert evaluations(operations({**row, "flop": 0.0})).item() == 108 + 18
