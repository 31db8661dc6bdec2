"""A process that reads a report of Nsight Compute in our place, and may die of it.

NVIDIA's library ends the process where a report is damaged in certain ways, and prints what it
thinks of it. So a report is first read here; what goes well here goes well where it counts.

python ncu_probe.py FOLDER_OF_THE_PACKAGE REPORT
"""

from __future__ import annotations

import importlib
import sys


def probe(folder: str, report: str) -> int:
    """Read all that `ncu_report_file` reads; return how many results there are."""
    sys.path.insert(0, folder)
    context = importlib.import_module("ncu_report").load_report(report)
    count = 0
    for i in range(context.num_ranges()):
        one = context.range_by_idx(i)
        for j in range(one.num_actions()):
            action = one.action_by_idx(j)
            for name in action.metric_names():
                metric = action.metric_by_name(name)
                metric.value(), metric.unit()
            count += 1
    return count


if __name__ == "__main__":
    print(probe(*sys.argv[1:]))  # noqa: T201
