"""Broken files by a fuzzer that sees which code they reach: libFuzzer through atheris.

pip install 'npusim[test,fuzz]'
python benchmarks/fuzz_guided.py kineto -- -max_total_time=3600

Readers, seeds and rules are those of benchmarks/fuzz.py; what follows `--` are libFuzzer's options.
Inputs that reach new code stay in ``fuzz_inputs/FORMAT``, where the next run begins; an input that
breaks a rule is written to ``fuzz_findings/FORMAT-...`` and ends the run, status 77.
To see it again: python benchmarks/fuzz_guided.py FORMAT -- FILE

Left out: code in C (pyarrow, msgspec, SQLite, the YAML loader) is not seen, only what npusim does
with what it gives. For YAML and JSON every second input is changed as a tree (`fuzz_mutators`).
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["npusim"], enable_loader_override=False):
    import fuzz_corpus

from fuzz import limited, refused
from fuzz_mutators import INSIDE

from npusim.errors import NpusimError

_LARGEST = 1 << 18


def main() -> None:
    """Fuzz one format until libFuzzer has enough."""
    names, options = sys.argv[1:], []
    if "--" in names:
        at = names.index("--")
        names, options = names[:at], names[at + 1 :]
    if len(names) != 1 or names[0] not in fuzz_corpus.FORMATS:
        sys.exit(f"usage: fuzz_guided.py FORMAT [-- OPTIONS]\n{' '.join(fuzz_corpus.FORMATS)}")
    name = names[0]
    of = fuzz_corpus.FORMATS[name]
    corpus, found = Path("fuzz_inputs") / name, Path("fuzz_findings")
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    for i, content in enumerate(fuzz_corpus.seeds(name)):
        (corpus / f"seed-{i}").write_bytes(content)
    work = tempfile.TemporaryDirectory(prefix="npusim-fuzz-")
    path = Path(work.name) / of.file
    path.parent.mkdir(exist_ok=True)
    for other, write in of.beside.items():
        (Path(work.name) / other).parent.mkdir(exist_ok=True)
        (Path(work.name) / other).write_bytes(write())

    def one(data: bytes) -> None:
        path.write_bytes(data)
        with limited():
            try:
                of.read(path)
            except NpusimError as error:
                refused(error)

    def changed(data: bytes, most: int, seed: int) -> bytes:
        r = random.Random(seed)  # noqa: S311  libFuzzer's choice
        inside = INSIDE.get(of.kind)
        if inside is not None and r.random() < 0.5:
            return inside(r, data)[:most]
        mutated: bytes = atheris.Mutate(data, most)
        return mutated

    arguments = [sys.argv[0], f"-artifact_prefix={found}/{name}-", f"-max_len={_LARGEST}",
                 "-timeout=60", "-rss_limit_mb=3072", *options]  # fmt: skip
    if not any(Path(option).is_file() for option in options):
        arguments.append(str(corpus))
    atheris.Setup(arguments, one, custom_mutator=changed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
