"""Eager launches and graph replays in one Kineto trace: what the whole is called, and its host."""

import pytest

from npusim.importers import import_trace
from tests.kineto_builder import Trace, tensor


def meta(folder, *, eager=0, alone=0, graphs=(), lost=0, call="cudaGraphLaunch"):
    """Provenance of a trace of so many kernels.

    Those launched one by one, ``alone`` by a graph of one kernel each, by graphs of the given
    sizes, and some of which the launch is lost.
    """
    t = Trace()
    with t.op("aten::neg", tensor(4)):
        for _ in range(eager):
            t.kernel()
        for size in (*[1] * alone, *graphs):
            launch = t.call(call)
            for _ in range(size):
                t.run(launch)
        for _ in range(lost):
            del t.kernel()["args"]["correlation"]
    w = import_trace(t.write(folder))
    assert len(w) == eager + alone + sum(graphs) + lost
    return w.meta


@pytest.mark.parametrize(
    ("kernels", "launch"),
    [
        ({"eager": 1}, "eager"),
        ({"graphs": [2]}, "graph"),
        ({"eager": 6, "graphs": [4]}, "eager"),
        ({"eager": 5, "graphs": [5]}, "eager"),  # one half of them: not most
        ({"eager": 5, "graphs": [6]}, "graph"),
        ({"eager": 50, "graphs": [49]}, "eager"),
        ({"eager": 50, "graphs": [20, 31]}, "graph"),  # kernels count, not calls
        ({"eager": 3, "alone": 4}, "graph"),
        # kernels of unknown launch are kernels too: 5 of 10, 6 of 11
        ({"graphs": [5], "lost": 5}, "eager"),
        ({"graphs": [6], "lost": 5}, "graph"),
        ({"eager": 2, "graphs": [4], "lost": 2}, "eager"),
        ({"eager": 1, "graphs": [2], "call": "hipGraphLaunch"}, "graph"),
    ],
)
def test_a_trace_is_a_graph_replay_if_most_kernels_are(tmp_path, kernels, launch):
    assert meta(tmp_path, **kernels)["launch"] == launch


@pytest.mark.parametrize(
    ("kernels", "host"),
    [
        ({"eager": 1}, "measured"),
        ({"graphs": [2]}, "unknown"),
        # a launch of several kernels says of none what the host did for it
        ({"eager": 18, "graphs": [2]}, "measured"),  # nine tenths
        ({"eager": 17, "graphs": [3]}, "unknown"),
        ({"eager": 17, "graphs": [2]}, "unknown"),  # 17 of 19
        ({"eager": 19, "graphs": [2]}, "measured"),  # 19 of 21
        ({"eager": 90, "graphs": [4, 6]}, "measured"),
        ({"eager": 89, "graphs": [5, 6]}, "unknown"),
        # nor does a launch that is lost
        ({"eager": 9, "lost": 1}, "measured"),
        ({"eager": 8, "lost": 1}, "unknown"),
        ({"eager": 8, "lost": 2}, "unknown"),
        # a graph of one kernel does
        ({"eager": 8, "alone": 1, "lost": 1}, "measured"),
        ({"alone": 10}, "measured"),
    ],
)
def test_the_host_is_measured_if_nine_tenths_have_a_launch_of_their_own(tmp_path, kernels, host):
    assert meta(tmp_path, **kernels)["host"] == host
