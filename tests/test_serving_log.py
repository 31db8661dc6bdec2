"""A request log of vLLM on an RTX 4090 beside the simulation; nothing is fitted to it."""

import sys

import pytest

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def run(root):
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        import serving as benchmark
    finally:
        sys.path.remove(str(root / "benchmarks"))
    if not benchmark.LOG.is_file():
        pytest.skip("the request log of LLMServingSim is not beside the checkout")
    return benchmark.log_run(band=False)


def test_all_requests_of_the_log_are_answered(run):
    assert len(run.middle) == 300
    assert not run.middle.rejected
    assert {len(values) for values in run.measured.samples.values()} == {300}


@pytest.mark.parametrize("wait", ["ttft", "tpot", "latency"])
def test_waits_are_those_of_the_log(run, wait):
    told, measured = run.middle.summaries()[wait], run.measured.summaries[wait]
    assert told.mean_s == pytest.approx(measured.mean_s, rel=0.10)
    assert told.p95_s == pytest.approx(measured.p95_s, rel=0.20)


def test_its_engine_was_short_of_room(run):
    assert run.middle.stops.sum() > 50
    assert max(run.middle.engines[0].blocks) > 0.98 * 2588
