"""Samples: where they lie, what they are made of, and that a seed means the same ones."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.axes import METHODS, Axis, Condition, Samples
from npusim.errors import InputError
from npusim.sweeps.run import sweep
from npusim.sweeps.sampling import drawn
from npusim.sweeps.space import Space
from npusim.transforms import transformed

H200, NPU = ns.load_arch("h200"), ns.load_arch("decode_npu")
BANDWIDTH, CLOCK = "memories.dram.bandwidth", "units.clock"


def share(values, low, high, scale):
    if scale == "log":
        return np.log(np.asarray(values) / low) / np.log(high / low)
    return (np.asarray(values) - low) / (high - low)


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize(("method", "count"), [("lhs", 50), ("sobol", 64)])
def test_each_slice_of_a_range_holds_one_sample(method, count, scale):
    axes = {BANDWIDTH: Axis((1e12, 8e12), scale, steps=False),
            CLOCK: Axis((1e9, 3e9), scale, steps=False)}  # fmt: skip
    found = drawn(axes, Samples(count, method, seed=5))
    for path, axis in axes.items():
        slices = share(found[path], *axis.values, scale) * count
        assert sorted(np.floor(slices).astype(int)) == list(range(count))


def test_a_sobol_sequence_fills_squares_evenly():
    axes = {BANDWIDTH: Axis((1e12, 2e12), "linear"), CLOCK: Axis((1e9, 2e9), "linear")}
    found = drawn(axes, Samples(256))
    squares = {(int((b - 1e12) // (1e12 / 8)), int((c - 1e9) // (1e9 / 8)))
               for b, c in zip(found[BANDWIDTH], found[CLOCK], strict=True)}  # fmt: skip
    assert len(squares) == 64


@given(st.sampled_from(METHODS), st.integers(1, 40), st.integers(0, 2**63 - 1))
def test_samples_stay_within_their_axes_and_a_seed_means_the_same(method, count, seed):
    axes = {
        BANDWIDTH: Axis((8e12, 1e12), "log"),
        "gemv.count": Axis((0.0, 7.0), "linear"),
        "gemv.port": Axis((0.0, 1.0)),
        "array.rows": Axis((1.0, 64.0), "log"),
        "matrix.efficiency": Axis((0.7, 0.95)),
    }
    samples = Samples(count, method, seed)
    found, again = drawn(axes, samples), drawn(axes, samples)
    for path, column in found.items():
        assert np.array_equal(column, again[path])
        assert column.shape == (count,)
        assert (column >= min(axes[path].values)).all()
        assert (column <= max(axes[path].values)).all()
    for path in ("gemv.count", "array.rows"):
        assert (found[path] == np.floor(found[path])).all()
    for path in ("gemv.port", "matrix.efficiency"):
        assert set(found[path]) <= set(axes[path].values)


@pytest.mark.parametrize("method", METHODS)
def test_another_seed_draws_other_designs(method):
    axes = {BANDWIDTH: Axis((1e12, 8e12), "log")}
    one, other = (drawn(axes, Samples(8, method, seed))[BANDWIDTH] for seed in (0, 1))
    assert not set(one) & set(other)


def test_whole_numbers_and_names_are_drawn_as_often():
    axes = {"gemv.count": Axis((0.0, 7.0), "linear"), "gemv.port": Axis((0.0, 1.0)),
            "array.dataflow": Axis((0.0, 2.0), "linear")}  # fmt: skip
    found = drawn(axes, Samples(4096))
    assert np.bincount(found["gemv.count"].astype(int)).tolist() == [512] * 8
    assert np.bincount(found["gemv.port"].astype(int)).tolist() == [2048] * 2
    assert np.bincount(found["array.dataflow"].astype(int)) == pytest.approx([4096 / 3] * 3, abs=2)


def test_a_log_range_of_whole_numbers_is_even_in_its_logarithm():
    found = drawn({"array.rows": Axis((1.0, 64.0), "log")}, Samples(4096))["array.rows"]
    # 1 to 7 of 1 to 64, each with half around it: ln(7.5 / 0.5) / ln(64.5 / 0.5) of all
    assert (found <= 7).mean() == pytest.approx(np.log(15) / np.log(129), abs=1e-3)


def test_samples_carry_nine_digits():
    column = drawn({BANDWIDTH: Axis((1e12, 8e12), "log")}, Samples(16))[BANDWIDTH]
    assert [float(f"{v:.9g}") for v in column] == column.tolist()


def test_nothing_warns_and_a_count_that_is_no_power_of_two_is_told():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        space = Space(NPU, {BANDWIDTH: Axis((1e12, 8e12), "log")}, samples=Samples(100))
        fine = Space(NPU, {BANDWIDTH: Axis((1e12, 8e12), "log")}, samples=Samples(128))
    assert space.notes == (
        "100 is no power of two: a Sobol sequence is evenest with 64 or 128",)  # fmt: skip
    assert (len(space), len(fine), fine.notes) == (100, 128, ())


def test_launch_modes_work_and_machines_are_full_factors():
    axes = {BANDWIDTH: Axis((1e12, 8e12), "log", steps=False), "workload.batch": [1, 4],
            "host.sync": [1e-6, 3e-6]}  # fmt: skip
    space = Space(H200, axes, ["graph", "queue"], beside=[NPU], samples=Samples(8))
    assert len(space) == 8 * 2 * 2 * 2
    assert space.grids == ()
    w = ns.load_workload("paddleocr_vl_decode")
    table = sweep(space, w)
    every = [part[BANDWIDTH].tolist() for _, part in
             table.groupby(["arch", "launch", "workload.batch"])]  # fmt: skip
    assert len(every) == 8
    assert all(one == every[0] for one in every)
    row = table.iloc[-1]
    arch = ns.with_value(ns.with_value(NPU, BANDWIDTH, row[BANDWIDTH]), "host.sync",
                         row["host.sync"])  # fmt: skip
    changed = transformed(w, {"workload.batch": 4.0})
    assert row["wall_s"] == pytest.approx(ns.replay(changed, arch, "queue").wall_s, rel=1e-12)


def test_designs_that_come_twice_are_left_out_and_told():
    space = Space(NPU, {"units.count": [60, 70], "host.sync": [1e-6]}, samples=Samples(64))
    assert len(space) == 2
    assert space.notes == ("62 of 64 designs drawn came twice and are left out",)


def test_axes_that_are_off_are_nominal_in_samples():
    unit = {"gemv.count": Condition(least=1.0)}
    axes = {
        "gemv.count": Axis((0.0, 70.0)),
        "gemv.width": Axis((32.0, 256.0), "log", steps=False, when=unit),
        "workload.batch": Axis((4.0, 8.0), when={"gemv.count": Condition((0.0,))}),
    }
    space = Space(NPU, axes, ["queue"], samples=Samples(64))
    # 32 with the unit, each once; without it widths do not count: one design, in two batches
    assert len(space) == 32 + 2
    table = sweep(space, ns.load_workload("paddleocr_vl_decode"))
    off = table["gemv.count"] == 0
    assert table.loc[off, "workload.batch"].tolist() == [4, 8]
    assert (table.loc[~off, "workload.batch"] == 1).all()
    assert (table.loc[off, "gemv.width"] == NPU["gemv.width"]).all()
    assert table.loc[~off, "gemv.width"].nunique() == 32
    assert not table[["gemv.count", "gemv.width", "workload.batch"]].duplicated().any()


def test_what_is_off_and_not_there_is_not_there():
    ahead = Axis((1e5, 1e6), "linear", when={"host.sync": Condition((1e-6,))})
    axes = {"prefetch.depth": ahead, "host.sync": [1e-6, 2e-6]}
    assert "prefetch.depth" not in H200.values
    for samples, count in ((None, 3), (Samples(16), 9)):
        space = Space(H200, axes, ["queue"], samples=samples)
        assert len(space) == count
        table = sweep(space, ns.load_workload("paddleocr_vl_decode"))
        off = table["host.sync"] == 2e-6
        assert off.sum() == 1
        assert table["prefetch.depth"].isna().tolist() == off.tolist()
        plain = ns.replay(ns.load_workload("paddleocr_vl_decode"),
                          ns.with_value(H200, "host.sync", 2e-6), "queue")  # fmt: skip
        assert table.loc[off, "wall_s"].iloc[0] == pytest.approx(plain.wall_s, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Samples(0), "samples.count: not a number of samples: 0 .allowed: 1 to 10000000"),
        (lambda: Samples(8, "halton"), "samples.method: unknown method: 'halton' .*sobol, lhs"),
        (lambda: Samples(8, seed=-1), "samples.seed: not a seed: -1"),
        (lambda: Space(NPU, {BANDWIDTH: Axis((1e12, 2e12), "log", steps=False)}),
         "memories.dram.bandwidth: a range without steps cannot be counted; give steps, or draw"),
        (lambda: Space(NPU, {"workload.batch": Axis((1.0, 8.0), "linear", steps=False),
                             BANDWIDTH: [1e12]}, samples=Samples(4)),
         "workload.batch: a range without steps cannot be counted; give steps$"),
        (lambda: Space(NPU, {"workload.batch": [1, 8]}, samples=Samples(4)),
         "nothing to draw samples of: 'workload.batch' .allowed: an axis of the machine"),
    ],
)  # fmt: skip
def test_samples_that_make_no_sense_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_machine_with_none_of_the_axes_is_one_design():
    axes = {"gemv.count": Axis((1.0, 70.0), "linear")}
    space = Space(NPU, axes, ["queue"], beside=[H200], samples=Samples(16, "random"))
    npu, h200 = space.parts
    assert (h200.arch.name, len(h200), dict(h200.points)) == ("h200", 1, {})
    table = sweep(space, ns.load_workload("paddleocr_vl_decode"))
    assert len(table) == len(npu) + 1
    assert table["arch"].iloc[-1] == "h200"
    plain = ns.replay(ns.load_workload("paddleocr_vl_decode"), H200, "queue")
    assert table["wall_s"].iloc[-1] == pytest.approx(plain.wall_s, rel=1e-12)
