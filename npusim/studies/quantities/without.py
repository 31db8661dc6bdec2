"""A step without some of its operations over the same step with them: the most a fusion brings.

An operation that is left out takes its device time, its launch and its host work with it
(`npusim.leave_out`). Another kernel that did its work would take longer for it, so this is the
limit of what joining it with a neighbour can bring, not what it does bring.

The band is that of kernel times: both steps at the low end, both at the high end.

Left out: what the joined kernel loses (registers, tiles that no longer fit).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from npusim.arch import Designs
from npusim.compare import Banded, replay_with_band
from npusim.error_band import band_factors
from npusim.errors import InputError
from npusim.fusion.program import program
from npusim.leave_out import leave_out
from npusim.load import load_arch, load_workload
from npusim.power import held
from npusim.studies.assumed import assumed, with_settings
from npusim.studies.value import Doubt, Value
from npusim.sweep_block import Strict
from npusim.templates import template
from npusim.workload import Workload

UNIT = "1"
FIGURE = "wall without these operations over wall with them"


class Options(Strict):
    """Which operations of which step, on which machine.

    Attributes
    ----------
    workload : str
        A trace; or empty, where `model` and `lowering` are given.
    model, lowering : str
        A decode step of a template, at `context`; `settings` are its hyperparameters that differ.
    arch : str
    launch : {"eager", "graph", "queue"}
    kinds : list of str
        Kinds of operations to leave out.
    """

    workload: str = ""
    model: str = ""
    lowering: str = ""
    context: int | None = None
    settings: dict[str, str] = Field(default_factory=dict)
    arch: str
    launch: Literal["eager", "graph", "queue"] = "eager"
    kinds: list[str]


def doubts(options: Options) -> dict[str, Doubt]:
    """Return what a launch and a small kernel cost, where the machine assumes it."""
    return assumed(load_arch(options.arch), ("launch.eager.host", "floor.reduction"))


def measure(options: Options, settings: Mapping[str, float]) -> Value:
    """Return the ratio.

    Raises
    ------
    InputError
        Kinds that the step does not have.

    Examples
    --------
    >>> step = dict(model="paddleocr_vl", lowering="serving", arch="h200")
    >>> 0.7 < measure(Options(kinds=["norm"], **step), {}).value < 1
    True
    """
    w = _workload(options)
    for kind in options.kinds:
        if kind not in w.labels["kind"]:
            raise InputError("has no such operations", file=w.name, place="kinds", value=kind,
                             allowed=", ".join(w.labels["kind"]))  # fmt: skip
    gone = w.mask("kind", *options.kinds)
    designs = Designs(with_settings(load_arch(options.arch), settings))
    whole = _replayed(w, designs, options.launch)
    less = _replayed(leave_out(w, gone, ", ".join(options.kinds)), designs, options.launch)
    ratios = [float(a.wall_s[0] / b.wall_s[0])
              for a, b in ((getattr(less, end), getattr(whole, end))
                           for end in ("middle", "low", "high")) if a is not None]  # fmt: skip
    steps = max(len(w.steps), 1)
    reason = (
        f"{gone.sum() / steps:.0f} of {len(w) / steps:.0f} launches a step go, and with them "
        f"{_saved(whole, less, 'device_busy_s')} of device and "
        f"{_saved(whole, less, 'host_busy_s')} of host: the wall is "
        f"{_saved(whole, less, 'wall_s')} shorter"
    )
    made = f"template of {options.model}, decode, lowering {options.lowering}"
    return Value(ratios[0], min(ratios), max(ratios), reason,
                 (options.workload or made, options.arch))  # fmt: skip


def _saved(whole: Banded, less: Banded, name: str) -> str:
    before, after = (1e3 * float(getattr(one.middle, name)[0]) for one in (whole, less))
    return f"{before - after:.3g} of {before:.3g} ms"


def _workload(options: Options) -> Workload:
    if bool(options.workload) == bool(options.model and options.lowering):
        raise InputError("needs a workload, or a model and a lowering", place="without")
    if options.workload:
        return load_workload(options.workload)
    return template(options.model, "decode", context=options.context, lowering=options.lowering,
                    settings=options.settings)  # fmt: skip


def _replayed(w: Workload, designs: Designs, launch: str) -> Banded:
    ran = program(w, designs, launch)
    settled = held(ran, designs, launch)
    factors = band_factors(ran, settled.designs, settled.time)
    return replay_with_band(ran, settled.designs, settled.time, launch, factors)
