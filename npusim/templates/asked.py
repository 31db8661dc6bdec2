"""What is asked of a template: sizes of a step, checked by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

from npusim.errors import InputError
from npusim.templates.hyperparameters import Model

CONTEXT = 1024  # tokens, where neither the question nor the model says any
PHASES = ("prefill", "decode", "vision", "page")

_RANGES = {
    "batch": (1, 10**6), "context": (0, 10**9), "new": (1, 10**9), "steps": (1, 10**5),
    "draft": (0, 10**4), "images": (1, 10**4), "width": (1, 10**5), "height": (1, 10**5),
}  # fmt: skip
# What a phase does not take, and what it is where it is not given.
_NOT_OF: Mapping[str, tuple[str, ...]] = {
    "prefill": ("steps", "draft", "acceptance", "image", "images"),
    "decode": ("new", "image", "images", "logits"),
    "vision": ("batch", "context", "new", "steps", "draft", "acceptance", "logits", "experts_hit"),
    "page": ("context", "new", "steps", "draft", "acceptance", "image", "images", "logits"),
}


@dataclass(frozen=True)
class Asked:
    """Sizes of a step, as `npusim.templates.template` explains them."""

    batch: int = 1
    context: int | None = None
    new: int | None = None
    steps: int = 1
    draft: int = 0
    acceptance: float | None = None
    logits: str = "last"
    experts_hit: float | None = None
    image: tuple[int, int] | None = None
    images: int = 1


def checked(m: Model, phase: str, asked: Asked) -> Asked:
    """Return what is asked with all that it leaves open, if it goes together.

    Raises
    ------
    InputError
        An unknown phase, something that the phase does not take or that it needs, a size out of
        range.
    """
    if phase not in PHASES:
        raise InputError("unknown phase", value=phase, allowed=", ".join(PHASES))
    for name in _NOT_OF[phase]:
        if getattr(asked, name) != getattr(Asked(), name):
            raise InputError(f"not of {phase}", place=name, value=getattr(asked, name))
    if asked.logits not in ("all", "last"):
        raise InputError("unknown choice of logits", place="logits", value=asked.logits,
                         allowed="all, last")  # fmt: skip
    if phase == "page":
        whole = asked
    else:
        whole = _image(m, asked) if phase == "vision" else _tokens(m, phase, asked)
    for name in ("batch", "context", "new", "steps", "draft", "images"):
        if getattr(whole, name) is not None:
            _in_range(name, getattr(whole, name), int(name == "context" and phase == "decode"))
    plain: dict[str, Any] = {
        n: int(v) for n in _RANGES if (v := getattr(whole, n, None)) is not None
    }
    whole = replace(whole, **plain)
    _check_draft(whole)
    _check_hit(m, whole)
    return whole


def _image(m: Model, asked: Asked) -> Asked:
    """Return what is asked with the image of the model's page if it names none."""
    if m.vision is None:
        raise InputError("has no vision encoder", value=m.title, place="vision")
    image = asked.image or (tuple(m.page.image) if m.page else None)
    if image is None:
        raise InputError("is needed for vision", place="image",
                         hint="say the width and the height of the image")  # fmt: skip
    if not isinstance(image, tuple | list) or len(image) != 2:
        raise InputError("needs a width and a height", place="image", value=image)
    for name, side in zip(("width", "height"), image, strict=True):
        _in_range(name, side)
    return replace(asked, image=(image[0], image[1]))


def _tokens(m: Model, phase: str, asked: Asked) -> Asked:
    """Return what is asked with the tokens of the model's page if it says none."""
    usual = m.page.prompt if m.page is not None else CONTEXT
    context = usual if asked.context is None else asked.context
    if phase == "prefill" and asked.new is None:  # the whole prompt enters
        _in_range("context", context, 1)
        return replace(asked, context=0, new=context)
    return replace(asked, context=context, new=1 if asked.new is None else asked.new)


def _in_range(name: str, value: object, least: int = 0) -> None:
    low, high = max(_RANGES[name][0], least), _RANGES[name][1]
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError("not a whole number", place=name, value=value,
                         allowed=f"{low} to {high:,}")  # fmt: skip
    if not low <= int(value) <= high:
        raise InputError("out of range", place=name, value=value, allowed=f"{low} to {high:,}")


def _number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_draft(asked: Asked) -> None:
    """Refuse drafted tokens of which nobody says how many are accepted, and the other way round."""
    if (asked.draft > 0) != (asked.acceptance is not None):
        given = "draft" if asked.draft else "acceptance"
        raise InputError("drafted tokens and their acceptance go together", place=given,
                         value=getattr(asked, given))  # fmt: skip
    if asked.acceptance is not None and not (
        _number(asked.acceptance) and 0 <= asked.acceptance <= 1
    ):
        raise InputError("out of range", place="acceptance", value=asked.acceptance,
                         allowed="0 to 1")  # fmt: skip


def _check_hit(m: Model, asked: Asked) -> None:
    """Refuse a number of experts hit that no choice of the tokens has."""
    e, hit = m.decoder.experts, asked.experts_hit
    if hit is None:
        return
    if e is None:
        raise InputError("of a model without experts", place="experts_hit", value=hit)
    most = min(e.count, asked.batch * ((asked.new or 1) + asked.draft) * e.chosen)
    if not (_number(hit) and e.chosen <= hit <= most):
        raise InputError("out of range", place="experts_hit", value=hit,
                         allowed=f"{e.chosen} to {most}")  # fmt: skip
