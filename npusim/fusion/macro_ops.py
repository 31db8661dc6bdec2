"""The table of macro-ops: which chains of operations one instruction of a fusion engine covers.

A table is data (``archs/fusion/macro_ops.yaml``): classes of kinds, and macro-ops as sequences
of classes; ``step|fill*`` are any number of either, ``?`` is at most one, ``+`` at least one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import Field

from npusim import catalog
from npusim.columns import KINDS
from npusim.errors import InputError
from npusim.schema import Strict, checked
from npusim.yaml_tree import read_tree

PRODUCT, ROW, JOIN = "product", "row", "join"
CLASSES = ("step", "fill", ROW, JOIN, "index", "place", PRODUCT)

_ELEMENT = re.compile(r"([a-z]+(?:\|[a-z]+)*)([*+?]?)")


class _MacroOp(Strict):
    name: Annotated[str, Field(min_length=1)]
    chain: Annotated[list[str], Field(min_length=1)]


class _Table(Strict):
    title: str
    source: str
    classes: dict[str, list[str]]
    macro_ops: Annotated[list[_MacroOp], Field(min_length=1)]


@dataclass(frozen=True)
class MacroOps:
    """A table of macro-ops.

    Attributes
    ----------
    classes : mapping of str to str
        Class of each kind of operation that may be fused.
    """

    classes: Mapping[str, str]
    patterns: tuple[tuple[str, re.Pattern[str]], ...]

    def name(self, chain: Sequence[str]) -> str:
        """Return which macro-op covers a chain of classes, empty if none does.

        Examples
        --------
        >>> table = load_macro_ops()
        >>> table.name(["step", "row", "step"]), table.name(["step", "product"])
        ('norm', '')
        """
        text = "".join(_LETTERS[c] for c in chain)
        return next((name for name, p in self.patterns if p.fullmatch(text)), "")


_LETTERS = {name: chr(ord("a") + i) for i, name in enumerate(CLASSES)}


@cache
def load_macro_ops(path: Path | None = None) -> MacroOps:
    """Return the table that ships, or another one.

    Raises
    ------
    InputError, InputErrors
        What is wrong in the file.
    """
    file = path or catalog.folder("archs") / "fusion" / "macro_ops.yaml"
    table = checked(read_tree(file), _Table)
    classes: dict[str, str] = {}
    for name, kinds in table.classes.items():
        if name not in CLASSES:
            raise InputError("unknown class of operations", file=file, place="classes", value=name,
                             allowed=", ".join(CLASSES))  # fmt: skip
        for kind in kinds:
            if kind not in KINDS:
                raise InputError("unknown kind of operation", file=file, place=f"classes.{name}",
                                 value=kind, allowed=", ".join(KINDS))  # fmt: skip
            classes[kind] = name
    patterns = tuple((op.name, _pattern(op, i, file)) for i, op in enumerate(table.macro_ops))
    return MacroOps(MappingProxyType(classes), patterns)


def _pattern(op: _MacroOp, number: int, file: Path) -> re.Pattern[str]:
    found = []
    for element in op.chain:
        match = _ELEMENT.fullmatch(element)
        names = match[1].split("|") if match else []
        if match is None or any(name not in CLASSES for name in names):
            raise InputError("not a class of operations", file=file,
                             place=f"macro_ops.{number}.chain", value=element,
                             allowed=f"{', '.join(CLASSES)}, joined by | and followed by *, + or ?",
                             )  # fmt: skip
        found.append(f"[{''.join(_LETTERS[name] for name in names)}]{match[2]}")
    return re.compile("".join(found))
