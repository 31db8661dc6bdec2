"""Figures of the serving pages: a request log beside the simulation, batching and four clients.

    python benchmarks/serving.py            # prints the tables
    python benchmarks/serving.py --write    # into docs/serving.md
    python benchmarks/serving.py --speed    # how long 100,000 requests take

The log is not part of the repository (LLMServingSim, MIT): without it its table is left out.
Nothing is fitted to it; its KV cache (2,588 blocks) and its flags are inputs.
"""

import sys
import tempfile
import time
from pathlib import Path

import host_studies_figures as study
import host_studies_service as service
import numpy as np

from npusim import catalog
from npusim.latency import slow_one, with_slow_one
from npusim.serving import Fleet, LinearTimes, Policy, Pool, serve
from npusim.serving.arrivals import Lengths, poisson, sized
from npusim.serving_block import read_serving
from npusim.serving_study import run_study
from npusim.step_cost import StepCost, fit_step_cost

LOG = (Path(__file__).resolve().parents[2] / "shared" / "external" / "llmservingsim" / "bench"
       / "RTX4090" / "Llama-3.1-8B" / "vllm" / "requests.jsonl")  # fmt: skip
PAGE = Path(__file__).resolve().parents[1] / "docs" / "serving.md"
STUDY = """
title: Llama-3.1-8B on an RTX 4090 under vLLM 0.19
question: 300 requests of ShareGPT at 10 a second, how far off are their waits?
source: request log of LLMServingSim (MIT)
arch: rtx_4090
serving:
  model: llama_3_1_8b
  lowering: serving-fa2
  engine: {{max_num_seqs: 256, max_num_batched_tokens: 2048, max_model_len: 32768, kv_blocks: 2588}}
  requests: {{arrivals: file, file: {file}}}
"""


def log_run(band=True):
    """Return the run of the log."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "log.yaml"
        file.write_text(STUDY.format(file=LOG), encoding="utf-8")
        (run,) = run_study(read_serving(file), band)
    return run


def log_rows(run):
    """Return measured and predicted waits, and how far off each is."""
    rows = []
    for name in ("ttft", "tpot", "latency"):
        told, said = run.middle.summaries()[name], run.measured.summaries[name]
        ends = [o.summaries()[name] for o in (run.low, run.high)]
        for which in ("mean_s", "p50_s", "p95_s", "p99_s"):
            p, m = getattr(told, which), getattr(said, which)
            low, high = (getattr(end, which) for end in ends)
            unit, by = ("ms", 1e3) if name == "tpot" else ("s", 1.0)
            rows.append(
                (
                    name.upper() if name != "latency" else name,
                    which[:-2],
                    f"{by * m:.1f} {unit}",
                    f"{by * p:.1f}",
                    f"{by * low:.1f} - {by * high:.1f}",
                    f"{p / m - 1:+.1%}",
                )
            )
    return rows


def batching_rows():
    """Return C500 throughputs by batch, told from batches 1 and 2."""
    cost = fit_step_cost([1, 2], [study.AGGREGATE[n] for n in (1, 2)])
    return [
        (
            str(n),
            f"{study.AGGREGATE[n]}",
            f"{cost.tokens_per_s(n):.1f}",
            f"{cost.tokens_per_s(n) / study.AGGREGATE[n] - 1:+.1%}",
            "fitted" if n < 4 else "told",
        )
        for n in (1, 2, 4)
    ]


def client_rows():
    """Return seed 001's single and four concurrent clients, from its single ones."""
    cost = service.asked_cost()
    rows = []
    for name, clients, mean, rate in (
        ("1 client", 1, study.SEQUENTIAL_S, study.SEQUENTIAL_PER_S),
        ("4 clients", 4, study.FOUR_S, study.FOUR_PER_S),
    ):
        run = service.packed(cost, clients)
        told = run.latency_s.mean()
        rows.append(
            (
                name,
                f"{mean:.3f}",
                f"{told:.3f}",
                f"{told / mean - 1:+.1%}",
                f"{rate:.2f}",
                f"{run.requests_per_s:.2f}",
                f"{run.requests_per_s / rate - 1:+.1%}",
            )
        )
    return rows


def cold_rows():
    """Return what one slow request of ten makes of seed 001's summary."""
    usual, mean, p95 = 0.3333, 1.7370, 8.0539
    slow = slow_one(10, mean, usual)
    return [
        (
            f"{usual} s",
            f"{mean} s",
            f"{p95} s",
            f"{slow:.2f} s",
            f"{with_slow_one(10, mean, usual).p95_s:.4f} s",
        )
    ]


def study_rows(name):
    """Return the runs of a study that ships."""
    found = []
    for run in run_study(read_serving(catalog.find("serving", name)), band=False):
        s = run.middle.summaries()
        value = next(iter(run.axes.values()))
        found.append(
            (
                _axis(value),
                f"{1e3 * s['ttft'].mean_s:.1f}",
                f"{1e3 * s['ttft'].p95_s:.1f}",
                f"{1e3 * s['tpot'].mean_s:.2f}",
                f"{1e3 * s['tpot'].p95_s:.2f}",
                f"{1e3 * s['latency'].mean_s:.0f}",
                f"{run.middle.tokens_per_s:.0f}",
                str(int(run.middle.stops.sum())),
            )
        )
    return found


def _axis(value):
    return f"{value / 1e9:g} GB/s" if isinstance(value, float) and value > 1e6 else str(value)


STUDIES = (
    "rtx_4090_rate",
    "context_length",
    "fastdeploy_flags",
    "prefill_decode_split",
    "prefill_decode_together",
)
WAITS = (
    "TTFT mean, ms",
    "P95, ms",
    "TPOT mean, ms",
    "P95, ms",
    "latency mean, ms",
    "tokens/s",
    "stops",
)


def tables(studies=STUDIES):
    """Return the tables of the page by name, with those of some studies."""
    found = {
        "batching": (("batch", "measured, tok/s", "told", "off", ""), batching_rows()),
        "clients": (("", "mean, s", "told", "off", "req/s", "told", "off"), client_rows()),
        "cold": (("P50", "mean", "P95 of the ten", "the slow one", "P95 with it"), cold_rows()),
    }
    if LOG.is_file():
        columns = ("", "", "measured", "predicted", "band of step times", "off")
        found["log"] = (columns, log_rows(log_run()))
    for name in studies:
        found[name] = (("", *WAITS), study_rows(name))
    return found


def table(columns, rows):
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def speed():
    """Return how long 100,000 requests take, and how many steps they are."""
    random = np.random.default_rng(5)
    requests = poisson(
        sized(100_000, Lengths(800, 1), Lengths(200, 0.5), random, 8192), 20.0, random
    )
    times = LinearTimes(StepCost(4e-3, 2e-5), prompt_token_s=1e-5)
    fleet = Fleet(Pool(times, Policy(max_seqs=256, max_model_len=8192, blocks=4000)))
    start = time.perf_counter()
    run = serve(requests, fleet)
    took = time.perf_counter() - start
    return took, len(run.engines[0].end_s), int(run.stops.sum()), run.utilisation


def write(found):
    """Put tables into the page, each between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    for name, (columns, rows) in found.items():
        start = f"<!-- table: {name} -->"
        if start not in text:
            raise SystemExit(f"{PAGE}: no place for {name}")
        head, _, rest = text.partition(start)
        _, end, tail = rest.partition("<!-- end -->")
        text = f"{head}{start}\n\n{table(columns, rows)}\n\n{end}{tail}"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if "--speed" in sys.argv:
        seconds, steps, stops, busy = speed()
        print(
            f"100,000 requests, {steps:,} steps, {stops:,} stops, {busy:.0%} busy: {seconds:.1f} s"
        )
        sys.exit()
    made = tables()
    if "--write" in sys.argv:
        write(made)
    for name, (columns, rows) in made.items():
        print(f"\n{name}\n{table(columns, rows)}")
