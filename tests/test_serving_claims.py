"""What deployment guides claim of serving, on small versions of the studies that ship."""

import numpy as np
import pytest

from npusim import catalog
from npusim.serving_block import read_serving
from npusim.serving_study import run_study


def smaller(name, text, tmp_path):
    shipped = catalog.find("serving", name).read_text()
    for old, new in text:
        assert old in shipped
        shipped = shipped.replace(old, new)
    file = tmp_path / f"{name}.yaml"
    file.write_text(shipped)
    return run_study(read_serving(file), band=False)


def test_longer_prompts_lower_throughput(tmp_path):
    few = [
        ("clients: 64", "clients: 16"), ("each: 3", "each: 1"),
        ("max_num_seqs: 256", "max_num_seqs: 16"), ("tokens: 16384", "tokens: 4096"),
        ("max_model_len: 16384", "max_model_len: 4096"),
        ("[512, 1024, 2048, 4096, 8192]", "[512, 1024, 3000]"),
    ]  # fmt: skip
    rates = [r.middle.tokens_per_s for r in smaller("context_length", few, tmp_path)]
    assert rates[0] > 1.2 * rates[1] > 1.2 * 1.5 * rates[2]


FEWER = [
    ("count: 800", "count: 150"),
    ("{max_num_seqs: 256, max_num_batched_tokens: 8192, max_model_len: 8192}",
     "{max_num_seqs: 64, max_num_batched_tokens: 2048, max_model_len: 8192}"),
]  # fmt: skip


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    links = "[10 GB/s, 64 GB/s, 300 GB/s, 500 GB/s, 900 GB/s]", "[10 GB/s, 300 GB/s, 900 GB/s]"
    return smaller("prefill_decode_split", [*FEWER, links], tmp_path_factory.mktemp("apart"))


def test_a_slower_link_never_makes_answers_faster(apart):
    slow, middle, fast = (r.middle for r in apart)
    assert np.all(slow.done_s >= middle.done_s - 1e-9) or slow.latency_s.mean() > (
        middle.latency_s.mean()
    )
    assert slow.latency_s.mean() > middle.latency_s.mean() >= fast.latency_s.mean()
    np.testing.assert_array_equal(slow.first_s, fast.first_s)  # first tokens do not use it
    # 300 GB/s in place of 900 is below a percent of a token's time
    tpot = [np.nanmean(o.tpot_s) for o in (middle, fast)]
    assert tpot[0] / tpot[1] < 1.01


def test_apart_tokens_come_at_a_steadier_pace_and_the_first_one_later(apart, tmp_path):
    axes = "batched_tokens: [512, 1024, 2048, 8192]", "batched_tokens: [2048]"
    (together,) = smaller("prefill_decode_together", [*FEWER, axes], tmp_path)
    one, both = apart[-1].middle.summaries(), together.middle.summaries()
    assert one["tpot"].p95_s < 0.9 * both["tpot"].p95_s
    assert one["ttft"].mean_s > both["ttft"].mean_s
