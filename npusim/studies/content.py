"""What the page of some studies shows, from their answers and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from npusim import __version__, store
from npusim.studies.decide import Answer
from npusim.studies.explore import designs, rooflines
from npusim.studies.record import of_answer

Drawn = Mapping[str, Sequence[Mapping[str, str]]]  # by study: title, svg and file of each figure

_ONE, _MANY = "Design study", "Design studies"


def content(
    answers: Sequence[Answer], drawn: Drawn, files: Mapping[str, Sequence[str]], command: str
) -> dict[str, Any]:
    """Return the content of the page, see `npusim.studies.page`.

    Parameters
    ----------
    answers : sequence of Answer
    drawn : mapping of str to sequence of mapping
        Figures of each study: ``title``, ``svg`` and ``file``.
    files : mapping of str to sequence of str
        Data files of each study, relative to the page.
    command : str
    """
    studies = []
    for answer in answers:
        record = of_answer(answer)
        record["figures"] = list(drawn.get(record["name"], ()))
        record["files"] = list(files.get(record["name"], ()))
        studies.append(record)
    explored = next((found for answer in answers if (found := designs(answer))), None)
    return {
        "title": _ONE if len(answers) == 1 else _MANY,
        "npusim": __version__,
        "model": store.model_version(),
        "command": command or "npusim study",
        "studies": studies,
        "designs": explored,
        "rooflines": rooflines() if len(answers) > 1 or explored else [],
    }
