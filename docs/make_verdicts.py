"""Write the page of verdicts from what `npusim study --all -o FOLDER` wrote.

python docs/make_verdicts.py results/studies
"""

import json
import sys
from collections import Counter
from pathlib import Path

from npusim.store import model_version

HERE = Path(__file__).parent
ORDER = ("supported", "supported in part", "undecided", "refuted")
# The decode NPU in a few lines: claims of best_decode_npu, by what they say to do.
DECODE_NPU = {
    "How much it brings": ("twice_an_h200", "twice_an_rtx_5090", "third_of_the_joules",
                           "half_the_die"),
    "Build first": ("host_before_chip", "fusion_before_gemv_unit", "gemv_unit_before_units"),
    "Do not build": ("no_large_cache", "no_kv_sram", "no_special_units"),
}  # fmt: skip


def page(folder: Path) -> str:
    """Return the page."""
    studies = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    claims = [claim for study in studies for claim in study["claims"]]
    count = Counter(claim["verdict"] for claim in claims)
    told = ", ".join(f"{count[verdict]} {verdict}" for verdict in ORDER)
    text = (
        "---\nhide:\n  - toc\n---\n\n# Verdicts\n\n"
        f"{len(claims)} claims in {len(studies)} [studies](studies.md): {told}. Made with the "
        f"models of npusim {model_version()} by `npusim study --all` and "
        "`python docs/make_verdicts.py results/studies`. A figure is that of the first case (a "
        "hardware queue and one sequence of DeepSeek-OCR, where asked for) with its band from p10 "
        "to p90; where cases differ, *where* says which come to which.\n\n"
    )
    return text + decode_npu(studies) + "".join(section(study) for study in studies)


def decode_npu(studies: list[dict]) -> str:
    """Return what the study of the best decode NPU comes to."""
    (study,) = (study for study in studies if study["name"] == "best_decode_npu")
    known = {claim["id"]: claim for claim in study["claims"]}
    text = "## The decode NPU in short\n\n"
    for title, names in DECODE_NPU.items():
        text += f"**{title}**\n\n"
        for claim in (known[name] for name in names):
            sure = min(case["sure"] for case in claim["cases"])
            text += (f"- {claim['says']}: *{claim['verdict']}*, {figure(claim)}, holds in "
                     f"{sure:.0%} of the draws or more.\n")  # fmt: skip
        text += "\n"
    return text


def section(study: dict) -> str:
    """Return the table of a study."""
    text = f"## {study['title']}\n\n`npusim study {study['name']}`: {study['question']}\n\n"
    text += "| claim | verdict | figure (band) | rule | hangs on |\n|---|---|---|---|---|\n"
    for claim in study["claims"]:
        found = claim["influential"]
        hangs = f"{found['path']}: {found['break_even']}" if found else "nothing assumed"
        where = f" ({claim['where']})" if claim["where"] else ""
        cells = (f"{claim['says']} [{claim['source']}]", f"**{claim['verdict']}**{where}",
                 figure(claim), claim["rule"], hangs)  # fmt: skip
        told = (cell.replace("|", "/").replace("\n", " ") for cell in cells)
        text += f"| {' | '.join(told)} |\n"
    return text + "\n"


def figure(claim: dict) -> str:
    """Return the figure of a claim with its band."""
    value, low, high = (f"{claim[name]:.3g}" for name in ("value", "low", "high"))
    unit = "" if claim["unit"] == "1" else f" {claim['unit']}"
    return f"{value} ({low} to {high}){unit}"


if __name__ == "__main__":
    (HERE / "verdicts.md").write_text(page(Path(sys.argv[1])), encoding="utf-8")
