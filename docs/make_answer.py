"""Draw the figure of the README from what `npusim study --all -o FOLDER` wrote.

python docs/make_answer.py results/studies
"""

import json
import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from npusim import study_plots as plots
from npusim.store import model_version
from npusim.study_plots import style

HERE = Path(__file__).parent
# What each idea is called, and the claim that says what it does to a decode step.
IDEAS = {
    "no host: the step as one graph (H200)": ("host", "graph_ends_dispatch"),
    "fusion engine": ("fusion", "pays"),
    "all weights in on-chip SRAM": ("weights_on_chip", "all_weights"),
    "weights of 4 bits": ("precision", "weights_4_conversion_128"),
    "GEMV unit": ("gemv_unit", "pays"),
    "products in FP8": ("precision", "fp8_e4m3"),
    "hardware queue in place of a graph": ("host", "queue_over_graph"),
    "twice the compute units": ("unit_mix", "units_twice"),
    "SRAM of 64 MB for the KV cache": ("kv_sram", "kv_64"),
    "L2 of 256 MB in place of 50 MB": ("l2_capacity", "l2_256"),
    "victim cache of 32 MB": ("victim_cache", "victim_32"),
    "2 TB/s in place of 3.35 TB/s": ("bandwidth", "bandwidth_2"),
}


def table(folder: Path) -> pd.DataFrame:
    """Return a row an idea: step time with it over step time without it, and its band."""
    rows = []
    for idea, (study, name) in IDEAS.items():
        claims = json.loads((folder / f"{study}.json").read_text(encoding="utf-8"))["claims"]
        (claim,) = (claim for claim in claims if claim["id"] == name)
        rows.append({"idea": idea, "study": study, "claim": name,
                     **{end: claim[end] for end in ("value", "low", "high")}})  # fmt: skip
    return pd.DataFrame(rows)


def draw(found: pd.DataFrame) -> Figure:
    """Return the figure."""
    figure = Figure(plots.size(2, 3.5), layout="constrained")
    ax = figure.subplots()
    rows = list(range(len(found)))
    off = [found["value"] - found["low"], found["high"] - found["value"]]
    ax.axvline(1.0, color=style.RULE, linewidth=1)
    ax.errorbar(found["value"], rows, xerr=off, linestyle="", marker="o", color=style.INK,
                capsize=2.5, elinewidth=1.2)  # fmt: skip
    for y, row in found.iterrows():
        near = 0.9 < row["value"] < 1.05
        told = f"{row['value']:.3f}" if near else f"{row['value']:.2f}"
        ax.annotate(told, (1.0, y), xycoords=("axes fraction", "data"), xytext=(4, 0),
                    textcoords="offset points", va="center", fontsize=style.SMALL)  # fmt: skip
    ax.set(yticks=rows, xlabel="time of a decode step with it / without it", xscale="log",
           xlim=(0.03, 1.6))  # fmt: skip
    ticks = [0.03, 0.1, 0.2, 0.5, 0.8, 1.0, 1.5]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.set_xticks([], minor=True)
    ax.set_yticklabels(found["idea"])
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.set_title("DeepSeek-OCR, one sequence, on a nominal decode NPU: what an idea is worth")
    return figure


if __name__ == "__main__":
    answer = table(Path(sys.argv[1]))
    with plots.look():
        draw(answer).savefig(HERE / "answer.png", metadata={"Software": None})
    with (HERE / "answer.csv").open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"# models of npusim {model_version()}\n")
        answer.to_csv(file, index=False, float_format="%.6g", lineterminator="\n")
