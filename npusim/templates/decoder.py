"""Operators of one step of a decoder: prefill, a chunk of it, or decode.

One step takes ``new`` tokens of each of ``batch`` sequences that have ``context`` tokens in their
cache. Prefill is a step without context, a chunk one with both, decode one with a single token.

    rows = batch x new
    layer = norm, q k v, rotation, cache, attention, output, norm, feed-forward or experts

Source: Llama, arXiv:2302.13971; grouped-query attention, arXiv:2305.13245; latent attention,
DeepSeek-V2, arXiv:2405.04434; experts, DeepSeekMoE, arXiv:2401.06066.

On several chips (`npusim.templates.parallel`) the operators are those of one of them, with what it
sends to the others between.

Left out: sequences of different lengths in one step, dropout, parallel attention and feed-forward
blocks, sliding windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from npusim.errors import InputError
from npusim.reuse.experts import expected_hit, loads, zipf
from npusim.templates.fields import ACTIVATIONS
from npusim.templates.hyperparameters import (
    Attention,
    Decoder,
    Experts,
    Latent,
    has_experts,
    shared_width,
)
from npusim.templates.lowering import Lowering
from npusim.templates.operators import Operator, operator
from npusim.templates.overlap import interleaved
from npusim.templates.parallel import ALONE, Parallel, gathered, share, stage_layers, summed
from npusim.templates.parallel_experts import busiest, dealt_loads


@dataclass(frozen=True)
class Tokens:
    """What a step works on.

    Attributes
    ----------
    batch : int
        Sequences.
    new : int
        Tokens of each that enter in this step.
    context : int
        Tokens of each that are in its cache before.
    drafted : int
        Of the new tokens those that a draft proposed, and that are verified.
    hit : float, optional
        Experts that all tokens hit in a layer, on average over the layers; by default what is
        expected of tokens that choose for themselves.
    """

    batch: int
    new: int
    context: int
    drafted: int = 0
    hit: float | None = None

    @property
    def decodes(self) -> bool:
        """Whether the step makes tokens one by one, drafted ones beside them or not."""
        return self.context > 0 and self.new == 1 + self.drafted

    @property
    def rows(self) -> int:
        """Tokens of all sequences."""
        return self.batch * self.new


def decoder_operators(
    d: Decoder, t: Tokens, lowering: Lowering, logits: str = "last", parallel: Parallel = ALONE
) -> Iterator[Operator]:
    """Yield the operators of a step on one chip.

    Parameters
    ----------
    d : Decoder
    t : Tokens
        Of all tensor groups of a stage together.
    lowering : Lowering
        Decides how latent attention and experts are done.
    logits : str
        ``all`` or ``last``: of which tokens of a prompt the vocabulary projection is computed.
    parallel : Parallel
        How the model is cut over chips.
    """
    if parallel.overlap == 1:
        yield from _step(d, t, lowering, logits, parallel)
        return
    halves = halved(t, parallel)
    early = "none" if len({h.context for h in halves}) > 1 and logits == "last" else logits
    parts = (_step(d, half, lowering, wanted, parallel)
             for half, wanted in zip(halves, (early, logits), strict=True))  # fmt: skip
    yield from interleaved([list(part) for part in parts])


def halved(t: Tokens, p: Parallel) -> tuple[Tokens, Tokens]:
    """Return the halves of a step that take turns: of the sequences, or of one's new tokens.

    Raises
    ------
    InputError
        Nothing to halve, or a number of experts hit that nobody knows of the halves.
    """
    if t.hit is not None:
        raise InputError("of a step, and not known of its halves", place="experts_hit",
                         value=t.hit, allowed="overlap 1")  # fmt: skip
    own = -(-t.batch // p.groups)
    if own > 1:
        first = (own - own // 2) * p.groups
        return replace(t, batch=first), replace(t, batch=t.batch - first)
    if t.decodes or t.new < 4:
        raise InputError("needs two sequences a chip, or four tokens of a prompt", place="overlap",
                         value=p.overlap, allowed="1")  # fmt: skip
    first = t.new - t.new // 2
    return replace(t, new=first), replace(t, new=t.new - first, context=t.context + first)


def _step(
    whole: Decoder, t: Tokens, lowering: Lowering, logits: str, p: Parallel
) -> Iterator[Operator]:
    """Yield the operators of a step, or of a part of it, on one chip of a stage."""
    d, tokens = share(whole, p), t.rows
    t = replace(t, batch=-(-t.batch // p.groups))
    norm = "rms_norm" if d.norm == "rms" else "layer_norm"
    layers = stage_layers(d.layers, p)
    if p.stage == 0:
        yield operator("embed", rows=t.rows, width=d.hidden, vocabulary=d.vocabulary)
        yield from summed(p, t.rows, d.hidden)
    yield operator("positions", batch=t.batch, new=t.new, context=t.context)
    if d.positions and p.stage == 0:
        yield operator("embed", rows=t.new, width=d.hidden, vocabulary=d.positions)
        yield operator("residual", rows=t.rows, width=d.hidden)
    yield from _rotary_table(d.attention, t)
    if not d.norm_after:
        yield operator(norm, layers.start, rows=t.rows, width=d.hidden)
    for layer in layers:
        yield from _attention(d, t, layer, lowering.latent)
        yield from summed(p, t.rows, d.hidden, layer)
        yield from _joined(d, t, layer, norm)
        yield from _feed_forward(d, t, tokens, layer, lowering, p)
        if layer == layers[-1] and not p.last and not d.norm_after:
            yield operator("residual", layer, rows=t.rows, width=d.hidden)  # the norm comes next
        else:
            yield from _joined(d, t, layer, norm)
    if p.last:
        yield from _ending(whole, d, t, logits, p)
    else:
        yield operator("send", rows=t.rows, width=d.hidden)


def _ending(whole: Decoder, d: Decoder, t: Tokens, logits: str, p: Parallel) -> Iterator[Operator]:
    """Yield what comes behind the last layer: logits, and the tokens that are chosen by them."""
    if d.norm_after:
        yield operator("rms_norm" if d.norm == "rms" else "layer_norm", rows=t.rows, width=d.hidden)
    last = t.batch * (t.drafted + 1)
    rows = {"all": t.rows, "last": last, "none": 0}[logits]
    if rows:
        yield operator("head", rows=rows, inner=d.hidden, width=d.vocabulary)
        yield from gathered(p, rows, d.vocabulary * p.tensor)
    yield from _sampling(whole, t)
    if t.decodes and p.pipeline > 1:
        yield operator("send_tokens", rows=last)


def _joined(d: Decoder, t: Tokens, layer: int, norm: str) -> Iterator[Operator]:
    """Yield the sum with what a layer got, and the norm that follows or comes before it."""
    sizes = {"rows": t.rows, "width": d.hidden}
    if d.norm_after:
        yield operator(norm, layer, **sizes)
        yield operator("residual", layer, **sizes)
    else:
        yield operator(f"residual_{norm}", layer, **sizes)


def _rotary_table(a: Attention, t: Tokens) -> Iterator[Operator]:
    if a.rotary != "none":
        size = a.latent.rope_size if a.latent else a.head_size
        yield operator("rotary_table", batch=t.batch, new=t.new, size=size,
                       sections=_sections(a))  # fmt: skip


def _sections(a: Attention) -> int:
    """Return how many positions a token has: one, or those in time, height and width."""
    return 3 if a.rotary == "multimodal" else 1


def _attention(d: Decoder, t: Tokens, layer: int, latent: str) -> Iterator[Operator]:
    a = d.attention
    if a.latent is not None:
        yield from _latent_attention(d, t, layer, a.latent, latent == "absorbed")
        return
    heads = {"heads": a.heads, "kv_heads": a.kv_heads, "size": a.head_size}
    yield operator("qkv", layer, rows=t.rows, inner=d.hidden, bias=int(a.bias), **heads)
    if a.qk_norm == "head":
        yield operator("qk_norm", layer, rows=t.rows, **heads)
    elif a.qk_norm == "whole":
        yield operator("rms_norm", layer, rows=t.rows, width=a.heads * a.head_size)
        yield operator("rms_norm", layer, rows=t.rows, width=a.kv_heads * a.head_size)
    if a.rotary != "none":
        yield operator("rotate", layer, batch=t.batch, new=t.new, sections=_sections(a), **heads)
    step = {"batch": t.batch, "new": t.new, "context": t.context}
    yield operator("cache", layer, kv_heads=a.kv_heads, size=a.head_size,
                   value_size=a.head_size, **step)  # fmt: skip
    yield operator("attention", layer, value_size=a.head_size, latent=0, **heads, **step)
    yield operator("linear", layer, rows=t.rows, inner=a.heads * a.head_size, width=d.hidden,
                   bias=int(a.output_bias))  # fmt: skip


def _latent_attention(
    d: Decoder, t: Tokens, layer: int, latent: Latent, absorbed: bool
) -> Iterator[Operator]:
    """Yield latent attention: expanded to every head, or absorbed into queries and output.

    Absorbed, a query of each head meets the latent vector itself (one key head of rank + rope
    elements, whose first rank elements are the values too), and the cache holds no more than that.
    Prompts are expanded then, too: many queries cost less so.
    """
    a, rows = d.attention, t.rows
    whole, wide = a.head_size + latent.rope_size, latent.kv_rank + latent.rope_size
    expand = a.heads * (a.head_size + latent.value_size)
    step = {"batch": t.batch, "new": t.new, "context": t.context}

    def linear(inner: int, width: int, of: int = rows) -> Operator:
        return operator("linear", layer, rows=of, inner=inner, width=width, bias=0)

    if latent.query_rank:
        yield linear(d.hidden, latent.query_rank)
        yield operator("rms_norm", layer, rows=rows, width=latent.query_rank)
    yield linear(latent.query_rank or d.hidden, a.heads * whole)
    yield linear(d.hidden, wide)
    yield operator("rms_norm", layer, rows=rows, width=latent.kv_rank)
    yield operator("rotate", layer, batch=t.batch, new=t.new, heads=a.heads, kv_heads=1,
                   size=latent.rope_size, sections=1)  # fmt: skip
    if absorbed:
        yield operator("cache", layer, kv_heads=1, size=wide, value_size=0, **step)
    if absorbed and t.decodes:
        yield operator("heads_linear", layer, rows=rows, heads=a.heads, inner=a.head_size,
                       width=latent.kv_rank)  # fmt: skip
        yield operator("attention", layer, heads=a.heads, kv_heads=1, size=wide,
                       value_size=latent.kv_rank, latent=1, **step)  # fmt: skip
        yield operator("heads_linear", layer, rows=rows, heads=a.heads, inner=latent.kv_rank,
                       width=latent.value_size)  # fmt: skip
    else:
        # of a chunk, what is in the latent cache is expanded anew
        yield linear(latent.kv_rank, expand, t.batch * (t.new + t.context * absorbed))
        if not absorbed:
            yield operator("cache", layer, kv_heads=a.heads, size=whole,
                           value_size=latent.value_size, **step)  # fmt: skip
        yield operator("attention", layer, heads=a.heads, kv_heads=a.heads, size=whole,
                       value_size=latent.value_size, latent=0, **step)  # fmt: skip
    yield linear(a.heads * latent.value_size, d.hidden)


def _feed_forward(
    d: Decoder, t: Tokens, tokens: int, layer: int, lowering: Lowering, p: Parallel
) -> Iterator[Operator]:
    """Yield the feed-forward network of a layer, or its experts with their collectives.

    Parameters
    ----------
    tokens : int
        Of all tensor groups together.
    """
    e, operations, rows = d.experts, ACTIVATIONS[d.activation], t.rows
    sizes = {"rows": rows, "inner": d.hidden, "operations": operations}
    kind = "gated_ffn" if d.gated else "ffn"
    if e is None or not has_experts(d, layer):
        yield operator(kind, layer, width=d.intermediate, bias=int(d.bias), **sizes)
        yield from summed(p, rows, d.hidden, layer)
        return
    travel = p.groups > 1  # tokens to the experts of other groups
    part = -(-rows // p.tensor) if travel else rows
    sent = {"rows": part * e.chosen, "width": d.hidden, "chips": p.expert}
    yield operator("router", layer, rows=part, inner=d.hidden, experts=e.count, chosen=e.chosen,
                   groups=e.groups, sigmoid=int(e.scoring == "sigmoid"))  # fmt: skip
    if travel:
        yield operator("all_to_all", layer, **sent)
    yield from _experts(d, e, t, tokens, layer, lowering, p)
    if travel:
        yield operator("all_to_all", layer, **sent)
        yield operator("experts_sum", layer, rows=part, width=d.hidden, chosen=e.chosen)
        yield from gathered(p, rows, d.hidden, layer)
    if e.shared:
        yield operator(kind, layer, width=shared_width(e), bias=int(d.bias), **sizes)
        if e.shared_gate:
            yield operator("shared_gate", layer, rows=rows, width=d.hidden)
        if travel:
            yield from summed(p, rows, d.hidden, layer)
        yield operator("residual", layer, rows=rows, width=d.hidden)
    if not travel:
        yield from summed(p, rows, d.hidden, layer)


def _experts(
    d: Decoder, e: Experts, t: Tokens, tokens: int, layer: int, lowering: Lowering, p: Parallel
) -> Iterator[Operator]:
    """Yield the experts of a chip: all in one operator, or one after the other."""
    popularity = np.array(e.popularity) if e.popularity else zipf(e.count, e.skew)
    sent: dict[str, float] = {"experts": e.count // p.expert, "chosen": e.chosen}
    each = {"inner": d.hidden, "width": e.intermediate, "operations": ACTIVATIONS[d.activation]}
    rows = t.rows
    if p.expert > 1:
        got, expected = busiest(e, tokens, p.expert, t.hit)
        # what came from elsewhere goes back one by one; what is here anyway is summed
        rows = got if p.groups > 1 or lowering.experts == "loop" else rows
        sent["chosen"] = got / rows
    if lowering.experts == "together":
        if p.expert == 1:
            expected = t.hit or expected_hit(popularity, e.chosen, rows)
        yield operator("experts", layer, rows=rows, hit=expected, **each, **sent)
        return
    yield operator("experts_start", layer, rows=rows, inner=d.hidden, **sent)
    before = sum(has_experts(d, i) for i in range(layer))
    # a whole number of experts in each layer, the mean over layers as asked
    hit = round((before + 1) * t.hit) - round(before * t.hit) if t.hit else None
    if p.expert == 1:
        shares = loads(popularity, e.chosen, rows, hit)
    else:
        shares = dealt_loads(e, tokens, p.expert, hit)
    for one in shares:
        yield operator("expert", layer, rows=one, sent=rows * sent["chosen"],
                       chosen=sent["chosen"], **each)  # fmt: skip
    yield operator("experts_end", layer, rows=rows, inner=d.hidden, **sent)


def _sampling(d: Decoder, t: Tokens) -> Iterator[Operator]:
    """Yield how the next token is found: only the last of a sequence matters, or those drafted."""
    if not t.decodes:
        return  # a prompt: whoever asked for it looks at its logits
    yield choice(d, t.batch * (t.drafted + 1))
    if t.drafted:
        yield operator("verify", batch=t.batch, drafted=t.drafted, width=d.vocabulary)


def choice(d: Decoder, rows: int) -> Operator:
    """Return how one token is chosen for each row of logits."""
    if d.sampling == "top_k":
        return operator("sample_top_k", rows=rows, width=d.vocabulary, chosen=d.top_k)
    return operator("argmax", rows=rows, width=d.vocabulary)
