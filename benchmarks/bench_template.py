"""How fast a template becomes a workload: a step of a model of 61 layers with 256 experts.

    pytest -s benchmarks/bench_template.py

Seconds depend on the machine; what is kept beside them is the time as a multiple of checking the
finished columns alone (the constructor of a workload), in the same run, which no template can go
below. Times are CPU time, so that other work on the machine counts less. Reading the lowering, once
a process, is timed by itself.
"""

import time

import pytest

from npusim.templates import load_lowering, template
from npusim.workload import Workload

MODEL, LOWERING = "deepseek_v3", "hf-eager-grouped"
STEPS = {"decode": {"context": 4096}, "prefill": {"context": 1024}}
MOST_SECONDS = 0.1  # of CPU, a decode and a prefill step together
MOST_TIMES = 25  # as long as the constructor


def note(benchmark, name, value):
    benchmark.extra_info[name] = value
    print(f"\n{name}: {value:,.3f}")


def fastest(what, rounds=7):
    times = []
    for _ in range(rounds):
        start = time.process_time()
        what()
        times.append(time.process_time() - start)
    return min(times)


def made():
    return [template(MODEL, phase, lowering=LOWERING, **size) for phase, size in STEPS.items()]


def test_template(benchmark):
    workloads = benchmark.pedantic(made, rounds=7, warmup_rounds=1)
    seconds = fastest(made)
    floor = fastest(lambda: [Workload(w.name, w.columns, w.labels, w.steps) for w in workloads])
    note(benchmark, "kernels", sum(map(len, workloads)))
    note(benchmark, "CPU seconds", seconds)
    note(benchmark, "times the constructor alone", seconds / floor)
    assert seconds < MOST_SECONDS
    assert seconds / floor < MOST_TIMES


@pytest.mark.parametrize("name", ["hf-eager", "hf-eager-grouped"])
def test_lowering(benchmark, name):
    def read():
        load_lowering.cache_clear()
        load_lowering(name)

    benchmark.pedantic(read, rounds=5, warmup_rounds=1)
    note(benchmark, "CPU seconds to read it", fastest(read))
