"""Layer times of Llama-3.1-8B on a TPU v6e, predicted from its datasheet alone.

Run: PYTHONPATH=. python benchmarks/tpu_v6e.py, with ../shared beside the checkout
(../shared/external/llmservingsim, MIT; measured by others, one chip, bf16). Nothing is fitted: the
machine is archs/tpu_v6e.yaml as it ships.

Each row of the table is one layer at one number of tokens, measured once, by a compiler's choice of
kernel for that very shape. Weights are taken to be cold, as between two layers of a model; a row
that reads its weights faster than the memory can cannot have been, and is left out and counted.
"""

import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import npusim as ns
from npusim.arch import Designs
from npusim.measured.shapes import (
    Measurable,
    decode_attention,
    linear,
    operations,
    prefill_attention,
)
from npusim.models.kernel import kernel_time

FOLDER = Path(__file__).resolve().parents[2] / "shared/external/llmservingsim/TPU-v6e"
TABLE = FOLDER / "layers.csv"
HIDDEN, WIDE, VOCABULARY = 4096, 14336, 128256
LAYERS = {  # columns and rows of each weight
    "q_proj": (HIDDEN, HIDDEN), "o_proj": (HIDDEN, HIDDEN), "gate_proj": (WIDE, HIDDEN),
    "up_proj": (WIDE, HIDDEN), "down_proj": (HIDDEN, WIDE), "lm_head": (VOCABULARY, HIDDEN),
}  # fmt: skip
TOKENS = (1, 2, 16, 64, 128, 256, 512, 1024, 2049)  # first of each class, and the end of the last


@dataclass(frozen=True)
class Layer:
    """Rows of one layer.

    Attributes
    ----------
    tokens, measured, predicted : array, shape (N,)
        Rows of the input, and times [s].
    traffic : array, shape (N,)
        What was read of weights, or of a KV cache, a second as measured [B/s].
    flops : array, shape (N,)
        Arithmetic a second, as measured [FLOP/s].
    """

    tokens: NDArray[np.intp]
    measured: NDArray[np.float64]
    predicted: NDArray[np.float64]
    traffic: NDArray[np.float64]
    flops: NDArray[np.float64]

    def take(self, rows: NDArray[np.bool_]) -> "Layer":
        """Return some of the rows."""
        return Layer(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @property
    def error(self) -> NDArray[np.float64]:
        """Predicted over measured, less one."""
        return self.predicted / self.measured - 1.0


def layer(name: str, arch: ns.Arch, path: Path = TABLE) -> Layer:
    """Return measured and predicted times of a layer."""
    table = pd.read_csv(path)
    table = table[(table["layer_name"] == name) & (table["tp_size"] == 1)].sort_values("input")
    tokens, measured = table["input"].to_numpy(), table["latency(ns)"].to_numpy() * 1e-9
    columns, rows = LAYERS[name]
    return _beside(tokens, measured, [linear("bf16", int(m), columns, rows) for m in tokens], arch)


def attention(arch: ns.Arch, phase: str, path: Path = FOLDER / "attention.csv") -> Layer:
    """Return measured and predicted times of attention; `tokens` are sequences, or those of one.

    Prefill is of prompts without a cache before them: those with one are left out.
    """
    table = pd.read_csv(path)
    first = table["is_prefill"] & (table["kv_cache_size"] == 0)
    table = table[first if phase == "prefill" else ~table["is_prefill"]]
    size = "prefill_chunk_size" if phase == "prefill" else "batch_size"
    tokens, keys = table[size].to_numpy(), table["kv_cache_size"].to_numpy()
    if phase == "prefill":
        work = [prefill_attention("bf16", 1, 32, 8, 128, int(m), causal=True) for m in tokens]
    else:
        work = [decode_attention("bf16", int(b), 32, 8, 128, int(n) + 1)
                for b, n in zip(tokens, keys, strict=True)]  # fmt: skip
    return _beside(tokens, table["p50_ns"].to_numpy() * 1e-9, work, arch)


def _beside(
    tokens: NDArray[np.intp],
    measured: NDArray[np.float64],
    work: list[Measurable],
    arch: ns.Arch,
) -> Layer:
    """Return what was measured beside what the machine's file says of it."""
    done = operations(work)
    predicted = kernel_time(done, Designs(arch))[:, 0]
    read = done["read_weight"] + done["read_kv"]
    return Layer(tokens, measured, predicted, read / measured, done["flop"] / measured)


def impossible(rows: Layer, arch: ns.Arch) -> NDArray[np.bool_]:
    """Return which rows would read cold weights faster than the datasheet's bandwidth."""
    result: NDArray[np.bool_] = rows.traffic > arch["memories.dram.bandwidth"]
    return result


def shown(rows: Layer) -> str:
    """Return median and p90 of the absolute errors, and the median of the signed ones."""
    if not len(rows.tokens):
        return "| 0 | | | |"
    off = np.abs(rows.error)
    middle, high = np.quantile(off, [0.5, 0.9])
    return f"| {len(off)} | {middle:.1%} | {high:.1%} | {np.median(rows.error):+.1%} |"


def report(arch: ns.Arch) -> None:
    """Print errors by layer, and by layer and tokens."""
    found = {name: layer(name, arch) for name in LAYERS}
    print("| layer | faster than the memory | n | median | p90 | median, signed |")
    print("|---|---|---|---|---|---|")
    for name, rows in found.items():
        over = impossible(rows, arch)
        which = f"{rows.tokens[over].min()} to {rows.tokens[over].max()}" if over.any() else "none"
        print(f"| {name} | {over.sum()} (tokens: {which}) {shown(rows.take(~over))}")
    print("\n| layer | tokens | n | median | p90 | median, signed | measured: GB/s | TFLOP/s |")
    print("|---|---|---|---|---|---|---|---|")
    for name, rows in found.items():
        for first, end in pairwise(TOKENS):
            part = rows.take((rows.tokens >= first) & (rows.tokens < end) & ~impossible(rows, arch))
            if len(part.tokens):
                rates = (
                    f" {np.median(part.traffic) / 1e9:.0f} | {np.median(part.flops) / 1e12:.0f} |"
                )
                print(f"| {name} | {first} to {end - 1} {shown(part)}{rates}")
    print("\n| attention | n | median | p90 | median, signed | measured: GB/s | TFLOP/s |")
    print("|---|---|---|---|---|---|---|")
    for phase in ("prefill", "decode"):
        rows = attention(arch, phase)
        rates = f"{np.median(rows.traffic) / 1e9:.0f} | {np.median(rows.flops) / 1e12:.1f} |"
        print(f"| {phase} {shown(rows)} {rates}")


if __name__ == "__main__":
    if not TABLE.exists():
        sys.exit(f"{TABLE} is not there")
    report(ns.load_arch("tpu_v6e"))
