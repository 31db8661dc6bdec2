"""Seed 000's request on a MetaX C500, laid out from its published table of kernels.

The table has totals and counts. The calls of each kernel are spread evenly over the 164 decode
steps, and within a step evenly over it; the 27 attention kernels of the vision encoder come first,
as a step of their own. What the table does not list (16 % of device time) is either carried by the
listed kernels, which take so much longer, or by further launches of equal length.
"""

from dataclasses import dataclass
from pathlib import Path

import host_studies_figures as study
import numpy as np

import npusim as ns
from npusim.workload import Steps, Workload

TABLE = Path(__file__).resolve().parents[2] / "shared" / "facts" / "paddleocr_vl_c500_kernels.csv"
VISION = "flash_fwd_kernel<96"
FEW, FOURTH, MANY = None, 242, 350  # launches a step: those listed, as FOURTH counts, if 6 us each


def table():
    return ns.import_trace(TABLE, "paddleocr_vl_c500")


def listed_share(w):
    return w.meta["listed_percent"] / 100


def device_busy(w):
    """Return all of device time, listed or not [s]."""
    return float(w["duration_s"].sum()) / listed_share(w)


def launches_a_step(w):
    """Return the listed launches of a decode step."""
    return float((~vision(w)).sum()) / study.STEPS


def vision(w):
    return np.array([name.startswith(VISION) for name in w.text("kernel")])


def decode_kernels_s(w):
    """Return what the listed kernels of a decode step take [s]."""
    return float(w["duration_s"][~vision(w)].sum()) / study.STEPS


def request(w, launches=None, every=False):
    """Return the request: one step for vision, then the decode steps.

    Parameters
    ----------
    launches : int, optional
        In a decode step; those above the listed ones are the rest of device time. By default the
        listed ones carry it.
    every : bool
        Whether the host waits for every launch; else once a step, for the token.
    """
    code, seen = w["kernel"], vision(w)
    nth = np.arange(len(w)) - np.searchsorted(code, code)
    place = (nth + 0.5) / np.bincount(code)[code]  # from 0 to 1 over all calls of its kernel
    along = place * study.STEPS
    step = np.where(seen, 0, 1 + along.astype(int))
    within = np.where(seen, place, along % 1)
    rows, kernel, time = np.arange(len(w)), code, w["duration_s"]
    names = w.labels["kernel"]
    rest = device_busy(w) - float(time.sum())
    more = 0 if launches is None else round(launches - launches_a_step(w))
    if more:
        count = more * study.STEPS
        rows = np.append(rows, np.zeros(count, dtype=int))
        kernel = np.append(kernel, np.full(count, len(names)))
        names = (*names, "not listed")
        time = np.append(time, np.full(count, rest / count))
        step = np.append(step, 1 + np.repeat(np.arange(study.STEPS), more))
        within = np.append(within, np.tile((np.arange(more) + 0.5) / more, study.STEPS))
    else:
        time = time / listed_share(w)
    order = np.lexsort((kernel, within, step))
    columns = {name: column[rows][order] for name, column in w.columns.items()}
    last = np.append(np.diff(step[order]) != 0, True)
    columns |= {"kernel": kernel[order], "duration_s": time[order], "step": step[order],
                "start_s": np.zeros(len(order)), "sync": last | every}  # fmt: skip
    count = study.STEPS + 1
    steps = Steps(np.full(count, study.WALL_S / count), np.zeros(count))
    return Workload("request", columns, {**w.labels, "kernel": names}, steps, meta=w.meta)


@dataclass(frozen=True)
class Reading:
    """One way to read the study: how many launches, what each costs the host, who waits.

    Attributes
    ----------
    name : str
    launches : int or None
        In a decode step; None for those listed.
    host_s : float or None
        Of a launch [s]; None for what gives the measured wall.
    every : bool
        Whether the host waits for every launch.
    """

    name: str
    launches: int | None
    host_s: float | None
    every: bool = False


@dataclass(frozen=True)
class Accounted:
    """What a reading gives for the whole request [s]."""

    reading: Reading
    launches: float
    host_s: float
    wall_s: float
    busy_s: float


def readings(arch):
    given = arch["launch.eager.host"]
    return (
        Reading("the machine's file", FEW, given),
        Reading("the study's sum: host, then device", FEW, given, every=True),
        Reading("fitted", FEW, None),
        Reading("the machine's file", FOURTH, given),
        Reading("fitted", FOURTH, None),
        Reading("the machine's file", MANY, given),
        Reading("fitted", MANY, None),
    )


def accounted(w, arch, reading):
    """Replay one reading."""
    laid_out = request(w, reading.launches, reading.every)
    host = study.WALL_S / len(laid_out) if reading.host_s is None else reading.host_s
    changed = {"launch.eager.host": host}
    if reading.every:  # what a launch takes beside the host's work is in the study's 21 ms
        changed |= dict.fromkeys(("launch.eager.latency", "launch.eager.copy_latency",
                                  "host.sync"), 0.0)  # fmt: skip
    for path, value in changed.items():
        arch = ns.with_value(arch, path, value)
    result = ns.replay(laid_out, arch)
    steps = len(laid_out.steps)
    launches = (len(laid_out) - vision(laid_out).sum()) / study.STEPS
    return Accounted(reading, float(launches), host, result.wall_s * steps,
                     result.device_busy_s * steps)  # fmt: skip


def accounting():
    """Return every reading, replayed."""
    w, arch = table(), ns.load_arch("metax_c500")
    return [accounted(w, arch, reading) for reading in readings(arch)]


def tracing_s(launches):
    """Return what tracing would cost a launch, if it made the whole difference of two runs [s]."""
    return (study.WALL_S / study.TOKENS - 1 / study.AGGREGATE[1]) / launches
