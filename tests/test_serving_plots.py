"""Figures of serving: what their lines say."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from npusim import serving_plots
from npusim.serving import Fleet, LinearTimes, Policy, Pool, Request, serve
from npusim.serving_output import _scaled
from npusim.step_cost import StepCost

ONE_SECOND = LinearTimes(StepCost(1.0, 0.0), prompt_s=1.0)


def run(requests, engines=1, blocks=10):
    policy = Policy(max_seqs=4, max_tokens=64, max_model_len=64, blocks=blocks, block=16)
    return serve(requests, Fleet(Pool(ONE_SECOND, policy, engines)))


def drawn(figure):
    found = {}
    for axes in figure.axes:
        found |= {line.get_label(): line.get_xydata() for line in axes.get_lines()}
    return found


@pytest.fixture
def ax():
    return Figure().subplots()


def test_an_engine_that_idles_runs_nothing(ax):
    """Two requests of two steps, 96 seconds apart: at work in 4 of 100 seconds."""
    outcome = run([Request(8, 2, 0.0), Request(8, 2, 98.0)])
    assert outcome.end_s == 100
    serving_plots.over_time(ax, outcome, 10)
    lines = drawn(ax.figure)
    running = lines["running"]
    assert running[:, 1].mean() == pytest.approx(0.04)
    assert np.all(running[(running[:, 0] > 2.6) & (running[:, 0] < 97.9), 1] == 0)
    assert lines["KV cache held"][:, 1].max() == pytest.approx(10)  # one block of ten


def test_the_cache_of_two_engines_is_that_of_both(ax):
    outcome = run([Request(60, 4, 0.0), Request(60, 4, 0.0)], engines=2, blocks=4)
    serving_plots.over_time(ax, outcome, 4, engines=2)
    assert drawn(ax.figure)["KV cache held"][:, 1].max() == pytest.approx(100)


def test_shares_rise_from_nobody_to_everybody(ax):
    outcome = run([Request(8, 3, float(i)) for i in range(5)])
    serving_plots.waits(ax, outcome, "latency", (outcome, outcome), outcome.latency_s * 2)
    lines = drawn(ax.figure)
    x, share = lines["predicted"].T
    assert (share[0], share[-1]) == (0, 1)
    assert x[0] == outcome.latency_s.min()
    np.testing.assert_allclose(np.diff(share), 0.2)
    np.testing.assert_allclose(lines["measured"][:, 0], 2 * x)


@pytest.mark.parametrize(("seconds", "unit"), [(2.0, "s"), (2e-3, "ms"), (2e-6, "µs")])
def test_waits_are_in_a_unit_that_suits_them(ax, seconds, unit):
    times = LinearTimes(StepCost(seconds, 0.0))
    outcome = serve([Request(8, 3)], Fleet(Pool(times, Policy())))
    serving_plots.waits(ax, outcome, "tpot")
    assert ax.get_xlabel() == f"time per output token, {unit}"
    np.testing.assert_allclose(drawn(ax.figure)["predicted"][:, 0], 2)


def test_nothing_is_drawn_of_what_nobody_has(ax):
    serving_plots.waits(ax, run([Request(8, 1)]), "tpot")
    assert [text.get_text() for text in ax.texts] == ["no request has one"]


@pytest.mark.parametrize(
    ("axis", "most", "label", "scale"),
    [("link.bandwidth", 900e9, "link.bandwidth, GB/s", 1e9),
     ("engine.step_overhead", 2e-3, "engine.step_overhead, ms", 1e-3),
     ("requests.prompt", 8192, "requests.prompt", 1.0)],
)  # fmt: skip
def test_an_axis_is_in_a_unit_that_suits_it(axis, most, label, scale):
    assert _scaled(axis, most) == (label, scale)
