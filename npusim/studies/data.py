"""What a verdict rests on: traces with device and date, machines, model version."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from npusim.load import load_workload
from npusim.studies.work import machine, names


def behind(
    models: Sequence[str], work: str, archs: Sequence[str], from_templates: bool
) -> tuple[str, ...]:
    """Return the data behind a claim that replays decide.

    Examples
    --------
    >>> behind(["paddleocr_vl"], "decode", ["decode_npu"], False)[1]
    'machine decode_npu'
    """
    if from_templates:
        traces = tuple(f"template of {model}" for model in models)
    else:
        traces = tuple(_trace(name) if name else f"template of the prompt of {model}"
                       for model in models for name in names(model, work))  # fmt: skip
    return (*traces, *(f"machine {machine(name).name}" for name in dict.fromkeys(archs)))


@cache
def _trace(name: str) -> str:
    meta = load_workload(name).meta
    told = [str(meta[key]) for key in ("device", "date") if meta.get(key)]
    return f"{name} ({', '.join(told)})" if told else name
