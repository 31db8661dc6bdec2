"""From claims to verdicts: replays of all claims together, quantities one by one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd

from npusim.studies import quantities
from npusim.studies.bench import Bench, Lot
from npusim.studies.claim import Claim, Compare, Measure, Question
from npusim.studies.data import behind
from npusim.studies.draws import DRAWS
from npusim.studies.influence import (
    ASKED,
    Influence,
    Key,
    bracket,
    ends,
    grid,
    most_influential,
    swings,
)
from npusim.studies.pairs import Pair, pairs, split_rows
from npusim.studies.quantity import ask
from npusim.studies.reason import reason
from npusim.studies.value import Doubt
from npusim.studies.verdict import Found, of_draws, only_without_host, overall
from npusim.studies.work import STEP
from npusim.transforms import TRANSFORMABLE, split
from npusim.units import CHOICES


@dataclass(frozen=True)
class Decision:
    """A claim with its verdict.

    Attributes
    ----------
    claim : Claim
    what : str
        What its figure is, in words.
    unit : str
        Unit of the figure.
    verdict, where : str
        The verdict, and, where cases differ, which come to which.
    cases : tuple of Found
        The first decides what is shown: a hardware queue and one sequence, where asked for.
    reason : str
        Why the figure is what it is.
    influence : Influence or None
        The assumed number that the claim hangs on most; None if it hangs on none.
    data : tuple of str
        Traces and machines behind it.
    hidden : bool
        Whether the claim holds only once the host is gone.
    """

    claim: Claim
    what: str
    unit: str
    verdict: str
    where: str
    cases: tuple[Found, ...]
    reason: str
    influence: Influence | None
    data: tuple[str, ...]
    hidden: bool = False


@dataclass(frozen=True)
class Answer:
    """A study with the verdicts of its claims."""

    question: Question
    decisions: tuple[Decision, ...]
    settings: Mapping[str, float] = field(default_factory=dict)


def decide(
    questions: Sequence[Question],
    bench: Bench,
    settings: Mapping[str, float] | None = None,
    draws: int = DRAWS,
) -> list[Answer]:
    """Come to a verdict on every claim of some studies.

    Parameters
    ----------
    questions : sequence of Question
    bench : Bench
        What replays designs.
    settings : mapping of str to float, optional
        Parameters of the studies' machines and of the workloads that are set first [SI]; claims
        that set them keep their own.
    draws : int
        How often what is not known is drawn.

    Raises
    ------
    InputError
        A claim that a model refuses, by its name.

    Examples
    --------
    >>> from npusim.studies.read import read_question
    >>> question = read_question("macro_ops")
    >>> with Bench(workers=1) as bench:
    ...     (answer,) = decide([question], bench, draws=16)
    >>> len(answer.decisions) == len(question.claims)
    True
    """
    machine, work = split(dict(settings or {}))
    settings = {**machine, **work}
    measured = {q.name: [claim for claim in q.claims if isinstance(claim.test, Measure)]
                for q in questions}  # fmt: skip
    # Claims of one study share what they measure: one process does them. Half of them wait, so that
    # no process is idle while this one looks at what was compared.
    early, late = list(measured)[::2], list(measured)[1::2]
    measuring = partial(_measured_all, settings)
    waiting = [(early, bench.apart(measuring, [measured[name] for name in early]))]
    asked = {
        (q.name, claim.id): pairs(claim, q, machine, work)
        for q in questions for claim in q.claims if isinstance(claim.test, Compare)
    }  # fmt: skip
    leads = {name: own[0] for name, own in asked.items()}
    doubted = {name: pair.doubts() for name, pair in leads.items()}
    # Asked for together: a design more costs a hundredth of what its workload takes to be ready.
    lots = [pair.drawn(draws) for own in asked.values() for pair in own]
    tables = _later(bench, [*lots, *_at_ends(leads, doubted)])
    waiting.append((late, bench.apart(measuring, [measured[name] for name in late])))
    made = _compared(asked, doubted, tables(), bench)
    for names, answers in waiting:
        for name, found in zip(names, answers, strict=True):
            made |= {(name, decision.claim.id): decision for decision in found}
    return [Answer(q, tuple(made[q.name, c.id] for c in q.claims), settings) for q in questions]


def unused(questions: Sequence[Question], settings: Collection[str]) -> list[str]:
    """Return the settings that no claim of some studies takes.

    Examples
    --------
    >>> from npusim.studies.read import read_question
    >>> unused([read_question("links")], ["gemv.count", "link.latency"])
    ['gemv.count']
    """
    return [path for path in settings
            if not any(_takes(q, c, path) for q in questions for c in q.claims)]  # fmt: skip


def _takes(question: Question, claim: Claim, path: str) -> bool:
    test = claim.test
    if isinstance(test, Measure):
        quantity = quantities.find(test.quantity)
        return any(path in quantity.doubts(options) for options in test.cases.values())
    return any(
        path not in side.machine and path not in side.work
        and (path in TRANSFORMABLE or side.arch in ("", question.arch))
        for side in (test.design, test.against)
    )  # fmt: skip


_Name = tuple[str, str]
_Doubts = Mapping[Key, Doubt]
_Moved = dict[Key, tuple[float, float]]


def _compared(
    asked: Mapping[_Name, list[Pair]], doubted: Mapping[_Name, _Doubts],
    tables: Sequence[list[pd.DataFrame]], bench: Bench,
) -> dict[_Name, Decision]:  # fmt: skip
    """Come to verdicts from all cases as drawn, and after these the first ones at their ends."""
    leads = {name: own[0] for name, own in asked.items()}
    moved = _moved(leads, doubted, tables[sum(map(len, asked.values())) :])
    nominal = {}
    cases: dict[_Name, list[Found]] = {}
    at = 0
    for name, own in asked.items():
        for pair in own:
            first, rest = split_rows(tables[at])
            at += 1
            nominal[name, pair.case] = first
            drawn = pair.perturbed_ratio(rest)
            value = float(pair.ratio(first)[0])
            cases.setdefault(name, []).append(
                of_draws(pair.case.text(), pair.labels, value, drawn, pair.claim.rule)
            )
    held = {name: pair.claim.rule.margin(cases[name][0].value) >= 0
            for name, pair in leads.items()}  # fmt: skip
    found = _influences(leads, held, doubted, moved, bench)
    made = {}
    for name, own in asked.items():
        verdict, where = overall(cases[name])
        lead, hidden = leads[name], only_without_host(cases[name])
        walls = {pair.case.launch: nominal[name, pair.case] for pair in reversed(own)}
        why = reason(lead, nominal[name, lead.case], walls.get("eager") if hidden else None)
        test = lead.test
        made[name] = Decision(
            lead.claim, _what(lead), "1", verdict, where, tuple(cases[name]), why, found[name],
            behind(test.models, test.work, [s.arch for s in lead.sides],
                   all(s.lowering for s in lead.sides)), hidden)  # fmt: skip
    return made


def _later(bench: Bench, lots: Sequence[Sequence[Lot]]) -> Callable[[], list[list[pd.DataFrame]]]:
    """Begin with lots that belong together, and return what waits for their tables."""
    flat = bench.later([lot for own in lots for lot in own])
    ends = np.cumsum([len(own) for own in lots]).tolist()

    def wait() -> list[list[pd.DataFrame]]:
        found = flat()
        return [found[end - len(own) : end] for own, end in zip(lots, ends, strict=True)]

    return wait


def _what(pair: Pair) -> str:
    test = pair.test
    work = {"decode": "a decode step", "page": "a page", "vision": "a vision step",
            "prefill": "a prompt", STEP: "a step"}[test.work]  # fmt: skip
    return f"{test.figure} of {work}: {test.design.text} over {test.against.text}"


def _influences(
    leads: Mapping[_Name, Pair], held: Mapping[_Name, bool], of: Mapping[_Name, _Doubts],
    moved: Mapping[_Name, _Moved], bench: Bench,
) -> dict[_Name, Influence | None]:  # fmt: skip
    """Return on what each claim hangs most, see `npusim.studies.influence`."""
    asked = {name: swings(moved[name])[:ASKED] for name in leads}
    flips = _flips(leads, held, asked, of, bench)
    return {
        name: most_influential(pair.called, of[name], moved[name], flips[name])
        for name, pair in leads.items()
    }


def _at_ends(leads: Mapping[_Name, Pair], of: Mapping[_Name, _Doubts]) -> list[list[Lot]]:
    """Return each claim's designs with what is assumed at the ends of its range, one by one."""
    lots = []
    for name, pair in leads.items():
        doubts, size = of[name], 2 * len(of[name])
        varied = {}
        for i, (key, doubt) in enumerate(doubts.items()):
            column = np.full(size, doubt.nominal)
            column[2 * i : 2 * i + 2] = doubt.low, doubt.high
            varied[key] = column
        lots.append(pair.lots(varied, size) if size else [])
    return lots


def _moved(
    leads: Mapping[_Name, Pair], of: Mapping[_Name, _Doubts],
    tables: Sequence[Sequence[pd.DataFrame]],
) -> dict[_Name, _Moved]:  # fmt: skip
    """Return the figure of each claim at these ends."""
    found = {}
    for (name, pair), own in zip(leads.items(), tables, strict=True):
        ratio = pair.ratio((own[0], own[1])) if own else np.empty(0)
        found[name] = {key: (float(ratio[2 * i]), float(ratio[2 * i + 1]))
                       for i, key in enumerate(of[name])}  # fmt: skip
    return found


def _flips(
    leads: Mapping[_Name, Pair], held: Mapping[_Name, bool], asked: Mapping[_Name, list[Key]],
    of: Mapping[_Name, _Doubts], bench: Bench,
) -> dict[_Name, dict[Key, float | None]]:  # fmt: skip
    """Return the value of what is asked at which each claim flips, looked for on two grids."""
    spans = {(name, key): ends(key[1], of[name][key])
             for name, keys in asked.items() for key in keys}  # fmt: skip
    found: dict[_Name, dict[Key, float | None]] = {
        name: dict.fromkeys(keys) for name, keys in asked.items()
    }
    for _ in range(2):
        grids = {(name, key): grid(key[1], of[name][key], *span)
                 for (name, key), span in spans.items()}  # fmt: skip
        lots = [leads[name].lots({key: values}, len(values))
                for (name, key), values in grids.items()]  # fmt: skip
        spans = {}
        for ((name, key), values), tables in zip(grids.items(), _later(bench, lots)(), strict=True):
            pair, doubt = leads[name], of[name][key]
            figures = pair.ratio((tables[0], tables[1]))
            inside = bracket(values, figures, doubt.nominal, pair.claim.rule, held[name])
            if inside is not None:
                found[name][key] = inside[1]
                if doubt.unit not in CHOICES:
                    spans[name, key] = (min(inside), max(inside))
    return found


def _measured_all(settings: Mapping[str, float], claims: Sequence[Claim]) -> list[Decision]:
    return [_measured(settings, claim) for claim in claims]


def _measured(settings: Mapping[str, float], claim: Claim) -> Decision:
    """Come to a verdict on a claim that a quantity decides."""
    test = claim.test
    if not isinstance(test, Measure):
        raise TypeError("a claim without a quantity")
    found, values, influential = ask(claim, test, settings)
    verdict, where = overall(found)
    quantity = quantities.find(test.quantity)
    data = tuple(dict.fromkeys(name for value in values for name in value.data))
    return Decision(claim, quantity.FIGURE, quantity.UNIT, verdict, where, tuple(found),
                    values[0].reason, influential, data)  # fmt: skip
