"""PyTorch profiler (Kineto) Chrome traces, plain or gzipped.

An eager trace with ``record_shapes=True`` gives every kernel its operator and shapes. A graph or
compiled replay has kernels but no operators: they import with what their names tell. Steps are
the annotations ``step#N`` or ``ProfilerStep#N``; without any, the capture is one step.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from npusim.importers import files
from npusim.importers.kineto_helpers import crew

if TYPE_CHECKING:
    from npusim.importers.kineto_scan import Tick
    from npusim.workload import Workload

FORMAT = "PyTorch profiler (Kineto) JSON, .json or .json.gz"
GENERIC = True


def sniff(path: Path) -> bool:
    """Return whether the file starts like a Chrome trace with an object around its events."""
    return files.head(path).lstrip()[:1] in (b"{", b"[") or ".json" in path.suffixes


def read(path: Path, name: str, workers: int = 1, tick: Tick | None = None) -> Workload:
    """Read a trace.

    Parameters
    ----------
    path : Path
    name : str
        What to call the workload.
    workers : int
        Processes that decode a large trace.
    tick : function, optional
        Called with bytes done and bytes in all (0 if not known).

    Returns
    -------
    Workload

    Raises
    ------
    InputError
        Not a trace, damaged before its end, without device operations, or with times that are
        none. A trace that was cut short imports up to there; ``meta`` counts what is lost.
    """
    with crew(path, workers) as helpers:
        # Loaded while the helpers start.
        from npusim.importers.kineto_scan import trace_of  # noqa: PLC0415
        from npusim.importers.kineto_workload import workload  # noqa: PLC0415

        trace = trace_of(path, helpers, tick)
    return workload(path, name, trace, aside=bool(helpers))
