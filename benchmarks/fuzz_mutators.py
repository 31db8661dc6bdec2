"""How files are broken: bytes, texts, trees of JSON and YAML, tables, databases, Parquet.

Every function takes a random generator and gives the same for the same seed. What is made is a few
steps from a valid file, so that it gets past the first check of a reader.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import random
import sqlite3
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

Random = random.Random
_MOST = 1 << 20  # bytes of a file that is made here
_MOST_VALUES = 50_000

# Numbers as they may stand in a text; "@" marks those that json.dumps would not write.
NUMBERS = (
    "0", "-1", "1", "-0.0", "1e308", "-1e308", "1e400", "-1e400", "NaN", "Infinity", "-Infinity",
    "nan", "inf", ".inf", ".nan", "1e-320", "1e-400", str(2**31), str(2**31 - 1), str(2**53 + 1),
    str(2**63 - 1), str(2**63), str(-(2**63) - 1), str(2**64), "9" * 30, "1" + "0" * 400,
    "1" * 5000, "0x10", "1_000", "1,000", "٣", "00", "+5", "5.", ".5", "1e", "0.1e-5", "1e5", "",
)  # fmt: skip
TEXTS = (
    "", " ", "\0", "x" * 5000, "\ud800", "\udcff", "../../../etc/passwd", "/etc/passwd",
    "/dev/zero", "é", "日本", "\u202e", "=1+1", "a\nb", "\r", '"', "'", "{{7*7}}", "%s%n",
    "$(id)", "nan", "inf", "null", "true", "-", "N/A", "1 TB/s", "1e999 GB", "5 s", "100 %",
    "__class__", "().__class__", "[1", "{", "\ufeff", "a" * 70000, "h200", "aten::linear",
)  # fmt: skip
# What expressions that look for patterns may go over again and again.
LONG = tuple(part * (40_000 // len(part)) for part in (
    " ", "_", "(", "<", "[", "a::", "a__", "a_", "lambda(", "<unnamed>::", "a1", "1,", "\\", "#",
    "nvjet_sm90_", "Memcpy ", "elementwise_kernel", "Cijk_", "E", "0", ";", "{", "->", "a b",
))  # fmt: skip
_RAW, _TWICE = "@raw:", "@twice"


def mutate(r: Random, content: bytes, kind: str, packed: bool) -> bytes:
    """Return a file a few steps from a valid one."""
    for _ in range(r.choice((1, 1, 1, 2, 2, 3))):
        inside = INSIDE.get(kind)
        if inside is not None and r.random() < 0.75:
            content = inside(r, content)
        else:
            content = r.choice(BYTES)(r, content)
        content = content[:_MOST]
    if packed and r.random() < 0.1:
        content = _packed(r, content)
    return content


def _packed(r: Random, content: bytes) -> bytes:
    way = r.randrange(5)
    if way == 0:
        content = content + bytes([r.choice(b" \n0\0[")]) * (
            1 << r.choice((16, 17, 18, 19, 20, 22))
        )  # a bomb
    done = gzip.compress(content, 1, mtime=0)
    if way == 1:
        return done[: r.randrange(len(done))]
    if way == 2:
        return _flip(r, done)
    if way == 3:
        return done + r.choice((b"junk", done, b"\0" * 100))
    return done


# ---------------------------------------------------------------- bytes


def _flip(r: Random, content: bytes) -> bytes:
    found = bytearray(content or b"\0")
    for _ in range(r.choice((1, 1, 2, 8, 64))):
        at = r.randrange(len(found))
        found[at] = r.choice((found[at] ^ 1 << r.randrange(8), r.randrange(256), 0, 255))
    return bytes(found)


def _cut(r: Random, content: bytes) -> bytes:
    return content[: r.randrange(len(content) + 1)]


def _chunk(r: Random, content: bytes) -> tuple[int, int]:
    at = r.randrange(len(content) + 1)
    return at, min(len(content), at + r.choice((1, 2, 4, 16, 64, 256, 4096)))


def _drop(r: Random, content: bytes) -> bytes:
    a, b = _chunk(r, content)
    return content[:a] + content[b:]


def _repeat(r: Random, content: bytes) -> bytes:
    a, b = _chunk(r, content)
    return content[:b] + content[a:b] * r.choice((1, 2, 50)) + content[b:]


def _splice(r: Random, content: bytes) -> bytes:
    a, b = _chunk(r, content)
    at = r.randrange(len(content) + 1)
    return content[:at] + content[a:b] + content[at:]


def _insert(r: Random, content: bytes) -> bytes:
    at = r.randrange(len(content) + 1)
    junk = r.choice((r.randbytes(r.randrange(1, 9)), b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\r",
                     r.choice(TEXTS).encode(errors="surrogatepass"),
                     r.choice(NUMBERS).encode()))  # fmt: skip
    return content[:at] + junk + content[at:]


def _encoded(r: Random, content: bytes) -> bytes:
    """Return a text in another encoding, or one that claims to be."""
    text = content.decode("utf-8", "replace")
    way = r.randrange(7)
    if way < 4:
        text = text.replace("e", "é", 3)
        return text.encode(("latin-1", "utf-16", "utf-16-be", "utf-32")[way], "replace")
    if way == 4:
        return b"\xef\xbb\xbf" + content
    return (b"\xff\xfe", b"\xfe\xff")[way - 5] + content


def _ends(r: Random, content: bytes) -> bytes:
    return content.replace(b"\n", r.choice((b"\r\n", b"\r", b"\n\n", b"", b"\x85", b"\x0b")))


def _number(r: Random, content: bytes) -> bytes:
    """Replace a run of digits in a text."""
    digits = [i for i, c in enumerate(content) if 48 <= c <= 57]
    if not digits:
        return _insert(r, content)
    at = end = r.choice(digits)
    while end < len(content) and content[end] in b"0123456789.eE+-":
        end += 1
    while at and content[at - 1] in b"0123456789.eE+-":
        at -= 1
    return content[:at] + r.choice(NUMBERS).encode() + content[end:]


BYTES: tuple[Callable[[Random, bytes], bytes], ...] = (
    _flip, _flip, _cut, _drop, _repeat, _splice, _insert, _encoded, _ends, _number, _number,
)  # fmt: skip


# ---------------------------------------------------------------- trees


def _raw(r: Random) -> Any:
    return _RAW + r.choice(NUMBERS)


def _deep(r: Random) -> Any:
    found: Any = r.choice((1, "x", None))
    for _ in range(r.choice((3, 21, 200))):
        found = [found] if r.random() < 0.5 else {"a": found}
    return found


def _other(r: Random, old: Any, root: Any) -> Any:
    """Return something in place of a value."""
    way = r.randrange(12)
    if way < 3:
        return _raw(r)
    if way < 5:
        return r.choice(TEXTS if r.random() < 0.8 else LONG)
    if way == 5:
        return _deep(r)
    if way == 6:
        return r.choice((None, True, False, [], {}, [[]], [{}], {"": {}}))
    if way == 7:
        return [old] * r.choice((1, 2, 3, 3 if isinstance(old, (dict, list)) else 300))
    if way == 8:
        return {"value": old} if r.random() < 0.5 else {str(old)[:50]: old}
    if way == 9:
        return str(old)[:2000] if not isinstance(old, str) else _raw(r)
    if way == 10:
        return copy.deepcopy(_at(root, r.choice(_places(root))))  # something from elsewhere
    return r.choice((0, 1, -1, 2**31, 2**63, 2**64, 0.5, -0.0, 1e308, 10**30))


def _places(root: Any) -> list[tuple[Any, ...]]:
    """Return the paths of all values of a tree."""
    found: list[tuple[Any, ...]] = [()]
    for path in found:
        if len(found) > 20_000 or len(path) > 40:
            break
        node = _at(root, path)
        keys = node if isinstance(node, dict) else range(min(len(node), 400)) if isinstance(
            node, list) else ()  # fmt: skip
        found.extend((*path, key) for key in keys)
    return found


def _at(root: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        root = root[key]
    return root


def _change(r: Random, root: Any) -> Any:
    """Return a tree with one change."""
    path = r.choice(_places(root))
    if not path:
        return _other(r, root, root) if r.random() < 0.2 else root
    parent, key = _at(root, path[:-1]), path[-1]
    way = r.random()
    if way < 0.6:
        parent[key] = _other(r, parent[key], root)
    elif way < 0.75:
        del parent[key]
    elif isinstance(parent, dict):
        value = parent[key]
        if way < 0.85:
            del parent[key]
            parent[r.choice((*TEXTS[:20], key + "x", key.upper(), *map(str, parent)))] = value
        elif way < 0.93:
            parent[key + _TWICE] = _other(r, value, root)
        else:
            parent[r.choice(TEXTS)] = _other(r, value, root)
    elif way < 0.85:
        r.shuffle(parent)
    else:
        parent.insert(r.randrange(len(parent) + 1), _other(r, parent[key], root))
    return root


def _told(root: Any, **how: Any) -> str:
    """Return a tree as JSON, with numbers that JSON has not."""
    text = json.dumps(root, **how)
    out, at = [], 0
    mark = '"' + _RAW
    while (start := text.find(mark, at)) >= 0:
        end = text.index('"', start + 1)
        out += [text[at:start], text[start + len(mark) : end].encode().decode("unicode-escape")]
        at = end + 1
    return ("".join(out) + text[at:]).replace(_TWICE, "")


def _large(root: Any) -> bool:
    """Return whether a tree has very many values, those that aliases repeat counted each time."""
    waiting, seen = [root], 0
    while waiting and seen <= _MOST_VALUES:
        node, seen = waiting.pop(), seen + 1
        inner = node.values() if isinstance(node, dict) else node
        waiting.extend(inner if isinstance(node, (dict, list)) else ())
    return seen > _MOST_VALUES


def _tree(r: Random, root: Any, content: bytes) -> bytes:
    if _large(root):
        return r.choice(BYTES)(r, content)
    for _ in range(r.choice((1, 1, 2, 4))):
        root = _change(r, root)
    how = {"ensure_ascii": r.random() < 0.5, "indent": r.choice((None, None, 1))}
    return _told(root, **how).encode("utf-8", "surrogatepass")


def _json(r: Random, content: bytes) -> bytes:
    if r.random() < 0.05:
        return _nested(r, b"[", b"]", b'{"a":', b"}", content)
    try:
        root = json.loads(content)
    except (ValueError, RecursionError):
        return r.choice(BYTES)(r, content)
    return _tree(r, root, content)


def _nested(r: Random, *parts: bytes) -> bytes:
    """Return a text with something nested very deeply in the middle of it."""
    a, b, c, d, content = parts
    count = r.choice((50, 1000, 100_000))
    opening, closing = r.choice(((a, b), (c, d), (a, b""), (c, b"")))
    at = r.randrange(len(content) + 1)
    inner = opening * count + (b"1" if opening == c else b"") + closing * count
    return (content[:at] + inner + content[at:])[:_MOST]


# ---------------------------------------------------------------- YAML

_LAUGHS = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (i, i, b",".join([b"*%c" % (i - 1)] * 9)) for i in range(98, 107)
)  # fmt: skip
_YAML = (
    _LAUGHS, b"<<: {arch: x}\n", b"<<: *a\n", b"x: &x {<<: *x}\n", b"x: &x [*x]\n",
    b"y: !!python/object/apply:os.system ['true']\n", b"y: !!python/name:os.system\n",
    b"y: !!binary aGVsbG8=\n", b"y: !!set {a, b}\n", b"y: !!timestamp 2001-01-01\n",
    b"? [a, b]\n", b"? {a: b}\n: c\n", b"---\n", b"...\n", b"%YAML 9.9\n---\n",
    b"%TAG ! tag:x,2000:\n---\n",
    b"\t", b"- a\n", b"y: 0o17\n", b"y: 1:30:00\n", b"y: 0x1F\n", b"y: 2001-99-99\n",
    b"y: |\n  a\n",
    b"y: !!int 'x'\n", b"y: !!float x\n", b"y: !!null x\n", b"y: !!bool maybe\n", b"on: off\n",
    b"y: \"\\ud800\"\n", b"y: \"\\x00\"\n", b"'': 1\n", b"~: 1\n", b"1: 2\n", b"y: ~\n",
)  # fmt: skip
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _shallow(content: bytes) -> bool:
    """Return whether a loader in C can take a text: it calls itself at each level."""
    depth = deepest = 0
    for c in content:
        depth += (c in b"[{") - (c in b"]}")
        deepest = max(deepest, depth)
    return deepest < 100 and b" " * 400 not in content and b"- " * 100 not in content


def _yaml(r: Random, content: bytes) -> bytes:
    way = r.random()
    lines = content.splitlines(keepends=True)
    if way < 0.15 and lines:  # something between two lines, as deep as the one before
        at = r.randrange(len(lines) + 1)
        near = lines[min(at, len(lines) - 1)]
        indent = near[: len(near) - len(near.lstrip())].rstrip(b"\n")
        lines.insert(at, b"".join(indent + x + b"\n" for x in r.choice(_YAML).split(b"\n") if x))
        return b"".join(lines)
    if way < 0.25 and lines:  # a tag or an anchor before a value
        at = r.randrange(len(lines))
        mark = r.choice((b"&x ", b"*x ", b"!!str ", b"!!int ", b"!!float ", b"!x ",
                         b"!!python/str ", b"!!null ", b"!!bool ", b"!!timestamp ", b"!!seq ",
                         b"!!map "))  # fmt: skip
        lines[at] = lines[at].replace(b": ", b": " + mark, 1)
        return b"".join(lines)
    if way < 0.3:
        return _nested(r, b"[", b"]", b"{a: ", b"}", content)
    if way < 0.4 and lines:
        a, b = sorted(r.randrange(len(lines)) for _ in range(2))
        return b"".join(lines[:a] + r.choice(([], [lines[b]], lines[a:b] * 2)) + lines[b:])
    if not _shallow(content):
        return r.choice(BYTES)(r, content)
    try:
        root = yaml.load(content, Loader=_LOADER)  # noqa: S506  a safe loader, of files of ours
        return _tree(r, root, content) if isinstance(root, (dict, list)) else _flip(r, content)
    except (yaml.YAMLError, ValueError, LookupError, RecursionError, TypeError, AttributeError):
        return r.choice(BYTES)(r, content)


# ---------------------------------------------------------------- tables


def _csv(r: Random, content: bytes) -> bytes:
    """Change cells and columns; commas in quotes are taken for what they are not, now and then."""
    lines = content.split(b"\n")
    rows = [line.split(b",") for line in lines]
    way = r.randrange(9)
    at = r.randrange(len(rows))
    row = rows[at]
    cell = r.randrange(len(row))
    if way < 3:
        row[cell] = r.choice((*NUMBERS, *TEXTS, *LONG)).encode(errors="surrogatepass")
    elif way == 3:
        order = list(range(max(map(len, rows))))
        r.shuffle(order)
        rows = [[x[i] for i in order if i < len(x)] for x in rows]
    elif way == 4:
        rows = [x[:cell] + x[cell + 1 :] for x in rows]
    elif way == 5:
        rows = [x[: cell + 1] + x[cell:] for x in rows]
    elif way == 6:
        rows[at] = row[:cell] + row[cell + 1 :] if r.random() < 0.5 else [*row, *row]
    elif way == 7:
        rows[at : at + 1] = [row] * r.choice((0, 2, 100))
    else:
        row[cell] = r.choice((b'"', b'""', b"'", b'"a\nb"', b'"a""b"', b";", b"\t")) + row[cell]
    joint = b"," if r.random() < 0.95 else r.choice((b";", b"\t", b", ", b"|"))
    return b"\n".join(joint.join(x) for x in rows)


# ---------------------------------------------------------------- databases


def _sqlite(r: Random, content: bytes) -> bytes:
    return (_statement if r.random() < 0.5 else _page)(r, content)


def _page(r: Random, content: bytes) -> bytes:
    size = 4096
    pages = [content[i : i + size] for i in range(0, len(content), size)] or [b""]
    at, other = r.randrange(len(pages)), r.randrange(len(pages))
    way = r.randrange(6)
    if way == 0:
        pages[at] = r.randbytes(len(pages[at]))
    elif way == 1:
        pages[at], pages[other] = pages[other], pages[at]
    elif way == 2:
        pages[at] = bytes(len(pages[at]))
    elif way == 3:
        pages[at : at + 1] = []
    elif way == 4:
        head = bytearray(pages[0])
        if head:
            head[r.randrange(min(100, len(head)))] = r.randrange(256)
        pages[0] = bytes(head)
    else:  # the first bytes of a page say what it is
        head = bytearray(pages[at])
        for _ in range(r.choice((1, 4, 16))):
            if head:
                head[r.randrange(min(64, len(head)))] = r.randrange(256)
        pages[at] = bytes(head)
    return b"".join(pages)


_CELLS = (None, -1, 0, 2**63 - 1, -(2**63), 1e308, float("inf"), -0.5, "x", "", "9" * 400, b"\xff",
          "\0", "step#0", 2**53 + 1, b"x" * 70000)  # fmt: skip


def _statement(r: Random, content: bytes) -> bytes:
    db = sqlite3.connect(":memory:")
    db.text_factory = bytes
    try:
        db.deserialize(content)
        named = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        table = r.choice(named)[0].decode()
        columns = [row[1].decode() for row in db.execute(f'PRAGMA table_info("{table}")')]
        column = r.choice(columns)
        way = r.randrange(6)
        if way < 3:
            db.execute(f'UPDATE "{table}" SET "{column}" = ?'  # noqa: S608
                       + (" WHERE rowid = 1" if r.random() < 0.5 else ""),
                       (r.choice(_CELLS),))  # fmt: skip
        elif way == 3:
            db.execute(f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "{column}x"')
        elif way == 4:
            what = ("DROP TABLE {0}", "DELETE FROM {0}", "INSERT INTO {0} SELECT * FROM {0}")
            db.execute(r.choice(what).format(f'"{table}"'))
        else:
            db.execute(f'ALTER TABLE "{table}" RENAME TO "{table}x"')
            db.execute(f'CREATE VIEW "{table}" AS SELECT * FROM "{table}x"')  # noqa: S608
        db.commit()
        return bytes(db.serialize())
    except (sqlite3.Error, IndexError, UnicodeDecodeError, OverflowError):
        return _page(r, content)
    finally:
        db.close()


# ---------------------------------------------------------------- Parquet

_ARRAYS: tuple[Callable[[int], Any], ...] = (
    pa.nulls, lambda n: pa.array([float("nan")] * n), lambda n: pa.array([-1] * n),
    lambda n: pa.array([1e308] * n), lambda n: pa.array([2**62] * n, pa.int64()),
    lambda n: pa.array(["x"] * n), lambda n: pa.array([b"\xff"] * n),
    lambda n: pa.array([[1]] * n), lambda n: pa.array([{"a": 1}] * n),
    lambda n: pa.array([True] * n), lambda n: pa.array([float("inf")] * n),
    lambda n: pa.array([-0.5] * n), lambda n: pa.array([2**64 - 1] * n, pa.uint64()),
)  # fmt: skip


def _parquet(r: Random, content: bytes) -> bytes:
    """Change columns or what is said about them; the file itself stays sound."""
    try:
        table = pq.read_table(io.BytesIO(content))
        changed = _columns(r, table) if r.random() < 0.6 else _about(r, table)
        sink = io.BytesIO()
        pq.write_table(changed, sink)
    except (pa.ArrowException, ValueError, OSError, TypeError, KeyError, OverflowError):
        return r.choice(BYTES)(r, content)
    return sink.getvalue()


def _columns(r: Random, table: Any) -> Any:
    at, way = r.randrange(table.num_columns), r.randrange(7)
    name = table.column_names[at]
    if way < 3:
        return table.set_column(at, name, r.choice(_ARRAYS)(table.num_rows))
    if way == 3:
        return table.remove_column(at)
    if way == 4:
        return table.append_column(r.choice((name, "x", "", "a.b", "counter.x")), table[name])
    if way == 5:
        return r.choice((table.slice(0, 0), table.slice(1), pa.concat_tables([table] * 2)))
    values = table[name].to_pylist()
    values[r.randrange(len(values))] = r.choice((None, -1, float("nan"), 1e308, "x", 2**40))
    return table.set_column(at, name, pa.array(values))


def _about(r: Random, table: Any) -> Any:
    about = dict(table.schema.metadata or {})
    if not about:
        return _columns(r, table)
    key = r.choice(sorted(about))
    about[key] = _json(r, about[key]) if r.random() < 0.9 else r.randbytes(20)
    return table.replace_schema_metadata(about)


INSIDE: dict[str, Callable[[Random, bytes], bytes]] = {
    "json": _json, "yaml": _yaml, "csv": _csv, "sqlite": _sqlite, "parquet": _parquet,
}  # fmt: skip
