"""``npusim calibrate`` and ``validate`` as people run them, on good and on bad input."""

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import npusim as ns
from npusim import catalog, store
from npusim.cli import main
from tests.test_measured import AXES, DECODE, HEADER, LINEAR

FLOOR = "floor.matmul"
ERRORS = {"n", "median_ape", "p90_ape", "worst_ape", "gmean_ratio", "weighted_ape"}


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Run a command in an empty folder."""
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    monkeypatch.chdir(cwd)

    def run(*args):
        return CliRunner().invoke(main, [str(a) for a in args])

    return run


def write(folder, *rows, header=HEADER, name="table.csv"):
    """Write a table of measured operations; cells that a row does not have are blank."""
    lines = [",".join(str(row.get(c, "")) for c in header) for row in rows]
    file = folder / name
    file.write_text("\n".join([",".join(header), *lines]) + "\n")
    return file


@pytest.fixture
def table(tmp_path):
    """Five layers, timed as one floor after the other would be: 10, 20 ... us."""
    rows = [{**LINEAR, "n": 64 * i, "latency_us": 10 * i, "launch": "kernel"} for i in range(1, 6)]
    return write(tmp_path, *rows)


def one_object(result):
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 1
    return json.loads(result.stdout)


def complaint(result, *words):
    """Check that a command complained in one line and did nothing else."""
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.exception is None or isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert str(word) in line, line
    assert os.listdir() == []  # noqa: PTH208


# ---------------------------------------------------------------- validate


def test_validate_tells_the_errors_of_a_table(cli, table, tmp_path):
    both = write(tmp_path, {**LINEAR, "latency_us": 1e6, "launch": "kernel"},
                 {**DECODE, "latency_us": 1e6, "launch": "kernel"}, name="two.csv")  # fmt: skip
    found = one_object(cli("validate", both, "--arch", "h200", "--json"))
    assert ERRORS | {"measured", "arch", "per_op", "worst", "notes", "command"} <= set(found)
    assert (found["n"], found["arch"], found["measured"]) == (2, "h200", "two.csv")
    # both take microseconds; a second of each was claimed
    assert found["median_ape"] == pytest.approx(1, abs=1e-4)
    assert found["gmean_ratio"] < 1e-4
    assert {op: e["n"] for op, e in found["per_op"].items()} == {
        "linear": 1, "decode_attention": 1}  # fmt: skip
    assert all(set(e) == ERRORS for e in found["per_op"].values())
    assert {w["measured_s"] for w in found["worst"]} == {1.0}
    assert not {"busy_error", "wall_error"} & set(found)
    assert one_object(cli("validate", table, "--arch", "h200", "--json"))["n"] == 5


def test_validate_of_a_trace_tells_its_steps(cli):
    found = one_object(cli("validate", "paddleocr_vl_decode", "--arch", "h200", "--json"))
    assert ERRORS | {"busy_error", "wall_error", "modelled_busy_share", "launch"} <= set(found)
    assert abs(found["wall_error"]) < 0.05  # the host of the trace decides
    file = catalog.find("workloads", "paddleocr_vl_decode")
    by_path = one_object(cli("validate", file, "--arch", "h200", "--json"))
    assert by_path["per_op"] == found["per_op"]


def test_validate_reads_the_experiments_of_capture(cli):
    found = one_object(cli("validate", AXES, "--arch", "h200", "--json"))
    assert found["n"] == sum(e["n"] for e in found["per_op"].values()) > 500
    assert found["median_ape"] < 0.15
    assert any("axis fusion" in note for note in found["notes"])


def test_validate_prints_tables(cli, table):
    shown = cli("validate", table, "--arch", "h200")
    assert shown.exit_code == 0
    assert "h200 against table.csv; fitted parameters that count here: " in shown.stdout
    assert "linear" in shown.stdout and "largest errors" in shown.stdout


def test_columns_that_are_not_known_are_noted(cli, tmp_path):
    file = write(tmp_path, {**LINEAR, "gpu": "H200"}, header=[*HEADER, "gpu"])
    found = one_object(cli("validate", file, "--arch", "h200", "--json"))
    assert "columns that are not known, ignored: gpu" in found["notes"]


# ---------------------------------------------------------------- calibrate


def test_calibrate_writes_a_machine_that_fits_better(cli, tmp_path):
    rows = [{**LINEAR, "m": 8, "n": n, "k": 64, "latency_us": 20, "launch": "kernel"}
            for n in (64, 128, 192)]  # fmt: skip
    file = write(tmp_path, *rows)
    command = ("calibrate", file, "--arch", "h200", "--free", FLOOR, "-o", "mine.yaml", "--json")
    wide = machine_of(tmp_path, {FLOOR: "{value: 1 us, source: by hand, kind: assumed, range: "
                                        "[0.1 us, 100 us]}"})  # fmt: skip
    found = one_object(cli(*(wide if a == "h200" else a for a in command)))
    assert {"measured", "free", "before", "after", "fitted", "residuals", "file", "notes",
            "model", "command"} <= set(found)  # fmt: skip
    assert set(found["before"]) == set(found["after"]) == ERRORS
    (fitted,) = found["fitted"]
    assert (fitted["path"], fitted["machine"], fitted["before"]) == (FLOOR, "machine", 1e-6)
    # three small products that all took 20 us: nearly all of it is floor
    assert 10e-6 < fitted["after"] < 20e-6
    assert found["before"]["median_ape"] > 0.5
    assert found["after"]["median_ape"] < 0.05
    assert found["residuals"]["gemm"]["n"] == 1  # two were fitted to, for one that was not
    assert found["file"] == "mine.yaml"
    mine = ns.load_arch("mine.yaml")
    assert mine[FLOOR] == fitted["after"]
    assert mine.provenance[FLOOR].kind == "calibrated"
    assert mine.calibration["free"] == 1
    again = one_object(cli("validate", file, "--arch", "mine.yaml", "--json"))
    assert again["median_ape"] == pytest.approx(found["after"]["median_ape"], rel=1e-6)
    assert os.listdir() == ["mine.yaml"]  # noqa: PTH208


def machine_of(folder, changes):
    """Write the H200 with some entries changed."""
    lines = catalog.find("archs", "h200").read_text(encoding="utf-8").splitlines()
    for path, entry in changes.items():
        group, leaf = path.split(".")
        start = lines.index(f"{group}:")
        at = next(i for i in range(start, len(lines)) if lines[i].startswith(f"  {leaf}:"))
        lines[at] = f"  {leaf}: {entry}"
    file = folder / "machine.yaml"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_record_that_is_not_carried_over_is_told(cli, table, tmp_path):
    command = ("calibrate", table, "--free", FLOOR, "-o", "mine.yaml", "--arch")
    of_h200 = ns.load_arch("h200").calibration["residuals"].values()
    shown = cli(*command, "h200").stdout
    held = sum(r["n"] for r in ns.load_arch("mine.yaml").calibration["residuals"].values())
    before = sum(r["n"] for r in of_h200)
    assert held < 5 < before
    assert (
        f"note: the calibration record of h200 ({before} operations held back) is not carried "
        f"over: that of this fit ({held}) takes its place, so bands may widen" in shown
    )
    assert one_object(cli(*command, "b200", "--json"))["notes"] == []  # it has no record to lose


def test_a_fit_of_other_models_is_told(cli, table):
    assert (
        cli("calibrate", table, "--free", FLOOR, "-o", "mine.yaml", "--arch", "h200").exit_code == 0
    )
    file = Path("mine.yaml")
    version = store.model_version()
    assert ns.load_arch("mine.yaml").calibration["model"] == version
    replayed = ("replay", "paddleocr_vl_decode", "--launch", "graph", "--json", "--arch")
    validated = ("validate", table, "--json", "--arch")
    for command in (replayed, validated):
        assert not any("calibrate again" in n for n in one_object(cli(*command, file))["notes"])
    file.write_text(file.read_text().replace(version, "0.0.9+abc"))
    told = f"mine was calibrated with the models of 0.0.9+abc, these are {version}: calibrate again"
    for command in (replayed, validated):
        assert told in one_object(cli(*command, file))["notes"]


def test_calibrate_takes_several_tables_and_says_so(cli, table, tmp_path):
    other = shutil.copy(table, tmp_path / "other.csv")
    shown = cli("calibrate", table, other, "--arch", "h200", "--free", FLOOR, "-o", "mine.yaml")
    assert shown.exit_code == 0, shown.stderr
    assert "fitted to 5 rows of table.csv on h200 (linear)" in shown.stdout
    assert "fitted to 5 rows of other.csv on h200 (linear)" in shown.stdout
    assert "written: mine.yaml" in shown.stdout


def test_without_a_choice_what_nobody_published_is_fitted(cli, tmp_path):
    rows = [row for row in json.loads(AXES.read_text()) if row["axis"] == "decode_attention"]
    some = tmp_path / "axes.json"
    some.write_text(json.dumps(rows))
    command = ("calibrate", some, "--arch", "h200", "-o", "mine.yaml", "--json")
    found = one_object(cli(*command))
    paths = {f["path"] for f in found["fitted"]}
    assert FLOOR in paths
    assert "memories.dram.bandwidth" not in paths
    # what is least is the robust sum of squared logarithms; the median may lie a little higher
    assert found["after"]["median_ape"] <= found["before"]["median_ape"] * 1.1
    assert ns.load_arch("mine.yaml").calibration["free"] == found["free"] > 5


# ---------------------------------------------------------------- bad input


COMMANDS = {
    "validate": ["validate", "--arch", "h200"],
    "calibrate": ["calibrate", "--arch", "h200", "--free", FLOOR, "-o", "mine.yaml"],
}
NO_LATENCY = [c for c in HEADER if c != "latency_us"]
BAD = {
    "no such file": (None, HEADER, ["absent.csv", "no such file"]),
    "no latency": ([LINEAR], NO_LATENCY, ["column is missing", "'latency_us'"]),
    "no dtype": ([LINEAR], [c for c in HEADER if c != "dtype"],
                 ["column is missing", "'dtype'"]),
    "no k": ([LINEAR], [c for c in HEADER if c != "k"],
             ["linear needs a column that is missing", "'k'", "m, n, k"]),
    "no rows": ([], HEADER, ["no measured operations"]),
    "another op": ([{**LINEAR, "op": "conv"}], HEADER, ["line 2", "'conv'", "linear"]),
    "another type": ([{**LINEAR, "dtype": "posit"}], HEADER, ["line 2", "'posit'", "bf16"]),
    "no time": ([{**LINEAR, "latency_us": ""}], HEADER, ["line 2", "latency_us"]),
    "negative": ([{**LINEAR, "latency_us": -3}], HEADER, ["line 2", "latency_us", "-3"]),
    "half a row": ([{**LINEAR, "m": 1.5}], HEADER, ["line 2", "m", "1.5"]),
    "too many units": ([{**LINEAR, "units": 500}], HEADER,
                       ["more compute units than the machine has", "500", "132"]),
}  # fmt: skip


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_one_line(cli, tmp_path, command, case, as_json):
    rows, header, words = BAD[case]
    file = tmp_path / "absent.csv" if rows is None else write(tmp_path, *rows, header=header)
    complaint(cli(*COMMANDS[command], file, *as_json), *words)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("content", "words"),
    [("", ["empty"]), ("a,b\n1,2\n", ["not JSON"]),
     ('[{"axis": "linear_shapes", "m": 1}]', ["row 1, n", "nothing"]),
     ('[{"axis": "linear_shapes"', ["some.json"])],
    ids=["empty", "another table", "a row that lacks", "cut"],
)  # fmt: skip
def test_a_file_of_something_else_is_one_line(cli, tmp_path, command, content, words):
    file = tmp_path / "some.json"
    file.write_text(content)
    complaint(cli(*COMMANDS[command], file), "some.json", *words)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_machine_or_measurement_of_no_such_name(cli, table, command):
    other = [a if a != "h200" else "h2000" for a in COMMANDS[command]]
    complaint(cli(*other, table), "h2000", "h200")
    complaint(cli(*COMMANDS[command], "nothing"), "nothing", "paddleocr_vl_decode")


@pytest.mark.parametrize(
    ("free", "words"),
    [
        (["floor.mat"], ["unknown parameter", "'floor.mat'", FLOOR]),
        (["nothing"], ["unknown parameter", "units.*"]),
        (["units.count"], ["takes whole numbers only"]),
        (["matrix.fp32.rate"], ["the machine does not have", "matrix.fp32.rate"]),
        ([FLOOR, FLOOR], ["given twice"]),
        (["floor.sort"], ["no measured time depends on what is to be fitted", "floor.sort"]),
    ],
    ids=" ".join,
)
def test_what_cannot_be_fitted_is_one_line(cli, table, free, words):
    chosen = [part for path in free for part in ("--free", path)]
    complaint(cli("calibrate", table, "--arch", "h200", *chosen, "-o", "mine.yaml"), *words)


def test_fewer_measurements_than_parameters(cli, tmp_path):
    one = write(tmp_path, LINEAR)
    chosen = ["--free", FLOOR, "--free", "gemm.start"]
    complaint(cli("calibrate", one, "--arch", "h200", *chosen, "-o", "mine.yaml"),
              "fewer measurements than parameters", "1", "2 or more")  # fmt: skip


def test_a_machine_goes_into_a_new_folder(cli, table):
    result = cli("calibrate", table, "--arch", "h200", "--free", FLOOR, "-o", "new/mine.yaml")
    assert result.exit_code == 0, result.stderr
    assert ns.load_arch("new/mine.yaml").calibration["free"] == 1


def test_a_place_that_cannot_be_written_is_one_line(cli, table):
    below = table / "mine.yaml"
    complaint(cli("calibrate", table, "--arch", "h200", "--free", FLOOR, "-o", below),
              "cannot be written", below)  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        ["validate"], ["validate", "a.csv"], ["validate", "a.csv", "b.csv", "--arch", "h200"],
        ["validate", "--arch", "h200"], ["calibrate", "a.csv", "--arch", "h200"],
        ["calibrate", "--arch", "h200", "-o", "mine.yaml"],
        ["calibrate", "a.csv", "-o", "mine.yaml"],
        ["calibrate", "a.csv", "--arch", "h200", "-o", "."],
    ],
    ids=" ".join,
)  # fmt: skip
def test_bad_usage_is_status_2(cli, command):
    result = cli(*command)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr
