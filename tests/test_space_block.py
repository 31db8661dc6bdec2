"""What a sweep block may say of its space, and what it is told where it cannot be."""

import re

import pytest
from click.testing import CliRunner

from npusim import job
from npusim.axes import Axis, Condition, Samples
from npusim.cli import main
from npusim.config import read_study
from npusim.errors import InputError, InputErrors

HEAD = """title: Try
question: What of it?
source: made for a test
arch: decode_npu
sweep:
  workloads: [paddleocr_vl_decode]
  launch: [graph, queue]
"""
AXES = """  axes:
    gemv.count: [0, 70]
    gemv.width: {values: [32 B/clock, 64 B/clock], when: {gemv.count: {least: 1}}}
    gemv.lanes: {values: [64, 128], when: {gemv.width: [64 B/clock], launch: queue}}
    memories.dram.bandwidth: {start: 1 TB/s, stop: 4 TB/s, steps: 3, scale: log,
                              when: {gemv.count: {least: 1, most: 70}}}
    units.clock: {start: 1 GHz, stop: 1.5 GHz}
"""
WIDTH = "  axes:\n    gemv.count: [0, 70]\n    gemv.width: "


@pytest.fixture
def write(tmp_path):
    def to_file(text):
        file = tmp_path / "study.yaml"
        file.write_text(text)
        return file

    return to_file


def test_axes_are_read_with_ranges_and_conditions(write):
    sweep = read_study(write(HEAD + AXES + "  samples: {count: 64, method: lhs, seed: 7}\n")).sweep
    unit = {"gemv.count": Condition(least=1.0)}
    assert sweep.given == {
        "gemv.count": Axis((0.0, 70.0)),
        "gemv.width": Axis((32.0, 64.0), when=unit),
        "gemv.lanes": Axis((64.0, 128.0), when={"gemv.width": Condition((64.0,)),
                                                "launch": Condition(("queue",))}),
        "memories.dram.bandwidth": Axis((1e12, 2e12, 4e12), "log",
                                        when={"gemv.count": Condition((), 1.0, 70.0)}),
        "units.clock": Axis((1e9, 1.5e9), "linear", steps=False),
    }  # fmt: skip
    assert sweep.samples == Samples(64, "lhs", 7)
    assert sweep.axes["gemv.lanes"] == (64.0, 128.0)


def test_the_count_of_a_space_is_known_before_it_runs(write):
    text = HEAD + AXES.replace("{start: 1 GHz, stop: 1.5 GHz}", "[1 GHz, 1.5 GHz]")
    asked = job.read_job(str(write(text)), [], [], {})
    # by launch mode: no unit 1; unit 2 widths x 3 bandwidths, of the wider one in a queue 2 lanes
    assert len(asked.space) == 2 * ((1 + 2 * 3) + (1 + 3 + 3 * 2))


def test_a_range_without_steps_is_for_samples(write):
    file = str(write(HEAD + AXES))
    with pytest.raises(InputError, match=r"study.yaml: units.clock: a range without steps .*draw"):
        job.read_job(file, [], [], {})
    asked = job.read_job(file, [], [], {}, samples=Samples(32, seed=1))
    clocks = {c for p in asked.space.parts for c in p.designs(0, len(p))["units.clock"]}
    assert len(clocks) == 32
    assert all(1e9 <= clock <= 1.5e9 for clock in clocks)


def test_steps_of_a_range_of_whole_numbers_are_whole(write):
    axes = "  axes:\n    units.count: {start: 8, stop: 128, steps: 5, scale: log}\n"
    assert read_study(write(HEAD + axes)).sweep.axes["units.count"] == (8, 16, 32, 64, 128)


def test_a_study_puts_machines_side_by_side(write):
    text = HEAD.replace("decode_npu", "[h200, decode_npu]") + "  axes:\n    gemv.count: [0, 70]\n"
    asked = job.read_job(str(write(text)), [], [], {})
    assert [(p.arch.name, len(p)) for p in asked.space.parts] == [
        ("h200", 1), ("h200", 1), ("decode_npu", 2), ("decode_npu", 2)]  # fmt: skip
    assert asked.arch.name == "h200"


def test_a_condition_may_name_a_machine(write):
    text = HEAD.replace("decode_npu", "[h200, decode_npu]") + (
        "  axes:\n    host.sync: {values: [1 us, 2 us], when: {arch: decode_npu}}\n"
    )
    asked = job.read_job(str(write(text)), [], ["queue"], {})
    assert [len(p) for p in asked.space.parts] == [1, 2]


def test_weights_are_any_number_above_zero(write):
    mixed = HEAD.replace(
        "[paddleocr_vl_decode]", "{paddleocr_vl_decode: 0.7, paddleocr_vl_decode_b8: 0.3}"
    )
    asked = job.read_job(str(write(mixed + "  axes:\n    host.sync: [1 us]\n")), [], [], {})
    assert asked.counts == (0.7, 0.3)


BAD = [
    (WIDTH + "{values: [32 B/clock], when: {gemv.count: 35}}", "axes.gemv.width.when.gemv.count",
     ["never holds", "gemv.count from 0 to 70"]),
    (WIDTH + "{values: [32 B/clock], when: {gemv.cuont: 70}}", "axes.gemv.width.when.gemv.cuont",
     ["unknown parameter", "gemv.count"]),
    (WIDTH + "{values: [32 B/clock], when: {gemv.lanes: 64}}", "axes.gemv.width.when.gemv.lanes",
     ["no axis of this sweep", "'gemv.lanes'", "launch, arch, gemv.count"]),
    (WIDTH + "{values: [32 B/clock], when: {gemv.width: 32 B/clock}}",
     "axes.gemv.width.when.gemv.width", ["hangs on itself", "gemv.width -> gemv.width"]),
    (WIDTH + "{values: [32 B/clock], when: {gemv.count: {leest: 1}}}",
     "axes.gemv.width.when.gemv.count", ["not a condition: 'leest'", "least, most"]),
    (WIDTH + "{values: [32 B/clock], when: {gemv.count: {}}}",
     "axes.gemv.width.when.gemv.count", ["asks for nothing"]),
    (WIDTH + "{values: [32 B/clock], when: {gemv.count: []}}",
     "axes.gemv.width.when.gemv.count", ["asks for nothing"]),
    (WIDTH + "{values: [32 B/clock], when: {}}", "axes.gemv.width.when", ["asks for nothing"]),
    (WIDTH + "{values: [32 B/clock], when: [gemv.count]}", "axes.gemv.width.when",
     ["not a mapping"]),
    (WIDTH + "{values: [32 B/clock], when: {gemv.count: true}}",
     "axes.gemv.width.when.gemv.count", ["not a quantity: True"]),
    (WIDTH + "{values: [32 B/clock], when: {gemv.count: 70 W}}",
     "axes.gemv.width.when.gemv.count", ["wrong unit", "70 W"]),
    (WIDTH + "{values: [32 B/clock], when: {gemv.count: {least: 3, most: 2}}}",
     "axes.gemv.width.when.gemv.count", ["least is above most", "3 to 2"]),
    (WIDTH + "{values: [32 B/clock], when: {launch: eager}}", "axes.gemv.width.when.launch",
     ["never holds: 'eager'", "graph, queue"]),
    (WIDTH + "{values: [32 B/clock], when: {launch: {least: 2}}}", "axes.gemv.width.when.launch",
     ["not a condition", "a name"]),
    (WIDTH + "{values: [32 B/clock], when: {launch: [3]}}", "axes.gemv.width.when.launch",
     ["not a name: 3"]),
    (WIDTH + "{values: [32 B/clock], start: 3 B/clock}", "axes.gemv.width",
     ["values and a range"]),
    (WIDTH + "{values: []}", "axes.gemv.width", ["at least one value"]),
    (WIDTH + "{when: {gemv.count: 70}}", "axes.gemv.width", ["start to stop", "no start"]),
    (WIDTH + "{start: 3 B/clock, when: {gemv.count: 70}}", "axes.gemv.width", ["no stop"]),
    ("  axes:\n    units.count: {start: 1, stop: 8, steps: 3}", "axes.units.count",
     ["not a whole number: 4.5"]),
    ("  axes:\n    gemv.port: {start: shared, stop: own, steps: 3}", "axes.gemv.port",
     ["between two names: 0.5"]),
    ("  axes:\n    host.sync: [1 us]\n  samples: {count: 0}", "samples.count", ["1 to 10000000"]),
    ("  axes:\n    host.sync: [1 us]\n  samples: {count: 3.5}", "samples.count",
     ["not a whole number: 3.5"]),
    ("  axes:\n    host.sync: [1 us]\n  samples: {count: 8, method: halton}", "samples.method",
     ["'halton'", "sobol, lhs, random"]),
    ("  axes:\n    host.sync: [1 us]\n  samples: {count: 8, seed: -1}", "samples.seed", ["-1"]),
    ("  axes:\n    host.sync: [1 us]\n  samples: {count: 8, sede: 1}", "samples.sede",
     ["unknown key", "count, method, seed"]),
    ("  axes:\n    host.sync: [1 us]\n  samples: 8", "samples", ["not a mapping: 8"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place", "words"), BAD, ids=[text[-45:] for text, *_ in BAD])
def test_a_mistake_is_one_line_that_says_where(write, text, place, words):
    file = write(HEAD + text + "\n")
    with pytest.raises(InputError) as told:
        read_study(file)
    line = str(told.value)
    number = (HEAD + text).count("\n") + 1
    assert line.startswith(f"{file}: line {number}, sweep.{place}: ")
    assert "\n" not in line
    for word in words:
        assert word in line


def test_a_misspelt_parent_axis_is_told_once(write):
    text = WIDTH.replace("[0, 70]", "[1.5]") + "{values: [32 B/clock], when: {gemv.count: 1}}"
    with pytest.raises(InputError, match=r"axes.gemv.count: not a whole number"):
        read_study(write(HEAD + text))


@pytest.mark.parametrize(
    ("arch", "words"),
    [("[h200, h200]", "named twice: 'h200'"), ("[]", "not a machine"), ("3", "not a machine: 3"),
     ("[h200, 3]", "not a machine"), ("{a: b}", "not a machine"), ("null", "not a machine: None")],
)  # fmt: skip
def test_machines_that_are_none_are_refused(write, arch, words):
    text = HEAD.replace("arch: decode_npu", f"arch: {arch}") + "  axes:\n    host.sync: [1 us]\n"
    with pytest.raises(InputError, match=rf"line 4, arch: {words}"):
        read_study(write(text))


@pytest.mark.parametrize("weight", ["0", "-1", ".nan", ".inf", "true", "text", "null"])
def test_weights_that_are_none_are_refused(write, weight):
    named = HEAD.replace("[paddleocr_vl_decode]", f"{{paddleocr_vl_decode: {weight}}}")
    with pytest.raises(
        (InputError, InputErrors), match=r"line 6, sweep.workloads.paddleocr_vl_decode: input"
    ):
        read_study(write(named + "  axes:\n    host.sync: [1 us]\n"))


def test_a_refused_space_is_one_line_on_the_command_line(write, tmp_path):
    file = write(HEAD + "  axes:\n    workload.batch: [1, 2]\n  samples: {count: 8}\n")
    done = CliRunner().invoke(main, ["sweep", str(file), "-o", str(tmp_path / "out")])
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {file}: nothing to draw samples of: 'workload.batch'")


def test_the_page_of_spaces_counts_right(root, write):
    page = (root / "docs" / "spaces.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)# ([\d,]+) designs\n```", page, re.DOTALL)
    assert len(blocks) == page.count("```yaml") > 6
    about = "title: Try\nquestion: What of it?\nsource: a page\n"
    for block, count in blocks:
        asked = job.read_job(str(write(about + block)), [], [], {})
        assert len(asked.space) == int(count), block
        assert not asked.refused
