"""Small deliberate bugs in a source file, made by the operators of mutmut.

An operator changes one node of the syntax tree: a number, a comparison, an argument of a call.
What cannot change what the code computes is left alone, by rules and never by hand:

- docstrings, type annotations, aliases of types, ``__all__``, decorators;
- prose: a text with a space in it (names and paths have none), and all that stands in a ``raise``;
- ``strict`` of ``zip``, which is a check of the code on itself;
- ``np.float64`` replaced by None where numpy takes None for it (``astype``, ``zeros``, ``ones``);
- arguments of ``len`` and ``isinstance`` (mutmut leaves them out as well: None always raises);
- what compiles to the same byte code.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import unified_diff
from itertools import islice

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

FLOAT_IS_DEFAULT = ("astype", "zeros", "ones")
CHECKS = ("len", "isinstance")
ALIASED = ("NDArray", "Callable", "tuple", "dict")


@dataclass(frozen=True)
class Mutant:
    """One bug: the whole source with it, and where it is.

    `lines` are those of the innermost statement around it, `function` the outermost function whose
    body holds it (empty: the bug acts when the module is imported).
    """

    file: str
    operator: str
    source: str
    lines: range
    function: str

    def diff(self, original: str) -> str:
        changed = unified_diff(original.splitlines(), self.source.splitlines(), lineterm="", n=0)
        return "\n".join(line for line in list(changed)[2:] if not line.startswith("@@"))


class File:
    """A source file and the places in it that an operator can change."""

    def __init__(self, name: str, source: str) -> None:
        self.name, self.source = name, source
        self._wrapper = MetadataWrapper(cst.parse_module(source))
        visitor = _Visitor()
        self._wrapper.visit(visitor)
        self._places = visitor.found
        self._same = _code(source)

    def __len__(self) -> int:
        return len(self._places)

    def mutants(self, order: list[int]) -> Iterator[Mutant]:
        """Yield mutants in an order of places; what is no change, or twice the same, is none."""
        seen = set()
        for place in order:
            operator, old, new, lines, function = self._places[place]
            text = self._wrapper.module.deep_replace(old, new).code
            code = _code(text)
            if code not in (None, self._same) and code not in seen:
                yield Mutant(self.name, operator, text, lines, function)
            seen.add(code)

    def controls(self, draw: random.Random, count: int = 3) -> list[Mutant]:
        """Return mutants that change nothing: of the whole file, and of some of its functions."""
        lines = {f: n for _, _, _, n, f in self._places if f}
        some = draw.sample(sorted(lines), min(count, len(lines)))
        return [Mutant(self.name, "none", self.source, lines.get(f, range(1)), f)
                for f in ["", *some]]  # fmt: skip


def sample(files: list[File], size: int, draw: random.Random, least: int = 4) -> list[Mutant]:
    """Return some of the mutants: as many of each file as its share, and a few at least."""
    total, chosen = sum(map(len, files)), []
    for file in files:
        count = max(round(size * len(file) / total), least) if size else len(file)
        order = draw.sample(range(len(file)), len(file))
        chosen += islice(file.mutants(order), count)
    return chosen


def _code(source: str) -> bytes | None:
    """Return the byte code of a source without its line numbers; None if it is not Python."""
    try:
        return _plain(compile(source, "-", "exec", dont_inherit=True))
    except (SyntaxError, ValueError):
        return None


def _plain(code) -> bytes:
    parts = [code.co_code, repr(code.co_names), repr(code.co_varnames), repr(code.co_freevars)]
    for constant in code.co_consts:
        inner = hasattr(constant, "co_code")
        parts.append(_plain(constant) if inner else f"{type(constant)}{constant!r}")
    return b"\0".join(p if isinstance(p, bytes) else p.encode() for p in parts)


class _Visitor(cst.CSTVisitor):
    """Collects (operator, node, changed node, lines of the statement, outermost function)."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        self.found: list[tuple[str, cst.CSTNode, cst.CSTNode, range, str]] = []
        self._names: list[str] = []  # of classes and functions around
        self._bodies = 0  # of functions around
        self._function = ""
        self._lines = [range(0)]

    def on_visit(self, node: cst.CSTNode) -> bool:
        if _is_left_alone(node):
            return False
        if isinstance(node, cst.BaseStatement | cst.BaseSmallStatement):
            where = self.get_metadata(PositionProvider, node)
            last = where.end.line
            if isinstance(body := getattr(node, "body", None), cst.IndentedBlock):
                last = self.get_metadata(PositionProvider, body).start.line - 1  # its head alone
            self._lines.append(range(where.start.line, max(last, where.start.line) + 1))
        if isinstance(node, cst.ClassDef | cst.FunctionDef):
            self._names.append(node.name.value)
        if isinstance(node, cst.IndentedBlock) and self._is_function_body(node):
            self._bodies += 1
            if self._bodies == 1:
                self._function = ".".join(self._names)
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                name = operator.__name__.removeprefix("operator_")
                self.found += [(name, node, new, self._lines[-1], self._function)
                               for new in operator(node) if not _is_default(node, new)]  # fmt: skip
        if isinstance(node, cst.FunctionDef):
            self._waiting = node.body
        return True

    def on_leave(self, node: cst.CSTNode) -> None:
        if _is_left_alone(node):
            return
        if isinstance(node, cst.BaseStatement | cst.BaseSmallStatement):
            self._lines.pop()
        if isinstance(node, cst.ClassDef | cst.FunctionDef):
            self._names.pop()
        if isinstance(node, cst.FunctionDef):
            self._bodies -= 1
            if self._bodies == 0:
                self._function = ""

    def _is_function_body(self, node: cst.IndentedBlock) -> bool:
        return getattr(self, "_waiting", None) is node


def _is_left_alone(node: cst.CSTNode) -> bool:
    match node:
        case cst.Annotation() | cst.Decorator() | cst.Raise() | cst.Import() | cst.ImportFrom():
            return True
        case cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString()):
            return True
        case cst.SimpleString(value=text):
            return " " in text.strip("'\"") or text.startswith(('"""', "'''"))
        case cst.Arg(keyword=cst.Name(value="strict")):
            return True
        case cst.Call(func=cst.Name(value=name)):
            return name in CHECKS
        case cst.Assign(targets=[cst.AssignTarget(target=cst.Name(value="__all__"))]):
            return True
        case cst.Assign(value=cst.Subscript(value=cst.Name(value=name))):
            return name in ALIASED
    return False


def _is_default(node: cst.CSTNode, new: cst.CSTNode) -> bool:
    """Return whether a call only loses what numpy would have taken anyway, or its `strict`."""
    if not (isinstance(node, cst.Call) and isinstance(new, cst.Call)):
        return False
    name = node.func.attr.value if isinstance(node.func, cst.Attribute) else ""
    for place, arg in enumerate(node.args):
        gone = len(new.args) < len(node.args) and arg not in new.args
        none = not gone and len(new.args) == len(node.args) and new.args[place] is not arg
        if not (gone or none):
            continue
        if arg.keyword is not None and arg.keyword.value == "strict":
            return True
        is_float = cst.Module([]).code_for_node(arg.value) in ("np.float64", "float")
        return name in FLOAT_IS_DEFAULT and is_float
    return False
