"""The command line: parse, call the library, print.

Everything heavy is imported inside the commands, so that ``npusim --help`` answers at once.
Exit status: 0 done, 1 bad input (one line an error on stderr), 2 bad usage; 130 or 143 a sweep
that was stopped by Ctrl-C or SIGTERM, which --resume goes on with.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from npusim import __version__
from npusim.capture.commands import capture
from npusim.commands.area import area
from npusim.commands.fusion import fuse
from npusim.commands.measured import calibrate, validate
from npusim.commands.memory import memory
from npusim.commands.merge import merge
from npusim.commands.output import CACHES, JSON, LAUNCHES, UNPROFILED, command_line, print_json
from npusim.commands.power import power
from npusim.commands.reuse import reuse
from npusim.commands.scale import scale
from npusim.commands.search import search, sensitivity
from npusim.commands.serving import serve_sim
from npusim.commands.settings import read_settings
from npusim.commands.study import study
from npusim.commands.sweep import sweep
from npusim.commands.workloads import rescale, template
from npusim.errors import InputError, NpusimError
from npusim.sweeps.task import Stopped, Unfinished

if TYPE_CHECKING:
    from npusim.workload import Workload


@contextmanager
def _ended_by_term() -> Iterator[None]:
    """Let SIGTERM end a command as an error does, so that nothing unfinished stays."""
    first = threading.current_thread() is threading.main_thread()
    if not first or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Group(click.Group):
    """Turns errors that a user can act on into one line each and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _ended_by_term():
                done = super().invoke(ctx)
            sys.stdout.flush()
            return done
        except Stopped as stopped:
            click.echo(str(stopped), err=True)
            ctx.exit(stopped.status)
        except Unfinished as part:
            click.echo(str(part), err=True)
            ctx.exit(0)
        except NpusimError as error:
            for line in str(error).splitlines():
                click.echo(f"error: {line}", err=True)
            ctx.exit(1)
        except BrokenPipeError:
            raise  # the reader has gone, as with `| head`: click ends quietly
        except OSError as error:
            click.echo(f"error: output: cannot be written: {error.strerror or error}", err=True)
            os._exit(1)  # what is left in the buffer of stdout would only fail again


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="npusim %(version)s")
def main() -> None:
    """Replay measured GPU kernel traces on accelerators that do not exist yet.

    ARCH and WORKLOAD take a path or a name that ships (see `npusim archs`, `npusim workloads`);
    WORKLOAD also takes any trace that `npusim import` reads.
    """


for command in (area, calibrate, capture, fuse, memory, merge, power, rescale, reuse, scale, search,
                sensitivity, serve_sim, study, sweep, template, validate):  # fmt: skip
    main.add_command(command)


class _Formats(click.Command):
    """Lists in its help what the importers say they read."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from npusim.importers import importers

        with formatter.section("Formats"):
            for importer in importers():
                formatter.write_text(importer.FORMAT)


@main.command("import", cls=_Formats)
@click.argument("source", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="NAME.parquet (several traces are then joined into one workload), or a folder for one "
    "workload a trace. Default: NAME.parquet in this folder.",
)
@click.option(
    "--time-unit",
    type=click.Choice(["ns", "us"]),
    help="Unit of the times in the file, where its format does not fix it (mcTracer).",
)
@JSON
def import_(
    source: Sequence[str], output: Path | None, time_unit: str | None, as_json: bool
) -> None:
    """Turn traces into workload files.

    Record PyTorch profiler (Kineto) traces with record_shapes=True and mark steps with
    record_function("step#0") or the profiler's schedule. Of other profilers come kernel times,
    hardware counters or graphs; all formats are listed below.

    Several traces of one workload written to one NAME.parquet are joined: the trace of a graph with
    the eager trace of the same step, which knows shapes and operators; a timeline with counters;
    counter profiles with each other.
    """
    from npusim import intake, terminal
    from npusim.tables import capture as capture_tables

    one = output if output is not None and output.suffix else None
    if one is not None and one.suffix != ".parquet":
        raise InputError("not a name for a workload", place="--output", value=str(one),
                         allowed="NAME.parquet, or a folder")  # fmt: skip
    with terminal.progress("reading", quiet=as_json, is_bytes=True) as tick:
        loaded = [intake.load(trace, time_unit, tick) for trace in source]
    taken = intake.joined(loaded, one) if one is not None else intake.apart(loaded, output)
    intake.save(taken)
    if as_json:
        print_json({"workloads": [
            {"file": str(t.file), **_inspected(t.workload), "joined": t.summary} for t in taken
        ]})  # fmt: skip
    else:
        capture_tables.imported(taken)


@main.command()
@click.argument("workload")
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write a report there: page, tables and figures.",
)
@click.option(
    "--arch",
    "arch_name",
    metavar="ARCH",
    help="Machine whose rooflines the report shows; by default the one that was traced.",
)
@JSON
def inspect(workload: str, report: Path | None, arch_name: str | None, as_json: bool) -> None:
    """Show what a workload or trace holds: time by kind, idle share, what has no FLOP and bytes.

    With --report, write what a profiling report would: time by kernel, kind and layer, classes,
    histograms, rooflines, the host, gaps and steps.
    """
    from npusim.atomic import check_folder
    from npusim.load import load_arch, load_workload

    if arch_name is not None and report is None:
        raise InputError("only a report has rooflines", place="--arch", value=arch_name,
                         hint="add --report DIR")  # fmt: skip
    if report is not None:
        check_folder(report)
    arch = load_arch(arch_name) if arch_name is not None else None
    w = load_workload(workload)
    content = _inspected(w)
    if report is not None:
        from npusim.report.page import save_report

        content["report"] = [str(file) for file in save_report(w, report, arch)]
    if as_json:
        print_json(content)
        return
    from npusim.tables import results as tables

    tables.inspection(w, content)
    if report is not None:
        click.echo(f"report: {report / 'report.html'}")


@main.command()
@click.argument("a")
@click.argument("b")
@JSON
def diff(a: str, b: str, as_json: bool) -> None:
    """Show what changed between two captures, A and B: workloads or traces.

    Kernels added, gone, slower and faster, time by kind, operator and library, counters and the
    host, each for one step.
    """
    from npusim.difference import difference
    from npusim.load import load_workload

    found = difference(load_workload(a), load_workload(b))
    if as_json:
        print_json(found.as_dict())
        return
    from npusim.tables import capture as capture_tables

    capture_tables.difference(found)


def _refuse_itself(timeline: Path, workload: Path) -> None:
    """Refuse to write a timeline over what it is made of."""
    if timeline.samefile(workload):
        raise InputError("is the workload itself", place="--timeline", value=str(timeline),
                         hint="give another name")  # fmt: skip


@main.command()
@click.argument("workload")
@click.option("--arch", "arch_name", required=True, metavar="ARCH", help="Machine to replay on.")
@click.option(
    "--mode",
    type=click.Choice(["model", "transfer"]),
    default="model",
    show_default=True,
    help="Kernel times from shapes and machine alone, or the measured ones scaled.",
)
@click.option(
    "--launch",
    type=LAUNCHES,
    default="eager",
    show_default=True,
    help="How operations reach the device.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change a parameter of the machine or of the workload, e.g. --set "
    "'memories.dram.bandwidth=2.5 TB/s' --set workload.weight_bits=8; may be repeated.",
)
@CACHES
@UNPROFILED
@click.option(
    "--timeline",
    type=click.Path(path_type=Path),
    metavar="OUT.json",
    help="Write when everything happens, before and after, as a Chrome trace (gzipped if named "
    ".gz): open it in ui.perfetto.dev or chrome://tracing.",
)
@JSON
def replay(
    workload: str, arch_name: str, mode: str, launch: str, settings: Sequence[str],
    caches: str | None, unprofiled: bool, timeline: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Predict one step of WORKLOAD on a machine."""
    from npusim import predict
    from npusim.arch import with_value
    from npusim.load import load_arch, load_workload
    from npusim.page import page_times
    from npusim.transforms import split, transformed
    from npusim.transforms import unprofiled as without_profiler

    if timeline is not None and timeline.is_file() and Path(workload).is_file():
        _refuse_itself(timeline, Path(workload))
    base, changes = load_arch(arch_name), dict(read_settings(settings))
    arch, (of_machine, of_workload) = base, split(changes)
    for path, value in of_machine.items():
        arch = with_value(arch, path, value)
    loaded = load_workload(workload)
    loaded = loaded.under(caches) if caches else loaded
    loaded = without_profiler(loaded) if unprofiled else loaded
    wanted = transformed(loaded, of_workload)
    page = page_times(wanted, arch, launch, mode) if "page" in wanted.meta else None
    result = page.step if page is not None else predict.replay(wanted, arch, launch, mode)
    idle = predict.without_effect(loaded, base, changes, launch, mode)
    if idle:
        click.echo(f"note: changes nothing here: --set {', '.join(idle)}", err=True)
    content = {**result.as_dict(), "no_effect": list(idle), "command": command_line()}
    if page is not None:
        content["page"] = page.as_dict()
    if timeline is not None:
        from npusim.timeline_file import save_timeline

        save_timeline(timeline, wanted, arch, launch, mode, traced=loaded)
        content["timeline"] = str(timeline)
    if as_json:
        print_json(content)
        return
    from npusim.tables import results as tables

    if page is not None:
        from npusim.tables import workload as workload_tables

        workload_tables.page(page)
    tables.replayed(result, "mean step" if page is not None else "one step")
    if timeline is not None:
        click.echo(f"timeline: {timeline} (open it in ui.perfetto.dev or chrome://tracing)")


@main.command()
@click.argument("result", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write every design beside every measured figure as CSV.",
)
@JSON
def compare(result: Sequence[Path], output: Path | None, as_json: bool) -> None:
    """Put results beside measured baselines.

    RESULT is the folder of a sweep, its results.parquet, or a workload or trace; for a workload,
    predictions on the machine it was traced on are compared with the trace itself.
    """
    from npusim import beside
    from npusim.store import model_version
    from npusim.tables import results as tables

    compared = [beside.compare_one(path) for path in result]
    if output is not None:
        beside.save_comparisons(output, compared)
    if as_json:
        print_json({"results": [c.summary for c in compared], "model": model_version()})
    else:
        tables.compared(compared)


@main.command()
@click.argument("name", required=False)
@JSON
def archs(name: str | None, as_json: bool) -> None:
    """List machines, or show one with the source of every value."""
    from npusim import catalog
    from npusim.load import load_arch
    from npusim.tables import results as tables

    if name is not None:
        arch = load_arch(name)
        print_json(tables.arch_content(arch)) if as_json else tables.arch(arch)
        return
    known = [load_arch(n) for n in catalog.names("archs")]
    if as_json:
        print_json(
            {
                "archs": [
                    {"name": a.name, "title": a.title, "devices": list(a.devices)} for a in known
                ]
            }
        )
    else:
        tables.arch_list(known)


@main.command()
@click.argument("name", required=False)
@JSON
def workloads(name: str | None, as_json: bool) -> None:
    """List workloads, or show one with its provenance."""
    from npusim import catalog
    from npusim.load import load_workload
    from npusim.tables import results as tables

    if name is not None:
        w = load_workload(name)
        content = {**_inspected(w), "meta": dict(w.meta)}
        print_json(content) if as_json else tables.workload(w, content)
        return
    known = [load_workload(n) for n in catalog.names("workloads")]
    if as_json:
        print_json({"workloads": [_inspected(w) for w in known]})
    else:
        tables.workload_list(known)


def _inspected(w: Workload) -> dict[str, Any]:
    from npusim.inspection import inspection

    return inspection(w)
