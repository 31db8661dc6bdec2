"""What the kernels of a capture without operators do, from a capture of the same step with them.

A graph replay shows kernels and their times, not what launched them. The eager trace of the same
step does. Kernels are matched in order, by name and launch; a match hands over what the kernel
does and nothing that was measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.kernel_match import Ints, Numbered, align, common_codes, listed, numbered
from npusim.workload import BYTES, LABELS, Workload

_HANDED_OVER = ("operator", "kind", "dtype", "basis", "batch", "m", "n", "k", "heads", "kv_heads",
                "groups", "flop", *BYTES)  # fmt: skip


def has_operators(w: Workload) -> bool:
    """Return whether most kernels of a capture have the operator that launched them."""
    return bool((~w.mask("operator", "unknown")).mean() >= 0.5)


def with_shapes(
    timed: Workload, described: Workload
) -> tuple[Workload, dict[str, Any], tuple[str, ...]]:
    """Return a capture with the operators and shapes of another one of the same steps.

    Parameters
    ----------
    timed : Workload
        K kernels whose times, streams and launches are kept.
    described : Workload
        The capture that knows operators and shapes.

    Returns
    -------
    workload : Workload
        Like `timed`; kernels without counterpart keep what they had.
    summary : dict
        Counts, shares of device time [1], and the kernels that only one of the captures has.
    notes : tuple of str
    """
    donor, same_launch = _counterparts(timed, described)
    got = same_launch & (donor >= 0)
    columns, labels = _handed_over(timed, described, np.where(got, donor, -1))
    meta = {**timed.meta, "shapes_from": str(described.meta.get("file", described.name))}
    made = Workload(timed.name, {**timed.columns, **columns}, {**timed.labels, **labels},
                    timed.steps, timed.edges, meta, timed.counters, timed.host)  # fmt: skip
    other = (donor >= 0) & ~got
    used = np.zeros(len(described), dtype=bool)
    used[donor[donor >= 0]] = True
    summary = {
        "timed": timed.name,
        "described": described.name,
        "kernels": len(timed),
        "matched": int(got.sum()),
        "matched_share": duration_share(timed, got),
        "classified_busy_share_before": timed.classified_busy_share,
        "classified_busy_share": made.classified_busy_share,
        "other_launch": listed(timed, other),
        "other_launch_share": duration_share(timed, other),
        "only_timed": listed(timed, donor < 0),
        "only_described": listed(described, _of_used_steps(described, donor) & ~used),
    }
    return made, summary, tuple(_notes(timed, described, donor, got))


def duration_share(w: Workload, chosen: NDArray[np.bool_]) -> float:
    """Return the share of the measured time that some operations take."""
    total = float(w["duration_s"].sum())
    return float(w["duration_s"][chosen].sum()) / total if total else 0.0


def _counterparts(timed: Workload, described: Workload) -> tuple[Ints, NDArray[np.bool_]]:
    """Return the counterpart of each kernel (-1: none), and whether its launch is the same.

    Steps are matched one by one; where the captures differ in their number, a capture that is all
    one step with the whole of the other, and surplus steps with the last.
    """
    a, b = numbered(timed, described)
    donor = np.full(len(timed), -1)
    last = len(described.steps) - 1
    whole = np.arange(len(described))
    known: dict[tuple[bytes, bytes], tuple[Ints, Ints]] = {}
    for step in range(len(timed.steps)):
        rows = np.flatnonzero(timed["step"] == step)
        one_of_all = len(timed.steps) == 1 and last > 0
        theirs = whole if one_of_all else np.flatnonzero(described["step"] == min(step, last))
        at, of = _align_once(a[rows], b[theirs], known)
        donor[rows[at]] = theirs[of]
    same = np.zeros(len(timed), dtype=bool)
    found = donor >= 0
    same[found] = a.launch[found] == b.launch[donor[found]]
    return donor, same


def _align_once(
    a: Numbered, b: Numbered, known: dict[tuple[bytes, bytes], tuple[Ints, Ints]]
) -> tuple[Ints, Ints]:
    """Align two steps; those that repeat earlier ones kernel by kernel are not aligned again."""
    key = (a.launch.tobytes(), b.launch.tobytes())
    if key not in known:
        known[key] = align(a, b)
    return known[key]


def _handed_over(
    timed: Workload, described: Workload, donor: Ints
) -> tuple[dict[str, NDArray[Any]], dict[str, list[str]]]:
    """Return the columns that a match changes, and the labels they point into."""
    got = donor >= 0
    columns: dict[str, NDArray[Any]] = {}
    labels: dict[str, list[str]] = {}
    for c in (*_HANDED_OVER, "phase"):
        own, theirs = timed[c], described[c]
        if c in LABELS:
            (mine, other), labels[c] = common_codes([timed.labels[c], described.labels[c]])
            own, theirs = mine[own], other[theirs]
        columns[c] = np.where(got, theirs[donor], own)
    before, after = _nearest(got, timed["step"])
    phase, has_any = columns["phase"], np.maximum(before, after) >= 0
    columns["phase"] = np.where(has_any, phase[np.where(before >= 0, before, after)], phase)
    layer = np.where(got, described["layer"][donor], -1)
    between = (before >= 0) & (after >= 0) & (layer[before] == layer[after])
    columns["layer"] = np.where(between, layer[before], -1)
    return columns, labels


def _nearest(got: NDArray[np.bool_], step: Ints) -> tuple[Ints, Ints]:
    """Return the nearest match of the same step before and after each kernel, -1 if none.

    Examples
    --------
    >>> got = np.array([False, True, False, True, False])
    >>> [part.tolist() for part in _nearest(got, np.array([0, 0, 0, 0, 1]))]
    [[-1, 1, 1, 3, -1], [1, 1, 3, 3, -1]]
    """
    at = np.arange(len(got))
    before = np.maximum.accumulate(np.where(got, at, -1))
    after = np.minimum.accumulate(np.where(got, at, len(got))[::-1])[::-1]
    before = np.where(step[before] == step, before, -1)
    return before, np.where((after < len(got)) & (step[after % len(got)] == step), after, -1)


def _of_used_steps(described: Workload, donor: Ints) -> NDArray[np.bool_]:
    """Return which kernels belong to a step that was matched at all."""
    used: NDArray[np.bool_] = np.isin(described["step"], described["step"][donor[donor >= 0]])
    return used


def _notes(timed: Workload, described: Workload, donor: Ints, got: NDArray[np.bool_]) -> list[str]:
    notes = []
    other = (donor >= 0) & ~got
    if other.any():
        kinds, counts = np.unique(described.text("kind")[donor[other]], return_counts=True)
        what = ", ".join(f"{n} {kind}" for kind, n in zip(kinds, counts, strict=True))
        notes.append(
            f"{int(other.sum())} kernels have a counterpart of the same name but another grid or "
            f"block ({what}): their shapes differ, they got none"
        )
    lengths = described["n"][described.mask("kind", "attention") & (described["read_kv"] > 0)]
    if len(lengths):
        span = " to ".join(str(n) for n in sorted({int(lengths.min()), int(lengths.max())}))
        notes.append(
            f"KV lengths are those of {described.name} (attention over {span} keys); where "
            f"{timed.name} has a cache of fixed size, it reads the whole of that"
        )
    devices = {str(w.meta.get("device", "")) for w in (timed, described)} - {""}
    if len(devices) > 1:
        notes.append(f"captures of different devices: {', '.join(sorted(devices))}")
    if len(timed.steps) != len(described.steps):
        notes.append(f"{timed.name} has {len(timed.steps)} steps, {described.name} "
                     f"{len(described.steps)}")  # fmt: skip
    return notes
