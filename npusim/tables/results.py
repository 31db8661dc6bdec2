"""What ``npusim inspect, replay, sweep, compare, archs, workloads`` print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from npusim import terminal, units
from npusim.arch import Arch
from npusim.beside import Compared
from npusim.caveats import READ_ELSEWHERE
from npusim.inspection import HOST_TIMES
from npusim.models import modelled
from npusim.outcome import Outcome
from npusim.parameters import PARAMETERS
from npusim.predict import Result
from npusim.silicon import of_others
from npusim.tables.workload import kinds, origins
from npusim.transforms import TRANSFORMABLE
from npusim.workload import Workload


def inspection(w: Workload, content: dict[str, Any]) -> None:
    """Print what a workload holds."""
    steps, marked = max(content["steps"], 1), content["steps"]
    console = terminal.plain()
    about = [
        terminal.many(content["kernels"], "operation")
        + f" ({content['distinct_operations']} distinct)",
        terminal.many(marked, "marked step")
        if marked
        else "no marked steps: the capture counts as one",
        terminal.many(content["layers"], "layer") if content["layers"] else "layers unknown",
        content["device"] or "device unknown",
    ]
    console.print(Text(f"{w.name}: {', '.join(about)}"))
    active, wall = content["device_active_s"], content["wall_s"]
    each = f", {terminal.seconds(wall / steps)} a step" if steps > 1 else ""
    idle, waits = f"{content['idle_share']:.1%}", terminal.many(content["syncs"], "wait")
    device = f"device active {terminal.seconds(active)}, idle {idle} of wall"
    console.print(Text(f"wall {terminal.seconds(wall)}{each}; {device}; {waits}"))
    for note in content["notes"]:
        console.print(Text(f"note: {note}"))
    kinds(content, "all steps together" if steps > 1 else "one step")
    if set(content["origins"]) != {"measured"}:
        origins(content["origins"])
    if content["host"] is not None:
        _host(content["host"])
    share = content["classified_busy_share"]
    if content["device_busy_s"]:
        console.print(Text(f"with kind, FLOP and bytes: {share:.2%} of device time"))
    for kernel, entry in list(content["unclassified"].items())[:10]:
        count, seconds = entry["count"], terminal.seconds(entry["seconds"])
        console.print(Text(f"  without FLOP and bytes: {count} x {kernel[:80]}, {seconds}"))
    outside = content["outside_steps"]
    if outside["count"]:
        left = f"{terminal.many(outside['count'], 'operation')} outside the marked steps"
        console.print(Text(f"left out: {left}, {terminal.seconds(outside['seconds'])}"))


def _host(host: dict[str, Any]) -> None:
    """Print where the host spends a step, and each thread if several launch."""
    mean = f"mean of {host['steps']} steps" if host["steps"] > 1 else "one step"
    counts = f"launches: {host['launches']:.6g}, waits: {host['waits']:.6g}"
    columns = ["time", "share of wall"]
    table = terminal.blank(f"host, {mean} ({counts})", "", *columns, right=columns)
    for time, label in {**HOST_TIMES, "wall_s": "wall"}.items():
        share = host[time] / host["wall_s"] if host["wall_s"] else 0.0
        terminal.add(table, label, terminal.seconds(host[time]), f"{share:.1%}")
    terminal.show(table)
    if len(host["threads"]) > 1:
        times = {time: label for time, label in HOST_TIMES.items() if time in host["threads"][0]}
        columns = ["launches", *times.values(), "waits"]
        table = terminal.blank(f"host by thread, {mean}", "thread", *columns, right=columns)
        for one in host["threads"]:
            spent = (terminal.seconds(one[time]) for time in times)
            launches, waits = f"{one['launches']:.6g}", f"{one['waits']:.6g}"
            terminal.add(table, str(one["thread"]), launches, *spent, waits)
        terminal.show(table)


def replayed(r: Result, what: str = "one step") -> None:
    """Print a prediction."""
    console = terminal.plain()
    console.print(Text(f"{r.workload} on {r.arch}, {r.launch} launch, {r.mode} mode, {what}"))
    table = terminal.blank(
        "",
        "lane",
        "time",
        "band p10-p90",
        "share of wall",
        right=("time", "band p10-p90", "share of wall"),
    )
    band = r.band

    def spread(pair: tuple[float, float] | None) -> str:
        return f"{terminal.seconds(pair[0])} - {terminal.seconds(pair[1])}" if pair else ""

    terminal.add(
        table, "wall", terminal.seconds(r.wall_s), spread(band.wall_s if band else None), "100.0%"
    )
    terminal.add(
        table,
        "device busy",
        terminal.seconds(r.device_busy_s),
        spread(band.device_busy_s if band else None),
        f"{r.device_busy_s / r.wall_s:.1%}",
    )
    terminal.add(
        table,
        "device waits for host and launch",
        terminal.seconds(r.device_idle_s),
        "",
        f"{r.idle_share:.1%}",
    )
    terminal.add(
        table, "host work", terminal.seconds(r.host_busy_s), "", f"{r.host_busy_s / r.wall_s:.1%}"
    )
    terminal.add(
        table,
        "host waits for device",
        terminal.seconds(r.host_wait_s),
        "",
        f"{r.host_wait_s / r.wall_s:.1%}",
    )
    terminal.show(table)
    limits = ", ".join(f"{name} {share:.1%}" for name, share in r.limits.items())
    if r.tokens is not None and r.s_per_token is not None:
        each, rate = terminal.seconds(r.s_per_token), 1.0 / r.s_per_token
        made = f"{r.tokens:.4g} {'token' if r.tokens == 1 else 'tokens'} a step"
        console.print(Text(f"{made}: {each} a token, {rate:.4g} tokens/s"))
    console.print(Text(f"{r.launches:.0f} launches; device time goes to: {limits}"))
    used = (f"{unit} {share:.1%}" for unit, share in r.utilisation.items() if share >= 0.0005)
    console.print(Text(f"at work at its peak rate, of wall time: {', '.join(used) or 'nothing'}"))
    served = (f"{level} {units.show(sum(moved.values()), 'B')}"
              for level, moved in r.traffic.items() if moved)  # fmt: skip
    moving = "" if r.movement_j is None else f"; to move them takes {units.show(r.movement_j, 'J')}"
    console.print(Text(f"bytes read and written: {', '.join(served)}{moving}"))
    _energy(console, r)
    _footer(console, r.notes, r.not_modelled)
    console.print(
        Text(
            f"made by npusim {r.made_by['model']}, workload {r.made_by['workload'][:12]}, "
            f"arch {r.made_by['arch'][:12]}",
            style="dim",
        )
    )


def _energy(console: Console, r: Result) -> None:
    """Print the energy of a step and the blocks that take most of it."""
    if r.energy_j is None or r.power_w is None:
        return
    band = ""
    if r.energy_band_j is not None:
        band = " (" + " - ".join(units.show(end, "J") for end in r.energy_band_j) + ")"
    total = {block: sum(kinds.values()) for block, kinds in r.energy_by_block.items()}
    most = sorted(total, key=lambda block: -total[block])[:6]
    where = ", ".join(f"{block} {total[block] / r.energy_j:.1%}" for block in most)
    console.print(Text(f"energy: {units.show(r.energy_j, 'J')}{band}, {units.show(r.power_w, 'W')} "
                       f"on the board; most of it: {where}"))  # fmt: skip


def _footer(console: Console, notes: Sequence[str], unread: Sequence[str]) -> None:
    for note in notes:
        console.print(Text(f"note: {note}"))
    elsewhere = [f"{path} ({READ_ELSEWHERE[path]})" for path in unread if path in READ_ELSEWHERE]
    if elsewhere:
        console.print(Text("no effect here: " + ", ".join(elsewhere)))
    nowhere = [path for path in unread if path not in READ_ELSEWHERE]
    if nowhere:
        console.print(
            Text("no effect in this version (no cost model reads them): " + ", ".join(nowhere))
        )


def swept(outcome: Outcome, folder: Path) -> None:
    """Print the result of a sweep."""
    s, console = outcome.summary, terminal.plain()
    whole = " + ".join(f"{n:g} x {name}" if n != 1 else name for name, n in s["steps"].items())
    console.print(Text(f"{s['title']}: {s['designs']} designs on {whole}"))
    if s["question"]:
        console.print(Text(f"question: {s['question']}"))
    steps = list(s["steps"].values())
    mix = "one step" if len(steps) == 1 else "a mix of steps"
    _times(console, s, mix if sum(steps) <= 1 else f"{sum(steps):g} steps together")
    for label in ("best", "nominal"):
        axes = ", ".join(f"{p} {_value(p, s[label][p], a['unit'])}" for p, a in s["axes"].items())
        machine = f"{s[label]['arch']}, " if "arch" in s[label] else ""
        console.print(Text(f"{label}: {machine}{axes}"))
    if s["constraints"]:
        console.print(Text(f"constraints leave {s['allowed']} of {s['designs']} designs"))
    if s["as_fast"] > 1:
        console.print(
            Text(f"{s['as_fast']} designs are as fast as the best; it costs least of them")
        )
    if s["best_at_edge"]:
        console.print(
            Text(f"the best lies at the edge of {', '.join(s['best_at_edge'])}: look beyond")
        )
    if s["slight_effect"]:
        slight = ", ".join(s["slight_effect"])
        console.print(Text(f"axes that change the time of the best by less than 0.1%: {slight}"))
    if s["no_effect"]:
        console.print(
            Text("axes that change no time for these workloads: " + ", ".join(s["no_effect"]))
        )
    _beside(console, outcome)
    objectives = ", ".join(s["pareto"]["objectives"])
    console.print(Text(f"Pareto front: {s['pareto']['size']} designs (small {objectives})"))
    _footer(console, s["notes"], s["not_modelled"])
    console.print(Text(f"{s['designs']} designs in {s['seconds']:.2f} s; written to {folder}"))


def _value(path: str, value: float | None, unit: str) -> str:
    """Return a value with its unit, or that the machine has none."""
    if value is None:
        return "as traced" if path in TRANSFORMABLE else "not there"
    return units.show(value, unit)


def _times(console: Console, s: dict[str, Any], title: str) -> None:
    """Print the best and the nominal design beside the baseline, predicted and measured."""
    decodes = "s_per_token" in s["best"]
    spends = "energy_j" in s["best"]
    numbers = ("wall", "band p10-p90", "device busy", "idle", *(("a token",) if decodes else ()),
               *(("energy",) if spends else ()))  # fmt: skip
    table = terminal.blank(title, "", "launch", *numbers, right=numbers)
    rows: list[tuple[str, dict[str, Any]]] = [("best", s["best"]), ("nominal", s["nominal"])]
    base = s["baseline"] or {"arch": "", "predicted": {}, "measured_wall_s": {}}
    for kind, seconds in base["measured_wall_s"].items():
        if seconds is not None:
            terminal.add(
                table,
                f"{base['arch']} measured, {kind}",
                "eager",
                terminal.seconds(seconds),
                *[""] * (len(numbers) - 1),
            )
    rows += [
        (f"{base['arch']} predicted", {**r, "launch": m}) for m, r in base["predicted"].items()
    ]
    for label, row in rows:
        low, high = row["wall_low_s"], row["wall_high_s"]
        band = f"{terminal.seconds(low)} - {terminal.seconds(high)}" if low is not None else ""
        busy, idle = terminal.seconds(row["device_busy_s"]), f"{row['idle_share']:.1%}"
        each = row.get("s_per_token")
        token = ["" if each is None else terminal.seconds(each)] if decodes else []
        joules = row.get("energy_j")
        token += ["" if joules is None else units.show(joules, "J")] if spends else []
        terminal.add(
            table, label, row["launch"], terminal.seconds(row["wall_s"]), band, busy, idle, *token
        )
    terminal.show(table)


def _beside(console: Console, outcome: Outcome) -> None:
    """Print how the best design stands beside each measured figure."""
    best_id = outcome.summary["best"]["design_id"]
    row = outcome.comparison[outcome.comparison["design_id"] == best_id].iloc[0]
    numbers = ("times faster", "band p10-p90")
    table = terminal.blank("best design beside measurement", "figure", *numbers, right=numbers)
    for column in outcome.comparison.columns:
        if f"{column}, low" not in row:
            continue
        low, high = row[f"{column}, low"], row[f"{column}, high"]
        band = f"{low:.2f} - {high:.2f}" if np.isfinite(low) else ""
        terminal.add(table, str(column), f"{row[column]:.2f}", band)
    terminal.show(table)


def compared(results: Sequence[Compared]) -> None:
    """Print comparisons with measurement."""
    console = terminal.plain()
    for c in results:
        if "times_faster_than" in c.summary:
            _compared_sweep(console, c)
        else:
            _compared_workload(console, c)


def _compared_sweep(console: Console, c: Compared) -> None:
    console.print(Text(f"{c.name}: {c.summary['designs']} designs beside what was measured"))
    other = [path for path in c.table.columns if path in TRANSFORMABLE]
    if other:
        console.print(Text(f"note: measured as traced; designs that change {', '.join(other)} do "
                           "other work"))  # fmt: skip
    for workload, figures in c.summary["times_faster_than"].items():
        numbers = ("slowest", "median", "fastest", "its band")
        title = f"{workload}: times faster than"
        table = terminal.blank(title, "figure", *numbers, right=numbers)
        for name, entry in figures.items():
            low, high = entry["fastest_low"], entry["fastest_high"]
            band = f"{low:.2f} - {high:.2f}" if low is not None else ""
            terminal.add(
                table, name, *(f"{entry[k]:.2f}" for k in ("slowest", "median", "fastest")), band
            )
        terminal.show(table)


def _compared_workload(console: Console, c: Compared) -> None:
    numbers = ("measured", "predicted", "error")
    table = terminal.blank(
        f"{c.name} on {c.summary['arch']}: one step",
        "quantity",
        "launch",
        *numbers,
        "same kernels",
        "source",
        right=numbers,
    )
    for row in c.summary["steps"]:
        terminal.add(
            table,
            row["quantity"].removesuffix("_s"),
            row["launch"],
            terminal.seconds(row["value"]),
            terminal.seconds(row["predicted"]),
            f"{row['error']:+.1%}",
            "yes" if row["same_kernels"] else "no",
            row["source"],
        )
    terminal.show(table)
    errors = {
        **({"all": c.summary["kernels"]} if c.summary["kernels"] else {}),
        **c.summary["kinds"],
    }
    names = ("operations", "median", "p90", "worst", "time-weighted", "sum")
    table = terminal.blank(
        "device time of kernels, predicted against measured", "kind", *names, right=names
    )
    for kind, e in errors.items():
        shares = (e["median_ape"], e["p90_ape"], e["worst_ape"], e["weighted_ape"])
        terminal.add(
            table,
            kind,
            str(e["operations"]),
            *(f"{v:.1%}" for v in shares),
            f"{e['busy_error']:+.1%}",
        )
    terminal.show(table)


def arch_content(a: Arch) -> dict[str, Any]:
    """Return a machine with its provenance as plain values in SI units."""
    readers = modelled()
    return {
        "name": a.name,
        "title": a.title,
        "devices": list(a.devices),
        "note": a.note,
        "values": {
            path: {
                "value": value,
                "unit": PARAMETERS[path].unit,
                "kind": p.kind,
                "source": p.source,
                "low": p.low,
                "high": p.high,
                "models": list(readers.get(path, ())),
            }
            for path, value in a.values.items()
            for p in [a.provenance[path]]
        },
    }


def arch(a: Arch) -> None:
    """Print a machine with the source of every value below it."""
    console, readers, others = terminal.plain(), modelled(), of_others(a)
    console.print(Text(f"{a.name}: {a.title}"))
    if a.note:
        console.print(Text(a.note))
    for path, value in a.values.items():
        if path in others:
            continue
        p, unit = a.provenance[path], PARAMETERS[path].unit
        low, high = (units.show(end, unit) for end in (p.low, p.high))
        spread = f" ({low} - {high})" if p.low != p.high else ""
        nobody = f"no model ({READ_ELSEWHERE[path]})" if path in READ_ELSEWHERE else "no model yet"
        reader = ", ".join(readers.get(path, (nobody,)))
        console.print(
            Text(f"{path:28} {units.show(value, unit)}{spread}, {p.kind}, read by: {reader}")
        )
        console.print(Padding(Text(p.source, style="dim"), (0, 0, 0, 29), expand=False))


def arch_list(known: Sequence[Arch]) -> None:
    """Print the machines that ship."""
    numbers = ("units", "DRAM", "values", "assumed")
    table = terminal.blank("", "name", "title", *numbers, right=numbers)
    for a in known:
        assumed = sum(p.kind == "assumed" for p in a.provenance.values())
        dram = units.show(a["memories.dram.bandwidth"], "B/s")
        terminal.add(
            table,
            a.name,
            a.title,
            f"{a['units.count']:.0f}",
            dram,
            str(len(a.values)),
            str(assumed),
        )
    terminal.show(table)


def workload_list(known: Sequence[Workload]) -> None:
    """Print the workloads that ship."""
    numbers = ("operations a step", "wall a step", "device busy", "classified")
    table = terminal.blank("", "name", "device", "phase", *numbers, right=numbers)
    for w in known:
        steps = len(w.steps)
        terminal.add(
            table,
            w.name,
            str(w.meta.get("device", "")),
            ", ".join(sorted(set(w.text("phase")))),
            f"{len(w) / steps:.0f}",
            terminal.seconds(w.steps.wall_s.mean()),
            terminal.seconds(float(w["duration_s"].sum()) / steps),
            f"{w.classified_busy_share:.1%}",
        )
    terminal.show(table)


def workload(w: Workload, content: dict[str, Any]) -> None:
    """Print a workload with its provenance."""
    inspection(w, content)
    console = terminal.plain()
    for key, value in content["meta"].items():
        console.print(Text(f"{key}: {value}"))
