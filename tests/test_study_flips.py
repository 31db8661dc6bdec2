"""Every study names a change of an input, and that change turns the verdict of its claim."""

import dataclasses
import re

import pytest

from npusim.parameters import PARAMETERS
from npusim.studies.bench import Bench
from npusim.studies.claim import Measure
from npusim.studies.decide import decide
from npusim.studies.quantities import find
from npusim.studies.read import claimed, read_question
from npusim.units import parse


@pytest.fixture(scope="module")
def bench():
    with Bench(workers=1) as one:
        yield one


def only(question, claim):
    kept = tuple(c for c in question.claims if c.id == claim)
    return dataclasses.replace(question, claims=kept)


def changed(question, settings):
    """A question with the options of its quantity changed; and the settings that are none."""
    (claim,) = question.claims
    if not isinstance(claim.test, Measure):
        return question, settings
    options = find(claim.test.quantity).Options
    own = {k: v for k, v in settings.items() if k in options.model_fields}
    cases = {name: options.model_validate({**case.model_dump(), **own})
             for name, case in claim.test.cases.items()}  # fmt: skip
    test = dataclasses.replace(claim.test, cases=cases)
    claim = dataclasses.replace(claim, test=test)
    rest = {k: v for k, v in settings.items() if k not in own}
    return dataclasses.replace(question, claims=(claim,)), rest


def number(path, raw):
    return parse(raw, PARAMETERS[path].unit)


@pytest.fixture
def documented(root, tmp_path):
    text = (root / "docs" / "studies.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    file = tmp_path / "slow_and_wide.yaml"
    file.write_text(example, encoding="utf-8")
    return file


def test_the_documented_example_is_a_study_whose_verdict_turns(documented, bench):
    test_a_change_of_an_input_turns_a_verdict(str(documented), bench)


@pytest.mark.parametrize("name", claimed())
def test_a_change_of_an_input_turns_a_verdict(name, bench):
    question = read_question(name)
    flips = question.flips
    assert flips is not None, "a study says which change of an input turns one of its verdicts"
    question = only(question, flips.claim)
    turned, settings = changed(question, flips.settings)
    settings = {path: number(path, raw) for path, raw in settings.items()}
    (before,) = decide([question], bench)
    (after,) = decide([turned], bench, settings)
    assert after.decisions[0].verdict == flips.to
    assert before.decisions[0].verdict != flips.to
