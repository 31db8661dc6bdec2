import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from npusim import catalog, units
from npusim.cli import main
from tests.kineto_builder import Trace, tensor

H200 = catalog.find("archs", "h200").read_text(encoding="utf-8")
AT = 1 + H200[: H200.index("value: 4.8 TB/s")].count("\n")  # line of the DRAM bandwidth
SWEEP = """
sweep:
  workloads: [paddleocr_vl_decode]
  launch: [graph, queue]
  axes:
    memories.dram.bandwidth: [2.4 TB/s, 4.8 TB/s]
    units.count: [66, 132]
  costs: [units.count]
"""


@pytest.fixture
def files(tmp_path):
    """Inputs, good and bad, away from the folder that commands run in."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    trace = Trace()
    with trace.step(), trace.op("aten::neg", tensor(4)):
        trace.kernel("elementwise")
    text = trace.text()
    empty = {**trace.about, "traceEvents": []}
    content = {
        "good.yaml": H200 + SWEEP,
        "unknown_key.yaml": H200.replace("    capacity: {value: 141", "    cpacity: {value: 141"),
        "wrong_unit.yaml": (H200 + SWEEP).replace("value: 4.8 TB/s", "value: 4.8 TB"),
        "negative.yaml": (H200 + SWEEP).replace("value: 4.8 TB/s", "value: -4.8 TB/s"),
        "not_yaml.yaml": "title: x\nunits: ]\n",
        "no_sweep.yaml": H200,
        "unmodelled.yaml": (H200 + SWEEP)
        .replace("units.count: [66, 132]", "area.die: [300 mm2, 900 mm2]")
        .replace("costs: [units.count]", "costs: [area.die]"),
        "good.json": text,
        "cut.json": text[: len(text) // 2],
        "not_json.json": "hello",
        "empty_trace.json": json.dumps(empty),
        "empty_file.json": "",
        "bad_time.json": text.replace('"dur": 3.0', '"dur": -3.0'),
        "other.csv": "a,b\n1,2\n",
        "not_parquet.parquet": "hello",
    }
    assert text.count('"dur": 3.0') == 1
    for name, body in content.items():
        (folder / name).write_text(body)
    whole = pq.read_table(catalog.find("workloads", "paddleocr_vl_decode"))
    at = whole.column_names.index("duration_s")
    seconds = pc.if_else(pc.equal(whole["duration_s"], whole["duration_s"][5]), float("nan"),
                         whole["duration_s"])  # fmt: skip
    pq.write_table(whole.set_column(at, "duration_s", seconds), folder / "nan.parquet")
    pq.write_table(pa.table({"a": [1]}), folder / "table.parquet")
    (folder / "same").mkdir()
    (folder / "same" / "good.json").write_text(text)
    return folder


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Run a command in an empty folder."""
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    monkeypatch.chdir(cwd)

    def run(*args):
        return CliRunner().invoke(main, [str(a) for a in args])

    return run


# A command that ends with a file in bad condition, that file, and what the one line must say.
BAD = [
    *(
        (command, file, words)
        for command in (
            ["replay", "paddleocr_vl_decode", "--arch"],
            ["archs"],
            ["sweep", "--no-figures"],
        )
        for file, words in [
            ("wrong_unit.yaml", [f"line {AT}, memories.dram.bandwidth.value", "wrong unit",
                                 "'4.8 TB'", "B/s"]),
            ("negative.yaml", [f"line {AT}, memories.dram.bandwidth.value", "out of bounds",
                               "-4.8", "1 MB/s"]),
            ("not_yaml.yaml", ["line 2", "not YAML"]),
            ("absent.yaml", ["no such file"]),
        ]
    ),
    *(
        (command, file, words)
        for command in (["import"], ["inspect"], ["workloads"], ["compare"],
                        ["replay", "--arch", "h200"],
                        ["sweep", "h200", "--no-figures", "--workload"],
                        ["sweep", "decode_npu", "--no-figures", "-w"])
        for file, words in [
            ("absent.json", ["no such file"]),
            ("empty_trace.json", ["no device operations", "traceEvents"]),
            ("empty_file.json", ["empty"]),
            ("cut.json", ["cut short", "no device operations"]),
            ("not_json.json", ["not JSON"]),
            ("bad_time.json", ["traceEvents[3].dur", "-3", "from 0"]),
            ("other.csv", ["not a supported trace", "Kineto"]),
            ("nan.parquet", ["row 5, duration_s", "nan", "a number of s from 0"]),
            ("not_parquet.parquet", ["not a workload"]),
            ("table.parquet", ["not a workload"]),
        ]
        if command[:2] != ["sweep", "h200"] and not (command == ["import"] and "parquet" in file)
    ),
    (["sweep", "--no-figures"], "no_sweep.yaml", ["no sweep block", "decode_npu"]),
    *((command, "nan.parquet", ["a workload, not a machine"])
      for command in (["replay", "paddleocr_vl_decode", "--arch"], ["archs"], ["area"])),
    *((command, "nan.parquet", ["a workload, not a machine or study; name a machine or study, and "
                                "give the workload with -w"])
      for command in (["sweep"], ["search"], ["sensitivity"])),
    *((command, "good.yaml", ["a machine or study, not a workload", "`npusim workloads`"])
      for command in (["inspect"], ["replay", "--arch", "h200"], ["sweep", "decode_npu", "-w"])),
    (["import"], "nan.parquet", ["row 5, duration_s", "nan"]),
    (["import", "--time-unit", "ns"], "good.json", ["the unit of time is fixed", "'ns'"]),
    (["import", "--time-unit", "ns"], "good.parquet", ["a workload's times are in seconds"]),
    (["diff", "paddleocr_vl_decode"], "cut.json", ["cut short"]),
]  # fmt: skip


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize(
    ("command", "file", "words"), BAD, ids=[" ".join([*c, f]) for c, f, _ in BAD]
)
def test_bad_input_is_one_line_and_nothing_written(cli, files, command, file, words, as_json):
    result = cli(*command, files / file, *(["--json"] if as_json else []))
    complaint(result, [str(files / file), *words])


def complaint(result, words, lines=1):
    """Check that a command complained, in so many lines, and did nothing else."""
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.exception is None or isinstance(result.exception, SystemExit)
    found = result.stderr.splitlines()
    assert len(found) == lines, found
    assert all(line.startswith("error: ") for line in found)
    for word in words:
        assert any(word in line for line in found), (word, found)
    assert os.listdir() == []  # noqa: PTH208


def test_several_mistakes_are_a_line_each(cli, files):
    result = cli("archs", files / "unknown_key.yaml")
    complaint(result, ["memories.dram.cpacity: unknown key: 'cpacity'",
                       "memories.dram.capacity: is missing"], lines=2)  # fmt: skip


SETTINGS = [
    ("area.die=400 mm2", ["--set", "area.die", "no cost model"]),
    ("units.count", ["--set", "not path=value", "units.count"]),
    ("units.cuont=4", ["--set", "unknown parameter", "units.count"]),
    ("memories.dram.bandwidth=4.8", ["--set memories.dram.bandwidth", "no unit", "B/s"]),
    ("memories.dram.bandwidth=4.8 KB/s", ["--set memories.dram.bandwidth", "KiB"]),
    ("memories.dram.bandwidth=-1 TB/s", ["--set memories.dram.bandwidth", "out of bounds", "-1"]),
]


@pytest.mark.parametrize(("setting", "words"), SETTINGS)
@pytest.mark.parametrize(
    "command", [["replay", "paddleocr_vl_decode", "--arch", "h200"], ["sweep", "decode_npu"]]
)
def test_settings_without_effect_are_refused(cli, command, setting, words):
    complaint(cli(*command, "--set", setting), words)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["replay", "paddleocr_vl_decode", "--arch", "h2000"], ["h2000", "h200"]),
        (["replay", "paddle", "--arch", "h200"], ["paddle", "paddleocr_vl_decode"]),
        (["archs", "h2000"], ["h2000", "decode_npu"]),
        (["workloads", "nothing"], ["nothing", "paddleocr_vl_decode"]),
        (["inspect", "nothing"], ["nothing", "paddleocr_vl_decode"]),
        (["sweep", "nothing"], ["nothing", "decode_npu"]),
        (["compare", "nothing"], ["nothing", "paddleocr_vl_decode"]),
        (["import", "nothing"], ["nothing", "no such file"]),
        (["inspect", "x" * 5000], ["not a path"]),
        (["inspect", "a\x00b"], ["no such workload"]),
        (["inspect", "a\nb"], ["no such workload"]),
        (["import", "a\nb.json"], ["no such file"]),
        (["import", "."], ["not a file"]),
        (["compare", "."], ["no results there"]),
        (["inspect", "decode_npu"], ["no such workload: 'decode_npu'",
                                     "; that is a machine, see `npusim archs decode_npu`"]),
        (["replay", "h100", "--arch", "h200"], ["that is a machine, see `npusim archs h100`"]),
        (["replay", "gemv_unit", "--arch", "h200"], ["that is a study, for `npusim sweep`"]),
        (["replay", "llama_3_1_8b", "--arch", "h200"],
         ["that is a model, of which `npusim template llama_3_1_8b` makes a workload"]),
        (["sweep", "paddleocr_vl_decode"], ["that is a workload, see `npusim workloads paddle"]),
        (["sweep", "decode_npu", "--set", "units.count=64"], ["--set units.count", "axis"]),
        (["sweep", "decode_npu", "-w", "paddleocr_vl_decode", "-w", "paddleocr_vl_decode"],
         ["two workloads of one name", "paddleocr_vl_decode"]),
    ],
)  # fmt: skip
def test_names_that_are_not_known(cli, command, words):
    complaint(cli(*command), words)


def test_an_axis_without_a_model_is_refused_by_name(cli, files):
    result = cli("sweep", files / "unmodelled.yaml", "--no-figures", "--json")
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("refused axis: area.die: no cost model")
    assert list(json.loads(result.stdout)["axes"]) == ["memories.dram.bandwidth"]


def test_one_bad_trace_among_good_ones_writes_nothing(cli, files):
    complaint(cli("import", files / "good.json", files / "cut.json"), ["cut.json"])
    complaint(cli("import", files / "good.json", files / "cut.json", "-o", "out.parquet"),
              ["cut.json"])  # fmt: skip
    complaint(cli("import", files / "good.json", files / "good.json", "-o", "out.parquet"),
              ["timeline", "npusim diff"])  # fmt: skip


def test_two_traces_of_one_name_do_not_overwrite_each_other(cli, files):
    complaint(cli("import", files / "good.json", files / "same" / "good.json"), ["good"])


@pytest.mark.parametrize("command", ["import", "sweep", "compare"])
def test_places_that_cannot_be_written(cli, files, command):
    below = files / "good.json" / "below"
    result = {
        "import": lambda: cli("import", files / "good.json", "-o", below / "w.parquet"),
        "sweep": lambda: cli("sweep", files / "good.yaml", "--no-figures", "-o", below),
        "compare": lambda: cli("compare", "paddleocr_vl_decode", "-o", below / "c.csv"),
    }[command]()
    complaint(result, ["cannot be written", str(below)])


@pytest.mark.parametrize(
    "command",
    [
        ["nonsense"],
        ["inspect"],
        ["inspect", "a", "b"],
        ["replay", "paddleocr_vl_decode"],
        ["replay", "paddleocr_vl_decode", "--arch", "h200", "--launch", "warp"],
        ["replay", "paddleocr_vl_decode", "--arch", "h200", "--mode", "guess"],
        ["import"],
        ["sweep"],
        ["compare"],
        ["archs", "--jsn"],
    ],
    ids=" ".join,
)
def test_bad_usage_is_status_2(cli, command):
    result = cli(*command)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr


# ---------------------------------------------------------------- --json


def one_object(result, keys):
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 1
    content = json.loads(result.stdout)
    assert isinstance(content, dict)
    assert keys <= set(content)
    return content


def test_inspect_json(cli):
    keys = {"kernels", "device_busy_s", "wall_s", "steps", "classified_busy_share", "kinds"}
    found = one_object(cli("inspect", "paddleocr_vl_decode", "--json"), keys)
    assert (found["kernels"], found["steps"]) == (3 * 782, 3)  # the whole capture
    assert sum(k["count"] for k in found["kinds"].values()) == 3 * 782
    seconds = sum(k["seconds"] for k in found["kinds"].values())
    assert seconds == pytest.approx(found["device_busy_s"])
    assert found["device_busy_s"] == pytest.approx(3 * 1.69e-3, rel=0.02)  # README: 1.69 ms a step
    assert 0.12 < found["wall_s"] < 0.18  # three eager steps of 44 ms and the profiler


@pytest.mark.parametrize("launch", ["eager", "graph", "queue"])
def test_replay_json(cli, launch):
    keys = {"wall_s", "device_busy_s", "host_busy_s", "launches", "band"}
    found = one_object(
        cli("replay", "paddleocr_vl_decode", "--arch", "h200", "--launch", launch, "--json"), keys
    )
    assert found["launches"] == 782  # a step
    assert 0 < found["device_busy_s"] <= found["wall_s"]
    low, high = found["band"]["wall_s"]
    assert low <= found["wall_s"] <= high


def test_launch_modes_are_ordered_as_measured(cli):
    walls = [
        json.loads(cli("replay", "paddleocr_vl_decode", "--arch", "h200", "--launch", launch,
                       "--json").stdout)["wall_s"]
        for launch in ("eager", "graph", "queue")
    ]  # fmt: skip
    assert walls == sorted(walls, reverse=True)
    assert walls[0] > 10 * walls[1] > 10 * walls[2]  # measured: 44 ms and 2.4 ms


def test_sweep_and_compare_json(cli, files, tmp_path):
    keys = {"designs", "seconds", "baseline", "best", "pareto"}
    command = ["sweep", files / "good.yaml", "--no-figures", "-o", tmp_path / "out", "--json"]
    found = one_object(cli(*command), keys)
    assert found["designs"] == 2 * 2 * 2
    assert found["best"]["wall_s"] > 0
    assert 1 <= found["pareto"]["size"] <= 8
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "results.parquet", "pareto.csv", "comparison.csv", "summary.json"}  # fmt: skip
    assert pq.read_metadata(tmp_path / "out" / "results.parquet").num_rows == 8
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == found
    compared = one_object(cli("compare", tmp_path / "out", "--json"), {"results"})
    assert compared["results"][0]["designs"] == 8
    traced = one_object(cli("compare", "paddleocr_vl_decode", "--json"), {"results"})
    assert compared["model"] == traced["model"] == found["made_by"]["model"]
    assert traced["results"][0]["arch"] == "h200"
    assert os.listdir() == []  # noqa: PTH208


def test_archs_and_workloads_json(cli):
    found = one_object(cli("archs", "--json"), {"archs"})
    assert [a["name"] for a in found["archs"]] == catalog.names("archs")
    h200 = one_object(cli("archs", "h200", "--json"), {"name"})
    assert "4800000000000" in json.dumps(h200)
    found = one_object(cli("workloads", "--json"), {"workloads"})
    assert [w["name"] for w in found["workloads"]] == catalog.names("workloads")
    shown = one_object(cli("workloads", "paddleocr_vl_decode", "--json"), {"kernels", "meta"})
    assert shown["meta"]["device"] == "NVIDIA H200"


def test_a_machine_is_shown_without_blanks_at_the_ends(cli):
    lines = cli("archs", "h100").stdout.splitlines()
    sources = [line for line in lines if line.startswith(" " * 29)]
    assert len(sources) > 200
    assert all(line == line.rstrip() for line in sources)


def test_what_only_other_commands_read_is_not_said_to_have_no_effect(cli):
    replayed = cli("replay", "paddleocr_vl_decode", "--arch", "h100", "--launch", "graph").stdout
    (line,) = [line for line in replayed.splitlines() if "area.die" in line]
    assert line == ("no effect here: area.die (npusim area puts its own die beside it), "
                    "launch.graph.repeat (npusim validate and calibrate read it)")  # fmt: skip
    shown = cli("archs", "h100").stdout
    assert "read by: no model (npusim area puts its own die beside it)\n" in shown


def test_import_json(cli, files):
    found = one_object(cli("import", files / "good.json", "--json"), {"workloads"})
    assert found["workloads"][0]["kernels"] == 1
    assert os.listdir() == ["good.parquet"]  # noqa: PTH208
    again = one_object(cli("inspect", "good.parquet", "--json"), {"kernels"})
    assert again["kernels"] == 1


# ---------------------------------------------------------------- as people run it


@pytest.mark.parametrize(
    ("command", "status", "start"),
    [
        (["inspect", "cut.json"], 1, "error: cut.json: traceEvents: no device operations, "),
        (["replay", "nan.parquet", "--arch", "h200"], 1, "error: nan.parquet: "),
        (["archs", "negative.yaml", "--json"], 1, f"error: negative.yaml: line {AT}, "),
        (["replay", "good.json"], 2, "Usage: "),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_no_traceback_from_a_process(files, root, command, status, start):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "npusim", *command],
        cwd=files, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.startswith(start)
    assert "Traceback" not in done.stderr
    assert status == 2 or len(done.stderr.splitlines()) == 1


def test_settings_that_change_nothing_are_named(cli):
    arguments = ("replay", "paddleocr_vl_decode", "--arch", "h200", "--launch", "graph", "--json",
                 "--set", "launch.eager.host=60 us", "--set", "host.sync=9 us")  # fmt: skip
    result = cli(*arguments)
    assert result.stderr == "note: changes nothing here: --set launch.eager.host\n"
    assert json.loads(result.stdout)["no_effect"] == ["launch.eager.host"]


def test_a_setting_given_twice_is_refused(cli):
    twice = ("--set", "host.sync=1 us", "--set", "host.sync=2 us")
    complaint(cli("replay", "paddleocr_vl_decode", "--arch", "h200", *twice), ["given twice"])


def test_output_that_cannot_be_printed_is_one_line(root):
    command = [sys.executable, "-m", "npusim", "archs"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=root, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "error: output: cannot be written: No space left on device\n"


@pytest.mark.parametrize("columns", ["40", "60", "300"])
def test_numbers_are_never_cut_to_fit_a_terminal(cli, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    shown = cli("replay", "paddleocr_vl_decode", "--arch", "h200", "--launch", "graph").stdout
    told = json.loads(cli("replay", "paddleocr_vl_decode", "--arch", "h200", "--launch", "graph",
                          "--json").stdout)  # fmt: skip
    for seconds in (told["wall_s"], told["device_busy_s"], *told["band"]["wall_s"]):
        assert units.show(seconds, "s") in shown
    assert "deepseek_ocr_decode_grouped_b16" in cli("workloads").stdout
