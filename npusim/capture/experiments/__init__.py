"""Natural experiments: small workloads in which one effect decides.

Each is a module here with ``AXES`` (the ``axis`` of the rows it makes), ``points(device, quick)``
(what will be measured: rows without their figures) and ``measure(torch, point)`` (the figures of
one). A point that fails is left out and named in the provenance; an experiment for which something
is missing altogether raises `Unavailable` and is skipped with its reason.
"""

from __future__ import annotations

import gc
import pkgutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from npusim.atomic import check_folder
from npusim.capture.environment import Origin, environment, new_record
from npusim.capture.folder import Folder
from npusim.capture.gpu import Row, Unavailable, device_row, open_gpu, root_cause
from npusim.capture.timing import wake
from npusim.errors import InputError


class Experiment(Protocol):
    """What a module must offer to be an experiment."""

    AXES: tuple[str, ...]

    def points(self, device: Row, quick: bool) -> list[Row]:
        """Return what will be measured: fewer points if quick."""

    def measure(self, torch: Any, point: Row) -> Row:
        """Return the figures of a point; they may correct what was planned."""


@dataclass
class Outcome:
    """How an experiment went.

    Attributes
    ----------
    status : str
        ``measured``, ``skipped`` (see `reason`) or ``kept`` (it was there already).
    quick : bool
        Whether few points were asked for.
    points : int
        Rows measured.
    seconds : float
        How long it took [s].
    reason : str
        Why it was skipped.
    left_out : list of dict
        Points that failed, each with its ``reason``.
    """

    status: str
    quick: bool
    points: int = 0
    seconds: float = 0.0
    reason: str = ""
    left_out: list[Row] = field(default_factory=list)


Tick = Callable[[str, int, int], None]
Told = Callable[[str, Outcome], None]


def experiment_names() -> tuple[str, ...]:
    """Return the names of all experiments, in alphabetical order."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def experiment(name: str) -> Experiment:
    """Return an experiment by name.

    Raises
    ------
    InputError
        There is none of that name.
    """
    if name not in experiment_names():
        raise InputError("no such experiment", value=name, allowed=", ".join(experiment_names()))
    return cast(Experiment, import_module(f"{__name__}.{name}"))


def capture_experiments(
    folder: Path,
    names: Sequence[str] = (),
    quick: bool = False,
    again: bool = False,
    origin: Origin = Origin(),  # noqa: B008  (frozen)
    tick: Tick | None = None,
    told: Told | None = None,
) -> dict[str, Outcome]:
    """Run natural experiments and write ``axes.json`` after each.

    Parameters
    ----------
    folder : Path
        Where ``axes.json`` and ``provenance.json`` go. Experiments that an earlier run left there
        are kept, so that a run that broke off can be taken up.
    names : sequence of str
        Which; by default all.
    quick : bool
        Few points of each.
    again : bool
        Measure those that are there already, too.
    origin : Origin
        Command line and licence.
    tick : callable, optional
        Told the experiment, points done and points planned, before each point and at the end.
    told : callable, optional
        Told how each experiment went, as soon as it has.

    Returns
    -------
    dict of str to Outcome

    Raises
    ------
    NpusimError
        An unknown name, no PyTorch or GPU, a folder of another device, or one that cannot be
        written.
    """
    chosen = {name: experiment(name) for name in dict.fromkeys(names or experiment_names())}
    torch = open_gpu()
    check_folder(folder)
    files = Folder(folder)
    device = device_row(torch)
    files.check_device(device)
    outcomes: dict[str, Outcome] = {}
    wake(torch)  # an idle board shows idle clocks
    record = {**new_record("experiments", origin), **environment(torch)}
    for name, module in chosen.items():
        if not again and files.has(name, module.AXES, quick):
            outcomes[name] = Outcome("kept", quick)
        else:
            rows, outcomes[name] = _measured(torch, name, module, device, quick, tick)
            record["experiments"] = {n: asdict(o) for n, o in outcomes.items()}
            files.add_experiment(device, module.AXES, rows, record)
        if told is not None:
            told(name, outcomes[name])
    return outcomes


def _measured(
    torch: Any, name: str, module: Experiment, device: Row, quick: bool, tick: Tick | None
) -> tuple[list[Row], Outcome]:
    """Measure all points of an experiment."""
    planned, rows, start = module.points(device, quick), [], time.perf_counter()
    outcome = Outcome("measured", quick)
    with torch.no_grad(), warnings.catch_warnings():
        # Advice on PyTorch's own defaults, which are what is measured.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.")
        wake(torch)
        for i, point in enumerate(planned):
            if tick is not None:
                tick(name, i, len(planned))
            try:
                rows.append({**point, **module.measure(torch, point)})
            except Unavailable as reason:
                outcome.status, outcome.reason = "skipped", str(reason)
                rows = []
                break
            except Exception as error:  # too large for this GPU, or not supported by it
                outcome.left_out.append({**point, "reason": root_cause(error)})
            gc.collect()
            torch.cuda.empty_cache()
    if tick is not None:
        tick(name, len(planned), len(planned))
    if not rows and not outcome.reason:
        outcome.status = "skipped"
        outcome.reason = f"every point failed: {outcome.left_out[0]['reason']}"
    outcome.points, outcome.seconds = len(rows), round(time.perf_counter() - start, 3)
    return rows, outcome
