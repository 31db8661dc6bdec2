"""What options of figures are made of: parameters, designs, axes, cases, checked when read."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    InstanceOf,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from npusim import catalog
from npusim.arch import is_whole, siblings
from npusim.errors import InputError
from npusim.parameters import PARAMETERS
from npusim.studies.bench import Case
from npusim.studies.claim import Side
from npusim.studies.figures.about import About
from npusim.studies.side import FIGURES, number, side
from npusim.studies.work import check
from npusim.sweep_block import Strict
from npusim.sweeps.space import unmodelled

Array = NDArray[np.float64]

BATCH = "workload.batch"
_MOST = 65  # values of an axis

Model = str
Launch = Literal["eager", "graph", "queue"]
Work = Literal["decode", "page", "vision", "prefill", "step"]
Batch = Annotated[int, Field(ge=1, le=1024)]


def wrong(problem: str, **more: Any) -> PydanticCustomError:
    """Return an error that keeps what `npusim.errors.InputError` would say."""
    return PydanticCustomError("input", "{problem}", {"problem": problem, "more": more})


def design(given: Any, has_sweep: bool = True) -> Side:
    """Return a design from what a file sets; nothing: the nominal one.

    Examples
    --------
    >>> design({"memories.dram.bandwidth": "2 TB/s", "launch": "graph"}).launch
    'graph'
    """
    if isinstance(given, Side):
        return given
    if not isinstance(given, Mapping):
        raise wrong("not a mapping", value=given)

    def refuse(key: str, problem: str) -> None:
        raise wrong(f"{key}: {problem}")

    return side(given, has_sweep, refuse)


def _design(given: Any, info: ValidationInfo) -> Side:
    about = info.context
    return design(given, not isinstance(about, About) or about.designs is not None)


def _parameter(path: str) -> str:
    if path not in PARAMETERS:
        raise wrong("unknown parameter", value=path, allowed=siblings(path))
    for error in unmodelled([path]):
        raise wrong(str(error).removeprefix(f"{path}: "), value=path)
    return path


def _figure(name: str) -> str:
    if name not in FIGURES:
        raise wrong("no figure of a design", value=name, allowed=", ".join(FIGURES))
    return name


def _arch(name: str) -> str:
    try:
        catalog.find("archs", name)
    except InputError as error:
        raise wrong(str(error)) from None
    return name


Design = Annotated[InstanceOf[Side], BeforeValidator(_design)]
Parameter = Annotated[str, AfterValidator(_parameter)]
FigureName = Annotated[str, AfterValidator(_figure)]
ArchName = Annotated[str, AfterValidator(_arch)]


class Along(Strict):
    """A parameter and its values: some by name, or steps from one to another."""

    parameter: Parameter
    values: Annotated[list[str | float], Field(min_length=2, max_length=_MOST)] | None = None
    start: str | float | None = None
    stop: str | float | None = None
    steps: Annotated[int, Field(ge=2, le=_MOST)] | None = None
    scale: Literal["linear", "log"] | None = None

    @model_validator(mode="after")
    def _holds(self) -> Along:
        try:
            self.points()
        except InputError as error:
            text = str(error).removeprefix(f"{self.parameter}: ")
            raise wrong(f"{self.parameter}: {text}") from None
        return self

    def points(self) -> Array:
        """Return the values, (P,) [SI], each once.

        Raises
        ------
        InputError
            Both or neither of values and a range, wrong units, or out of bounds.
        """
        path, spans = self.parameter, (self.start, self.stop, self.steps)
        if self.values is not None:
            if any(end is not None for end in (*spans, self.scale)):
                raise InputError("values and a range", allowed="one of them")
            found = np.array([number(path, raw) for raw in self.values])
        elif any(end is None for end in spans):
            raise InputError("needs values, or start, stop and steps")
        else:
            low, high = number(path, self.start), number(path, self.stop)
            if self.scale == "log" and min(low, high) <= 0:
                raise InputError("a log scale needs ends above zero")
            space = np.geomspace if self.scale == "log" else np.linspace
            found = space(low, high, int(self.steps or 2))
            found[[0, -1]] = low, high
        found = np.rint(found) if is_whole(path) else found
        if len(np.unique(found)) < max(2, len(found) if self.values is not None else 2):
            raise InputError("values that are the same")
        unique: Array = np.unique(found)
        return unique


def refuse_both(drawn: list[str], both: list[str], over: Side) -> None:
    """Refuse parameters that the design which is put beside cannot take along.

    A batch is one of the case, so of both designs; what is not drawn, or what that design sets
    itself, it does not take along.
    """
    for path in both:
        if path not in drawn:
            raise wrong("both: not a parameter of the figure", value=path, allowed=", ".join(drawn))
        if path in over.machine or path in over.work:
            raise wrong("both: set by the design that is put beside, too", value=path)
    if BATCH in drawn and BATCH not in both:
        raise wrong(f"needs both: [{BATCH}]: a batch is that of both designs")


class OfWork(Strict):
    """Options with ``model`` or ``models``, ``work`` and ``batch``, which must go together."""

    @model_validator(mode="after")
    def _work_holds(self) -> OfWork:
        given = {name: getattr(self, name) for name in type(self).model_fields}
        models = given["models"] if "models" in given else [given["model"]]
        batch = given["batch"]
        try:
            check(models, given["work"], batch if isinstance(batch, list) else [batch])
        except InputError as error:
            raise wrong(str(error)) from None
        return self


class OneCase(OfWork):
    """The work of a figure: a step or page of a model."""

    model: Model = "paddleocr_vl"
    batch: Batch = 1
    launch: Launch = "queue"
    work: Work = "decode"

    def case(self) -> Case:
        """Return the case."""
        return Case(self.model, self.work, self.batch, self.launch)


class Cases(OfWork):
    """The work of a figure: steps or pages of models."""

    models: list[Model] = Field(["paddleocr_vl", "deepseek_ocr"], min_length=1)
    batch: list[Batch] = Field([1], min_length=1)
    launch: list[Launch] = Field(["queue"], min_length=1)
    work: Work = "decode"

    def cases(self) -> list[Case]:
        """Return all cases."""
        every = product(self.models, self.batch, self.launch)
        return [Case(model, self.work, batch, launch) for model, batch, launch in every]
