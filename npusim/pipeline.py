"""A step that passes through the stages of a pipeline in micro-batches.

Stage s starts micro-batch m when it is done with the one before, and when the stage before has done
this one and sent it on:

    end(m, s) = max(end(m - 1, s), end(m, s - 1) + transfer(s - 1)) + time(s)

P equal stages of time t and M micro-batches take (M + P - 1) t without transfers, and are idle for
(P - 1) / (M + P - 1) of it.

Steps that make one token after the other go round: the next token of a micro-batch starts on the
first stage when the last has chosen the one before. Once that runs steadily, a round of all
micro-batches takes

    max(M x max time(s), sum of time(s) and transfer(s))

as either the slowest stage never waits, or a micro-batch that comes back finds the first one free.

Source: Y. Huang et al., "GPipe", arXiv:1811.06965, section 2.3 (bubbles); D. Narayanan et al.,
arXiv:2104.04473, section 2.2.

Left out: stages that do several pieces of the layers in turn (interleaved schedules), micro-batches
that differ, a transfer that holds up its sender (count it in the time of the stage then).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npusim.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Passed:
    """A step through a pipeline, each a number or one a design [s].

    Attributes
    ----------
    total_s : array
        From the start to the end of the last micro-batch.
    latency_s : array
        Until the end of the first micro-batch.
    interval_s : array
        From the end of one micro-batch to that of the next: the slowest stage.
    bubble_share : array
        Share of the stages' time in which they wait.
    """

    total_s: Array
    latency_s: Array
    interval_s: Array
    bubble_share: Array


def schedule(stage_s: ArrayLike, micro_batches: int, transfer_s: ArrayLike = 0.0) -> Array:
    """Return when each micro-batch ends on each stage, shape (M, P) or (M, P, D) [s].

    Parameters
    ----------
    stage_s : array, shape (P,) or (P, D)
        Time of a micro-batch on each stage [s].
    micro_batches : int
    transfer_s : float or array, shape (P - 1,) or (P - 1, D)
        From each stage to the next [s].

    Raises
    ------
    InputError
        A time that is none, no stage, no micro-batch.

    Examples
    --------
    >>> schedule([1.0, 2.0], 2).tolist()
    [[1.0, 3.0], [2.0, 5.0]]
    """
    time, between = _checked(stage_s, micro_batches, transfer_s)
    ends = np.zeros((micro_batches, *time.shape))
    free = np.zeros_like(time)
    for m in range(micro_batches):
        came = np.zeros_like(time[0])
        for s in range(len(time)):
            ends[m, s] = free[s] = np.maximum(free[s], came) + time[s]
            came = ends[m, s] + (between[s] if s < len(time) - 1 else 0.0)
    return ends


def passed(stage_s: ArrayLike, micro_batches: int, transfer_s: ArrayLike = 0.0) -> Passed:
    """Return how long a step of some micro-batches takes.

    Parameters and errors as those of `schedule`.

    Examples
    --------
    Four equal stages, eight micro-batches: 8 + 4 - 1 times the time of one.

    >>> p = passed([1.0] * 4, 8)
    >>> float(p.total_s), float(p.latency_s), round(float(p.bubble_share), 4)
    (11.0, 4.0, 0.2727)
    """
    time, _ = _checked(stage_s, micro_batches, transfer_s)
    ends = schedule(stage_s, micro_batches, transfer_s)
    total = ends[-1, -1]
    busy = micro_batches * time.sum(axis=0)
    idle = 1.0 - busy / np.maximum(len(time) * total, np.finfo(float).tiny)
    return Passed(total, ends[0, -1], time.max(axis=0), idle)


def round_s(
    stage_s: ArrayLike, micro_batches: int, transfer_s: ArrayLike = 0.0, back_s: ArrayLike = 0.0
) -> Array:
    """Return how long a round takes in which each micro-batch makes one more token [s].

    Parameters
    ----------
    stage_s, micro_batches, transfer_s
        As those of `schedule`.
    back_s : float or array, shape (D,)
        From the last stage back to the first [s].

    Examples
    --------
    Two stages of 1 s: one micro-batch leaves each idle half of the time, two keep both at work.

    >>> float(round_s([1.0, 1.0], 1)), float(round_s([1.0, 1.0], 2)), float(round_s([1.0, 1.0], 3))
    (2.0, 2.0, 3.0)
    """
    time, between = _checked(stage_s, micro_batches, transfer_s)
    alone = time.sum(axis=0) + between.sum(axis=0) + np.asarray(back_s, dtype=np.float64)
    longest: Array = np.maximum(micro_batches * time.max(axis=0), alone)
    return longest


def _checked(stage_s: ArrayLike, micro_batches: int, transfer_s: ArrayLike) -> tuple[Array, Array]:
    """Return times of stages, and of transfers between them."""
    time = np.asarray(stage_s, dtype=np.float64)
    if time.ndim not in (1, 2) or len(time) == 0:
        raise InputError("needs one time a stage", place="stage_s", value=time.shape)
    if micro_batches < 1:
        raise InputError("out of range", place="micro_batches", value=micro_batches,
                         allowed="from 1")  # fmt: skip
    given = np.asarray(transfer_s, dtype=np.float64)
    if given.ndim and len(given) != len(time) - 1:
        raise InputError("needs one time between two stages", place="transfer_s",
                         value=len(given), allowed=str(len(time) - 1))  # fmt: skip
    shape = (len(time) - 1, *time.shape[1:])
    if given.ndim == 1 and time.ndim == 2:
        given = given[:, None]
    between = np.broadcast_to(given, shape)
    for name, values in (("stage_s", time), ("transfer_s", between)):
        if not (np.isfinite(values) & (values >= 0)).all():
            raise InputError("not a duration", place=name, value=values.tolist(),
                             allowed="numbers from 0")  # fmt: skip
    return time, between
