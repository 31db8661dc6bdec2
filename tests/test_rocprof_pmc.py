import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npusim.errors import InputError, NpusimError
from npusim.importers import import_trace, importers, rocprof_pmc
from npusim.inspection import inspection

HEADER = ("Dispatch_ID,GPU_ID,Grid_Size,Workgroup_Size,LDS_Per_Workgroup,Scratch_Per_Workitem,"
          "Arch_VGPR,Accum_VGPR,SGPR,Wave_Size,Kernel_Name,SQ_INSTS,TCC_HIT_sum,TCC_MISS_sum,"
          "TCC_HIT[0],SQ_WAVES,Wave_Size_1,Start_Timestamp,End_Timestamp\n")  # fmt: skip
TABLE = HEADER + (
    '1,60633,1048576,256,512,0,4,8,16,64,"gemv(double*, int)",327680.0,30,90,5,16384.0,64,'
    "716272603605252.5,716272603621412.0\n"
    "0,60633,100,64,0,0,4,4,16,64,reduce_kernel,,0,0,5,2.0,64,716272603605252,716272603605352\n"
)


@pytest.fixture
def given_text(tmp_path):
    """Import a text as a file."""

    def run(text):
        path = tmp_path / "pmc_perf.csv"
        path.write_text(text)
        return import_trace(path)

    return run


def test_a_table_by_hand(given_text):
    w = given_text(TABLE)
    assert w.text("kernel").tolist() == ["reduce_kernel", "gemv(double*, int)"]
    assert w["duration_s"].tolist() == [100 / 1e9, 16159.5 / 1e9]
    assert w["start_s"].tolist() == pytest.approx([0, 100e-9], abs=1e-20)
    assert w.steps.wall_s.tolist() == pytest.approx([16259.5e-9])
    assert w["blocks"].tolist() == [2, 4096]
    assert w["threads"].tolist() == [64, 256]
    assert w["registers"].tolist() == [8, 12]
    assert w["shared_memory"].tolist() == [0, 512]
    assert w.counters["l2_hit_rate"][1] == 0.25
    assert w.counters["instructions"][1] == 327_680
    assert np.isnan([w.counters["l2_hit_rate"][0], w.counters["instructions"][0]]).all()
    assert w.counters["profiled_s"].tolist() == w["duration_s"].tolist()
    assert w.meta["metrics_unknown"] == {"count": 1, "first": ["SQ_WAVES"]}
    assert w.meta["counter_sources"] == {
        "l2_hit_rate": "TCC_HIT_sum / (TCC_HIT_sum + TCC_MISS_sum)", "instructions": "SQ_INSTS",
    }  # fmt: skip
    assert (w.meta["duration_basis"], w.meta["kernels"], w.meta["devices"]) == (
        "profiler replay", 2, 1)  # fmt: skip
    json.dumps(inspection(w), allow_nan=False)


def test_a_dispatch_of_two_gpus_is_two(given_text):
    w = given_text(TABLE.replace("\n0,60633", "\n1,60634"))
    assert w["stream"].tolist() == [0, 1]
    assert w.meta["devices"] == 2


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("716272603621412.0", "8.1097E+14", "End_Timestamp: time has lost its last digits"),
        ("716272603621412.0", "716272603605252", "line 2, End_Timestamp: not a duration: -0.5"),
        ("716272603621412.0", "later", "line 2, End_Timestamp: not a number: 'later'"),
        ("\n0,60633", "\n1,60633", "line 3, Dispatch_ID: dispatch is listed twice: '1'"),
        ("\n0,60633", "\n-1,60633", "line 3, Dispatch_ID: out of range: '-1'"),
        (",30,90,", ",-30,90,", "line 2, TCC_HIT_sum: out of range: '-30'"),
        (",End_Timestamp", ",Stop", "header: column is missing: 'End_Timestamp'"),
        (TABLE[len(HEADER) :], "", "no kernel dispatches"),
        (",5,2.0,64", "", "line 3: fewer values than columns"),
    ],
)
def test_damaged_tables_are_refused_with_their_place(given_text, old, new, says):
    assert old in TABLE
    with pytest.raises(InputError) as refused:
        given_text(TABLE.replace(old, new))
    assert "pmc_perf.csv" in str(refused.value)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@given(st.floats(0, 1), st.integers(0, 12), st.text(max_size=4))
def test_any_change_is_refused_or_read(tmp_path, where, length, new):
    at = int(where * len(TABLE))
    path = tmp_path / "x.csv"
    path.write_bytes((TABLE[:at] + new + TABLE[at + length :]).encode("utf-8", "surrogatepass"))
    rocprof_pmc.sniff(path)
    try:
        w = rocprof_pmc.read(path, "x")
    except NpusimError as error:
        assert "\n" not in str(error)
    else:
        assert 1 <= len(w) <= 2


def test_only_its_own_tables_are_claimed(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(TABLE)
    assert [i.FORMAT for i in importers() if i.sniff(path)] == [rocprof_pmc.FORMAT]
    path.write_text("Kernel_Name,Agent_Id,Start_Timestamp,End_Timestamp\n")
    assert not rocprof_pmc.sniff(path)
    assert not rocprof_pmc.sniff(tmp_path / "absent")


@pytest.mark.shared
def test_copies_on_an_mi300x(shared):
    """A copy of 1,048,576 doubles: 16,384 waves of 20 instructions, one read hit in three."""
    folder = shared / "external" / "rocprof_compute_mi300x"
    if not folder.is_dir():
        pytest.skip("the counters of the MI300X are not in ../shared")
    w = import_trace(folder / "dispatch_0_pmc_perf.csv")
    assert w["duration_s"].tolist() == [16_160 / 1e9, 13_680 / 1e9, 14_160 / 1e9]
    assert w["blocks"].tolist() == [4096] * 3
    assert w.counters["instructions"].tolist() == [16_384 * 20] * 3
    assert w.counters["l2_hit_rate"] == pytest.approx([1 / 3] * 3, abs=0.002)
    assert len(import_trace(folder / "no_roof_pmc_perf.csv")) == 3
    with pytest.raises(InputError, match=r"lost its last digits: '8\.1097E"):
        import_trace(folder / "vcopy_pmc_perf.csv")
