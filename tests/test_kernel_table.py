import csv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.errors import InputError, NpusimError
from npusim.importers import import_trace, kernel_table, sums

TABLE = """kernel,calls,total_us,pct_gpu,avg_us,comment
"gemv<256,4>",3,0.1,60.0,0.033,"weights, in bf16"
memcpy DTOD(device),2,5,24.5,2.5,
"""


@pytest.fixture
def given_text(tmp_path):
    """Import a text as a file."""

    def run(text):
        path = tmp_path / "hotspots.csv"
        path.write_text(text, newline="")
        return import_trace(path)

    return run


def test_a_table_is_laid_end_to_end(given_text):
    w = given_text(TABLE)
    assert w.text("kernel").tolist() == ["gemv<256,4>"] * 3 + ["memcpy DTOD(device)"] * 2
    assert w.text("kind").tolist() == ["gemv"] * 3 + ["memcpy"] * 2
    assert w["duration_s"].tolist() == [33.333e-9, 33.333e-9, 33.334e-9, 2.5e-6, 2.5e-6]
    assert w.steps.wall_s.tolist() == [5.1e-6]
    assert not w.classified.any()  # how much was copied is not in the table
    assert w.meta["note"] == "kernel sums: order and spread unknown"
    assert (w.meta["format"], w.meta["host"], w.meta["listed_percent"]) == (
        "kernel_table", "unknown", 84.5)  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "name,count,total_ms\na,2,3\n",
        "Name,Instances,Total (ms)\r\na,2,3\r\n",
        "\ufeffkernel,calls,total_s\na,2,0.003\n",
        "kernel,calls,total_ns\na,2,\"3,000,000\"\n",
        "kernel,calls,Total Time (us)\na,2,3e3\n",
        "kernel,calls,avg_us\na,2,1500\n",
        "kernel,calls,total_us,avg_us\na,2,,1500\n",
        "kernel,calls,total_us,avg_us\na,2,3000,1\n",  # the total counts
        "Hotspots of a run\n\nkernel,calls,total_us\n\na,2,3000\n",
        "kernel,calls,total_us,share (%)\na,2,3000,most\n",
    ],
)  # fmt: skip
def test_one_table_in_many_spellings(given_text, text):
    w = given_text(text)
    assert w["duration_s"].tolist() == [1.5e-3, 1.5e-3]
    assert "listed_percent" not in w.meta


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE.replace(",3,", ",three,"), "line 2, calls: not a number: 'three'"),
        (TABLE.replace(",3,", ",-3,"), "line 2, calls: out of range: '-3'"),
        (TABLE.replace(",3,", ",,"), "line 2, calls: no count"),
        (TABLE.replace(",3,", ",10000000,"), "line 2: too many kernel calls to lay out"),
        (TABLE.replace("0.1", "-0.1"), "line 2, total_us: out of range: '-0.1'"),
        (TABLE.replace("0.1", "NaN"), "line 2, total_us: not a number: 'NaN'"),
        (TABLE.replace("0.1", "1e50"), "line 2, total_us: out of range"),
        (TABLE.replace("memcpy DTOD(device)", " "), "line 3, kernel: no name"),
        (TABLE[:-8], "line 3: row is cut short or damaged: '4 cells' (allowed: 6)"),
        (TABLE.replace('bf16"', "bf16"), "not CSV"),
        ("kernel,calls,total_us,avg_us\na,2,,\n", "line 2, avg_us: no time"),
        ("kernel,calls,avg_us\na,900000,1e9\n", "out of range"),
        ("kernel,calls,total_us\n", "no kernels"),
        ("kernel,calls,total\na,1,2\n", "not a supported trace"),  # of what unit?
        ("kernel,calls,total_weeks\na,1,2\n", "not a supported trace"),
        ("kernel,total_us\na,2\n", "not a supported trace"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table(given_text, text, message):
    with pytest.raises(InputError) as raised:
        given_text(text)
    assert "hotspots.csv: " in str(raised.value)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 12),
                  st.text(max_size=4) | st.sampled_from(
                      [",", '"', "\n", "\r", "-1", "nan", "1e9", "\0", "999999999", "\ufeff"])),
        min_size=1, max_size=4,
    ),
)  # fmt: skip
def test_any_text_is_refused_or_read(tmp_path, monkeypatch, changes):
    monkeypatch.setattr(sums, "MOST_CALLS", 1000)
    text = TABLE
    for where, length, new in changes:
        at = int(where * len(text))
        text = text[:at] + new + text[at + length :]
    path = tmp_path / "mutated.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        w = kernel_table.read(path, "x")
    except NpusimError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
    else:
        assert len(w) <= 1000
        assert (w["duration_s"] >= 0).all()


@pytest.mark.shared
def test_paddleocr_vl_on_a_c500(shared):
    path = shared / "facts" / "paddleocr_vl_c500_kernels.csv"
    w = import_trace(path)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(w) == sum(int(r["calls"]) for r in rows)
    assert w["duration_s"].sum() == pytest.approx(sum(int(r["total_us"]) for r in rows) * 1e-6)
    assert w.mask("kind", "gemv").sum() == 5903 + 2952 + 2952 + 164
    assert w.mask("kind", "attention").sum() == 2952 + 27
    assert w.mask("kind", "splitk_reduce").sum() == w.mask("kind", "norm").sum() == 5903
    assert not w.mask("kind", "unknown").any()
    assert w.meta["listed_percent"] == pytest.approx(84.0)
