"""Error bands and extrapolation, on figures worked out by hand and against sampling."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import Designs
from npusim.bands import Residual, by_kind, extrapolated, from_record, residual, total_band
from npusim.errors import InputError
from tests.builder import workload

GEMV = Residual(30, 0.8, 1.0, 1.3, {"m": (1, 1), "n": (256, 8192), "k": (256, 8192),
                                    "bytes": (1e4, 1e8), "units.count": (8, 132),
                                    "memories.l2.capacity": (6e7, 6.5e7)})  # fmt: skip
CAST = Residual(30, 0.5, 1.1, 1.5, {"bytes": (1e3, 1e9)})
BOTH = {"gemv": GEMV, "cast": CAST}
QUANTILE = 1.2815515655446004  # of the normal distribution at 0.9

amounts = st.floats(1e-9, 1.0)


def ends(by_kind, residuals, carried=0.0):
    return tuple(float(e[()] if e.ndim == 0 else e[0])
                 for e in total_band(by_kind, residuals, carried))  # fmt: skip


def test_one_kind_moves_as_one():
    assert ends({"gemv": np.array([10.0])}, BOTH) == pytest.approx((8.0, 13.0))
    assert ends({"cast": np.array([2.0])}, BOTH) == pytest.approx((1.0, 3.0))


def test_kinds_add_in_quadrature_by_hand():
    # around 10 + 2.2: up sqrt(3^2 + 0.8^2), down sqrt(2^2 + 1.2^2)
    low, high = ends({"gemv": np.array([10.0]), "cast": np.array([2.0])}, BOTH)
    assert low == pytest.approx(12.2 - np.sqrt(4 + 1.44))
    assert high == pytest.approx(12.2 + np.sqrt(9 + 0.64))


def test_what_was_measured_has_no_error():
    assert ends({"gemv": np.array([10.0])}, BOTH, 5.0) == pytest.approx((13.0, 18.0))
    assert ends({}, BOTH, 5.0) == (5.0, 5.0)


def test_a_kind_never_measured_takes_the_widest():
    assert ends({"sort": np.array([1.0])}, BOTH) == pytest.approx((0.5, 1.5))
    with pytest.raises(InputError, match="no calibration residuals"):
        total_band({"sort": np.array([1.0])}, {})


@given(amounts, amounts, amounts)
def test_bands_hold_their_middle_and_are_narrower_than_all_at_once(a, b, c):
    times = {"gemv": np.array([a]), "cast": np.array([b]), "sort": np.array([c])}
    low, high = ends(times, BOTH)
    worst = Residual(1, 0.5, 1.05, 1.5, {})
    least = sum(float(t[0]) * BOTH.get(k, worst).p10 for k, t in times.items())
    most = sum(float(t[0]) * BOTH.get(k, worst).p90 for k, t in times.items())
    assert 0 < least <= low * (1 + 1e-12) <= high <= most * (1 + 1e-9)


@given(st.lists(st.tuples(amounts, amounts), min_size=1, max_size=5))
def test_designs_do_not_see_each_other(pairs):
    gemv, cast = (np.array(column) for column in zip(*pairs, strict=True))
    low, high = total_band({"gemv": gemv, "cast": cast}, BOTH)
    for i in range(len(pairs)):
        one = ends({"gemv": gemv[i : i + 1], "cast": cast[i : i + 1]}, BOTH)
        assert (low[i], high[i]) == pytest.approx(one)


def test_quadrature_agrees_with_sampling():
    # five kinds of equal time whose logarithms are normal, p10 and p90 at a factor of 1.2
    kinds = [f"k{i}" for i in range(5)]
    wide = 1.2
    residuals = {k: Residual(9, 1 / wide, 1.0, wide, {}) for k in kinds}
    low, high = ends({k: np.array([1.0]) for k in kinds}, residuals)
    random = np.random.default_rng(0)
    sums = np.exp(random.normal(0, np.log(wide) / QUANTILE, (200_000, 5))).sum(axis=1)
    sampled = np.quantile(sums, [0.1, 0.9])
    assert low == pytest.approx(sampled[0], rel=0.02)
    assert high == pytest.approx(sampled[1], rel=0.02)
    assert (high - low) / (sampled[1] - sampled[0]) == pytest.approx(1, abs=0.05)


def test_times_by_kind():
    times = by_kind(np.array(["a", "b", "a"], object), np.array([[1.0, 2.0], [3.0, 4.0], [5, 6]]))
    assert {k: t.tolist() for k, t in times.items()} == {"a": [6.0, 8.0], "b": [3.0, 4.0]}


def test_residuals_survive_their_record():
    r = residual(np.linspace(0.9, 1.1, 11), {"m": (1.0, 4.0)})
    assert from_record({"gemm": r.as_record()}) == {"gemm": r}


def test_what_lies_outside_by_hand():
    inside = {"kind": "gemv", "m": 1, "n": 1024, "k": 1024, "read_weight": 2e6}
    large = {**inside, "n": 129280, "read_weight": 3.3e8}
    rows = workload(inside, large, {"kind": "cast", "read_activation": 1e6}, {"kind": "sort"})
    h200 = ns.load_arch("h200")
    designs = Designs(h200, {"units.count": np.array([132.0, 264.0, 8.0, 4.0])})
    found = extrapolated(rows.operations(), designs, BOTH)
    assert found.operations.tolist() == [False, True, False, True]
    assert found.designs.tolist() == [False, True, False, True]
    assert found.reasons == (
        "units.count 4 to 264, measured 8 to 132",
        "gemv: n 129280, measured 256 to 8192, 1 of 2 operations",
        "gemv: bytes 330 MB, measured 10 kB to 100 MB, 1 of 2 operations",
        "never measured: sort",
    )


def test_a_machine_outside_is_told_once_and_of_which_kinds():
    rows = workload({"kind": "gemv", "m": 1, "n": 1024, "k": 1024, "read_weight": 2e6},
                    {"kind": "cast", "read_activation": 1e6},
                    {"kind": "sort", "read_activation": 1e6}).operations()  # fmt: skip
    b200 = Designs(ns.load_arch("b200"))  # of 148 units

    def told(**of_cast):
        sort = Residual(30, 0.9, 1.0, 1.1, {"units.count": (8, 264)})
        cast = Residual(30, 0.5, 1.1, 1.5, {"units.count": of_cast["units"]})
        gemv = Residual(30, 0.8, 1.0, 1.3, {"units.count": (8, 132)})
        extra = {"sort": sort} if of_cast.get("sort") else {}
        return extrapolated(rows.take(np.arange(2 + len(extra))), b200,
                            {"gemv": gemv, "cast": cast, **extra}).reasons  # fmt: skip

    assert told(units=(8, 132)) == ("units.count 148, measured 8 to 132",)
    assert told(units=(8, 144)) == ("units.count 148, measured 8 to 132 (gemv), 8 to 144 (cast)",)
    assert told(units=(8, 132), sort=True) == ("units.count 148, measured 8 to 132 (gemv, cast)",)


def test_nothing_outside_is_nothing_said():
    rows = workload({"kind": "gemv", "m": 1, "n": 1024, "k": 1024, "read_weight": 2e6})
    found = extrapolated(rows.operations(), Designs(ns.load_arch("h200")), BOTH)
    assert not found.operations.any() and not found.designs.any() and not found.reasons


def test_attention_is_told_in_its_own_words():
    domain = {"n": (256.0, 16384.0), "m": (1.0, 1.0)}
    rows = workload({"kind": "attention", "m": 1, "n": 65536, "k": 128})
    r = {"attention": Residual(9, 0.9, 1.0, 1.1, domain)}
    found = extrapolated(rows.operations(), Designs(ns.load_arch("h200")), r)
    assert found.reasons == ("attention: context 65536, measured 256 to 16384, 1 of 1 operations",)
