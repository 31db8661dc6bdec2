"""Machines and workloads by name or path."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from npusim import catalog, config
from npusim.arch import Arch
from npusim.errors import InputError
from npusim.importers import import_trace
from npusim.workload import Workload
from npusim.workload_file import load_workload as read_workload


def load_arch(name: str | Path) -> Arch:
    """Return a machine.

    Parameters
    ----------
    name : str or Path
        A YAML file, or the name of a machine that ships.

    Returns
    -------
    Arch

    Raises
    ------
    InputError, InputErrors
        No such machine, mistakes in its file, or a workload.

    Examples
    --------
    >>> load_arch("h200")["memories.dram.bandwidth"]
    4800000000000.0
    """
    file = catalog.find("archs", name)
    if file.suffix == ".parquet":
        raise InputError("a workload, not a machine", file=file,
                         hint="`npusim archs` lists machines")  # fmt: skip
    return config.read_arch(file)[0]


def load_workload(name: str | Path) -> Workload:
    """Return a workload.

    Parameters
    ----------
    name : str or Path
        A workload file, any trace that can be imported, or the name of a workload that ships.

    Returns
    -------
    Workload

    Raises
    ------
    InputError
        No such workload, a file that cannot be read, or a machine or study.

    Examples
    --------
    >>> len(load_workload("paddleocr_vl_decode").steps)
    3
    """
    path = catalog.find("workloads", name)
    if path.suffix in (".yaml", ".yml"):
        raise InputError("a machine or study, not a workload", file=path,
                         hint="`npusim workloads` lists workloads; a trace does as well"
                         )  # fmt: skip
    return read_workload(path) if path.suffix == ".parquet" else import_trace(path)


def traced_arch(workload: Workload) -> Arch | None:
    """Return the shipped machine that a workload was traced on, or None if none is known.

    Examples
    --------
    >>> traced_arch(load_workload("paddleocr_vl_decode")).name
    'h200'
    """
    return _by_device().get(str(workload.meta.get("device", "")))


@cache
def _by_device() -> dict[str, Arch]:
    """Return the shipped machines by the names that profilers give their devices."""
    shipped = [load_arch(name) for name in catalog.names("archs")]
    return {device: arch for arch in shipped for device in arch.devices}


def require_traced(workload: Workload) -> Arch:
    """Return the machine that a workload was traced on.

    Raises
    ------
    InputError
        No shipped machine lists the device.
    """
    arch = traced_arch(workload)
    if arch is None:
        if workload.meta.get("lowering"):
            raise InputError("was made from hyperparameters: nothing was measured of it",
                             file=workload.name, hint="replay it, or sweep over it")  # fmt: skip
        raise InputError("no shipped machine lists the device of the trace", file=workload.name,
                         value=workload.meta.get("device", ""),
                         hint="add it to `devices:` of an architecture file")  # fmt: skip
    return arch
