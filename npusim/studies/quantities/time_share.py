"""Share of a step's device time, or of its launches, that some of its operations take.

    share = sum of t over the operations chosen / sum of t over all

with t as it was traced, or, where a machine is named, as it is predicted there. Operations are
chosen by kind, by their kernel's name, by how long they take and by what holds them back
(`npusim.classes`); those that meet all that is asked count.

The band of a traced share is that of the steps of the trace. That of a predicted one puts the
chosen operations at one end of their error band and all others at the other end.

Left out: what the profiler adds to kernels; gaps between kernels, which are no device time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from npusim import units
from npusim.arch import Arch, Designs
from npusim.bands import by_kind
from npusim.classes import CLASSES, by_shapes
from npusim.columns import KINDS
from npusim.durations import durations
from npusim.error_band import kinds_band, outside
from npusim.errors import InputError
from npusim.load import load_arch, load_workload, require_traced
from npusim.studies.assumed import assumed, with_settings
from npusim.studies.value import Doubt, Value
from npusim.sweep_block import Strict
from npusim.templates import template
from npusim.workload import Workload

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

UNIT = "1"
FIGURE = "share of a step"

_FEW = 3


class Options(Strict):
    """Which operations of which step.

    Attributes
    ----------
    workload : str
        A trace; or empty, where `model` is given.
    model, phase, lowering : str
        A template, at `batch` and `context`: then `arch` has to be given, too.
    arch : str
        Machine for which times are predicted; empty: times as traced.
    base : {"busy", "launches"}
        Share of device time, or of the number of operations.
    kinds : list of str
        Kinds of operations that count; empty: all.
    kernels : str
        Regular expression that is found in the names of kernels that count.
    shorter : str
        Only operations that take less, as text with a unit: ``5 us``.
    limit : str
        Only operations of this class: ``compute-bound``, ``memory-bound``...
    """

    workload: str = ""
    model: str = ""
    phase: Literal["decode", "prefill", "vision"] = "decode"
    lowering: str = "hf-eager"
    batch: int = 1
    context: int | None = None
    arch: str = ""
    base: Literal["busy", "launches"] = "busy"
    kinds: list[str] = Field(default_factory=list)
    kernels: str = ""
    shorter: str = ""
    limit: str = ""


def doubts(options: Options) -> dict[str, Doubt]:
    """Return the floors that the machine assumes; nothing of a trace."""
    if not options.arch:
        return {}
    arch = load_arch(options.arch)
    return assumed(arch, [path for path in arch.values if path.startswith("floor.")])


def measure(options: Options, settings: Mapping[str, float]) -> Value:
    """Return the share.

    Raises
    ------
    InputError
        A workload or machine that is not there, an unknown kind or class, or both or none of
        ``workload`` and ``model``.

    Examples
    --------
    >>> found = measure(Options(workload="paddleocr_vl_decode", kinds=["gemv"]), {})
    >>> found.low <= found.value <= found.high, round(found.value, 2)
    (True, 0.41)
    """
    w = _workload(options)
    if options.arch:
        arch = with_settings(load_arch(options.arch), settings)
        seconds = _predicted(w, arch)
        chosen = _chosen(w, seconds, arch, options)
        low, value, high = _with_band(w, seconds, chosen, Designs(arch), options.base)
        where = f"predicted for {options.arch}"
    else:
        if settings:
            raise InputError("changes nothing of a trace", place=next(iter(settings)),
                             hint="name a machine: arch")  # fmt: skip
        if w.meta.get("measured") is False or not w["duration_s"].any():
            raise InputError("has no measured times", file=w.name, hint="name a machine: arch")
        seconds = w["duration_s"]
        chosen = _chosen(w, seconds, require_traced(w) if options.limit else None, options)
        low, value, high = _by_step(w, seconds, chosen, options.base)
        where = f"traced on {w.meta.get('device', 'an unknown device')}"
    steps = max(len(w.steps), 1)
    time, count = seconds[chosen].sum() / steps, int(chosen.sum()) / steps
    reason = (
        f"{count:,.0f} of {len(w) / steps:,.0f} operations a step are meant, which take "
        f"{1e6 * time:,.0f} of {1e6 * seconds.sum() / steps:,.0f} us of device time ({where}); "
        f"{_most(w, seconds, chosen)}"
    )
    made = f"template of {options.model}, {options.phase}, lowering {options.lowering}"
    data = (options.workload or made, *([options.arch] if options.arch else ()))
    return Value(value, low, high, reason, data)


def _workload(options: Options) -> Workload:
    if bool(options.workload) == bool(options.model):
        raise InputError("needs one of workload and model", place="time_share")
    if options.workload:
        return load_workload(options.workload)
    if not options.arch:
        raise InputError("a template has no times of its own", place="time_share",
                         hint="name a machine: arch")  # fmt: skip
    return _template(options.model, options.phase, options.batch, options.context,
                     options.lowering)  # fmt: skip


@lru_cache(maxsize=32)
def _template(model: str, phase: str, batch: int, context: int | None, lowering: str) -> Workload:
    return template(model, phase, batch=batch, context=context, lowering=lowering)


def _chosen(w: Workload, seconds: Array, arch: Arch | None, options: Options) -> Mask:
    chosen = np.ones(len(w), dtype=bool)
    for kind in options.kinds:
        if kind not in KINDS:
            raise InputError("no kind of operation", place="kinds", value=kind,
                             allowed=", ".join(KINDS))  # fmt: skip
    if options.kinds:  # a kind that the step lacks takes nothing of it
        chosen &= np.isin(w.text("kind"), options.kinds)
    if options.kernels:
        try:
            pattern = re.compile(options.kernels)
        except re.error as wrong:
            raise InputError(f"no regular expression: {wrong}", place="kernels",
                             value=options.kernels) from None  # fmt: skip
        names = [name for name in w.labels["kernel"] if pattern.search(name)]
        chosen &= w.mask("kernel", *names) if names else np.zeros(len(w), dtype=bool)
    if options.shorter:
        chosen &= seconds < units.parse(options.shorter, "s")
    if options.limit:
        if options.limit not in CLASSES:
            raise InputError("no class of operations", place="limit", value=options.limit,
                             allowed=", ".join(CLASSES))  # fmt: skip
        if arch is None or options.arch:
            raise InputError("is told of traces alone", place="limit", value=options.limit)
        chosen &= by_shapes(w, arch) == options.limit
    return chosen


def _predicted(w: Workload, arch: Arch) -> Array:
    time = durations(w, Designs(arch))
    seconds: Array = time.table[time.row, 0] * time.scale
    return seconds


def _by_step(w: Workload, seconds: Array, chosen: Mask, base: str) -> tuple[float, float, float]:
    """Return the least share of a step, that of all steps, and the most."""
    weight = seconds if base == "busy" else np.ones(len(w))
    whole, part = (np.bincount(w["step"], x, len(w.steps)) for x in (weight, weight * chosen))
    shares = part[whole > 0] / whole[whole > 0]
    return float(shares.min()), float(part.sum() / whole.sum()), float(shares.max())


def _with_band(
    w: Workload, seconds: Array, chosen: Mask, designs: Designs, base: str
) -> tuple[float, float, float]:
    """Return the share if those chosen are at the low end, as predicted, and at the high end."""
    if base == "launches":
        share = float(chosen.mean())
        return share, share, share
    if not chosen.any() or chosen.all():
        share = float(chosen.all())
        return share, share, share
    ends = []
    for rows in (chosen, ~chosen):
        kinds = by_kind(w.text("kind")[rows], seconds[rows][:, None])
        ends.append([float(end[0]) for end in kinds_band(kinds, designs, outside(kinds, designs))])
    (low, high), (low_rest, high_rest) = ends
    part, rest = float(seconds[chosen].sum()), float(seconds[~chosen].sum())
    share = part / (part + rest)
    return (min(share, low / (low + high_rest)), share,
            max(share, high / (high + low_rest)))  # fmt: skip


def _most(w: Workload, seconds: Array, chosen: Mask) -> str:
    """Return which kinds of all operations take most."""
    of = {k: float(seconds[w.mask("kind", k)].sum()) for k in w.labels["kind"]}
    ranked = sorted(of, key=lambda k: -of[k])[:_FEW]
    parts = ", ".join(f"{k} {of[k] / seconds.sum():.0%}" for k in ranked)
    mean = 1e6 * seconds[chosen].mean() if chosen.any() else 0.0
    return f"those meant take {mean:.2g} us each, and most time goes to {parts}"
