"""What the host does before each kernel of the eager lowerings, from profiler traces of an H200.

    PYTHONPATH=. python benchmarks/lowering_host.py --write

A template has the kernels of a trace one by one, so each kernel of the trace says what the host did
before a kernel of a lowering. What recording operators took (`host.record`) is taken off, and the
mean over layers, steps and traces is kept, by operator and place: a step is a sum of them, so it is
the mean that counts. Work between a launch and a wait for it goes with the launch. Traces of one
sequence give the values; benchmarks/templates.py holds them against walls without the profiler,
those of 8, 16 and 32 sequences among them.
"""

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

import numpy as np
from templates import AS_TRACED

import npusim as ns
from npusim.templates import load_lowering, load_model
from npusim.templates.decoder import Tokens, decoder_operators
from npusim.templates.lower import Phase, lower, places
from npusim.templates.vision import vision_operators

FOLDER = Path(__file__).parent.parent / "workloads" / "lowerings" / "hosts"
SOURCE = (
    "means of own PyTorch profiler traces on an H200 host (Intel Xeon, PyTorch 2.11, Python "
    "3.12), what the profiler took for recording taken off; benchmarks/lowering_host.py"
)

# Trace -> model, lowering, what it does.
FITTED = {
    "paddleocr_vl_decode": ("paddleocr_vl", "hf-eager", 1),
    "deepseek_ocr_decode": ("deepseek_ocr", "hf-eager", 1),
    "deepseek_ocr_decode_grouped": ("deepseek_ocr", "hf-eager-grouped", 1),
    "paddleocr_vl_prefill": ("paddleocr_vl", "hf-eager", 628),
    "deepseek_ocr_vision": ("deepseek_ocr", "hf-eager", (1024, 1024)),
    "paddleocr_vl_vision": ("paddleocr_vl", "hf-eager", (728, 644)),
}


def operators(trace, model, lowering, what):
    """Return the operators of the step that a trace shows."""
    w, m, how = ns.load_workload(trace), load_model(model), load_lowering(lowering)
    if isinstance(what, tuple):
        m = load_model(model, AS_TRACED if model == "deepseek_ocr" else None)
        return m, list(vision_operators(m.vision, m.decoder.hidden, what))
    if what > 1:
        return m, list(decoder_operators(m.decoder, Tokens(1, what, 0), how, "all"))
    keys = int(w["n"][w.mask("kind", "attention")][0])
    return m, list(decoder_operators(m.decoder, Tokens(1, 1, keys - 1), how))


def aligned(w, step, kinds):
    """Return the kernels of a step that stand for those of a template, in order, or None.

    A trace may have a fill that a template has not (a counter that a library clears).
    """
    rows = np.flatnonzero(w["step"] == step).tolist()
    kind = w.text("kind")
    found, at = [], 0
    for wanted in kinds:
        while at < len(rows) and kind[rows[at]] != wanted and kind[rows[at]] == "memset":
            at += 1
        if at == len(rows) or kind[rows[at]] != wanted:
            return None
        found.append(rows[at])
        at += 1
    return found


def host_times():
    """Return host times [us] by lowering, operator and place."""
    record = ns.load_arch("h200")["host.record"]
    times = defaultdict(lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(list))))
    for trace, (model, lowering, what) in FITTED.items():
        m, ops = operators(trace, model, lowering, what)
        how = load_lowering(lowering)
        where = places(ops, how, m.dtype)
        kinds = lower("t", [Phase("decode", ops)], how, m.dtype, {"batch": 1}).text("kind")
        w = ns.load_workload(trace)
        own = np.maximum(w["host_s"] - w["records"] * record, 0.0) + w["presync_s"]
        own *= 1e6
        for step in range(1, len(w.steps)):
            rows = aligned(w, step, kinds)
            if rows is None:
                print(f"{trace}, step {step}: kernels differ from the template's, left out")
                continue
            seen = set()
            for (op, place), row in zip(where, rows, strict=True):
                which = "again" if (op, place) in seen else "first"
                seen.add((op, place))
                times[lowering][op][place][which].append(own[row])
    return times


def summary(each):
    """Return the usual time before a kernel, and that before the first of a step if it is planned.

    A first call that takes ten times as long as the next is one for which a library makes a plan.
    """
    again = statistics.mean(each["again"] or each["first"])
    first = statistics.mean(each["first"])
    planned = each["again"] and first > 10 * again and first > 1000
    return (again, first) if planned else (statistics.mean(each["first"] + each["again"]), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the files")
    write = parser.parse_args().write
    if write:  # those there may be of kernels that a lowering no longer has
        for file in FOLDER.glob("*.yaml"):
            file.unlink()
    for lowering, ops in host_times().items():
        own = {op for op in ops if lowering == "hf-eager" or op in ("experts",)}
        lines, planned = [f'source: "{SOURCE}"', "host_us:"], []
        for op in sorted(own):
            found = {place: summary(each) for place, each in sorted(ops[op].items())}
            told = ", ".join(f'"{place}": {usual:.2f}' for place, (usual, _) in found.items())
            lines.append(f"  {op}: {{{told}}}")
            first = ", ".join(f'"{p}": {us:.1f}' for p, (_, us) in found.items() if us)
            planned += [f"  {op}: {{{first}}}"] if first else []
        lines += ["first_us:", *planned] if planned else []
        text = "\n".join(lines) + "\n"
        if write:
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / f"{lowering}.yaml").write_text(text)
        else:
            print(text)


if __name__ == "__main__":
    main()
