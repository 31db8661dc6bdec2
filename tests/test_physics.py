"""More of what a machine has never slows a step, of every parameter of the table that is a rate,
a capacity or a time; what is otherwise is listed with its reason, and how much it is."""

import numpy as np
import pytest

import npusim as ns
from npusim import catalog
from npusim.arch import Designs, is_whole
from npusim.durations import durations
from npusim.lanes import replay
from npusim.models import collective, modelled
from npusim.parameters import PARAMETERS
from tests.builder import workload

RATES = ("Hz", "B/s", "B/clock", "FLOP/clock", "OP/clock")
UNITS = (*RATES, "B", "s")
# Of those without a unit: what a machine has more of, or loses less by.
MORE = (
    "units.count", "matrix.efficiency", "matrix.boost_share", "vector.efficiency",
    "memories.dram.efficiency", "memories.l2.usable", "memories.l2.slices", "gemm.stages",
    "gemm.cluster", "gemv.count", "gemv.lanes", "gemv.batch", "link.efficiency",
    "host.speed", "host.threads", "launch.eager.depth",
)  # fmt: skip
LESS = ("gemm.start", "gemm.fill", "gemm.ramp", "special.emulated", "fusion.branch")
SOFTWARE_MORE = (".share", ".softmax", ".channel")
SOFTWARE_LESS = (".floor", ".element", ".block", ".chain", ".start", ".helpers", ".combine",
                 ".part", ".hop")  # fmt: skip

# Not of a step's time: area, energy, money; or which thing a table quotes.
APART = {
    "matrix.fp64.rate": "for the area alone", "vector.fp64.rate": "for the area alone",
    "vector.int32.rate": "for the area alone", "memories.l2.spare": "for the area alone",
    "units.registers": "registers a unit, not bytes",
    "voltage.clock": "the clock at which energies are quoted",
    "gating.wake": "makes energy, and a step only where leakage is gated",
    "cost.lifetime": "money",
    "fusion.buffer": "which chains a program has (npusim.fusion)",
    "launch.graph.repeat": "of benchmarks that repeat one kernel",
    "memories.dram.capacity": "what fits (npusim.memory_plan), no time",
    **{f"memories.{name}.quoted": "where its energy is quoted"
       for name in ("l2", "victim", "kv_sram", "weight_sram")},
    "energy.cache_quoted": "where an energy is quoted",
}  # fmt: skip

# How much slower more may be at most, and why.
EXCEPTIONS = {
    "units.count": (0.03, "a last wave that is less full, a library that splits otherwise, and "
                    "more units share the power of the base clock"),
    "gemm.cluster": (0.005, "where stages bound what is under way: a block that shares loads has "
                     "fewer bytes of its own in flight"),
    "memories.l2.capacity": (0.001, "what a kernel of few blocks writes goes into the cache at "
                             "half the rate of loads, and to DRAM without waiting"),
    "memories.l2.usable": (0.001, "as its capacity"),
    "memories.victim.capacity": (0.01, "its own port is slower than the cache behind it"),
    "memories.l2.latency": (0.03, "a kernel starts after a hit, which its floor holds as it was "
                            "measured: a shorter one leaves more of the wait for DRAM behind it"),
    "sram_compute.largest": (0.01, "which products go there, not how fast they are; if not all of "
                             "them fit, none does"),
    "launch.graph.node": (0.005, "the sum of a split product takes a launch less; device time and "
                          "the queue count that, a graph has it back between operations"),
    "launch.graph.interval": (0.005, "as launch.graph.node"),
}  # fmt: skip

# Beside what decode_npu has: a unit of each other sort, so that every parameter has a machine.
ADDED = {
    "matrix.fp32.rate": 512.0, "matrix.tf32.rate": 1024.0, "matrix.int4.rate": 8192.0,
    "memories.weight_sram.capacity": 64e6, "memories.weight_sram.bandwidth": 8e12,
    "memories.weight_sram.latency": 1e-7, "memories.kv_sram.latency": 1e-7,
    "memories.victim.bandwidth": 4e12, "sram_compute.capacity": 32e6,
    "sram_compute.bandwidth": 20e12, "sram_compute.latency": 1e-6, "sram_compute.largest": 4e6,
    "gemm.stages": 4.0, "units.thread_in_flight": 64.0,
    "units.threads": 2048.0, "units.blocks": 32.0, "units.shared_memory": 2e5,
    "conversion.rate": 64.0, "launch.eager.depth": 64.0, "host.threads": 2.0,
    "special.emulated": 20.0, "fusion.branch": 10.0, "host.record": 1e-7,
    "floor.splitk_reduce": 1e-6,
}  # fmt: skip
ARRAY = {"array.rows": 128.0, "array.columns": 128.0}
FACTORS = (0.5, 1.0, 2.0)
WORKS = ("paddleocr_vl_decode", "deepseek_ocr_decode_grouped_b16", "paddleocr_vl_vision",
         "paddleocr_vl_prefill")  # fmt: skip
LAUNCHES = ("eager", "graph", "queue")
MADE = ("everything", "arrays")


def machine(name):
    """Return a machine that ships, or one of those that have a unit of every sort."""
    if name not in MADE:
        return ns.load_arch(name)
    arch = ns.load_arch("decode_npu")
    for path, value in (ADDED if name == "everything" else {**ADDED, **ARRAY}).items():
        arch = ns.with_value(arch, path, value)
    return arch


def messages():
    """Return a workload of collective operations of three sizes."""
    sizes = {"k": 8, "basis": "shape", "kind": "collective"}
    return workload(*({**sizes, "routine": how, "read_activation": size, "write_activation": size}
                      for how in collective.ROUTINES for size in (1e3, 1e6, 1e9)))  # fmt: skip


def direction(path):
    """Return 1 where more is better, -1 where less is, 0 for what is neither."""
    unit, last = PARAMETERS[path].unit, f".{path.rsplit('.')[-1]}"
    if path in APART or ".guess_" in path:
        return 0  # a library's guess is what it decides by
    if path.startswith("library."):
        return 1 if last in SOFTWARE_MORE else -1 if last in SOFTWARE_LESS else 0
    if path.startswith(("node.", "dram_type.", "link_type.")):
        return 0  # of area, energy and money
    if unit in UNITS:
        return -1 if unit == "s" else 1
    return 1 if path in MORE else -1 if path in LESS else 0


def around(arch, software):
    """Return designs that have half and twice each parameter, and which parameters these are."""
    paths = [p for p in PARAMETERS if p in modelled() and p in arch.values and direction(p)
             and (software or not p.startswith("library."))]  # fmt: skip
    columns = {p: np.full(len(paths) * len(FACTORS), arch[p]) for p in paths}
    for i, path in enumerate(paths):
        low, high = PARAMETERS[path].low, PARAMETERS[path].high
        some = np.clip(arch[path] * np.array(FACTORS), low, high)
        columns[path][i * len(FACTORS) : (i + 1) * len(FACTORS)] = (
            np.floor(some) if is_whole(path) else some
        )
    return Designs(arch, columns), paths


def slower(arch, works, software):
    """Return by how much more of each parameter slows a step at most."""
    designs, paths = around(arch, software)
    worst = dict.fromkeys(paths, 0.0)
    for w in works:
        time = durations(w, designs)
        walls = [replay(w, designs, time, launch).wall_s for launch in LAUNCHES]
        for wall in [time.busy(), *walls]:
            for path, steps in zip(paths, wall.reshape(len(paths), -1), strict=True):
                up = steps[:: direction(path)]
                worst[path] = max(worst[path], float((up[1:] / up[:-1]).max() - 1.0))
    return worst


@pytest.mark.parametrize("name", MADE)
def test_more_is_never_slower_on_a_machine_with_every_unit(name):
    works = [*map(ns.load_workload, WORKS[:3]), messages()]
    assert beyond(slower(machine(name), works, software=True)) == {}


@pytest.mark.parametrize(("place", "name"), list(enumerate(catalog.names("archs"))))
def test_more_is_never_slower(place, name):
    works = [ns.load_workload(WORKS[place % len(WORKS)]), messages()]
    assert beyond(slower(machine(name), works, software=False)) == {}


def beyond(worst):
    return {p: by for p, by in worst.items() if by > EXCEPTIONS.get(p, (1e-9,))[0]}


def test_every_rate_capacity_and_time_is_looked_at():
    """Of each parameter with such a unit it is known whether more is better, or why it is not."""
    given = {p for name in MADE for p in machine(name).values}
    lacking = {p for p in modelled() if direction(p) and p not in given}
    software = {p for p in lacking if p.startswith("library.")}  # numbers that no fit needs
    assert lacking - software == {"prefetch.depth"}  # tests/test_prefetch.py
    assert all(PARAMETERS[p].unit in (*UNITS, "1") for p in APART)
    assert all(direction(p) for p in EXCEPTIONS)
    assert all(path in PARAMETERS for path in (*MORE, *LESS, *APART))
