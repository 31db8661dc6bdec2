"""Scaled dot-product attention of one token over a cache, and of a whole sequence.

One operand set is repeated, so keys and values are warm where they fit the cache.
"""

from __future__ import annotations

from typing import Any

from npusim.capture.gpu import Row
from npusim.capture.timing import graph_us

AXES = ("decode_attention", "prefill_attention")

_DECODE_HEADS = ((10, 10, 128), (16, 2, 128), (32, 8, 64), (32, 8, 128))  # query, key-value, size
_BATCHES, _CONTEXTS = (1, 4, 16, 64), (256, 1024, 4096, 16384)
_PREFILL_HEADS = ((10, 128), (16, 72), (12, 64), (32, 128))
_LENGTHS = (128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)


def points(device: Row, quick: bool) -> list[Row]:
    """Return batches, contexts and heads of decode, lengths and heads of prefill."""
    batches, contexts = ((1, 16), (1024,)) if quick else (_BATCHES, _CONTEXTS)
    lengths = (1024,) if quick else _LENGTHS
    decode = [
        {"axis": "decode_attention", "batch": batch, "ctx": ctx, "hq": hq, "hk": hk, "d": d}
        for batch in batches for ctx in contexts for hq, hk, d in _DECODE_HEADS
    ]  # fmt: skip
    prefill = [{"axis": "prefill_attention", "s": s, "h": h, "d": d}
               for s in lengths for h, d in _PREFILL_HEADS]  # fmt: skip
    return [*decode, *prefill]


def measure(torch: Any, point: Row) -> Row:
    """Return ``us_per_op``; grouped heads are given as they are, prefill is not causal."""
    attend = torch.nn.functional.scaled_dot_product_attention

    def random(*shape: int) -> Any:
        return torch.randn(shape, device="cuda", dtype=torch.bfloat16)

    if point["axis"] == "prefill_attention":
        q = random(1, point["h"], point["s"], point["d"])
        return {"us_per_op": graph_us(torch, [lambda: attend(q, q, q)])}
    batch, hq, hk, d = (point[name] for name in ("batch", "hq", "hk", "d"))
    q = random(batch, hq, 1, d)
    k, v = random(batch, hk, point["ctx"], d), random(batch, hk, point["ctx"], d)
    return {"us_per_op": graph_us(torch, [lambda: attend(q, k, v, enable_gqa=hq != hk)])}
