"""The tutorial, the how-tos and what stands around them: all that they show is run."""

import gzip
import json
import os
import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

import npusim as ns
from npusim.cli import main
from npusim.errors import InputError
from npusim.parameters import PARAMETERS
from npusim.studies.bench import Bench
from npusim.workload_file import SCHEMA_VERSION, load_workload, save_workload
from tests.builder import workload
from tests.guide_pages import blocks, commands, files, missing, page
from tests.test_study_flips import test_a_change_of_an_input_turns_a_verdict as turns

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
WALKED = ("tutorial", "howto_arch", "howto_study")
REQUIRED_ISSUES = {
    "bug": {"command", "seen", "expected", "version", "system"},
    "wrong_figure": {"command", "predicted", "measured", "device", "software", "arch", "inspect"},
    "new_trace_format": {"tool", "refusal", "sample", "licence"},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with the trace of the tutorial, and one core to work on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    trace = gzip.decompress((DOCS / "tutorial" / "mine.json.gz").read_bytes())
    (tmp_path / "mine.json").write_bytes(trace)
    return tmp_path


@pytest.mark.parametrize("name", WALKED)
def test_every_command_of_a_page_prints_what_it_shows(name, folder):
    text = page(name)
    for file, content in files(text).items():
        (folder / file).write_text(content, encoding="utf-8")
    walked = commands(text)
    assert walked
    for command in walked:
        done = CliRunner().invoke(main, command.arguments)
        assert done.exit_code == 0, (command.arguments, done.output, done.exception)
        lost = missing(command.shown, done.output)
        assert lost is None, f"npusim {' '.join(command.arguments)}: no {lost!r} in\n{done.output}"


def test_what_is_shown_must_come_in_order():
    printed = "one  two\nthree: 4 µs\nfive"
    assert missing("one two\n...\nfive", printed) is None
    assert missing("", printed) is None
    assert missing("three: 5", printed) == "three: 5"
    assert missing("five\n...\none", printed) == "one"


def test_every_console_block_is_on_a_page_that_is_walked():
    assert not any(commands(page(name)) for name in ("howto_importer", "howto_model", "schema"))


def test_the_trace_of_the_tutorial_is_what_its_program_writes():
    program = next(b for b in blocks(page("tutorial"), "python") if b.startswith("# profile_small"))
    compile(program, "profile_small.py", "exec")
    assert 'export_chrome_trace("mine.json")' in program
    trace = json.loads(gzip.decompress((DOCS / "tutorial" / "mine.json.gz").read_bytes()))
    assert trace["traceName"] == "mine.json"
    marks = [e["name"] for e in trace["traceEvents"] if e.get("cat") == "user_annotation"]
    assert [m for m in marks if m.startswith("step#")] == ["step#0", "step#1", "step#2"]
    calls = [e for e in trace["traceEvents"] if e["name"] == "aten::scaled_dot_product_attention"]
    assert len(calls) == 3 * 4  # steps, layers
    assert calls[0]["args"]["Input Dims"][1] == [1, 8, 1025, 128]  # heads, past and one, head size


# ------------------------------------------------------------- a machine


@pytest.fixture
def l4(tmp_path):
    file = tmp_path / "l4.yaml"
    file.write_text(files(page("howto_arch"))["l4.yaml"], encoding="utf-8")
    return file


def test_the_machine_of_the_page_has_the_peaks_of_its_datasheet(l4):
    arch = ns.load_arch(l4)
    for dtype, peak in {"bf16": 121e12, "fp8": 242.5e12, "int8": 242.5e12}.items():
        rate = arch[f"matrix.{dtype}.rate"] * arch["units.count"] * arch["matrix.clock"]
        assert rate == pytest.approx(peak, rel=0.005)
    fp32 = arch["vector.fp32.rate"] * arch["units.count"] * arch["units.clock"]
    assert fp32 == pytest.approx(30.3e12, rel=0.005)
    assert f"the {sum(p.required for p in PARAMETERS.values())} required" in " ".join(
        page("howto_arch").split()
    )


@pytest.mark.parametrize("launch", ["eager", "graph", "queue"])
def test_a_machine_that_gives_what_is_required_replays_every_way(l4, launch):
    tree = yaml.safe_load(l4.read_text(encoding="utf-8"))
    bare = {"title": "bare"}
    for path in (p.path for p in PARAMETERS.values() if p.required):
        *groups, leaf = path.split(".")
        at, node = bare, tree
        for group in groups:
            at, node = at.setdefault(group, {}), node[group]
        at[leaf] = node[leaf]
    l4.write_text(yaml.safe_dump(bare), encoding="utf-8")
    step = ns.load_workload("paddleocr_vl_decode")
    assert ns.replay(step, ns.load_arch(l4), launch).wall_s > 0


# ------------------------------------------------------------- a study


def test_the_verdict_of_the_study_of_the_page_turns(tmp_path):
    file = tmp_path / "half_width.yaml"
    file.write_text(files(page("howto_study"))["half_width.yaml"], encoding="utf-8")
    with Bench(workers=1) as bench:
        turns(str(file), bench)


# ------------------------------------------------------------- versions of files


@pytest.fixture
def stored(tmp_path):
    """A workload file that says to be of some schema."""

    def write(schema):
        file = tmp_path / "w.parquet"
        save_workload(workload({}), file)
        table = pq.read_table(file)
        about = json.loads(table.schema.metadata[b"npusim.workload"]) | {"schema": schema}
        meta = {b"npusim.workload": json.dumps(about).encode()}
        pq.write_table(table.replace_schema_metadata(meta), file)
        return file

    return write


@pytest.mark.parametrize(
    ("schema", "told"),
    [(SCHEMA_VERSION + 1, "written by a newer npusim: 4 .*up to 3.*; update npusim, or import"),
     (0, "not a version of a workload: 0 .*damaged"), (True, "not a version of a workload: True"),
     ("3", "not a version of a workload: '3'"), (None, "not a version"), (2.0, "not a version")],
)  # fmt: skip
def test_a_workload_of_a_schema_that_is_not_read_is_refused_with_what_to_do(stored, schema, told):
    with pytest.raises(InputError, match=told):
        load_workload(stored(schema))


def test_the_page_of_versions_has_the_schema_of_the_code():
    text = page("schema")
    assert f"`schema`, now {SCHEMA_VERSION};" in text
    assert f"newer npusim: {SCHEMA_VERSION + 1} (allowed: up to {SCHEMA_VERSION})" in text


# ------------------------------------------------------------- forms and citation


def form(name):
    file = ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", REQUIRED_ISSUES)
def test_issue_forms_have_the_keys_that_github_wants(name):
    found = form(name)
    assert set(found) == {"name", "description", "title", "labels", "body"}
    assert all(isinstance(found[key], str) and found[key] for key in ("name", "description"))
    fields = [f for f in found["body"] if f["type"] != "markdown"]
    assert fields
    for field in found["body"]:
        assert field["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}
        assert set(field) <= {"type", "id", "attributes", "validations"}
        if field["type"] == "markdown":
            assert set(field["attributes"]) == {"value"}
            assert "id" not in field
            continue
        allowed = {"label", "description", "placeholder", "value"}
        allowed |= {"render"} if field["type"] == "textarea" else set()
        allowed |= {"options"} if field["type"] in ("dropdown", "checkboxes") else set()
        assert "label" in field["attributes"]
        assert set(field["attributes"]) <= allowed, field["id"]
        assert set(field.get("validations", {})) <= {"required"}
    for key in ("id", "label"):
        given = [f["id"] if key == "id" else f["attributes"][key] for f in fields]
        assert len(set(given)) == len(given)
    required = {f["id"] for f in fields if f.get("validations", {}).get("required")}
    assert required == REQUIRED_ISSUES[name]


def test_the_forms_are_all_there_is_and_the_chooser_is_as_github_reads_it():
    folder = ROOT / ".github" / "ISSUE_TEMPLATE"
    assert {f.stem for f in folder.iterdir()} == {*REQUIRED_ISSUES, "config"}
    found = form("config")
    assert set(found) <= {"blank_issues_enabled", "contact_links"}
    assert isinstance(found["blank_issues_enabled"], bool)


def test_the_citation_is_of_this_version():
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(found)  # what CFF 1.2.0 requires
    assert (found["cff-version"], found["type"], found["title"]) == ("1.2.0", "software", "npusim")
    assert (found["version"], found["license"]) == (project["version"], project["license"])
    assert found["authors"] == [{"name": "The npusim developers"}]  # an entity: no person is named
    assert set(found["keywords"]) <= set(project["keywords"])


def test_contributors_are_told_the_checks_that_run():
    told = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    run_by_ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    checks = ("ruff check .", "ruff format --check npusim tests benchmarks docs", "mypy",
              "lint-imports", "mkdocs build")  # fmt: skip
    for check in checks:
        assert f".venv/bin/{check}" in told
        assert f".venv/bin/{check}" in run_by_ci
    assert "pytest --hypothesis-profile=nightly" in told
