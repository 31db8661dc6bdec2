"""Hugging Face models as programs: random weights on the GPU, built from a configuration alone."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from npusim.capture.case import DTYPES, Case
from npusim.capture.gpu import TRANSFORMERS, Row, first_line, load
from npusim.capture.models import Program, Step, accepted
from npusim.errors import InputError

_SLOTS = 64  # of a static cache beyond the context, as in npusim's own baseline
_TEXT = ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModel")
_OWN_CODE = "trace it with file.py:function instead (see docs/capture.md)"


def hugging_face_program(torch: Any, case: Case) -> Program:
    """Build the model of a case.

    Raises
    ------
    NpusimError
        transformers is absent, the configuration cannot be found or read, or the model cannot be
        built or has no such phase.
    """
    transformers = load("transformers", TRANSFORMERS)
    config = _config(transformers, case.model)
    if case.phase == "vision":
        tower = getattr(config, "vision_config", None) or config
        model = _built(torch, transformers, ("AutoModel",), tower, case)
        return _Forward(torch, case, model, _pixels(torch, case, model, tower))
    model = _built(torch, transformers, _TEXT, config, case)
    words = int(config.get_text_config().vocab_size)
    if case.phase == "prefill":
        return _Forward(torch, case, model, _tokens(torch, model, words, case.batch, case.context))
    return _Decode(torch, transformers, case, model, words)


class _Forward:
    """One call of the model on fixed inputs: prefill, or an image encoder."""

    def __init__(self, torch: Any, case: Case, model: Any, inputs: Row) -> None:
        self._torch, self._model, self._inputs = torch, model, inputs
        self.about = _about(model, case)

    def eager(self, before: int) -> Step:
        """Return the step; it keeps no state."""
        return Step(lambda: self._model(**self._inputs))

    def static(self, compiled: bool) -> Step:
        """Return the step, fused by the compiler if asked."""
        call = _compiled(self._torch, self._model) if compiled else self._model
        return Step(lambda: call(**self._inputs))


class _Decode:
    """One token for each sequence, after a context that a prefill has put into the cache."""

    def __init__(self, torch: Any, transformers: Any, case: Case, model: Any, words: int) -> None:
        self._torch, self._transformers = torch, transformers
        self._case, self._model, self._words = case, model, words
        self.about = {**_about(model, case), "static_slots": case.context + _SLOTS}

    def eager(self, before: int) -> Step:
        """Return a step that appends to its cache, at first `before` tokens short of the case."""
        first = max(1, self._case.context - before)
        self.about["first_context"] = first + before
        cache = getattr(self._model(**self._ids(first), use_cache=True), "past_key_values", None)
        if cache is None:
            raise InputError("keeps no KV cache between steps", file=self._case.model,
                             value=type(self._model).__name__, hint=_OWN_CODE)  # fmt: skip
        token = {**self._ids(1), "use_cache": True}

        def run() -> None:
            nonlocal cache
            cache = self._model(**token, past_key_values=cache).past_key_values

        return Step(run)

    def static(self, compiled: bool) -> Step:
        """Return a step that writes to one slot of a cache of fixed length, under a mask."""
        case, torch, model = self._case, self._torch, self._model
        cache = self._transformers.StaticCache(
            config=model.config, max_batch_size=case.batch, max_cache_len=case.context + _SLOTS,
            device="cuda", dtype=getattr(torch, DTYPES[case.dtype]),
        )  # fmt: skip
        slots = torch.arange(case.context + 1, device="cuda")
        filled, last = slots[:-1], slots[-1:]
        model(**self._ids(case.context), **self._where(filled), past_key_values=cache)
        call = _compiled(torch, model) if compiled else model
        token = {**self._ids(1), **self._where(last), "past_key_values": cache}
        return Step(lambda: call(**token), lambda: _rewind(cache, case.context))

    def _ids(self, count: int) -> Row:
        return _tokens(self._torch, self._model, self._words, self._case.batch, count)

    def _where(self, slots: Any) -> Row:
        """Return the slots to write to, where the model wants to be told (transformers 4)."""
        return {"use_cache": True, **accepted(self._model.forward, {"cache_position": slots})}


def _rewind(cache: Any, length: int) -> None:
    """Set a static cache back to a length that it counts itself (transformers 5 and later)."""
    for layer in getattr(cache, "layers", ()):
        for counter in ("cumulative_length", "cumulative_length_int"):
            value: Any = getattr(layer, counter, None)
            if hasattr(value, "fill_"):
                value.fill_(length)
            elif value is not None:
                setattr(layer, counter, length)


def _config(transformers: Any, model: str) -> Any:
    path = Path(model)
    if not path.exists() and (path.suffix == ".json" or len(path.parts) > 2):
        raise InputError("no such file or folder", file=model)
    if path.is_dir() and not (path / "config.json").is_file():
        raise InputError("holds no config.json", file=model)
    try:
        return transformers.AutoConfig.from_pretrained(
            model, local_files_only=True, trust_remote_code=False
        )
    except OSError:
        raise InputError("not a model that is here", file=model,
                         allowed="config.json, a model folder, an id in the local cache",
                         hint="download it first: hf download") from None  # fmt: skip
    except Exception as error:
        raise InputError(f"not a configuration that transformers {transformers.__version__} "
                         f"reads: {first_line(error)}", file=model) from None  # fmt: skip


def _built(torch: Any, transformers: Any, kinds: Sequence[str], config: Any, case: Case) -> Any:
    """Return a model with random weights on the GPU, of the first kind that fits its config."""
    dtype = getattr(torch, DTYPES[case.dtype])
    named = "torch_dtype" if _transformers_before((4, 56)) else "dtype"
    refusals = []
    for kind in kinds:
        try:
            with torch.device("cuda"):
                model = getattr(transformers, kind).from_config(config, **{named: dtype})
            return model.to(dtype).eval()
        except torch.cuda.OutOfMemoryError:
            raise InputError("does not fit the memory of this GPU", file=case.model,
                             place=case.dtype) from None  # fmt: skip
        except Exception as error:
            refusals.append(f"{kind}: {first_line(error)}")
    raise InputError(f"transformers builds no {case.phase} model of it ({refusals[0]})",
                     file=case.model, hint=_OWN_CODE)  # fmt: skip


def _tokens(torch: Any, model: Any, words: int, batch: int, count: int) -> Row:
    """Return random tokens; logits are wanted for the last of them only, as in generation."""
    ids = torch.randint(words, (batch, count), device="cuda")
    return {"input_ids": ids, **accepted(model.forward, {"logits_to_keep": 1})}


def _pixels(torch: Any, case: Case, model: Any, config: Any) -> Row:
    """Return random images of the size that an encoder was made for."""
    size = getattr(config, "image_size", None)
    if size is None or not accepted(model.forward, {"pixel_values": None}):
        raise InputError("not an encoder of images of one size", file=case.model,
                         value=type(model).__name__, hint=_OWN_CODE)  # fmt: skip
    height, width = (size, size) if isinstance(size, int) else size
    shape = (case.batch, getattr(config, "num_channels", 3), height, width)
    dtype = getattr(torch, DTYPES[case.dtype])
    return {"pixel_values": torch.randn(shape, device="cuda", dtype=dtype)}


def _compiled(torch: Any, model: Any) -> Any:
    return torch.compile(model, dynamic=False)


def _about(model: Any, case: Case) -> Row:
    return {
        "architecture": type(model).__name__,
        "attention": getattr(model.config, "_attn_implementation", None),
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights": f"random, {case.dtype}",
    }


def _transformers_before(release: tuple[int, int]) -> bool:
    major, minor = version("transformers").split(".")[:2]
    return (int(major), int(minor)) < release
