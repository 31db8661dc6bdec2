"""What figures say: cases by what tells them apart, figures and work in words."""

from __future__ import annotations

from collections.abc import Sequence

from npusim.studies.bench import Case
from npusim.studies.claim import Side
from npusim.study_plots.axis import label

WORK = {"decode": "a decode step", "page": "a page", "vision": "a vision step",
        "prefill": "a prompt", "step": "a step"}  # fmt: skip
SHARED = "what is not known of a machine is drawn for all designs alike"


def apart(cases: Sequence[Case], more: Sequence[str] = ()) -> list[str]:
    """Return each case in as few words as tell it from the others.

    Parameters
    ----------
    cases : sequence of Case
    more : sequence of str, optional
        What else tells them apart, a text a case.

    Examples
    --------
    >>> apart([Case("paddleocr_vl", "decode", b, "queue") for b in (1, 8)])
    ['batch 1', 'batch 8']
    """
    parts = [list(c.parts) for c in cases]
    for part, text in zip(parts, more, strict=bool(more)):
        part.insert(0, text)
    told = [i for i in range(len(parts[0])) if len({part[i] for part in parts}) > 1]
    if not told:
        return [case.text() for case in cases]
    return [", ".join(part[i] for i in told if part[i]) for part in parts]


def alike(cases: Sequence[Case]) -> str:
    """Return what all cases have in common, with what they do.

    Examples
    --------
    >>> alike([Case("paddleocr_vl", "decode", b, "queue") for b in (1, 8)])
    'a decode step, PaddleOCR-VL, queue'
    """
    parts = zip(*(c.parts for c in cases), strict=True)
    same = [part[0] for part in parts if len(set(part)) == 1 and part[0]]
    return ", ".join([WORK[cases[0].work], *same])


def called(figure: str, of: str = "decode") -> str:
    """Return a figure of some work in words.

    Examples
    --------
    >>> called("wall_s"), called("energy_j", "page")
    ('step time', 'energy of a page')
    """
    words = label(figure, "").rpartition(" [")[0].replace("_", " ")
    return words.replace("step", "page") if of == "page" else words


def ratio(figure: str, against: Side, of: str = "decode") -> str:
    """Return the ratio of a figure to that of a design, in words short enough for an axis.

    Examples
    --------
    >>> ratio("wall_s", Side()), ratio("wall_s", Side(text="memories.dram.bandwidth 3 TB/s"))
    ('step time over nominal', 'step time, ratio')
    """
    is_nominal = against.text == Side().text
    words = called(figure, of)
    return f"{words} over {against.text}" if is_nominal else f"{words}, ratio"


def over(against: Side, both: Sequence[str] = ()) -> str:
    """Return a sentence that says what a ratio is to; nothing if its name does.

    Examples
    --------
    >>> over(Side(), ["workload.context"])
    'The ratio is to nominal, at the same workload.context. '
    """
    if against.text == Side().text and not both:
        return ""
    same = f", at the same {' and '.join(both)}" if both else ""
    return f"The ratio is to {against.text}{same}. "


def upper(text: str) -> str:
    """Return a sentence that begins with a capital."""
    return text[:1].upper() + text[1:]
