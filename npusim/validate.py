"""Predictions held against measured operations and traces: error statistics.

APE is the absolute error as a share of the measured time, |predicted / measured - 1|. Its 90th
percentile is given where there are at least 30 operations; of fewer it is the worst.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Arch, Designs
from npusim.durations import durations
from npusim.lanes import replay
from npusim.library import ROUTINES
from npusim.measured import Measured, from_workload
from npusim.measured.period import predicted
from npusim.models import modelled
from npusim.models.launch import LAUNCHES
from npusim.technology import GROUPS
from npusim.workload import Operations, Workload

Array = NDArray[np.float64]

FEWEST_FOR_P90 = 30
_FELT = 0.005  # of the time
_WORST = 10


@dataclass(frozen=True)
class Errors:
    """How far predictions lie from measurements.

    Attributes
    ----------
    n : int
        Operations.
    median_ape, p90_ape, worst_ape : float
        Of the absolute error of each, as a share of its measured time.
    gmean_ratio : float
        Geometric mean of predicted / measured: above 1 is too slow.
    weighted_ape : float
        Mean absolute error, weighted by measured time.
    """

    n: int
    median_ape: float
    p90_ape: float
    worst_ape: float
    gmean_ratio: float
    weighted_ape: float


@dataclass(frozen=True)
class Worst:
    """One operation that is predicted badly.

    Attributes
    ----------
    row : int
        Line of the table, row of the experiments, or number in the trace.
    op, shape : str
        What it is.
    predicted_s, measured_s : float
        Its times [s].
    """

    row: int
    op: str
    shape: str
    predicted_s: float
    measured_s: float


@dataclass(frozen=True)
class StepErrors:
    """How far a replayed trace lies from the trace.

    Attributes
    ----------
    launch : str
        How it was launched, in the trace and in the replay.
    busy_error, wall_error : float
        (predicted - measured) / measured of the device-busy and the wall time of a step; kernels
        without shapes keep their measured time. The wall is not-a-number where none was measured.
    modelled_busy_share : float
        Share of the measured device-busy time that is predicted.
    """

    launch: str
    busy_error: float
    wall_error: float
    modelled_busy_share: float


@dataclass(frozen=True)
class Validation:
    """Errors of a machine's model on measured operations.

    Attributes
    ----------
    source, arch : str
        What was measured, and the machine whose model is held against it.
    fitted_parameters : int
        Parameters that these operations can feel and that were fitted to measurements.
    fitted_of_libraries : int
        Those of them that are the libraries' numbers, the same on every machine.
    overall : Errors
    per_op : dict of str to Errors
        By operation of a table, by kind of kernel of a trace.
    worst : tuple of Worst
        The largest errors, by factor.
    steps : StepErrors or None
        Of a trace.
    notes : tuple of str
        What was left out of the measurements or taken for granted.
    """

    source: str
    arch: str
    fitted_parameters: int
    fitted_of_libraries: int
    overall: Errors
    per_op: dict[str, Errors]
    worst: tuple[Worst, ...]
    steps: StepErrors | None
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON; None where something was not measured."""
        content: dict[str, Any] = {
            "measured": self.source, "arch": self.arch, **asdict(self.overall),
            "fitted_parameters": self.fitted_parameters,
            "fitted_of_libraries": self.fitted_of_libraries,
            "per_op": {op: asdict(errors) for op, errors in self.per_op.items()},
            "worst": [asdict(w) for w in self.worst], "notes": list(self.notes),
        }  # fmt: skip
        if self.steps is not None:
            content |= asdict(self.steps)
            if np.isnan(self.steps.wall_error):
                content["wall_error"] = None
        return content


def errors_of(times: Array, seconds: Array) -> Errors:
    """Return error statistics of predicted and measured times, each of shape (n,), n > 0 [s].

    Examples
    --------
    >>> e = errors_of(np.array([1.0, 4.0]), np.array([2.0, 2.0]))
    >>> e.median_ape, e.p90_ape, e.gmean_ratio, e.weighted_ape
    (0.75, 1.0, 1.0, 0.75)
    """
    ape = np.abs(times / seconds - 1)
    worst = float(ape.max())
    p90 = float(np.quantile(ape, 0.9)) if len(ape) >= FEWEST_FOR_P90 else worst
    mean = float(np.exp(np.mean(np.log(times / seconds))))
    return Errors(len(ape), float(np.median(ape)), p90, worst, mean,
                  float(np.average(ape, weights=seconds)))  # fmt: skip


def validate(measured: Measured, arch: Arch) -> Validation:
    """Hold a machine's model against measured operations.

    Parameters
    ----------
    measured : Measured
        N operations, at least one.
    arch : Arch
        The machine that they were measured on.

    Returns
    -------
    Validation

    Raises
    ------
    InputError
        Operations that cannot have been measured on that machine.
    """
    times = predicted(measured, Designs(arch))[:, 0]
    ops = {op: measured.op == op for op in sorted(set(measured.op))}
    per_op = {op: errors_of(times[rows], measured.seconds[rows]) for op, rows in ops.items()}
    off = np.abs(np.log(times / measured.seconds))
    last = [_worst(measured, times, i) for i in np.argsort(-off, kind="stable")[:_WORST].tolist()]
    fitted = fitted_parameters(arch, measured.operations)
    return Validation(measured.source, arch.name, len(fitted),
                      sum(path.startswith("library.") for path in fitted),
                      errors_of(times, measured.seconds), per_op, tuple(last), None,
                      (*measured.notes, *_held(measured, times, arch)))  # fmt: skip


def _held(measured: Measured, times: Array, arch: Arch) -> Iterator[str]:
    """Say how many operations their benchmark repeated until the board held them."""
    bursts = replace(measured, sets=np.full(len(measured), np.nan))
    slower = times / predicted(bursts, Designs(arch))[:, 0] - 1
    if count := int((slower > _FELT).sum()):
        yield (f"power limit: {count} operations were repeated until the board held them at "
               f"power.brief, told up to {slower.max():.0%} slower than at once")  # fmt: skip


def validate_trace(workload: Workload, arch: Arch) -> Validation:
    """Hold a machine's model against a trace: its kernels, and its steps replayed.

    Parameters
    ----------
    workload : Workload
    arch : Arch
        The machine that was traced.

    Returns
    -------
    Validation

    Raises
    ------
    InputError
        The trace has no kernel with known shapes and a measured time.
    """
    found = validate(from_workload(workload), arch)
    designs = Designs(arch)
    time = durations(workload, designs)
    launch = str(workload.meta.get("launch", ""))
    launch = launch if launch in LAUNCHES else "eager"
    replayed = replay(workload, designs, time, launch)
    busy, wall = float(workload["duration_s"].sum()), float(workload.steps.wall_s.mean())
    steps = StepErrors(
        launch,
        float(time.busy()[0]) / busy - 1,
        float(replayed.wall_s[0]) / wall - 1 if wall > 0 else float("nan"),
        workload.classified_busy_share,
    )
    return replace(found, steps=steps)


def fitted_parameters(arch: Arch, operations: Operations) -> tuple[str, ...]:
    """Return those of the parameters that these operations can feel which were fitted.

    Numbers of libraries count where one of the operations runs that routine or is attention,
    constants of technology (area, cost, energy) never: times do not hang on them.
    """
    read, routines = modelled(), set(operations.routine)
    attention = bool((operations.kind == "attention").any())

    def felt(path: str) -> bool:
        group, name, *_ = path.split(".")
        if group != "library":
            return group not in GROUPS
        return name in routines if name in ROUTINES else attention

    fitted = (path for path, p in arch.provenance.items() if p.kind == "calibrated")
    return tuple(path for path in fitted if path in read and felt(path))


_SHAPE = ("batch", "m", "n", "k", "heads", "kv_heads")


def _worst(measured: Measured, times: Array, i: int) -> Worst:
    o = measured.operations
    sizes = [f"{c}={int(o[c][i])}" for c in _SHAPE if o[c][i]]
    shape = " ".join([str(o.kind[i]), str(o.dtype[i]), *sizes])
    return Worst(int(measured.row[i]), str(measured.op[i]), shape, float(times[i]),
                 float(measured.seconds[i]))  # fmt: skip
