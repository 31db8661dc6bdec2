"""Sizes that options are given as: quantities with a unit, and images."""

from __future__ import annotations

import math
import re

from npusim import units
from npusim.errors import InputError

_IMAGE = re.compile(r"([0-9]{1,6})[xX]([0-9]{1,6})")


def quantity(
    option: str, text: str, unit: str, least: float = 0.0, most: float = math.inf, allowed: str = ""
) -> float:
    """Return what an option says, in the SI unit.

    Parameters
    ----------
    option : str
        Its name, for errors.
    text : str
    unit : str
    least, most : float
        Bounds, which belong to what is allowed [unit].
    allowed : str
        The bounds in words.

    Raises
    ------
    InputError
        No such quantity, or out of bounds.

    Examples
    --------
    >>> quantity("--buffer", "64 KiB", "B", 0, 1e12, "0 B to 1 TB")
    65536.0
    """
    try:
        found = units.parse(text, unit)
    except InputError as error:
        raise InputError(str(error), place=option) from None
    if not least <= found <= most:
        raise InputError("out of bounds", place=option, value=text, allowed=allowed)
    return found


def pixels(text: str) -> tuple[int, int]:
    """Return width and height of an image.

    Raises
    ------
    InputError
        Not two numbers.

    Examples
    --------
    >>> pixels("1428x1652")
    (1428, 1652)
    """
    found = _IMAGE.fullmatch(text)
    if found is None:
        raise InputError("not the size of an image", place="--image", value=text,
                         allowed="WIDTHxHEIGHT in pixels, e.g. 1428x1652")  # fmt: skip
    return int(found[1]), int(found[2])
