"""Speculative decoding: k drafted tokens of each sequence are verified in one step.

A step that decodes b sequences over n keys then works on k + 1 tokens of each. It moves like a step
of b (k + 1) sequences (`npusim.transforms.batch`) but for what the tokens of a sequence share:

    attention:      b sequences, k + 1 queries, n + k keys; query i sees n + i of them
    KV cache:       bytes x (n + k) / n where it is read, or copied to grow
    positions:      a row for each token, in tables too
    tokens a step:  b (1 - a^(k + 1)) / (1 - a)

with `a` the probability that a drafted token is accepted, each for itself: the first one refused
ends what counts, and is replaced by the model's own. Experts are hit by b (k + 1) tokens. What the
host reads is found by comparing drafts and answers (`npusim.transforms.drafting`).

Drafts come from nowhere (``draft_layers`` 0: looked up in the text so far) or from k passes of a
model one after another, each with one token of each sequence through the embedding, so many of the
first layers, and the head: early exit, or a small model on top that shares embedding and head. What
drafting takes then follows from the machine, as all else does.

Source: Y. Leviathan, M. Kalman, Y. Matias, "Fast inference from transformers via speculative
decoding", ICML 2023, arXiv:2211.17192 (eq. 1; its c is the time of a pass over that of a step);
kernels that compare as in huggingface/transformers, ``_assisted_decoding``. Attention of several
queries as cuDNN 9.19 does it on an H200: keys are not split, so nothing combines parts.

Left out: masks and copies of keys to all query heads, which PyTorch's attention adds for several
queries over a cache; libraries that split keys for several queries too, as FlashAttention does
(``attention_splits`` asks for parts: they stay, and are combined); trees of drafts; sampling that
compares probabilities; tokens of a sequence that choose the same experts; drafts of batches that
stop apart. Weights that drafting shares with the model, or one pass with the next, count as their
own where a memory might hold them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.leave_out import taken
from npusim.transforms import batch, context, drafting, splits
from npusim.transforms.record import changed, changes, checked
from npusim.transforms.sequences import shares
from npusim.workload import Workload

Array = NDArray[np.float64]

DRAFTS, ACCEPTANCE, LAYERS = (
    "workload.draft_tokens", "workload.acceptance", "workload.draft_layers",
)  # fmt: skip
PARAMETERS = (DRAFTS, ACCEPTANCE, LAYERS)
NEEDS = context.NEEDS
LIMIT = ("drafts are accepted each for itself, alike at every place; attention reads no mask, and "
         "what is added to verify takes no host work")  # fmt: skip
UNMEASURED = "attention of a few queries over a KV cache, which no measured attention has"


def speculate(
    w: Workload, draft_tokens: float, acceptance: float, draft_layers: float = 0.0
) -> Workload:
    """Return a workload that verifies drafted tokens in each step.

    Parameters
    ----------
    w : Workload
    draft_tokens : float
        Tokens drafted for each sequence, rounded to a whole number; 0 for a step as it was.
    acceptance : float
        Probability that a drafted token is accepted, 0 to 1.
    draft_layers : float
        Layers that draft a token, rounded to a whole number; 0 for drafts without a model.

    Returns
    -------
    Workload
        ``meta["tokens_per_step"]`` says how many tokens a step yields, ``meta["transforms"]`` what
        was changed. Measured times stay what they were, and are zero for what was not traced.

    Raises
    ------
    InputError
        Out of bounds, no decode attention or several batches or lengths of it, phases beside
        decode, a static cache, more layers than there are, drafts of another number before.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> four = speculate(w, 3, 0.8)
    >>> round(four.meta["tokens_per_step"], 3)  # 1 + 0.8 + 0.64 + 0.512
    2.952
    >>> h200 = ns.load_arch("h200")
    >>> one, per_token = ns.replay(w, h200, "graph"), ns.replay(four, h200, "graph").s_per_token
    >>> bool(2.2 < one.s_per_token / per_token < 2.952)
    True
    """
    given = {DRAFTS: draft_tokens, ACCEPTANCE: acceptance, LAYERS: draft_layers}
    return transform(w, given)


def expected_tokens(draft_tokens: int, acceptance: float) -> float:
    """Return how many tokens of a sequence a step yields on average.

    Examples
    --------
    >>> expected_tokens(0, 0.9), expected_tokens(2, 0.5), expected_tokens(4, 1.0)
    (1.0, 1.75, 5.0)
    """
    return float(np.sum(acceptance ** np.arange(draft_tokens + 1)))


def transform(w: Workload, settings: Mapping[str, float]) -> Workload:
    """Return a workload that verifies drafts as some of `PARAMETERS` say."""
    asked = checked(settings)
    asked |= {path: float(np.rint(asked[path])) for path in (DRAFTS, LAYERS) if path in asked}
    before = {path: value for path, value in changes(w).items() if path in PARAMETERS}
    wanted = {**before, **asked}
    if DRAFTS in before:
        _refuse_other_drafts(w, wanted)
        if wanted == before:
            return w
        sequences, made = int(w["batch"][touched(w)].max()), changed(w, wanted, {})
    else:
        sequences = batch.sequences(w, DRAFTS)
        if not wanted.get(DRAFTS):  # nothing that could be accepted
            return w
        made = _verifying(w, wanted, sequences)
    tokens = None
    if ACCEPTANCE in wanted:
        tokens = sequences * expected_tokens(int(wanted[DRAFTS]), wanted[ACCEPTANCE])
    return made.renamed(w.name, tokens_per_step=tokens)


def touched(w: Workload) -> NDArray[np.bool_]:
    """Return which operations are decode attention, of several queries too, shape (K,)."""
    found = batch.touched(w)
    if DRAFTS in changes(w):
        verifies = w.mask("kind", "attention") & (w["m"] == changes(w)[DRAFTS] + 1)
        found |= verifies & w.classified
    return found


def present(w: Workload) -> dict[str, float]:
    """Return the drafts as they are; not-a-number for an acceptance that means nothing."""
    nothing = {DRAFTS: 0.0, ACCEPTANCE: np.nan, LAYERS: 0.0}
    return {path: changes(w).get(path, value) for path, value in nothing.items()}


def _refuse_other_drafts(w: Workload, wanted: Mapping[str, float]) -> None:
    """Refuse other drafts than a workload verifies already."""
    for path in (DRAFTS, LAYERS):
        now = changes(w).get(path, 0.0)
        if wanted.get(path, now) != now:
            raise InputError("verifies drafts already", file=w.name, place=path,
                             value=f"{wanted[path]:g}", allowed=f"{now:g}",
                             hint="change the workload as it was traced")  # fmt: skip


def _verifying(w: Workload, wanted: Mapping[str, float], sequences: int) -> Workload:
    """Return a workload whose steps verify drafts and, where a model makes them, draft."""
    if "workload.static_cache" in changes(w):
        raise InputError("has a static KV cache, whose kernels write one token of a sequence",
                         file=w.name, place=DRAFTS, hint="leave one of them out")  # fmt: skip
    batch.refuse_others(w, DRAFTS)
    drafts, layers = int(wanted[DRAFTS]), int(wanted.get(LAYERS, 0.0))
    again = drafting.pass_of(w, layers, LAYERS) if layers else None
    longer = context.with_lengths(w, context.lengths(w) + drafts)
    columns, texts = batch.grown(longer, shares(longer, sequences, apart=True), sequences,
                                 sequences * (drafts + 1))  # fmt: skip
    cached = (w["read_kv"] > 0) & w.classified
    attends = batch.touched(w)
    for name in ("m", "batch", "blocks", "threads", "flop", "read_kv", "write_kv"):
        columns[name][cached] = longer[name][cached]
    columns |= _attention(w, columns, attends, drafts)
    verifying = changed(w, wanted, columns, texts)
    if splits.SPLITS not in changes(w):
        verifying = _without_combining(verifying, attends)
    made = drafting.compared(verifying, drafts, sequences, DRAFTS)
    return made if again is None else drafting.drafted(made, w, again, drafts)


def _attention(
    w: Workload, columns: Mapping[str, Array], attends: NDArray[np.bool_], drafts: int
) -> dict[str, Array]:
    """Return what changes of attention beside its keys: queries, FLOP and a block for each head."""
    found: dict[str, Array] = {name: columns[name].copy() for name in ("m", "flop", "blocks")}
    queries, keys = drafts + 1, np.maximum(w["n"], 1)
    seen = queries * (keys + drafts / 2.0)  # by all queries of a sequence
    blocks = np.maximum(w["batch"], 1) * w["heads"]
    found["m"][attends] = queries
    found["flop"][attends] = (w["flop"] * seen / keys)[attends]
    if splits.SPLITS not in changes(w):
        launched = attends & (w["blocks"] > 0)
        found["blocks"][launched] = blocks[launched]
    return found


def _without_combining(w: Workload, attends: NDArray[np.bool_]) -> Workload:
    """Return a workload without the kernels that combine parts of the keys of some attention."""
    owner = np.maximum.accumulate(np.where(attends, np.arange(len(w)), -1))
    combines = w.mask("kind", "attention_combine") & (owner >= 0)
    combines &= w["step"][owner] == w["step"]
    if not combines.any():
        return w
    kept: dict[str, Any] = {}
    kept["columns"], kept["counters"], kept["edges"] = taken(w, ~combines)
    return Workload(w.name, labels=w.labels, steps=w.steps, meta=w.meta, host=w.host, **kept)
