"""Waiting of threads by hand, level by level, and that the model says what it reads."""

import numpy as np
import pytest

from npusim.arch import Arch, Designs
from npusim.models import occupancy
from npusim.models.occupancy import block_limits, waiting_time
from npusim.parameters import PARAMETERS
from tests.builder import workload
from tests.machines import machine, operations

US = 1e-6
# 2 x 256 threads of 16 B: 8,192 B a trip; 81,920 B are ten trips, nine beyond the first.
ROW = {"blocks": 2, "threads": 256}
FAR = {"memories__dram__latency": 1e-6, "units__thread_in_flight": 16}


def wait(row, without=(), **changes):
    arch = machine(**{**FAR, **changes})
    given = [p for p in arch.values if p not in without]
    d = Designs(Arch(arch.name, arch.title, {p: arch.values[p] for p in given},
                     {p: arch.provenance[p] for p in given}))  # fmt: skip
    kept = {"read_kv", "read_weight"} & row.keys()  # in each step again
    row = {**ROW, **row}
    return waiting_time(workload(row).operations() if kept else operations(row), d).item()


SMALL = {"memories__l2__capacity": 1}  # a last-level cache of a byte, that keeps nothing


def test_a_memory_of_its_own_is_waited_for_as_it_says():
    own = {**SMALL, "memories__kv_sram__capacity": 1e9, "memories__kv_sram__bandwidth": 1e12}
    row = {"read_kv": 81920.0}
    assert wait(row, **SMALL) == pytest.approx(9 * US, rel=1e-4)
    assert wait(row, **own, memories__kv_sram__latency=2e-7) == pytest.approx(9 * 0.2 * US)
    assert wait(row, **own) == 0.0  # a memory that does not say
    weights = {
        **SMALL,
        "memories__weight_sram__capacity": 1e9,
        "memories__weight_sram__bandwidth": 1e12,
    }
    row = {"read_weight": 81920.0}
    assert wait(row, **weights, memories__weight_sram__latency=4e-7) == pytest.approx(9 * 0.4 * US)
    assert wait(row, **weights) == 0.0


def test_levels_count_by_what_they_serve():
    # half of it 0.2 us away, half a microsecond: 0.6 us on average
    own = {**SMALL, "memories__kv_sram__capacity": 1e9, "memories__kv_sram__bandwidth": 1e12}
    row = {"read_kv": 40960.0, "read_weight": 40960.0}
    found = wait(row, **own, memories__kv_sram__latency=2e-7)
    assert found == pytest.approx(9 * 0.6 * US, rel=1e-4)


def test_a_victim_cache_is_as_far_as_the_last_level():
    victim = {"memories__victim__capacity": 1e8, "memories__victim__bandwidth": 1e12}
    row = {"read_activation": 81920.0, "distance_activation": 1.0}
    found = wait(row, **victim, memories__l2__latency=3e-7)
    assert found == pytest.approx(9 * 0.3 * US, rel=1e-6)
    # one that does not say is as far as DRAM
    cached = wait(row, without=("memories.l2.latency",))
    assert cached == pytest.approx(9 * US, rel=1e-6)


@pytest.mark.parametrize(
    ("launch", "limit", "blocks"),
    [
        ({"threads": 32}, "threads", 64),  # 2048 / 32
        ({"threads": 33}, "threads", 32),  # two warps
        ({"threads": 32, "registers": 8}, "registers", 256),  # 8 x 32 is one allotment of 256
        ({"threads": 32, "registers": 9}, "registers", 128),  # 288 are two
        ({"threads": 32, "registers": 255}, "registers", 8),  # 8,160 are 8,192
        ({"threads": 32, "registers": 200}, "registers", 8),  # 10.24 warps are two a quarter
        ({"threads": 32, "shared_memory": 0}, "shared_memory", 64),  # 1 KiB each of 64 KiB
        ({"threads": 32, "shared_memory": 1024}, "shared_memory", 32),
        ({"threads": 32, "shared_memory": 1025}, "shared_memory", 30),  # 2,176 B each: 30.1
    ],
)
def test_what_a_block_takes_of_each_resource(launch, limit, blocks):
    unit = {"units__threads": 2048, "units__registers": 65536, "units__shared_memory": 65536}
    row = operations({"registers": 0, "shared_memory": 0, **launch})
    assert block_limits(row, Designs(machine(**unit)))[limit].item() == blocks


class Watched:
    """Designs that note what is asked of them."""

    def __init__(self, designs):
        self.designs, self.asked = designs, set()

    def __len__(self):
        return len(self.designs)

    def __contains__(self, path):
        self.asked.add(path)
        return path in self.designs

    def __getitem__(self, path):
        self.asked.add(path)
        return self.designs[path]

    def distinct(self, paths):
        self.asked.update(paths)
        return self.designs.distinct(paths)


def test_it_says_all_that_it_reads():
    # READS tells for which designs a time must be computed anew: one path less is a wrong time
    everything = {"memories__kv_sram__capacity": 1e9, "memories__kv_sram__bandwidth": 1e12,
                  "memories__kv_sram__latency": 2e-7, "memories__weight_sram__capacity": 1e9,
                  "memories__weight_sram__bandwidth": 1e12, "memories__weight_sram__latency": 2e-7,
                  "units__threads": 2048, "units__registers": 65536,
                  "units__shared_memory": 65536, "units__blocks": 32, **FAR}  # fmt: skip
    watched = Watched(Designs(machine(**everything)))
    row = operations({**ROW, "read_kv": 1e6, "read_weight": 1e6, "read_activation": 1e6})
    assert np.isfinite(waiting_time(row, watched)).all()
    known = {parameter.path for parameter in PARAMETERS.values()}
    assert watched.asked & known <= set(occupancy.READS)
    assert set(occupancy.READS) <= known
    assert {"units.count", "memories.dram.latency"} <= watched.asked
