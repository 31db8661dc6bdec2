"""Verdicts at a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from npusim import terminal, units
from npusim.studies.claim import Question
from npusim.studies.decide import Decision
from npusim.studies.run import Done
from npusim.studies.verdict import VERDICTS


def listed(questions: Sequence[Question]) -> list[dict[str, Any]]:
    """Return studies as plain values."""
    return [{"name": q.name, "title": q.title, "source": q.source, "claims": len(q.claims)}
            for q in questions]  # fmt: skip


def study_list(questions: Sequence[Question]) -> None:
    """Print the studies that ship with claims."""
    table = terminal.blank("Studies (npusim study NAME, or --all)", "name", "claims", "title",
                           right=["claims"])  # fmt: skip
    for q in questions:
        terminal.add(table, q.name, str(len(q.claims)), q.title)
    terminal.show(table)


def verdicts(done: Done) -> None:
    """Print every claim with its verdict, and where the page is."""
    console = terminal.plain()
    for answer in done.answers:
        console.print(Text(f"{answer.question.name}: {answer.question.title}", style="bold"))
        for decision in answer.decisions:
            for line in _lines(decision):
                console.print(Text(line))
        console.print()
    count = Counter(d.verdict for answer in done.answers for d in answer.decisions)
    told = ", ".join(f"{count[verdict]} {verdict}" for verdict in VERDICTS if count[verdict])
    console.print(
        Text(f"{sum(count.values())} claim{'s' * (sum(count.values()) != 1)}: {told}", style="bold")
    )
    if done.folder is not None and done.files:
        console.print(Text(f"page: {done.folder / 'index.html'}"))


def _lines(decision: Decision) -> list[str]:
    claim, lead = decision.claim, decision.cases[0]
    value, low, high = (figure(x, decision.unit) for x in (lead.value, lead.low, lead.high))
    lines = [f"  {decision.verdict.upper()}: {claim.says}",
             f"    {claim.id}: {decision.what}: {value} ({low} to {high}); the rule: "
             f"{claim.rule.text('').strip()}"]  # fmt: skip
    if decision.where:
        lines.append(f"    {decision.where}")
    if decision.hidden:
        lines.append("    helps only once the host is gone")
    lines.append(f"    why: {decision.reason}")
    if decision.influence is not None:
        found = decision.influence
        lines.append(f"    hangs on {found.name}, assumed {found.assumed()}: {found.text()}")
    return lines


def figure(value: float, unit: str) -> str:
    """Return a figure of a claim as text.

    Examples
    --------
    >>> figure(0.98765, "1"), figure(0.00123, "s")
    ('0.988', '1.23 ms')
    """
    return f"{value:.3g}" if unit == "1" else units.show(value, unit, 3)
