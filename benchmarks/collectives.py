"""Collectives between chips: numbers fitted to two H200s, held against other runs; Markdown.

PYTHONPATH=. python benchmarks/collectives.py [--fit]

``--fit`` fits the numbers of archs/libraries/collectives.yaml to every second size of
workloads/experiments/h200_collectives_axes.json and prints them. Without it the numbers that ship
are held against the sizes that were left out, against another run, and against
../shared/external/aiconfigurator (NCCL 2.29 on two and four H200s), to which nothing is fitted.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

import npusim as ns
from npusim.arch import Designs, with_value
from npusim.columns import COST_COLUMNS, COST_LABELS
from npusim.models.collective import ROUTINES, collective_cost, ways
from npusim.reuse import alone
from npusim.units import CHOICES
from npusim.workload import Operations

ROOT = Path(__file__).resolve().parents[1]
OURS = ROOT / "workloads" / "experiments" / "h200_collectives_axes.json"
AGAIN = OURS.with_name("h200_collectives_axes_again.json")
FOUR = OURS.with_name("h200_collectives_four_axes.json")
OTHER = ROOT.parent / "shared" / "external" / "aiconfigurator" / "nccl_h200_2_4gpu.csv"

PROTOCOL = {"LL": "flagged", "LL128": "lines", "Simple": "bulk"}
# Chips that only give do not wait for those that get: calls repeated one after the other overlap,
# and their period says less than a call takes. They are not fitted to.
ONE_WAY = ("broadcast", "send")
FITTED = (
    "flagged.start", "flagged.hop", "flagged.channel", "lines.start", "lines.hop", "bulk.start",
    "bulk.hop", "bulk.channel", "direct.start", "direct.channel", "direct_bulk.start",
    "direct_bulk.channel",
)  # fmt: skip
TOPOLOGIES = CHOICES["topology"]


def operations(rows):
    """Return rows of ``op``, ``gpus`` and ``bytes`` as operations."""
    size = np.array([r["bytes"] for r in rows], dtype=float)
    chips = np.array([r["gpus"] for r in rows], dtype=float)
    op = np.array([r["op"] for r in rows], dtype=object)
    columns = {c: np.zeros(len(rows)) for c in COST_COLUMNS if c not in COST_LABELS}
    columns["k"] = chips
    columns["read_activation"] = np.where(op == "all_gather", size / chips, size)
    columns["write_activation"] = np.where(op == "reduce_scatter", size / chips, size)
    labels = [np.full(len(rows), t, dtype=object) for t in ("collective", "fp16", "NCCL")]
    return Operations(*labels, op, columns, alone(*[np.full(len(rows), np.inf)] * 3))


def predicted(rows, arch, launch="graph"):
    """Return the period of each row, launched one after the other [us]."""
    ops, designs = operations(rows), Designs(arch)
    time = collective_cost(ops, designs).time[:, 0]
    every = ways(ops, designs)
    for i, row in enumerate(rows):
        if row.get("protocol"):
            time[i] = every["ring", PROTOCOL[row["protocol"]]][i, 0]
    return 1e6 * (time + arch[f"launch.{launch}.interval"])


def measured(path):
    """Return the rows of collectives, without events between them."""
    return [
        r for r in json.loads(path.read_text())[1:] if r["op"] in ROUTINES and "mixing" not in r
    ]


def second_half(row):
    """Say whether the size of a row is one of those that are held back: odd powers of two."""
    power = int(row["bytes"]).bit_length() - 1
    return power % 4 in (2, 3) if row.get("protocol") else power % 2 == 1


def fit(arch):
    """Return the fitted numbers with their standard errors, by name."""
    rows = [r for r in measured(OURS) if not second_half(r) and r["op"] not in ONE_WAY]
    took = np.array([r["us"] for r in rows])
    paths = [f"library.collective_{name}" for name in FITTED]

    def off(logs):
        machine = arch
        for path, value in zip(paths, np.exp(logs), strict=True):
            machine = with_value(machine, path, float(value))
        return np.log(predicted(rows, machine) / took)

    start = np.log([arch[path] for path in paths])
    found = least_squares(off, start, bounds=(start - 2.5, start + 2.5), diff_step=1e-3,
                          loss="soft_l1", f_scale=0.1)  # fmt: skip
    spread = np.linalg.pinv(found.jac.T @ found.jac) * 2 * found.cost / (len(rows) - len(paths))
    return {name: (np.exp(x), np.exp(x) * np.sqrt(v)) for name, x, v in
            zip(FITTED, found.x, np.diag(spread), strict=True)}  # fmt: skip


def other_rows():
    """Return NCCL's rows on two and four boards; their sizes are in numbers of two bytes."""
    with OTHER.open(newline="") as file:
        return [{"op": r["op_name"].replace("alltoall", "all_to_all"), "gpus": int(r["num_gpus"]),
                 "bytes": 2 * int(r["message_size"]), "us": float(r["latency_us"])}
                for r in csv.DictReader(file)]  # fmt: skip


def report(arch):
    """Return median, 90th percentile and worst error by operation, of what no fit saw."""
    ring = with_value(arch, "link.reduces", 0)
    sets = {
        "two of ours, again": ([r for r in measured(AGAIN) if second_half(r)], arch, "graph"),
        "four of ours, a ring": (measured(FOUR), ring, "graph"),
    }
    if OTHER.exists():
        sets |= {f"{n} of others": ([r for r in other_rows() if r["gpus"] == n], arch, "eager")
                 for n in (2, 4)}  # fmt: skip
    yield "| H200 boards | operation | n | median | p90 | worst |"
    yield "|---|---|---|---|---|---|"
    for name, (rows, machine, launch) in sets.items():
        for op in ROUTINES:
            part = [r for r in rows if r["op"] == op and not r.get("protocol")]
            if not part or op in ONE_WAY:
                continue
            off = predicted(part, machine, launch) / np.array([r["us"] for r in part]) - 1
            worst = off[np.argmax(np.abs(off))]
            cells = (name, op, len(part), f"{np.median(np.abs(off)):.1%}",
                     f"{np.percentile(np.abs(off), 90):.1%}", f"{worst:+.1%}")  # fmt: skip
            yield "| " + " | ".join(map(str, cells)) + " |"


def errors(title, rows, arch, launch="graph"):
    """Print median, 90th percentile and worst error by operation and number of chips."""
    found = 100 * (predicted(rows, arch, launch) / np.array([r["us"] for r in rows]) - 1)
    print(f"\n### {title}\n")
    print("| chips | operation | n | median [%] | p90 [%] | worst [%] | at [B] |")
    print("|---|---|---|---|---|---|---|")
    for gpus in sorted({r["gpus"] for r in rows}):
        for op in (*ROUTINES, "all"):
            at = [i for i, r in enumerate(rows) if r["gpus"] == gpus and op in (r["op"], "all")]
            if not at:
                continue
            part = np.abs(found[at])
            worst = at[int(np.argmax(part))]
            cells = (gpus, op, len(at), f"{np.median(part):.1f}", f"{np.percentile(part, 90):.1f}",
                     f"{found[worst]:+.1f}", f"{rows[worst]['bytes']:,}")  # fmt: skip
            print("| " + " | ".join(map(str, cells)) + " |")


def four(arch):
    """Print what four boards measured beside a ring and a switch that sums."""
    print("\n### all_reduce on four H200 (aiconfigurator), two algorithms [us]\n")
    print("| message | measured | ring | in_switch |\n|---|---|---|---|")
    rows = [r for r in other_rows()
            if r["gpus"] == 4 and r["op"] == "all_reduce" and r["bytes"] >= 2**21]  # fmt: skip
    took = [predicted(rows, with_value(arch, "library.collective.algorithm", name), "eager")
            for name in ("ring", "in_switch")]  # fmt: skip
    for row, ring, switch in zip(rows, *took, strict=True):
        print(f"| {row['bytes']:,} B | {row['us']:.1f} | {ring:.1f} | {switch:.1f} |")


def eight(arch):
    """Print what eight chips take by algorithm."""
    print("\n### Eight H200, all_reduce, by algorithm [us]\n")
    names = ("ring", "tree", "one_shot", "in_switch")
    print("| message | library | " + " | ".join(names) + " | takes |")
    print("|---|---|" + "---|" * (len(names) + 1))
    rows = [{"op": "all_reduce", "gpus": 8, "bytes": 4**i} for i in range(6, 15)]
    ops, designs = operations(rows), Designs(arch)
    every, taken = ways(ops, designs), collective_cost(ops, designs).time[:, 0]
    for i, row in enumerate(rows):
        least = [1e6 * min(t[i, 0] for (a, _), t in every.items() if a == name) for name in names]
        which = next(" ".join(way) for way, t in every.items() if t[i, 0] == taken[i])
        print(f"| {row['bytes']:,} B | {1e6 * taken[i]:.1f} | "
              + " | ".join(f"{us:.1f}" for us in least) + f" | {which} |")  # fmt: skip
    print("\nBus bandwidth (1.75 messages over the time) of 16 GiB: " + ", ".join(
        f"{name} {rate / 1e9:.0f} GB/s" for name, rate in bus_rates(arch).items()))  # fmt: skip
    print("\n### Eight H200, the library's choice [us]\n")
    print("| message | " + " | ".join(ROUTINES) + " |\n|---|" + "---|" * len(ROUTINES))
    for i in range(6, 15):
        rows = [{"op": op, "gpus": 8, "bytes": 4**i} for op in ROUTINES]
        took = 1e6 * collective_cost(operations(rows), designs).time[:, 0]
        print(f"| {4**i:,} B | " + " | ".join(f"{us:.1f}" for us in took) + " |")


def bus_rates(arch, size=2**34):
    """Return bytes of a large all_reduce on eight chips, 1.75 times, over its time [B/s]."""
    ops = operations([{"op": "all_reduce", "gpus": 8, "bytes": size}])
    machines = {name: with_value(arch, "library.collective.algorithm", name)
                for name in ("ring", "in_switch")}  # fmt: skip
    return {name: 1.75 * size / collective_cost(ops, Designs(machine)).time.item()
            for name, machine in machines.items()}  # fmt: skip


def topologies(arch):
    """Print all_reduce on eight chips over topologies and bandwidths, the fastest algorithm."""
    print("\n### all_reduce on eight chips, the fastest algorithm, no switch that sums [us]\n")
    sizes = {"8 KiB": 2**13, "64 KiB": 2**16, "16 MiB": 2**24}
    print("| topology | bandwidth | " + " | ".join(sizes) + " | all_to_all, 16 MiB |")
    print("|---|---|" + "---|" * (len(sizes) + 1))
    arch = with_value(
        with_value(arch, "link.reduces", 0), "library.collective.algorithm", "fastest"
    )
    rows = [{"op": "all_reduce", "gpus": 8, "bytes": b} for b in sizes.values()]
    rows += [{"op": "all_to_all", "gpus": 8, "bytes": 2**24}]
    for name in TOPOLOGIES:
        for bandwidth in (300e9, 500e9, 900e9):
            machine = with_value(
                with_value(arch, "link.topology", name), "link.bandwidth", bandwidth
            )
            took = 1e6 * collective_cost(operations(rows), Designs(machine)).time[:, 0]
            print(f"| {name} | {bandwidth / 1e9:.0f} GB/s | "
                  + " | ".join(f"{us:.1f}" for us in took) + " |")  # fmt: skip


def main():
    arch = ns.load_arch("h200")
    if "--fit" in sys.argv[1:]:
        for name, (value, error) in fit(arch).items():
            low, high = max(value - 2 * error, 0), value + 2 * error
            print(f"{name}: {value:.4g}, range {low:.2g} to {high:.2g}")
        return
    ours, held = measured(OURS), [r for r in measured(OURS) if second_half(r)]
    fitted = [r for r in ours if not second_half(r) and not r.get("protocol")]
    errors("Sizes that were fitted to, first run", fitted, arch)
    errors("Sizes held back, first run", [r for r in held if not r.get("protocol")], arch)
    again = [r for r in measured(AGAIN) if second_half(r) and not r.get("protocol")]
    errors("Sizes held back, second run", again, arch)
    # without the switch's sums, as the host of these boards has it
    ring = with_value(arch, "link.reduces", 0)
    errors(
        "Four boards of ours, a ring", [r for r in measured(FOUR) if not r.get("protocol")], ring
    )
    for protocol in PROTOCOL:
        only = [r for r in measured(FOUR) if r.get("protocol") == protocol]
        errors(f"Four boards of ours, protocol {protocol} alone", only, ring)
    for protocol in PROTOCOL:
        only = [r for r in held if r.get("protocol") == protocol]
        errors(f"Sizes held back, protocol {protocol} alone", only, arch)
    if OTHER.exists():
        errors("NCCL 2.29 on two and four H200 (aiconfigurator)", other_rows(), arch, "eager")
        four(arch)
    eight(arch)
    topologies(arch)


if __name__ == "__main__":
    main()
