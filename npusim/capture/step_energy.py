"""What a step costs in energy, from the board's counter, as in ``energy_steps.json``."""

from __future__ import annotations

from typing import Any

from npusim.capture.case import Case
from npusim.capture.gpu import Row
from npusim.capture.models import Step
from npusim.capture.nvml import Board, Spent, spend
from npusim.capture.timing import Call

SECONDS = 4.0
_REPLAYS_A_REWIND = 32  # rewinding costs a few tiny kernels, and a static cache has 64 free slots


def energy_row(case: Case, mode: str, spent: Spent) -> Row:
    """Return the energy of a step.

    Parameters
    ----------
    case : Case
    mode : str
        ``eager``, ``graph`` or ``compiled``.
    spent : Spent

    Examples
    --------
    >>> row = energy_row(Case("m", "decode", context=8), "graph", Spent(8.0, 4.0, 1000, 1980))
    >>> row["case"], row["watts"], row["ms_per_step"], row["mj_per_step"]
    ('m:graph:1:8', 2.0, 4.0, 8.0)
    """
    return {
        "case": f"{case.label}:{mode}:{case.batch}:{case.context}",
        "joules": spent.joules,
        "seconds": spent.seconds,
        "steps": spent.calls,
        "watts": spent.watts,
        "ms_per_step": 1e3 * spent.seconds / spent.calls,
        "mj_per_step": 1e3 * spent.joules / spent.calls,
        "sm_mhz": spent.sm_mhz,
        "mode": mode,
    }


def step_energy(torch: Any, board: Board, case: Case, mode: str, step: Step) -> Row:
    """Repeat a step for `SECONDS` and return its energy."""
    return energy_row(case, mode, spend(torch, board, rewinding(step), SECONDS))


def rewinding(step: Step) -> Call:
    """Return the step as a call that can be repeated for ever."""
    runs = 0

    def run() -> None:
        nonlocal runs
        if runs % _REPLAYS_A_REWIND == 0:
            step.rewind()
        runs += 1
        step.run()

    return run
