"""npusim: replay measured kernel traces on accelerators that do not exist yet.

The nouns and verbs below are the library; everything else is found in the modules they come from.
They are imported on first use, so that ``npusim --help`` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    import npusim.plots as plots  # noqa: PLR0402
    from npusim.arch import Arch as Arch
    from npusim.arch import Designs as Designs
    from npusim.arch import with_value as with_value
    from npusim.axes import Axis as Axis
    from npusim.axes import Condition as Condition
    from npusim.axes import Samples as Samples
    from npusim.errors import NpusimError as NpusimError
    from npusim.graph import from_networkx as from_networkx
    from npusim.graph import to_networkx as to_networkx
    from npusim.importers import import_trace as import_trace
    from npusim.load import load_arch as load_arch
    from npusim.load import load_workload as load_workload
    from npusim.page import page_times as page_times
    from npusim.predict import Result as Result
    from npusim.predict import replay as replay
    from npusim.rescaling import rescale as rescale
    from npusim.search.knees import knees as knees
    from npusim.search.points import Points as Points
    from npusim.search.sensitivity import sobol as sobol
    from npusim.serving import Fleet as Fleet
    from npusim.serving import Limits as Limits
    from npusim.serving import LinearTimes as LinearTimes
    from npusim.serving import Policy as Policy
    from npusim.serving import Pool as Pool
    from npusim.serving import Request as Request
    from npusim.serving import serve as serve
    from npusim.step_cost import StepCost as StepCost
    from npusim.step_cost import fit_step_cost as fit_step_cost
    from npusim.sweeps.front import Front as Front
    from npusim.sweeps.front import pareto as pareto
    from npusim.sweeps.roofline import StepRoofline as StepRoofline
    from npusim.sweeps.run import sweep as sweep
    from npusim.sweeps.space import Space as Space
    from npusim.templates import load_model as load_model
    from npusim.templates import template as template
    from npusim.timeline_file import save_timeline as save_timeline
    from npusim.transforms import unprofiled as unprofiled
    from npusim.workload import Workload as Workload
    from npusim.workload_file import save_workload as save_workload

_WHERE = {
    "Arch": "arch",
    "Axis": "axes",
    "Condition": "axes",
    "Designs": "arch",
    "Fleet": "serving",
    "Front": "sweeps.front",
    "Limits": "serving",
    "LinearTimes": "serving",
    "NpusimError": "errors",
    "Points": "search.points",
    "Policy": "serving",
    "Pool": "serving",
    "Request": "serving",
    "Result": "predict",
    "Samples": "axes",
    "Space": "sweeps.space",
    "StepCost": "step_cost",
    "StepRoofline": "sweeps.roofline",
    "Workload": "workload",
    "fit_step_cost": "step_cost",
    "from_networkx": "graph",
    "import_trace": "importers",
    "knees": "search.knees",
    "load_arch": "load",
    "load_model": "templates",
    "load_workload": "load",
    "pareto": "sweeps.front",
    "page_times": "page",
    "replay": "predict",
    "rescale": "rescaling",
    "serve": "serving",
    "sobol": "search.sensitivity",
    "save_timeline": "timeline_file",
    "save_workload": "workload_file",
    "sweep": "sweeps.run",
    "to_networkx": "graph",
    "template": "templates",
    "unprofiled": "transforms",
    "with_value": "arch",
}

__all__ = ["__version__", "plots", *_WHERE]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name == "plots":
        return import_module("npusim.plots")
    if name not in _WHERE:
        raise AttributeError(f"module 'npusim' has no attribute {name!r}")
    return getattr(import_module(f"npusim.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
