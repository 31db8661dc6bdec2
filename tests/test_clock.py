"""Clocks on the wall go back and differ between machines: nothing hangs on them."""

import ast

from npusim.capture.folder import Folder
from tests.conftest import ROOT


def test_records_of_a_capture_stay_in_the_order_in_which_they_came(tmp_path):
    for run in ("20260102T030405.000000Z", "20250102T030405.000000Z"):
        Folder(tmp_path).add_record({"run": run})
    assert [r["run"][:4] for r in Folder(tmp_path).records] == ["2026", "2025"]


def test_nothing_is_measured_or_ordered_by_the_clock_on_the_wall():
    # The date in a record of a capture, and a time that is compared for equality alone.
    asked = {"capture/environment.py": {"now"}, "templates/lowering.py": {"st_mtime_ns"}}
    of_module = {"time": {"time", "time_ns"}, "datetime": {"now", "utcnow", "today"}}
    of_files = {"st_mtime", "st_mtime_ns", "st_ctime", "st_ctime_ns", "getmtime", "getctime"}
    found = {}
    for file in sorted((ROOT / "npusim").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in of_files | of_module.get(
                getattr(node.value, "id", ""), set()
            ):
                found.setdefault(str(file.relative_to(ROOT / "npusim")), set()).add(node.attr)
    assert found == asked
