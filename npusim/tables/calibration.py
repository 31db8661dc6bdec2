"""Tables about models and measurements: how far off, and what a fit made of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.text import Text

from npusim import terminal, units
from npusim.calibrate import Calibration, Fitted
from npusim.parameters import PARAMETERS
from npusim.validate import Errors, Validation

_FIGURES = ("n", "median error", "p90", "worst", "predicted / measured")


def validated(v: Validation) -> None:
    """Print the errors of a machine's model."""
    console = terminal.plain()
    of_machine = v.fitted_parameters - v.fitted_of_libraries
    fitted = f"{of_machine} of the machine, {v.fitted_of_libraries} of libraries (of all machines)"
    console.print(Text(f"{v.arch} against {v.source}; fitted parameters that count here: {fitted}"))
    table = terminal.blank("error of single operations", "op", *_FIGURES, right=_FIGURES)
    for op, errors in {**v.per_op, "all": v.overall}.items():
        terminal.add(table, op, *_errors(errors))
    terminal.show(table)
    if v.steps is not None:
        console.print(Text(
            f"device-busy time {v.steps.busy_error:+.1%}, of which "
            f"{v.steps.modelled_busy_share:.1%} is predicted; kernels weighted by time "
            f"{v.overall.weighted_ape:.1%}"
        ))  # fmt: skip
        if not np.isnan(v.steps.wall_error):
            console.print(Text(f"wall time of the steps, {v.steps.launch}: "
                               f"{v.steps.wall_error:+.1%}"))  # fmt: skip
    numbers = ("row", "predicted", "measured")
    table = terminal.blank("largest errors", *numbers[:1], "op", "shape", *numbers[1:],
                           right=numbers)  # fmt: skip
    for w in v.worst:
        times = (terminal.seconds(w.predicted_s), terminal.seconds(w.measured_s))
        terminal.add(table, str(w.row), w.op, w.shape, *times)
    terminal.show(table)
    for note in v.notes:
        console.print(Text(f"note: {note}"))


def _errors(e: Errors) -> tuple[str, ...]:
    shares = (f"{x:.1%}" for x in (e.median_ape, e.p90_ape, e.worst_ape))
    return (str(e.n), *shares, f"{e.gmean_ratio:.3f}")


def calibrated(c: Calibration, output: Path, notes: Sequence[str] = ()) -> None:
    """Print what a calibration changed and what it left, and what to know of it."""
    console = terminal.plain()
    for row in c.rows:
        console.print(Text(f"fitted to {row}"))
    numbers = ("before", "after", "standard error", "effect")
    table = terminal.blank(f"{terminal.many(c.free, 'free parameter')}", "parameter", *numbers,
                           "why", right=numbers)  # fmt: skip
    for f in c.fitted:
        if f.is_fitted:
            terminal.add(table, f.path, *_change(f), f.why)
    terminal.show(table)
    left = sum(not f.is_fitted for f in c.fitted)
    if left:
        console.print(Text(f"{left} more left as they were: no measured time depends on them"))
    table = terminal.blank("error on what was fitted to", "", *_FIGURES, right=_FIGURES)
    terminal.add(table, "before", *_errors(c.before))
    terminal.add(table, "after", *_errors(c.after))
    terminal.show(table)
    quantiles = ("n", "p10", "p50", "p90")
    title = "measured / predicted of a half, fitted to the other half"
    table = terminal.blank(title, "kind", *quantiles, right=quantiles)
    for kind, r in c.residuals.items():
        terminal.add(table, kind, str(r.n), *(f"{x:.3f}" for x in (r.p10, r.p50, r.p90)))
    terminal.show(table)
    for note in notes:
        console.print(Text(f"note: {note}"))
    console.print(Text(f"written: {output}; report errors on measurements that it has not seen"))


def _change(f: Fitted) -> tuple[str, ...]:
    unit = PARAMETERS[f.path].unit
    error = "" if np.isnan(f.standard_error) else units.show(f.standard_error, unit, 3)
    effect = f"{f.effect:+.2%}" if f.is_fitted else ""
    return units.show(f.before, unit), units.show(f.after, unit), error, effect
