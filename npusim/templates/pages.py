"""A whole page: images, prompt, one decode step after the other, and what the host does between.

    time to the first token   images + prefill + the choice of a token
    page                      that + (new - 1) decode steps

The last logits of the prefill give the first token, so an answer of n tokens takes n - 1 decode
steps. These are much alike, so they are put together in groups: each group stands for so many
(``times``) by a step whose context is that in the middle of it.

After a step the host copies the tokens that were chosen, looks at the sequence for n-grams that
must not repeat (what that takes is data of the lowering), and prepares the next.

Left out: reading and resizing of the image, the tokenizer, pages that overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from npusim.errors import InputError
from npusim.templates.decoder import Tokens, choice, decoder_operators
from npusim.templates.hyperparameters import Model
from npusim.templates.lower import Phase
from npusim.templates.lowering import Lowering
from npusim.templates.operators import Operator, operator
from npusim.templates.page_hyperparameters import Page
from npusim.templates.vision import page_tokens, vision_operators

GROUPS = 8  # of decode steps


def page_phases(
    m: Model, how: Lowering, batch: int, hit: float | None
) -> tuple[list[Phase], dict[str, Any]]:
    """Return the steps of a page, and what is to be known of them.

    Parameters
    ----------
    m : Model
        With a page.
    how : Lowering
    batch : int
        Pages that are read together.
    hit : float or None
        Experts that a step hits in a layer, if not as expected.

    Returns
    -------
    phases : list of Phase
    about : dict
        ``page``: of each step its name and how many times it is done, tokens in and out.

    Raises
    ------
    InputError
        A model without a page, or a prompt that is shorter than its images.
    """
    page = m.page
    if page is None:
        raise InputError("says nothing of a page", value=m.title, place="page",
                         hint="give its file image, prompt and new below page")  # fmt: skip
    phases, names = list(_images(m, page, batch)), []
    names += ["vision"] * len(phases)
    phases.append(
        Phase("prefill", list(_prefill(m, page, how, batch)), _after(page, how, batch, 0))
    )
    times = [1] * len(phases)
    for first, last in _groups(page.new - 1):
        at = (first + last) // 2
        step = Tokens(batch, 1, page.prompt + at, hit=hit)
        phases.append(Phase("decode", list(decoder_operators(m.decoder, step, how)),
                            _after(page, how, batch, at + 1)))  # fmt: skip
        times.append(last - first + 1)
    names += ["prefill"] + ["decode"] * (len(phases) - len(names) - 1)
    parts = [{"name": n, "times": t} for n, t in zip(names, times, strict=True)]
    return phases, {"page": {"parts": parts, "prompt": page.prompt, "new": page.new}}


def _images(m: Model, page: Page, batch: int) -> Iterator[Phase]:
    """Yield a step for the views of the whole page, and one for those of its parts."""
    if m.vision is None:
        raise InputError("has no vision encoder", value=m.title, place="vision")
    whole = (page.image[0], page.image[1])
    crop = (page.crop[0], page.crop[1]) if page.crop else None
    least = page_tokens(m.vision, whole, crop, page.columns, page.rows)
    if page.prompt < least:
        raise InputError("fewer tokens than its images have", place="page.prompt",
                         value=page.prompt, allowed=f"{least} or more")  # fmt: skip
    for size, count in ((crop, page.columns * page.rows), (whole, 1)):
        if size is not None:
            made = vision_operators(m.vision, m.decoder.hidden, size, count * batch)
            yield Phase("encode", list(made))


def _prefill(m: Model, page: Page, how: Lowering, batch: int) -> Iterator[Operator]:
    """Yield the prefill: text is looked up, tokens of images take their places among it."""
    steps = decoder_operators(m.decoder, Tokens(batch, page.prompt, 0), how)
    yield next(steps)  # the embedding
    yield operator("place_images", rows=batch * page.prompt, width=m.decoder.hidden)
    yield from steps
    yield choice(m.decoder, batch)


def _after(page: Page, how: Lowering, batch: int, made: int) -> float:
    """Return what the host does after a step, the tokens before it made [s]."""
    if not page.ngram:
        return 0.0
    return how.ngram_s[0] + how.ngram_s[1] * batch * (page.prompt + made)


def _groups(steps: int) -> Iterator[tuple[int, int]]:
    """Yield first and last step of groups that are as long as each other.

    Examples
    --------
    >>> list(_groups(9))[:3], list(_groups(2))
    ([(0, 1), (2, 2), (3, 3)], [(0, 0), (1, 1)])
    """
    start, many = 0, min(GROUPS, steps)
    for group in range(many):
        size = steps // many + (group < steps % many)
        yield start, start + size - 1
        start += size
