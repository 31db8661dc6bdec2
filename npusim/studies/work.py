"""The work that claims are about: steps and pages of the two models, at a batch.

A page is the vision encoder once, the prompt once, and a decode step for each token that the page
yields; of `batch` pages that are read together each has its share of the decode steps.

Of a trace the median step is taken. All are shipped traces but one: the prompt of DeepSeek-OCR is
the model's template with grouped experts, as its decode step is. Its trace launches the kernels of
each expert by themselves, 13,000 of them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

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


def names(model: str, work: str) -> tuple[str, ...]:
    """Return the names of the shipped traces in the work of a model; "" where a template is used.

    Examples
    --------
    >>> names("paddleocr_vl", "page")
    ('paddleocr_vl_vision', 'paddleocr_vl_prefill', 'paddleocr_vl_decode')
    >>> names("deepseek_ocr", "prefill")
    ('',)
    """
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
        A lowering that the model does not have.
    """
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
    if batch == 1 or lowering or "decode" not in PHASES[work]:
        return {}
    return {"workload.batch": float(batch)}


def counts(model: str, work: str, batch: int) -> tuple[float, ...]:
    """Return how many steps of each workload make the work."""
    each = TOKENS[model] / batch if work == "page" else 1.0
    return tuple(each if phase == "decode" else 1.0 for phase in PHASES[work])
