"""Special functions of fused kernels by hand: four units of 1 GHz, four functions a clock each."""

import numpy as np
import pytest

from npusim.arch import Designs
from npusim.models.fused import FORMS, fused_cost
from npusim.models.kernel import kernel_time
from npusim.models.routine import routine_cost
from tests.machines import machine, operations

NS = 1e-9
HELD = 32.0  # elements of four threads
VECTOR = 2.0


def of(**changes):
    numbers = {
        f"library__{form}__{name}": value
        for form in FORMS
        for name, value in {"floor": 0.5, "element": 3, "block": 0, "chain": 0}.items()
    }
    given = {"special__rate": 4, "units__threads": HELD / 8, "host__bandwidth": 1e10}
    whole = {**numbers, **given, **changes}
    return machine(**{name: value for name, value in whole.items() if value is not None})


def design(**changes):
    return Designs(of(**changes))


def chain(elements, functions, form="fused_steps", **more):
    return operations({"kind": "fused", "routine": form, "batch": 1, "m": 1, "n": elements,
                       "heads": functions, **more})  # fmt: skip


def beside_floor(row, d):
    """Return what a kernel is busy for beside its floor [ns]."""
    cost = fused_cost(row, d)
    return (cost.time - cost.floor).item() / NS


@pytest.mark.parametrize(("elements", "functions", "waves"), [
    (64, 64, 1),  # 16 elements a unit: half of what it holds
    (128, 256, 1),
    (256, 256, 2),
    (384, 384, 3),
    (384, 38400, 3),  # longer than all else: what else there is hides behind
])  # fmt: skip
@pytest.mark.parametrize("form", FORMS)
def test_functions_of_one_wave_wait_for_its_loads(form, elements, functions, waves):
    issued = 3 * elements / 4  # three cycles an element, a quarter of them on each unit
    spent = functions / 4 / 4
    both = max(issued, spent) + min(issued, spent) / waves
    assert beside_floor(chain(elements, functions, form), design()) == pytest.approx(both)


def test_transfers_are_waited_for_too():
    warm = {"read_activation": 4e3, "distance_activation": 1e4}
    row, bare = (chain(128, n, **warm) for n in (256, 0))
    d = design(**{f"library__{form}__element": 0 for form in FORMS})
    assert beside_floor(bare, d) > 10
    assert beside_floor(row, d) == pytest.approx(beside_floor(bare, d) + 256 / 16)


def test_without_functions_or_their_rate_a_chain_is_its_routine():
    row, bare = (chain(256, n, read_activation=4e3) for n in (256, 0))
    for o, d in ((bare, design()), (row, design(special__rate=None))):
        assert fused_cost(o, d).time.item() == routine_cost(bare, d).time.item()


def test_a_unit_that_holds_any_number_does_all_in_one_wave():
    unknown = design(units__threads=None)
    assert beside_floor(chain(3840, 3840), unknown) == pytest.approx(3840 * (3 / 4 + 1 / 16))


def test_lanes_do_them_as_they_do_other_functions():
    # 18 of 64 FLOP a clock each
    lanes = design(special__place=VECTOR, special__emulated=18, vector__efficiency=1)
    assert beside_floor(chain(64, 64), lanes) == pytest.approx(48 + 16 * 18 / 64)


def test_faster_units_and_fewer_functions_never_take_longer():
    rates, counts = np.array([1.0, 4, 16, 64]), (0, 1, 100, 1000, 100_000)
    times = []
    for count in counts:
        of_rates = Designs(of(), {"special.rate": rates})
        row = chain(640, count, read_activation=1e5)
        found = kernel_time(row, of_rates)[0]
        assert (np.diff(found) <= 0).all()
        times.append(found)
    assert (np.diff(times, axis=0) >= 0).all()
