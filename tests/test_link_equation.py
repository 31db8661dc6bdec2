"""Transfers over links by hand: seconds times the bandwidth of a chip, and hops, for a byte."""

import numpy as np
import pytest

from npusim.arch import Designs
from npusim.models.link import exchange_way, grid, neighbour_way, rate, round_way, stretched
from npusim.units import CHOICES
from tests.machines import machine

LINK = {"link__bandwidth": 2e11, "link__efficiency": 0.5, "link__latency": 1e-6}


def design(topology, **more):
    place = CHOICES["topology"].index(topology)
    return Designs(machine(**LINK, link__topology=place, **more))


def way(pattern, chips, topology, **more):
    found = pattern(np.array([float(chips)]), design(topology, **more))
    return float(np.squeeze(found.load)), float(np.squeeze(found.hops))


def test_half_of_a_bandwidth_goes_each_way():
    # 200 GB/s both ways, half of it reached: 50 GB/s
    assert rate(design("ring")).item() == 5e10


@pytest.mark.parametrize(
    ("chips", "load"),
    [
        (2, 1),  # a line of two: both links of a chip lead to the other
        (3, 2),  # a prime: a ring, half of the links each way
        (4, 2),  # 2 x 2: half for each dimension, of which both links lead to the neighbour
        (6, 4),  # 2 x 3: half for each dimension, half of that for each way round three
        (8, 4),  # 2 x 4
        (9, 4),  # 3 x 3
    ],
)
def test_neighbours_on_a_torus_have_one_of_its_links(chips, load):
    assert way(neighbour_way, chips, "mesh") == (load, 1)


@pytest.mark.parametrize(
    ("topology", "chips", "load"),
    [("switch", 8, 1), ("full", 8, 7), ("full", 2, 1), ("ring", 2, 1), ("ring", 3, 2),
     ("ring", 8, 2)],
)  # fmt: skip
def test_neighbours_elsewhere(topology, chips, load):
    assert way(neighbour_way, chips, topology) == (load, 1)


@pytest.mark.parametrize(
    ("topology", "chips", "load", "hops"),
    [
        ("switch", 8, 7, 1), ("full", 8, 7, 1),
        ("ring", 2, 1, 1), ("ring", 5, 6, 2), ("ring", 8, 16, 4),  # floor(n^2 / 4), floor(n / 2)
        ("mesh", 7, 12, 3),  # a ring: floor(49 / 4)
        ("mesh", 4, 4, 2),  # 2 x 2: 2 x (4 / 2) x floor(4 / 4), one hop each way
        ("mesh", 8, 16, 3),  # 2 x 4: 2 x (8 / 4) x floor(16 / 4), 1 + 2
        ("mesh", 15, 36, 3),  # 3 x 5: 2 x (15 / 5) x floor(25 / 4), 1 + 2
        ("mesh", 25, 60, 4),  # 5 x 5: 2 x (25 / 5) x floor(25 / 4), 2 + 2
    ],
)  # fmt: skip
def test_a_byte_between_every_two_chips(topology, chips, load, hops):
    assert way(exchange_way, chips, topology) == (load, hops)


@pytest.mark.parametrize(
    ("topology", "chips", "load", "hops"),
    [
        ("switch", 8, 7 / 8, 7), ("full", 8, 7 / 8, 7), ("ring", 8, 7 / 8, 7),
        ("mesh", 7, 6 / 7, 6),  # a ring
        ("mesh", 16, 3 / 4 + 3 / 16, 6),  # 4 x 4: 15 / 16
        ("mesh", 8, 3 / 4 + 3 / 8, 4),  # 2 x 4
        ("mesh", 6, 2 / 3 + 2 / 6, 3),  # 2 x 3
    ],
)  # fmt: skip
def test_a_pass_round_the_chips(topology, chips, load, hops):
    assert way(round_way, chips, topology) == pytest.approx((load, hops), rel=1e-12)


def test_links_to_chips_that_take_no_part_lie_idle():
    # four of eight chips, each linked to seven others: three links of seven are in use
    seven = {"link__peers": 7}
    assert way(round_way, 4, "full", **seven)[0] == pytest.approx(3 / 4 * 7 / 3)
    assert way(exchange_way, 4, "full", **seven) == (7, 1)
    assert way(neighbour_way, 4, "full", **seven) == (7, 1)
    four = np.array([4.0])
    assert stretched(four, design("full", **seven)).item() == pytest.approx(7 / 3)
    assert stretched(four, design("full")).item() == 1
    for topology in ("switch", "ring", "mesh"):
        assert stretched(four, design(topology, **seven)).item() == 1
    # more than it has links for share them
    assert way(exchange_way, 16, "full", **seven) == (15, 1)


@pytest.mark.parametrize(
    ("chips", "sides"), [(1, (1, 1)), (2, (1, 2)), (12, (3, 4)), (13, (1, 13)), (36, (6, 6)),
                         (50, (5, 10))])  # fmt: skip
def test_the_most_square_factors(chips, sides):
    assert grid(chips) == sides
