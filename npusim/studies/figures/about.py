"""What the figures of a study may refer to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """What a study file has, for options that name it.

    Attributes
    ----------
    claims : tuple of str
        Their ids.
    designs : int or None
        How many designs its sweep has at most; None without a sweep.
    """

    claims: tuple[str, ...]
    designs: int | None
