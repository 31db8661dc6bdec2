"""Write the tables of docs/host_studies.md: three studies of a host-bound service, looked into.

    PYTHONPATH=. python benchmarks/host_studies.py            prints the tables
    PYTHONPATH=. python benchmarks/host_studies.py --write    puts them into the page

The table of kernels of seed 000 is read from ../shared/facts; without it they cannot be made.
"""

import json
import re
import sys
from pathlib import Path

import host_studies_figures as study
import host_studies_request as request
import host_studies_service as service
import host_studies_vision as vision
import numpy as np

import npusim as ns
from npusim.cold_start import distinct_kernels, time_a_kernel
from npusim.latency import slow_one, with_slow_one

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "host_studies.md"
FIRST_USE = ROOT / "workloads" / "experiments"
PARTS = ("paddleocr_vl_vision", "paddleocr_vl_prefill", "paddleocr_vl_decode")
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def percent(value, digits=1):
    return f"{100 * value:+.{digits}f} %"


def ms(seconds, digits=1):
    return f"{1e3 * seconds:.{digits}f}"


def off(told, measured):
    return percent(told / measured - 1, 0)


# ---------------------------------------------------------------- a decode step


def steps():
    """Step cost from aggregate throughputs, as asked, and from runs of full overlap."""
    costs = (("averages at 1 and 2", service.asked_cost()),
             ("single runs of full overlap", service.runs_cost()))  # fmt: skip
    return table(
        ["from", "a, ms", "b, ms", "step of 4, ms", "told at 4, tok/s", "measured average", "off"],
        [[name, ms(c.dispatch_s), ms(c.request_s), ms(c.time(4)), f"{c.tokens_per_s(4):.1f}",
          study.AGGREGATE[4], off(c.tokens_per_s(4), study.AGGREGATE[4])] for name, c in costs],
    )  # fmt: skip


def pairs():
    """Simulate the five runs of two clients."""
    told = [service.pairs(cost) for cost in (service.runs_cost(), service.asked_cost())]
    rows = [[f"{a} and {b}", m, f"{x:.1f}", f"{y:.1f}"] for (a, b), m, x, y in
            zip(study.PAIRS, study.PAIRS_TOKENS_PER_S, *told, strict=True)]  # fmt: skip
    mean = study.AGGREGATE[2]
    ends = [f"**{np.mean(t):.1f}** ({off(np.mean(t), mean)})" for t in told]
    return table(["tokens of the two answers", "measured, tok/s", "told with a, b of runs",
                  "with a, b of averages"],
                 [*rows, ["mean", f"**{mean}**", *ends]])  # fmt: skip


# ---------------------------------------------------------------- the request of 4.38 s


def accounting():
    """Replay the request in every reading."""
    share = study.BUSY_S / study.WALL_S
    rows = [["measured", "", "", "", f"{study.WALL_S:.2f}", "", ms(study.WALL_S / study.TOKENS),
             f"{share:.1%}"]]  # fmt: skip
    for a in request.accounting():
        rows.append([
            a.reading.name, f"{a.launches:.0f}", f"{1e6 * a.host_s:.0f}",
            "waits for each" if a.reading.every else "runs ahead", f"{a.wall_s:.2f}",
            off(a.wall_s, study.WALL_S), ms(a.wall_s / study.TOKENS), f"{a.busy_s / a.wall_s:.1%}",
        ])  # fmt: skip
    return table(["reading", "launches a step", "host, us a launch", "host", "wall, s", "off",
                  "ms a token", "device busy"], rows)  # fmt: skip


def tracing():
    """What the tracer would cost a launch, beside what PyTorch's costs on an H200."""
    w = request.table()
    counts = (("listed", request.launches_a_step(w)), ("fourth study", request.FOURTH),
              ("if the rest are 6 us kernels", request.MANY))  # fmt: skip
    rows = [[f"mcTracer, C500, {name}", f"{n:.0f}", f"{1e6 * request.tracing_s(n):.1f}"]
            for name, n in counts]  # fmt: skip
    for row in experiments("h200_host_axes"):
        if row["axis"] == "profiler" and row["call"] == "decoder":
            what = "shapes recorded" if row["shapes"] else "no shapes"
            cost = (row["profiled_us"] - row["us"]) / row["device_operations"]
            rows.append([f"PyTorch's profiler, H200, {what}", f"{row['device_operations']:.0f}",
                         f"{cost:.1f}"])  # fmt: skip
    return table(["tracer", "launches a step", "us a launch"], rows)


# ---------------------------------------------------------------- what is claimed


def claims():
    """What the studies say, and what their own data say."""
    w = request.table()
    kernels = {n: w["duration_s"][w.mask("kernel", n)] for n in w.labels["kernel"]}
    head = next(t for n, t in kernels.items() if n.startswith("b16gemvn_row_double_buffer"))
    attention = next(t for n, t in kernels.items() if n.startswith("flash_fwd_splitkv"))
    lm_head = 2 * 103_424 * 1024 / head.mean()
    mean, usual, p95 = study.ODD_ROW
    told = {n: with_slow_one(n, mean, usual).p95_s for n in (9, 10, 11, 12)}
    best = study.AGGREGATE[4]
    alone = study.AGGREGATE[1]
    return table(["seed", "it says", "its data say"], [
        ["000", "batching: +780 % (10 to 88 tok/s)",
         f"{percent(best / alone - 1, 0)} on equal terms ({alone} to {best}); the 10 tok/s were "
         "measured while kernels were still being compiled"],
        ["000", "at most 2 ms of GPU a step",
         f"{ms(request.device_busy(w) / study.STEPS)} ms of all kernels, "
         f"{ms(request.decode_kernels_s(w))} of those listed; attention alone "
         f"{ms(float(attention.sum()) / study.STEPS, 2)}"],
        ["000", "about 21 ms of host a step",
         f"a difference, not a measurement: {ms(study.WALL_S / study.TOKENS)} ms less device time. "
         "The host is busy that long if it waits for every kernel, and all of the step if it "
         "runs ahead"],
        ["000", "64 GB of GDDR6",
         f"lm_head reads 212 MB at {lm_head / 1e9:,.0f} GB/s: HBM (a GDDR6X board, the RTX 4090, "
         "has 1,008)"],
        ["000", "854 us of GPU time (once)", f"{ms(request.device_busy(w), 0)} ms"],
        ["000", f"{study.AGGREGATE[2]} tok/s at batch 2",
         "in three of five runs one answer ended early and the other decoded alone; where both "
         "decoded throughout it was 86.5 and 87.5"],
        ["001", f"an outlier of 8 s (P95 {p95:.4f} s)",
         f"P95 of ten lies between the two largest: the slow request took "
         f"{slow_one(10, mean, usual):.2f} s. One slow request of 10 makes mean and P95 agree "
         f"({told[10]:.4f}), as does one of 11 ({told[11]:.4f}), not of 9 ({told[9]:.2f}) or 12 "
         f"({told[12]:.2f}); the report says ten"],
        ["002", f"single request {percent(study.SINGLE_S[1] / study.SINGLE_S[0] - 1, 2)}",
         f"{ms(service.saved_s())} ms of one request. Means of ten equal requests of seed 001 "
         f"scatter by {spread_of_means():.1%}: not told apart from nothing"],
    ])  # fmt: skip


def spread_of_means():
    means = np.array(study.CLEAN_MEANS)
    return float(means.std(ddof=1) / means.mean())


# ---------------------------------------------------------------- the first request


def experiments(name):
    return json.loads((FIRST_USE / f"{name}.json").read_text())


def first_use(name, way):
    rows = experiments(name)
    return np.array([r["first_us"] for r in rows if r.get("way") == way]) / 1e6


def distinct():
    """Return kernels: of the study's table, of vision, of all of the traced model."""
    parts = [ns.load_workload(name) for name in PARTS]
    return [len(distinct_kernels(x)) for x in ([request.table()], parts[:1], parts)]


def first():
    """Seconds a kernel that the study implies, beside what they are on an H200."""
    listed, seen, whole = distinct()
    counts = ((listed, "listed"), (seen, "vision, H200 trace"), (whole, "all, H200 trace"))
    rate = np.mean([seconds / tokens for seconds, tokens in study.IMAGES])
    again, tokens = study.RESTARTED
    cases = (("nothing cached: 135.2 s", study.COLD_S, study.WARM_S, counts),
             ("new process, cache filled: 4.28 s", again, rate * tokens, counts[1:]))  # fmt: skip
    rows = [[f"C500, {name}", f"{n} ({what})", f"{time_a_kernel(cold, warm, n):.2g}"]
            for name, cold, warm, of in cases for n, what in of]  # fmt: skip
    for name, when in (("h200_host_axes", "first process"), ("h200_host_axes_again", "second")):
        for way in ("compiled", "loaded"):
            s = first_use(name, way)
            rows.append([f"H200, {way}, {when}", f"{s.size} (measured)",
                         f"{np.median(s):.2g} ({s.min():.1g} to {s.max():.1g})"])  # fmt: skip
    return table(["first request", "kernels", "s a kernel"], rows)


def slow():
    """How many kernels would explain what other first or slow requests took too long."""
    whole = distinct()[-1]
    compiled = {"C500": time_a_kernel(study.COLD_S, study.WARM_S, whole),
                "H200": float(np.median(first_use("h200_host_axes", "compiled")))}  # fmt: skip
    mean, usual, _ = study.ODD_ROW
    cases = (("seed 001's slow one of ten", slow_one(10, mean, usual) - usual),
             ("seed 002's single request, if it is a first one",
              study.SINGLE_S[0] - study.SEQUENTIAL_S))  # fmt: skip
    return table(["request", "too long by, s", *(f"kernels at {s:.2f} s ({n})"
                                                 for n, s in compiled.items())],
                 [[name, f"{extra:.1f}", *(f"{extra / s:.0f}" for s in compiled.values())]
                  for name, extra in cases])  # fmt: skip


# ---------------------------------------------------------------- four clients


def clients():
    """Predict seed 001's four clients from its one client and a step cost."""
    costs = (("averages", service.asked_cost()), ("runs", service.runs_cost()))
    ways = (("one by one", service.one_by_one), ("packed, first alone", service.packed),
            ("packed, all together", service.together))  # fmt: skip
    rows = [["measured", "", "", f"{study.FOUR_S:.3f}", "", f"{study.FOUR_PER_S:.2f}", ""]]
    for name, cost in costs:
        for how, way in ways:
            run = way(cost)
            rows.append([
                f"a, b of {name}", ms(service.taken_in(cost), 0), how,
                f"{run.latency_s.mean():.3f}", off(run.latency_s.mean(), study.FOUR_S),
                f"{run.requests_per_s:.2f}", off(run.requests_per_s, study.FOUR_PER_S),
            ])  # fmt: skip
    return table(["step", "to take in, ms", "taken in", "mean, s", "off", "req/s", "off"], rows)


def paid():
    """By how much the mean latency falls for each second that one request blocks less."""
    cost, counts = service.runs_cost(), (1, 2, 4, 8)
    ways = (("one by one", service.one_by_one, {}), ("one by one, images of several sizes",
            service.one_by_one, {"sizes": service.SPREAD}), ("packed, first alone",
            service.packed, {}), ("packed, all together", service.together, {}))  # fmt: skip
    return table(["taken in", *(f"{n} client{'s' if n > 1 else ''}" for n in counts)],
                 [[name, *(f"{service.paid(way, cost, n, **how):.2f}" for n in counts)]
                  for name, way, how in ways])  # fmt: skip


# ---------------------------------------------------------------- the vision path


def changes():
    """What each change saves of one request, and of the mean of 4x8."""
    arch, cost = ns.load_arch("metax_c500"), service.runs_cost()
    trace = vision.traced(arch)
    rows = []
    for change in (*study.CHANGES, vision.all_changes()):
        launches, syncs, seconds = trace[change.number]
        saved = vision.counted_s(change, arch)
        gains = [percent(service.change(service.packed, cost, s)["mean"]) for s in (saved, seconds)]
        rows.append([change.number or "", change.name, f"{change.launches}, {change.syncs}",
                     ms(saved), gains[0], f"{launches}, {syncs}", ms(seconds),
                     gains[1]])  # fmt: skip
    own = service.saved_s()
    measured = percent(study.GAIN["mean"])
    rows.append(["", "**measured**", "", ms(own), measured, "", ms(own), measured])
    return table(["", "change", "code: launches, syncs", "ms", "4x8 mean", "trace: launches, syncs",
                  "ms", "4x8 mean"], rows)  # fmt: skip


def waits():
    """What a wait costs, by which lane is the slower one."""
    rows = []
    for device, wall, free, count in vision.waits_cost(ns.load_arch("metax_c500")):
        rows.append([ms(device, 0), ms(wall), ms(free), ms(wall - free),
                     f"{1e6 * (wall - free) / count:.0f}"])  # fmt: skip
    return table(["device time of the vision step, ms", "with its 99 waits, ms", "without, ms",
                  "they cost, ms", "us each"], rows)  # fmt: skip


def gains():
    """Predict 4x8 from the single request's saving alone."""
    cost, less, cached = service.runs_cost(), service.saved_s(), service.cached_s()
    g = study.GAIN
    rows = [["measured", "", *(percent(g[k]) for k in ("mean", "P50", "P95")), "", ""]]
    ways = [(name, way, {}) for name, way in service.WAYS]
    ways.append(("one by one, images of several sizes", service.one_by_one,
                 {"sizes": service.SPREAD}))  # fmt: skip
    for name, way, how in ways:
        told = service.change(way, cost, less, **how)
        rows.append([name, f"{way(cost, **how).latency_s.mean():.2f}",
                     *(percent(told[k]) for k in ("mean", "P50", "P95")),
                     ms(service.needed_s(way, cost), 0),
                     percent(service.change(way, cost, cached, **how)["mean"], 0)])  # fmt: skip
    return table(["reading", "mean before, s", "mean", "P50", "P95",
                  "ms to save for the measured mean", "mean, if every image were encoded already"],
                 rows)  # fmt: skip


TABLES = {f.__name__: f for f in (steps, pairs, accounting, tracing, claims, first, slow, clients,
                                  paid, changes, waits, gains)}  # fmt: skip


def page(text):
    """Return a page with its tables made anew."""
    return BLOCK.sub(lambda found: found[1] + "\n" + TABLES[found[2]]() + "\n" + found[3], text)


def main():
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(PAGE.read_text()))
        return
    for name, make in TABLES.items():
        print(f"{name}\n\n{make()}")


if __name__ == "__main__":
    main()
