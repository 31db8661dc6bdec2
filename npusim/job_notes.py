"""What a reader of a sweep should know: what limits its predictions, and what is not comparable."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from npusim.caveats import notes
from npusim.job import Job
from npusim.store import stale_fit
from npusim.transforms import applies, limits, needs, split


def unmet(over: int) -> Iterator[str]:
    """Say how many designs take more than their power limit at any clock."""
    if over:
        yield f"NOT HELD: {over} designs take more than power.limit at any clock"


def job_notes(job: Job) -> list[str]:
    """Return what limits the predictions of a sweep; of which workload, where they differ."""
    told: dict[str, list[str]] = {}
    for w, launch, arch in product(job.workloads, job.space.launch, job.space.archs):
        for note in (*notes(w, arch, launch, "model"), *stale_fit(arch)):
            told.setdefault(note, []).append(w.name)
    if job.baseline is not None:
        for w in job.workloads:
            for note in notes(w, job.baseline, "eager", "model"):
                if "host" in note:
                    told.setdefault(f"{job.baseline.name}, eager: {note}", []).append(w.name)
    everywhere = len(job.workloads)
    return list(_about_changes(job)) + [
        note if len(set(names)) == everywhere else f"{', '.join(dict.fromkeys(names))}: {note}"
        for note, names in told.items()
    ]


def _about_changes(job: Job) -> Iterator[str]:
    """Yield what a reader should know of axes and settings that change the workloads."""
    paths = list(split(job.space.axes)[1])
    if paths:
        changed = f"designs that change {', '.join(paths)} do other work"
        yield f"measured figures are of the workloads as traced; {changed}"
    for path in paths:
        without = [w.name for w in job.workloads if not applies(w, path)]
        if without:
            yield f"{path} changes nothing in {', '.join(without)}: no {needs(path)}"
    yield from limits(paths)
