"""``npusim power``: what it prints of each clock, which it chooses, and bad input."""

import json
import os

import pytest
from click.testing import CliRunner

import npusim as ns
from npusim.cli import main
from npusim.clock_modes import SHARES, sleeping
from npusim.store import model_version
from tests.builder import kernel, timed, workload

COLUMNS = {"share", "clock_hz", "voltage", "held", "wall_s", "wall_high_s", "energy_j",
           "energy_low_j", "energy_high_j", "power_w", "edp_js"}  # fmt: skip
H200 = ["--arch", "h200"]


def product(m, n, k):
    """Return a matrix product in bf16."""
    return kernel("gemm", 50.0, kind="gemm" if m > 1 else "gemv", dtype="bf16", batch=1, m=m, n=n,
                  k=k, flop=2 * m * n * k, read_weight=2.0 * n * k, read_activation=2.0 * m * k,
                  write_activation=2.0 * m * n)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A step that the clock decides, and one that waits for DRAM, as files and as workloads."""
    folder = tmp_path_factory.mktemp("made")
    steps = {
        "prompt": workload(product(4096, 4096, 4096), name="prompt"),
        "decode": workload(*[product(1, 8192, 8192)] * 3, timed(2e-5), name="decode"),
    }
    for name, w in steps.items():
        ns.save_workload(w, folder / f"{name}.parquet")
    return {name: folder / f"{name}.parquet" for name in steps}


@pytest.fixture
def power(tmp_path, monkeypatch):
    """Run the command in an empty folder."""
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    return lambda *args: CliRunner().invoke(main, ["power", *(str(a) for a in args)])


@pytest.fixture
def told(power):
    """Return the one JSON object that a command prints."""

    def run(*args):
        done = power(*args, "--json")
        assert (done.exit_code, done.stderr) == (0, "")
        assert len(done.stdout.splitlines()) == 1
        content = json.loads(done.stdout)
        assert os.listdir() == []  # noqa: PTH208
        return content

    return run


def whole(content, share, column):
    """Return a sum over all steps at one clock for all of them."""
    return sum(
        content["steps"][name] * row[column]
        for name, rows in content["modes"].items() for row in rows if row["share"] == share
    )  # fmt: skip


# ---------------------------------------------------------------- what it says


def test_each_clock_is_what_a_replay_at_that_clock_gives(told, made):
    content = told(made["prompt"], *H200, "--shares", "0.5,0.75,1")
    w, h200 = ns.load_workload(made["prompt"]), ns.load_arch("h200")
    rows = content["modes"]["prompt"]
    assert [row["share"] for row in rows] == [0.5, 0.75, 1.0]
    for row in rows:
        assert set(row) == COLUMNS
        arch = ns.with_value(h200, "units.clock", 1.98e9 * row["share"])
        alone = ns.replay(w, arch, "graph")
        assert row["clock_hz"] == pytest.approx(1.98e9 * row["share"] * row["held"])
        assert row["held"] == pytest.approx(alone.clock_share)
        for column in ("wall_s", "energy_j", "power_w"):
            assert row[column] == pytest.approx(getattr(alone, column), rel=1e-9), column
        assert row["wall_high_s"] == pytest.approx(alone.band.wall_s[1], rel=1e-9)
        low, high = alone.energy_band_j
        assert (row["energy_low_j"], row["energy_high_j"]) == pytest.approx((low, high), rel=1e-9)
        assert row["edp_js"] == pytest.approx(row["energy_j"] * row["wall_s"], rel=1e-9)
    # 1 - 0.378 x (1 - 0.5); the limit holds the others down, and their voltage with them
    slope = h200["voltage.slope"]
    ran = [row["share"] * row["held"] for row in rows]
    assert rows[0]["held"] == 1.0 > rows[2]["held"]
    assert [row["voltage"] for row in rows] == pytest.approx([1 - slope * (1 - r) for r in ran])


def test_what_was_asked_is_in_the_answer(told, made):
    content = told(f"{made['decode']}=64", made["prompt"], *H200, "--launch", "queue")
    assert (content["arch"], content["launch"]) == ("h200", "queue")
    assert content["steps"] == {"decode": 64, "prompt": 1}
    assert (content["latency_s"], content["period_s"]) == (None, None)
    assert content["model"] == model_version()
    assert "period" not in content
    assert content["sleep_w"] == pytest.approx(sleeping(ns.load_arch("h200")))
    for rows in content["modes"].values():
        assert [row["share"] for row in rows] == list(SHARES)


def test_one_step_is_counted_once_and_a_mode_is_of_one_step(told, made):
    one, many = (told(f"{made['decode']}{count}", *H200, "--shares", "0.5,1")
                 for count in ("", "=64"))  # fmt: skip
    assert one["modes"] == many["modes"]
    for figure in ("wall_s", "energy_j"):
        assert many["chosen"]["together"][figure] == pytest.approx(
            64 * one["chosen"]["together"][figure]
        )


def test_a_setting_changes_the_machine(told, made):
    plain = told(made["decode"], *H200, "--shares", "1")
    idle = told(made["decode"], *H200, "--shares", "1", "--set", "power.rest=166 W")
    (row,), (more,) = plain["modes"]["decode"], idle["modes"]["decode"]
    assert more["energy_j"] - row["energy_j"] == pytest.approx(100 * row["wall_s"], rel=1e-9)
    asleep = told(made["decode"], *H200, "--shares", "1", "--set", "power.sleep=20 W")
    assert (asleep["sleep_w"], asleep["modes"]) == (20.0, plain["modes"])


# ---------------------------------------------------------------- what it chooses


def test_without_a_latency_energy_alone_counts(told, made):
    content = told(made["prompt"], f"{made['decode']}=4", *H200)
    chosen = content["chosen"]
    best = min(SHARES, key=lambda share: whole(content, share, "energy_j"))
    assert set(chosen["together"]["shares"].values()) == {best}
    for name, rows in content["modes"].items():
        least = min(rows, key=lambda row: row["energy_j"])
        assert chosen["each"]["shares"][name] == least["share"]
    assert chosen["each"]["energy_j"] <= chosen["together"]["energy_j"]


def test_within_a_latency_the_upper_end_of_all_steps_counts(told, made):
    asked = (made["prompt"], f"{made['decode']}=4", *H200, "--shares", "0.4,0.6,0.8,1")
    free = told(*asked)
    limit = (whole(free, 0.8, "wall_high_s") + whole(free, 0.6, "wall_high_s")) / 2
    content = told(*asked, "--latency", f"{limit!r} s")
    assert content["latency_s"] == pytest.approx(limit)
    fits = [share for share in (0.4, 0.6, 0.8, 1.0) if whole(free, share, "wall_high_s") <= limit]
    assert fits == [0.8, 1.0]
    together, each = content["chosen"]["together"], content["chosen"]["each"]
    best = min(fits, key=lambda share: whole(free, share, "energy_j"))
    assert set(together["shares"].values()) == {best}
    assert together["wall_s"] == pytest.approx(whole(free, best, "wall_s"))
    rows = {(name, row["share"]): row for name, of in free["modes"].items() for row in of}
    picks = [
        (p["energy_j"] + 4 * d["energy_j"], a, b)
        for (n, a), p in rows.items() if n == "prompt"
        for (m, b), d in rows.items() if m == "decode"
        and p["wall_high_s"] + 4 * d["wall_high_s"] <= limit
    ]  # fmt: skip
    energy, a, b = min(picks)
    assert each["shares"] == {"prompt": a, "decode": b}
    assert each["energy_j"] == pytest.approx(energy)
    assert each["energy_j"] <= together["energy_j"]


@pytest.mark.parametrize("sleep", ["0 W", "400 W"])
def test_over_a_period_the_rest_is_spent_asleep(told, made, sleep):
    asked = (made["prompt"], f"{made['decode']}=4", *H200, "--shares", "0.4,0.6,0.8,1")
    free = told(*asked)
    period = (whole(free, 0.4, "wall_s") + whole(free, 0.6, "wall_s")) / 2  # too short for 0.4
    content = told(*asked, "--period", f"{period!r} s", "--set", f"power.sleep={sleep}")
    watts = float(sleep.split()[0])
    joules = {
        share: whole(free, share, "energy_j") + watts * (period - whole(free, share, "wall_s"))
        for share in (0.6, 0.8, 1.0)
    }
    found = content["period"]
    assert content["period_s"] == pytest.approx(period)
    assert (found["race_to_idle"]["share"], found["slow_and_steady"]["share"]) == (1.0, 0.6)
    assert found["best"]["share"] == min(joules, key=joules.get)
    for one in found.values():
        assert one["energy_j"] == pytest.approx(joules[one["share"]], rel=1e-9)


def test_racing_wins_where_being_up_costs_and_pacing_where_it_does_not(told, made):
    asked = (made["prompt"], *H200, "--period", "10 ms", "--set", "power.sleep=0 W", "--set")
    race, pace = (told(*asked, f"power.rest={watts} W")["period"] for watts in (1000, 0))
    assert race["best"] == race["race_to_idle"] == {**race["best"], "share": 1.0}
    assert pace["best"]["share"] < 1.0
    assert pace["best"]["energy_j"] < pace["race_to_idle"]["energy_j"]


def test_what_is_printed_is_what_is_told(power, told, made):
    asked = (made["prompt"], f"{made['decode']}=64", *H200, "--shares", "0.5,1",
             "--period", "1 s", "--latency", "500 ms")  # fmt: skip
    done, content = power(*asked), told(*asked)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert sum("prompt on h200, graph launch" in line for line in lines) == 1
    assert any("decode on h200, graph launch" in line and "of 64" in line for line in lines)
    assert sum(line.startswith("0.5 ") for line in lines) == 2
    (one,) = [line for line in lines if "one clock" in line]
    assert f"{next(iter(content['chosen']['together']['shares'].values())):.3g};" in one
    assert "500 ms" in one
    assert any("a clock for each" in line for line in lines)
    assert any("racing to idle" in line and "1 s" in line for line in lines)


# ---------------------------------------------------------------- bad input


BAD = [
    (["{made}=0"], ["out of bounds", "'0'", "1 to 1000000"]),
    (["{made}=1000001"], ["out of bounds", "1 to 1000000"]),
    (["{made}=" + "9" * 5000], ["out of bounds", "1 to 1000000"]),
    (["{made}=²"], ["²"]),
    (["{made}=-3"], ["no such file", "-3"]),
    (["{made}=1.5"], ["no such file"]),
    (["{made}=many"], ["no such file"]),
    (["{made}", "{made}=2"], ["a workload is given twice", "decode"]),
    (["nosuch"], ["no such workload", "nosuch", "paddleocr_vl_decode"]),
    (["{made}", "--arch", "h2000"], ["no such arch", "h2000"]),
    (["{made}", "--arch", "mi300x"], ["mi300x", "says too little", "technology.node"]),
    (["{made}", "--shares", ""], ["--shares", "not a list of numbers"]),
    (["{made}", "--shares", "0.5,,1"], ["--shares", "not a list of numbers"]),
    (["{made}", "--shares", "half"], ["--shares", "not a list of numbers", "half"]),
    (["{made}", "--shares", "1,1.0"], ["--shares", "given twice"]),
    (["{made}", "--shares", "0"], ["0", "0.05 to 2"]),
    (["{made}", "--shares", "-1,1"], ["-1", "0.05 to 2"]),
    (["{made}", "--shares", "3"], ["3", "0.05 to 2"]),
    (["{made}", "--shares", "nan"], ["nan", "0.05 to 2"]),
    (["{made}", "--shares", "inf"], ["inf", "0.05 to 2"]),
    (["{made}", "--latency", "3"], ["--latency", "no unit"]),
    (["{made}", "--latency", "3 W"], ["--latency", "wrong unit"]),
    (["{made}", "--latency", "soon"], ["--latency", "not a quantity"]),
    (["{made}", "--latency", "0 s"], ["--latency", "out of bounds"]),
    (["{made}", "--latency", "-3 ms"], ["--latency", "out of bounds"]),
    (["{made}", "--latency", "1 us"], ["--latency", "no clock is fast enough", "or more"]),
    (["{made}", "--period", "3"], ["--period", "no unit"]),
    (["{made}", "--period", "0 s"], ["--period", "out of bounds"]),
    (["{made}", "--period", "1 us"], ["--period", "no clock is fast enough"]),
    (["{made}", "--set", "power.sleep"], ["--set", "not path=value"]),
    (["{made}", "--set", "power.slep=20 W"], ["--set", "unknown parameter", "power.sleep"]),
    (["{made}", "--set", "power.sleep=20"], ["power.sleep", "no unit"]),
    (["{made}", "--set", "power.sleep=-1 W"], ["power.sleep", "out of bounds"]),
    (["{made}", "--set", "power.sleep=1 W", "--set", "power.sleep=2 W"], ["given twice"]),
    (["{made}", "--set", "workload.context=4096"], ["workload.context", "not the machine"]),
    (["{made}", "--set", "area.die=400 mm2"], ["area.die", "no cost model"]),
]


@pytest.mark.parametrize(("args", "words"), BAD, ids=[" ".join(a)[:60] for a, _ in BAD])
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_bad_input_is_one_line_and_nothing_is_printed(power, made, args, words, as_json):
    args = [arg.replace("{made}", str(made["decode"])) for arg in args]
    args += H200 if "--arch" not in args else []
    done = power(*args, *(["--json"] if as_json else []))
    assert isinstance(done.exception, SystemExit), done.exception
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert os.listdir() == []  # noqa: PTH208


def test_too_many_combinations_of_clocks_are_refused(power, made, tmp_path):
    files = []
    for i in range(6):
        files.append(tmp_path / f"w{i}.parquet")
        ns.save_workload(workload(timed(1e-5), name=f"w{i}"), files[-1])
    done = power(*files, *H200)  # 13 clocks to the 6th
    assert (done.exit_code, done.stdout) == (1, "")
    assert "too many combinations" in done.stderr
    assert "fewer --shares" in done.stderr


@pytest.mark.parametrize("args", [[], ["{made}"], ["{made}", *H200, "--launch", "warp"],
                                  ["{made}", *H200, "--jsn"]], ids=len)  # fmt: skip
def test_bad_usage_is_status_2(power, made, args):
    done = power(*(arg.replace("{made}", str(made["decode"])) for arg in args))
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Usage: " in done.stderr
