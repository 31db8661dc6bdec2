"""What designs must keep to be compared: bounds by hand, in YAML and in a sweep."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim import catalog, job
from npusim.beside import compare_one
from npusim.cli import main
from npusim.config import read_study
from npusim.constraints import Constraint, allowed
from npusim.errors import InputError, InputErrors
from npusim.outcome import run_job, save_outcome
from tests.builder import kernel, timed, workload

STUDY = """\
title: Made by hand
question: Which designs may be compared?
source: made by hand
arch: {arch}
sweep:
  workloads: [decode.parquet]
  launch: [queue]
  axes:
    units.count: [60, 70, 80]
    memories.dram.bandwidth: [2 TB/s, 2.5 TB/s, 3 TB/s]
  costs: [{costs}]
  constraints:
    {constraints}
"""
LINE = STUDY[: STUDY.index("{constraints}")].count("\n") + 1
NOMINAL = {"units.count": 70, "memories.dram.bandwidth": 2.5e12}  # of decode_npu


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a workload of two products, one of which waits for DRAM."""
    made = [
        kernel("gemv", 50.0, kind="gemv", dtype="bf16", batch=1, m=1, n=n, k=8192,
               flop=2 * n * 8192, read_weight=2.0 * n * 8192, read_activation=2.0 * 8192,
               write_activation=2.0 * n)
        for n in (1024, 8192)
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("studies")
    ns.save_workload(workload(*made, timed(2e-5), name="decode"), folder / "decode.parquet")
    return folder


@pytest.fixture
def study(folder):
    """Return a file with some constraints."""

    def write(constraints, arch="decode_npu", costs="area_mm2"):
        file = folder / "study.yaml"
        file.write_text(STUDY.format(constraints=constraints, arch=arch, costs=costs))
        return file

    return write


@pytest.fixture
def ran(study):
    """Return what a sweep with some constraints comes to."""
    return lambda *given, **more: run_job(job.read_job(str(study(*given, **more)), [], [], {}), "")


def table(**columns):
    return pd.DataFrame({name: np.array(values, float) for name, values in columns.items()})


# ---------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("bound", "wanted"),
    [
        (Constraint("power_w"), (-np.inf, np.inf)),
        (Constraint("power_w", most=350.0), (-np.inf, 350.0)),
        (Constraint("power_w", least=20.0), (20.0, np.inf)),
        (Constraint("power_w", 20.0, 350.0), (20.0, 350.0)),
        (Constraint("power_w", like="x", within=0.1), (180.0, 220.0)),
        (Constraint("power_w", like="x", within=0.0), (200.0, 200.0)),
        # the narrower of both counts
        (Constraint("power_w", least=190.0, like="x", within=0.1), (190.0, 220.0)),
        (Constraint("power_w", most=190.0, like="x", within=0.1), (180.0, 190.0)),
        (Constraint("power_w", least=100.0, most=300.0, like="x", within=0.1), (180.0, 220.0)),
    ],
)
def test_bounds_by_hand(bound, wanted):
    assert bound.bounds({"x": {"power_w": 200.0}}) == pytest.approx(wanted)


@pytest.mark.parametrize("figures", [{}, {"power_w": float("nan")}])
def test_a_machine_without_the_figure_is_no_reference(figures):
    with pytest.raises(InputError, match=r"^x: the machine does not have it: 'power_w'$"):
        Constraint("power_w", like="x", within=0.1).bounds({"x": figures})


def test_designs_must_meet_all_constraints():
    t = table(power_w=[100, 200, 300, 400], area_mm2=[800, 400, 600, 200])
    power, area = Constraint("power_w", most=300.0), Constraint("area_mm2", least=500.0)
    assert allowed(t, [], {}).tolist() == [True] * 4
    assert allowed(t, [power], {}).tolist() == [True, True, True, False]
    assert allowed(t, [area, power], {}).tolist() == [True, False, True, False]
    assert allowed(t, [power, area], {}).tolist() == [True, False, True, False]


def test_a_bound_holds_what_rounding_makes_of_it_and_no_more():
    values = [500.0, 500.0 * (1 + 1e-12), 500.0 * (1 - 1e-12), 500.0 * (1 + 1e-6)]
    t = table(area_mm2=values)
    assert allowed(t, [Constraint("area_mm2", most=500.0)], {}).tolist() == [True] * 3 + [False]
    t = table(area_mm2=[500.0 * (1 - 1e-6), *values[:3]])
    assert allowed(t, [Constraint("area_mm2", least=500.0)], {}).tolist() == [False] + [True] * 3


def test_a_design_without_the_figure_is_not_allowed():
    t = table(cost_usd=[1000, np.nan, np.inf])
    assert allowed(t, [Constraint("cost_usd", most=2e3)], {}).tolist() == [True, False, False]


def test_constraints_that_no_design_meets_are_told_with_what_designs_have():
    t = table(power_w=[100, 400], area_mm2=[800, 400])
    with pytest.raises(InputError, match=r"constraints.power_w: no design meets .*100 to 400"):
        allowed(t, [Constraint("power_w", most=99.0)], {})
    one, other = Constraint("power_w", most=300.0), Constraint("area_mm2", most=500.0)
    with pytest.raises(InputError, match=r"constraints\.area_mm2: no design meets this and"):
        allowed(t, [one, other], {})


def test_a_figure_that_designs_do_not_have_is_named():
    with pytest.raises(InputError, match=r"constraints.power_w: the designs do not have it"):
        allowed(table(wall_s=[1.0]), [Constraint("power_w", most=1.0)], {})


@given(st.lists(st.floats(1.0, 1e3), min_size=1, max_size=20), st.floats(1.0, 1e3),
       st.floats(0.0, 1.0))  # fmt: skip
def test_a_design_is_always_like_itself_and_never_like_one_farther_than_said(values, own, within):
    t = table(power_w=[own, *values])
    fits = allowed(t, [Constraint("power_w", like="it", within=within)], {"it": {"power_w": own}})
    assert fits[0]
    off = np.abs(t["power_w"].to_numpy() / own - 1)
    clear = np.abs(off - within) > 1e-8
    assert (fits == (off <= within))[clear].all()


# ---------------------------------------------------------------- in YAML


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("area_mm2: {most: 500 mm2}", Constraint("area_mm2", most=500.0)),
        ("area_mm2: {most: 5 cm2}", Constraint("area_mm2", most=500.0)),
        ("power_w: {most: 350 W}", Constraint("power_w", most=350.0)),
        ("power_w: {least: 0.1 kW, most: 0.35 kW}", Constraint("power_w", 100.0, 350.0)),
        ("energy_j: {most: 20 mJ}", Constraint("energy_j", most=0.02)),
        ("edp_js: {most: 2.5}", Constraint("edp_js", most=2.5)),
        ("wall_s: {most: 3 ms}", Constraint("wall_s", most=3e-3)),
        ("cost_usd: {most: 1.5 kUSD}", Constraint("cost_usd", most=1500.0)),
        ("g_per_mtoken: {most: 0.02 kg}", Constraint("g_per_mtoken", most=20.0)),
        ("units.count: {least: 64, most: 80}", Constraint("units.count", 64.0, 80.0)),
        ("memories.dram.bandwidth: {most: 2.5 TB/s}",
         Constraint("memories.dram.bandwidth", most=2.5e12)),
        ("area_mm2: {like: h100, within: 5 %}",
         Constraint("area_mm2", like="h100", within=0.05)),
        ("area_mm2: {like: nominal, within: 0.05}",
         Constraint("area_mm2", like="nominal", within=0.05)),
        ("power_w: {like: h100, within: 1 %, most: 700 W}",
         Constraint("power_w", most=700.0, like="h100", within=0.01)),
    ],
)  # fmt: skip
def test_a_bound_is_read_in_the_unit_of_its_column(study, text, wanted):
    (found,) = read_study(study(text)).sweep.constraints
    assert (found.column, found.like) == (wanted.column, wanted.like)
    for end in ("least", "most", "within"):
        given_, meant = getattr(found, end), getattr(wanted, end)
        assert given_ is None if meant is None else given_ == pytest.approx(meant, rel=1e-12)


# What stands in a study, the key that is to blame, and what the one line must say.
BAD = [
    ("area_mm2: {most: 500}", "area_mm2", ["has no unit", "'500'", "mm2"]),
    ("area_mm2: {most: 500 W}", "area_mm2", ["wrong unit", "'500 W'", "mm2"]),
    ("area_mm2: {most: large}", "area_mm2", ["not a quantity", "'large'"]),
    ("area_mm2: {most: .nan}", "area_mm2", ["not a quantity"]),
    ("area_mm2: {most: null}", "area_mm2", ["not a quantity"]),
    ("area_mm2: {most: true}", "area_mm2.most", ["not a quantity"]),
    ("area_mm2: {mots: 500 mm2}", "area_mm2.mots", ["unknown key", "least, like, most, within"]),
    ("area_mm2: 500 mm2", "area_mm2", ["not a mapping"]),
    ("area_mm2: {}", "area_mm2", ["bounds nothing", "least, most, like, within"]),
    ("area: {most: 500 mm2}", "area", ["no figure of a design", "an axis", "area_mm2", "power_w"]),
    ("units.clock: {most: 1 GHz}", "units.clock", ["no figure of a design", "an axis"]),
    ("units.count: {most: 70 W}", "units.count", ["wrong unit", "'70 W'"]),
    ("area_mm2: {like: nominal}", "area_mm2", ["both like and within"]),
    ("area_mm2: {within: 5 %}", "area_mm2", ["both like and within"]),
    ("area_mm2: {like: nominal, within: 5 mm2}", "area_mm2", ["wrong unit", "'5 mm2'"]),
    ("area_mm2: {like: nominal, within: -5 %}", "area_mm2", ["-5 %"]),
    ("area_mm2: {like: '', within: 5 %}", "area_mm2", []),
    ("area_mm2: {like: null, within: 5 %}", "area_mm2", []),
    ("area_mm2: {least: 600 mm2, most: 500 mm2}", "area_mm2", []),
]


@pytest.mark.parametrize(("text", "place", "words"), BAD, ids=[text for text, _, _ in BAD])
def test_a_mistake_is_one_line_that_says_where(study, text, place, words):
    file = study(text)
    with pytest.raises(InputError) as told:
        read_study(file)
    line = str(told.value)
    assert line.startswith(f"{file}: line {LINE}, sweep.constraints.{place}")
    assert "\n" not in line
    for word in words:
        assert word in line


def test_every_mistake_is_told_at_once(study):
    text = "area_mm2: {most: 500}\n    power_w: {most: 1 mm2}\n    nothing: {most: 1}"
    with pytest.raises(InputErrors) as told:
        read_study(study(text))
    assert len(told.value.errors) == 3


def test_a_constraint_on_an_axis_that_is_misspelt_is_no_traceback(study):
    file = study("units.cuont: {most: 70}")
    file.write_text(file.read_text().replace("    units.count:", "    units.cuont:"))
    with pytest.raises(
        (InputError, InputErrors), match=r"line 9, sweep.axes.units.cuont: unknown parameter"
    ):
        read_study(file)


# ---------------------------------------------------------------- in a sweep


def test_the_front_and_the_best_hold_what_is_allowed_and_the_table_everything(ran, tmp_path):
    free, bound = ran("wall_s: {most: 1 s}"), ran("area_mm2: {most: 460 mm2}")
    every = bound.table
    assert len(every) == len(free.table) == 9
    assert every["allowed"].tolist() == (every["area_mm2"] <= 460).tolist()
    assert 0 < every["allowed"].sum() < 9 == free.table["allowed"].sum()
    assert free.summary["best"]["area_mm2"] > 460  # more is faster: the constraint counts
    assert bound.summary["best"]["wall_s"] == every.loc[every["allowed"], "wall_s"].min()
    assert bound.front["allowed"].all()
    assert (bound.front["area_mm2"] <= 460).all()
    # nothing that is allowed beats what is on the front
    for _, row in bound.front.iterrows():
        fair = every[every["allowed"]]
        beats = (fair["wall_s"] <= row["wall_s"]) & (fair["area_mm2"] < row["area_mm2"])
        assert not beats.any()
    assert bound.summary["allowed"] == every["allowed"].sum()
    assert bound.summary["designs"] == 9
    save_outcome(bound, tmp_path, figures=False)
    kept = pq.read_table(tmp_path / "results.parquet").to_pandas()
    assert kept["allowed"].tolist() == every["allowed"].tolist()
    assert pd.read_csv(tmp_path / "pareto.csv")["area_mm2"].max() <= 460
    (said,) = json.loads((tmp_path / "summary.json").read_text())["constraints"]
    assert (said["column"], said["most"]) == ("area_mm2", pytest.approx(460.0))


def test_what_is_put_beside_measurement_is_allowed(ran, tmp_path):
    done = ran("area_mm2: {most: 460 mm2}")
    save_outcome(done, tmp_path, figures=False)
    beside = compare_one(tmp_path).summary["times_faster_than"]["decode"]
    (figure,) = [name for name in beside if "wall" in name]
    best, fastest = (frame["wall_s"].min() for frame in (done.front, done.table))
    assert best > 1.001 * fastest  # a design that is not allowed is faster
    walls = done.table.loc[done.table["allowed"], "wall_s"]
    spread = beside[figure]["fastest"] / beside[figure]["slowest"]
    assert spread == pytest.approx(walls.max() / walls.min())


def test_without_constraints_every_design_is_allowed(ran, study):
    file = study("x: {}")
    file.write_text(file.read_text().replace("  constraints:\n    x: {}\n", ""))
    done = run_job(job.read_job(str(file), [], [], {}), "")
    assert done.table["allowed"].all()
    assert (done.summary["constraints"], done.summary["allowed"]) == ([], 9)


def test_designs_of_one_bandwidth_are_those_of_the_nominal_machine(ran):
    done = ran("memories.dram.bandwidth: {like: nominal, within: 0 %}")
    kept = done.table[done.table["allowed"]]
    assert kept["memories.dram.bandwidth"].unique().tolist() == [2.5e12]
    assert kept["units.count"].tolist() == [60, 70, 80]


@pytest.mark.parametrize("column", ["area_mm2", "power_w", "cost_usd"])
def test_designs_like_the_nominal_one_are_within_so_much_of_it(ran, column):
    done = ran(f"{column}: {{like: nominal, within: 4 %}}")
    own = done.nominal[column]
    off = (done.table[column] / own - 1).abs()
    assert done.table["allowed"].tolist() == (off <= 0.04).tolist()
    same = (done.table[list(NOMINAL)] == pd.Series(NOMINAL)).all(axis=1)
    assert done.table.loc[same, "allowed"].tolist() == [True]


def test_designs_like_another_machine_are_held_against_its_own_figure(ran, folder):
    w, h100 = ns.load_workload(folder / "decode.parquet"), ns.load_arch("h100")
    other = ns.replay(w, h100, "queue")
    done = ran("energy_j: {like: h100, within: 50 %}\n    area_mm2: {like: h100, within: 40 %}")
    t = done.table
    fits = (t["energy_j"] / other.energy_j - 1).abs() <= 0.5
    fits &= (t["area_mm2"] / other.area_mm2 - 1).abs() <= 0.4
    assert t["allowed"].tolist() == fits.tolist()
    assert 0 < fits.sum() < len(t)


def test_a_machine_beside_the_study_may_be_the_one_to_be_like(ran, folder):
    (folder / "mine.yaml").write_bytes(catalog.find("archs", "decode_npu").read_bytes())
    beside, own = (ran(f"area_mm2: {{like: {name}, within: 4 %}}").table["allowed"]
                   for name in ("mine.yaml", "nominal"))  # fmt: skip
    assert beside.tolist() == own.tolist()


def test_a_setting_moves_the_nominal_machine_and_what_is_like_it(study):
    file = str(study("area_mm2: {like: nominal, within: 4 %}"))
    plain, more = (run_job(job.read_job(file, [], [], setting), "")
                   for setting in ({}, {"memories.l2.capacity": 400e6}))  # fmt: skip
    assert more.nominal["area_mm2"] > 1.2 * plain.nominal["area_mm2"]
    for done in (plain, more):
        off = (done.table["area_mm2"] / done.nominal["area_mm2"] - 1).abs()
        assert done.table["allowed"].tolist() == (off <= 0.04).tolist()


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        ("area_mm2: {most: 10 mm2}", {}, ["area_mm2", "no design meets", "10"]),
        ("area_mm2: {like: h100, within: 5 %}", {}, ["area_mm2", "no design meets"]),
        ("area_mm2: {like: mi300x, within: 5 %}", {}, ["mi300x", "does not have it", "area_mm2"]),
        ("area_mm2: {like: h1000, within: 5 %}", {}, ["h1000", "no such arch", "h100"]),
        ("power_w: {most: 350 W}", {"arch": "mi300x", "costs": "units.count"},
         ["power_w", "the designs do not have it"]),
        ("usd_per_mtoken: {most: 1 USD}", {}, ["usd_per_mtoken", "the designs do not have it"]),
    ],
)  # fmt: skip
def test_a_constraint_that_cannot_be_is_one_line_and_nothing_is_written(
    study, tmp_path, text, more, words
):
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["sweep", str(study(text, **more)), "-o", str(out), "--json"])
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert list(out.glob("*")) == []


# ---------------------------------------------------------------- the study that is shipped


def test_the_study_of_efficiency_asks_what_its_file_says():
    asked = job.read_job("efficiency", [], [], {})
    assert asked.costs == ("energy_j", "area_mm2")
    (bound,) = asked.constraints
    assert bound.column == "area_mm2"
    assert not asked.refused
    assert asked.baseline.name == "h100"
