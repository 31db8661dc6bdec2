"""How fast a large Kineto trace imports, and in how much memory.

    pytest -s benchmarks/bench_import.py

A million events in 338 MB of JSON are made first (`make_kineto_trace.py`). Rates depend on the
machine; what is kept beside them is the time as a multiple of decoding the same pieces of JSON into
typed records and throwing them away, in the same run, which no importer can go below.
"""

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
    used = [resource.getrusage(who).ru_maxrss for who in
            (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(seconds, used[0] + int(sys.argv[2]) * used[1] if used[1] else used[0])
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
    """Return seconds and peak memory [MiB], of the parent and its helpers together."""
    script = folder / "timed.py"  # a file: helpers import the main module again
    script.write_text(TIMED.format(body=body))
    done = subprocess.run([sys.executable, script, file, str(workers)], check=True,
                          capture_output=True, text=True)  # fmt: skip
    seconds, memory = done.stdout.split()
    return float(seconds), int(memory) / 1024


@pytest.mark.parametrize("workers", [1, 2])
def test_import(benchmark, trace, tmp_path, workers):
    runs = []
    floor = []

    def once():
        floor.append(timed(tmp_path, DECODE, trace, 1)[0])
        runs.append(timed(tmp_path, IMPORT, trace, workers))

    benchmark.pedantic(once, rounds=5)
    seconds = min(s for s, _ in runs)
    notes = {
        "events a second": EVENTS / seconds,
        "times decoding alone": seconds / min(floor),
        "peak MiB": max(m for _, m in runs),
    }
    for name, value in notes.items():
        benchmark.extra_info[name] = value
        print(f"\n{workers} at work, {name}: {value:,.2f}")
