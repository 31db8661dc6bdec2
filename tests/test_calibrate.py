"""Calibration: known parameters are found again, and the record says what happened."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim import measured
from npusim.arch import Designs, Provenance
from npusim.bands import from_record
from npusim.calibrate import calibrate, residuals, unpublished
from npusim.calibration_file import exact, write
from npusim.errors import InputError
from npusim.fit import Fit, Variable
from npusim.measured import period
from npusim.units import parse
from tests.test_measured import AXES, LINEAR, read

FLOOR, SHARE = "floor.matmul", "memories.dram.efficiency"
BOUNDS = {FLOOR: (1e-7, 1e-4), SHARE: (0.1, 1.0)}


@pytest.fixture
def simple(monkeypatch):
    """A model that can be worked out by hand: floor + bytes of weights / (bandwidth x share)."""

    def time(o, d):
        rate = d["memories.dram.bandwidth"] * d[SHARE]
        return d[FLOOR] + o["read_weight"][:, None] / rate

    monkeypatch.setattr(period, "kernel_time", time)


@pytest.fixture
def h200():
    return ns.load_arch("h200")


def layers(folder, arch, sizes=(256, 1024, 4096, 16384, 65536), times=1):
    """Return layers with weights of 2 kB a row, timed exactly as the model of a machine says."""
    rows = [{**LINEAR, "n": n, "k": 1024, "launch": "kernel"} for n in sizes for _ in range(times)]
    m = read(folder, *rows)
    return replace(m, seconds=period.predicted(m, Designs(arch))[:, 0])


def found(calibration, path, machine="h200"):
    return next(f for f in calibration.of(machine) if f.path == path)


def test_known_parameters_are_found_again(simple, h200, tmp_path):
    truth = ns.with_value(ns.with_value(h200, FLOOR, 2e-6), SHARE, 0.5)
    m = layers(tmp_path, truth)
    c = calibrate([(m, h200)], [FLOOR, SHARE], bounds=BOUNDS)
    assert found(c, FLOOR).after == pytest.approx(2e-6, rel=1e-4)
    assert found(c, SHARE).after == pytest.approx(0.5, rel=1e-4)
    assert c.free == 2
    assert c.after.worst_ape < 1e-3 < c.before.worst_ape
    assert c.archs[0][FLOOR] == found(c, FLOOR).after
    assert c.archs[0].provenance[FLOOR].kind == "calibrated"
    assert "5 rows of table.csv on h200 (linear)" in c.archs[0].provenance[FLOOR].source
    assert c.archs[0].provenance["units.count"] == h200.provenance["units.count"]


def test_outliers_do_not_decide(simple, h200, tmp_path):
    truth = ns.with_value(ns.with_value(h200, FLOOR, 2e-6), SHARE, 0.5)
    m = layers(tmp_path, truth, times=5)
    wrong = m.seconds * np.where(np.arange(len(m)) % 5 == 0, 3.0, 1.0)
    c = calibrate([(replace(m, seconds=wrong), h200)], [FLOOR, SHARE], bounds=BOUNDS)
    assert found(c, FLOOR).after == pytest.approx(2e-6, rel=0.05)
    assert found(c, SHARE).after == pytest.approx(0.5, rel=0.05)
    plain = calibrate([(replace(m, seconds=wrong), h200)], [FLOOR, SHARE], bounds=BOUNDS,
                      loss="linear")  # fmt: skip
    # least squares of logarithms meets in the middle: a fifth of log 3 too slow
    ratio = found(plain, FLOOR).after / 2e-6
    assert ratio == pytest.approx(3 ** (1 / 5), rel=1e-3)


def test_machines_of_one_family_share_a_value_that_another_does_not(h200, tmp_path):
    """Three machines, a floor of 2 us in one family and of 3 us in the other, one share for all."""
    names, floors = ("h200", "h100", "a100"), (2e-6, 2e-6, 3e-6)
    pairs = []
    for name, floor in zip(names, floors, strict=True):
        arch = replace(ns.load_arch(name), name=name)
        truth = ns.with_value(ns.with_value(arch, FLOOR, floor), SHARE, 0.6)
        pairs.append((layers(tmp_path, truth), arch))
    kin = {"h200": "new", "h100": "new", "a100": "old"}
    c = calibrate(pairs, [FLOOR, SHARE], families=kin, by_family=[FLOOR], bounds=BOUNDS)
    assert c.free == 3
    assert [found(c, FLOOR, n).after for n in names] == pytest.approx(floors, rel=1e-3)
    assert [found(c, SHARE, n).after for n in names] == pytest.approx([0.6] * 3, rel=1e-3)
    assert found(c, FLOOR).after == found(c, FLOOR, "h100").after
    assert found(c, FLOOR).shared and not found(c, FLOOR, "a100").shared
    # with one floor for all, one of them is wrong
    one = calibrate(pairs, [FLOOR, SHARE], bounds=BOUNDS)
    assert one.free == 2 and 2e-6 < found(one, FLOOR).after < 3e-6


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"families": {"h200": "new"}, "by_family": [FLOOR]}, "of no family"),
        ({"by_family": ["gemm.fill"]}, "gemm.fill: families share its value"),
        ({"by_family": [FLOOR], "own": [FLOOR]}, "not for each machine"),
    ],
)
def test_families_that_cannot_be_are_refused(h200, tmp_path, more, words):
    other = replace(ns.load_arch("h100"), name="h100")
    pairs = [(layers(tmp_path, a), a) for a in (h200, other)]
    with pytest.raises(InputError, match=words):
        calibrate(pairs, [FLOOR, SHARE], bounds=BOUNDS, **more)


def test_a_shared_value_is_one_and_own_values_are_two(simple, h200, tmp_path):
    other = replace(ns.load_arch("h100"), name="h100")
    one, two = (ns.with_value(ns.with_value(a, FLOOR, 2e-6), SHARE, s)
                for a, s in ((h200, 0.4), (other, 0.8)))  # fmt: skip
    pairs = [(layers(tmp_path, truth), a) for truth, a in ((one, h200), (two, other))]
    c = calibrate(pairs, [FLOOR, SHARE], own=[SHARE], bounds=BOUNDS)
    assert c.free == 3
    assert found(c, FLOOR).after == found(c, FLOOR, "h100").after == pytest.approx(2e-6, rel=1e-3)
    assert found(c, FLOOR).shared and not found(c, SHARE).shared
    assert found(c, SHARE).after == pytest.approx(0.4, rel=1e-3)
    assert found(c, SHARE, "h100").after == pytest.approx(0.8, rel=1e-3)
    assert [a.name for a in c.archs] == ["h200", "h100"]
    assert calibrate(pairs, [FLOOR, SHARE], shared=False, bounds=BOUNDS).free == 4
    together = calibrate(pairs, [SHARE], bounds=BOUNDS)
    assert together.free == 1
    assert 0.4 < found(together, SHARE).after < 0.8


def test_several_tables_of_one_machine_are_fitted_as_one(simple, h200, tmp_path):
    truth = ns.with_value(h200, FLOOR, 2e-6)
    pairs = [(layers(tmp_path, truth, sizes), h200) for sizes in ((256, 512), (1024,))]
    c = calibrate(pairs, [FLOOR], shared=False, bounds=BOUNDS)
    assert (c.free, len(c.archs), c.after.n) == (1, 1, 3)
    assert not found(c, FLOOR).shared and len(c.fitted) == 1
    assert found(c, FLOOR).after == pytest.approx(2e-6, rel=1e-4)


def test_bounds_hold_and_are_told(simple, h200, tmp_path):
    m = layers(tmp_path, ns.with_value(h200, FLOOR, 2e-6))
    held = {**h200.provenance, FLOOR: Provenance("by hand", "measured", 3e-6, 6e-6)}
    narrow = replace(ns.with_value(h200, FLOOR, 4e-6), provenance=held)
    f = found(calibrate([(m, narrow)], [FLOOR]), FLOOR)
    assert (f.before, f.low, f.high) == (4e-6, 3e-6, 6e-6)
    assert f.at_bound and f.after == pytest.approx(3e-6)
    assert (
        f.why == "5 of 5 measured times depend on it; at its bound: the measurements ask for more"
    )
    free = found(calibrate([(m, narrow)], [FLOOR], bounds={FLOOR: (1e-7, 1e-4)}), FLOOR)
    assert not free.at_bound


def test_without_a_range_the_declared_bounds_hold(simple, h200, tmp_path):
    plain = ns.with_value(h200, SHARE, 0.9)  # a point
    m = layers(tmp_path, ns.with_value(h200, SHARE, 0.3))
    f = found(calibrate([(m, plain)], [SHARE]), SHARE)
    assert (f.low, f.high) == (1e-3, 1)
    assert f.after == pytest.approx(0.3, rel=1e-3)


def test_what_no_measurement_depends_on_is_left_as_it_was(simple, h200, tmp_path):
    m = layers(tmp_path, ns.with_value(h200, FLOOR, 2e-6))
    c = calibrate([(m, h200)], [FLOOR, "floor.sort"], bounds=BOUNDS)
    f = found(c, "floor.sort")
    assert c.free == 1
    assert f.before == f.after == c.archs[0]["floor.sort"]
    assert not f.is_fitted and math.isnan(f.standard_error)
    assert f.why == "left as it was: no measured time depends on it"
    assert c.archs[0].provenance["floor.sort"] == h200.provenance["floor.sort"]
    content = json.loads(json.dumps(c.as_dict(), allow_nan=False))
    told = {f["path"]: f["standard_error"] for f in content["fitted"]}
    assert told["floor.sort"] is None and told[FLOOR] is not None
    assert (content["free"], content["after"]["n"], content["residuals"]["gemv"]["n"]) == (1, 5, 5)
    with pytest.raises(InputError, match="no measured time depends on what is to be fitted"):
        calibrate([(m, h200)], ["floor.sort"])


def test_what_counts_in_steps_is_left_where_it_was(monkeypatch, h200, tmp_path):
    def time(o, d):  # a whole number of microseconds, beside the floor
        return d[FLOOR] + 1e-6 * np.ceil(d["floor.sort"] * 1e6) + 0 * o["m"][:, None]

    monkeypatch.setattr(period, "kernel_time", time)
    steps = ns.with_value(h200, "floor.sort", 2.3456789e-6)
    m = layers(tmp_path, ns.with_value(steps, FLOOR, 2e-6))
    for low in (1e-7, 2.3456789e-6):  # also on its bound
        c = calibrate([(m, steps)], [FLOOR, "floor.sort"],
                      bounds={**BOUNDS, "floor.sort": (low, 1e-5)})  # fmt: skip
        f = found(c, "floor.sort")
        assert f.after == f.before == c.archs[0]["floor.sort"] == 2.3456789e-6
        assert not f.at_bound and f.why.endswith("in steps that no gradient sees: left as it was")
        assert found(c, FLOOR).after == pytest.approx(2e-6, rel=1e-3)
        assert c.free == 1


def test_the_standard_error_of_a_mean_by_hand(simple, h200, tmp_path):
    # without a floor, log time is -log share + what is known: the fit is the mean of N logs, whose
    # standard error is s / sqrt(N), with s^2 = sum of squares / (N - 1)
    bare = ns.with_value(h200, FLOOR, 0.0)
    m = layers(tmp_path, ns.with_value(bare, SHARE, 0.5), sizes=(64, 128, 256, 512))
    noise = np.array([0.02, -0.02, 0.01, -0.01])
    m = replace(m, seconds=m.seconds * np.exp(noise))
    f = found(calibrate([(m, bare)], [SHARE], bounds=BOUNDS, loss="linear"), SHARE)
    assert f.after == pytest.approx(0.5, rel=1e-3)
    assert f.standard_error == pytest.approx(0.5 * math.sqrt((noise**2).sum() / 3 / 4), rel=1e-3)


def test_one_measurement_tells_no_standard_error(simple, h200, tmp_path):
    m = layers(tmp_path, ns.with_value(h200, FLOOR, 2e-6), sizes=(256,))
    c = calibrate([(m, h200)], [FLOOR], bounds=BOUNDS)
    assert math.isnan(found(c, FLOOR).standard_error)
    assert found(c, FLOOR).is_fitted
    p = c.archs[0].provenance[FLOOR]
    assert (p.low, p.high) == BOUNDS[FLOOR]  # nothing better is known


def test_the_effect_of_a_parameter_by_hand(simple, h200, tmp_path):
    # all is floor: put back from 2 to 4 us every prediction doubles, an error of 100 %
    bare = ns.with_value(h200, FLOOR, 4e-6)
    m = layers(tmp_path, ns.with_value(bare, FLOOR, 2e-6), sizes=(1, 1, 1))
    f = found(calibrate([(m, bare)], [FLOOR], bounds=BOUNDS), FLOOR)
    assert f.effect == pytest.approx(1.0, rel=2e-3)


def test_a_parameter_of_zero_can_be_fitted(simple, h200, tmp_path):
    zero = ns.with_value(h200, FLOOR, 0.0)
    m = layers(tmp_path, ns.with_value(h200, FLOOR, 2e-6))
    f = found(calibrate([(m, zero)], [FLOOR], bounds={FLOOR: (0.0, 1e-5)}), FLOOR)
    assert f.after == pytest.approx(2e-6, rel=1e-3)


@given(st.floats(5e-7, 2e-5), st.floats(0.15, 0.95), st.integers(0, 5))
def test_the_jacobian_is_that_of_the_formula(floor, share, seed):
    # d log(f + b / (B s)) / d log f = f / t, and / d log s = -b / (B s) / t
    h200 = ns.load_arch("h200")
    m = measured.read(AXES)
    m = m.take(m.op == "linear").take(np.random.default_rng(seed).permutation(50))
    m = replace(m, units=np.full(50, np.nan), launch=np.full(50, "kernel", dtype=object))

    def time(o, d):
        return d[FLOOR] + o["read_weight"][:, None] / (d["memories.dram.bandwidth"] * d[SHARE])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(period, "kernel_time", time)
        fit = Fit([(m, h200)], [Variable(FLOOR, (0,), 1e-7, 1e-6, 1e-4),
                                Variable(SHARE, (0,), 0.1, 0.5, 1.0)])  # fmt: skip
        x = np.log([floor, share])
        jacobian = fit._jacobian(x, np.log([1e-7, 0.1]), np.log([1e-4, 1.0]))
    memory = m.operations["read_weight"] / (4.8e12 * share)
    t = floor + memory
    assert jacobian[:, 0] == pytest.approx(floor / t, abs=1e-6)
    assert jacobian[:, 1] == pytest.approx(-memory / t, abs=1e-6)


def test_more_starts_are_never_worse(simple, h200, tmp_path):
    truth = ns.with_value(ns.with_value(h200, FLOOR, 2e-6), SHARE, 0.5)
    m = layers(tmp_path, truth)
    wobbly = replace(m, seconds=m.seconds * [1.1, 0.9, 1.2, 1.0, 0.8])
    fit = Fit([(wobbly, h200)], [Variable(FLOOR, (0,), 1e-7, 9e-5, 1e-4),
                                 Variable(SHARE, (0,), 0.1, 0.11, 1.0)])  # fmt: skip

    def cost(end):
        z = (fit.residuals(end.values[:, None])[:, 0] / 0.1) ** 2
        return float(np.sum(2 * (np.sqrt(1 + z) - 1)))

    one, three = (cost(fit.solve("soft_l1", n, seed=1)) for n in (1, 3))
    assert three <= one * (1 + 1e-9)
    again = fit.solve("soft_l1", 3, seed=1)
    assert again.values.tolist() == fit.solve("soft_l1", 3, seed=1).values.tolist()


def test_what_is_left_by_kind_by_hand(simple, h200, tmp_path):
    m = layers(tmp_path, h200, sizes=tuple(range(100, 111)))
    m = replace(m, seconds=m.seconds * np.linspace(0.9, 1.1, 11))
    left = residuals([(m, h200)])
    assert list(left) == ["gemv"]
    r = left["gemv"]
    assert (r.n, r.p10, r.p50, r.p90) == (11, *(pytest.approx(x) for x in (0.92, 1.0, 1.08)))
    assert r.domain["n"] == (100, 110) and r.domain["m"] == (1, 1) and r.domain["k"] == (1024,) * 2
    assert r.domain["bytes"] == (2 * (100 * 1024 + 1024 + 100), 2 * (110 * 1024 + 1024 + 110))
    assert r.domain["units.count"] == (132, 132)
    assert r.domain["memories.dram.bandwidth"] == (4.8e12, 4.8e12)
    some = replace(m, units=np.where(np.arange(11) < 3, 8.0, np.nan))
    a100 = ns.load_arch("a100")
    both = residuals([(some, h200), (m, a100)])["gemv"]
    assert both.n == 22
    assert both.domain["units.count"] == (8, 132)
    assert both.domain["memories.dram.bandwidth"] == (a100["memories.dram.bandwidth"], 4.8e12)


@pytest.mark.parametrize(
    ("free", "more", "told"),
    [
        ([], {}, "nothing to fit"),
        (["floor.mat"], {}, "unknown parameter: 'floor.mat'"),
        (["units.count"], {}, "takes whole numbers only"),
        ([FLOOR, FLOOR], {}, "parameter given twice"),
        (["matrix.fp32.rate"], {}, "the machine does not have"),
        ([FLOOR], {"loss": "l2"}, r"unknown loss: 'l2' \(allowed: linear, soft_l1"),
        ([FLOOR], {"starts": 0}, "too few starts"),
        ([FLOOR], {"bounds": {FLOOR: (2e-6, 2e-6)}}, "has no bounds that hold for every machine"),
        ([FLOOR], {"bounds": {FLOOR: (1e-6, 1.0)}}, "out of bounds"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(simple, h200, tmp_path, free, more, told):
    m = layers(tmp_path, h200)
    with pytest.raises(InputError, match=told) as caught:
        calibrate([(m, h200)], free, **more)
    assert "\n" not in str(caught.value)


def test_there_must_be_as_many_measurements_as_parameters(simple, h200, tmp_path):
    m = layers(tmp_path, h200, sizes=(256,))
    with pytest.raises(
        InputError, match=r"fewer measurements than param.*: 1 \(allowed: 2 or more"
    ):
        calibrate([(m, h200)], [FLOOR, SHARE])


def test_what_is_fitted_by_default_is_what_nobody_published(h200):
    paths = unpublished(h200)
    assert FLOOR in paths
    assert not {"units.count", "memories.dram.bandwidth", "area.die"} & set(paths)
    assert all(h200.provenance[p].kind in ("calibrated", "assumed") for p in paths)


def test_there_must_be_measurements_and_one_machine_of_a_name(simple, h200, tmp_path):
    m = layers(tmp_path, h200)
    with pytest.raises(InputError, match="nothing to fit to"):
        calibrate([], [FLOOR])
    with pytest.raises(InputError, match="two machines of one name: 'h200'"):
        calibrate([(m, h200), (m, ns.with_value(h200, SHARE, 0.5))], [FLOOR])


def test_a_calibrated_machine_is_written_and_read_as_it_is(simple, h200, tmp_path):
    truth = ns.with_value(ns.with_value(h200, FLOOR, 2e-6), SHARE, 0.5)
    m = layers(tmp_path, truth, times=3)
    m = replace(m, seconds=m.seconds * np.linspace(0.95, 1.05, len(m)))
    c = calibrate([(m, h200)], [FLOOR, SHARE, "floor.sort"], bounds=BOUNDS)
    path = tmp_path / "mine.yaml"
    write(c, "h200", path)
    again = ns.load_arch(path)
    assert again.values == c.archs[0].values
    assert again.provenance == c.archs[0].provenance
    assert (again.title, again.devices, again.note) == (h200.title, h200.devices, h200.note)
    record = yaml.safe_load(path.read_text())["calibration"]
    assert record["free"] == 2
    assert record["measured"] == ["15 rows of table.csv on h200 (linear)"]
    told = record["parameters"][FLOOR]
    assert parse(told["before"], "s") == h200[FLOOR]
    assert parse(told["after"], "s") == again[FLOOR]
    assert [parse(b, "s") for b in told["bounds"]] == list(BOUNDS[FLOOR])
    assert record["parameters"]["floor.sort"]["standard_error"] is None
    kept = from_record(record["residuals"])["gemv"]
    assert kept.domain == c.residuals["gemv"].domain
    assert (kept.n, kept.p90) == (15, pytest.approx(c.residuals["gemv"].p90, rel=1e-4))
    with pytest.raises(InputError, match=r"not a machine of this calibration.*allowed: h200"):
        write(c, "h100", path)


@given(st.floats(1e-12, 1e18), st.sampled_from(["s", "B/s", "FLOP/clock", "1", "Hz", "mm2"]))
def test_text_of_a_value_reads_as_the_value(value, unit):
    assert parse(exact(value, unit), unit) == value


def test_the_shipped_experiments_make_the_shipped_machine_better():
    h200 = ns.load_arch("h200")
    m = measured.read(AXES)
    m = m.take((m.op == "linear") & np.isnan(m.units))
    c = calibrate([(m, h200)], [FLOOR, SHARE, "matrix.efficiency"],
                  bounds={SHARE: (0.5, 1.0), "matrix.efficiency": (0.3, 1.0)})  # fmt: skip
    assert c.after.median_ape < max(c.before.median_ape * 1.05, 0.05)
    assert sum(r.n for r in c.residuals.values()) == len(m)


@pytest.mark.shared
def test_published_products_of_three_machines_fit_at_once(shared, tmp_path):
    pairs = []
    for gpu, name in (("a100_sxm", "a100"), ("h100_sxm", "h100"), ("l40s", "l40s")):
        lines = (shared / f"external/aiconfigurator/aic_gemm_bf16_{gpu}.csv").read_text()
        header, *rows = lines.splitlines()
        header = header.replace("gemm_dtype", "dtype").replace("_in_loop", "")
        path = tmp_path / f"{name}.csv"
        path.write_text(
            "\n".join(["op," + header, *("linear," + row for row in rows[::20])]) + "\n"
        )
        pairs.append((measured.read(path), ns.load_arch(name)))
    c = calibrate(pairs, [FLOOR, SHARE], own=[SHARE], bounds={FLOOR: (1e-7, 1e-5),
                                                             SHARE: (0.3, 1.0)})  # fmt: skip
    assert c.free + sum(not f.is_fitted for f in c.fitted) <= 4
    assert c.after.n == 3 * 162
    assert c.after.median_ape <= c.before.median_ape * 1.1
    assert set(c.residuals) == {"gemv", "gemm"}
    assert c.residuals["gemm"].domain["units.count"][0] == 108
