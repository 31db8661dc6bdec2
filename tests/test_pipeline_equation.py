"""How many k-steps are on the way in a unit: min(b stages, room) - b, the best b, by hand."""

import numpy as np
import pytest

from npusim.arch import Designs
from npusim.models.pipeline import flying
from tests.machines import machine


def under_way(blocks, **changes):
    """Return the k-steps on the way, of 16 KiB each."""
    designs = Designs(machine(**changes))
    return flying(np.array([[16384.0]]), np.array([[float(blocks)]]), designs).item()


@pytest.mark.parametrize(
    ("stages", "rooms", "blocks", "steps"),
    [
        (4, 8, 1, 3),  # one of four is computed
        (4, 8, 2, 6),  # two blocks of four fill the room
        (4, 8, 9, 6),  # as many as there is room for
        (3, 8, 3, 5),  # three would be min(9, 8) - 3 = 5, two are 6 - 2 = 4
        (5, 8, 2, 6),  # min(10, 8) - 2; one alone has 4
        (16, 8, 2, 7),  # one takes all the room
        (2, 1, 1, 1),  # the smallest tile must do
        (4, 8, 0, 3),  # a unit without a block is taken to have one
    ],
)
def test_steps_under_way(stages, rooms, blocks, steps):
    room = rooms * 16384.0
    assert under_way(blocks, gemm__stages=stages, memories__l1__capacity=room) == steps


@pytest.mark.parametrize(("stages", "blocks", "steps"), [(4, 1, 3), (4, 2, 6), (16, 5, 75)])
def test_without_a_known_memory_each_block_has_all_its_stages(stages, blocks, steps):
    assert under_way(blocks, gemm__stages=stages) == steps
