"""Verdicts as plain values: what --json prints, what the page shows, what files hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from npusim.store import model_version
from npusim.studies.claim import Claim, Compare
from npusim.studies.decide import Answer, Decision
from npusim.studies.influence import Influence
from npusim.studies.verdict import Found


def of_answer(answer: Answer) -> dict[str, Any]:
    """Return a study with its verdicts."""
    q = answer.question
    return {
        "name": q.name, "title": q.title, "question": q.question, "source": q.source,
        "arch": q.arch, "set": dict(answer.settings),
        "claims": [of_decision(decision) for decision in answer.decisions],
        "model": model_version(),
    }  # fmt: skip


def table(answers: Sequence[Answer]) -> pd.DataFrame:
    """Return every claim in a row."""
    columns = ("verdict", "where", "value", "low", "high", "unit", "rule", "what", "says", "source",
               "reason")  # fmt: skip
    rows = []
    for answer in answers:
        for decision in answer.decisions:
            record = of_decision(decision)
            influence = record["influential"] or {}
            rows.append({
                "study": answer.question.name, "claim": record["id"],
                **{name: record[name] for name in columns},
                "hangs_on": influence.get("path", ""),
                "break_even": influence.get("break_even", ""),
                "model": model_version(),
            })  # fmt: skip
    return pd.DataFrame(rows)


def of_decision(decision: Decision) -> dict[str, Any]:
    """Return a claim with its verdict."""
    claim, lead = decision.claim, decision.cases[0]
    return {
        "id": claim.id, "says": claim.says, "source": claim.source,
        "rule": claim.rule.text(_figure(claim, decision)), "why": claim.rule.why,
        "what": decision.what, "verdict": decision.verdict, "where": decision.where,
        "value": _number(lead.value), "low": _number(lead.low), "high": _number(lead.high),
        "unit": decision.unit, "reason": decision.reason, "note": claim.note,
        "only_without_host": decision.hidden,
        "influential": _influence(decision.influence),
        "cases": [_case(one, decision.unit) for one in decision.cases],
        "data": list(decision.data),
    }  # fmt: skip


def _figure(claim: Claim, decision: Decision) -> str:
    if isinstance(claim.test, Compare):
        return f"ratio of {claim.test.figure}"
    return decision.what


def _case(found: Found, unit: str) -> dict[str, Any]:
    return {
        "case": found.case, **found.labels, "value": _number(found.value),
        "low": _number(found.low), "high": _number(found.high), "unit": unit,
        "verdict": found.verdict, "sure": found.sure,
    }  # fmt: skip


def _influence(influence: Influence | None) -> dict[str, Any] | None:
    if influence is None:
        return None
    return {
        "path": influence.name, "assumed": influence.assumed(),
        "low_value": _number(influence.low), "high_value": _number(influence.high),
        "flips_at": influence.flips, "break_even": influence.text(),
        "tornado": [
            {"path": name, "from": a, "to": b, "low_value": _number(low),
             "high_value": _number(high)}
            for name, low, high, a, b in influence.tornado
        ],
    }  # fmt: skip


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
