"""What a page of a document is to a model: views of it, tokens in, tokens out."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from npusim.schema import Strict
from npusim.templates.fields import Count, Size

Pixels = Annotated[list[Size], Field(min_length=2, max_length=2)]


class Page(Strict):
    """A page that is read: one view of the whole of it, and of parts of it where the model cuts.

    ``image`` and ``crop`` are width and height [pixels]; ``prompt`` counts the tokens of the
    images and those of the text.
    """

    image: Pixels
    crop: Pixels | None = None
    columns: Size = 1
    rows: Size = 1
    prompt: Size
    new: Size  # tokens of the answer
    ngram: Count = 0  # a next token repeats no run of so many: looked up by the host; 0: not
