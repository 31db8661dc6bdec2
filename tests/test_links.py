"""Every link of the documentation leads somewhere, and every page is found in the navigation."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tests.guide_pages import anchors, links

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BESIDE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = [*BESIDE, *sorted(DOCS.rglob("*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def read(page):
    return page.read_text(encoding="utf-8")


def problem(page, target):
    """What is wrong with a link of a page, or None."""
    parts = urlsplit(target)
    if parts.scheme == "mailto":
        return None
    if parts.scheme or parts.netloc:
        good = parts.scheme == "https" and "." in parts.netloc and " " not in target
        return None if good else "not an https address"
    file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not file.exists():
        return "no such file"
    if DOCS in page.parents and DOCS not in file.parents:
        return "leads out of the folder that the site is made of"
    if parts.fragment and file.suffix == ".md" and parts.fragment not in anchors(read(file)):
        return "no such heading"
    return None


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_leads_somewhere(page):
    found = {target: problem(page, target) for target in links(read(page))}
    assert {target: told for target, told in found.items() if told} == {}


def listed(tree):
    """Pages of a navigation, sections opened."""
    for entry in tree:
        for inside in entry.values() if isinstance(entry, dict) else [entry]:
            yield from listed(inside) if isinstance(inside, list) else [inside]


def navigation():
    # Only the list: the rest of the file may hold tags of MkDocs' own.
    text = read(ROOT / "mkdocs.yml")
    return list(listed(yaml.safe_load(text[text.index("\nnav:") :])["nav"]))


def test_every_page_is_in_the_navigation_once():
    pages = sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
    assert sorted(navigation()) == pages


# ------------------------------------------------------------- the checker itself

PAGE = """# A page: *two* `words`

See [there](other.md#second-one), [here](#a-page-two-words), ![a picture](a.png "title")
and [by name][ref]. `[not](a-link.md)`

```text
# no heading
[not](a-link.md)
```

## Again
## Again

[ref]: https://example.org/page
"""


def test_links_are_found_outside_of_code():
    assert links(PAGE) == ["other.md#second-one", "#a-page-two-words", "a.png",
                           "https://example.org/page"]  # fmt: skip


def test_anchors_are_those_that_mkdocs_makes():
    assert anchors(PAGE) == {"a-page-two-words", "again", "again_1"}


def test_anchors_are_those_of_python_markdown():
    markdown = pytest.importorskip("markdown")
    for page in PAGES:
        made = markdown.Markdown(extensions=["toc", "fenced_code", "tables"])
        made.convert(read(page))
        ids, stack = set(), list(made.toc_tokens)
        while stack:
            token = stack.pop()
            ids.add(token["id"])
            stack += token["children"]
        assert anchors(read(page)) == ids, page.name


@pytest.mark.parametrize(
    ("target", "told"),
    [("b.md", None), ("b.md#one", None), ("#here", None), ("https://example.org", None),
     ("mailto:a@example.org", None), ("c.md", "no such file"), ("b.md#two", "no such heading"),
     ("#two", "no such heading"), ("http://example.org", "not an https address"),
     ("https://", "not an https address"), ("ftp://example.org/a", "not an https address")],
)  # fmt: skip
def test_what_is_wrong_with_a_link_is_told(tmp_path, target, told):
    (tmp_path / "a.md").write_text("# Here\n")
    (tmp_path / "b.md").write_text("# One\n")
    assert problem(tmp_path / "a.md", target) == told


def test_the_site_links_nothing_outside_of_itself():
    assert problem(DOCS / "index.md", "../README.md") is not None
