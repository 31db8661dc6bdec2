"""Energy and power against a board's counter, by block, and over clocks: Markdown.

PYTHONPATH=. python benchmarks/energy.py

Prints the tables of docs/energy.md. Constants come from benchmarks/energy_fit.py; nothing is fitted
here. Rows of the axis ``energy`` are one work repeated inside a graph for four seconds; the idle
power of each board is an input. Rows of ../shared need the folder beside the checkout.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

import npusim as ns
from npusim.arch import Designs, with_value
from npusim.clock_modes import choose, modes, over_period, sleeping
from npusim.columns import COLUMNS, LABELS
from npusim.durations import durations
from npusim.energy import step_energy
from npusim.lanes import replay
from npusim.measured.shapes import linear, pointwise
from npusim.models.energy import clock_power, resting
from npusim.models.voltage import clocked
from npusim.transforms import transformed, unprofiled
from npusim.workload import COST_COLUMNS, Steps, Workload

ROOT = Path(__file__).resolve().parents[1]
OURS = ROOT / "workloads" / "experiments"
SHARED = ROOT.parent / "shared" / "baselines" / "h200"
BOARDS = {"baseline": SHARED / "axes.json", "ours, first": OURS / "h200_axes.json",
          "ours, second": OURS / "h200_power_axes.json"}  # fmt: skip
MIB = 2**20

# Works of the axis ``energy`` (npusim/capture/experiments/energy.py): one run of each, and how
# often a graph does it. Streams read as much as they write: 1 GiB, or 8 MiB that stay in the cache.
WORKS = {
    "dram_stream_rw": (lambda: pointwise("bf16", "mul_scalar", 512 * MIB), 20),
    "l2_stream_rw": (lambda: pointwise("bf16", "mul_scalar", 4 * MIB), 500),
    "gemm_bf16": (lambda: linear("bf16", 8192, 8192, 8192), 5),
    "gemm_fp32": (lambda: linear("fp32", 8192, 8192, 8192), 1),
    "gemv_dram": (lambda: linear("bf16", 1, 6848, 1280), 48),
    "tiny_kernels": (lambda: pointwise("fp32", "mul_scalar", 1), 2000),
}
# Undisturbed boards of energy_steps.json, then: case, workload, its changes, launch.
STEPS = {
    "PaddleOCR-VL, graph": ("paddle:graph:1:628", "paddleocr_vl_decode",
                            {"workload.static_cache": 692}, "graph"),
    "PaddleOCR-VL, eager": ("paddle:eager:1:628", "paddleocr_vl_decode", {}, "eager"),
    "DeepSeek-OCR, batch 16, graph": (
        "dsocr_grouped:graph:16:1024", "deepseek_ocr_decode_grouped_b16",
        {"workload.static_cache": 1088}, "graph"),
}  # fmt: skip
# The study of seed 000: busy share, power while it serves, time of a decode step [s].
C500_BUSY, C500_WATTS, C500_STEP = 0.195, 67.0, 26.5e-3
BLOCKS = tuple(
    (workload, arch, launch)
    for workload in ("paddleocr_vl_decode", "deepseek_ocr_decode")
    for arch, launch in (("h200", "graph"), ("h200", "queue"), ("decode_npu", "queue"))
)
SHARES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
PERIOD = 5e-3  # of one decode step [s]
LITTLE = 0.02  # share of a step that has no row of its own
REQUEST = {"paddleocr_vl_vision": 1, "paddleocr_vl_prefill": 1, "paddleocr_vl_decode": 165}


def step_of(name):
    """Return one replay of the graph of a work as a step."""
    work, times = WORKS[name]
    one = work()
    row = {c: getattr(one if hasattr(one, c) else one.work, c) for c in COST_COLUMNS}
    row |= {"kernel": name, "operator": name, "phase": "unknown", "basis": "shape",
            "origin": "generated"}  # fmt: skip
    labels = {c: (str(row.get(c, "")),) for c in LABELS}
    columns = {c: np.full(times, 0 if c in LABELS else row.get(c, 0)) for c in COLUMNS}
    nothing = np.zeros(1)
    return Workload(name, columns, labels, Steps(nothing, nothing),
                    meta={"measured": False, "host": "unknown"})  # fmt: skip


def idle_power(arch):
    """Return what a board takes with clocks up and nothing to do [W]."""
    designs = Designs(arch)
    rest, leaks = resting(designs)
    return float(rest[0] + sum(v[0] for v in (*leaks.values(), *clock_power(designs).values())))


def awake(arch, watts):
    """Return a machine whose idle power with clocks up is what a run measured."""
    clocks = float(sum(v[0] for v in clock_power(Designs(arch)).values()))
    part = idle_power(with_value(arch, "power.idle", 1.0)) - clocks
    return with_value(arch, "power.idle", (watts - clocks) / part)


def axis(file):
    """Return the rows of the axis ``energy`` of a run, by work."""
    return {r["what"]: r for r in json.loads(file.read_text()) if r["axis"] == "energy"}


def at_measured_rate(workload, arch, wall, clock=None):
    """Return the energy of a step [J] that takes so long at so high a clock [Hz]."""
    share = 1.0 if clock is None else clock / arch["units.clock"]
    designs, took = clocked(Designs(arch), np.array([share])), np.array([wall])
    time = durations(workload, designs)
    if clock is not None:  # kernels of nothing else: they fill the time as they did on the board
        time = time.scaled(took / replay(workload, designs, time, "graph").wall_s)
    return float(step_energy(workload, designs, time, took).joules[0])


@dataclass(frozen=True)
class Seen:
    """A work: power measured, at the measured rate, and end to end [W]; clocks [Hz].

    Where nothing runs there is no prediction of time, and no clock.
    """

    watts: float
    at_rate: float
    whole: float
    clock: float = 0.0
    own_clock: float = 0.0
    slower: float = 0.0
    result: ns.Result | None = None


@cache
def of_board(name):
    """Return what was seen and what is predicted on a board, by work."""
    rows, h200 = axis(BOARDS[name]), ns.load_arch("h200")
    arch = awake(h200, rows["idle"]["watts"])
    found = {"idle": Seen(rows["idle"]["watts"], idle_power(arch), idle_power(arch))}
    for what in WORKS:
        row, workload = rows[what], step_of(what)
        wall, clock = row["seconds"] / row["iters"], 1e6 * row["sm_mhz"]
        r = ns.replay(workload, arch, "graph")
        found[what] = Seen(row["watts"], at_measured_rate(workload, arch, wall, clock) / wall,
                           r.power_w, clock, r.clock_share * h200["units.clock"],
                           r.wall_s / wall - 1, r)  # fmt: skip
    return found


def of_axis():
    """Return the power of each work on the board that constants were fitted to."""
    if not BOARDS["baseline"].is_file():
        return "(../shared is not beside the checkout)\n"
    lines = ["| work | measured [W] | at its rate and clock [W] | error | end to end [W] | error | "
             "its time | clock, measured [MHz] | predicted |",
             "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for what, seen in of_board("baseline").items():
        clocks = f"{seen.clock / 1e6:.0f} | {seen.own_clock / 1e6:.0f}"
        told = f"{seen.slower:+.1%} | {clocks}" if seen.clock else "input | | "
        lines.append(f"| {what} | {seen.watts:.1f} | {seen.at_rate:.1f} | "
                     f"{seen.at_rate / seen.watts - 1:+.1%} | {seen.whole:.1f} | "
                     f"{seen.whole / seen.watts - 1:+.1%} | {told} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def of_others():
    """Return the errors on boards that were held back."""
    boards = [name for name in BOARDS if name != "baseline"]
    lines = [f"| work | {' | '.join(f'{b}: measured [W] | at its rate' for b in boards)} |",
             "|---|" + "---|---|" * len(boards)]  # fmt: skip
    for what in WORKS:
        cells = []
        for board in boards:
            seen = of_board(board)[what]
            cells.append(f"{seen.watts:.1f} | {seen.at_rate / seen.watts - 1:+.1%}")
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def of_clock():
    """Return clock and rate of the bf16 product at the power limit, its time as predicted or not.

    A product that takes as many clocks as on the board does so by another ``matrix.efficiency``.
    """
    lines = ["| board | clock, measured [MHz] | predicted | if a product took the clocks measured |"
             " a product, measured [ms] | predicted |", "|---|---|---|---|---|---|"]  # fmt: skip
    h200, product, times = ns.load_arch("h200"), step_of("gemm_bf16"), WORKS["gemm_bf16"][1]
    for name, file in BOARDS.items():
        if not file.is_file():
            continue
        rows = axis(file)
        row, arch = rows["gemm_bf16"], awake(h200, rows["idle"]["watts"])
        wall = row["seconds"] / row["iters"]
        there = with_value(arch, "units.clock", 1e6 * row["sm_mhz"])
        faster = ns.replay(product, with_value(there, "power.limit", 1e6), "graph").wall_s / wall
        told = with_value(arch, "matrix.efficiency", arch["matrix.efficiency"] * faster)
        ours, slower = (ns.replay(product, a, "graph") for a in (arch, told))
        own, of_slower = (1e-6 * r.clock_share * arch["units.clock"] for r in (ours, slower))
        lines.append(f"| {name} | {row['sm_mhz']} | {own:.0f} | {of_slower:.0f} | "
                     f"{1e3 * wall / times:.3f} | {1e3 * ours.wall_s / times:.3f} |")  # fmt: skip
    return "\n".join(lines) + "\n"


@cache
def steps():
    """Return, by case: measured J and s of a step, predicted J and s, J at the measured s."""
    rows = {r["case"]: r for r in json.loads((SHARED / "energy_steps.json").read_text())}
    h200 = with_value(ns.load_arch("h200"), "power.idle", rows["idle"]["watts"])
    found = {}
    for name, (case, workload, changes, launch) in STEPS.items():
        given = ns.load_workload(workload)
        row = rows[case]
        wall = row["ms_per_step"] * 1e-3
        ways = {name: (transformed(given, changes), h200)}
        if launch == "eager":
            bare = unprofiled(given)
            speed = ns.replay(bare, h200, launch).wall_s / wall
            ways |= {f"{name}, profiler out": (bare, h200),
                     f"{name}, a host {speed:.2f} times as fast":
                     (bare, with_value(h200, "host.speed", speed))}  # fmt: skip
        for told, (one, machine) in ways.items():
            result = ns.replay(one, machine, launch)
            found[told] = (row["mj_per_step"] * 1e-3, wall, result,
                           at_measured_rate(one, machine, wall))  # fmt: skip
    return found


def of_steps():
    """Return joules of decode steps, none of which was fitted to."""
    if not SHARED.is_dir():
        return "(../shared is not beside the checkout)\n"
    lines = ["| step | measured [mJ] | predicted [mJ] | band | error | wall, measured [ms] | "
             "predicted | at the measured wall [mJ] | error |",
             "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, (joules, wall, result, at_wall) in steps().items():
        low, high = (1e3 * end for end in result.energy_band_j)
        lines.append(f"| {name} | {1e3 * joules:.0f} | {1e3 * result.energy_j:.0f} | {low:.0f} to "
                     f"{high:.0f} | {result.energy_j / joules - 1:+.1%} | {1e3 * wall:.2f} | "
                     f"{1e3 * result.wall_s:.2f} | {1e3 * at_wall:.0f} | "
                     f"{at_wall / joules - 1:+.1%} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def c500(of_share=True):
    """Return power of a decode step on a MetaX C500 and its band [W]."""
    designs, workload = Designs(ns.load_arch("metax_c500")), ns.load_workload("paddleocr_vl_decode")
    time = durations(workload, designs)
    wall = time.busy() / len(workload.steps) / C500_BUSY if of_share else np.array([C500_STEP])
    spent = step_energy(workload, designs, time, wall)
    low, high = spent.band(designs, wall, wall)
    parts = {block: float((joules / wall)[0]) for block, joules in spent.by_block().items()}
    return float(spent.watts[0]), float((low / wall)[0]), float((high / wall)[0]), parts


def of_c500():
    """Return the mean power of a MetaX C500 that serves."""
    lines = ["| evaluated at | measured [W] | predicted [W] | band | of it board at rest | clocks |"
             " work |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    for told, share in ((f"{C500_BUSY:.1%} busy", True), (f"{1e3 * C500_STEP:g} ms a step", False)):
        watts, low, high, parts = c500(share)
        work = watts - parts["board"] - parts["die"]
        lines.append(f"| {told} | {C500_WATTS:.0f} | {watts:.0f} | {low:.0f} to {high:.0f} | "
                     f"{parts['board']:.0f} | {parts['die']:.0f} | {work:.0f} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def of_blocks():
    """Return where the joules of decode steps go."""
    results = {f"{arch}, {workload.removesuffix('_decode')}, {launch}":
               ns.replay(ns.load_workload(workload), ns.load_arch(arch), launch)
               for workload, arch, launch in BLOCKS}  # fmt: skip
    parts = {told: split(result.energy_by_block) for told, result in results.items()}
    shares = pd.DataFrame(parts).fillna(0.0) / [r.energy_j for r in results.values()]
    little = (shares < LITTLE).all(axis=1)
    shares = pd.concat([shares[~little], shares[little].sum().to_frame("all else").T])
    lines = [f"| share of a step [%] | {' | '.join(results)} |", "|---|" + "---|" * len(results)]
    lines += [f"| {name} | {' | '.join(f'{100 * share:.1f}' for share in row)} |"
              for name, row in shares.iterrows()]  # fmt: skip
    cells = [f"{1e3 * r.energy_j:.0f} ({1e3 * r.energy_band_j[0]:.0f} to "
             f"{1e3 * r.energy_band_j[1]:.0f})" for r in results.values()]  # fmt: skip
    lines += [
        f"| **a step [mJ]**, band | {' | '.join(cells)} |",
        f"| mean power [W] | {' | '.join(f'{r.power_w:.0f}' for r in results.values())} |",
    ]
    return "\n".join(lines) + "\n"


def split(blocks):
    """Return energy of work by block, and of clocks, leakage and board for all blocks [J]."""
    found = {block: kinds["dynamic"] for block, kinds in blocks.items() if "dynamic" in kinds}
    die = {block: kinds for block, kinds in blocks.items() if block != "board"}
    for kind in ("clocks", "leakage"):
        found[f"{kind} of the die"] = sum(kinds.get(kind, 0.0) for kinds in die.values())
    found["board beside the die"] = sum(blocks.get("board", {}).values())
    return found


def of_pacing():
    """Return the energy of a period with one decode step at several clocks."""
    workload, h200 = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    flat = with_value(h200, "voltage.slope", 0.0)
    rest = sleeping(h200)
    cases = (("H200", h200, rest), ("H200, asleep at no power", h200, 0.0),
             ("one voltage, asleep at no power", flat, 0.0),
             ("one voltage, clocks stay up", flat, idle_power(flat)))  # fmt: skip
    lines = [f"| machine | asleep [W] | {' | '.join(f'{s:g}' for s in SHARES)} | best |",
             "|---|---|" + "---|" * (len(SHARES) + 1)]  # fmt: skip
    for told, arch, sleep in cases:
        found = over_period(modes(workload, arch, "graph", SHARES), PERIOD, sleep)
        best = SHARES[int(found.argmin())]
        name = {SHARES[0]: "slow and steady", SHARES[-1]: "race to idle"}.get(best, f"{best:g}")
        cells = " | ".join(f"{1e3 * joules:.0f}" for joules in found)
        lines.append(f"| {told} | {sleep:.0f} | {cells} | {name} |")
    return "\n".join(lines) + "\n"


def of_request():
    """Return clocks of a request within a latency: one for all phases, or one for each."""
    h200 = ns.load_arch("h200")
    tables = {w: modes(ns.load_workload(w), h200, "graph") for w in REQUEST}
    fastest = sum(n * float(tables[w]["wall_high_s"].min()) for w, n in REQUEST.items())
    lines = ["| within, of the least time | clocks | vision | prompt | decode | energy [J] |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for more in (1.2, 1.5):
        for told, together in (("one", True), ("by phase", False)):
            found = choose(tables, REQUEST, fastest * more, together)
            shares = " | ".join(f"{found.shares[w]:g}" for w in REQUEST)
            lines.append(f"| {more:g} | {told} | {shares} | {found.energy_j:.1f} |")
    return "\n".join(lines) + "\n"


def main():
    for title, table in (
        ("Power of the board that constants were fitted to", of_axis),
        ("Boards held back", of_others), ("Clock at the power limit", of_clock),
        ("Decode steps", of_steps), ("MetaX C500", of_c500), ("By block", of_blocks),
        (f"Energy of {1e3 * PERIOD:g} ms with one decode step [mJ], by clock", of_pacing),
        ("Clocks by phase", of_request),
    ):  # fmt: skip
        print(f"## {title}\n\n{table()}")


if __name__ == "__main__":
    main()
