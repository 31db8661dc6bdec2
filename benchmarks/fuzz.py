"""Broken files for every reader: none may raise anything but npusim's errors, hang or eat memory.

python benchmarks/fuzz.py --files 100000 --seed 1 --workers 2

Files are made from small valid ones (`fuzz_corpus`) by a few changes each (`fuzz_mutators`), and
given to the function that the command line would give them to; one in 300 goes through a command.
A finding is any other exception, a warning, more than 10 s of a core or 2 GiB, an error that is not
lines of printable text, a command that leaves something behind after it failed, or a process that
dies. Equal seeds make equal files; findings are kept once for each place in the code, with the file
and what makes it again. Exit status 1 if there is any.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fuzz_corpus
from click.testing import CliRunner
from fuzz_mutators import mutate

from npusim.cli import main as npusim
from npusim.errors import NpusimError

LONGEST, WAITING = 10.0, 120.0  # seconds of a processor, of the clock, that a file may take
SILENCE = 300.0  # seconds in which a process says nothing
MOST_BYTES, ADDRESSES = 2 << 30, 5 << 30  # of memory that is used; of addresses
_SAID = ("error: ", "note: ", "refused axis: ")


class Hang(BaseException):
    """A file took too long; no handler of the product may catch it."""


class Bad(Exception):
    """Something that a reader or command did, and should not do."""


def made(seed: int, name: str, number: int) -> tuple[bytes, random.Random]:
    """Return a broken file and the generator that goes on deciding."""
    r = random.Random(f"{seed} {name} {number}")  # noqa: S311  to be the same again
    of = fuzz_corpus.FORMATS[name]
    content = r.choice(fuzz_corpus.seeds(name))
    return mutate(r, content, of.kind, of.packed), r


# ---------------------------------------------------------------- one file


@contextmanager
def limited() -> Iterator[None]:
    """Raise `Hang` in a block that takes too long, `Bad` after one that warned."""

    def late(*_: object) -> None:
        raise Hang(f"more than {LONGEST:g} s of a processor, or {WAITING:g} s")

    kinds = ((signal.ITIMER_PROF, signal.SIGPROF, LONGEST),
             (signal.ITIMER_REAL, signal.SIGALRM, WAITING))  # fmt: skip
    for timer, number, seconds in kinds:
        signal.signal(number, late)
        signal.setitimer(timer, seconds)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            yield
    finally:
        for timer, _, _ in kinds:
            signal.setitimer(timer, 0)
    if told:
        w = told[0]
        raise Bad(f"warns: {w.category.__name__}: {w.message} ({w.filename}:{w.lineno})")


def refused(error: NpusimError) -> None:
    """Complain of an error that is no lines of text."""
    text = str(error)
    if not text or not all(line.isprintable() for line in text.split("\n")):
        raise Bad(f"message is not printable: {text[:200]!r}")


def run_reader(name: str, path: Path) -> bool:
    """Return whether a file is accepted by its reader."""
    with limited():
        try:
            fuzz_corpus.FORMATS[name].read(path)
        except NpusimError as error:
            refused(error)
            return False
    return True


def run_command(name: str, path: Path, r: random.Random) -> bool:
    """Return whether a command that takes the file ends well."""
    of = fuzz_corpus.FORMATS[name]
    out = path.parents[of.file.count("/")] / "out"
    out.mkdir()
    beside = out.parent
    words = [w.replace("FILE", str(path)).replace("OUT", str(out)).replace("BESIDE", str(beside))
             for w in r.choice(of.commands)]  # fmt: skip
    at = os.getcwd()  # noqa: PTH109
    os.chdir(out)
    try:
        with limited():
            done = CliRunner().invoke(npusim, words, catch_exceptions=False)
    finally:
        os.chdir(at)
    told, command = done.stderr, " ".join(words[:3])
    if done.exit_code not in (0, 1):
        raise Bad(f"{command}: exit status {done.exit_code}: {told[-300:]}")
    if done.exit_code == 1 and not told.startswith(_SAID):
        raise Bad(f"{command}: fails without a word: {told[-300:]}")
    wrong = [line for line in told.splitlines() if not line.startswith(_SAID)]
    if wrong:
        raise Bad(f"{command}: says {wrong[0][:300]!r}")
    left = [str(f.relative_to(out)) for f in sorted(out.rglob("*"))]
    if done.exit_code == 1 and left:
        raise Bad(f"{command}: leaves {left[0]} behind")
    if litter := [f for f in left if Path(f).name.startswith(".")]:
        raise Bad(f"{command}: leaves {litter[0]}")
    return done.exit_code == 0


def peak() -> int:
    """Return the most memory since `fresh` [B]."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.partition("VmHWM:")[2].split()[0]) << 10


def fresh() -> None:
    """Let the peak of memory begin anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def place_of(error: BaseException) -> str:
    """Return where in npusim something was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/npusim/" in f.filename] or list(frames)
    inside = own[-1]
    return f"{Path(inside.filename).name}:{inside.lineno} {inside.name}"


def tried(seed: int, name: str, number: int, folder: Path, always: bool = False) -> dict[str, Any]:
    """Make a file, read it and say what came of it."""
    content, r = made(seed, name, number)
    of = fuzz_corpus.FORMATS[name]
    path = folder / of.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    for other, write in of.beside.items():
        (folder / other).parent.mkdir(exist_ok=True)
        (folder / other).write_bytes(write())
    commanded = bool(of.commands) and (r.random() < 1 / 300 or always)
    fresh()
    start = time.process_time()
    finding: dict[str, str] | None = None
    accepted = False
    try:
        accepted = run_reader(name, path)
        if commanded:
            accepted = run_command(name, path, r)
    except (Exception, Hang) as error:
        text = "".join(traceback.format_exception(error))
        key = str(error).replace(str(folder), "") if isinstance(error, Bad) else place_of(error)
        finding = {
            "key": f"{type(error).__name__} {key[:160]}",
            "text": text,
            "file": content.hex(),
        }
    seconds, used = time.process_time() - start, peak()
    if finding is None and used > MOST_BYTES:
        finding = {"key": f"memory {name}", "text": f"{used >> 20} MiB of memory\n"}
    return {"name": name, "number": number, "accepted": accepted, "seconds": seconds,
            "bytes": used, "command": commanded, "finding": finding}  # fmt: skip


# ---------------------------------------------------------------- processes


def work(seed: int, names: list[str], first: int, last: int, step: int) -> None:
    """Try files and tell of each on standard output."""
    base = Path(tempfile.mkdtemp(prefix="npusim-fuzz-"))
    say = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the product prints is not told
    try:
        for i in range(first, last, step):
            folder = base / "x"
            folder.mkdir()
            found = tried(seed, names[i % len(names)], i // len(names), folder)
            say.write(json.dumps({"i": i, **found}) + "\n")
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(base, ignore_errors=True)


@dataclass
class Row:
    """What came of the files of one format."""

    files: int = 0
    accepted: int = 0
    commands: int = 0
    findings: int = 0
    seconds: float = 0.0
    worst: float = 0.0
    bytes: int = 0


@dataclass
class Report:
    """What came of all files."""

    seed: int
    folder: Path
    rows: dict[str, Row] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, told: dict[str, Any]) -> None:
        """Count a file; keep what made a finding."""
        with self.lock:
            row = self.rows.setdefault(told["name"], Row())
            row.files += 1
            row.accepted += told["accepted"]
            row.commands += told["command"]
            row.seconds += told["seconds"]
            row.worst = max(row.worst, told["seconds"])
            row.bytes = max(row.bytes, told["bytes"])
            if told["finding"]:
                row.findings += 1
                self._keep(told, told["finding"])

    def _keep(self, told: dict[str, Any], finding: dict[str, str]) -> None:
        key = finding["key"]
        self.kept[key] = self.kept.get(key, 0) + 1
        if self.kept[key] > 1:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        name, number = told["name"], told["number"]
        stem = self.folder / hashlib.blake2b(key.encode(), digest_size=5).hexdigest()
        if finding.get("file") is not None:
            stem.with_suffix(".bin").write_bytes(bytes.fromhex(finding["file"]))
        again = f"python benchmarks/fuzz.py --seed {self.seed} --again {name}:{number}"
        stem.with_suffix(".txt").write_text(f"{key}\n{again}\n\n{finding['text']}")
        print(f"finding: {key}\n  {again}", file=sys.stderr, flush=True)

    def shown(self) -> None:
        """Print the table."""
        print(f"{'format':<14}{'files':>8}{'accepted':>9}{'refused':>8}{'commands':>9}"
              f"{'findings':>9}{'files/s':>8}{'worst s':>8}{'peak MiB':>9}")  # fmt: skip
        total = Row()
        for name, row in [*sorted(self.rows.items()), ("all", total)]:
            print(f"{name:<14}{row.files:>8}{row.accepted:>9}"
                  f"{row.files - row.accepted - row.findings:>8}{row.commands:>9}{row.findings:>9}"
                  f"{row.files / max(row.seconds, 1e-9):>8.0f}{row.worst:>8.2f}"
                  f"{row.bytes >> 20:>9}")  # fmt: skip
            for what in ("files", "accepted", "commands", "findings", "seconds"):
                setattr(total, what, getattr(total, what) + getattr(row, what))
            total.worst, total.bytes = max(total.worst, row.worst), max(total.bytes, row.bytes)


def watch(report: Report, names: list[str], first: int, last: int, step: int) -> None:
    """Have files tried by a process; start another one after one that dies or is silent."""
    while first < last:
        command = [sys.executable, __file__, "--seed", str(report.seed), "--only", ",".join(names),
                   "--work", f"{first},{last},{step}"]  # fmt: skip
        one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said,
                                       env={**os.environ, **one})  # fmt: skip
            assert process.stdout is not None
            while select.select([process.stdout], [], [], SILENCE)[0]:
                line = process.stdout.readline()
                if not line.endswith(b"\n"):
                    break
                told = json.loads(line)
                first = told["i"] + step
                report.add(told)
            process.kill()
            process.wait()
            said.seek(0)
            tail = said.read()[-3000:]
        if first < last:
            name, number = names[first % len(names)], first // len(names)
            finding = {"key": f"died or hung {name} {process.returncode}", "text": tail}
            report.add({"name": name, "number": number, "accepted": False, "seconds": 0.0,
                        "bytes": 0, "command": False, "finding": finding})  # fmt: skip
            first += step


def main() -> int:
    """Try files and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="leave out the files before it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(fuzz_corpus.FORMATS), metavar="FORMAT,...")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("fuzz_findings"))
    parser.add_argument("--again", metavar="FORMAT:NUMBER", help="one file, and what it raises")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    names = asked.only.split(",")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    if unknown := set(names) - set(fuzz_corpus.FORMATS):
        parser.error(f"no such format: {', '.join(unknown)}")
    if asked.again:
        name, _, number = asked.again.partition(":")
        with tempfile.TemporaryDirectory() as folder:
            told = tried(asked.seed, name, int(number), Path(folder))
            finding = told.pop("finding")
            print(told, finding["text"] if finding else "nothing wrong", sep="\n")
        return int(bool(finding))
    if asked.work:
        work(asked.seed, names, *map(int, asked.work.split(",")))
        return 0
    report = Report(asked.seed, asked.out)
    starts = range(asked.first, asked.first + asked.workers)
    threads = [threading.Thread(target=watch, daemon=True,
                                args=(report, names, w, asked.files, asked.workers))
               for w in starts]  # fmt: skip
    for thread in threads:
        thread.start()
    with suppress(KeyboardInterrupt):  # what is done until then is told
        for thread in threads:
            thread.join()
    report.shown()
    for key, count in sorted(report.kept.items(), key=lambda kept: -kept[1]):
        print(f"{count:>6} x {key}")
    return int(bool(report.kept))


if __name__ == "__main__":
    sys.exit(main())
