"""Share of a step's wall time in which its device is at work.

    share = device-busy time / wall time

Either of two published or measured figures (rows of ``workloads/measured.csv`` with one device and
launch), or of a replay on a machine. What is left of the wall is dispatch: the device waits for the
host.

The band of measured figures is that of the two of them; of a replay the share with all kernel times
at either end of their error band. The host has no band of its own, so `doubts` names the numbers of
the host that the machine assumes.

Left out: kernels that run side by side count twice in device-busy time, in both ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from npusim.arch import Designs
from npusim.compare import Measured, measured, replay_with_band
from npusim.error_band import band_factors
from npusim.errors import InputError
from npusim.fusion.program import program
from npusim.load import load_arch, load_workload
from npusim.power import held
from npusim.studies.assumed import assumed, with_settings
from npusim.studies.value import Doubt, Value
from npusim.sweep_block import Strict
from npusim.templates import template
from npusim.transforms import transformed
from npusim.workload import Workload

UNIT = "1"
FIGURE = "device busy, share of the wall"

_HOST = {
    "eager": ("launch.eager.host", "host.speed"),
    "graph": ("launch.graph.node", "launch.graph.interval"),
    "queue": ("launch.queue.interval",),
}


class Options(Strict):
    """Which step, and where its times come from.

    Attributes
    ----------
    workload : str
        A trace; or empty, where `model` and `lowering` are given.
    model, lowering : str
        A decode step of a template, at `context`; `settings` are its hyperparameters that differ.
    device : str
        Device of the measured figures, as in ``workloads/measured.csv``; or empty.
    arch : str
        Machine of the replay, where there is no `device`.
    launch : {"eager", "graph", "queue"}
    batch : int
        Sequences of the replayed step; 0: as traced, one of a template.
    """

    workload: str = ""
    model: str = ""
    lowering: str = ""
    context: int | None = None
    settings: dict[str, str] = Field(default_factory=dict)
    device: str = ""
    arch: str = ""
    launch: Literal["eager", "graph", "queue"] = "eager"
    batch: int = 0


def doubts(options: Options) -> dict[str, Doubt]:
    """Return what the machine assumes of host and launches; nothing of measured figures."""
    return assumed(load_arch(options.arch), _HOST[options.launch]) if options.arch else {}


def measure(options: Options, settings: Mapping[str, float]) -> Value:
    """Return the share.

    Raises
    ------
    InputError
        Both or none of ``device`` and ``arch``, or a figure that was not measured.

    Examples
    --------
    Seed 000: 5.2 of 26.5 ms a token.

    >>> found = measure(Options(workload="paddleocr_vl_decode", device="MetaX C500"), {})
    >>> round(found.value, 3)
    0.197
    """
    if bool(options.device) == bool(options.arch):
        raise InputError("needs one of device and arch", place="busy_share")
    if options.device:
        return _measured(options, settings)
    return _replayed(options, settings)


def _replayed(options: Options, settings: Mapping[str, float]) -> Value:
    w, name = _workload(options)
    designs = Designs(with_settings(load_arch(options.arch), settings))
    ran = program(w, designs, options.launch)
    settled = held(ran, designs, options.launch)
    factors = band_factors(ran, settled.designs, settled.time)
    found = replay_with_band(ran, settled.designs, settled.time, options.launch, factors)
    ran_to_end = (one for one in (found.middle, found.low, found.high) if one is not None)
    share, *ends = (float(one.device_busy_s[0] / one.wall_s[0]) for one in ran_to_end)
    one = found.middle
    reason = (
        f"{one.launches:,.0f} launches a step keep the host at work for "
        f"{1e3 * one.host_busy_s[0]:.2f} ms, the device for {1e3 * one.device_busy_s[0]:.2f} ms of "
        f"{1e3 * one.wall_s[0]:.2f} ms (replay on {options.arch}, {options.launch} launch)"
    )
    return Value(share, min(share, *ends), max(share, *ends), reason, (name, options.arch))


def _workload(options: Options) -> tuple[Workload, str]:
    """Return the step to replay, and what it is called."""
    if bool(options.workload) == bool(options.model and options.lowering):
        raise InputError("needs a workload, or a model and a lowering", place="busy_share")
    if options.model:
        made = template(options.model, "decode", batch=max(options.batch, 1),
                        context=options.context, lowering=options.lowering,
                        settings=options.settings)  # fmt: skip
        return made, f"template of {options.model}, decode, lowering {options.lowering}"
    w = load_workload(options.workload)
    if options.batch:
        w = transformed(w, {"workload.batch": float(options.batch)})
    return w, options.workload


def _measured(options: Options, settings: Mapping[str, float]) -> Value:
    if settings or options.batch or options.model:
        raise InputError("changes nothing of what was measured",
                         place=next(iter(settings), "batch"),
                         hint="name a machine: arch")  # fmt: skip
    w = load_workload(options.workload)
    rows = [m for m in measured(w) if m.device == options.device and m.launch == options.launch]
    busy, wall = (_row(rows, quantity, options) for quantity in ("device_busy", "wall"))
    reason = (
        f"the device is busy for {1e3 * busy.value_s:.2f} ms of {1e3 * wall.value_s:.2f} ms a step "
        f"on {options.device} ({wall.source})"
    )
    low, high = busy.low_s / wall.high_s, busy.high_s / wall.low_s
    return Value(busy.value_s / wall.value_s, low, high, reason,
                 (options.workload, "workloads/measured.csv"))  # fmt: skip


def _row(rows: list[Measured], quantity: str, options: Options) -> Measured:
    found = [m for m in rows if m.quantity == quantity]
    if not found:
        raise InputError(f"has no measured {quantity}", file=options.workload, place="device",
                         value=f"{options.device}, {options.launch}")  # fmt: skip
    # The wall without a profiler is the one that a user sees; where there is none, the profiled.
    return next((m for m in found if m.how == "unprofiled"), found[-1])
