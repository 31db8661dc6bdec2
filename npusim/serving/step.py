"""One step of an engine: what enters, and what decides how long it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from npusim.errors import InputError
from npusim.serving.request import refuse_no_time
from npusim.step_cost import StepCost


@dataclass(slots=True)
class Step:
    """What a step works on.

    Attributes
    ----------
    prompts : list of tuple of int
        Tokens that enter of each prompt, and those of it that were there before.
    finished_prompts : int
        Of them those whose last token enters: each gives a token of its answer.
    decodes : int
        Requests under way that get a token more.
    context : int
        Tokens that these have in the cache, all together, the new ones included.
    images : list of int
        Tokens of each image that is encoded before.
    work_s : float
        What requests ask for beside that [s].
    """

    prompts: list[tuple[int, int]] = field(default_factory=list)
    finished_prompts: int = 0
    decodes: int = 0
    context: int = 0
    images: list[int] = field(default_factory=list)
    work_s: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens that enter."""
        return self.decodes + sum(new for new, _ in self.prompts)

    @property
    def samples(self) -> int:
        """Tokens of answers that it makes."""
        return self.decodes + self.finished_prompts


class StepTimes(Protocol):
    """Whatever tells how long a step takes."""

    def seconds(self, step: Step) -> float:
        """Return the time of a step [s]."""


@dataclass(frozen=True)
class LinearTimes:
    """Step times of a few numbers, for machines of which no more is known.

        t = work + tokens of images x image_token_s
          + prompts x prompt_s + tokens of prompts x prompt_token_s     if prompts enter
          + a + b decodes                                               if there are any

    Attributes
    ----------
    decode : StepCost
        a and b: a step of decoding, whatever its batch, and each request in it [s].
    prompt_s, prompt_token_s : float
        Each prompt, and each of its tokens [s].
    image_token_s : float
        Each token that the encoder makes [s].
    group_s : float
        A step in which prompts enter, however many [s].

    Examples
    --------
    >>> LinearTimes(StepCost(0.01, 0.002), prompt_s=0.1).seconds(Step([(628, 0)], 1, 3, 2000))
    0.116
    """

    decode: StepCost
    prompt_s: float = 0.0
    prompt_token_s: float = 0.0
    image_token_s: float = 0.0
    group_s: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.decode, StepCost):
            raise InputError("not the cost of a step", place="decode", value=self.decode,
                             allowed="a StepCost")  # fmt: skip
        for place in ("prompt_s", "prompt_token_s", "image_token_s", "group_s"):
            refuse_no_time(place, getattr(self, place))

    def seconds(self, step: Step) -> float:
        """Return the time of a step [s]."""
        total = step.work_s + self.image_token_s * sum(step.images)
        if step.prompts:
            tokens = sum(new for new, _ in step.prompts)
            total += self.group_s + self.prompt_s * len(step.prompts) + self.prompt_token_s * tokens
        if step.decodes:
            total += self.decode.time(step.decodes)
        return total
