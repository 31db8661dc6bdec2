"""What a report says of where the time goes, on shares made by hand."""

import re

import pytest

from npusim.report.collect import collect
from tests.builder import workload


def few(*seconds):
    """How many kernels are said to take 80 % of device-busy time, and of how many."""
    rows = [{"kernel": f"kernel_{chr(97 + i)}", "duration_s": t} for i, t in enumerate(seconds)]
    text = collect(workload(*rows)).section("time").text[0]
    kernels, found = re.match(r"(\d+) different kernels; (\d+) of them take 80% of", text).groups()
    assert int(kernels) == len(seconds)
    return int(found)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((1,), 1),
        ((8, 2), 1),  # exactly 80 %
        ((801, 199), 1),
        ((799, 201), 2),
        ((2, 8), 1),  # the longest count, wherever they stand
        ((4, 4, 2), 2),  # exactly 80 % in two
        ((5, 3, 2), 2),
        ((1, 5, 2, 2), 3),  # 50, 70, 90 %
        ((401, 398, 201), 3),  # 40.1, 79.9, 100 %
        ((1,) * 5, 4),
        ((1,) * 10, 8),  # eight tenths as sums of 0.1 are a little less than 0.8
        ((1,) * 15, 12),
        ((1,) * 14, 12),  # 11.2 of 14
        ((0.7, 0.1, 0.1, 0.1), 2),  # 0.7 + 0.1 is not 0.8 either
        ((8e-9, 2e-9), 1),
        ((1, 0), 1),
    ],
)
def test_how_many_kernels_take_four_fifths_of_the_time(seconds, expected):
    assert few(*seconds) == expected


def test_launches_of_one_kernel_count_together():
    """Eight of ten seconds in two launches of one kernel, and two kernels of a second each."""
    rows = [{"kernel": k, "duration_s": t} for k, t in
            (("one", 4.0), ("two", 1.0), ("one", 4.0), ("three", 1.0))]  # fmt: skip
    text = collect(workload(*rows)).section("time").text[0]
    assert text.startswith("3 different kernels; 1 of them take 80% of device-busy time.")


def test_without_times_kernels_are_only_counted():
    section = collect(workload({"kernel": "one"}, {"kernel": "two"})).section("time")
    assert section.text == ("2 different kernels, by count.",)
