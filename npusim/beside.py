"""Results beside measured baselines: what `npusim compare` answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from npusim import store
from npusim.compare import Measured, compare_designs, error_of, kernel_errors, measured
from npusim.errors import InputError
from npusim.load import load_workload, require_traced
from npusim.predict import replay as predict
from npusim.transforms import unprofiled

_STEMS = ("wall", "device_busy")


def suffix(workload: str, count: int) -> str:
    """Return what follows the columns of one workload of a sweep."""
    return f"[{workload}]" if count > 1 else ""


def measured_content(m: Measured) -> dict[str, Any]:
    """Return a measured figure as plain values."""
    return {
        "device": m.device,
        "launch": m.launch,
        "quantity": f"{m.quantity}_s",
        "value": m.value_s,
        "low": m.low_s,
        "high": m.high_s,
        "same_kernels": m.same_kernels,
        "source": m.source,
        "note": m.note,
    }


@dataclass(frozen=True)
class Compared:
    """A result beside measured figures."""

    name: str
    table: pd.DataFrame
    summary: dict[str, Any]


def compare_one(path: Path) -> Compared:
    """Put the results of a sweep, or a workload, beside measured baselines.

    Raises
    ------
    InputError
        Neither, or a workload from a machine that is not known.
    """
    is_results = path.is_dir() or (path.suffix == ".parquet" and path.name == store.RESULTS)
    return _compare_sweep(path) if is_results else _compare_workload(str(path))


def _compare_sweep(path: Path) -> Compared:
    table, about = store.load_results(path)
    names, given = _described(path, about)
    table = _allowed(path, table, [*about["axes"], "design_id", "launch"])
    _check_times(path, table, [f"{stem}_s" for stem in _STEMS])
    parts = [table[["design_id", "launch", *about["axes"], "wall_s", "device_busy_s"]]]
    ratios = {}
    for name, made in zip(names, given, strict=True):
        w = load_workload(made["given"])
        w = unprofiled(w) if made.get("profiler") == "out" else w
        if w.id != made["id"]:
            raise InputError(
                "workload has changed since the sweep", file=path, value=name, hint="sweep again"
            )
        ends = suffix(name, len(names))
        for stem in {m.quantity for m in measured(w)}:
            bands = [f"{stem}_{end}_s{ends}" for end in ("low", "high")]
            _check_times(path, table, [f"{stem}_s{ends}"], bands)
        found = compare_designs(table, w, ends)
        parts.append(found)
        ratios[name] = {
            column: _ratios(found, column)
            for column in found.columns
            if f"{column}, low" in found.columns
        }
    summary = {
        "result": str(path),
        "name": about["name"],
        "designs": len(table),
        "times_faster_than": ratios,
        "made_by": about["made_by"],
    }
    return Compared(about["name"], pd.concat(parts, axis=1), summary)


def _described(path: Path, about: Mapping[str, Any]) -> tuple[list[str], list[Mapping[str, Any]]]:
    """Return the workloads that results say they are of, and how each was given.

    Raises
    ------
    InputError
        The description is not one that a sweep writes.
    """
    names, axes, made_by = about["workloads"], about["axes"], about["made_by"]
    given = made_by.get("workloads") if isinstance(made_by, dict) else None
    sound = isinstance(about["name"], str) and isinstance(names, list) and isinstance(axes, dict)
    sound = sound and all(isinstance(name, str) for name in names)
    if not sound or not isinstance(given, list) or not names or len(given) != len(names) or not all(
        isinstance(made, dict) and isinstance(made.get("given"), str) for made in given
    ):  # fmt: skip
        raise InputError("not the results of a sweep: its description is damaged", file=path,
                         hint="sweep again")  # fmt: skip
    return names, [{"id": None, **made} for made in given]


def _allowed(path: Path, table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the designs that keep their constraints.

    Raises
    ------
    InputError
        A column is missing, or there are no designs.
    """
    for column in columns:
        if column not in table:
            raise _damaged(path, column, "column is missing")
    if "allowed" in table:
        if table["allowed"].dtype != bool:
            raise _damaged(path, "allowed", "not true or false")
        table = table[table["allowed"]].reset_index(drop=True)
    if table.empty:
        raise InputError("holds no designs", file=path, hint="sweep again")
    return table


def _check_times(
    path: Path, table: pd.DataFrame, columns: Sequence[str], bands: Sequence[str] = ()
) -> None:
    """Refuse columns that are no times; a band may be unknown."""
    for column in (*columns, *bands):
        if column not in table:
            raise _damaged(path, column, "column is missing")
        values = table[column]
        if values.dtype != float:
            raise _damaged(path, column, "not numbers")
        good = (values > 0) & np.isfinite(values) | (values.isna() & (column in bands))
        if not good.all():
            raise InputError("not a time", file=path, place=column,
                             value=float(values[~good].iloc[0]), allowed="above 0 s, finite",
                             hint="sweep again")  # fmt: skip


def _damaged(path: Path, column: str, problem: str) -> InputError:
    return InputError(problem, file=path, place=column, hint="sweep again")


def _ratios(found: pd.DataFrame, column: str) -> dict[str, float | None]:
    """Return how the designs of a sweep spread against one measured figure."""
    values = found[column]
    fastest = int(np.argmax(values.to_numpy()))
    ends = {end: float(found[f"{column}, {end}"].iloc[fastest]) for end in ("low", "high")}
    return {
        "slowest": float(values.min()),
        "median": float(values.median()),
        "fastest": float(values.max()),
        **{f"fastest_{end}": value if np.isfinite(value) else None for end, value in ends.items()},
    }


def _compare_workload(name: str) -> Compared:
    w = load_workload(name)
    arch = require_traced(w)
    told = w["records"].any() and w.meta.get("host") == "measured"
    alone = unprofiled(w) if told else w  # like is held against like
    rows = []
    for m in measured(w):
        if m.device not in arch.devices:
            continue
        result = predict(w if m.traced else alone, arch, m.launch)
        value = getattr(result, f"{m.quantity}_s")
        band = getattr(result.band, f"{m.quantity}_s") if result.band else (None, None)
        rows.append(
            {
                **measured_content(m),
                "predicted": value,
                "error": value / m.value_s - 1,
                "predicted_low": band[0],
                "predicted_high": band[1],
            }
        )
    errors = kernel_errors(w, arch)
    error = error_of(errors) if len(errors) else None
    kinds = {str(k): vars(error_of(part)) for k, part in errors.groupby("kind")}
    summary = {
        "result": name,
        "name": w.name,
        "arch": arch.name,
        "steps": rows,
        "kernels": vars(error) if error else None,
        "kinds": kinds,
        "made_by": {"model": store.model_version(), "workload": w.id},
    }
    return Compared(w.name, pd.DataFrame(rows), summary)


def save_comparisons(file: Path, compared: Sequence[Compared]) -> None:
    """Write comparisons, one below the other, as CSV."""
    parts = [c.table.assign(result=c.name) for c in compared]
    store.save_csv(file, pd.concat(parts, ignore_index=True))
