"""Nsight Compute: reports (``.ncu-rep``) and the raw and details pages of ``ncu --csv``.

One operation a profiled kernel, with its hardware counters. A profiler of counters runs every
kernel alone and again for each group of counters, so that durations are those of a replay, and how
warm the caches were is not in the file.
"""

from __future__ import annotations

from pathlib import Path

from npusim.importers import csv_rows, files, ncu_csv, ncu_profile, ncu_report_file
from npusim.workload import Workload

FORMAT = "Nsight Compute report or CSV"
ENDINGS = (".ncu-rep",)


def sniff(path: Path) -> bool:
    """Return whether the file is a report, or begins with the header of a page."""
    magic = ncu_report_file.MAGIC
    return files.head(path, len(magic)) == magic or ncu_csv.is_page(csv_rows.head(path))


def read(path: Path, name: str) -> Workload:
    """Read a report or a page.

    Parameters
    ----------
    path : Path
    name : str
        What to call the workload.

    Returns
    -------
    Workload
        One step, kernels in the order of their numbers, with counters.

    Raises
    ------
    InputError
        A damaged file, a number that is none, a unit that is not known, no durations; or a report
        without NVIDIA's package to read it.
    """
    magic = ncu_report_file.MAGIC
    is_report = files.head(path, len(magic)) == magic
    profile, about = (ncu_report_file if is_report else ncu_csv).read(path)
    return ncu_profile.workload(profile, name, about)
