"""Templates beside what was measured: the tables of docs/templates.md.

    PYTHONPATH=. python benchmarks/templates.py --write

Kernels, FLOP, bytes and device time of each shipped trace and of the template of the same step;
walls of eager steps; steps of a public study of an RTX 5090; whole pages on several machines.
"""

import argparse
from collections import Counter
from pathlib import Path

import pandas as pd

import npusim as ns
from npusim.arch import Designs
from npusim.durations import durations
from npusim.page import page_times

PAGE = Path(__file__).parent.parent / "docs" / "templates.md"
MARKS = {name: (f"<!-- {name} -->", f"<!-- end of {name} -->")
         for name in ("traces", "walls", "study", "pages")}  # fmt: skip
# The traced vision step had no class token, no resized positions and no ends of rows.
AS_TRACED = {
    "vision.tower.class_token": False, "vision.tower.pre_norm": False,
    "vision.tower.positions": "none", "vision.tower.table": 0, "vision.newline": False,
}  # fmt: skip
EXPERTS_HIT = 601 / 11  # of deepseek_ocr_prefill: tokens of random weights agree about experts
FITTED = ("paddleocr_vl_decode", "deepseek_ocr_decode", "deepseek_ocr_decode_grouped",
          "paddleocr_vl_prefill", "deepseek_ocr_vision", "paddleocr_vl_vision")  # fmt: skip
# Device-busy of a page's vision in the study, one view of 1024 x 1024 [ms].
STUDY = {"SAM": 21.90, "CLIP": 3.42}
SAM_LAYERS = 12


def asked(trace):
    """Return model, phase and arguments of the template that stands for a trace."""
    w = ns.load_workload(trace)
    model = "paddleocr_vl" if trace.startswith("paddle") else "deepseek_ocr"
    lowering = "hf-eager-grouped" if "grouped" in trace else "hf-eager"
    if "vision" in trace:
        image = (728, 644) if model == "paddleocr_vl" else (1024, 1024)
        settings = AS_TRACED if model == "deepseek_ocr" else None
        return model, "vision", {"image": image, "settings": settings}
    if "prefill" in trace:
        many = {"context": 628, "logits": "all"} if model == "paddleocr_vl" else {
            "context": 1024, "experts_hit": EXPERTS_HIT}  # fmt: skip
        return model, "prefill", many
    batch = int(trace.rsplit("_b", 1)[1]) if "_b" in trace else 1
    keys = int(w["n"][w.mask("kind", "attention")][0])
    return model, "decode", {"batch": batch, "context": keys - 1, "lowering": lowering}


def template(trace):
    model, phase, more = asked(trace)
    return ns.template(model, phase, **more)


def kinds_differ(a, b):
    """Return by how many kernels two steps differ, over those of the first."""
    one, other = Counter(a), Counter(b)
    return sum(abs(one[k] - other[k]) for k in {*one, *other}) / sum(one.values())


def trace_rows(names, h200):
    yield "| trace | kernels, of the template | kinds differ | FLOP, bytes | device busy |"
    yield "|---|---|---|---|---|"
    for name in names:
        w, t = ns.load_workload(name), template(name)
        rows = w["step"] == 0
        differ = kinds_differ(w.text("kind")[rows].tolist(), t.text("kind").tolist())
        flop = t["flop"].sum() / w["flop"][rows].sum() - 1
        moved = t.bytes_moved.sum() / w.bytes_moved[rows].sum() - 1
        busy = w["duration_s"].sum() / len(w.steps) * 1e3
        own, made = (ns.replay(x, h200, launch="graph").device_busy_s * 1e3 for x in (w, t))
        yield (f"| {name} | {rows.sum()}, {len(t)} | {differ:.1%} | {flop:+.2%}, {moved:+.2%} | "
               f"{busy:.3f}, {own:.3f}, {made:.3f} ms |")  # fmt: skip


def wall_rows(names, h200):
    measured = pd.read_csv(PAGE.parent.parent / "workloads" / "measured.csv")
    measured = measured[(measured["quantity"] == "wall") & (measured["launch"] == "eager")
                        & (measured["device"] == "NVIDIA H200")].set_index("workload")  # fmt: skip
    yield "| step | measured, unprofiled (p10 to p95) | template | off | host times |"
    yield "|---|---|---|---|---|"
    for name in names:
        row, wall = measured.loc[name], ns.replay(template(name), h200).wall_s * 1e3
        yield (f"| {name} | {row['value']:.1f} ms ({row['low']:.1f} to {row['high']:.1f}) | "
               f"{wall:.1f} ms | {wall / row['value'] - 1:+.1%} | "
               f"of {'this trace and others' if name in FITTED else 'other traces'} |")  # fmt: skip


def study_rows():
    w = ns.template("deepseek_ocr", "vision", image=(1024, 1024), lowering="hf-remote")
    time = durations(w, Designs(ns.load_arch("rtx_5090")))
    seconds = time.table[time.row, 0] * time.scale
    sam = w["layer"] < SAM_LAYERS
    yield "| RTX 5090, one view | measured | predicted | off |"
    yield "|---|---|---|---|"
    for name, rows in (("SAM", sam), ("CLIP", ~sam)):
        told = float(seconds[rows].sum()) * 1e3
        yield f"| {name} | {STUDY[name]:.2f} ms | {told:.2f} ms | {told / STUDY[name] - 1:+.0%} |"


PAGES = (
    ("paddleocr_vl", "hf-eager", "h200", "eager"), ("paddleocr_vl", "hf-eager", "h200", "graph"),
    ("paddleocr_vl", "fused", "h200", "graph"), ("paddleocr_vl", "serving", "h200", "graph"),
    ("paddleocr_vl", "serving", "metax_c500", "eager"),
    ("paddleocr_vl", "npu", "decode_npu", "queue"),
    ("deepseek_ocr", "hf-eager", "h200", "eager"),
    ("deepseek_ocr", "hf-remote", "rtx_5090", "eager"),
    ("deepseek_ocr", "serving", "h200", "graph"), ("deepseek_ocr", "npu", "decode_npu", "queue"),
)  # fmt: skip


def page_rows():
    head = ("page", "lowering", "machine, launch", "seconds a page", "TTFT", "TPOT", "tokens/s")
    yield f"| {' | '.join(head)} | device busy |"
    yield "|---|---|---|---|---|---|---|---|"
    made = {}
    for model, lowering, machine, launch in PAGES:
        if (model, lowering) not in made:
            made[model, lowering] = ns.template(model, "page", lowering=lowering)
        p = page_times(made[model, lowering], ns.load_arch(machine), launch)
        yield (f"| {model} | {lowering} | {machine}, {launch} | {p.page_s:.3f} | "
               f"{p.ttft_s * 1e3:.1f} ms | {p.tpot_s * 1e3:.2f} ms | {p.tokens_per_s:.0f} | "
               f"{p.device_busy_share:.0%} |")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the tables into the page")
    write = parser.parse_args().write
    names = sorted(p.stem for p in (PAGE.parent.parent / "workloads").glob("*.parquet"))
    h200 = ns.load_arch("h200")
    tables = {"traces": trace_rows(names, h200), "walls": wall_rows(names, h200),
              "study": study_rows(), "pages": page_rows()}  # fmt: skip
    text = PAGE.read_text() if write else ""
    for name, rows in tables.items():
        table = "\n".join(rows)
        if write:
            start, stop = MARKS[name]
            head, rest = text.split(start)
            text = f"{head}{start}\n\n{table}\n\n{stop}{rest.split(stop)[1]}"
        else:
            print(table, "\n")
    if write:
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
