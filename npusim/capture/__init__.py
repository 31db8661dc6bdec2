"""Baselines of a GPU: traces of models, natural experiments, hardware counters.

Runs on a machine with a GPU and PyTorch, which npusim itself does not need. What it writes has the
layout of npusim's own H200 baseline, so the importers and calibration read both.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npusim.capture.case import Case as Case
    from npusim.capture.counters import Counted as Counted
    from npusim.capture.counters import capture_counters as capture_counters
    from npusim.capture.environment import Origin as Origin
    from npusim.capture.experiments import Outcome as Outcome
    from npusim.capture.experiments import capture_experiments as capture_experiments
    from npusim.capture.trace import Captured as Captured
    from npusim.capture.trace import capture_model as capture_model

_WHERE = {
    "Captured": "trace",
    "Case": "case",
    "Counted": "counters",
    "Origin": "environment",
    "Outcome": "experiments",
    "capture_counters": "counters",
    "capture_experiments": "experiments",
    "capture_model": "trace",
}

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'npusim.capture' has no attribute {name!r}")
    return getattr(import_module(f"npusim.capture.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
