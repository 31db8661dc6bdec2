r"""Whether a serving configuration fits into the memory of a chip, and what is left for the cache.

A serving engine takes a share of the memory, loads the weights, runs the largest step that it may
ever see, and gives the rest of its share to blocks of the KV cache:

    share    = utilization x capacity
    pool     = share - weights - tables - peak of a step - runtime
    token    = layers x 2 x KV heads x head size x bytes, or layers x (rank + rope) x bytes
    blocks   = floor(pool / (block x token))
    fits     : ceil(longest / block) <= blocks, one sequence of the greatest length has room
    reserve  = capacity - share, for what the engine allocates beside its share

The pool is shared: more sequences than it holds are not refused, they wait or are preempted and
computed again. ``--max-num-seqs`` bounds how many decode together, not what is set aside for them.

Split over T chips (`npusim.templates.parallel`), each has 1/T of the heads, of the feed-forward
networks and of the vocabulary; norms, the encoder of images and KV heads that are fewer than T are
on all.

Source: paged attention, W. Kwon et al., arXiv:2309.06180; tensor parallelism, M. Shoeybi et al.,
arXiv:1909.08053; how vLLM 0.19 and FastDeploy 2 count (Apache-2.0). The peak is that of
`npusim.memory_peak`; what makes a plan fit is `npusim.memory_advice`.

Left out: scales of quantised weights and caches, prefix caching, drafts and adapters, several
models on a chip, sliding windows and states that are no KV cache, pipelines, the driver's own
reserve where a capacity is the nominal one (0.5 GB of 25.8 on an RTX 4090, whose nominal 24 GB are
less than both).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

from npusim.arch import Arch
from npusim.errors import InputError
from npusim.memory_flags import (
    FRAMEWORKS,
    OVERHEADS,
    Configuration,
    Framework,
    check_configuration,
    checked_overheads,
    is_number,
)
from npusim.memory_peak import Image, Peak, peak
from npusim.templates.hyperparameters import Decoder, Model, decoder_parameters
from npusim.templates.kernels import ITEM
from npusim.templates.models import load_model
from npusim.templates.parallel import Parallel, check, share
from npusim.templates.parameter_count import cache_elements, model_parameters

# Tokens of a step by default: what vLLM's server takes on large boards (docs.vllm.ai, engine
# arguments: --max-num-batched-tokens; 2,048 on smaller ones).
USUAL_STEP = 8192
_CAPACITY, _UNITS = "memories.dram.capacity", "units.count"


@dataclass(frozen=True)
class MemoryPlan:
    """Where the memory of one chip goes under a configuration; all sizes in bytes.

    Attributes
    ----------
    model : Model
    capacity : float
        Memory of the chip.
    asked : Configuration
    framework : Framework
    overheads : mapping
        Context, libraries and graphs.
    units : int, optional
        Compute units of the chip.
    longest : int, optional
        Tokens that the model was made for.
    """

    model: Model
    capacity: float
    asked: Configuration
    framework: Framework
    overheads: Mapping[str, float]
    units: int | None = None
    longest: int | None = None
    decoder: Decoder = field(init=False)

    def __post_init__(self) -> None:
        check_configuration(self.model, self.asked, self.longest)
        object.__setattr__(self, "decoder", self._share())
        if self.weights > self.capacity:
            raise InputError(
                f"the weights alone, {self.weights / 1e9:.3f} GB, are larger than the memory, "
                f"{self.capacity / 1e9:.3f} GB", place="--arch, --memory",
                hint="more memory, more chips (--tensor), fewer bits (--weight-bits)")  # fmt: skip

    def _share(self) -> Decoder:
        """Return what one chip has of the decoder."""
        part = Parallel(tensor=self.asked.tensor)
        try:
            check(part, self.model.decoder, "decode")
        except InputError as error:
            raise InputError(f"--{error}") from None  # by the name of the flag
        return share(self.model.decoder, part)

    @cached_property
    def weights(self) -> float:
        """Weights of the part of the model that a chip has."""
        d, item = self.decoder, ITEM[self.model.dtype]
        whole = decoder_parameters(d)
        layers = whole - decoder_parameters(d.model_copy(update={"layers": 0}))
        rest = model_parameters(self.model) - decoder_parameters(self.model.decoder)
        return (whole - layers + rest) * item + layers * self.asked.weight_bits / 8

    @cached_property
    def kv_token(self) -> float:
        """KV cache of one token."""
        each = cache_elements(self.decoder, absorbed=True)
        return self.decoder.layers * each * self.asked.kv_bits / 8

    @property
    def kv_block(self) -> float:
        """KV cache of one block."""
        return self.asked.block_tokens * self.kv_token

    def blocks_of(self, tokens: int) -> int:
        """Return how many blocks a sequence of so many tokens takes."""
        return -(-tokens // self.asked.block_tokens)

    @property
    def kv_sequence(self) -> float:
        """KV cache of one sequence of the greatest length."""
        return self.blocks_of(self.asked.max_model_len) * self.kv_block

    @cached_property
    def peak(self) -> Peak:
        """Activations at the peak of a step."""
        c = self.asked
        return peak(self.model, self.decoder, c.max_num_batched_tokens, c.max_num_seqs,
                    sampler=self.framework.sampler, units=self.units, image=c.image,
                    images=c.images)  # fmt: skip

    @property
    def tables(self) -> float:
        """Numbers of blocks of every sequence (4 B each), and rotations of every position."""
        c, a = self.asked, self.decoder.attention
        size = a.latent.rope_size if a.latent else a.head_size
        turned = size * ITEM[self.model.dtype] if a.rotary != "none" else 0
        return 4.0 * c.max_num_seqs * self.blocks_of(c.max_model_len) + c.max_model_len * turned

    @property
    def runtime(self) -> float:
        """What shapes do not tell, inside the share."""
        return sum(self.overheads[name] for name in self.framework.inside)

    @property
    def beside(self) -> float:
        """What shapes do not tell, taken from the reserve."""
        return sum(v for name, v in self.overheads.items() if name not in self.framework.inside)

    @property
    def share(self) -> float:
        """What the engine may take."""
        return self.asked.gpu_memory_utilization * self.capacity

    @property
    def reserve(self) -> float:
        """What the engine leaves."""
        return self.capacity - self.share

    @property
    def spare(self) -> float:
        """What of the reserve is left beside contexts and graphs; negative: there is too little."""
        return self.reserve - self.beside

    @property
    def fixed(self) -> float:
        """Weights, tables, peak of a step and runtime."""
        return self.weights + self.tables + self.peak.bytes + self.runtime

    @property
    def needed(self) -> float:
        """What must have room in the share: that and one sequence of the greatest length."""
        return self.fixed + self.kv_sequence

    @property
    def pool(self) -> float:
        """What is left for the KV cache; negative where there is too little."""
        return self.share - self.fixed

    @property
    def pool_range(self) -> tuple[float, float]:
        """The pool, were `OVERHEADS` at their high and their low ends."""
        low = high = self.pool + self.runtime
        for name in self.framework.inside:
            low -= max(OVERHEADS[name].high, self.overheads[name])
            high -= min(OVERHEADS[name].low, self.overheads[name])
        return low, high

    @property
    def fits(self) -> bool:
        """Whether all that is needed has room in the share."""
        return self.needed <= self.share

    @property
    def blocks(self) -> int:
        """Blocks of the KV cache."""
        return max(0, math.floor(self.pool / self.kv_block))

    @property
    def pool_tokens(self) -> int:
        """Tokens of the KV cache."""
        return self.blocks * self.asked.block_tokens

    def sequences(self, tokens: int | None = None) -> int:
        """Return how many sequences of a length are in the pool at once.

        Parameters
        ----------
        tokens : int, optional
            Of each; by default the greatest length.
        """
        longest = self.asked.max_model_len
        length = longest if tokens is None else tokens
        if isinstance(length, bool) or not isinstance(length, Integral) or length < 1:
            raise InputError("not a number of tokens", value=length, allowed="1, 2, ...")
        return min(self.asked.max_num_seqs, self.blocks // self.blocks_of(min(length, longest)))

    @property
    def all_sequences(self) -> float:
        """KV cache if every sequence had the greatest length, which nothing sets aside."""
        return self.asked.max_num_seqs * self.kv_sequence

    @property
    def typical(self) -> int | None:
        """Tokens of a page of the model, prompt and answer, where it has one."""
        page = self.model.page
        return None if page is None else min(page.prompt + page.new, self.asked.max_model_len)

    def changed(self, **flags: Any) -> MemoryPlan:
        """Return the plan under other flags, `capacity` among them.

        Raises
        ------
        InputError
            A flag that is impossible.
        """
        capacity = flags.pop("capacity", self.capacity)
        return replace(self, capacity=capacity, asked=replace(self.asked, **flags))

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, sizes in bytes."""
        return {
            "model": self.model.title, "framework": self.framework.name, "fits": self.fits,
            "configuration": asdict(self.asked), "capacity_bytes": self.capacity,
            "share_bytes": self.share, "reserve_bytes": self.reserve,
            "weights_bytes": self.weights, "activations_bytes": self.peak.bytes,
            "activations": {**asdict(self.peak), "where": self.peak.where},
            "tables_bytes": self.tables, "runtime_bytes": self.runtime,
            "beside_bytes": self.beside, "spare_bytes": self.spare,
            "kv_bytes_per_token": self.kv_token, "kv_bytes_per_sequence": self.kv_sequence,
            "kv_bytes_all_sequences": self.all_sequences, "needed_bytes": self.needed,
            "pool_bytes": self.pool, "pool_bytes_low": self.pool_range[0],
            "pool_bytes_high": self.pool_range[1], "pool_blocks": self.blocks,
            "pool_tokens": self.pool_tokens, "full_sequences": self.sequences(),
            "typical_tokens": self.typical,
            "typical_sequences": self.sequences(self.typical) if self.typical else None,
            "overheads_bytes": dict(self.overheads), "notes": list(self.model.notes),
        }  # fmt: skip


def memory_plan(
    model: str | Path | Model,
    machine: Arch | float,
    max_model_len: int,
    max_num_seqs: int = 256,
    max_num_batched_tokens: int | None = None,
    gpu_memory_utilization: float = 0.9,
    *,
    framework: str = "vllm",
    block_tokens: int | None = None,
    kv_bits: float | None = None,
    weight_bits: float | None = None,
    tensor: int = 1,
    chunked_prefill: bool = True,
    image: Image | None = None,
    images: int | None = None,
    overheads: Mapping[str, float] | None = None,
    longest: int | None = None,
) -> MemoryPlan:
    """Return where the memory goes when a model is served.

    Parameters
    ----------
    model : str, Path or Model
        A model, or the name or file of one.
    machine : Arch or float
        A machine, or the memory of one [B].
    max_model_len : int
        Tokens of the longest sequence, prompt and answer.
    max_num_seqs : int
        Sequences that decode together at most.
    max_num_batched_tokens : int, optional
        Tokens that a step takes at most; by default the longest sequence, but no more than
        `USUAL_STEP` where prompts may enter in parts.
    gpu_memory_utilization : float
        Share of the memory, above 0 to 1.
    framework : str
        One of `FRAMEWORKS`.
    block_tokens : int, optional
        Tokens of a block of the cache; by default the framework's.
    kv_bits, weight_bits : float, optional
        Width of the cache, and of the weights of the decoder's layers [bit]; by default the
        model's.
    tensor : int
        Chips that the model is split over.
    chunked_prefill : bool
        Whether a prompt may enter in parts.
    image : tuple of int, optional
        Width and height of the largest image [pixels]; by default what the model takes at most.
    images : int, optional
        Images that become tokens at once; by default as many as have room in a step.
    overheads : mapping, optional
        Other values for some of `OVERHEADS` [B].
    longest : int, optional
        Tokens that the model was made for, where that is known.

    Raises
    ------
    InputError, InputErrors
        No such model or framework, or a configuration that is impossible, by its flag.

    Examples
    --------
    >>> plan = memory_plan("paddleocr_vl", 24e9, 16384, gpu_memory_utilization=0.7,
    ...                    framework="fastdeploy")
    >>> plan.fits, plan.weights, plan.kv_token, plan.kv_sequence
    (True, 1917177472.0, 18432.0, 301989888.0)
    >>> round(plan.all_sequences / 1e9, 1)  # 256 of 16,384 tokens: nobody sets that aside
    77.3
    """
    m = model if isinstance(model, Model) else load_model(model)
    if framework not in FRAMEWORKS:
        raise InputError("unknown framework", place="--framework", value=framework,
                         allowed=", ".join(FRAMEWORKS))  # fmt: skip
    how, bits = FRAMEWORKS[framework], 8.0 * ITEM[m.dtype]
    batched = max_num_batched_tokens
    if batched is None:
        batched = min(max_model_len, USUAL_STEP) if chunked_prefill else max_model_len
    asked = Configuration(
        max_model_len, max_num_seqs, batched, gpu_memory_utilization,
        how.block_tokens if block_tokens is None else block_tokens,
        bits if kv_bits is None else kv_bits, bits if weight_bits is None else weight_bits,
        tensor, chunked_prefill, image, images,
    )  # fmt: skip
    whole = machine[_CAPACITY] if isinstance(machine, Arch) else machine
    if not (is_number(whole) and 0 < whole <= 1e18):
        raise InputError("not a size of a memory", place="--memory", value=whole,
                         allowed="above 0 B")  # fmt: skip
    units = round(machine[_UNITS]) if isinstance(machine, Arch) else None
    return MemoryPlan(
        m, float(whole), asked, how, checked_overheads(overheads or {}), units, longest
    )
