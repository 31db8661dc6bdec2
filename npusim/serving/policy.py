"""How an engine serves: what it may hold, and how it mixes prompts with answers under way."""

from __future__ import annotations

import math
from dataclasses import dataclass

from npusim.errors import InputError

_FLAGS = {
    "max_seqs": "--max-num-seqs", "max_tokens": "--max-num-batched-tokens",
    "max_model_len": "--max-model-len", "block": "--block-size", "blocks": "blocks of KV cache",
    "encoder_tokens": "encoder cache",
}  # fmt: skip
_SWITCHES = ("chunked", "mixed", "one_by_one", "prefix_cache", "reserve_prompt")
_MOST_IN_BLOCK = 1_048_576


@dataclass(frozen=True)
class Policy:
    """An engine's settings, those of vLLM and FastDeploy under the names in brackets.

    Attributes
    ----------
    max_seqs : int
        Requests that run at once (--max-num-seqs).
    max_tokens : int
        Tokens that enter in one step (--max-num-batched-tokens).
    max_model_len : int
        Tokens of prompt and answer of one request (--max-model-len).
    blocks : int
        Blocks of KV cache in the pool; 0: as many as are asked for.
    block : int
        Tokens of a block (--block-size).
    chunked : bool
        Whether a prompt may enter in parts (--enable-chunked-prefill). If not, it waits until all
        of it fits into a step.
    mixed : bool
        Whether requests under way get their next token in steps in which prompts enter. If not,
        prompts go first, in steps of their own.
    one_by_one : bool
        Whether only one prompt enters in a step.
    prefix_cache : bool
        Whether blocks of a prompt that was computed before, and still are there, are not computed
        again (--enable-prefix-caching).
    reserve_prompt : bool
        Whether a request is let in only if all of its prompt finds room.
    encoder_tokens : int
        Tokens of images that the encoder cache holds; 0: no such cache.

    Raises
    ------
    InputError
        A setting under which nothing can be served, by the name of its flag.
    """

    max_seqs: int = 256
    max_tokens: int = 2048
    max_model_len: int = 131_072
    blocks: int = 0
    block: int = 16
    chunked: bool = True
    mixed: bool = True
    one_by_one: bool = False
    prefix_cache: bool = True
    reserve_prompt: bool = True
    encoder_tokens: int = 0

    def __post_init__(self) -> None:
        for name, flag in _FLAGS.items():
            value, least = getattr(self, name), int(name not in ("blocks", "encoder_tokens"))
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError("nothing can be served", place=flag, value=value,
                                 allowed=f"a whole number from {least}")  # fmt: skip
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise InputError("neither on nor off", place=name, value=getattr(self, name),
                                 allowed="True, False")  # fmt: skip
        if self.block > _MOST_IN_BLOCK:
            raise InputError("not a block", place="--block-size", value=self.block,
                             allowed=f"up to {_MOST_IN_BLOCK:,}")  # fmt: skip
        if self.max_tokens < self.max_seqs:
            raise InputError(
                "a step does not hold a token of each request", place="--max-num-batched-tokens",
                value=self.max_tokens, allowed=f"{self.max_seqs} (--max-num-seqs) or more",
            )  # fmt: skip
        if self.blocks and self.blocks * self.block < self.max_model_len:
            raise InputError(
                "the KV cache does not hold one sequence of this length", place="--max-model-len",
                value=self.max_model_len, allowed=f"up to {self.blocks * self.block:,}, "
                f"{self.blocks:,} blocks of {self.block}",
                hint="lower it, or raise --gpu-memory-utilization",
            )  # fmt: skip
        if not self.chunked and self.max_tokens < self.max_model_len:
            raise InputError(
                "prompts enter whole and may be longer than a step",
                place="--max-num-batched-tokens", value=self.max_tokens,
                allowed=f"{self.max_model_len} (--max-model-len) or more without chunked prefill",
            )  # fmt: skip

    def blocks_of(self, tokens: int) -> int:
        """Return how many blocks so many tokens take."""
        return math.ceil(tokens / self.block)
