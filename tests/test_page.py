"""A whole page: its steps, what a reader waits for, and the commands that make and replay it."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import npusim as ns
from npusim.cli import main
from npusim.errors import InputError
from npusim.page import page_times
from npusim.predict import replay
from npusim.templates import template
from npusim.tokens import page_parts
from npusim.transforms import only_steps

LAUNCHES = ("eager", "graph", "queue")
SMALL = {"decoder.layers": 2, "vision.tower.layers": 2}  # of which a page is as long
NGRAM = (8e-6, 0.55e-6)  # of hf-remote: of a step, and a token of each sequence [s]


@pytest.fixture(scope="module")
def h200():
    return ns.load_arch("h200")


@pytest.fixture(scope="module")
def remote():
    """DeepSeek-OCR as its own code runs it: 913 tokens in, 64 out, n-grams of 20."""
    return template("deepseek_ocr", "page", lowering="hf-remote")


@pytest.fixture(scope="module")
def paddle():
    """PaddleOCR-VL with fewer layers: 628 tokens in, 165 out."""
    return template("paddleocr_vl", "page", lowering="npu", settings=SMALL)


@pytest.fixture(scope="module")
def replayed(h200, paddle):
    """Return the page as it is replayed in a launch mode, and each of its steps by itself."""

    @cache
    def both(launch):
        steps = [replay(only_steps(paddle, [i]), h200, launch) for i in range(len(paddle.steps))]
        return page_times(paddle, h200, launch), steps

    return both


def times(page, name):
    return [p["times"] for p in page_parts(page) if p["name"] == name]


def without(page):
    """Return the page with nothing to do after its steps."""
    steps = type(page.steps)(page.steps.wall_s, np.zeros(len(page.steps)))
    return type(page)(page.name, page.columns, page.labels, steps, meta=page.meta)


# ---------------------------------------------------------------- steps


def test_decode_steps_are_one_less_than_tokens(remote, paddle):
    assert times(remote, "vision") == [1, 1]  # parts, and the whole
    assert times(paddle, "vision") == [1]
    assert times(remote, "prefill") == times(paddle, "prefill") == [1]
    assert sum(times(remote, "decode")) == 63 and sum(times(paddle, "decode")) == 164
    assert len(times(remote, "decode")) == 8


@pytest.mark.parametrize("new", [1, 2, 3, 9, 10, 1000])
def test_groups_of_decode_steps_stand_for_all(new):
    page = template("paddleocr_vl", "page", lowering="npu",
                    settings={"page.new": new, **SMALL})  # fmt: skip
    many = times(page, "decode")
    assert sum(many) == new - 1 and len(many) == min(8, new - 1)
    keys = [page["n"][page.mask("kind", "attention") & (page["step"] == 2 + i)][0]
            for i in range(len(many))]  # fmt: skip
    # keys of the steps: 629, 630 ... 628 + new - 1; a group's mean is in the middle of it, or half
    # a token before
    mean = np.dot(many, keys) / max(sum(many), 1)
    assert new == 1 or 0 <= 628 + new / 2 - mean <= 0.5


def test_an_answer_of_one_token_has_no_decode(h200):
    page = template("paddleocr_vl", "page", lowering="npu", settings={"page.new": 1, **SMALL})
    found = page_times(page, h200)
    assert [p.name for p in found.parts] == ["vision", "prefill"]
    assert found.tpot_s == 0 and found.page_s == found.ttft_s
    assert found.tokens_per_s == pytest.approx(1 / found.page_s)


def test_pages_are_read_together(h200, paddle, replayed):
    four = template("paddleocr_vl", "page", batch=4, lowering="npu", settings=SMALL)
    one, many = replayed("graph")[0], page_times(four, h200, "graph")
    assert one.page_s < many.page_s < 4 * one.page_s
    assert many.tokens_per_s == pytest.approx(4 * 165 / many.page_s)
    decode = four["step"] == 5
    assert set(four["batch"][four.mask("kind", "attention") & decode]) == {4}
    images = [w["flop"][w["step"] == 0].sum() for w in (paddle, four)]
    assert images[1] == pytest.approx(4 * images[0])


# ---------------------------------------------------------------- times


@pytest.mark.parametrize("launch", LAUNCHES)
def test_a_page_is_the_sum_of_its_steps(replayed, paddle, launch):
    found, steps = replayed(launch)
    many = [p["times"] for p in page_parts(paddle)]
    walls = np.array([s.wall_s for s in steps])
    assert found.page_s == pytest.approx(np.dot(many, walls))
    assert found.ttft_s == pytest.approx(walls[0] + walls[1])
    assert found.tpot_s == pytest.approx(np.dot(many[2:], walls[2:]) / 164)
    assert found.page_s == pytest.approx(found.ttft_s + 164 * found.tpot_s)
    assert sum(p.wall_s for p in found.parts) == pytest.approx(found.page_s)
    assert sum(p.steps for p in found.parts) == 166
    assert found.tokens_per_s == pytest.approx(165 / found.page_s)
    assert found.band_s[0] <= found.page_s <= found.band_s[1]


def test_the_mean_step_counts_each_as_often_as_it_is_done(replayed, paddle):
    found, steps = replayed("eager")
    step, many = found.step, 166
    assert step.wall_s == pytest.approx(found.page_s / many)
    assert step.launches == pytest.approx(sum(p.launches for p in found.parts) / many)
    assert step.host_busy_s + step.host_wait_s == pytest.approx(step.wall_s)
    assert step.device_busy_s / step.wall_s == pytest.approx(found.device_busy_share)
    assert sum(step.limits.values()) == pytest.approx(1)
    dram = sum(step.traffic["dram"].values())
    parts = [sum(one.traffic["dram"].values()) for one in steps]
    weights = [p["times"] for p in page_parts(paddle)]
    assert dram == pytest.approx(np.dot(weights, parts) / many)


# ---------------------------------------------------------------- what the host does between


def test_n_grams_are_looked_up_after_every_step(remote):
    """After the prefill among the prompt, after a decode step among a token more each."""
    tails = remote.steps.tail_s
    assert tails[:2].tolist() == [0, 0]
    assert tails[2] == pytest.approx(NGRAM[0] + 913 * NGRAM[1])
    many = times(remote, "decode")
    tokens = (tails[3:] - NGRAM[0]) / NGRAM[1]
    assert (tokens >= 914).all() and (tokens <= 913 + 63).all()
    # 914, 915 ... 976 have the mean 945
    assert np.dot(many, tokens) / 63 == pytest.approx(945, abs=0.5)


@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("speed", [1.0, 0.5])
def test_that_is_part_of_the_wall_in_every_launch_mode(h200, remote, launch, speed):
    arch = ns.with_value(h200, "host.speed", speed)
    idle = without(remote)
    for step in (2, 6):  # the prefill, a decode step
        walls = [ns.replay(only_steps(w, [step]), arch, launch) for w in (remote, idle)]
        more = remote.steps.tail_s[step] / speed
        assert walls[0].wall_s - walls[1].wall_s == pytest.approx(more)
        assert walls[0].host_busy_s - walls[1].host_busy_s == pytest.approx(more)
        assert walls[0].device_busy_s == walls[1].device_busy_s


def test_each_page_of_a_batch_is_looked_through():
    two = template("deepseek_ocr", "page", batch=2, lowering="hf-remote",
                   settings={"decoder.layers": 2, "page.new": 2})  # fmt: skip
    assert two.steps.tail_s[2] == pytest.approx(NGRAM[0] + 2 * 913 * NGRAM[1])


def test_a_page_that_repeats_what_it_likes_has_nothing_to_look_up():
    w = template("deepseek_ocr", "page", lowering="hf-remote",
                 settings={"page.ngram": 0, "decoder.layers": 2, "page.new": 2})  # fmt: skip
    assert not w.steps.tail_s.any()


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(("model", "changes", "said"), [
    ("deepseek_ocr", {"page.prompt": 902}, "page.prompt: fewer tokens than its images have: 902"),
    ("paddleocr_vl", {"page.prompt": 597}, "page.prompt: fewer tokens than its images have: 597"),
    ("llama_3_1_8b", {}, "page: says nothing of a page: 'Llama-3.1-8B'"),
    ("deepseek_ocr", {"page": None}, "page: says nothing of a page"),
    ("deepseek_ocr", {"vision": None}, "vision: has no vision encoder: 'DeepSeek-OCR'"),
    ("deepseek_ocr", {"page.new": 0}, "page.new"),
    ("deepseek_ocr", {"page.image": [1024]}, "page.image"),
    ("deepseek_ocr", {"page.columns": 2000}, "columns, rows: not a number of parts"),
    ("deepseek_ocr", {"page.crop": [600, 640]}, "image: patches do not fit: '600 x 640'"),
])  # fmt: skip
def test_pages_that_cannot_be(model, changes, said):
    with pytest.raises(InputError) as error:
        template(model, "page", settings=changes)
    assert said in str(error.value)


def test_a_prompt_may_be_its_images_alone():
    settings = {**SMALL, "page.new": 1, "page.prompt": 598}
    assert template("paddleocr_vl", "page", settings=settings).meta["page"]["prompt"] == 598


def test_what_is_no_page(h200):
    w = ns.load_workload("paddleocr_vl_decode")
    with pytest.raises(InputError, match=r"is not a page.*npusim template MODEL --phase page"):
        page_times(w, h200)


# ---------------------------------------------------------------- commands


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A page and decode steps, made by the command."""
    folder = tmp_path_factory.mktemp("made")
    small = [x for path, value in SMALL.items() for x in ("--set", f"{path}={value}")]
    for name, asked in (("page", ["page"]), ("decode", ["decode", "--steps", "2"])):
        made = CliRunner().invoke(main, ["template", "paddleocr_vl", "--phase", *asked, *small,
                                         "-o", str(folder / f"{name}.parquet")])  # fmt: skip
        assert made.exit_code == 0, made.output
    return folder


@pytest.fixture
def cli(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*args):
        names = {"PAGE": files / "page.parquet", "DECODE": files / "decode.parquet"}
        return CliRunner().invoke(main, [str(names.get(a, a)) for a in args])

    return run


def test_a_page_is_replayed_from_its_file(cli, h200):
    result = cli("replay", "PAGE", "--arch", "h200", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    found = page_times(template("paddleocr_vl", "page", settings=SMALL), h200)
    for name in ("page_s", "ttft_s", "tpot_s", "tokens_per_s", "device_busy_share"):
        assert told["page"][name] == pytest.approx(getattr(found, name))
    assert [p["name"] for p in told["page"]["parts"]] == ["vision", "prefill", "decode"]
    assert told["wall_s"] == pytest.approx(found.step.wall_s)
    assert "step" not in told["page"]


def test_a_page_is_printed(cli):
    out = cli("replay", "PAGE", "--arch", "h200").stdout
    for said in ("the page", "vision", "prefill", "decode", "TTFT", "TPOT", "tokens/s"):
        assert said in out


def test_settings_change_a_page(cli):
    slow, fast = (
        json.loads(cli("replay", "PAGE", "--arch", "h200", "--set", s, "--json").stdout)["page"]
        for s in ("host.speed=0.5", "host.speed=1")
    )
    assert 1.8 < slow["tpot_s"] / fast["tpot_s"] <= 2.01
    narrow = cli("replay", "PAGE", "--arch", "h200", "--launch", "graph", "--set",
                 "workload.weight_bits=8", "--json")  # fmt: skip
    assert narrow.exit_code == 0 and "page" in json.loads(narrow.stdout)


@pytest.mark.parametrize(("args", "said"), [
    (["replay", "PAGE", "--mode", "transfer"], "nothing to transfer"),
    (["replay", "PAGE", "--unprofiled"], "no host was measured"),
    (["replay", "PAGE", "--set", "workload.batch=4"], "workload.batch: has phases beside decode"),
    (["replay", "PAGE", "--set", "page.new=4"], "page.new"),
    (["replay", "PAGE", "--set", "workload.nothing=4"], "workload.nothing"),
    (["replay", "DECODE", "--mode", "transfer"], "nothing to transfer"),
])  # fmt: skip
def test_what_a_page_cannot_do_is_said_in_a_line(cli, args, said):
    result = cli(*args, "--arch", "h200")
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and said in line


@pytest.mark.parametrize("which", ["PAGE", "DECODE"])
def test_a_timeline_has_every_kernel_once(cli, files, which):
    result = cli("replay", which, "--arch", "h200", "--timeline", "t.json", "--json")
    assert result.exit_code == 0, result.output
    events = json.loads(Path("t.json").read_text())["traceEvents"]
    w = ns.load_workload(files / f"{which.lower()}.parquet")
    assert sum(e.get("ph") == "X" for e in events) >= len(w)
    assert all(e["dur"] >= 0 for e in events if e.get("ph") == "X")


@pytest.mark.parametrize("args", [
    ["inspect", "PAGE"], ["inspect", "DECODE", "--json"], ["inspect", "DECODE", "--report", "r"],
    ["diff", "DECODE", "PAGE"], ["diff", "paddleocr_vl_decode", "DECODE", "--json"],
    ["reuse", "DECODE"], ["reuse", "PAGE", "--json"],
    ["sweep", "bandwidth", "-w", "PAGE", "--launch", "graph", "--no-figures", "--json"],
    ["sweep", "bandwidth", "-w", "DECODE", "--launch", "graph", "--no-figures"],
    ["rescale", "DECODE", "--batch", "4", "-o", "r.parquet"],
])  # fmt: skip
def test_other_commands_read_what_a_template_made(cli, args):
    result = cli(*args)
    assert result.exit_code == 0, result.output
    if "--json" in args:
        json.loads(result.stdout)
