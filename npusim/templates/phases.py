"""One phase of a model as a workload: prefill, a chunk of it, decode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npusim.errors import InputError
from npusim.templates.decoder import Tokens, decoder_operators
from npusim.templates.hyperparameters import Model
from npusim.templates.lower import Phase, lower
from npusim.templates.lowering import Lowering, load_lowering
from npusim.templates.models import load_model
from npusim.workload import Workload

_MOST = {"batch": 10**6, "context": 10**9, "new": 10**7, "steps": 10**5, "draft": 10**4}


@dataclass(frozen=True)
class Asked:
    """What is asked of a template, checked.

    Attributes
    ----------
    batch, context, new, draft, steps : int
        Sequences, tokens of each in its cache before, tokens of each that enter, tokens of each
        that are drafted beside, and steps one after the other.
    logits : str
        ``all`` or ``last``.
    hit : float or None
        Experts hit in a layer.
    """

    batch: int
    context: int
    new: int
    draft: int
    steps: int
    logits: str
    hit: float | None


def template(
    model: str | Path,
    phase: str,
    *,
    batch: int = 1,
    context: int | None = None,
    new: int | None = None,
    steps: int = 1,
    draft: int = 0,
    lowering: str = "hf-eager",
    logits: str = "last",
    experts_hit: float | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Workload:
    """Return the workload of one phase of a model, from its hyperparameters.

    Parameters
    ----------
    model : str or Path
        A name that ships, a YAML file like those, or a Hugging Face ``config.json``.
    phase : str
        ``prefill``: `new` tokens of each sequence enter, after `context` that are there already (a
        chunk, where that is not zero). ``decode``: one token of each enters, after `context`.
    batch : int
        Sequences.
    context : int, optional
        Tokens of each in the cache before: 0 for prefill, needed for decode.
    new : int, optional
        Tokens of each that enter: needed for prefill; 1 for decode.
    steps : int
        Decode steps, the context growing by one each.
    draft : int
        Tokens of each that a draft proposed and that a decode step verifies beside its own.
    lowering : str
        Name or file of the lowering.
    logits : str
        ``last`` or ``all``: of which tokens of a prompt the vocabulary projection is computed.
    experts_hit : float, optional
        Experts that the tokens of a step hit in a layer, on average over the layers; by default
        what is expected of tokens that choose for themselves, by the popularity of the experts.
    settings : mapping, optional
        Hyperparameters that differ: dotted path -> value.

    Raises
    ------
    InputError, InputErrors
        No such model, lowering or phase, a hyperparameter that is impossible, a size out of range.

    Examples
    --------
    >>> w = template("deepseek_ocr", "decode", context=1069)
    >>> len(w), float(w["read_weight"].sum()) / 1e9
    (2024, 1.1481...)
    """
    m, how = load_model(model, settings), load_lowering(lowering)
    if phase not in ("prefill", "decode"):
        raise InputError("unknown phase", value=phase, allowed="prefill, decode")
    asked = _asked(phase, batch, context, new, draft, steps, logits, experts_hit)
    _check_hit(m, asked)
    name = f"{Path(model).stem}_{phase}"
    return lower(name, _steps(m, phase, asked, how), how, m.dtype, _about(m, asked))


def _asked(
    phase: str, batch: int, context: int | None, new: int | None, draft: int, steps: int,
    logits: str, hit: float | None,
) -> Asked:  # fmt: skip
    """Return what is asked, if it goes together."""
    if phase == "decode":
        if new not in (None, 1):
            raise InputError("decodes one token a step", place="new", value=new, allowed="1")
        if context is None:
            raise InputError("is needed for decode", place="context",
                             hint="say how many tokens are in the cache")  # fmt: skip
    elif new is None:
        raise InputError("is needed for prefill", place="new",
                         hint="say how many tokens enter")  # fmt: skip
    elif draft or steps != 1:
        raise InputError("of decode alone", place="draft" if draft else "steps",
                         value=draft or steps)  # fmt: skip
    if logits not in ("all", "last"):
        raise InputError("unknown choice of logits", place="logits", value=logits,
                         allowed="all, last")  # fmt: skip
    asked = Asked(batch, context or 0, new or 1, draft, steps, logits, hit)
    least = {"batch": 1, "context": int(phase == "decode"), "new": 1, "steps": 1, "draft": 0}
    for place, most in _MOST.items():
        value = getattr(asked, place)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not least[place] <= value <= most:
            raise InputError("out of range", place=place, value=value,
                             allowed=f"{least[place]} to {most:,}")  # fmt: skip
    return asked


def _check_hit(m: Model, asked: Asked) -> None:
    """Refuse a number of experts hit that no choice of the tokens has."""
    e, hit = m.decoder.experts, asked.hit
    if hit is None:
        return
    if e is None:
        raise InputError("of a model without experts", place="experts_hit", value=hit)
    most = min(e.count, asked.batch * (asked.new + asked.draft) * e.chosen)
    if not e.chosen <= hit <= most:
        raise InputError("out of range", place="experts_hit", value=hit,
                         allowed=f"{e.chosen} to {most}")  # fmt: skip


def _steps(m: Model, phase: str, asked: Asked, how: Lowering) -> list[Phase]:
    return [
        Phase(phase, list(decoder_operators(
            m.decoder, Tokens(asked.batch, asked.new + asked.draft, asked.context + i, asked.draft,
                              asked.hit),
            how, asked.logits)))
        for i in range(asked.steps)
    ]  # fmt: skip


def _about(m: Model, asked: Asked) -> dict[str, Any]:
    """Return provenance of a workload."""
    e = m.decoder.experts
    about: dict[str, Any] = {
        "model": m.title, "source": m.source, "batch": asked.batch, "context": asked.context,
        "new": asked.new,
    }  # fmt: skip
    if e is not None:
        about["experts"] = e.popularity or e.skew
    return about
