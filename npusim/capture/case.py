"""What of a model is captured: the case, and the names of the files it makes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from npusim.errors import InputError

PHASES = ("prefill", "decode", "vision")
LAUNCHES = ("eager", "graph", "compiled")
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CALLABLE = re.compile(r".+:[A-Za-z_]\w*")
_MOST_STEPS = 50  # a static cache has room for these and a few more


@dataclass(frozen=True)
class Case:
    """One phase of one model at one batch and context.

    Attributes
    ----------
    model : str
        A Hugging Face ``config.json``, a folder that holds one, the id of a model in the local
        cache, ``module:function`` or ``file.py:function``.
    phase : str
        ``prefill`` (`context` tokens at once), ``decode`` (one token a sequence, `context` tokens
        before it) or ``vision`` (one image a sequence).
    batch : int
        Sequences, or images.
    context : int
        Tokens a sequence; 0 for vision.
    dtype : str
        ``bf16``, ``fp16`` or ``fp32``.
    launch : str
        What is traced: ``eager`` steps, ``graph`` replays, or replays of the ``compiled`` step.
    steps : int
        Steps in the trace.
    name : str
        What to call the model in file names; empty for one made from `model`.

    Raises
    ------
    InputError
        A value that is not allowed.

    Examples
    --------
    >>> case = Case("models/paddle/config.json", "decode", batch=8, context=628, launch="graph")
    >>> case.trace_file
    'kineto_paddle_decode_b8_c628_graph.json.gz'
    >>> case.id
    'paddle:decode:8:628'
    """

    model: str
    phase: str
    batch: int = 1
    context: int = 0
    dtype: str = "bf16"
    launch: str = "eager"
    steps: int = 3
    name: str = ""

    def __post_init__(self) -> None:
        _one_of("phase", self.phase, PHASES)
        _one_of("launch", self.launch, LAUNCHES)
        _one_of("dtype", self.dtype, tuple(DTYPES))
        _within("batch", self.batch, 1)
        _within("context", self.context, 0 if self.phase == "vision" else 1)
        _within("steps", self.steps, 1, _MOST_STEPS)
        if not _NAME.fullmatch(self.label):
            raise InputError("not a name for files", place="--name", value=self.label,
                             allowed="letters, digits, '.', '_' and '-'")  # fmt: skip

    @property
    def is_callable(self) -> bool:
        """Whether `model` names a function of the user's."""
        return bool(_CALLABLE.fullmatch(self.model))

    @property
    def label(self) -> str:
        """What the model is called in files."""
        return self.name or _name_of(self.model, self.is_callable)

    @property
    def id(self) -> str:
        """Model, phase, batch and context, as in ``wall.jsonl``."""
        return f"{self.label}:{self.phase}:{self.batch}:{self.context}"

    @property
    def _stem(self) -> str:
        return f"{self.label}_{self.phase}_b{self.batch}_c{self.context}"

    @property
    def trace_file(self) -> str:
        """Name of the profiler's trace."""
        ending = "" if self.launch == "eager" else f"_{self.launch}"
        return f"kineto_{self._stem}{ending}.json.gz"

    def counter_file(self, metrics: str) -> str:
        """Return the name of the counters' file: ``ncu_...`` or ``dram_...``."""
        return f"{'ncu' if metrics == 'counters' else metrics}_{self._stem}.csv.gz"


def _name_of(model: str, is_callable: bool) -> str:
    """Return the part of a model's path or id that tells it from others.

    Examples
    --------
    >>> _name_of("org/Model-1.5B", False), _name_of("here/tiny.json", False)
    ('Model-1.5B', 'tiny')
    >>> _name_of("code/mine.py:decoder", True)
    'decoder'
    """
    if is_callable:
        return model.rpartition(":")[2]
    path = PurePath(model)
    if path.name == "config.json":
        path = path.parent
    return path.name.removesuffix(".json")


def _one_of(field: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InputError("not one of those known", place=f"--{field}", value=value,
                         allowed=", ".join(allowed))  # fmt: skip


def _within(field: str, value: Any, least: int, most: int | None = None) -> None:
    too_many = most is not None and value > most
    if not isinstance(value, int) or value < least or too_many:
        allowed = f"from {least}" if most is None else f"{least} to {most}"
        raise InputError("out of bounds", place=f"--{field}", value=value, allowed=allowed)
