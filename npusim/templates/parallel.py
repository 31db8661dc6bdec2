"""A model on several chips: what one of them holds and does of it.

A workload is that of one chip. The chips of a model form P pipeline stages of max(T, E) chips each,
for a tensor split T and an expert split E:

- ``tensor`` T: heads, the columns of gate and up, the rows of output and down, shared experts and
  the vocabulary are cut in T parts; each product whose rows are cut is followed by an all_reduce of
  rows x hidden elements. Without an expert split the width of every expert is cut, too. Key-value
  heads fewer than T are held by T / kv_heads chips each. Latent projections, norms and the router
  are on all chips.
- ``expert`` E, a multiple of T: each chip holds experts / E experts, whole. The E / T tensor groups
  of a stage work on sequences of their own, batch / (E / T) each (data-parallel attention). Between
  groups tokens travel: all_to_all of rows x chosen x hidden there and back, each chip of a group
  sending a T-th of its rows, and an all_gather within the group. With T = E all chips have the
  same tokens, and the all_reduce of the layer adds up the experts.
- ``pipeline`` P: layers are cut as evenly as whole layers allow, earlier stages having one more.
  The first embeds, the last has the head; a stage sends rows x hidden to the next, the last one the
  tokens chosen to the first.

The embedding is cut by vocabulary: every chip looks all rows up, those of others as zeros, and an
all_reduce adds them. The head is cut alike, its columns padded to a multiple of T; logits are
gathered on all chips (as vLLM does on GPUs: any sampling then runs as on one chip, where candidates
of an argmax would serve greedy decoding alone).

Source: M. Shoeybi et al., "Megatron-LM", arXiv:1909.08053, section 3; D. Lepikhin et al., "GShard",
arXiv:2006.16668; DeepSeek-V2, arXiv:2405.04434, section 3.1; vLLM's documentation of parallel
serving (docs.vllm.ai: serving/parallelism_scaling, serving/expert_parallel_deployment).

Left out: sequence and context parallelism of attention and norms, experts with copies, a split of
vision encoders, stages of unequal layers by what they take, norms over all heads (OLMo 2) under a
tensor split, the masks of an embedding that is cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any

from npusim.errors import InputError
from npusim.templates.hyperparameters import (
    Attention,
    Decoder,
    Experts,
    decoder_parameters,
    layer_parameters,
    shared_width,
)
from npusim.templates.operators import Operator, operator

_MOST = 65536  # chips one way


@dataclass(frozen=True)
class Parallel:
    """How a model is cut over chips, and which of them is meant.

    Attributes
    ----------
    tensor : int
        Chips that share each product.
    expert : int
        Chips that share the experts; 1, or a multiple of `tensor`.
    pipeline : int
        Stages that share the layers.
    stage : int
        Which stage, from 0.
    overlap : int
        Parts of the batch that take turns, so that collectives of one run while the other computes:
        1 (none) or 2.

    Examples
    --------
    >>> p = Parallel(tensor=2, expert=8, pipeline=4)
    >>> p.chips, p.groups
    (32, 4)
    """

    tensor: int = 1
    expert: int = 1
    pipeline: int = 1
    stage: int = 0
    overlap: int = 1

    @property
    def chips(self) -> int:
        """Chips of the model."""
        return self.pipeline * max(self.tensor, self.expert)

    @property
    def groups(self) -> int:
        """Tensor groups of a stage, each with sequences of its own."""
        return max(self.expert // self.tensor, 1)

    @property
    def last(self) -> bool:
        """Whether it is the last stage."""
        return self.stage == self.pipeline - 1


ALONE = Parallel()


def asked(tensor: int, expert: int, pipeline: int, stage: int | None, overlap: int = 1) -> Parallel:
    """Return a split in whole numbers, the stage of one stage being known.

    Raises
    ------
    InputError
        What is no number of chips, or no stage where there are several.
    """
    found = Parallel(tensor, expert, pipeline, 0 if stage is None else stage, overlap)
    for field in ("tensor", "expert", "pipeline", "stage", "overlap"):
        low, high = (1, 2) if field == "overlap" else (1, _MOST)
        if field == "stage":
            low, high = 0, int(pipeline) - 1
        value: Any = getattr(found, field)
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise InputError("not a whole number", place=field, value=value,
                             allowed=f"{low} to {high}")  # fmt: skip
        if not low <= int(value) <= high:
            raise InputError("out of range", place=field, value=value, allowed=f"{low} to {high}")
    if stage is None and found.pipeline > 1:
        raise InputError("is needed where there are several stages", place="stage",
                         allowed=f"0 to {pipeline - 1}")  # fmt: skip
    return Parallel(*(int(getattr(found, f.name)) for f in fields(found)))


def check(p: Parallel, d: Decoder, phase: str) -> None:
    """Refuse a split that a model or a phase does not have.

    Raises
    ------
    InputError
        By the name of the field.
    """
    if phase in ("vision", "page"):
        for f in fields(p):
            if getattr(p, f.name) != f.default:
                raise InputError(f"not of {phase}: an encoder is not split", place=f.name,
                                 value=getattr(p, f.name), allowed=str(f.default))  # fmt: skip
    a, e, t = d.attention, d.experts, p.tensor
    wrong = [
        ("tensor", t, a.heads % t != 0, f"does not divide the {a.heads} heads"),
        ("tensor", t, a.latent is None and a.kv_heads % t != 0 and t % a.kv_heads != 0,
         f"neither divides the {a.kv_heads} key-value heads nor is a multiple of them"),
        ("tensor", t, _has_dense(d) and d.intermediate % t != 0,
         f"does not divide the {d.intermediate} columns of the feed-forward network"),
        ("tensor", t, t > 1 and a.qk_norm == "whole",
         "norms over all heads are not split"),
        ("pipeline", p.pipeline, p.pipeline > d.layers, f"more stages than the {d.layers} layers"),
        ("expert", p.expert, e is None and p.expert > 1, "of a model without experts"),
    ]  # fmt: skip
    if e is not None:
        wrong += [
            ("tensor", t, p.expert == 1 and e.intermediate % t != 0,
             f"does not divide the {e.intermediate} columns of an expert"),
            ("tensor", t, e.shared > 0 and shared_width(e) % t != 0,
             f"does not divide the {shared_width(e)} columns of the shared experts"),
            ("expert", p.expert, e.count % p.expert != 0,
             f"does not divide the {e.count} experts"),
            ("expert", p.expert, p.expert > 1 and p.expert % t != 0,
             f"neither 1 nor a multiple of the tensor split of {t}"),
        ]  # fmt: skip
    wrong.append(("overlap", p.overlap, p.overlap > 1 and max(t, p.expert) == 1,
                  "no collective to overlap without a tensor or expert split"))  # fmt: skip
    for place, value, refused, why in wrong:
        if refused:
            raise InputError(why, place=place, value=value)


def _has_dense(d: Decoder) -> bool:
    e = d.experts
    return e is None or e.first_dense > 0 or e.every > 1


def share(d: Decoder, p: Parallel) -> Decoder:
    """Return the decoder with the sizes that one chip has; the number of experts stays.

    Examples
    --------
    >>> from npusim.templates import load_model
    >>> d = share(load_model("llama_3_1_8b").decoder, Parallel(tensor=16))
    >>> d.attention.heads, d.attention.kv_heads, d.intermediate, d.vocabulary
    (2, 1, 896, 8016)
    """
    if p.tensor == 1:
        return d
    t, e = p.tensor, d.experts
    more: dict[str, Any] = {
        "attention": _shared_attention(d.attention, t),
        "vocabulary": -(-d.vocabulary // t),
    }
    if _has_dense(d):
        more["intermediate"] = d.intermediate // t
    if e is not None:
        more["experts"] = _shared_experts(e, p)
    return d.model_copy(update=more)


def _shared_attention(a: Attention, t: int) -> Attention:
    return a.model_copy(update={"heads": a.heads // t, "kv_heads": max(a.kv_heads // t, 1)})


def _shared_experts(e: Experts, p: Parallel) -> Experts:
    more: dict[str, Any] = {"intermediate": e.intermediate // (p.tensor if p.expert == 1 else 1)}
    if e.shared:
        more["shared_intermediate"] = shared_width(e) // p.tensor
    return e.model_copy(update=more)


def stage_layers(layers: int, p: Parallel) -> range:
    """Return the layers of a stage.

    Examples
    --------
    >>> [len(stage_layers(61, Parallel(pipeline=4, stage=s))) for s in range(4)]
    [16, 15, 15, 15]
    """
    each, more = divmod(layers, p.pipeline)
    start = p.stage * each + min(p.stage, more)
    return range(start, start + each + (p.stage < more))


def chip_parameters(d: Decoder, p: Parallel) -> int:
    """Return how many parameters one chip holds.

    The router is whole on every chip. A last stage of several holds a tied vocabulary projection
    of its own.

    Examples
    --------
    >>> from npusim.templates import load_model
    >>> d = load_model("llama_3_1_8b").decoder
    >>> chip_parameters(d, Parallel()) == decoder_parameters(d)
    True
    """
    here = share(d, p)
    if p == ALONE:
        return decoder_parameters(here)
    total = sum(_held(here, layer, p.expert) for layer in stage_layers(d.layers, p))
    table = here.vocabulary * d.hidden
    if p.stage == 0:
        total += table + d.positions * d.hidden
    if p.last:
        total += d.hidden * (1 if d.norm == "rms" else 2)
        total += table * (p.pipeline > 1 or not d.tied)
    return total


def _held(here: Decoder, layer: int, chips: int) -> int:
    """Return parameters of a layer on a chip that has one of so many parts of the experts."""
    e = here.experts
    if e is None or chips == 1:
        return layer_parameters(here, layer)
    few = here.model_copy(update={"experts": e.model_copy(update={"count": e.count // chips})})
    held = layer_parameters(few, layer)
    routed = layer_parameters(here, layer) != held
    return held + routed * (e.count - e.count // chips) * (here.hidden + int(e.bias))


def summed(p: Parallel, rows: int, width: int, layer: int = -1) -> Iterator[Operator]:
    """Yield the sum over a tensor group, if there is more than one chip in it."""
    if p.tensor > 1:
        yield operator("all_reduce", layer, rows=rows, width=width, chips=p.tensor)


def gathered(p: Parallel, rows: int, width: int, layer: int = -1) -> Iterator[Operator]:
    """Yield the gathering of parts of a tensor group, if there is more than one chip in it."""
    if p.tensor > 1:
        yield operator("all_gather", layer, rows=rows, width=width, chips=p.tensor)
