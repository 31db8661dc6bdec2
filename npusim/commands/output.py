"""What commands share: options, the command as it was given, how a JSON object is printed."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Any

import click

LAUNCHES = click.Choice(["eager", "graph", "queue"])

JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object in SI units.")

UNPROFILED = click.option(
    "--unprofiled",
    is_flag=True,
    help="Take what the profiler cost (host.record for each operator that it recorded) out of the "
    "host's measured work, and leave out the first traced step. Eager PyTorch traces only.",
)

CACHES = click.option(
    "--caches",
    type=click.Choice(["step", "warm", "cold"]),
    help="What kernels find in caches: what the running step leaves there (step, the default), "
    "their own data (warm, as a profiler that replays each kernel), or nothing (cold).",
)


def command_line() -> str:
    """Return the command as it was given, ready to be run again."""
    return "npusim " + " ".join(shlex.quote(part) for part in sys.argv[1:])


def print_json(content: Any) -> None:
    """Print one object on stdout."""
    click.echo(json.dumps(content, allow_nan=False))
