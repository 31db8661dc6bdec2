"""The same kernel under two profilers: one key for its names, and alignment of two sequences.

Profilers spell one name in many ways: with return type and parameter list or without, ``T const``
or ``const T``, ``2ul``, ``(int)2`` or ``2``, ``{lambda()#1}`` or ``[lambda() (instance 1)]``, and
more or fewer namespaces. A key holds what they agree on: the words of the name and of its template
arguments, without namespaces.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from npusim.workload import Workload

Ints = NDArray[np.int64]

WINDOW = 4096  # kernels aligned at once: the memory is a quarter of its square in bytes
_NEAR = 3  # neighbours on either side that decide between equal kernels
_SAME_NAME = 8
_WORTH = np.array([1, 1, 1, 128, 1, 1, 1], dtype=np.int32)  # of the kernel itself and neighbours

_COPY = re.compile(r"\[?(?:cuda |hip)?(memcpy|memset)\b[^a-z0-9]*(.*)", re.IGNORECASE)
_PLACES = (("device", "d"), ("host", "h"), ("pinned", "h"), ("pageable", "h"))
_LAMBDA = re.compile(
    r"[\[{]?'?lambda'?\s*\(([^()]*)\)\s*(?:\(instance (\d+)\)\]?|#(\d+)\}?)"
)  # the first bracket is lost in reports that cut namespaces without looking
_GLUED = re.compile(r"(?<=\w)<unnamed>::")
_ANONYMOUS = re.compile(r"<?\bunnamed>::")
_CALLED = "\0"  # stands where a parameter list was: what it follows is no namespace
_WORD = re.compile(r"(?<!\w)-?\d+(?:\.\d+)?|[A-Za-z_$@#]\w*|\*")
_INTEGER = re.compile(r"(?<!\w)(-?\d+)[uUlL]+\b")
_NAMESPACE = re.compile(r"\w+\s*(?=::)")
_SILENT = frozenset(("const", "void", "volatile", "operator", "typename", "struct", "class"))
_SAME = {"true": "1", "false": "0"}


@lru_cache(maxsize=100_000)
def key(name: str) -> str:
    """Return what the spellings of one kernel's name have in common.

    Examples
    --------
    Nsight Compute, Nsight Systems and the PyTorch profiler of one kernel:

    >>> key("void at::<unnamed>::Copy<at::Opaque<2>, unsigned int, (int)-2>(T1 *, const T2)")
    'Copy Opaque 2 unsigned int -2'
    >>> key("void at::native::(anonymous namespace)::Copy<at::native::Opaque<2u>, unsigned int, "
    ...     "-2>(at::native::Opaque<2u>*, unsigned int const)")
    'Copy Opaque 2 unsigned int -2'
    >>> key("Memcpy DtoD (Device -> Device)") == key("[CUDA memcpy Device-to-Device]")
    True
    """
    if copy := _COPY.fullmatch(name):
        return _copy_key(copy[1], copy[2])
    text = name.strip().removesuffix(".kd").removesuffix("[clone .kd]")
    text = _ANONYMOUS.sub("", _GLUED.sub("<", text))
    text = _LAMBDA.sub(lambda m: f" lambda<{m[1]}> #{m[2] or m[3]}{_CALLED}", text)
    text = _INTEGER.sub(r"\1", _without_parentheses(text).replace("->", " "))
    text = _NAMESPACE.sub("", _without_return_type(text))
    words = [_SAME.get(w, w) for w in _WORD.findall(text) if w not in _SILENT]
    return " ".join(words) or name


def _copy_key(what: str, where: str) -> str:
    """Return the key of a copy: Memcpy DtoH (Device -> Pinned), memcpy Device-to-Host, ..."""
    if what.lower() == "memset":
        return "memset"
    where = where.lower().partition("(")[0]
    for word, letter in _PLACES:
        where = where.replace(word, letter)
    return f"{what.lower()} {re.sub('[^a-z0-9]', '', where)}".strip()


def _without_parentheses(text: str) -> str:
    """Put one mark for each parameter list, cast or unnamed namespace, with all that is in it.

    What is opened and never closed stays.

    Examples
    --------
    >>> _without_parentheses("f((int)4, g(x)) const").replace(_CALLED, "!")
    'f! const'
    """
    kept: list[str] = []
    opened: list[int] = []
    for letter in text:
        if letter == ")" and opened:
            del kept[opened.pop() :]
            kept.append(_CALLED)
            continue
        if letter == "(":
            opened.append(len(kept))
        kept.append(letter)
    return "".join(kept)


def _without_return_type(text: str) -> str:
    """Keep the last word that stands outside template arguments, with its arguments.

    Examples
    --------
    >>> _without_return_type("std::enable_if<!T7, void>::type kernel<int, float> ")
    'kernel<int, float>'
    """
    depth, text = 0, text.strip()
    for i in range(len(text) - 1, -1, -1):
        depth += (text[i] == ">") - (text[i] == "<")
        joins = text[i + 1 : i + 3] == "::" or text[i + 1 : i + 2] == "<" or text[:i].endswith("::")
        if text[i] == " " and depth <= 0 and not joins:
            return text[i + 1 :]
    return text


# ---------------------------------------------------------------- numbers for kernels


def keys(w: Workload) -> list[str]:
    """Return the key of each kernel label of a workload."""
    return [key(label) for label in w.labels["kernel"]]


def common_codes(labels: Sequence[Sequence[str]]) -> tuple[list[Ints], list[str]]:
    """Give equal texts of several lists equal numbers.

    Returns
    -------
    codes : list of array
        For each list the number of each of its texts.
    texts : list of str
        What each number stands for.

    Examples
    --------
    >>> [c.tolist() for c in common_codes([["a", "b"], ["b", "c"]])[0]]
    [[0, 1], [1, 2]]
    """
    numbers: dict[str, int] = {}
    codes = [
        np.array([numbers.setdefault(t, len(numbers)) for t in texts], dtype=np.int64)
        for texts in labels
    ]
    return codes, list(numbers)


@dataclass(frozen=True)
class Numbered:
    """Kernels of a capture as numbers that can be compared with those of another.

    Attributes
    ----------
    name : array of int, shape (K,)
        Equal for names of one key.
    launch : array of int, shape (K,)
        Equal where blocks and threads a block agree as well.
    """

    name: Ints
    launch: Ints

    def __len__(self) -> int:
        return len(self.name)

    def __getitem__(self, rows: slice | Ints | NDArray[np.bool_]) -> Numbered:
        """Return some of the kernels."""
        return Numbered(self.name[rows], self.launch[rows])


def numbered(*workloads: Workload) -> list[Numbered]:
    """Give kernels of several captures numbers that can be compared.

    Blocks and threads do not tell kernels apart of which one of the captures does not have them.
    """
    codes, names = common_codes([keys(w) for w in workloads])
    kernel = np.concatenate([c[w["kernel"]] for c, w in zip(codes, workloads, strict=True)])
    table = [kernel]
    for column in ("blocks", "threads"):
        size = np.concatenate([w[column] for w in workloads])
        told = np.bincount(kernel, size == 0, len(names)) == 0
        table.append(np.where(told[kernel], size, 0))
    launch = np.unique(np.column_stack(table), axis=0, return_inverse=True)[1].reshape(-1)
    ends = np.cumsum([len(w) for w in workloads])[:-1]
    parts = zip(np.split(kernel, ends), np.split(launch.astype(np.int64), ends), strict=True)
    return [Numbered(*part) for part in parts]


def listed(w: Workload, chosen: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return name, count and seconds of some kernels of a capture, most seconds first."""
    codes, size = w["kernel"][chosen], len(w.labels["kernel"])
    count = np.bincount(codes, minlength=size)
    seconds = np.bincount(codes, w["duration_s"][chosen], size)
    return [
        {"kernel": w.labels["kernel"][i], "count": int(count[i]), "seconds": float(seconds[i])}
        for i in np.argsort(-seconds, kind="stable")
        if count[i]
    ]


# ---------------------------------------------------------------- alignment


def align(a: Numbered, b: Numbered) -> tuple[Ints, Ints]:
    """Match two sequences of kernels in order, as many of them as can be.

    Kernels that are matched agree in name. Among all ways to match, the one that is worth most,
    then the earliest: a match is worth 8, 128 more where the launch agrees too, and 1 more for each
    of the three neighbours on either side (in the same window) that agrees in its launch. So one
    launch outweighs some sixteen names, and neighbours decide between names.
    Sequences longer than `WINDOW` are matched a window at a time, which bounds memory and time; a
    gap of half a window, of kernels that both have elsewhere, may be too wide to bridge.

    Parameters
    ----------
    a, b : Numbered, of N and M kernels

    Returns
    -------
    rows_a, rows_b : array of int, shape (L,)
        ``a.name[rows_a] == b.name[rows_b]``, both rising.

    Examples
    --------
    >>> a, b = np.array([1, 2, 3, 4]), np.array([9, 1, 3, 7, 4])
    >>> rows_a, rows_b = align(Numbered(a, a), Numbered(b, b))
    >>> rows_a.tolist(), rows_b.tolist()
    ([0, 2, 3], [1, 2, 4])
    """
    rows_a = np.flatnonzero(np.isin(a.name, b.name))
    rows_b = np.flatnonzero(np.isin(b.name, a.name))
    of_a, of_b = _align(a[rows_a], b[rows_b])
    return rows_a[of_a], rows_b[of_b]


def _align(a: Numbered, b: Numbered) -> tuple[Ints, Ints]:
    """Match two sequences of kernels that both have: equal ones, then a window, and so on."""
    found: list[tuple[int, int]] = []
    i = j = 0
    while True:
        run = _equal(a.launch[i:], b.launch[j:])
        found += [(i + r, j + r) for r in range(run)]
        i, j = i + run, j + run
        if i == len(a) or j == len(b):
            break
        part_a, part_b = a[i : i + WINDOW], b[j : j + WINDOW]
        pairs = _in_window(part_a, part_b)
        more_a, more_b = i + len(part_a) < len(a), j + len(part_b) < len(b)
        if more_a or more_b:  # what a window's end matches, the next window may know better
            pairs = [(p, q) for p, q in pairs if max(p, q) < WINDOW // 2]
        found += [(i + p, j + q) for p, q in pairs]
        if not (more_a or more_b):
            break
        if pairs:
            i, j = i + pairs[-1][0] + 1, j + pairs[-1][1] + 1
        else:
            i, j = i + more_a * WINDOW // 2, j + more_b * WINDOW // 2
    rows = np.array(found, dtype=np.int64).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def _equal(a: Ints, b: Ints) -> int:
    """Return how many kernels at the start of two sequences are equal."""
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length


def _in_window(a: Numbered, b: Numbered) -> list[tuple[int, int]]:
    """Return the pairs of one window, in order."""
    left, up = _best_ways(a, b)
    i, j = len(a), len(b)
    pairs = []
    while i and j:
        byte, bit = divmod(j - 1, 8)
        if left[i - 1, byte] >> (7 - bit) & 1:
            j -= 1
        elif up[i - 1, byte] >> (7 - bit) & 1:
            i -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


def _best_ways(a: Numbered, b: Numbered) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return for each pair of prefixes whether its best score is that without b's or a's last.

    Dynamic programming, a row at a time (Needleman and Wunsch 1970, without penalty for gaps):
    ``score[i, j] = max(score[i-1, j], score[i, j-1], score[i-1, j-1] + worth(i, j))``. One bit a
    pair is kept.
    """
    order = np.argsort(b.name, kind="stable")
    first, last = (np.searchsorted(b.name[order], a.name, side) for side in ("left", "right"))
    around_a, around_b = _around(a.launch, -1), _around(b.launch, -2)
    row = np.zeros(len(b) + 1, dtype=np.int32)
    left, up = np.empty((2, len(a), (len(b) + 7) // 8), dtype=np.uint8)
    for i in range(len(a)):
        at = order[first[i] : last[i]]
        best = row.copy()
        worth = _SAME_NAME + (around_b[at] == around_a[i]) @ _WORTH
        best[at + 1] = np.maximum(best[at + 1], row[at] + worth)
        np.maximum.accumulate(best, out=best)
        left[i] = np.packbits(best[1:] == best[:-1])
        up[i] = np.packbits(best[1:] == row[1:])
        row = best
    return left, up


def _around(launch: Ints, beyond: int) -> Ints:
    """Return each kernel with its neighbours, shape (K, 2 * near + 1)."""
    padded = np.pad(launch, _NEAR, constant_values=beyond)
    return np.ascontiguousarray(sliding_window_view(padded, 2 * _NEAR + 1))
