"""A function of the user's as the program to capture: ``module:function``, ``file.py:function``.

The function is called with those of ``batch, context, phase, dtype, device`` that it takes, and
returns the step: a function without arguments that launches one step on the current stream.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from npusim.capture.case import DTYPES, Case
from npusim.capture.gpu import Row, first_line
from npusim.capture.models import Step, accepted
from npusim.capture.timing import Call
from npusim.errors import InputError, NpusimError


class UserProgram:
    """The step that the user's function returned; its state is the user's business."""

    def __init__(self, torch: Any, case: Case) -> None:
        self._torch = torch
        self._run = _made(torch, case, find_function(case.model))
        self.about: Row = {"function": case.model}

    def eager(self, before: int) -> Step:
        """Return the step."""
        return Step(self._run)

    def static(self, compiled: bool) -> Step:
        """Return the step, fused by the compiler if asked."""
        return Step(self._torch.compile(self._run, dynamic=False) if compiled else self._run)


def _made(torch: Any, case: Case, function: Callable[..., Any]) -> Call:
    """Call the user's function and return the step it makes."""
    offered = {"batch": case.batch, "context": case.context, "phase": case.phase,
               "dtype": getattr(torch, DTYPES[case.dtype]), "device": "cuda"}  # fmt: skip
    try:
        step = function(**accepted(function, offered, rest=True))
    except NpusimError:
        raise
    except Exception as error:
        raise _told(case.model, error) from None
    if not callable(step):
        raise InputError("returned no step", file=case.model, value=type(step).__name__,
                         allowed="a function without arguments that runs one step")  # fmt: skip
    return cast(Call, step)


def find_function(name: str) -> Any:
    """Return the function that ``module:function`` or ``file.py:function`` names.

    Raises
    ------
    InputError
        No such file, module or function, or the code fails as it is imported.
    """
    where, _, function = name.rpartition(":")
    try:
        module = _from_file(Path(where)) if where.endswith(".py") else _from_path(where)
    except InputError:
        raise
    except Exception as error:
        raise _told(name, error) from None
    found = getattr(module, function, None)
    if not callable(found):
        known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise InputError("no such function", file=where, value=function,
                         allowed=", ".join(known[:8]) or "none is defined there")  # fmt: skip
    return found


def _from_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise InputError("no such file", file=file)
    spec = spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise InputError("not a Python file", file=file)
    module = module_from_spec(spec)
    # A file may import what lies beside it, as it may when it is run.
    sys.path.insert(0, str(file.parent.resolve()))
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _from_path(module: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return import_module(module)


def _told(name: str, error: Exception) -> InputError:
    """Return an error of the user's code as one line with the place it comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else None
    return InputError(f"{type(error).__name__}: {first_line(error)}", file=name, place=place)
