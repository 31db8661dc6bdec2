"""One case of a model: unprofiled wall time, graph replay time, and the profiler's trace."""

from __future__ import annotations

import gzip
import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from npusim.atomic import check_folder
from npusim.capture.case import Case
from npusim.capture.environment import Origin, environment, new_record
from npusim.capture.folder import ENERGY, PROVENANCE, WALL, Folder
from npusim.capture.gpu import Row, Unavailable, first_line, open_gpu, root_cause
from npusim.capture.models import Program, Step, load_program
from npusim.capture.nvml import Board, idle, open_board
from npusim.capture.step_energy import SECONDS, step_energy
from npusim.capture.timing import capture_graph, replay_ms, wake, wall_row, wall_seconds
from npusim.errors import NpusimError
from npusim.graph_timing import replays

WARM_UPS = 5
WALLS = 40
_KERNEL = re.compile(rb'"cat": ?"kernel"')

Say = Callable[[str], None]


def quiet(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Captured:
    """What a capture of a model made.

    Attributes
    ----------
    wall : dict
        The row added to ``wall.jsonl``.
    trace : str or None
        Name of the trace, None where a graph was wanted and could not be captured.
    kernels : int
        Kernels in one step of the trace.
    energy : tuple of dict
        Rows added to ``energy_steps.json``.
    files : tuple of str
        Files written.
    notes : tuple of str
        What could not be measured, and why.
    """

    wall: Row
    trace: str | None
    kernels: int
    energy: tuple[Row, ...]
    files: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class _Run:
    """A capture on its way."""

    torch: Any
    case: Case
    folder: Folder
    say: Say
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep and say what could not be measured."""
        self.notes.append(text)
        self.say(text)


def capture_model(
    case: Case,
    folder: Path,
    origin: Origin = Origin(),  # noqa: B008  (frozen)
    energy: bool = False,
    say: Say = quiet,
) -> Captured:
    """Measure and trace one case on the GPU of this machine.

    In this order, in one process: wall times of eager steps, replay times of the step captured as
    a graph, the trace, and the energy of both if asked. An eager decode step makes its KV cache
    grow; the first traced step reads `case.context` tokens and writes the next one (or, where the
    context is shorter than the steps before it, as near to that as can be).

    Parameters
    ----------
    case : Case
    folder : Path
        Where the trace, ``wall.jsonl`` and ``provenance.json`` go.
    origin : Origin
        Command line and licence.
    energy : bool
        Also measure the energy of a step, into ``energy_steps.json``.
    say : callable
        Told, in one line each, what is done and what could not be.

    Raises
    ------
    NpusimError
        PyTorch, a GPU or the model is absent, a step fails, or the folder cannot be written.
    """
    torch = open_gpu()
    check_folder(folder)
    run = _Run(torch, case, Folder(folder), say)
    # The undisturbed board is measured before anything else is asked of it.
    board, resting = _resting(run) if energy else (None, [])
    with torch.no_grad(), warnings.catch_warnings():
        # Advice on PyTorch's own defaults, which are what is measured.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.")
        try:
            return _captured(run, origin, board, resting)
        except RuntimeError as error:  # PyTorch's: memory that ran out, a kernel that failed
            raise NpusimError(f"{case.model}: {root_cause(error)}") from None


def _captured(run: _Run, origin: Origin, board: Board | None, resting: list[Row]) -> Captured:
    """Measure a case and write what was found."""
    torch, case, files = run.torch, run.case, run.folder
    run.say(f"building {case.model}")
    program = load_program(torch, case)
    wake(torch)  # an idle board shows idle clocks
    record = {**new_record("model", origin), **environment(torch), "case": asdict(case),
              "program": program.about}  # fmt: skip
    # An eager trace is preceded by one profiled step that is thrown away.
    eager = warm_step(torch, case, program, WALLS + (case.launch == "eager"))
    walls = wall_seconds(torch, eager.run, WALLS)
    graph, timed = _graph(run, program)
    traced = eager if case.launch == "eager" else graph
    kernels = _trace(run, traced) if traced is not None else 0
    wall = {"case": case.id, **wall_row(walls), **timed, "compiled": case.launch == "compiled",
            "run": record["run"]}  # fmt: skip
    if traced is not None:
        wall["same_process_trace"] = case.trace_file
    files.add_wall(wall)
    spent = _energy(run, board, resting, eager, graph)
    trace = case.trace_file if traced is not None else None
    written = (*([trace] if trace else []), WALL, *([ENERGY] if spent else []))
    files.add_record({**record, "files": written, "notes": run.notes})
    return Captured(wall, trace, kernels // case.steps, tuple(spent), (*written, PROVENANCE),
                    tuple(run.notes))  # fmt: skip


def warm_step(torch: Any, case: Case, program: Program, before: int) -> Step:
    """Return an eager step that is warm, and `before` runs later stands at the case's context.

    Raises
    ------
    NpusimError
        The step fails.
    """
    try:
        step = program.eager(WARM_UPS + before)
        for _ in range(WARM_UPS):
            step.run()
        torch.cuda.synchronize()
    except NpusimError:
        raise
    except Exception as error:
        raise NpusimError(f"{case.model}: a {case.phase} step fails: {root_cause(error)}") from None
    return step


def _graph(run: _Run, program: Program) -> tuple[Step | None, Row]:
    """Capture the step as a graph and time its replays; or say why that cannot be done."""
    torch = run.torch
    try:
        step = program.static(run.case.launch == "compiled")
        for _ in range(2):  # the compiler works at the first call
            step.rewind()
            step.run()
        step.rewind()
        graph = capture_graph(torch, step.run)
        once = median(replay_ms(torch, graph.replay, 3, step.rewind))
        times = replay_ms(torch, graph.replay, 2 * replays(1e-3 * once), step.rewind)
        timed = {"graph_median_ms": median(times), "graph_min_ms": min(times)}
        return Step(graph.replay, step.rewind, keeps=step), timed
    except Exception as error:
        failure = root_cause(error)
    try:
        torch.cuda.synchronize()
    except Exception as error:
        raise NpusimError(f"the GPU fails after a graph capture: {first_line(error)}") from None
    run.note(f"no graph of the step: {failure}")
    return None, {"graph_error": failure}


def _trace(run: _Run, step: Step) -> int:
    """Profile the steps of a case into the folder; returns how many kernels the trace holds."""
    torch, profiler = run.torch, run.torch.profiler
    run.say(f"tracing {run.case.steps} steps")
    kinds = [profiler.ProfilerActivity.CPU, profiler.ProfilerActivity.CUDA]
    step.rewind()
    with profiler.profile(activities=kinds):  # the first profile of a process starts slowly
        step.run()
        torch.cuda.synchronize()
    step.rewind()
    torch.cuda.synchronize()
    with profiler.profile(activities=kinds, record_shapes=True) as profile:
        for i in range(run.case.steps):
            with profiler.record_function(f"step#{i}"):
                step.run()
                torch.cuda.synchronize()
    kernels = 0

    def write(target: Path) -> None:
        nonlocal kernels
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as made:
            raw = Path(made) / "trace.json"
            profile.export_chrome_trace(str(raw))
            kernels = packed(raw, target)

    run.folder.add_file(run.case.trace_file, write)
    if kernels == 0:
        run.note("the trace holds no kernels: the profiler may not see the device")
    return kernels


def packed(raw: Path, target: Path) -> int:
    """Gzip a Chrome trace; returns how many kernels are in it."""
    kernels = 0
    with (
        raw.open("rb") as source,
        target.open("wb") as sink,
        gzip.GzipFile(filename="", fileobj=sink, mode="wb", mtime=0) as gz,
    ):
        for line in source:
            kernels += len(_KERNEL.findall(line))
            gz.write(line)
    return kernels


def _resting(run: _Run) -> tuple[Board | None, list[Row]]:
    """Return the board and what it takes at rest, where it tells."""
    try:
        board = open_board(run.torch)
        return board, [{"case": "idle", "watts": idle(board, SECONDS).watts}]
    except Unavailable as reason:
        run.note(f"no energy: {reason}")
        return None, []


def _energy(
    run: _Run, board: Board | None, resting: list[Row], eager: Step, graph: Step | None
) -> list[Row]:
    """Measure the energy of a step, eager and as a graph; a failure leaves the rest as it is."""
    if board is None:
        return []
    rows, case = list(resting), run.case
    ways = {"eager": eager, "compiled" if case.launch == "compiled" else "graph": graph}
    for mode, step in ways.items():
        if step is None:
            continue
        run.say(f"energy of {mode} steps")
        try:
            rows.append(step_energy(run.torch, board, case, mode, step))
        except Exception as error:
            run.note(f"no energy of {mode} steps: {root_cause(error)}")
            break  # whatever failed may have taken the device with it
    run.folder.add_energy(rows)
    return rows
