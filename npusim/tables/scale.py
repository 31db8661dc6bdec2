"""What ``npusim scale`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from npusim import terminal, units

_SPLITS = ("tensor", "expert", "pipeline", "data", "overlap")


def shown(content: Mapping[str, Any]) -> None:
    """Print a row a plan, why others are impossible, and what is left out."""
    rows = content["plans"]
    # splits that are the same everywhere say nothing
    splits = [s for s in _SPLITS if s == "tensor" or any(row[s] != 1 for row in rows)]
    staged = any(row["pipeline"] > 1 for row in rows)
    step = "time per token" if content["phase"] == "decode" else "time of the prompts"
    numbers = [*splits, "chips", step, "its band", "tokens/s", "a chip", "efficiency",
               "collectives", *(["bubble"] if staged else []), "weights", "KV",
               "J/token"]  # fmt: skip
    table = terminal.blank(
        f"{content['phase']} of {content['model']} on {content['arch']}, {content['launch']} "
        f"launch, {terminal.many(content['batch'], 'sequence')} of {content['context']} tokens",
        *numbers, "weights + KV fit", right=numbers,
    )  # fmt: skip
    for row in rows:
        fits = {True: "yes", False: "no", None: "?"}[row["fits"]]
        joules = "" if row["energy_j"] is None else f"{row['energy_j']:.3g}"
        terminal.add(
            table, *(str(row[s]) for s in splits), str(row["chips"]),
            units.show(row["step_s"], "s"),
            " - ".join(units.show(end, "s", 3) for end in row["band_s"]),
            f"{row['tokens_per_s']:,.0f}", f"{row['tokens_per_s_chip']:,.0f}",
            f"{row['efficiency']:.1%}", f"{row['collective_share']:.1%}",
            *([f"{row['bubble_share']:.1%}"] if staged else []),
            units.show(row["weight_bytes"], "B", 3), units.show(row["kv_bytes"], "B", 3),
            joules, fits,
        )  # fmt: skip
    terminal.show(table)
    console = terminal.plain()
    for one in content["impossible"]:
        plan = ", ".join(f"{s} {one[s]}" for s in _SPLITS if one[s] != 1)
        console.print(Text(f"not possible: {plan} ({one['reason']})"))
    for note in content["notes"]:
        console.print(Text(f"note: {note}"))
