"""What a sweep is asked to do: from the name of a machine or study to a job ready to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from npusim import catalog, config
from npusim.arch import Arch, with_value
from npusim.axes import Samples
from npusim.constraints import NOMINAL, Constraint
from npusim.errors import InputError, InputErrors
from npusim.load import load_arch, load_workload, traced_arch
from npusim.merit import MERITS
from npusim.sweep_block import Sweep
from npusim.sweeps.evaluate import with_changes
from npusim.sweeps.space import Space, unmodelled
from npusim.transforms import split, unprofiled
from npusim.workload import Workload


@dataclass(frozen=True)
class Job:
    """A sweep that is ready to run.

    Attributes
    ----------
    name, title, question : str
    arch : Arch
        The nominal machine, the first of those of the space.
    space : Space
    workloads : tuple of Workload
    given : tuple of str
        Names or paths under which the workloads were asked for.
    counts : tuple of float
        How many steps of each make the whole: its weight.
    costs : tuple of str
        Axes and figures of merit that a designer pays for.
    constraints : tuple of Constraint
        What designs must keep to be compared.
    baseline : Arch or None
        Machine that designs are put beside.
    refused : tuple of InputError
        Axes asked for that no cost model reads.
    changes : mapping of str to float
        What ``--set`` changes of the workloads, in all designs and on the baseline. The space
        holds them as axes of one value; `workloads` are as traced.
    """

    name: str
    title: str
    question: str
    arch: Arch
    space: Space
    workloads: tuple[Workload, ...]
    given: tuple[str, ...]
    counts: tuple[float, ...]
    costs: tuple[str, ...]
    baseline: Arch | None
    refused: tuple[InputError, ...]
    changes: Mapping[str, float] = field(default_factory=dict)
    constraints: tuple[Constraint, ...] = ()


def read_job(
    name: str,
    workloads: Sequence[str],
    launch: Sequence[str],
    settings: Mapping[str, float],
    without_profiler: bool = False,
    beside: Sequence[str] = (),
    samples: Samples | None = None,
) -> Job:
    """Read a machine with a sweep block, or a study.

    Parameters
    ----------
    name : str
        Path or name of an architecture or study file.
    workloads, launch : sequence of str
        What to use instead of what the file says; empty for what the file says.
    settings : mapping of str to float
        Parameters of the machine or of the workloads to change first [SI].
    without_profiler : bool
        Whether to take the profiler out of every workload, see `npusim.transforms.unprofiled`.
    beside : sequence of str
        Machines to sweep over the same axes, beside those that the file names.
    samples : Samples, optional
        What to draw in place of what the file says.

    Raises
    ------
    InputError, InputErrors
        Mistakes in the files, no sweep block, no axis left, a setting that an axis overrides, or a
        change that applies to none of the workloads.
    """
    named, block, title, question, job_name = _read(name)
    clash = next((p for p in settings if p in block.axes), None)
    if clash is not None:
        raise InputError(
            "is an axis of this sweep, which would override it",
            place=f"--set {clash}",
            hint="leave it out",
        )
    of_machine, changes = split(settings)
    archs = [*named, *(load_arch(one) for one in beside)]
    for path, value in of_machine.items():
        archs = [with_value(arch, path, value) for arch in archs]
    refused = unmodelled(list(block.given))
    known = {p: axis for p, axis in block.given.items() if not unmodelled([p])}
    if not known:
        raise InputError(
            "no axis of this sweep has a cost model", file=name, value=", ".join(block.axes)
        )
    counts: Mapping[str, float] = dict.fromkeys(workloads, 1) or block.workloads
    given = tuple(workloads) or tuple(counts)
    loaded = tuple(load_workload(w) for w in given)
    loaded = tuple(unprofiled(w) for w in loaded) if without_profiler else loaded
    names = [w.name for w in loaded]
    if len(set(names)) != len(names):
        raise InputError("two workloads of one name", value=", ".join(names))
    baseline = load_arch(block.baseline) if block.baseline else traced_arch(loaded[0])
    fixed = {path: (value,) for path, value in changes.items()}
    modes = tuple(dict.fromkeys(launch or block.launch))
    try:
        space = Space(archs[0], {**fixed, **known}, modes, archs[1:], samples or block.samples)
    except InputErrors as wrong:
        raise InputErrors(InputError(str(one), file=name) for one in wrong.errors) from None
    except InputError as wrong:
        raise InputError(str(wrong), file=name) from None
    for change in {tuple(part.change): part.change for part in space.parts}.values():
        with_changes(loaded, change)  # refuses what no workload has before anything is made
    costs = tuple(c for c in block.costs if c in known or c in MERITS)
    return Job(
        job_name,
        title,
        question,
        archs[0],
        space,
        loaded,
        given,
        tuple(counts.values()),
        costs,
        baseline,
        tuple(refused),
        changes,
        block.constraints,
    )


def _read(name: str) -> tuple[list[Arch], Sweep, str, str, str]:
    path = Path(name)
    is_path = path.suffix != "" or len(path.parts) > 1
    if not is_path and name not in catalog.names("archs") and name in catalog.names("studies"):
        file = catalog.find("studies", name)
    else:
        file = catalog.find("archs", name)
    if file.suffix == ".parquet":
        raise InputError("a workload, not a machine or study", file=file,
                         hint="name a machine or study, and give the workload with -w"
                         )  # fmt: skip
    if config.is_study(file):
        study = config.read_study(file)
        archs = [load_arch(_beside(file, arch)) for arch in study.archs]
        return archs, _from(file, study.sweep), study.title, study.question, study.name
    arch, block = config.read_arch(file)
    if block is None:
        with_block = [n for n in catalog.names("archs") if _has_sweep(n)]
        raise InputError(
            "has no sweep block", file=file, hint=f"try one that has: {', '.join(with_block)}"
        )
    return [arch], _from(file, block), arch.title, "", arch.name


def _beside(file: Path, name: str) -> str:
    """Return a path as seen from here if it names a file beside the one that mentions it."""
    try:
        return str(file.parent / name) if (file.parent / name).is_file() else name
    except OSError:  # no name that a file could have
        return name


def _from(file: Path, block: Sweep) -> Sweep:
    """Return a sweep whose workloads may be paths relative to the file that names them."""
    named = {_beside(file, name): count for name, count in block.workloads.items()}
    baseline = _beside(file, block.baseline) if block.baseline else None
    constraints = tuple(
        replace(one, like=_beside(file, one.like)) if one.like not in ("", NOMINAL) else one
        for one in block.constraints
    )
    return replace(block, workloads=named, baseline=baseline, constraints=constraints)


def _has_sweep(name: str) -> bool:
    return config.read_arch(catalog.find("archs", name))[1] is not None
