"""Runs tests against mutants: a pytest session that forks a child for each of them.

All tests are collected once. A first child runs them with the code as it is and notes what each
takes and which lines of the models it runs. Then each mutant gets a child, which changes the code
in place and runs the tests that come by its lines, the quickest first, until one fails:

- the function that holds the bug gets its new code, wherever somebody refers to it;
- where the bug acts on import (a table, a constant, a function that is called there), its module
  and all modules that import it are executed again, in the order of their imports.

What a mutant may take is bounded: tests beyond `budget` seconds are not run for it, and one that
takes far longer than its tests should is stopped (timeout). Seconds are of CPU time, so that other
work on the machine changes nothing.
"""

import ast
import gc
import importlib
import math
import os
import pickle
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType

import coverage
import pytest
from _pytest.runner import runtestprotocol
from mutants import Mutant

KILLED, SURVIVED, TIMEOUT, UNCOVERED = "killed", "survived", "timeout", "no coverage"
_IMPORT = ""  # context of coverage before any test runs


class Runner:
    """A pytest plugin that replaces the loop over the tests."""

    def __init__(self, package: Path, mutants: list[Mutant], jobs: int, budget: float) -> None:
        self.package, self.mutants, self.jobs, self.budget = package, mutants, jobs, budget
        self.outcomes: dict[int, tuple[str, str]] = {}
        self.seconds: dict[str, float] = {}
        self.left_out: list[str] = []  # tests that fail or are skipped without any change
        os.environ["COVERAGE_CORE"] = "ctrace"  # the one that tells tests apart
        self._coverage = coverage.Coverage(
            data_file=None, include=[f"{package}/*.py"], config_file=False
        )
        self._coverage.start()  # imports count, too

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._coverage.stop()
        self._items = {item.nodeid: item for item in session.items}
        self._unchanged(session.items)
        self._functions = _functions(self.package)
        self._imports = Imports()
        self._all()
        return True

    def _unchanged(self, items: list[pytest.Item]) -> None:
        """Run all tests on the code as it is, in as many children as there are jobs."""
        files = defaultdict(list)
        for item in items:
            files[item.path].append(item)
        shares = [[i for f in list(files)[n :: self.jobs] for i in files[f]]
                  for n in range(self.jobs)]  # fmt: skip
        children = [_child(lambda share=share: self._baseline(share)) for share in shares]
        self._contexts = defaultdict(lambda: defaultdict(set))
        for child in children:
            seconds, failed, lines = pickle.loads(_wait(child) or b"")  # noqa: S301
            self.seconds |= {test: s for test, s in seconds.items() if test not in failed}
            self.left_out += failed
            for file, tests in lines.items():
                for line, names in tests.items():
                    self._contexts[file][line] |= set(names)

    def _baseline(self, items: list[pytest.Item]) -> bytes:
        """Run some tests; return their times, who failed, and {file: {line: tests}}."""
        seconds, failed = {}, []
        self._coverage.start()
        cached = [f for f in gc.get_objects() if type(f) is type(lru_cache(str))]
        for item, following in zip(items, [*items[1:], None], strict=True):
            self._coverage.switch_context(item.nodeid)
            for function in cached:  # whose lines would be those of the first who calls it
                if function.__module__.startswith(self._name()):
                    function.cache_clear()
            start = time.process_time()
            if not _passes(item, following):
                failed.append(item.nodeid)
            seconds[item.nodeid] = time.process_time() - start
        self._coverage.stop()
        data = self._coverage.get_data()
        lines = {Path(f).name: data.contexts_by_lineno(f) for f in data.measured_files()}
        return pickle.dumps((seconds, failed, lines))

    def _all(self) -> None:
        """Run all mutants, `jobs` at a time."""
        running: dict[tuple[int, int], int] = {}  # the mutant of a child
        waiting = list(reversed(range(len(self.mutants))))
        while waiting or running:
            while waiting and len(running) < self.jobs:
                number = waiting.pop()
                if tests := self._tests(self.mutants[number]):
                    limit = 10 + 5 * math.ceil(sum(self.seconds[t] for t in tests))
                    child = _child(lambda n=number, t=tests: self._one(self.mutants[n], t), limit)
                    running[child] = number
                else:
                    self.outcomes[number] = UNCOVERED, ""
            time.sleep(0.005)
            for child in [child for child in running if _is_done(child)]:
                answer = _wait(child)
                how = KILLED if answer else TIMEOUT if answer is None else SURVIVED
                self.outcomes[running.pop(child)] = how, (answer or b"").decode()
                done = f"{len(self.outcomes)} of {len(self.mutants)}"
                print(f"\r{done}", end="", file=sys.stderr, flush=True)

    def _tests(self, mutant: Mutant) -> list[str]:
        """Return the tests that come by the lines of a mutant, the quickest first.

        What acts on import may show in any test that comes by the file, or looks at its names.
        """
        contexts = self._contexts.get(mutant.file, {})
        lines = mutant.lines if mutant.function else contexts
        found = {t for line in lines for t in contexts.get(line, ())}
        if not mutant.function:
            module = self._module(mutant.file)
            found |= {t for t, item in self._items.items() if self._imports.has(item, module)}
        found &= self.seconds.keys()
        chosen, spent = [], 0.0
        for test in sorted(found, key=self.seconds.__getitem__):
            spent += self.seconds[test]
            if chosen and spent > self.budget:
                break
            chosen.append(test)
        return chosen

    def _one(self, mutant: Mutant, tests: list[str]) -> bytes:
        """Return the test that notices a mutant, if one does."""
        try:
            fresh = self._change(mutant)
        except Exception as error:  # a bug may do anything
            return f"on import: {error!r}"[:200].encode()
        items = [self._items[test] for test in tests]
        for item, following in zip(items, [*items[1:], None], strict=True):
            if hasattr(item, "dtest"):  # names as they were when it was found
                item.dtest.globs.update(vars(sys.modules[item.dtest.globs["__name__"]]))
            elif item.module.__name__ in fresh:
                fresh.remove(item.module.__name__)
                _again(item.module.__name__)
            if not _passes(item, following):
                return item.nodeid.encode()
        return b""

    def _change(self, mutant: Mutant) -> set[str]:
        """Change the code; return the test modules that are to be executed again, if they run."""
        path = self.package / mutant.file
        code = compile(mutant.source, path, "exec", dont_inherit=True)
        new = {c.co_qualname: c for c in _codes(code)}.get(mutant.function)
        for function in self._functions[mutant.file, mutant.function] if new else ():
            function.__code__ = new
        contexts = self._contexts[mutant.file]
        if mutant.function and not any(_IMPORT in contexts.get(n, ()) for n in mutant.lines):
            return set()
        name = self._module(mutant.file)
        exec(code, vars(sys.modules[name]))  # noqa: S102
        later = [m for m in self._imports.users(name) if m in sys.modules]
        for module in later:
            if not module.startswith("tests.test_"):
                _again(module)
        return {m for m in later if m.startswith("tests.test_")}

    def _name(self) -> str:
        return ".".join(self.package.parts[-2:])

    def _module(self, file: str) -> str:
        return f"{self._name()}.{Path(file).stem}".removesuffix(".__init__")


class Imports:
    """Which module of ours imports which, as its source says, lazy imports included."""

    def __init__(self) -> None:
        ours = {
            name: Path(module.__file__)
            for name, module in sys.modules.items()
            if name.split(".")[0] in ("npusim", "tests") and getattr(module, "__file__", None)
        }
        self._first, self._any = {}, {}
        for name, path in ours.items():
            tree = ast.parse(path.read_text(encoding="utf-8"))
            self._first[name] = _imported(tree.body, ours)
            self._any[name] = set(_imported(ast.walk(tree), ours))
        self._order: list[
            str
        ] = []  # as modules come to their end: what is imported before who does
        for name in ours:
            self._visit(name, set())

    def _visit(self, name: str, under_way: set[str]) -> None:
        if name not in self._order and name not in under_way:
            for needed in self._first[name]:
                self._visit(needed, under_way | {name})
            if name not in self._order:
                self._order.append(name)

    def has(self, item: pytest.Item, name: str) -> bool:
        """Return whether the file of a test imports a module itself."""
        test = "" if hasattr(item, "dtest") else item.module.__name__
        return name in self._any.get(test, ())

    def users(self, name: str) -> list[str]:
        """Return all modules that import a module, directly or not, in the order of imports."""
        found, new = set(), {name}
        while new:
            found |= new
            new = {m for m, needs in self._any.items() if needs & new} - found
        found -= {name, "npusim"}  # what the package offers, it looks up
        return [m for m in self._order if m in found]


def _imported(nodes: Iterable[ast.AST], ours: dict[str, Path]) -> list[str]:
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name in ours]


def _again(name: str) -> None:
    """Execute a module again, in its own namespace."""
    module = sys.modules[name]
    source = Path(module.__file__).read_text(encoding="utf-8")
    exec(compile(source, module.__file__, "exec", dont_inherit=True), vars(module))  # noqa: S102


def _functions(package: Path) -> dict[tuple[str, str], list[FunctionType]]:
    """Return all functions of a package that exist, by file and qualified name."""
    importlib.import_module(".".join(package.parts[-2:]))
    found = defaultdict(list)
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType):
            path = Path(thing.__code__.co_filename)
            if path.parent == package:
                found[path.name, thing.__code__.co_qualname].append(thing)
    return found


def _codes(code: CodeType):
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _passes(item: pytest.Item, following: pytest.Item | None) -> bool:
    reports = runtestprotocol(item, nextitem=following, log=False)
    return all(report.passed for report in reports)


def _child(work: Callable[[], bytes], limit: int | None = None) -> tuple[int, int]:
    """Start a child that does some work, in so much CPU time [s] at most.

    Returns its id and the end of a pipe on which it answers.
    """
    end, start = os.pipe()
    pid = os.fork()
    if pid:
        os.close(start)
        return pid, end
    if limit:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.mkdtemp(dir=Path.cwd())
    try:
        answer = work()
    except BaseException as error:
        answer = f"beside a test: {error!r}"[:200].encode()
    with os.fdopen(start, "wb") as pipe:
        pipe.write(answer)
    os._exit(0)


def _is_done(child: tuple[int, int]) -> bool:
    return os.waitid(os.P_PID, child[0], os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _wait(child: tuple[int, int]) -> bytes | None:
    """Return what a child answered when it has ended; None if it was stopped."""
    with os.fdopen(child[1], "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child[0], 0)
    return None if os.WIFSIGNALED(status) else answer
