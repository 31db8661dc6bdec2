import math
import re
from itertools import chain, pairwise

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from npusim import catalog, config
from npusim.arch import KINDS, Designs
from npusim.errors import InputError, InputErrors, NpusimError
from npusim.load import load_arch
from npusim.models.roofline import throughput
from npusim.parameters import PARAMETERS
from npusim.yaml_tree import read_tree

ARCHS = catalog.names("archs")
H200 = catalog.find("archs", "h200").read_text(encoding="utf-8")
SWEEP = """
sweep:
  workloads: [paddleocr_vl_decode]
  launch: [graph]
  axes:
    units.count: [66, 132]
"""


def entries(node, path=()):
    """Every {value: ...} of a plain YAML tree, read without npusim."""
    if not isinstance(node, dict):
        return
    if "value" in node:
        yield ".".join(path), node
        return
    for key, child in node.items():
        yield from entries(child, (*path, key))


@pytest.fixture
def write(tmp_path):
    def to_file(text, name="machine.yaml"):
        file = tmp_path / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return to_file


@pytest.fixture
def refused(write):
    """Read text as a machine; return the lines of its complaint."""

    def lines(text, reader=config.read_arch):
        file = write(text)
        with pytest.raises(NpusimError) as error:
            reader(file)
        found = str(error.value).splitlines()
        assert all(line.startswith(f"{file}: ") for line in found)
        return [line.removeprefix(f"{file}: ") for line in found]

    return lines


def line_of(text, part):
    """Number of the only line that holds a part."""
    (number,) = [i for i, line in enumerate(text.splitlines(), 1) if part in line]
    return number


def replaced(text, old, new):
    assert text.count(old) == 1
    return text.replace(old, new)


# ---------------------------------------------------------------- the machines that ship


@pytest.mark.parametrize("name", ARCHS)
def test_every_value_of_a_shipped_machine_has_its_provenance(name):
    shared = (sorted((catalog.folder("archs") / folder).glob("*.yaml"))
              for folder in ("libraries", "technology"))  # fmt: skip
    found = {}
    for file in (*chain(*shared), catalog.find("archs", name)):  # a machine's own file wins
        plain = yaml.safe_load(file.read_text(encoding="utf-8"))
        plain.pop("sweep", None)
        found |= dict(entries(plain))
    arch = load_arch(name)
    assert set(arch.values) == set(found) == set(arch.provenance)
    assert {p for p, parameter in PARAMETERS.items() if parameter.required} <= set(found)
    for path, entry in found.items():
        assert len(entry["source"].split()) >= 2, path
        assert entry["kind"] in KINDS, path
        if entry["kind"] == "assumed":
            assert len(entry["range"]) == 2, path
        mark = arch.provenance[path]
        assert mark.low <= arch[path] <= mark.high, path
        assert mark.source == entry["source"], path
        assert mark.kind == entry["kind"], path


def test_the_machines_of_the_issue_ship():
    assert set(ARCHS) >= {
        "rtx_5090", "rtx_pro_6000_server", "rtx_4090", "rtx_3060", "l40s", "l40", "h200", "h100",
        "h100_pcie", "b200", "a100", "mi300x", "mi210", "metax_c500", "decode_npu",
    }  # fmt: skip


# name: units, bf16 dense TFLOP/s, fp32 vector TFLOP/s, GB/s, GB, W
# (../shared/facts/hardware_specs.csv; None where that table has no figure or marks it a guess)
PUBLISHED = {
    "rtx_5090": (170, 209.5, 104.8, 1792, 32, 575),
    "rtx_pro_6000_server": (188, 467.8, None, 1792, 96, 600),
    "rtx_4090": (128, 165.2, 82.6, 1008, 24, 450),
    "rtx_3060": (28, 25.6, 12.7, 360, 12, 170),
    "a100": (108, 312, 19.5, 2039, 80, 400),
    "h100": (132, 989, 66.9, 3350, 80, 700),
    "h200": (132, 989, 66.9, 4800, 141, 700),
    "h100_pcie": (114, 756, 51.2, 2039, 80, 350),
    "b200": (148, 2250, None, 7700, 180, 1000),
    "mi300x": (304, 1307.4, 163.4, 5300, 192, 750),
    "mi210": (104, 181, 22.6, 1638, 64, 300),
    "l40s": (142, 362.05, 91.6, 864, 48, 350),
    "l40": (142, 181, 90.5, 864, 48, 300),
    "metax_c500": (None, 280, 18, 1800, 64, 350),
}
# tera-operations a second of the narrow formats, same table
NARROW = {
    "rtx_5090": {"fp8": 419, "int8": 838},
    "rtx_pro_6000_server": {"fp8": 935.6},
    "rtx_4090": {"int8": 660.6},
    "rtx_3060": {"int8": 102},
    "a100": {"int8": 624},
    "h100": {"fp8": 1979},
    "h200": {"fp8": 1979},
    "h100_pcie": {"fp8": 1513},
    "b200": {"fp8": 4500},
    "mi300x": {"fp8": 2614.9},
    "mi210": {"int8": 181},
    "l40": {"fp8": 362},
    "l40s": {"fp8": 733},
    "metax_c500": {"int8": 560, "tf32": 140},
}


def test_machines_of_the_table_ship():
    assert set(PUBLISHED) == set(NARROW) <= set(ARCHS) - {"decode_npu"}


def peaks(text):
    """Operations a second that a source quotes."""
    return [float(n.replace(",", "")) * 1e12 for n in re.findall(r"([\d.,]*\d) T(?:FL)?OP/s", text)]


@pytest.mark.parametrize("name", sorted(set(ARCHS) - set(PUBLISHED) - {"decode_npu"}))
def test_every_other_machine_that_ships_quotes_its_datasheet(name):
    a = load_arch(name)
    for path in ("memories.dram.bandwidth", "memories.dram.capacity", "matrix.bf16.rate"):
        assert a.provenance[path].kind == "datasheet", path
    assert peaks(a.provenance["matrix.bf16.rate"].source)
    for path, mark in a.provenance.items():
        if path.startswith("matrix.") and path.endswith(".rate") and mark.kind == "datasheet":
            clocked = a["units.count"] * a["matrix.clock"] * a[path]
            quoted = peaks(mark.source)
            assert not quoted or clocked == pytest.approx(quoted[0], rel=0.02), path


def test_quoted_peaks():
    assert peaks("X: 1,836 TOP/s; 918 TFLOP/s of two") == [1.836e15, 9.18e14]
    assert peaks("X: 32 GB, 1,638 GB/s, 4 FLOP/clock") == []


@pytest.mark.parametrize("name", PUBLISHED)
def test_products_of_rates_are_the_published_peaks(name):
    units, bf16, fp32, bandwidth, capacity, power = PUBLISHED[name]
    a = load_arch(name)
    matrix = a["units.count"] * a["matrix.clock"]
    vector = a["units.count"] * a["units.clock"]
    assert units is None or a["units.count"] == units
    assert matrix * a["matrix.bf16.rate"] == pytest.approx(bf16 * 1e12, rel=0.02)
    if fp32 is not None:
        assert vector * a["vector.fp32.rate"] == pytest.approx(fp32 * 1e12, rel=0.02)
    for dtype, tera in NARROW[name].items():
        assert matrix * a[f"matrix.{dtype}.rate"] == pytest.approx(tera * 1e12, rel=0.02), dtype
    assert a["memories.dram.bandwidth"] == pytest.approx(bandwidth * 1e9, rel=0.02)
    assert a["memories.dram.capacity"] == pytest.approx(capacity * 1e9, rel=0.08)  # GB or GiB
    assert a["power.limit"] == power


def test_facts_of_the_h200():
    a = load_arch("h200")
    assert a["memories.dram.bandwidth"] == 4.8e12
    assert a["memories.l2.capacity"] == 62_914_560  # as the driver reports it
    assert a["memories.dram.bandwidth"] * a["memories.dram.efficiency"] == pytest.approx(
        4238e9, rel=0.002
    )
    # 799 and 821 TFLOP/s were measured of whole products before a power limit held them
    # (h200_power_window.json), which also have a start, the fill of their waves and a last one
    # that is not full: units do up to 6 % more.
    burst = throughput("gemm", "bf16", Designs(a)).item()
    assert 799e12 < burst < 1.06 * 821e12
    assert a.devices == ("NVIDIA H200",)


def test_the_nominal_decode_npu_lies_in_the_ranges_of_the_report():
    a = load_arch("decode_npu")
    _, sweep = config.read_arch(catalog.find("archs", "decode_npu"))
    for path, low, high in [
        ("memories.dram.bandwidth", 2e12, 3e12),
        ("memories.l2.capacity", 128e6, 256e6),
        ("memories.kv_sram.capacity", 32e6, 64e6),
        ("units.count", 60, 80),
    ]:
        assert low <= a[path] <= high
        assert low <= min(sweep.axes[path]) <= max(sweep.axes[path]) <= high
    assert a["gemv.count"] > 0
    assert a["fusion.chain"] > 0


def has_sweep(name):
    return "sweep" in read_tree(catalog.find("studies", name)).values


@pytest.mark.parametrize("name", [n for n in catalog.names("studies") if has_sweep(n)])
def test_every_shipped_study_reads(name):
    study = config.read_study(catalog.find("studies", name))
    assert study.arch in ARCHS
    assert set(study.sweep.workloads) <= set(catalog.names("workloads"))
    assert config.is_study(catalog.find("studies", name))


# ---------------------------------------------------------------- mistakes in a machine


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("link:\n", "lnik:\n", "lnik", ["unknown key", "'lnik'", "link"]),
        ("    ways: {value: 40", "    wais: {value: 40", "memories.l2.wais",
         ["unknown key", "'wais'", "ways"]),
        ("value: 4.8 TB/s", "value: 4.8 TB", "memories.dram.bandwidth.value",
         ["wrong unit", "'4.8 TB'", "B/s"]),
        ("value: 4.8 TB/s", "value: 4.8", "memories.dram.bandwidth.value", ["no unit", "4.8"]),
        ("value: 4.8 TB/s", "value: -4.8 TB/s", "memories.dram.bandwidth.value",
         ["out of bounds", "-4.8", "1 MB/s to"]),
        ("value: 4.8 TB/s", "value: 4.8 KB/s", "memories.dram.bandwidth.value",
         ["'4.8 KB/s'", "KiB"]),
        ("value: 4.8 TB/s", "value: .inf", "memories.dram.bandwidth.value", ["not a quantity"]),
        ("value: 4.8 TB/s", "value: [4.8 TB/s]", "memories.dram.bandwidth.value",
         ["not a quantity: ['4.8 TB/s']"]),
        ("value: 4.8 TB/s", "value: true", "memories.dram.bandwidth.value",
         ["not a quantity: True"]),
        ("value: 0.883", "value: 1.01", "memories.dram.efficiency.value", ["out of bounds"]),
        ("range: [0.86, 0.9]", "range: [0.1, 0.2]", "memories.dram.efficiency.range",
         ["does not hold"]),
        ("range: [0.86, 0.9]", "range: [0.9, 0.86]", "memories.dram.efficiency.range",
         ["does not hold"]),
        ("range: [0.86, 0.9]", "range: [0.86]", "memories.dram.efficiency.range", ["at least 2"]),
        ("range: [0.86, 0.9]", "range: [0.86 s, 0.9]", "memories.dram.efficiency.range.0",
         ["wrong unit"]),
        (", kind: assumed, range: [500 ns, 1000 ns]", ", kind: assumed",
         "memories.dram.latency", ["assumed", "range"]),
        ('source: "H200 datasheet (HBM3e)", kind: datasheet', "kind: datasheet",
         "memories.dram.bandwidth.source", ["missing"]),
        ('"H200 datasheet (HBM3e)", kind: datasheet', '"H200 datasheet (HBM3e)"',
         "memories.dram.bandwidth.kind", ["missing"]),
        ('"H200 datasheet (HBM3e)", kind: datasheet', '"H200 datasheet (HBM3e)", kind: guess',
         "memories.dram.bandwidth.kind", ["'guess'", "datasheet", "assumed"]),
        ("devices: [NVIDIA H200]", "devices: NVIDIA H200", "devices",
         ["not a list: 'NVIDIA H200'"]),
        ("title: NVIDIA H200 SXM", "title: 5", "title", ["not text: 5"]),
    ],
)  # fmt: skip
def test_one_mistake_is_one_line_with_its_place(refused, old, new, place, words):
    text = replaced(H200, old, new)
    (line,) = refused(text)
    number = H200[: H200.index(old)].count("\n") + 1
    assert line.startswith(f"line {number}, {place}: ")
    for word in words:
        assert word in line


def test_what_is_required_and_absent(refused):
    text = replaced(H200, "  capacity: {value: 141 GB", "  capacity_: {value: 141 GB")
    problems = refused(text)
    assert sum("memories.dram.capacity: is missing" in line for line in problems) == 1
    assert sum("memories.dram.capacity_: unknown key" in line for line in problems) == 1
    assert len(problems) == 2


def test_an_unknown_key_is_a_slip_or_of_another_version(refused):
    (line,) = refused(replaced(H200, "title:", "titel: x\ntitle:"))
    assert line.endswith("; did you mean 'title'?") and "CHANGELOG" not in line
    (line,) = refused(replaced(H200, "title:", "version: 2\ntitle:"))
    assert "version: unknown key: 'version' (allowed: " in line
    assert line.endswith("; a file of another npusim? see CHANGELOG.md")
    unfinished = refused("title: x\n")  # nobody made such a file with another version
    assert len(unfinished) > 1
    assert all(line.endswith(": is missing") for line in unfinished)


def test_a_missing_group_names_it(refused):
    head, tail = H200.split("floor:\n")
    tail = tail[tail.index("\nlaunch:") + 1 :]
    (line,) = refused(head + tail)
    assert line == "line 1, floor: is missing; a file of another npusim? see CHANGELOG.md"


def test_all_mistakes_at_once_each_in_its_place(refused):
    text = replaced(H200, "value: 4.8 TB/s", "value: 4.8 s")
    text = replaced(text, "value: 141 GB", "value: -141 GB")
    text = replaced(text, "  speed: {", "  sped: {")
    text = replaced(text, "range: [0.86, 0.9]", "range: [0.1, 0.2]")
    text += SWEEP.replace("units.count", "units.cont")
    problems = refused(text)
    expected = {
        f"line {line_of(text, '4.8 s')}, memories.dram.bandwidth.value: has the wrong unit",
        f"line {line_of(text, '-141 GB')}, memories.dram.capacity.value: out of bounds",
        f"line {line_of(text, 'sped:')}, host.sped: unknown key",
        f"line {line_of(text, '0.1, 0.2')}, memories.dram.efficiency.range: range does not hold",
        f"line {line_of(text, 'units.cont:')}, sweep.axes.units.cont: unknown parameter",
    }
    for start in expected:
        assert sum(line.startswith(start) for line in problems) == 1, start
    assert sum("host.speed: is missing" in line for line in problems) == 1
    assert len(problems) == len(expected) + 1


# ---------------------------------------------------------------- files that are not machines

BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (H200 + "title: again\n", ["given twice", "'title'"]),
        (BOMB, ["aliases are not accepted", "line 2"]),
        ("a: &a\n  b: *a\n", ["aliases are not accepted", "line 2"]),
        ("a: " + "[" * 100_000, ["nested too deeply"]),
        ("a: " + "{b: " * 100_000, ["nested too deeply"]),
        ("- " * 400_000, ["nested too deeply"]),  # libyaml's composer crashes on this
        ("? " * 400_000, ["nested too deeply"]),
        ("a:\n" + "".join(" " * i + "b:\n" for i in range(1, 500)), ["nested too deeply"]),
        (H200.encode("utf-16"), ["not UTF-8"]),
        (H200.encode().replace(b"H200", b"H\xff200"), ["not UTF-8"]),
        ("units:\n\tcount: 1\n", ["not YAML", "line 2"]),
        ("units: [1, 2\ntitle: x\n", ["not YAML"]),
        ("", ["not a mapping"]),
        ("# nothing\n", ["not a mapping"]),
        ("- title: x\n", ["not a mapping"]),
        ("just text\n", ["not a mapping"]),
        ("title: x\n---\ntitle: y\n", ["not YAML"]),
        ("title: !!python/object/apply:os.system [ls]\n", ["tag is not accepted", "line 1"]),
        ("title: !!set {a: null}\n", ["tag is not accepted", "line 1"]),
        ("title: !!python/name:os.system\n", ["tag is not accepted", "line 1"]),
        ("? [a, b]\n: c\n", ["keys are plain text", "line 1"]),
        ("title: x\x00y\n", ["not YAML"]),
        ("note: " + "x" * 1_000_001, ["too large"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("reader", [config.read_arch, config.read_study, config.is_study])
def test_files_of_another_kind(refused, content, words, reader):
    lines = refused(content, reader)
    assert any(all(word in line for word in words) for line in lines)


@pytest.mark.parametrize("reader", [config.read_arch, config.read_study])
def test_paths_that_are_no_files(tmp_path, reader):
    for path, problem in [
        (tmp_path, "not a file"),
        (tmp_path / "absent.yaml", "no such file"),
        (tmp_path / ("x" * 5000), "cannot be read"),
    ]:
        with pytest.raises(InputError, match=problem):
            reader(path)


def test_a_machine_is_not_a_study(refused):
    lines = refused(H200, config.read_study)
    assert any("question: is missing" in line for line in lines)


# ---------------------------------------------------------------- sweep blocks


def sweep_of(write, axes, more=""):
    return config.read_arch(write(H200 + SWEEP.replace("units.count: [66, 132]", axes) + more))[1]


def test_axes_are_read_in_si(write):
    sweep = sweep_of(
        write,
        "units.count: [66, 132]\n"
        "    memories.dram.bandwidth: {start: 2 TB/s, stop: 3 TB/s, steps: 5}\n"
        "    memories.l2.capacity: {start: 1 MiB, stop: 256 MiB, steps: 9, scale: log}",
        "  costs: [units.count]\n  baseline: h200\n",
    )
    assert sweep.axes["units.count"] == (66, 132)
    assert sweep.axes["memories.dram.bandwidth"] == (2e12, 2.25e12, 2.5e12, 2.75e12, 3e12)
    assert sweep.axes["memories.l2.capacity"] == pytest.approx([2.0**20 * 2**i for i in range(9)])
    assert sweep.workloads == {"paddleocr_vl_decode": 1}
    assert (sweep.launch, sweep.costs, sweep.baseline) == (("graph",), ("units.count",), "h200")


@given(
    ends=st.tuples(st.integers(1, 1000), st.integers(1, 1000)),
    steps=st.integers(2, 60),
    scale=st.sampled_from(["linear", "log"]),
)
@example(ends=(100, 1000), steps=38, scale="linear")  # the end must not round above the bound 1
@example(ends=(7, 17), steps=5, scale="log")
def test_a_range_keeps_its_ends_and_its_spacing(write, ends, steps, scale):
    low, high = (e / 1000 for e in ends)
    axis = f"matrix.efficiency: {{start: {low}, stop: {high}, steps: {steps}, scale: {scale}}}"
    values = sweep_of(write, axis).axes["matrix.efficiency"]
    assert len(values) == steps
    assert (values[0], values[-1]) == (low, high)
    spaced = values if scale == "linear" else [math.log(v) for v in values]
    gaps = [b - a for a, b in pairwise(spaced)]
    assert gaps == pytest.approx([(spaced[-1] - spaced[0]) / (steps - 1)] * len(gaps), abs=1e-12)


@pytest.mark.parametrize(
    ("axes", "more", "place", "words"),
    [
        ("units.cuont: [1]", "", "sweep.axes.units.cuont",
         ["unknown parameter", "units.count"]),
        ("speed: [1]", "", "sweep.axes.speed", ["unknown parameter", "memories.*"]),
        ("units.count: []", "", "sweep.axes.units.count", ["at least one"]),
        ("units.count: [66, 132 s]", "", "sweep.axes.units.count", ["wrong unit", "132 s"]),
        ("units.count: [66, null]", "", "sweep.axes.units.count.1", ["not a quantity: None"]),
        ("units.count: 66", "", "sweep.axes.units.count", ["not a list: 66"]),
        ("units.count: {start: [1], stop: 8, steps: 3}", "", "sweep.axes.units.count.start",
         ["not a quantity: [1]"]),
        ("units.count: [66, -1]", "", "sweep.axes.units.count", ["out of bounds", "-1"]),
        ("gemv.count: {start: 0, stop: 8, steps: 3, scale: log}", "", "sweep.axes.gemv.count",
         ["above zero"]),
        ("units.count: {start: 1, stop: 8, steps: 1}", "", "sweep.axes.units.count.steps",
         ["greater than or equal to 2"]),
        ("units.count: {start: 1, stop: 8, step: 1}", "", "sweep.axes.units.count.step",
         ["unknown key", "steps"]),
        ("units.count: {start: 1, stop: 8, steps: 3, scale: cubic}", "",
         "sweep.axes.units.count.scale", ["linear", "log", "cubic"]),
        ("units.count: [66]", "  costs: [memories.l2.capacity]\n", "sweep.costs",
         ["not an axis", "memories.l2.capacity"]),
        ("units.count: [66]", "  cost: [units.count]\n", "sweep.cost",
         ["unknown key", "costs"]),
    ],
)  # fmt: skip
def test_mistakes_in_a_sweep(refused, axes, more, place, words):
    text = H200 + SWEEP.replace("units.count: [66, 132]", axes) + more
    lines = [line for line in refused(text) if f", {place}: " in line]
    assert lines
    assert any(all(word in line for word in words) for line in lines)
    at = max(text.rindex(axes), text.rindex(more) if more else 0)
    assert lines[0].startswith(f"line {text[:at].count(chr(10)) + 1}, ")


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("launch: [graph]", "launch: [warp]", "sweep.launch.0"),
        ("launch: [graph]", "launch: []", "sweep.launch"),
        ("  workloads: [paddleocr_vl_decode]\n", "", "sweep.workloads"),
        ("    units.count: [66, 132]\n", "    {}\n", "sweep.axes"),
    ],
)
def test_a_sweep_needs_workloads_launch_modes_and_axes(refused, old, new, place):
    lines = refused(H200 + replaced(SWEEP, old, new))
    assert any(f", {place}: " in line for line in lines)


# ---------------------------------------------------------------- --set


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("memories.dram.bandwidth=2.5 TB/s", "memories.dram.bandwidth", 2.5e12),
        ("memories.dram.bandwidth = 2.5TB/s ", "memories.dram.bandwidth", 2.5e12),
        ("units.count=64", "units.count", 64.0),
        ("matrix.efficiency=75 %", "matrix.efficiency", 0.75),
        ("floor.matmul=0 s", "floor.matmul", 0.0),
        ("memories.l2.capacity=60 MiB", "memories.l2.capacity", 62914560.0),
    ],
)
def test_settings(text, path, value):
    assert config.read_setting(text) == (path, value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("units.count", ["--set", "not path=value", "'units.count'"]),
        ("", ["--set", "not path=value"]),
        ("=5", ["unknown parameter", "units.*"]),
        ("units.cuont=5", ["unknown parameter", "'units.cuont'", "units.count"]),
        ("units.count=", ["--set units.count: not a quantity"]),
        ("units.count=64 s", ["--set units.count: has the wrong unit", "'64 s'"]),
        ("units.count=0", ["--set units.count: out of bounds", "1 to "]),
        ("units.count=1=2", ["--set units.count: "]),
        ("memories.dram.bandwidth=5", ["--set memories.dram.bandwidth: has no unit", "B/s"]),
        ("memories.dram.bandwidth=-1 TB/s", ["--set memories.dram.bandwidth: out of bounds"]),
        ("memories.dram.bandwidth=nan", ["not a quantity"]),
    ],
)
def test_settings_refused(text, words):
    with pytest.raises(InputError) as error:
        config.read_setting(text)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text(), st.sampled_from(["units.count=", "memories.dram.bandwidth=", ""]))
def test_any_setting_is_read_or_refused(text, path):
    try:
        found, value = config.read_setting(path + text)
    except InputError:
        return
    assert PARAMETERS[found].low <= value <= PARAMETERS[found].high


# ---------------------------------------------------------------- anything at all


def read_anything(file):
    """Read bytes every way; only an Arch, or an error of ours, may come out."""
    for reader in (config.read_arch, config.read_study, config.is_study):
        try:
            reader(file)
        except InputErrors as error:
            assert error.errors
        except NpusimError as error:
            assert str(error).startswith(str(file))


@settings(max_examples=200)
@given(content=st.binary(max_size=300))
def test_arbitrary_bytes(write, content):
    read_anything(write(content))


YAML_BITS = ["a", "units", "value", ":", " ", "\n", "\n  ", "-", "- ", "[", "]", "{", "}", ",",
             "&x", "*x", "!", "!!", "|", ">", "'", '"', "#", "?", "<<", "---", "...", "%", "\t",
             "1", ".", "~", "null", "true", "0x1", "1:2", "2026-01-01", "é", "\u2028",
             "\ufeff"]  # fmt: skip


@settings(max_examples=300)
@given(bits=st.lists(st.sampled_from(YAML_BITS), max_size=30))
def test_almost_yaml(write, bits):
    read_anything(write("".join(bits)))


FULL = (H200 + SWEEP).encode()
SLICE = st.tuples(st.integers(0, len(FULL)), st.integers(0, 40), st.binary(max_size=12))


@settings(max_examples=250)
@given(
    edits=st.lists(
        st.one_of(SLICE, st.tuples(st.integers(0, len(FULL)), st.integers(0, 3),
                                   st.sampled_from([b.encode() for b in YAML_BITS]))),
        min_size=1, max_size=4),
)  # fmt: skip
def test_a_damaged_machine(write, edits):
    content = FULL
    for at, length, new in edits:
        content = content[:at] + new + content[at + length :]
    file = write(content)
    read_anything(file)
    try:
        arch, _ = config.read_arch(file)
    except NpusimError:
        return
    for path, value in arch.values.items():
        assert PARAMETERS[path].low <= value <= PARAMETERS[path].high
