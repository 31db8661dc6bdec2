"""The importer and the model of the how-tos, put into a copy of npusim as their pages say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guide_pages import blocks, page, pieces

ROOT = Path(__file__).resolve().parent.parent
RUFF = shutil.which("ruff", path=os.pathsep.join([str(Path(sys.executable).parent), os.defpath]))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of npusim with what the pages say put where they say."""
    to = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "npusim", to / "npusim",
                    ignore=shutil.ignore_patterns("__pycache__", "shipped"))  # fmt: skip
    for name in ("archs", "workloads", "studies"):
        (to / name).symlink_to(ROOT / name)
    (to / "tests").mkdir()
    for name in ("__init__", "conftest", "machines", "builder", "test_models"):
        shutil.copy(ROOT / "tests" / f"{name}.py", to / "tests")
    for piece in (*pieces(page("howto_importer")), *pieces(page("howto_model"))):
        put(to / piece.file, piece)
    return to


def put(file, piece):
    if not piece.before:
        assert not file.exists(), file
        file.write_text(piece.text, encoding="utf-8")
        return
    text = file.read_text(encoding="utf-8")
    at = [i for i, line in enumerate(text.splitlines(True)) if piece.before in line]
    assert at, f"{piece.file} has no {piece.before!r} any more"
    lines = text.splitlines(True)
    file.write_text("".join([*lines[: at[0]], piece.text, *lines[at[0] :]]), encoding="utf-8")


def run(copy, *arguments):
    found = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_the_importer_and_the_model_of_the_pages_pass_their_tests_and_ours(copy):
    done = run(copy, "pytest", "-n", "0", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir",
               str(copy), "-W", "error", "tests/test_toy_csv.py", "tests/test_fill.py",
               "tests/test_models.py", "-k", "toy or fill or declare")  # fmt: skip
    assert "passed" in done


def test_the_table_of_the_page_is_the_one_that_its_test_reads():
    (table,) = blocks(page("howto_importer"), "text")
    (test,) = (p for p in pieces(page("howto_importer")) if p.file.startswith("tests/"))
    assert f'TABLE = """{table}"""' in test.text


@pytest.mark.skipif(RUFF is None, reason="ruff is not installed")
def test_code_of_the_pages_is_as_ours(copy):
    new = [p.file for name in ("howto_importer", "howto_model") for p in pieces(page(name))]
    for check in (["check"], ["format", "--check"]):
        done = subprocess.run([RUFF, *check, "--config", str(ROOT / "pyproject.toml"), *new],
                              cwd=copy, capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
