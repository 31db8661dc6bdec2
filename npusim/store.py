"""Results on disk: what was asked, by which version, and one row a design with a strong id.

A strong id hashes everything that can change the answer: machine, workloads, parameters, mode,
and the source of the cost models themselves. Equal ids mean equal answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from npusim import __version__, catalog
from npusim.arch import Arch
from npusim.atomic import whole_file
from npusim.errors import InputError

_KEY = b"npusim.sweep"
_MOST = 1_000_000  # designs that are read at once
# Of the package of sweeps what makes answers: not what draws, keeps and runs.
_EVALUATE = ("evaluate.py", "evaluator.py", "factored.py", "felt.py", "grid.py",
             "program_terms.py", "term.py")  # fmt: skip
RESULTS, PARETO, COMPARISON, SUMMARY = (
    "results.parquet", "pareto.csv", "comparison.csv", "summary.json")  # fmt: skip


@cache
def model_version() -> str:
    """Return the version of npusim and a hash of everything that computes an answer.

    Examples
    --------
    >>> model_version().startswith(__version__)
    True
    """
    here = Path(__file__).parent
    beside = ("arch.py", "bands.py", "columns.py", "compare.py", "durations.py", "energy.py",
              "error_band.py", "host.py", "lanes.py", "library.py", "merit.py", "power.py",
              "traffic.py", "utilisation.py", "workload.py")  # fmt: skip
    residuals = (catalog.folder("archs") / "residuals").glob("*.yaml")
    # By name: in an installed wheel the machines lie elsewhere than in a checkout.
    sources = sorted(
        [
            *(here / "models").glob("*.py"),
            *(here / "transforms").glob("*.py"),
            *(here / "fusion").glob("*.py"),
            *(here / "sweeps" / name for name in _EVALUATE),
            *(here / name for name in beside),
            *residuals,
        ],
        key=lambda source: (source.name, source.parent.name),
    )
    digest = hashlib.blake2b(digest_size=6)
    for source in sources:
        digest.update(source.name.encode() + source.read_bytes())
    return f"{__version__}+{digest.hexdigest()}"


def stale_fit(arch: Arch) -> Iterator[str]:
    """Say that a machine was calibrated with other models than these, if its record tells.

    Examples
    --------
    >>> import npusim as ns
    >>> list(stale_fit(ns.load_arch("h200")))
    []
    """
    model = arch.calibration.get("model") if arch.calibration else None
    if model and model != model_version():
        yield (
            f"{arch.name} was calibrated with the models of {model}, these are "
            f"{model_version()}: calibrate again"
        )


def strong_id(parts: Mapping[str, Any]) -> str:
    """Return a hash of everything in `parts`, whatever the order of the keys.

    Examples
    --------
    >>> strong_id({"a": 1.0, "b": "x"}) == strong_id({"b": "x", "a": 1.0})
    True
    """
    text = json.dumps(parts, sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def arch_id(arch: Arch) -> str:
    """Return a hash of the values of a machine and its residuals; its sources do not matter."""
    record = {"calibration": arch.calibration.get("residuals", {})} if arch.calibration else {}
    return strong_id(dict(arch.values) | record)


def save_csv(file: Path, table: pd.DataFrame) -> None:
    """Write a table that people open in a spreadsheet."""
    with whole_file(file) as temporary:
        table.to_csv(temporary, index=False)


def save_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a summary."""
    with whole_file(file) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def load_results(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read the designs of a sweep and what made them.

    Parameters
    ----------
    path : Path
        The folder of a sweep, or its ``results.parquet``, a file or a folder of files.

    Raises
    ------
    InputError
        Not the results of a sweep.
    """
    file = path / RESULTS if path.is_dir() and path.name != RESULTS else path
    if not file.exists():
        raise InputError("no results there", file=path, hint="make some with `npusim sweep`")
    if not (file.is_file() or file.is_dir()):
        raise InputError("not a file", file=file)
    try:
        count = ds.dataset(file).count_rows()
        if count > _MOST:
            hint = "comparison.csv beside it has the front and the best; DuckDB or Polars the rest"
            raise InputError("too many designs to read at once", file=file, value=count,
                             allowed=f"up to {_MOST}", hint=hint)  # fmt: skip
        data = pq.read_table(file)
    except (pa.ArrowException, OSError, ValueError):
        raise InputError("not the results of a sweep", file=file) from None
    raw = (data.schema.metadata or {}).get(_KEY)
    if raw is None:
        raise InputError("Parquet, but not the results of a sweep", file=file)
    try:
        about = json.loads(raw)
        if not {"name", "workloads", "axes", "made_by"} <= about.keys():
            raise ValueError
    except (ValueError, AttributeError, RecursionError):
        raise InputError("not the results of a sweep: its description is damaged", file=file,
                         hint="sweep again") from None  # fmt: skip
    try:
        return data.to_pandas(), about
    except (pa.ArrowException, ValueError, OverflowError):
        raise InputError(
            "holds values that cannot be read", file=file, hint="sweep again"
        ) from None
