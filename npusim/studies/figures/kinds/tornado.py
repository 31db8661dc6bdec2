"""On which assumed numbers a claim hangs."""

from __future__ import annotations

import math
from collections.abc import Generator
from functools import partial

import pandas as pd
from pydantic import ValidationInfo, field_validator

from npusim import study_plots as plots
from npusim.studies.bench import Lot
from npusim.studies.claim import Compare
from npusim.studies.decide import Answer
from npusim.studies.figures.about import About
from npusim.studies.figures.fields import wrong
from npusim.studies.figures.picture import Picture
from npusim.sweep_block import Strict


class Options(Strict):
    """The claim.

    Attributes
    ----------
    claim : str
        Its id.
    """

    claim: str

    @field_validator("claim")
    @classmethod
    def _known(cls, claim: str, info: ValidationInfo) -> str:
        about = info.context
        if isinstance(about, About) and claim not in about.claims:
            raise wrong("no such claim", value=claim, allowed=", ".join(about.claims))
        return claim


def pictures(
    options: Options, answer: Answer
) -> Generator[list[Lot], list[pd.DataFrame], list[Picture]]:
    """Draw how far each number moves the figure; nothing for a claim that hangs on none."""
    yield []
    decision = next(d for d in answer.decisions if d.claim.id == options.claim)
    influence = decision.influence
    if influence is None:
        return []
    table = pd.DataFrame(influence.tornado,
                         columns=["label", "low", "high", "low_text", "high_text"])  # fmt: skip
    rule, lead = decision.claim.rule, decision.cases[0]
    ends = {f"least {rule.least:g}": rule.least, f"most {rule.most:g}": rule.most}
    ends = {text: end for text, end in ends.items() if math.isfinite(end)}
    is_ratio = isinstance(decision.claim.test, Compare)
    figure = "ratio (design / against)" if is_ratio else decision.what
    draw = partial(plots.tornado, rows=table, nominal=lead.value, threshold=ends, figure=figure,
                   unit=decision.unit)  # fmt: skip
    title = f"What the claim hangs on: {decision.claim.says}"
    caption = (
        f"{decision.what}, {lead.case}: each assumed number alone at the ends of its range, all "
        "others nominal."
    )
    return [Picture("tornado", title, caption, table, draw, plots.tall(len(table)))]
