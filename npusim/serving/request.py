"""What clients ask for: requests with prompts, answers, and what they share with others."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from npusim.errors import InputError

MOST_TOKENS = 100_000_000  # of one request


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes
    ----------
    prompt : int
        Tokens that enter, those of images and of a shared prefix included.
    output : int
        Tokens of the answer.
    arrival_s : float
        When it is sent; in a closed loop, how long its client waits before it [s].
    prefix : str
        What the beginning of its prompt is called, if others begin with the same; else empty.
    prefix_tokens : int
        Tokens of that beginning; of different numbers under one name the shorter begins the longer.
    image : str
        What its image is called: the same name is the same image. Empty: no image.
    image_tokens : int
        Tokens of the prompt that the encoder makes of it.
    work_s : float
        What the engine does for it before its prompt enters, beside what step times say: an image
        that is taken apart, say [s].
    outside_s : float
        Before the engine has it, beside whatever the engine does: network, say [s].

    Raises
    ------
    InputError
        A count or a time that is none.

    Examples
    --------
    >>> Request(prompt=628, output=165).tokens
    793
    """

    prompt: int
    output: int
    arrival_s: float = 0.0
    prefix: str = ""
    prefix_tokens: int = 0
    image: str = ""
    image_tokens: int = 0
    work_s: float = 0.0
    outside_s: float = 0.0

    def __post_init__(self) -> None:
        for place, least in (("prompt", 1), ("output", 1), ("prefix_tokens", 0),
                             ("image_tokens", 0)):  # fmt: skip
            value = getattr(self, place)
            if not _whole(value) or not least <= value <= MOST_TOKENS:
                allowed = f"a whole number from {least} to {MOST_TOKENS:,}"
                raise InputError("not a number of tokens", place=place, value=value,
                                 allowed=allowed)  # fmt: skip
        for place in ("arrival_s", "work_s", "outside_s"):
            refuse_no_time(place, getattr(self, place))
        for name, place in (("prefix", "prefix_tokens"), ("image", "image_tokens")):
            tokens, called = getattr(self, place), getattr(self, name)
            if not isinstance(called, str):
                raise InputError("not a name", place=name, value=called, allowed="text")
            if tokens and not called:
                raise InputError(f"tokens of {_ARTICLE[name]} without a name", place=place,
                                 value=tokens, hint=f"say which: {name}")  # fmt: skip
            if tokens > self.prompt:
                raise InputError("more than the prompt has", place=place, value=tokens,
                                 allowed=f"up to {self.prompt}")  # fmt: skip

    @property
    def tokens(self) -> int:
        """Tokens of prompt and answer."""
        return self.prompt + self.output


_ARTICLE = {"prefix": "a prefix", "image": "an image"}


def refuse_no_time(place: str, value: Any) -> None:
    """Raise an InputError for what is no time of 0 s or more."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= sys.float_info.max:  # a whole number may be beyond
        raise InputError("not a time", place=place, value=value, allowed="0 s or more")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
