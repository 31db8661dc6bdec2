"""How fast a large Kineto trace imports, and in how much memory.

    pytest -s benchmarks/bench_import.py

A million events in 338 MB of JSON are made first (`make_kineto_trace.py`). Rates depend on the
machine; what is kept beside them is the time as a multiple of decoding the same pieces of JSON into
typed records and throwing them away, in the same run, which no importer on one core can go below.
On a machine that is busy with other things the CPU time, of this process and its helpers, tells
more than the rate.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EVENTS = 1_000_000
MAKER = Path(__file__).parent / "make_kineto_trace.py"
TIMED = """
import resource, sys, time
from pathlib import Path
def run(path, workers):
    {body}
if __name__ == "__main__":
    start = time.perf_counter()
    run(Path(sys.argv[1]), int(sys.argv[2]))
    seconds = time.perf_counter() - start
    own, helpers = (resource.getrusage(who) for who in
                    (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = sum(u.ru_utime + u.ru_stime for u in (own, helpers))
    print(seconds, cpu, own.ru_maxrss + (int(sys.argv[2]) - 1) * helpers.ru_maxrss)
"""
IMPORT = "from npusim.importers import import_trace; import_trace(path, workers=workers)"
DECODE = (
    "import msgspec; from npusim.importers.event_pieces import head_of, pieces; "
    "from npusim.importers.kineto_events import Event; "
    "decode = msgspec.json.Decoder(list[Event]).decode; "
    "parts = pieces(path, head_of(path)); "
    "[len(decode(b'[' + p.text() + b']')) for p in parts if not p.last]"
)


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    file = tmp_path_factory.mktemp("trace") / "million.json"
    subprocess.run([sys.executable, MAKER, str(EVENTS), file], check=True)
    return file


def timed(folder, body, file, workers):
    """Return seconds, CPU seconds and peak memory [MiB], of the parent and its helpers together."""
    script = folder / "timed.py"  # a file: helpers import the main module again
    script.write_text(TIMED.format(body=body))
    # Modules are compiled once, as where npusim is installed, whatever is set here.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(file.parent / "compiled")
    done = subprocess.run([sys.executable, script, file, str(workers)], check=True, env=env,
                          capture_output=True, text=True)  # fmt: skip
    seconds, cpu, memory = done.stdout.split()
    return float(seconds), float(cpu), int(memory) / 1024


@pytest.mark.parametrize("workers", [1, 2])
def test_import(benchmark, trace, tmp_path, workers):
    runs = []
    floor = []

    def once():
        floor.append(timed(tmp_path, DECODE, trace, 1)[0])
        runs.append(timed(tmp_path, IMPORT, trace, workers))

    benchmark.pedantic(once, rounds=5)
    seconds, cpu = min(s for s, _, _ in runs), min(c for _, c, _ in runs)
    notes = {
        "events a second": EVENTS / seconds,
        "times decoding alone": seconds / min(floor),
        "CPU seconds": cpu,
        "peak MiB": max(m for _, _, m in runs),
    }
    for name, value in notes.items():
        benchmark.extra_info[name] = value
        print(f"\n{workers} at work, {name}: {value:,.2f}")
