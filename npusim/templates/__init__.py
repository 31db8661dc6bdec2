"""Workloads from hyperparameters: no trace, the kernels that a framework would launch.

A model (`npusim.templates.hyperparameters`) is turned into the operators of a step
(`npusim.templates.decoder` and those beside it), and these into kernels by a lowering
(`npusim.templates.lowering`). Models and lowerings are YAML files; a new one is one new file.
"""

from __future__ import annotations

from npusim.templates.hyperparameters import Model
from npusim.templates.lowering import Lowering, load_lowering
from npusim.templates.models import load_model
from npusim.templates.phases import template

__all__ = ["Lowering", "Model", "load_lowering", "load_model", "template"]
