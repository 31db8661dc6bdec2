"""What a user waits for: `npusim --help` and the main job, and how much memory it takes.

    pytest -s benchmarks/bench_main_job.py

Times depend on the machine; what is printed beside them, and kept in `extra_info`, is the ratio to
a bare interpreter and to an import of the libraries that the job cannot do without, measured in
the same run.
"""

import resource
import subprocess
import sys
import time

import pytest

HEAVY = "import matplotlib.figure, numpy, pandas, pyarrow.parquet, pydantic, yaml"


def seconds(*command):
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def note(benchmark, name, value):
    benchmark.extra_info[name] = value
    print(f"\n{name}: {value:.1f}")


@pytest.mark.benchmark(min_rounds=5)
def test_help(benchmark):
    benchmark(seconds, sys.executable, "-m", "npusim", "--help")
    bare = min(seconds(sys.executable, "-c", "pass") for _ in range(5))
    note(benchmark, "times a bare interpreter", benchmark.stats.stats.min / bare)


def test_main_job(benchmark, tmp_path):
    job = [sys.executable, "-m", "npusim", "sweep", "decode_npu", "-o", str(tmp_path / "out")]
    benchmark.pedantic(seconds, args=job, rounds=3, warmup_rounds=1)
    imports = min(seconds(sys.executable, "-c", HEAVY) for _ in range(3))
    note(benchmark, "times the imports alone", benchmark.stats.stats.min / imports)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    note(benchmark, "peak memory [MiB]", peak)
