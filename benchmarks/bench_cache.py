"""How fast the cache simulator and the stack distances are, and what the first call costs.

    pytest -s benchmarks/bench_cache.py

Four million accesses each; what is printed is accesses a second on one core, of the fastest of the
rounds, since other work on the machine only ever slows a round. Compiling is timed in a process
of its own with an empty folder of compiled code, and again with a full one.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

from npusim.cache import Cache, hit_rate_random, profile, simulate, stack_distances

N = 4_000_000
LINE = 128
CAPACITY = 32 * 2**20
BLOCKS = 250_000
WAYS_16 = Cache(CAPACITY, LINE, 16)
CACHES = {
    "LRU": WAYS_16,
    "LRU, hashed": Cache(CAPACITY, LINE, 16, hashed=True),
    "random, hashed": Cache(CAPACITY, LINE, 16, "random", hashed=True),
    "SRRIP, hashed": Cache(CAPACITY, LINE, 16, "srrip", hashed=True),
    "LRU, sectors and victim": Cache(CAPACITY, LINE, 16, sector=32, hashed=True, victim=2**20),
    "LRU, fully associative": Cache(CAPACITY, LINE, 0),
}
FIRST_CALL = """
import resource, time
import numpy as np
from npusim.cache import Cache, simulate, stack_distances
for call in (lambda: simulate(np.arange(9), Cache(1024, 64, 4)), lambda: stack_distances([1, 2])):
    start = time.perf_counter(); call(); print(time.perf_counter() - start)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def stream(kind, blocks):
    if kind == "cyclic":
        return np.arange(N) % blocks
    return np.random.default_rng(0).integers(0, blocks, N)


def note(benchmark, name, value):
    benchmark.extra_info[name] = value
    print(f"\n{name}: {value:,.2f}")


def rate(benchmark, what, *args, rounds=7):
    benchmark.pedantic(what, args=args, rounds=rounds, warmup_rounds=1)
    note(benchmark, "million accesses a second", N / benchmark.stats.stats.min / 1e6)


@pytest.mark.parametrize("kind", ["random", "cyclic"])
@pytest.mark.parametrize("name", CACHES)
def test_simulate(benchmark, name, kind):
    rate(benchmark, simulate, stream(kind, 3 * CAPACITY // LINE // 2) * LINE, CACHES[name])


@pytest.mark.parametrize("kind", ["random", "cyclic"])
@pytest.mark.parametrize("sizes", ["equal", "unequal"])
def test_stack_distances(benchmark, kind, sizes):
    blocks = stream(kind, BLOCKS)
    rate(benchmark, stack_distances, blocks, LINE if sizes == "equal" else 1 + blocks % 1000)


def test_stack_distances_of_scattered_blocks(benchmark):
    rate(benchmark, stack_distances, stream("random", BLOCKS) * 10**6, LINE)


def test_profile(benchmark):
    rate(benchmark, profile, stack_distances(stream("random", BLOCKS), LINE), rounds=3)


def test_random_correction(benchmark):
    rate(benchmark, hit_rate_random, stream("random", BLOCKS), CAPACITY, 0, LINE, rounds=3)


@pytest.mark.parametrize("kept", [False, True])
def test_first_call(benchmark, tmp_path, kept):
    folder = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}

    def once():
        done = subprocess.run([sys.executable, "-c", FIRST_CALL], check=True, env=folder,
                              capture_output=True, text=True)  # fmt: skip
        return [float(line) for line in done.stdout.split()]

    if kept:
        once()
    simulated, distances, memory = benchmark.pedantic(once, rounds=1)
    note(benchmark, "seconds to simulate first", simulated)
    note(benchmark, "seconds to distances first", distances)
    note(benchmark, "peak MiB", memory)
