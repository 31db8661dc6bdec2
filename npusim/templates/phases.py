"""One phase of a model as a workload: vision, prefill, a chunk of it, decode, or a whole page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from npusim.errors import InputError
from npusim.templates import parallel
from npusim.templates.asked import Asked, checked
from npusim.templates.decoder import Tokens, decoder_operators
from npusim.templates.hyperparameters import Model
from npusim.templates.lower import Phase, lower
from npusim.templates.lowering import Lowering, load_lowering
from npusim.templates.models import load_model
from npusim.templates.pages import page_phases
from npusim.templates.parallel import ALONE, Parallel, chip_parameters
from npusim.templates.parallel_experts import dealt_popularity
from npusim.templates.parameter_count import model_parameters
from npusim.templates.vision import resized, view_tokens, vision_operators
from npusim.transforms.speculation import expected_tokens
from npusim.workload import Workload


def template(
    model: str | Path,
    phase: str,
    *,
    batch: int = 1,
    context: int | None = None,
    new: int | None = None,
    steps: int = 1,
    draft: int = 0,
    acceptance: float | None = None,
    lowering: str = "hf-eager",
    logits: str = "last",
    experts_hit: float | None = None,
    image: tuple[int, int] | None = None,
    images: int = 1,
    tensor: int = 1,
    expert: int = 1,
    pipeline: int = 1,
    stage: int | None = None,
    overlap: int = 1,
    settings: Mapping[str, Any] | None = None,
) -> Workload:
    """Return the workload of one phase of a model, from its hyperparameters.

    Parameters
    ----------
    model : str or Path
        A name that ships, a YAML file like those, or a Hugging Face ``config.json``.
    phase : str
        ``prefill``: a prompt of `context` tokens enters, or, where `new` is given, a chunk of so
        many after `context` that are there already. ``decode``: one token of each sequence enters,
        after `context`. ``vision``: `images` become tokens. ``page``: all of these, as
        `npusim.templates.pages` says.
    batch : int
        Sequences; of a page, pages that are read together.
    context : int, optional
        Tokens of each: of the prompt for prefill, in the cache before for decode. By default those
        of the prompt of the model's page, where it has one, else 1,024.
    new : int, optional
        Tokens of each that enter in a chunk of a prefill.
    steps : int
        Decode steps, the context growing by one each.
    draft : int
        Tokens of each that a draft proposed and that a decode step verifies beside its own.
    acceptance : float, optional
        Probability that the model agrees with a drafted token; needed with `draft`.
    lowering : str
        Name or file of the lowering.
    logits : str
        ``last`` or ``all``: of which tokens of a prompt the vocabulary projection is computed.
    experts_hit : float, optional
        Experts that the tokens of a step hit in a layer, on average over the layers; by default
        what is expected of tokens that choose for themselves, by the popularity of the experts.
    image : tuple of int, optional
        Width and height of each image of a vision step [pixels]; by default those of the view of
        the whole of the model's page.
    images : int
        Images, all of one size.
    tensor, expert, pipeline : int
        Chips that share each product, the experts, and stages that share the layers: the workload
        is that of one chip then (`npusim.templates.parallel`), and `batch` what the
        ``max(tensor, expert)`` chips of a stage have together.
    stage : int, optional
        Which stage, from 0; needed where there are several.
    overlap : int
        2: two halves of the step take turns, collectives of one beside the other's work
        (`npusim.templates.overlap`).
    settings : mapping, optional
        Hyperparameters that differ: dotted path -> value.

    Raises
    ------
    InputError, InputErrors
        No such model, lowering or phase, a hyperparameter that is impossible, a size out of range.

    Examples
    --------
    >>> w = template("deepseek_ocr", "decode", context=1069)
    >>> len(w), round(float(w["read_weight"].sum()) / 1e9, 3)
    (2023, 1.15)
    """
    m, how = load_model(model, settings), load_lowering(lowering)
    asked = checked(m, phase, Asked(batch, context, new, steps, draft, acceptance, logits,
                                    experts_hit, image, images))  # fmt: skip
    split = parallel.asked(tensor, expert, pipeline, stage, overlap)
    parallel.check(split, m.decoder, phase)
    phases: Iterable[Phase]
    if phase == "vision":
        phases, about = _vision(m, asked)
    elif phase == "page":
        phases, about = page_phases(m, how, asked.batch, asked.experts_hit)
        about |= {"batch": asked.batch}
    else:
        phases, about = _decoder(m, phase, asked, how, split)
    notes = [*m.notes, *about.get("notes", ())]
    about |= {"model": m.title, "source": m.source, "lowering_source": how.source, "notes": notes,
              "parameters": model_parameters(m)}  # fmt: skip
    if m.decoder.experts is not None:
        about["experts"] = dealt_popularity(m.decoder.experts, split.expert)
    return lower(f"{_stem(Path(model))}_{phase}", phases, how, m.dtype, about)


def _stem(model: Path) -> str:
    """Return what to call a model: by its folder, where its file is called as all are.

    Examples
    --------
    >>> _stem(Path("Qwen3-8B/config.json")), _stem(Path("deepseek_ocr"))
    ('Qwen3-8B', 'deepseek_ocr')
    """
    return (model.parent.name if model.name == "config.json" else "") or model.stem


def _vision(m: Model, asked: Asked) -> tuple[list[Phase], dict[str, Any]]:
    """Return the step in which images become tokens."""
    if m.vision is None or asked.image is None:
        raise InputError("has no vision encoder", value=m.title, place="vision")
    operators = vision_operators(m.vision, m.decoder.hidden, asked.image, asked.images)
    about = {"image": list(asked.image), "images": asked.images,
             "tokens": asked.images * view_tokens(m.vision, asked.image)}  # fmt: skip
    seen = resized(m.vision.resize, asked.image) if m.vision.resize else asked.image
    if seen != asked.image:
        sizes = ["x".join(map(str, size)) for size in (asked.image, seen)]
        about["notes"] = [f"images of {sizes[0]} pixels are resized to {sizes[1]}"]
    return [Phase("encode", list(operators))], about


def _decoder(
    m: Model, phase: str, asked: Asked, how: Lowering, split: Parallel
) -> tuple[Iterator[Phase], dict[str, Any]]:
    """Return steps of the decoder, each with a token more in its cache."""
    new, context = (asked.new or 1) + asked.draft, asked.context or 0
    phases = (
        Phase(phase, list(decoder_operators(
            m.decoder, Tokens(asked.batch, new, context + i, asked.draft, asked.experts_hit), how,
            asked.logits, split)))
        for i in range(asked.steps)
    )  # fmt: skip
    about: dict[str, Any] = {"batch": asked.batch, "context": context, "new": new}
    if asked.acceptance is not None:
        tokens = expected_tokens(asked.draft, asked.acceptance)
        about |= {"acceptance": asked.acceptance, "tokens_per_step": asked.batch * tokens}
    if split != ALONE:
        about |= {"batch": -(-asked.batch // split.groups), "parallel": asdict(split),
                  "chip_parameters": chip_parameters(m.decoder, split),
                  "notes": _told(split)}  # fmt: skip
    return phases, about


def _told(p: Parallel) -> list[str]:
    """Say what a workload of one chip of several is."""
    stage = f", stage {p.stage} of {p.pipeline}" if p.pipeline > 1 else ""
    notes = [f"one chip of {p.chips}: tensor {p.tensor}, expert {p.expert}{stage}"]
    if p.expert > 1:
        notes.append("experts: those of the busiest chip, which the others wait for")
    if p.overlap > 1:
        notes.append("overlap: kernels side by side do not slow each other down here, so the gain "
                     "is the most that it can be; each half reads the weights")  # fmt: skip
    return notes
