"""The commands that hold models against measurements: ``npusim calibrate`` and ``validate``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from npusim.commands.output import CACHES, JSON, command_line, print_json
from npusim.errors import InputError

if TYPE_CHECKING:
    from npusim.measured import Measured


@click.command()
@click.argument("measured", nargs=-1, required=True)
@click.option("--arch", "arch_name", required=True, metavar="ARCH", help="Machine to fit.")
@click.option(
    "--free",
    multiple=True,
    metavar="PATH",
    help="Parameter to fit, e.g. --free floor.matmul; may be repeated. By default those that the "
    "machine's file calls calibrated or assumed.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the fitted machine there (YAML), with the record of the fit.",
)
@JSON
def calibrate(
    measured: Sequence[str], arch_name: str, free: Sequence[str], output: Path, as_json: bool
) -> None:
    """Fit parameters of a machine to measured operations.

    MEASURED is a CSV table with one operation a row (see `npusim validate`), the axes.json of
    `npusim capture experiments`, or a workload or trace. Minimises a robust loss of the logarithm
    of predicted over measured time, within the ranges that the machine's file gives (of values
    that were calibrated before: within the bounds of the parameter). The residuals
    that the file keeps, of which bands are made, are those of a random half of the rows after a fit
    to the other half.
    """
    from npusim import calibration_file
    from npusim.calibrate import calibrate, held_back, unpublished
    from npusim.load import load_arch
    from npusim.store import model_version
    from npusim.tables import calibration as calibration_tables

    if any(_same(output, Path(name)) for name in measured):
        raise InputError("would be replaced by the fitted machine", file=output, place="-o",
                         hint="write to another file")  # fmt: skip
    arch = load_arch(arch_name)
    pairs = [(_measured(name), arch) for name in measured]
    fitted = free or unpublished(arch)
    done = calibrate(pairs, fitted)
    with suppress(InputError):  # too few rows to hold half of them back: no band is made of those
        done = replace(done, residuals=held_back(pairs, fitted))
    notes = list(done.replaces(arch))
    calibration_file.write(done, arch.name, output, model_version())
    if as_json:
        print_json({**done.as_dict(), "notes": notes, "file": str(output),
                    "model": model_version(), "command": command_line()})  # fmt: skip
    else:
        calibration_tables.calibrated(done, output, notes)


@click.command()
@click.argument("measured")
@click.option("--arch", "arch_name", required=True, metavar="ARCH", help="Machine measured on.")
@CACHES
@JSON
def validate(measured: str, arch_name: str, caches: str | None, as_json: bool) -> None:
    """Hold predictions against measurements: error statistics.

    MEASURED is a workload or trace, the axes.json of `npusim capture experiments`, or a CSV table
    with one measured operation a row: op, dtype, latency_us, and of linear m,n,k; of
    decode_attention batch,heads,kv_heads,head_dim,context; of prefill_attention sequence,causal
    for the context; of pointwise name,elements; of stream bytes_read,bytes_written. Optional:
    weight_copies (operand sets in turn, blank: cold), units, launch (graph, kernel or eager).
    """
    from npusim import measured as tables_of
    from npusim.load import load_arch, load_workload
    from npusim.store import model_version, stale_fit
    from npusim.tables import calibration as calibration_tables
    from npusim.validate import validate, validate_trace

    arch = load_arch(arch_name)
    if tables_of.is_measured(Path(measured)):
        if caches:
            raise InputError("a table says itself how warm its operations were", place="--caches",
                             value=caches, hint="leave it out")  # fmt: skip
        found = validate(tables_of.read(Path(measured)), arch)
    else:
        workload = load_workload(measured)
        found = validate_trace(workload.under(caches) if caches else workload, arch)
    found = replace(found, notes=(*found.notes, *stale_fit(arch)))
    if as_json:
        print_json({**found.as_dict(), "model": model_version(), "command": command_line()})
    else:
        calibration_tables.validated(found)


def _same(output: Path, name: Path) -> bool:
    return output.exists() and name.exists() and output.samefile(name)


def _measured(name: str) -> Measured:
    """Return measured operations: a table, experiments, or the kernels of a workload or trace."""
    from npusim import measured
    from npusim.load import load_workload

    path = Path(name)
    if measured.is_measured(path):
        return measured.read(path)
    return measured.from_workload(load_workload(name))
