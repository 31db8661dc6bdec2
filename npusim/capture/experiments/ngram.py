"""What a check for repeated n-grams takes on the host between two decode steps.

A next token must not repeat an n-gram, so those of the sequence are looked up, anew for every
token: by the logits processor of the transformers that is installed (``library``), or in a
dictionary of all of them that Python fills (``dictionary``), as versions before 5 did.
"""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

from npusim.capture.gpu import Row, Unavailable

AXES = ("ngram",)

_LENGTHS = (128, 256, 512, 768, 977, 1024, 1536, 2048, 4096, 8192)
_SIZES = (20, 35)
_VOCABULARY = 129280
_REPEATS = 30


def points(device: Row, quick: bool) -> list[Row]:
    """Return tokens of a sequence, n of the n-grams and sequences."""
    lengths = _LENGTHS[:2] if quick else _LENGTHS
    return [
        {"axis": "ngram", "way": way, "tokens": tokens, "ngram": size, "batch": batch}
        for way in ("library", "dictionary") for batch in (1, 8)
        for size in _SIZES for tokens in lengths
    ]  # fmt: skip


def measure(torch: Any, point: Row) -> Row:
    """Return the time of one check, the device idle before and after [us], lowest and median."""
    check = _library(point["ngram"]) if point["way"] == "library" else _dictionary(point["ngram"])
    shape = (point["batch"], point["tokens"])
    tokens = torch.randint(0, _VOCABULARY, shape, device="cuda")
    scores = torch.zeros(point["batch"], _VOCABULARY, device="cuda")
    times = []
    for _ in range(_REPEATS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        check(tokens, scores)
        torch.cuda.synchronize()
        times.append(1e6 * (time.perf_counter() - start))
    return {"host_us": sorted(times)[len(times) // 2], "lowest_us": min(times)}


def _library(size: int) -> Any:
    try:
        processors = import_module("transformers.generation.logits_process")
    except ImportError:
        raise Unavailable("transformers is not installed") from None
    return processors.NoRepeatNGramLogitsProcessor(size)


def _dictionary(size: int) -> Any:
    def check(tokens: Any, scores: Any) -> None:
        for row, sequence in enumerate(tokens.tolist()):
            after: dict[tuple[int, ...], list[int]] = {}
            for gram in zip(*(sequence[i:] for i in range(size)), strict=False):
                after.setdefault(gram[:-1], []).append(gram[-1])
            if banned := after.get(tuple(sequence[len(sequence) - size + 1 :])):
                scores[row, banned] = -float("inf")

    return check
