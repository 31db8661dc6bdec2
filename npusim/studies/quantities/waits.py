"""A step that never waits for its device over the same step with its waits.

The copies to the host stay, only nobody waits for them. Kernel times are those of the trace, times
`slower`: how much longer the device of the machine takes, or how many alike images are in one pass.

A wait costs little where the host is the slower lane (the device is done when the copy is waited
for), and much where the device is: the host cannot run ahead.

Left out: whether the program could do without the number that it waits for.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from npusim.arch import Arch, Designs
from npusim.durations import durations
from npusim.errors import InputError
from npusim.lanes import Replayed, replay
from npusim.load import load_arch, load_workload
from npusim.studies.assumed import assumed, with_settings
from npusim.studies.value import Doubt, Value
from npusim.sweep_block import Strict
from npusim.workload import Workload

UNIT = "1"
FIGURE = "wall without waits over wall with them"

_HOST = ("launch.eager.host", "host.sync")


class Options(Strict):
    """Which step, on which machine's host.

    Attributes
    ----------
    workload : str
        A trace.
    arch : str
        Machine whose host launches it, eagerly.
    slower : float
        By how much kernels take longer than in the trace.
    own_host : bool
        Whether the traced host is the one that launches it; else ``launch.eager.host`` decides.
    """

    workload: str
    arch: str
    slower: float = 1.0
    own_host: bool = False


def doubts(options: Options) -> dict[str, Doubt]:
    """Return what the machine assumes of its host."""
    return assumed(load_arch(options.arch), _HOST)


def measure(options: Options, settings: Mapping[str, float]) -> Value:
    """Return the ratio.

    Raises
    ------
    InputError
        A workload without waits, or a factor that is none.

    Examples
    --------
    >>> found = measure(Options(workload="paddleocr_vl_vision", arch="metax_c500"), {})
    >>> 0.97 < found.value < 1
    True
    """
    if not options.slower > 0:
        raise InputError("not a factor", place="slower", value=options.slower, allowed="above 0")
    w = load_workload(options.workload)
    if not w["sync"].any():
        raise InputError("waits for nothing", file=w.name)
    if not options.own_host:
        w = w.renamed(w.name, host="unknown")
    arch = with_settings(load_arch(options.arch), settings)
    free = np.zeros(len(w), dtype=bool)
    with_waits, without = (_replayed(_timed(w, options.slower, s), arch) for s in (w["sync"], free))
    wall, none = float(with_waits.wall_s[0]), float(without.wall_s[0])
    count = int(w["sync"].sum()) / len(w.steps)
    reason = (
        f"{count:.0f} waits a step cost {1e6 * (wall - none) / count:.3g} us each of "
        f"{1e3 * wall:.1f} ms: the device is at work for "
        f"{1e3 * with_waits.device_busy_s[0]:.1f} ms, the host for "
        f"{1e3 * with_waits.host_busy_s[0]:.1f} ms"
    )
    ratio = none / wall
    return Value(ratio, ratio, ratio, reason, (options.workload, options.arch))


def _replayed(w: Workload, arch: Arch) -> Replayed:
    designs = Designs(arch)
    return replay(w, designs, durations(w, designs), "eager")


def _timed(
    w: Workload, factor: float, sync: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> Workload:
    """Return a workload whose times are carried over as measured, times a factor."""
    columns = {**w.columns, "duration_s": w["duration_s"] * factor, "sync": sync,
               "basis": np.zeros(len(w), dtype=np.int32)}  # fmt: skip
    return Workload(w.name, columns, {**w.labels, "basis": ("none",)}, w.steps, w.edges, w.meta)
