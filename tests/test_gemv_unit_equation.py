"""The GEMV unit of a machine without a last-level cache, by hand."""

import numpy as np
import pytest

from npusim.arch import Arch, Designs
from npusim.models.gemv_unit import gemv_unit_cost
from tests.machines import machine, operations

# Four engines of 128 lanes at 1 GHz, each with 64 B a clock through a port of its own.
UNIT = {"gemv__count": 4, "gemv__lanes": 128, "gemv__width": 64, "gemv__port": 1, "gemv__batch": 8,
        "gemv__latency": 2e-7, "memories__dram__latency": 4e-7}  # fmt: skip
# One row: 2,048 B of input, 2,097,152 B of weights, 2,048 B of results.
ROW = {"kind": "gemv", "batch": 1, "m": 1, "n": 1024, "k": 1024, "flop": 2.0 * 2**20,
       "read_weight": 2.0 * 2**20, "read_activation": 2048, "write_activation": 2048}  # fmt: skip


def cost(row=ROW, cached=False, **changes):
    arch = machine(**{**UNIT, **changes})
    kept = [p for p in arch.values if cached or not p.startswith("memories.l2.")]
    bare = Arch(arch.name, arch.title, {p: arch.values[p] for p in kept},
                {p: arch.provenance[p] for p in kept})  # fmt: skip
    return gemv_unit_cost(operations(row), Designs(bare))


def test_without_a_cache_ports_are_all_that_bounds_it():
    # (2,048 + 2,099,200 / 4) B at 64 B a ns; a latency of DRAM to the first weights, one to the
    # last results
    found = cost()
    assert found.floor.item() == pytest.approx(0.2e-6 + 0.4e-6 + 0.4e-6, rel=1e-12)
    assert found.time.item() == pytest.approx(1e-6 + 8.232e-6, rel=1e-9)
    assert found.at("gemv_unit").shape == (1, 1)


def test_without_a_cache_dram_gives_what_it_has():
    # 2,101,248 B at 100 GB/s
    found = cost(memories__dram__bandwidth=1e11)
    assert found.time.item() == pytest.approx(1e-6 + 21.01248e-6, rel=1e-9)
    assert found.channel.item() == pytest.approx(21.01248e-6, rel=1e-9)


def test_an_engine_of_each_design_counts_its_lanes():
    # multiply-accumulates alone: 2^20 on 4 x 16 lanes are 16,384 clocks
    assert cost(gemv__lanes=16).time.item() == pytest.approx(1e-6 + 16.384e-6, rel=1e-9)
    assert cost(gemv__lanes=16, gemv__count=8).time.item() == pytest.approx(
        1e-6 + 8.192e-6, rel=1e-9
    )


def test_no_engine_is_no_unit():
    assert np.isinf(cost(gemv__count=0).time).all()


def test_first_weights_come_from_where_they_lie():
    # half of the weights in an SRAM 0.1 us away: 1,048,576 B; the rest a latency of DRAM or cache
    own = {"memories__weight_sram__capacity": 2.0**20, "memories__weight_sram__bandwidth": 1e15,
           "memories__weight_sram__latency": 1e-7, "memories__l2__latency": 3e-7}  # fmt: skip
    row = {**ROW, "distance_weight": 1.0}
    found = cost(row, cached=True, memories__l2__latency=3e-7)
    assert found.floor.item() == pytest.approx(0.2e-6 + 0.3e-6 + 0.3e-6, rel=1e-6)
    assert cost(ROW, cached=True, **own).floor.item() == pytest.approx(
        0.2e-6 + 0.4e-6 + 0.3e-6, rel=1e-6
    )
