"""Nothing in npusim runs what a file says, and nothing asks the network."""

import ast
import socket
from collections import Counter

import pytest
from click.testing import CliRunner

from npusim.cli import main
from npusim.workload_file import save_workload
from tests.builder import kernel, workload
from tests.conftest import ROOT

PACKAGE = ROOT / "npusim"
# Modules that run code, unpickle it or talk to others.
MODULES = {
    "pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "code",
    "codeop", "runpy", "ctypes", "cffi", "socket", "socketserver", "ssl", "http", "urllib",
    "requests", "httpx", "aiohttp", "urllib3", "ftplib", "smtplib", "telnetlib", "xmlrpc",
    "webbrowser", "asyncio", "subprocess", "pty", "antigravity", "distributed", "simpleeval",
    "multiprocessing", "concurrent", "importlib", "tarfile", "zipfile", "xml",
}  # fmt: skip
# Calls by name, and by module or object and name.
CALLS = {"eval", "exec", "compile", "__import__", "input", "breakpoint"}
METHODS = {
    "os.system", "os.popen", "os.execv", "os.execve", "os.execvp", "os.fork", "os.spawnv",
    "os.posix_spawn", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load",
    "yaml.unsafe_load_all", "pd.read_pickle", "pd.eval", "pd.read_html", "np.load", "numpy.load",
    "pickle.load", "pickle.loads", "pickle.dumps", "pickle.dump", "marshal.loads",
    "tempfile.mktemp", "pa.flight", "shutil.unpack_archive", "builtins.eval", "builtins.exec",
}  # fmt: skip
# Each exception with its reason; nobody else may.
ALLOWED = {
    ("sweeps/engines.py", "pickle"): "jobs for own workers, which it starts",
    ("sweeps/engines.py", "pickle.dumps"): "jobs for own workers",
    ("sweeps/engines.py", "subprocess"): "starts own workers: this interpreter, no shell",
    ("sweeps/engines.py", "multiprocessing"): "pipes to own workers",
    ("sweeps/worker.py", "pickle"): "the job of the process that started this one",
    ("sweeps/worker.py", "pickle.loads"): "from the pipe of the process that started this one",
    ("sweeps/worker.py", "multiprocessing"): "the pipe to it",
    ("sweeps/dask_engine.py", "pickle"): "jobs for a cluster that the user names, never a file",
    ("sweeps/dask_engine.py", "pickle.dumps"): "the same",
    ("sweeps/dask_engine.py", "pickle.loads"): "on a worker of that cluster, from who sweeps",
    ("sweeps/dask_engine.py", "distributed"): "the extra for clusters, with --engine dask:// only",
    ("importers/kineto_helpers.py", "multiprocessing"): "own processes that decode large traces",
    ("importers/kineto_workload.py", "concurrent"): "a thread of this process",
    ("studies/bench.py", "concurrent"): "own processes",
    ("studies/processes.py", "concurrent"): "own processes",
    ("studies/processes.py", "multiprocessing"): "own processes",
    ("cache/compiled.py", "pickle"): "the name of what numba raises where its cache is damaged",
    ("studies/page.py", "urllib"): "urllib.parse.quote alone, for links of a page",
    ("importers/ncu_report_file.py", "subprocess"): "a process that reads a report and may die",
    ("importers/ncu_report_file.py", "importlib"): "NVIDIA's package by its fixed name",
    ("importers/ncu_probe.py", "importlib"): "the same, in a process of its own",
    ("templates/expressions.py", "simpleeval"): "arithmetic of sizes; nodes are checked before",
    ("templates/expressions.py", "ast.parse"): "parsed and checked, never compiled",
    ("capture/counters.py", "subprocess"): "runs ncu, which the user names",
    ("capture/ranks.py", "multiprocessing"): "own processes, one a GPU",
    ("capture/user_code.py", "importlib"): "the user's own function to be measured: is the task",
    ("capture/user_code.py", "exec_module"): "the same",
    ("capture/fused_kernels.py", "importlib"): "looks whether a package is there",
}
# importlib with fixed names or names of own folders: no name of it comes out of a file unchecked.
OF_OWN = {
    "__init__.py", "importers/__init__.py", "importers/chakra_protobuf.py", "cache/compiled.py",
    "models/__init__.py", "studies/figures/__init__.py", "studies/quantities/__init__.py",
    "capture/__init__.py", "capture/environment.py", "capture/gpu.py", "capture/hugging_face.py",
    "capture/nvml.py", "capture/experiments/__init__.py",
    "capture/experiments/attention_backends.py", "capture/experiments/fused_kernels.py",
    "capture/experiments/ngram.py", "capture/experiments/sm_count.py",
}  # fmt: skip


def dotted(node):
    """Return ``a.b`` of an attribute of a name, else nothing."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return ""


def dangers(tree):
    """Yield what a module uses of the lists above."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[0] for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield f"{node.func.id}()"
            yield dotted(node.func)
            if isinstance(node.func, ast.Attribute):
                yield node.func.attr
            for k in node.keywords:
                if k.arg in ("shell", "allow_pickle") and not (
                    isinstance(k.value, ast.Constant) and k.value.value is False
                ):
                    yield k.arg


WATCHED = MODULES | METHODS | {f"{c}()" for c in CALLS} | {"exec_module", "shell", "allow_pickle"}


def test_what_is_dangerous_stands_where_it_is_allowed_and_nowhere_else():
    found = Counter()
    for file in sorted(PACKAGE.rglob("*.py")):
        name = str(file.relative_to(PACKAGE))
        for what in dangers(ast.parse(file.read_text(encoding="utf-8"))):
            if what in WATCHED and not (what == "importlib" and name in OF_OWN):
                found[name, what] += 1
    assert sorted(set(found) - set(ALLOWED)) == []
    parsing = {("templates/expressions.py", "ast.parse"), ("capture/fused_kernels.py", "importlib")}
    assert sorted(set(ALLOWED) - set(found) - parsing) == []


@pytest.mark.parametrize(
    ("code", "what"),
    [("import pickle", "pickle"), ("from urllib.request import urlopen", "urllib"),
     ("eval('1')", "eval()"), ("yaml.load(x)", "yaml.load"), ("os.system('x')", "os.system"),
     ("run(x, shell=True)", "shell"), ("np.load(x, allow_pickle=True)", "allow_pickle"),
     ("def f():\n    import socket", "socket"), ("pd.read_pickle(x)", "pd.read_pickle")],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(code, what):
    assert what in set(dangers(ast.parse(code))) & WATCHED


def test_only_the_quoting_of_urllib_is_used():
    tree = ast.parse((PACKAGE / "studies" / "page.py").read_text(encoding="utf-8"))
    names = {(n.module, a.name) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)
             and n.module and n.module.startswith("urllib") for a in n.names}  # fmt: skip
    assert names == {("urllib.parse", "quote")}


# ---------------------------------------------------------------- without a network


@pytest.fixture
def offline(monkeypatch):
    """Let every way to a network fail with what is no error of npusim."""

    class Asked(BaseException):
        pass

    def refuse(*_, **__):
        raise Asked("the network was asked")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    with pytest.raises(Asked):
        socket.create_connection(("example.org", 80))


COMMANDS = [
    ["--help"], ["--version"], ["archs"], ["archs", "h200"], ["workloads"],
    ["workloads", "paddleocr_vl_decode", "--json"], ["inspect", "w.parquet"],
    ["replay", "w.parquet", "--arch", "h200", "--timeline", "t.json"],
    ["diff", "w.parquet", "w.parquet"], ["reuse", "w.parquet"], ["fuse", "paddleocr_vl_decode"],
    ["area", "h100"], ["memory", "qwen3_8b", "--arch", "h200"],
    ["template", "qwen3_8b", "--phase", "decode", "--lowering", "npu", "-o", "m.parquet"],
    ["rescale", "paddleocr_vl_decode", "--batch", "2", "-o", "r.parquet"],
    ["scale", "qwen3_8b", "--arch", "h200", "--tensor", "1,2", "--lowering", "npu"],
    ["compare", "paddleocr_vl_decode"], ["validate", "paddleocr_vl_decode", "--arch", "h200"],
    ["inspect", "w.parquet", "--report", "report"],
    ["sweep", "s.yaml", "-o", "out"], ["merge", "out", "-o", "merged"],
    ["sensitivity", "s.yaml", "--no-sobol", "-o", "felt"], ["study"],
    ["power", "paddleocr_vl_decode", "--arch", "h200", "--shares", "0.5,1"],
]  # fmt: skip


@pytest.mark.usefixtures("offline")
def test_commands_ask_no_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_workload(workload(kernel("k", flop=64.0, read_activation=64.0)), tmp_path / "w.parquet")
    (tmp_path / "s.yaml").write_text(
        "title: a\nquestion: b\nsource: made\narch: decode_npu\nsweep:\n  workloads: [w.parquet]\n"
        "  launch: [queue]\n  axes:\n    units.count: [60, 70]\n    floor.matmul: [1 us, 2 us]\n"
    )
    for words in COMMANDS:
        done = CliRunner().invoke(main, words, catch_exceptions=False)
        assert done.exit_code == 0, (words, done.stderr)
