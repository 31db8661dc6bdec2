"""Layers from the rhythm of a step."""

import numpy as np
import pytest

import npusim as ns
from npusim.importers.layers import layers
from npusim.importers.work import Work

ATTENTION = Work("attention", "bf16", batch=1, m=1, n=600, k=128, heads=16, kv_heads=2)
LAYER = [Work("norm"), Work("gemv", n=2560), ATTENTION, Work("gemv", n=1024), Work("gemv", n=6144)]
HEAD = [Work("norm"), Work("gemv", n=103424), Work("reduction")]


def test_prologue_and_head_are_in_no_layer():
    found = layers([Work("gather"), Work("rope"), *LAYER * 3, *HEAD])
    assert found == [-1, -1, *[0] * 5, *[1] * 5, *[2] * 5, -1, -1, -1]


def test_a_first_layer_of_another_kind_is_still_the_first():
    dense = [*LAYER[:4], Work("gemv", n=9999), Work("activation")]
    found = layers([Work("gather"), *dense, *LAYER, *LAYER, *HEAD])
    assert found == [-1, *[0] * 6, *[1] * 5, *[2] * 5, -1, -1, -1]


def test_a_growing_cache_is_the_same_layer_again():
    longer = Work("attention", "bf16", batch=1, m=1, n=601, k=128, heads=16, kv_heads=2)
    found = layers([*LAYER, *[longer if w is ATTENTION else w for w in LAYER]])
    assert found == [*[0] * 5, *[1] * 5]


@pytest.mark.parametrize(
    "works",
    [[], HEAD, LAYER, [*LAYER, Work("attention", m=64, n=64, k=64, heads=16, kv_heads=16)]],
)
def test_without_a_rhythm_layers_are_unknown(works):
    assert layers(works) == [-1] * len(works)


@pytest.mark.parametrize(
    ("name", "count"),
    [("paddleocr_vl_decode", 18), ("paddleocr_vl_prefill", 18), ("paddleocr_vl_vision", 27),
     ("deepseek_ocr_decode", 12), ("deepseek_ocr_decode_grouped", 12), ("deepseek_ocr_vision", 0)],
)  # fmt: skip
def test_layers_of_the_shipped_workloads_are_those_of_the_models(name, count):
    w = ns.load_workload(name)
    assert w["layer"].max() + 1 == count
    for step in range(len(w.steps)):
        per_layer = [
            int(((w["layer"] == i) & (w["step"] == step) & w.mask("kind", "attention")).sum())
            for i in range(count)
        ]
        assert per_layer == [1] * count
    if count:
        head = w["n"] == (103424 if name.startswith("paddleocr") else 129280)
        assert (w["layer"][np.flatnonzero(head)] == -1).all()
