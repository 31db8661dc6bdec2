"""``npusim serve-sim``: what it prints and writes, its JSON, and bad input."""

import json
import os

import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure

from npusim import catalog, serving_output
from npusim.cli import main

STUDY = """title: Tiny
question: How long?
source: made for a test
arch: h200
serving:
  model: paddleocr_vl
  engine: {max_num_seqs: 4, max_num_batched_tokens: 8, max_model_len: 128, kv_blocks: 32}
  requests: {arrivals: poisson, rate_per_s: 100, count: 6, prompt: 20, output: 8}
  limits: {ttft: 1 s}
"""
AXES = "  axes: {link.bandwidth: [64 GB/s, 900 GB/s]}\n  prefill: {engines: 1}\n"
WAIT = {"mean_s", "p50_s", "p95_s", "p99_s", "most_s"}
FIGURES = {
    "arrived", "answered", "in_flight", "rejected", "stops", "seconds", "steps", "ttft", "tpot",
    "latency", "requests_per_s", "tokens_per_s", "goodput_per_s", "utilisation", "in_system",
    "cached_share", "kv_blocks", "kv_blocks_most",
}  # fmt: skip


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Run a command in an empty folder."""
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    return lambda *args: CliRunner().invoke(main, [str(a) for a in args])


@pytest.fixture
def study(tmp_path):
    def made(text=STUDY):
        file = tmp_path / "tiny.yaml"
        file.write_text(text)
        return file

    return made


def complaint(done, *words):
    """Check that a command complained in one line and did nothing else."""
    assert (done.exit_code, done.stdout) == (1, "")
    assert isinstance(done.exception, SystemExit)  # no traceback
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert os.listdir() == []  # noqa: PTH208
    return line


def test_json_is_one_object_with_its_fields(cli, study):
    done = cli("serve-sim", study(), "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    content = json.loads(line)
    assert set(content) == {"study", "title", "question", "source", "runs", "notes", "command"}
    assert (content["study"], content["title"]) == ("tiny", "Tiny")
    (run,) = content["runs"]
    assert set(run) == FIGURES | {"axes", "band", "energy_j", "j_per_token"}
    assert set(run["band"]) == {"low", "high"}
    assert set(run["band"]["low"]) == FIGURES
    assert set(run["ttft"]) == set(run["band"]["high"]["tpot"]) == WAIT
    assert run["arrived"] == run["answered"] == 6
    assert run["tokens_per_s"] == pytest.approx(6 * 8 / run["seconds"])
    assert run["goodput_per_s"] == run["requests_per_s"]  # nobody waits a second
    assert os.listdir() == []  # noqa: PTH208


def test_no_band_is_the_same_middle(cli, study):
    with_band = json.loads(cli("serve-sim", study(), "--json").stdout)["runs"][0]
    done = cli("serve-sim", study(), "--json", "--no-band")
    content = json.loads(done.stdout)
    assert "no band asked for" in content["notes"]
    assert content["runs"][0] == {k: v for k, v in with_band.items() if k != "band"}


def test_what_it_prints_of_one_run(cli, study):
    done = cli("serve-sim", study())
    assert (done.exit_code, done.stderr) == (0, "")
    title, *lines = done.stdout.splitlines()
    assert title == "Tiny"
    assert [line.split()[0] for line in lines if "band" not in line][1:4] == [
        "TTFT", "TPOT", "latency"]  # fmt: skip
    assert sum(line.strip().startswith("band") for line in lines) == 3
    assert any("6 of 6 requests answered, 0 in flight, 0 rejected" in line for line in lines)


def test_it_writes_all_that_it_says(cli, study, tmp_path):
    out = tmp_path / "out"
    done = cli("serve-sim", study(STUDY + AXES), "-o", out, "--no-band")
    assert done.exit_code == 0
    files = {"summary.json", "requests.parquet", "run_0.png", "run_1.png", "by_link_bandwidth.png"}
    assert {p.name for p in out.iterdir()} == files
    assert all(name in done.stdout for name in files)
    assert "64 GB/s" in done.stdout
    content = json.loads((out / "summary.json").read_text())
    assert [run["axes"]["link.bandwidth"] for run in content["runs"]] == [64e9, 900e9]
    rows = pd.read_parquet(out / "requests.parquet")
    assert len(rows) == 12
    assert set(rows["axis.link.bandwidth"]) == {64e9, 900e9}
    assert (rows["last_token_s"] > rows["first_token_s"]).all()
    assert (rows["first_token_s"] > rows["sent_s"]).all()
    for run, (_, of_run) in zip(content["runs"], rows.groupby("axis.link.bandwidth"), strict=True):
        mean = (of_run["first_token_s"] - of_run["sent_s"]).mean()
        assert mean == pytest.approx(run["ttft"]["mean_s"])
    for name in files:
        if name.endswith(".png"):
            assert (out / name).read_bytes().startswith(b"\x89PNG")
    # the same folder again, for less: figures of runs that are no more go, others' files stay
    (out / "mine.txt").write_text("mine")
    assert cli("serve-sim", study(), "-o", out, "--no-band").exit_code == 0
    assert not (out / "run_1.png").exists()
    assert (out / "mine.txt").exists()
    assert cli("serve-sim", study(), "-o", out, "--no-band", "--no-figures").exit_code == 0
    assert not (out / "run_0.png").exists()


def test_files_are_written_whole_or_not_at_all(cli, study, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    done = cli("serve-sim", study(), "-o", out, "--no-band")
    complaint(done, "cannot be written: No space left on device")
    assert list(out.iterdir()) == []


def test_a_run_that_ends_before_anything_is_answered(cli, study, tmp_path):
    out = tmp_path / "out"
    done = cli("serve-sim", study(STUDY + "  until: 1 us\n"), "-o", out)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "0 of 0 requests answered" in done.stdout
    assert {p.name for p in out.iterdir()} == set(serving_output.FILES)
    many = "  until: 20 ms\n  axes: {engines: [1, 2]}\n"
    done = cli("serve-sim", study(STUDY + many), "-o", out, "--no-band")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "in flight when a run was ended" in done.stdout


def test_answers_of_one_token_have_no_time_per_token(cli, study, tmp_path):
    one = STUDY.replace("output: 8", "output: 1")
    done = cli("serve-sim", study(one), "-o", tmp_path / "out")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "TTFT" in done.stdout
    assert "TPOT" not in done.stdout


def test_settings_change_the_machine(cli, study):
    def mean(*more):
        done = cli("serve-sim", study(), "--json", "--no-band", *more)
        assert done.exit_code == 0
        return json.loads(done.stdout)["runs"][0]["tpot"]["mean_s"]

    slow = mean("--set", "memories.dram.bandwidth=1 TB/s")
    assert slow > 1.2 * mean()
    # the last word is the command line's
    text = STUDY + "  set: {memories.dram.bandwidth: 2 TB/s}\n"
    study(text)
    assert mean("--set", "memories.dram.bandwidth=1 TB/s") == slow


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("units.count", "--set: not path=value"),
        ("units.cuont=4", "--set: unknown parameter: 'units.cuont'"),
        ("engine.max_num_seqs=4", "--set: unknown parameter"),
        ("memories.dram.bandwidth=3", "--set memories.dram.bandwidth: has no unit"),
        ("memories.dram.bandwidth=-3 TB/s", "out of bounds: -3 TB/s"),
        ("area.die=400 mm2", "area.die: no cost model"),
        ("workload.batch=4", "cannot be changed for every step"),
        ("link.bandwidth=64 GB/s", "--set: is an axis of the study: 'link.bandwidth'"),
    ],
)
def test_bad_settings(cli, study, setting, message):
    complaint(cli("serve-sim", study(STUDY + AXES), "--set", setting), message)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nope"], ["no such serving study: 'nope'", *catalog.names("serving")]),
        (["nope.yaml"], ["nope.yaml: no such file"]),
        (["decode_npu"], ["no such serving study"]),  # one that is swept
        ([catalog.find("archs", "h200")], ["h200.yaml: no serving block"]),
        ([catalog.find("studies", catalog.names("studies")[0])],
         ["no serving block; it has a sweep block: npusim sweep answers it"]),
        ([catalog.folder("studies")], ["not a file"]),
    ],
)  # fmt: skip
def test_studies_that_are_none(cli, args, words):
    complaint(cli("serve-sim", *args), *words)


def test_a_serving_study_given_to_sweep(cli):
    done = cli("sweep", catalog.find("serving", "context_length"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert all(line.startswith("error: ") for line in done.stderr.splitlines())
    assert "sweep" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_num_batched_tokens: 8", "max_num_batched_tokens: 2", "--max-num-batched-tokens"),
        ("kv_blocks: 32", "kv_blocks: 3", "--max-model-len"),
        ("rate_per_s: 100, ", "", "line 8, serving.requests: poisson needs rate_per_s"),
        ("h200", "metax_c500", "link.bandwidth"),
        ("poisson, rate_per_s: 100, count: 6, prompt: 20, output: 8", "file, file: none.jsonl",
         "none.jsonl: no such file"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("as_json", [False, True])
def test_bad_studies_are_one_line(cli, study, old, new, message, as_json):
    text = (STUDY + "  prefill: {engines: 1}\n").replace(old, new)
    complaint(cli("serve-sim", study(text), *(["--json"] if as_json else [])), message)


def test_several_mistakes_are_a_line_each(cli, study):
    done = cli("serve-sim", study(STUDY.replace("seqs: 4", "seqs: a").replace("count:", "cont:")))
    assert done.exit_code == 1
    first, second = done.stderr.splitlines()
    assert "line 7, serving.engine.max_num_seqs: not a whole number: 'a'" in first
    assert "line 8, serving.requests.cont: unknown key: 'cont'" in second


def test_output_that_cannot_be_written(cli, study):
    line = complaint(cli("serve-sim", study(), "-o", "/dev/null/x"), "cannot be written")
    assert "/dev/null/x" in line


def test_a_log_beside_the_run(cli, study, tmp_path):
    (tmp_path / "log.csv").write_text(
        "arrival_s,prompt,output,first_token_s,last_token_s\n0,20,8,0.1,0.8\n5,30,6,5.1,5.6\n"
    )
    asked = "poisson, rate_per_s: 100, count: 6, prompt: 20, output: 8"
    done = cli("serve-sim", study(STUDY.replace(asked, "file, file: log.csv")), "-o",
               tmp_path / "out")  # fmt: skip
    assert (done.exit_code, done.stderr) == (0, "")
    assert sum(line.strip().startswith("measured") for line in done.stdout.splitlines()) == 3
    assert sum(line.strip().startswith("off") for line in done.stdout.splitlines()) == 3
    content = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert set(content["runs"][0]["measured"]) == {"ttft", "tpot", "latency"}
    assert content["runs"][0]["measured"]["ttft"]["mean_s"] == pytest.approx(0.1)
