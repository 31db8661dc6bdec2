"""The claims of a study: each case with its band beside the rule. Every study has it."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from itertools import groupby

import pandas as pd

from npusim import study_plots as plots
from npusim.studies.bench import Lot
from npusim.studies.claim import Compare
from npusim.studies.decide import Answer, Decision
from npusim.studies.figures.picture import Picture
from npusim.sweep_block import Strict

_RATIO = "ratio (design / against)"
_ROWS = 36


class Options(Strict):
    """Nothing: all claims are drawn."""


def pictures(
    options: Options, answer: Answer
) -> Generator[list[Lot], list[pd.DataFrame], list[Picture]]:
    """Draw claims whose figure is of one kind on one axis."""
    yield []
    found = []
    for (what, unit), decisions in _groups(answer.decisions):
        for part in _parts(decisions):
            rows = cases(part)
            drawn = rows[_finite(rows)]
            if drawn.empty:
                continue
            height = plots.tall(len(drawn) + len(part)) - 0.05 * len(drawn)
            caption = (
                "A bar is the band from p10 to p90, widened to the nominal value where that lies "
                "outside; shaded is what the rule of the claim allows."
            )
            if len(drawn) < len(rows):
                caption += f" {len(rows) - len(drawn)} cases without a finite value are not drawn."
            draw = partial(plots.verdicts, cases=drawn, figure=what, unit=unit)
            told = "" if what == _RATIO else f", {what}"
            title = f"Verdicts{told}: {answer.question.title}"
            found.append(Picture("verdicts", title, caption, rows, draw, height))
    return found


def _groups(decisions: Sequence[Decision]) -> Iterator[tuple[tuple[str, str], list[Decision]]]:
    def kind(decision: Decision) -> tuple[str, str]:
        is_ratio = isinstance(decision.claim.test, Compare)
        return (_RATIO if is_ratio else decision.what, decision.unit)

    order = {key: i for i, key in enumerate(dict.fromkeys(map(kind, decisions)))}
    for key, of in groupby(sorted(decisions, key=lambda d: order[kind(d)]), kind):
        yield key, list(of)


def _parts(decisions: Sequence[Decision]) -> Iterator[list[Decision]]:
    """Yield claims in figures of a page at most, a claim never apart."""
    part, rows = list[Decision](), 0
    for decision in decisions:
        if part and rows + len(decision.cases) > _ROWS:
            yield part
            part, rows = [], 0
        part, rows = [*part, decision], rows + len(decision.cases)
    yield part


def cases(decisions: Sequence[Decision]) -> pd.DataFrame:
    """Return the cases of claims, one a row, as they are drawn."""
    return pd.DataFrame([
        {"claim": d.claim.id.replace("_", " "), "label": case.case or "as claimed",
         "value": case.value, "low": min(case.low, case.value), "high": max(case.high, case.value),
         "least": d.claim.rule.least, "most": d.claim.rule.most, "verdict": case.verdict}
        for d in decisions for case in d.cases
    ])  # fmt: skip


def _finite(rows: pd.DataFrame) -> pd.Series[bool]:
    ok = [all(map(math.isfinite, row)) for row in rows[["value", "low", "high"]].to_numpy()]
    return pd.Series(ok, index=rows.index)
