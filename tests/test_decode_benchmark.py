"""The step of benchmarks/rtx5090_decode.py against the counts and sizes of the study it follows."""

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import npusim as ns

ROOT = Path(__file__).parents[1]
FACTS = ROOT.parent / "shared" / "facts"


@pytest.fixture(scope="module")
def decode():
    place = importlib.util.spec_from_file_location(
        "rtx5090_decode", ROOT / "benchmarks/rtx5090_decode.py"
    )
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


def counted(step, *names):
    return sum(k.count for k in step if k.family.startswith(names))


def test_a_step_has_the_kernels_of_the_profile(decode):
    step = decode.kernels()
    assert sum(k.count for k in step) == 1219  # 78,016 in 64 tokens
    assert len({k.family for k in step}) == len(step)
    assert counted(step, "GEMV") == 293
    assert counted(step, "mul, bf16, of norms", "mul, bf16, gate") == 103
    assert counted(step, "add, bf16") == 59
    assert (counted(step, "to fp32"), counted(step, "to bf16")) == (94, 82)
    assert (counted(step, "silu"), counted(step, "pow"), counted(step, "attention")) == (78, 25, 12)


def test_weights_are_those_of_the_active_parameters(decode):
    """574 million parameters a token, 2 bytes each, and the one row of the embedding."""
    read = sum(k.count * k.what.work.read_weight for k in decode.kernels())
    again = 11 * 64 * 1280 + 25 * 1280  # the routers are cast first; norms were not counted
    assert read == pytest.approx(2 * (574_095_360 + again + 1280), rel=1e-3)


def test_nothing_measured_on_this_gpu_is_used(decode):
    arch, shipped = decode.machine(), ns.load_arch("rtx_5090")
    changed = {p for p in arch.values if arch[p] != shipped[p]}
    assert changed == {"memories.dram.efficiency"}
    others = [ns.load_arch(m)["memories.dram.efficiency"] for m in decode.CALIBRATED]
    assert min(others) < arch["memories.dram.efficiency"] < max(others)


def test_every_kernel_takes_some_time_and_the_large_one_the_bandwidth(decode):
    step, arch = decode.kernels(), decode.machine()
    told = decode.predicted(step, arch)
    assert (told > 0.5).all() and np.isfinite(told).all()
    head = next(t for k, t in zip(step, told, strict=True) if k.family == "GEMV, lm_head")
    least = 331e6 / (arch["memories.dram.bandwidth"] * arch["memories.dram.efficiency"]) * 1e6
    assert least < head < 1.1 * least


@pytest.mark.shared
@pytest.mark.skipif(not FACTS.exists(), reason="../shared/facts is not here")
def test_hyperparameters_and_counts_are_those_of_the_facts(decode):
    language = json.loads((FACTS / "deepseek_ocr.json").read_text())["language"]
    pairs = {
        "num_hidden_layers": "LAYERS", "hidden_size": "HIDDEN", "num_attention_heads": "HEADS",
        "head_dim": "SIZE", "intermediate_size_dense_layer0": "DENSE", "n_routed_experts":
        "EXPERTS", "num_experts_per_tok": "CHOSEN", "moe_intermediate_size": "EXPERT",
        "shared_intermediate_size": "SHARED", "vocab_size": "VOCABULARY",
    }  # fmt: skip
    for fact, name in pairs.items():
        assert getattr(decode, name) == language[fact]
    assert language["num_hidden_layers"] - language["first_k_dense_replace"] == decode.MOE
    step = decode.kernels()
    families = {"SiLU": "silu", "flash_fwd_splitkv": "attention", "splitkv_combine": "its combine",
                "gatherTopK": "top-k", "bitonicSort": "sort", "rsqrt": "rsqrt", "ArgMax": "argmax",
                "MeanOps reduce (RMSNorm)": "mean", "gemmk1 (inv_freq @ pos)": "angles",
                '"neg (rotate_half q,k)"': "neg"}  # fmt: skip
    with (FACTS / "dsocr_decode_counts_per_token.csv").open() as lines:
        counts = {r["kernel_family"]: r["instances_per_token_measured"]
                  for r in csv.DictReader(lines)}  # fmt: skip
    for fact, family in families.items():
        assert counted(step, family) == int(counts[fact.strip('"')]), family
