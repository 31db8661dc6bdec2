"""YAML text to plain values that remember the line they came from.

Stricter than YAML on purpose: duplicate keys, aliases, tags and non-text keys are refused, as are
files too large or too deep to be a description of a machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from npusim.errors import InputError

_LARGEST_FILE = 1_000_000
_DEEPEST = 20
_TAGS = {
    yaml.MappingNode: ("map",),
    yaml.SequenceNode: ("seq",),
    yaml.ScalarNode: ("str", "int", "float", "bool", "null", "timestamp"),
}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Place = tuple[str | int, ...]


class Tree:
    """The values of a YAML file and the line of each."""

    def __init__(self, file: str, values: dict[str, Any], lines: Mapping[Place, int]) -> None:
        self.file = file
        self.values = values
        self.lines = lines

    def place(self, path: Place) -> str:
        """Return ``line N, dotted.path`` of the value at a path, or of its nearest parent."""
        dotted = ".".join(str(part) for part in path)
        for length in range(len(path), -1, -1):
            line = self.lines.get(path[:length])
            if line is not None:
                return f"line {line}, {dotted}" if dotted else f"line {line}"
        return dotted

    def error(self, path: Place, problem: str, **more: Any) -> InputError:
        """Return an error that names file, line and path."""
        return InputError(problem, file=self.file, place=self.place(path), **more)


def read_tree(file: Path) -> Tree:
    """Read a YAML file.

    Raises
    ------
    InputError
        Missing, unreadable, not UTF-8, not YAML, or YAML of a kind that is refused.
    """
    text = read_text(file)
    try:
        _check_events(text, file)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark is not None else None
        problem = getattr(error, "problem", None) or "cannot be read"
        raise InputError(f"not YAML: {problem}", file=file, place=place) from None
    if not isinstance(node, yaml.MappingNode):
        raise InputError("not a mapping of keys to values", file=file)
    lines: dict[Place, int] = {}
    values = _value(node, (), lines, str(file))
    return Tree(str(file), values, lines)


def read_scalar(text: str) -> Any:
    """Return the number, text or truth value that a word is in YAML.

    Examples
    --------
    >>> [read_scalar(text) for text in ("3", "0.5", "false", "silu", "[1", "")]
    [3, 0.5, False, 'silu', '[1', '']
    """
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError:
        return text
    if isinstance(node, yaml.ScalarNode) and node.tag.rsplit(":", 1)[-1] in _TAGS[type(node)]:
        return _scalar(node)
    return text


def _check_events(text: str, file: Path) -> None:
    """Refuse aliases and deep nesting before composing: the C composer recurses and crashes."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        place = f"line {event.start_mark.line + 1}" if event.start_mark else None
        if isinstance(event, yaml.AliasEvent):
            raise InputError("aliases are not accepted", file=file, place=place)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise InputError("nested too deeply", file=file, place=place,
                             allowed=f"{_DEEPEST} levels")  # fmt: skip


def read_text(file: Path) -> str:
    """Return the text of a small file.

    Raises
    ------
    InputError
        Missing, unreadable, larger than a megabyte, not UTF-8.
    """
    try:
        if not file.is_file():
            raise InputError("no such file" if not file.exists() else "not a file", file=file)
        if file.stat().st_size > _LARGEST_FILE:
            raise InputError("file too large", file=file, value=file.stat().st_size,
                             allowed=f"up to {_LARGEST_FILE} bytes")  # fmt: skip
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError("not UTF-8 text", file=file) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise InputError(f"cannot be read: {reason}", file=str(file)[:200]) from None


def _value(node: yaml.Node, path: Place, lines: dict[Place, int], file: str) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if node.tag.rsplit(":", 1)[-1] not in _TAGS[type(node)]:
        raise InputError("tag is not accepted", file=file, place=f"line {line}", value=node.tag)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, lines, file)
    if isinstance(node, yaml.SequenceNode):
        return [_value(n, (*path, i), lines, file) for i, n in enumerate(node.value)]
    return _scalar(node)


def _mapping(
    node: yaml.MappingNode, path: Place, lines: dict[Place, int], file: str
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = getattr(key_node, "value", None)
        if not isinstance(key, str):
            raise InputError("keys are plain text", file=file, place=f"line {line}")
        if key in values:
            raise InputError("key given twice", file=file, place=f"line {line}", value=key)
        lines[(*path, key)] = line
        values[key] = _value(value_node, (*path, key), lines, file)
    return values


def _scalar(node: yaml.Node) -> Any:
    """Return a number, text, truth value or nothing; dates stay text."""
    tag = node.tag.rsplit(":", 1)[-1]
    text = str(node.value)
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() in ("true", "yes", "on")
    if tag in ("int", "float"):
        try:
            return int(text) if tag == "int" else float(text)
        except ValueError:  # octal, sexagesimal, .inf: let whoever reads it complain in context
            return text
    return text
