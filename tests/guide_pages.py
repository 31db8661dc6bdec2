"""Pages of the documentation as tests see them: their commands, files, links and anchors."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"`([\w.]+)`:\n\n```(?:yaml|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PLACED = re.compile(r"^# (\S+\.py)(?:, before: (.*))?\n", re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """A line after ``$``, and what the page shows that it prints."""

    arguments: list[str]
    shown: str


@dataclass(frozen=True)
class Piece:
    """Python of a page that says where it goes: a file, or what it stands before in one."""

    file: str
    before: str
    text: str


def page(name):
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def blocks(page, language):
    return [m[3] for m in _FENCE.finditer(page) if m[2] == language]


def commands(page):
    """Every command of the console blocks, in order."""
    found = []
    for block in blocks(page, "console"):
        assert block.startswith("$ "), "a console block begins with a command"
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, shown = part.partition("\n")
            program, *arguments = shlex.split(line, comments=True)
            assert program == "npusim", line
            found.append(Command(arguments, shown))
    return found


def files(page):
    """Files that the reader is told to write, by name: `NAME`: and a block of YAML."""
    return dict(_NAMED.findall(page))


def pieces(page):
    """Python blocks that begin with the path of a file."""
    found = []
    for block in blocks(page, "python"):
        if head := _PLACED.match(block):
            before = head[2] or ""
            found.append(Piece(head[1], before, block[head.end() :] if before else block))
    return found


def missing(shown, printed):
    """The first thing shown that is not printed after what goes before it; blanks do not count.

    `...` stands for anything.
    """
    text, at = re.sub(r"\s+", "", printed), 0
    for fragment in shown.split("..."):
        wanted = re.sub(r"\s+", "", fragment)
        found = text.find(wanted, at)
        if found < 0:
            return fragment.strip()
        at = found + len(wanted)
    return None


def prose(page):
    """A page without its blocks and code spans, where brackets are not links."""
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", _FENCE.sub("", page), flags=re.DOTALL)


def links(page):
    """Targets of all links and pictures, inline or by reference."""
    text = prose(page)
    inline = re.findall(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)", text)
    return inline + re.findall(r"^\[[^\]]+\]:\s*(\S+)", text, re.MULTILINE)


def anchors(page):
    """What a link may name after ``#``: headings as MkDocs makes ids of them, and ids by hand.

    Python-Markdown's `toc`: markup goes, then all that is no word, blank or dash; blanks become
    dashes; the second of one name gets ``_1``.
    """
    found, text = set(), _FENCE.sub("", page)
    for title in re.findall(r"^#{1,6} +(.+?)(?: +#+)?$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").replace("*", "")
        plain = plain.encode("ascii", "ignore").decode()
        slug = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
        number, one = 0, slug
        while one in found:
            number += 1
            one = f"{slug}_{number}"
        found.add(one)
    return found | set(re.findall(r"<a\s+(?:id|name)=\"([^\"]+)\"", text))
