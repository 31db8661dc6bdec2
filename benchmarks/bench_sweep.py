"""How many designs a second a sweep evaluates and stores, and how much memory it takes.

    pytest -s -n 0 benchmarks/bench_sweep.py

The full model (hierarchy, units, fusion, energy, area, host) of a DeepSeek-OCR decode step, 10.4
million designs over 13 axes; beside it the same models asked design by design in a Python loop, and
block by block without factoring. The roofline alone, beside a plain Python loop over operations.
"""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

import npusim as ns
from npusim.arch import Designs
from npusim.job import read_job
from npusim.sweeps.evaluate import evaluate
from npusim.sweeps.evaluator import Evaluator
from npusim.sweeps.roofline import StepRoofline

STUDY = """
title: Ten million designs of a decode step
question: How many designs a second?
source: a benchmark
arch: decode_npu
sweep:
  workloads: [deepseek_ocr_decode]
  launch: [queue]
  axes:
    memories.dram.bandwidth: {start: 2 TB/s, stop: 3 TB/s, steps: 6}
    units.count: [60, 65, 70, 75, 80]
    matrix.bf16.rate: [1024 FLOP/clock, 2048 FLOP/clock, 4096 FLOP/clock]
    vector.fp32.rate: [128 FLOP/clock, 256 FLOP/clock]
    memories.l2.capacity: [64 MB, 128 MB, 192 MB, 256 MB]
    memories.victim.capacity: [0 MB, 16 MB]
    memories.kv_sram.capacity: [32 MB, 48 MB, 64 MB]
    gemv.count: [0, 70]
    fusion.chain: [0, 8]
    launch.queue.interval: {start: 0.02 us, stop: 0.28 us, steps: 6}
    launch.queue.submit: [1 us, 2 us, 3 us, 5 us]
    host.sync: {start: 2 us, stop: 8 us, steps: 5}
    memories.dram.energy: {start: 8 pJ/bit, stop: 18 pJ/bit, steps: 5}
  costs: [energy_j, area_mm2]
"""
BLOCK = 131_072
BLOCKS = 40  # of those that are only evaluated
CORES = 2


def note(benchmark, name, value):
    benchmark.extra_info[name] = value
    print(f"\n{name}: {value:,.1f}")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    file = tmp_path_factory.mktemp("study") / "ten_million.yaml"
    file.write_text(STUDY)
    return file


@cache
def evaluator(file):
    job = read_job(str(file), [], [], {})
    return Evaluator(job.space, job.workloads, job.counts)


def evaluated(file, block):
    return len(evaluator(file).columns(block * BLOCK, (block + 1) * BLOCK)["wall_s"])


def test_evaluated(benchmark, study):
    """Designs a second on two cores, every column made, none stored."""
    of_study = partial(evaluated, study)
    with ProcessPoolExecutor(CORES, get_context("spawn")) as pool:
        list(pool.map(of_study, [0, BLOCKS - 1] * CORES))  # both have found out what differs
        benchmark.pedantic(lambda: sum(pool.map(of_study, range(BLOCKS))), rounds=3)
    rate = BLOCKS * BLOCK / benchmark.stats.stats.min
    note(benchmark, "designs a second", rate)
    job = read_job(str(study), [], [], {})
    part, rng = job.space.parts[0], np.random.default_rng(0)
    few = [part.designs(i, i + 1) for i in rng.integers(0, len(part), 10).tolist()]
    begun = time.perf_counter()
    for design in few:
        evaluate(design, job.workloads, "queue")
    loop = len(few) / (time.perf_counter() - begun)
    note(benchmark, "designs a second in a Python loop over designs", loop)
    note(benchmark, "times the loop", rate / loop)
    begun = time.perf_counter()
    evaluate(part.designs(0, 4096), job.workloads, "queue")
    note(benchmark, "times one block without factoring",
         rate * (time.perf_counter() - begun) / 4096)  # fmt: skip


class Memory(threading.Thread):
    """The largest proportional set size of a process and those below it, sampled [MiB]."""

    def __init__(self, root):
        super().__init__(daemon=True)
        self.root, self.peak = root, 0.0

    def run(self):
        while Path(f"/proc/{self.root}").exists():
            self.peak = max(self.peak, sum(map(self._size, self._tree(self.root))))
            time.sleep(0.1)

    def _tree(self, pid):
        yield pid
        try:
            below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return
        for child in below:
            yield from self._tree(int(child))

    def _size(self, pid):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return 0.0
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


@pytest.mark.parametrize("share", [1, 8])
def test_stored(benchmark, study, tmp_path, share):
    """All designs, or every eighth of them, from the command line to the end of its summary."""
    text = study.read_text()
    if share > 1:
        text = text.replace("[60, 65, 70, 75, 80]", "[70]").replace("steps: 6}", "steps: 4}")
    file = tmp_path / "study.yaml"
    file.write_text(text)
    folder = tmp_path / "out"
    command = [sys.executable, "-m", "npusim", "sweep", str(file), "-o", str(folder),
               "--workers", str(CORES), "--no-figures", "--json"]  # fmt: skip
    peaks = []

    def sweep():
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ) as process:
            memory = Memory(process.pid)
            memory.start()
            assert process.wait() == 0
            memory.join()
        peaks.append(memory.peak)

    benchmark.pedantic(sweep, rounds=2)
    designs = len(read_job(str(file), [], [], {}).space)
    note(benchmark, "designs", designs)
    note(benchmark, "designs a second, start and summary included",
         designs / benchmark.stats.stats.min)  # fmt: skip
    note(benchmark, "peak memory of all processes [MiB]", max(peaks))
    assert max(peaks) < 1024  # however many designs there are
    size = sum(f.stat().st_size for f in folder.rglob("*.parquet"))
    note(benchmark, "bytes a design", size / designs)


def test_roofline(benchmark):
    """Designs drawn at random, so that nothing can be factored, on one core."""
    w, rng, count = ns.load_workload("deepseek_ocr_decode"), np.random.default_rng(0), 2_000_000
    designs = Designs(ns.load_arch("decode_npu"), {
        "memories.dram.bandwidth": rng.uniform(2e12, 3e12, count),
        "units.count": rng.integers(40, 90, count).astype(float),
        "units.clock": rng.uniform(1e9, 2e9, count),
        "matrix.bf16.rate": rng.uniform(512, 4096, count),
        "vector.fp32.rate": rng.uniform(64, 512, count),
    })  # fmt: skip
    step = StepRoofline(w)
    benchmark.pedantic(step.seconds, args=(designs,), rounds=5, warmup_rounds=1)
    rate = count / benchmark.stats.stats.min
    note(benchmark, "designs a second on one core", rate)
    rows, _ = w.unique()
    operations = w.operations(rows)
    work = list(zip(operations["flop"].tolist(), operations.bytes_moved.tolist(), strict=True))
    begun, few = time.perf_counter(), 300
    for i in range(few):
        bandwidth, peak = 2e12 + i * 1e9, 3e14
        sum(max(flop / peak, moved / bandwidth) for flop, moved in work)
    loop = few / (time.perf_counter() - begun)
    note(benchmark, f"designs a second in plain Python over {len(work)} operations", loop)
    note(benchmark, "times the loop", rate / loop)
