"""Mutation testing of the models: which share of small deliberate bugs do the tests notice?

    python benchmarks/mutation.py --sample 600 [--seed 1] [--jobs 2] [--only gemm.py ...]

Works on a copy of the project in a folder of its own. Bugs are made as `mutants` says (by the
operators of mutmut), each is run against the tests that come by its lines (`mutation_run`). A bug
counts as found where a test fails or runs far too long; where no test comes by, it counts as not
found. The sample holds of each file its share, and at least a few; the total weighs files by their
number of places. The interval is Wilson's, of 95 %.

Some controls change nothing and go through the same motions: a run in which one of them is killed
reports nothing but that. Tests that read data beside the checkout are skipped.
"""

import argparse
import math
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
from mutants import File, sample
from mutation_run import Runner

CONTROLS = 3  # files of which a run checks that nothing is killed where nothing is changed
ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("npusim", "tests", "archs", "workloads", "studies", "benchmarks")
TESTS = (
    "area", "attention_model", "collective", "conversion", "die_cost", "energy", "fusion",
    "gemm_model", "gemv_unit", "hierarchy", "kernel_model", "lanes", "libraries", "locality",
    "memory_model", "models", "occupancy", "pipeline", "power_limit", "precision_power",
    "prefetch", "routine_model", "special", "splits", "static_cache", "systolic", "technology",
    "utilisation",
)  # fmt: skip


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=600, help="mutants (0: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="at a time")
    parser.add_argument(
        "--budget", type=float, default=30.0, help="seconds (CPU) of tests a mutant"
    )
    parser.add_argument(
        "--control",
        action="store_true",
        help="change nothing: whatever is then killed is a fault of this script",
    )
    parser.add_argument("--log", type=Path, help="write here who noticed which")
    parser.add_argument("--only", nargs="*", default=(), help="files of npusim/models")
    options = parser.parse_args(argv)
    if options.log:
        options.log = options.log.resolve()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "checkout")
        for name in NEEDED:
            shutil.copytree(ROOT / name, copy / name,
                            ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
        shutil.copy(ROOT / "pyproject.toml", copy)
        os.chdir(copy)
        sys.path.insert(0, str(copy))
        return measured(copy / "npusim" / "models", options)


def measured(package, options):
    start = time.monotonic()
    paths = [p for p in sorted(package.glob("*.py")) if not options.only or p.name in options.only]
    files = [File(path.name, path.read_text(encoding="utf-8")) for path in paths]
    draw = random.Random(options.seed)  # noqa: S311
    chosen = [] if options.control else sample(files, options.sample, draw)
    some = files if options.control else draw.sample(files, min(CONTROLS, len(files)))
    controls = [control for file in some for control in file.controls(draw)]
    runner = Runner(package, [*chosen, *controls], options.jobs, options.budget)
    tests = [f"tests/test_{name}.py" for name in TESTS]
    tests += sorted(str(p) for p in Path("tests").glob("test_*_equation.py"))
    without = [f"-pno:{name}" for name in ("cacheprovider", "xdist", "unraisableexception")]
    pytest.main([*tests, "npusim/models", "-o", "addopts=", "--doctest-modules", "-q", *without],
                plugins=[runner])  # fmt: skip
    print(file=sys.stderr)
    faults = [(c, runner.outcomes[len(chosen) + i]) for i, c in enumerate(controls)]
    faults = [(c, found) for c, found in faults if found[0] != "survived"]
    for control, found in faults:
        print(f"unchanged, but {' '.join(found)}: {control.file} {control.function or 'import'}")
    if chosen and not faults:
        report(files, chosen, runner)
    if options.log:
        rows = [f"{m.file}:{m.lines.start}\t{m.operator}\t" + "\t".join(runner.outcomes[i])
                for i, m in enumerate([*chosen, *controls])]  # fmt: skip
        options.log.write_text("\n".join(rows) + "\n", encoding="utf-8")
    print(f"\n{len(runner.seconds)} tests ({len(runner.left_out)} are skipped here), "
          f"{time.monotonic() - start:.0f} s, seed {options.seed}; {len(controls)} controls, "
          f"{len(faults)} of them killed")  # fmt: skip
    return 1 if faults else 0


def report(files, chosen, runner):
    """Print survivors as changed lines, then the tables."""
    outcomes = [runner.outcomes[i][0] for i in range(len(chosen))]
    source = {file.name: file.source for file in files}
    for mutant, how in zip(chosen, outcomes, strict=True):
        if how in ("survived", "no coverage"):
            print(f"{mutant.file}:{mutant.lines.start} {mutant.function} [{mutant.operator}] {how}")
            print(mutant.diff(source[mutant.file]))
    hows = ("killed", "timeout", "survived", "no coverage")
    table(hows, outcomes, [m.operator for m in chosen])
    places = {file.name: len(file) for file in files}
    by_file = table(hows, outcomes, [m.file for m in chosen], places)
    total = sum(places.values())
    rate = sum(places[f] / total * found / count for f, (found, count) in by_file.items() if count)
    low, high = wilson(rate, len(chosen))
    print(f"\nfound: {100 * rate:.1f} % ({100 * low:.1f} to {100 * high:.1f}) of {len(chosen)} "
          f"mutants, drawn from {total}")  # fmt: skip


def table(hows, outcomes, groups, places=None):
    print("\n| | places | mutants |", " | ".join(hows), "| found |")
    print("|---|" + "---|" * (len(hows) + 3))
    found = {}
    for name in sorted(set(groups)):
        count = Counter(how for how, group in zip(outcomes, groups, strict=True) if group == name)
        number = sum(count.values())
        found[name] = count["killed"] + count["timeout"], number
        print(f"| {name} | {places[name] if places else ''} | {number} |",
              " | ".join(str(count[how]) for how in hows),
              f"| {100 * found[name][0] / number:.0f} % |")  # fmt: skip
    return found


def wilson(share, count, z=1.96):
    """Return the interval of a share of so many draws."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    spread *= z / (1 + z * z / count)
    return middle - spread, middle + spread


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
