"""Products in memories that compute: the equation by hand, and where it begins and ends."""

import numpy as np
import pytest

from npusim.arch import Designs
from npusim.models.gemm import gemm_cost
from tests.builder import workload
from tests.machines import machine

# Arrays of 4 MB for layers of at most 2 MB, at 10 TB/s, 0.1 us from the start to the first result.
ARRAYS = {"sram_compute__capacity": 4e6, "sram_compute__largest": 2e6,
          "sram_compute__bandwidth": 1e13, "sram_compute__latency": 1e-7}  # fmt: skip


def product(weight=2e6, **more):
    row = {"kind": "gemv", "dtype": "bf16", "batch": 1, "m": 1, "n": 1000, "k": 1000,
           "flop": 2e6, "read_weight": weight}  # fmt: skip
    return {**row, **more}


def cost(*rows, **changes):
    return gemm_cost(workload(*rows).operations(), Designs(machine(**{**ARRAYS, **changes})))


@pytest.mark.parametrize(
    ("sizes", "seconds"),
    [
        ({}, 1e-7 + 2e6 / 1e13),  # 0.3 us
        ({"m": 3, "kind": "gemm"}, 1e-7 + 3 * 2e6 / 1e13),  # each row passes all weights: 0.7 us
        ({"batch": 2}, 1e-7 + 2 * 2e6 / 1e13),
        ({"m": 0}, 1e-7 + 2e6 / 1e13),  # rows that are not known are one
        ({"batch": 0}, 1e-7 + 2e6 / 1e13),
    ],
)
def test_a_pass_for_each_row(sizes, seconds):
    found = cost(product(**sizes))
    assert found.time.item() == pytest.approx(seconds, rel=1e-12)
    assert found.floor.item() == 1e-7
    assert found.memory.item() == 0.0


def test_nothing_of_it_comes_from_dram():
    found = cost(product(), prefetch__depth=1e6)
    assert [np.max(part) for part in (found.channel, found.ahead, found.gain)] == [0, 0, 0]
    beside = cost(product(), prefetch__depth=1e6, sram_compute__capacity=1e6)
    assert beside.channel.item() > 0
    assert beside.ahead.item() > 0


@pytest.mark.parametrize(
    ("change", "inside"),
    [
        ({}, True),
        ({"sram_compute__largest": 2e6 - 1}, False),  # too large a layer
        ({"sram_compute__capacity": 2e6}, True),  # just all of it
        ({"sram_compute__capacity": 2e6 - 1}, False),
        ({"sram_compute__latency": 1.0}, False),  # compute units are faster
    ],
)
def test_what_fits_and_is_faster_is_computed_in_place(change, inside):
    found = cost(product(), **change).time.item()
    latency = change.get("sram_compute__latency", 1e-7)
    assert (found == pytest.approx(latency + 2e6 / 1e13, rel=1e-12)) is inside


def test_layers_share_the_arrays():
    # 2 MB and 1.5 MB fit into 4 MB; with 1 MB more none of them is held
    two, one = product(), product(1.5e6, n=750, flop=1.5e6)
    both = cost(two, one).time[:, 0]
    assert both == pytest.approx([3e-7, 1e-7 + 1.5e6 / 1e13], rel=1e-12)
    with_a_third = cost(two, one, product(1e6, n=500, flop=1e6)).time[:, 0]
    assert (with_a_third > 1e-6).all()  # the floor of a product on compute units
    # activations alone are no weights
    assert cost(product(0.0, read_activation=2e6)).time.item() > 1e-6
