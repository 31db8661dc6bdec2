"""First request with a filled code cache over the same with an empty one.

    t(empty) = t(filled) + K (compile - load)            (`npusim.cold_start`)

K is the number of distinct kernels that a request runs: those of the traces of the model, a lower
bound. What one takes to be compiled or loaded was measured on an H200
(``workloads/experiments/h200_host_axes.json``, axis ``first_use``), kernel by kernel.

The band is the range of those kernels: other compilers differ as much as kernels of one do.

Left out: several compilers at a time, shapes that select other kernels, tuning at first use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from npusim import catalog, units
from npusim.cold_start import distinct_kernels, first_request, time_a_kernel
from npusim.errors import InputError
from npusim.load import load_workload
from npusim.studies.value import Doubt, Value
from npusim.sweep_block import Strict

UNIT = "1"
FIGURE = "first request with a filled cache over one without"

_DATA = "h200_host_axes"
_WAYS = {"compile": "compiled", "load": "loaded"}
_BOUNDS = (0.0, 60.0)  # of a kernel: more than a minute is another program


class Options(Strict):
    """A request and what its first kernels take.

    Attributes
    ----------
    filled : str
        The first request of a process with a filled cache, as published.
    workloads : list of str
        Traces whose kernels it runs.
    cold : str
        The same with an empty cache, as published: told beside the prediction; or empty.
    """

    filled: str
    workloads: list[str]
    cold: str = ""


def doubts(options: Options) -> dict[str, Doubt]:
    """Return what a kernel takes at its first use: mean and range of those measured."""
    found = {}
    for name, way in _WAYS.items():
        seconds = _first_uses(way)
        found[f"kernel.{name}"] = Doubt(
            float(seconds.mean()), float(seconds.min()), float(seconds.max()), "s",
            f"H200, {seconds.size} kernels {way} at their first use", _BOUNDS,
        )  # fmt: skip
    return found


def measure(options: Options, settings: Mapping[str, float]) -> Value:
    """Return the ratio.

    Raises
    ------
    InputError
        No workloads, or a published first request that is no longer than the filled one.

    Examples
    --------
    >>> parts = [f"paddleocr_vl_{phase}" for phase in ("vision", "prefill", "decode")]
    >>> measure(Options(filled="4.28 s", workloads=parts), {}).value < 0.5
    True
    """
    known = doubts(options)
    compile_s, load_s = (settings.get(p, known[p].nominal) for p in known)
    kernels = len(distinct_kernels(load_workload(name) for name in options.workloads))
    if not kernels:
        raise InputError("no kernels", place="workloads", value=", ".join(options.workloads))
    filled = units.parse(options.filled, "s")

    def ratio(compiled: float, loaded: float) -> float:
        return filled / first_request(filled, kernels, max(compiled - loaded, 0.0))

    value = ratio(compile_s, load_s)
    ends = [ratio(c, known["kernel.load"].nominal)
            for c in (known["kernel.compile"].low, known["kernel.compile"].high)]  # fmt: skip
    reason = (
        f"{kernels} kernels at {compile_s:.2g} s each, less {load_s:.2g} s to load one, make a "
        f"first request of {filled / value:.1f} s that takes {filled:.2f} s with a filled cache"
    )
    if options.cold:
        each = load_s + time_a_kernel(units.parse(options.cold, "s"), filled, kernels)
        reason += f"; the {options.cold} that were measured ask for {each:.2g} s a kernel"
    return Value(value, min(value, *ends), max(value, *ends), reason,
                 (*options.workloads, f"workloads/experiments/{_DATA}.json"))  # fmt: skip


@cache
def _first_uses(way: str) -> NDArray[np.float64]:
    """Return what kernels took at their first use in a process [s]."""
    rows = json.loads((catalog.folder("workloads") / "experiments" / f"{_DATA}.json").read_text())
    return np.array([r["first_us"] for r in rows if r.get("way") == way]) / 1e6
