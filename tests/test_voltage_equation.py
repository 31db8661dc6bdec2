"""V = max(1 - slope (1 - f / f0), least) by hand, whatever of it a machine gives."""

import numpy as np
import pytest

from npusim.arch import Designs
from npusim.models.energy import asleep
from npusim.models.voltage import voltage
from tests.machines import machine

AT = {"voltage__clock": 2e9, "voltage__slope": 0.4}  # the units run at 1 GHz: half of it


@pytest.mark.parametrize(
    ("given", "share"),
    [
        (AT, 0.8),  # 1 - 0.4 x 0.5
        ({**AT, "voltage__least": 0.9}, 0.9),
        ({**AT, "voltage__least": 0.7}, 0.8),
        ({"voltage__clock": 2e9}, 1.0),  # no slope
        ({"voltage__slope": 0.4}, 1.0),  # quoted at no clock
        ({**AT, "voltage__clock": 0.5e9}, 1.4),  # twice the clock at which it is quoted
    ],
)
def test_voltage_at_half_the_clock(given, share):
    found = voltage(Designs(machine(**given)))
    assert found.shape == (1,)
    assert found.item() == pytest.approx(share, rel=1e-12)


def test_leakage_asleep_is_that_of_the_lowest_voltage():
    leaks = {"matrix": np.array([3.0]), "l2": np.array([5.0])}  # at 0.8 of the voltage: 8 W
    lowest = Designs(machine(**AT, voltage__least=0.6))
    assert asleep(lowest, leaks).tolist() == pytest.approx([8.0 * (0.6 / 0.8) ** 2])
    assert asleep(Designs(machine()), leaks).tolist() == [8.0]  # a machine of one voltage
