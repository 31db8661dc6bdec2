"""Public tables of measured operations, read from ../shared/external where it is present."""

from pathlib import Path

import numpy as np
import pandas as pd

from npusim.measured import Measured, shapes
from npusim.measured.data import Gathered

EXTERNAL = Path(__file__).resolve().parents[2] / "shared" / "external"
GEMM = {"a100": "a100_sxm", "h100": "h100_sxm", "l40s": "l40s"}
ATTENTION = {"a100": "a100_sxm", "h100": "h100_sxm"}


def gemm(machine: str) -> Measured:
    """Return the bf16 GEMM table of a GPU; six weights in turn, as its benchmark has them."""
    path = EXTERNAL / "aiconfigurator" / f"aic_gemm_bf16_{GEMM[machine]}.csv"
    found = Gathered()
    for row, r in enumerate(pd.read_csv(path).itertuples(), 2):
        what = shapes.linear("bf16", r.m, r.n, r.k, copies=r.weight_copies_in_loop)
        found.add(row, "linear", what, r.latency_us)
    return found.done(path, ())


def decode_attention(machine: str) -> Measured:
    """Return the bf16 decode attention table of a GPU; one KV cache every time, so it is warm.

    The token that is decoded is in the cache too.
    """
    path = EXTERNAL / "aiconfigurator" / f"aic_decode_attn_bf16_{ATTENTION[machine]}.csv"
    found = Gathered()
    for row, r in enumerate(pd.read_csv(path).itertuples(), 2):
        what = shapes.decode_attention("bf16", r.batch_size, r.num_heads, r.num_key_value_heads,
                                       r.head_dim, r.kv_len + 1, copies=1)  # fmt: skip
        found.add(row, "decode_attention", what, r.latency_us)
    table = found.done(path, ())
    source = str(pd.read_csv(path)["kernel_source"].iloc[0])
    return table.labelled(np.ones(len(table), dtype=bool), library=source)


def rtx_4090_attention() -> Measured:
    """Return decode attention of one layer of Llama-3.1-8B; its cache is cold, amid the weights."""
    folder = EXTERNAL / "llmservingsim" / "RTX4090" / "meta-llama" / "Llama-3.1-8B" / "bf16" / "tp1"
    found = Gathered()
    table = pd.read_csv(folder / "attention.csv")
    for r in table[table["prefill_chunk"] == 0].itertuples():
        what = shapes.decode_attention("bf16", r.n_decode, 32, 8, 128, r.kv_decode + 1)
        found.add(int(r.Index) + 2, "decode_attention", what, r.time_us)
    made = found.done(folder / "attention.csv", ())
    return made.labelled(np.ones(len(made), dtype=bool), library="fa2")


def some(measured: Measured, count: int, seed: int) -> Measured:
    """Return a random sample."""
    if len(measured) <= count:
        return measured
    return measured.take(np.sort(np.random.default_rng(seed).permutation(len(measured))[:count]))
