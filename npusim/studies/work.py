"""The work that claims are about: steps and pages of two models at a batch, or a workload as it is.

A page is the vision encoder once, the prompt once, and a decode step for each token that the page
yields; of `batch` pages that are read together each has its share of the decode steps.

Of a trace the median step is taken. All are shipped traces but one: the prompt of DeepSeek-OCR is
the model's template with grouped experts, as its decode step is. Its trace launches the kernels of
each expert by themselves, 13,000 of them.

Any other name is a workload: a file of yours, any trace, or one that ships. Its work is a ``step``,
the mean of all in it (of a page template the page), and its batch is what the file has:
``workload.batch`` of a design changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from npusim import catalog
from npusim.arch import Arch
from npusim.errors import InputError
from npusim.load import load_arch, load_workload
from npusim.templates import template
from npusim.transforms import only_steps
from npusim.workload import Workload

TITLES = {"deepseek_ocr": "DeepSeek-OCR", "paddleocr_vl": "PaddleOCR-VL"}
_TRACES = {
    "deepseek_ocr": {"decode": "deepseek_ocr_decode_grouped", "prefill": "",
                     "vision": "deepseek_ocr_vision"},
    "paddleocr_vl": {"decode": "paddleocr_vl_decode", "prefill": "paddleocr_vl_prefill",
                     "vision": "paddleocr_vl_vision"},
}  # fmt: skip
_GROUPED = "hf-eager-grouped"  # the lowering of a prompt of which no trace is used
# Tokens of a page: what the profile of seed 004 lets each model generate, and the run of seed 000.
TOKENS = {"deepseek_ocr": 64, "paddleocr_vl": 165}
PHASES = {"decode": ("decode",), "prefill": ("prefill",), "vision": ("vision",),
          "page": ("vision", "prefill", "decode")}  # fmt: skip
STEP = "step"  # the work of any other workload


def is_own(model: str) -> bool:
    """Return whether a name is not that of a model whose traces ship, but of a workload."""
    return model not in TITLES


def title(model: str) -> str:
    """Return what a model or workload is called in words.

    Examples
    --------
    >>> title("paddleocr_vl"), title("traces/mine.json.gz")
    ('PaddleOCR-VL', 'mine')
    """
    return TITLES.get(model) or Path(model).name.split(".")[0]


def check(models: Sequence[str], work: str, batches: Sequence[int]) -> None:
    """Refuse workloads that are not there, or of which another work than a step is asked.

    Raises
    ------
    InputError
        The first of them.

    Examples
    --------
    >>> check(["paddleocr_vl_decode"], "step", [1])
    >>> check(["paddleocr_vl"], "step", [1])
    Traceback (most recent call last):
    npusim.errors.InputError: work: not of a model: 'step' (allowed: decode, prefill, vision, page)
    """
    for model in filter(is_own, models):
        try:
            catalog.find("workloads", model)
        except InputError as error:
            raise InputError(str(error), place="models",
                             hint="or " + " or ".join(TITLES)) from None  # fmt: skip
    if work == STEP:
        if not all(map(is_own, models)):
            raise InputError("not of a model", place="work", value=work, allowed=", ".join(PHASES))
        if set(batches) != {1}:
            raise InputError("a workload has its own", place="batch", value=list(batches),
                             hint="set workload.batch in design and against")  # fmt: skip
    elif any(map(is_own, models)):
        raise InputError("not of a workload of yours", place="work", value=work, allowed=STEP)


def names(model: str, work: str) -> tuple[str, ...]:
    """Return the names of the shipped traces in the work of a model; "" where a template is used.

    Examples
    --------
    >>> names("paddleocr_vl", "page")
    ('paddleocr_vl_vision', 'paddleocr_vl_prefill', 'paddleocr_vl_decode')
    >>> names("deepseek_ocr", "prefill")
    ('',)
    """
    if is_own(model):
        return (model,)
    return tuple(_TRACES[model][phase] for phase in PHASES[work])


@lru_cache(maxsize=64)
def machine(name: str) -> Arch:
    """Return a machine, read once."""
    return load_arch(name)


@lru_cache(maxsize=64)
def workloads(model: str, work: str, batch: int, lowering: str = "") -> tuple[Workload, ...]:
    """Return the workloads of a case: shipped traces, or the model's template in a lowering.

    Templates are made at the batch; traces are as traced (`change` puts them there).

    Raises
    ------
    InputError
        A lowering that the model does not have, or a workload that cannot be read.
    """
    if is_own(model):
        if lowering:
            raise InputError("belongs to a model", place="lowering", value=lowering)
        return (load_workload(model),)
    if not lowering:
        return tuple(
            _median_step(load_workload(name)) if name else template(model, phase, lowering=_GROUPED)
            for name, phase in zip(names(model, work), PHASES[work], strict=True)
        )
    try:
        return tuple(
            template(model, phase, lowering=lowering, batch=batch if phase == "decode" else 1)
            for phase in PHASES[work]
        )
    except InputError as error:
        raise InputError(str(error), place="lowering", value=lowering) from None


def _median_step(w: Workload) -> Workload:
    """Return the traced step whose wall is the median: the others are much the same."""
    order = np.argsort(w.steps.wall_s, kind="stable")
    return only_steps(w, [int(order[(len(order) - 1) // 2])])


def change(work: str, batch: int, lowering: str = "") -> dict[str, float]:
    """Return what puts traces of a step at a batch; nothing where they are there already."""
    if batch == 1 or lowering or "decode" not in PHASES.get(work, ()):
        return {}
    return {"workload.batch": float(batch)}


def counts(model: str, work: str, batch: int) -> tuple[float, ...]:
    """Return how many steps of each workload make the work."""
    if work == STEP:
        return (1.0,)
    each = TOKENS[model] / batch if work == "page" else 1.0
    return tuple(each if phase == "decode" else 1.0 for phase in PHASES[work])
