"""One of two designs as a study file says it: what it may name, and its numbers, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from npusim import catalog, units
from npusim.arch import check, siblings
from npusim.errors import InputError
from npusim.merit import MERITS
from npusim.parameters import PARAMETERS
from npusim.studies.claim import LAUNCHES, Side
from npusim.sweeps.evaluate import TRAFFIC
from npusim.sweeps.space import unmodelled
from npusim.transforms import split

# Figures of a design: columns of a sweep.
FIGURES = (*MERITS, "device_busy_s", "device_idle_s", "host_busy_s", "idle_share", *TRAFFIC)
_NAMED = {"arch": "archs", "best": "archs", "lowering": "lowerings"}


def number(path: str, raw: Any) -> float:
    """Return the value of a parameter of a machine or workload [SI].

    Raises
    ------
    InputError
        Unknown parameter, one that no model reads, wrong unit, or out of bounds.

    Examples
    --------
    >>> number("memories.dram.bandwidth", "2 TB/s")
    2000000000000.0
    """
    if path not in PARAMETERS:
        raise InputError("unknown parameter", value=path,
                         allowed=f"{siblings(path)}; {', '.join((*_NAMED, 'launch'))}")  # fmt: skip
    for error in unmodelled([path]):
        raise error
    return check(path, units.parse(raw, PARAMETERS[path].unit))


def side(given: Mapping[str, Any], has_sweep: bool, wrong: Callable[[str, str], None]) -> Side:
    """Return a design from what a file sets; nothing: the nominal one.

    Parameters
    ----------
    given : mapping
    has_sweep : bool
        Whether the study has a sweep, of which a design may be the best.
    wrong : callable
        Told each mistake: key and problem.

    Examples
    --------
    >>> side({"memories.dram.bandwidth": "2 TB/s", "launch": "graph"}, False, print).launch
    'graph'
    >>> side({"launch": "grph"}, False, print).launch
    launch not a launch mode: 'grph' (allowed: queue, graph, eager)
    ''
    """
    named: dict[str, str] = {}
    numbers: dict[str, float] = {}
    for key, raw in given.items():
        try:
            if key == "launch" and raw not in LAUNCHES:
                raise InputError("not a launch mode", value=raw, allowed=", ".join(LAUNCHES))
            if key in _NAMED:
                catalog.find(_NAMED[key], str(raw))
            if key in _NAMED or key == "launch":
                named[key] = str(raw)
            else:
                numbers[key] = number(key, raw)
        except InputError as error:
            wrong(key, str(error).removeprefix(f"{key}: "))
    if "best" in named and (not has_sweep or "arch" in named):
        wrong("best", "is the best design of the study's own sweep: it needs a sweep block, and no "
              "arch")  # fmt: skip
    machine, work = split(numbers)
    text = ", ".join(f"{key} {raw}" for key, raw in given.items()) or "nominal"
    return Side(**named, machine=machine, work=work, text=text)
