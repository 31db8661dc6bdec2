"""Every file that npusim reads: small valid ones, the reader of each, and a command that takes it.

The builders of the tests make the traces, so a format that is built anew there is built anew here.
What is not in a file of its own (the folder of an unfinished sweep) is put beside it by `beside`.

Left out: what `npusim capture` runs (a user's own code and PyTorch), and reports of Nsight Compute
beyond what npusim itself reads of them (the rest is NVIDIA's library).
"""

from __future__ import annotations

import gzip
import io
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from npusim import catalog, measured  # noqa: E402
from npusim.beside import compare_one  # noqa: E402
from npusim.capture.folder import Folder  # noqa: E402
from npusim.config import read_arch  # noqa: E402
from npusim.importers import import_trace  # noqa: E402
from npusim.inspection import inspection  # noqa: E402
from npusim.job import read_job as sweep_job  # noqa: E402
from npusim.outcome import How, run_job, save_outcome  # noqa: E402
from npusim.request_file import read_requests  # noqa: E402
from npusim.serving_block import read_serving  # noqa: E402
from npusim.studies.read import read_question  # noqa: E402
from npusim.sweeps.blocks import BLOCKS, Store  # noqa: E402
from npusim.sweeps.merge import merge  # noqa: E402
from npusim.tables import results as tables  # noqa: E402
from npusim.templates import load_lowering, load_model, template  # noqa: E402
from npusim.workload_file import load_workload, save_workload  # noqa: E402
from tests import (  # noqa: E402
    builder,
    kineto_builder,
    ncu_builder,
    test_ascend,
    test_chakra,
    test_execution_trace,
    test_hugging_face,
    test_kernel_table,
    test_mctracer,
    test_measured,
    test_ncu,
    test_ncu_report,
    test_nsys,
    test_rocprof,
    test_rocprof_pmc,
)

Reader = Callable[[Path], object]


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes
    ----------
    file : str
        What a file of it is called.
    kind : str
        How its inside is changed: json, yaml, csv, sqlite, parquet or binary.
    seeds : function
        Gives the bytes of valid files.
    read : function
        Reads a file as the commands do, and what is cheap of what follows.
    commands : tuple of tuple of str
        Arguments of commands that take it; FILE and OUT stand for the file and a fresh folder.
    beside : mapping of str to function
        Further files that must lie there.
    packed : bool
        Whether it may be gzipped.
    """

    file: str
    kind: str
    seeds: Callable[[], list[bytes]]
    read: Reader
    commands: tuple[tuple[str, ...], ...]
    beside: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)
    packed: bool = False


# ---------------------------------------------------------------- readers


def read_trace(path: Path) -> None:
    w = import_trace(path)
    json.dumps(inspection(w), allow_nan=False)
    save_workload(w, path.parent / "imported.parquet")
    read_workload(path.parent / "imported.parquet")


def read_workload(path: Path) -> None:
    json.dumps(inspection(load_workload(path)), allow_nan=False)


def read_measured(path: Path) -> None:
    if measured.is_measured(path):
        measured.read(path)
    else:
        read_trace(path)


def read_machine(path: Path) -> None:
    json.dumps(tables.arch_content(read_arch(path)[0]), allow_nan=False)


def read_job(path: Path) -> None:
    sweep_job(str(path), [str(path.parent / "w.parquet")], [], {})


def read_claims(path: Path) -> None:
    read_question(str(path))


def read_served(path: Path) -> None:
    read_serving(path)


def read_log(path: Path) -> None:
    read_requests(path)


def read_model(path: Path) -> None:
    load_model(path)
    template(str(path), "decode", lowering="npu", context=64)


def read_lowering(path: Path) -> None:
    load_lowering(str(path))
    template("qwen3_8b", "decode", lowering=str(path), context=64)


def read_results(path: Path) -> None:
    compare_one(path)


def read_parts(path: Path) -> None:
    folder = path.parent.parent if path.parent.name == "blocks" else path
    with tempfile.TemporaryDirectory(dir=path.parent) as out:
        merge([folder], Path(out) / "merged", True)


def read_captured(path: Path) -> None:
    folder = Folder(path.parent)
    folder.has("attention", ["decode_attention"], True)


# ---------------------------------------------------------------- seeds


def _written(write: Callable[[Path], Path]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write(Path(folder)).read_bytes()


def _kineto() -> list[bytes]:
    tensor = kineto_builder.tensor
    eager = kineto_builder.Trace()
    for number in range(2):
        with eager.step(number):
            with (
                eager.op("aten::linear", tensor(4, 64), tensor(32, 64)),
                eager.op("aten::addmm", tensor(32), tensor(4, 64), tensor(64, 32), "1", "1"),
            ):
                eager.kernel("gemm_bf16")
            with eager.op("aten::cat", [tensor(4), tensor(4)], "0"):
                eager.copy()
            with eager.op("aten::neg", tensor(4, dtype="float")):
                eager.kernel("void vectorized_elementwise_kernel<4>(int)")
            eager.call("cudaStreamSynchronize", 9.0)
    graph = kineto_builder.Trace()
    for number in range(2):
        with graph.step(number, "ProfilerStep#{}"):
            launch = graph.call("cudaGraphLaunch")
            for name in ("gemv", "flash_fwd_kernel", "k"):
                graph.run(launch, name, **{"graph node id": 3})
    cpu = kineto_builder.Trace()
    with cpu.step(), cpu.op("aten::neg", tensor(4)):
        cpu.kernel("k", 2.5, **{"est. achieved occupancy %": 40, "device": 0})
    return [t.text().encode() for t in (eager, graph, cpu)]


def _mctracer() -> list[bytes]:
    of = test_mctracer
    events = [of.host(0), of.kernel(0), of.host(1), of.kernel(1, "phi::RmsNorm", cat="kernel")]
    return [of.text(events).encode(), of.text(events, closing="\n").encode(),
            json.dumps(events).encode()]  # fmt: skip


def _chakra(form: str) -> list[bytes]:
    of = test_chakra
    own = [of.node(4, [2, 3], "softmax", us=10, num_ops=7), of.host(2), of.node(3, [2], us=5),
           of.node(7, [4], "gather", type=of.COLL, us=50, comm_size=1024, comm_type=2)]  # fmt: skip
    inputs = of.arguments((1, (4, 8)), (2, (8, 4)))
    with_shapes = [of.host(1, name="aten::mm", inputs=inputs, outputs=of.arguments((3, (4, 4))),
                           op_schema=test_execution_trace.UNARY, rf_id=1),
                   of.node(2, [1], "gemm", us=3)]  # fmt: skip
    return [of.FORMS[form][0](nodes) for nodes in (of.GRAPH, own, with_shapes)]


def _execution() -> list[bytes]:
    of = test_execution_trace
    nodes = [*of.LINEAR, of.ROOT]
    return [of.text(nodes).encode(),
            of.text([of.old(n) for n in nodes], "1.0.1").encode()]  # fmt: skip


def _sqlite() -> list[bytes]:
    export = test_nsys.waiting()
    export.copies.append((7500, 7600, 0, 7, 9, test_nsys.PID, 4096, 8))
    return [_written(export.write), _written(test_nsys.Export(test_nsys.OLD).write)]


def _ncu() -> list[bytes]:
    duration = test_ncu.DURATION
    registers, memory = "launch__registers_per_thread", "dram__bytes_read.sum"
    raw = ncu_builder.raw({duration: "us", registers: "", memory: "Mbyte"},
                          {duration: "1,250.5", registers: "32", memory: "3.5"},
                          {duration: "2", registers: "16"})  # fmt: skip
    pages = [raw, test_ncu.PAGE, ncu_builder.details(({}, test_ncu.MODERN)), test_ncu.DETAILS,
             ncu_builder.details(({}, test_ncu.MODERN), columns=ncu_builder.OLD)]  # fmt: skip
    return [page.encode() for page in pages]


def _ascend() -> list[bytes]:
    of = test_ascend
    short = of.SHORT + of.short() + of.short("Cast", "0.027", "7.001")
    long = of.LONG + of.matmul("1,4096;4096,11008", "1,11008") + of.matmul("8,8;8,8", "8,8", at=50)
    summary = of.SUMMARY + (f"0,1,1,5,FlashAttentionScore_1,FlashAttentionScore,MIX_AIC,{of.AT}.1,"
                            "280.6,0.01,24\n")  # fmt: skip
    return [text.encode() for text in (short, long, summary)]


def _rocprof_json() -> list[bytes]:
    of = test_rocprof
    plain = of.trace([of.dispatch(2, 500, 1500, 2), of.dispatch(1, 0, 400, 1)])
    full = of.trace([of.dispatch(1, 100, 400, 1), of.dispatch(2, 500, 900, 2)],
                    [of.api("hipLaunchKernel", 10, 20, 1), of.api("hipLaunchKernel", 30, 40, 2),
                     of.api("hipStreamSynchronize", 50, 950, 3)],
                    marks=[("step#0", 0, 1000)])  # fmt: skip
    return [json.dumps(content).encode() for content in (plain, full)]


def _shipped(collection: str, *names: str) -> list[bytes]:
    return [catalog.find(collection, name).read_bytes() for name in names]


def _workloads() -> list[bytes]:
    def write(folder: Path) -> Path:
        file = folder / "w.parquet"
        rows = [builder.gemv(3.0), builder.kernel("k", 2.0, flop=64.0, read_activation=64.0),
                builder.timed(1e-6, host_s=1e-6)]  # fmt: skip
        save_workload(builder.workload(*rows, device="NVIDIA H200"), file)
        return file

    def counted(folder: Path) -> Path:
        page = folder / "page.csv"
        page.write_bytes(_ncu()[0])
        file = folder / "w.parquet"
        save_workload(import_trace(page), file)
        return file

    return [_written(write), _written(counted)]


def _measured() -> list[bytes]:
    of = test_measured
    rows = [of.LINEAR, {**of.LINEAR, "m": 3, "launch": "eager", "units": 40}, of.DECODE,
            {"op": "stream", "dtype": "fp32", "latency_us": 3, "bytes_read": 4096,
             "bytes_written": 64}]  # fmt: skip
    return [_written(lambda folder: of.table(folder, *rows))]


def _axes() -> list[bytes]:
    lines = of_lines(catalog.folder("workloads") / "experiments" / "h200_axes.json")
    picked = [lines[0], *lines[1 :: max(1, len(lines) // 30)]]
    return [json.dumps(picked).encode()]


def of_lines(file: Path) -> list[Any]:
    found: list[Any] = json.loads(file.read_bytes())
    return found


_SWEEP = b"""
sweep:
  workloads: [paddleocr_vl_decode]
  launch: [graph, queue]
  axes:
    memories.dram.bandwidth: [2.4 TB/s, 4.8 TB/s]
    units.count: {start: 60, stop: 80, steps: 3}
    gemv.count: {values: [0, 70], when: {launch: queue}}
  samples: {count: 4, method: lhs}
  costs: [units.count, energy_j]
  constraints: {energy_j: {most: 10 J}}
"""
_STUDY = b"""title: a study
question: what is it worth?
source: made up
arch: decode_npu
""" + _SWEEP.replace(b"  samples: {count: 4, method: lhs}\n", b"")
_LOG = b"""arrival_s,prompt,output,prefix,prefix_tokens,first_token_s,last_token_s
0.0,10,4,a,5,0.5,1.5
1.25,300,40,a,5,1.5,2.5
2,20,1,,,3,3
"""
_LINES = b"""{"arrival_s": 0, "prompt": 10, "output": 4, "other": [1, null]}
{"arrival_s": "2024-05-12 00:00:01", "prompt": 10, "output": 4}
"""
_DATES = b"""TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-12 00:00:00.008,2162,5
2024-05-12 00:00:01,900,55
"""
_SERVED = b"""title: served
question: how fast?
source: made up
arch: rtx_4090
serving:
  model: qwen3_8b
  lowering: serving
  engine: {max_num_seqs: 8, max_num_batched_tokens: 512, max_model_len: 2048, kv_blocks: 400}
  requests: {arrivals: poisson, rate_per_s: 1, count: 4, prompt: 64, output: {mean: 8, spread: 0.5}}
  limits: {ttft: 2 s, tpot: 50 ms}
  axes: {requests.rate_per_s: [0.5, 1]}
"""
_FROM_LOG = b"""title: served
question: how fast?
source: made up
arch: rtx_4090
serving:
  model: qwen3_8b
  engine: {max_num_seqs: 8, max_num_batched_tokens: 512, max_model_len: 2048, kv_blocks: 400}
  requests: {arrivals: file, file: log.csv}
"""


def _machines() -> list[bytes]:
    small, calibrated = _shipped("archs", "mi210", "h200")
    return [small, small + _SWEEP, calibrated]


def _configs() -> list[bytes]:
    of = test_hugging_face
    known = (of.LLAMA, of.DEEPSEEK_V3, of.DEEPSEEK_OCR, of.QWEN3_MOE, of.GPT2)
    return [json.dumps(config, indent=1).encode() for config in known]


@cache
def _swept() -> tuple[bytes, bytes, bytes]:
    """Return results of a sweep, and a description and a block of an unfinished one."""
    with tempfile.TemporaryDirectory() as made:
        folder, inside = Path(made), Path(made) / "out" / BLOCKS
        study = folder / "study.yaml"
        study.write_bytes(_STUDY)
        kept: list[bytes] = []
        finish = Store.finish

        def noted(store: Store) -> Path:
            kept.extend([(inside / "sweep.json").read_bytes(),
                         (inside / "00000000.parquet").read_bytes()])  # fmt: skip
            return finish(store)

        Store.finish = noted  # type: ignore[method-assign]
        try:
            outcome = run_job(sweep_job(str(study), [], [], {}), "fuzz", None,
                              How(folder / "out", "local", 1, False, "", False))  # fmt: skip
        finally:
            Store.finish = finish  # type: ignore[method-assign]
        save_outcome(outcome, folder / "out", False)
        results = (folder / "out" / "results.parquet").read_bytes()
    return results, kept[0], kept[1]


_LOWERING = b"""title: macro-operations, one of them another way
source: made up
base: npu
ops:
  residual:
    let: {parts: ceil(rows * width / 1024)}
    steps:
      - kernel: add
        kind: pointwise
        operator: aten::add
        when: "rows > 0 and width >= 1"
        flop: rows * width
        reads: 2 * item * rows * width
        blocks: max(parts, 1)
"""


def _lowerings() -> list[bytes]:
    return [*_shipped("lowerings", "npu"), _LOWERING]


def _parquet_of_all_types() -> bytes:
    sink = io.BytesIO()
    table = pa.table({"a": [1, None], "b": ["x", "y"], "c": [[1], []]})
    pq.write_table(table, sink)
    return sink.getvalue()


# ---------------------------------------------------------------- the formats

_TRACE = (("inspect", "FILE", "--json"), ("import", "FILE", "-o", "OUT/w.parquet"),
          ("replay", "FILE", "--arch", "h100", "--json"), ("diff", "FILE", "FILE"),
          ("replay", "FILE", "--arch", "b200", "--mode", "transfer", "--launch", "graph",
           "--timeline", "OUT/t.json"),
          ("fuse", "FILE"), ("reuse", "FILE"), ("compare", "FILE"),
          ("validate", "FILE", "--arch", "h200"),
          ("import", "FILE", "FILE", "-o", "OUT/w.parquet"),
          ("rescale", "FILE", "--batch", "2", "-o", "OUT/r.parquet"),
          ("power", "FILE", "--arch", "h200", "--shares", "0.5,1"),
          ("calibrate", "FILE", "--arch", "h200", "--free", "floor.matmul", "-o", "OUT/c.yaml"),
          ("workloads", "FILE"))  # fmt: skip
_MEASURED = (("validate", "FILE", "--arch", "h200", "--json"),
             ("calibrate", "FILE", "--arch", "h200", "--free", "floor.matmul", "-o",
              "OUT/c.yaml"))  # fmt: skip
_ARCH = (("archs", "FILE", "--json"), ("archs", "FILE"), ("area", "FILE"),
         ("replay", "BESIDE/w.parquet", "--arch", "FILE", "--launch", "graph", "--json"),
         ("memory", "qwen3_8b", "--arch", "FILE"))  # fmt: skip
_SWEEPS = (("sweep", "FILE", "--samples", "4", "--no-figures", "-o", "OUT/s", "--json",
            "-w", "BESIDE/w.parquet"),
           ("sensitivity", "FILE", "--no-sobol", "-o", "OUT/s", "-w", "BESIDE/w.parquet"),
           ("study", "FILE", "--help"))  # fmt: skip
_MODEL = (("template", "FILE", "--phase", "decode", "--lowering", "npu", "-o", "OUT/m.parquet"),
          ("memory", "FILE", "--memory", "24 GB"),
          ("scale", "FILE", "--arch", "h200", "--tensor", "1,2"))  # fmt: skip

FORMATS: dict[str, Format] = {
    "kineto": Format("t.json", "json", _kineto, read_trace, _TRACE, packed=True),
    "mctracer": Format("tracer_out-1.json", "json", _mctracer, read_trace, _TRACE, packed=True),
    "chakra_json": Format("x.json", "json", lambda: [*_chakra("feeder"), *_chakra("printed")],
                          read_trace, _TRACE, packed=True),
    "chakra_et": Format("x.et", "binary", lambda: _chakra("protobuf"), read_trace, _TRACE,
                        packed=True),
    "execution": Format("x_et.json", "json", _execution, read_trace, _TRACE, packed=True),
    "nsys_sqlite": Format("a.sqlite", "sqlite", _sqlite, read_trace, _TRACE),
    "nsys_csv": Format("a.csv", "csv", lambda: [test_nsys.SUM.encode(), test_nsys.TRACE.encode()],
                       read_trace, _TRACE, packed=True),
    "kernel_table": Format("hotspots.csv", "csv", lambda: [test_kernel_table.TABLE.encode()],
                           read_trace, _TRACE, packed=True),
    "rocprof_json": Format("1_results.json", "json", _rocprof_json, read_trace, _TRACE,
                           packed=True),
    "rocprof_csv": Format("1_kernel_trace.csv", "csv",
                          lambda: [(test_rocprof.OLD + test_rocprof.old() * 2).encode(),
                                   (test_rocprof.NEW + test_rocprof.new() * 2).encode()],
                          read_trace, _TRACE, packed=True),
    "rocprof_pmc": Format("pmc_perf.csv", "csv", lambda: [test_rocprof_pmc.TABLE.encode()],
                          read_trace, _TRACE, packed=True),
    "ascend": Format("kernel_details.csv", "csv", _ascend, read_trace, _TRACE, packed=True),
    "ncu_csv": Format("ncu.csv", "csv", _ncu, read_trace, _TRACE, packed=True),
    "ncu_report": Format("k.ncu-rep", "binary", lambda: [test_ncu_report.WHOLE], read_trace,
                         (("inspect", "FILE"),), packed=True),
    "workload": Format("w.parquet", "parquet", _workloads, read_workload, _TRACE),
    "measured": Format("table.csv", "csv", _measured, read_measured, _MEASURED, packed=True),
    "experiments": Format("axes.json", "json", _axes, read_measured, _MEASURED, packed=True),
    "arch": Format("chip.yaml", "yaml", _machines, read_machine, _ARCH,
                   {"w.parquet": lambda: _workloads()[0]}),
    "study": Format("study.yaml", "yaml",
                    lambda: [_STUDY, _shipped("archs", "mi210")[0] + _SWEEP], read_job, _SWEEPS,
                    {"w.parquet": lambda: _workloads()[0]}),
    "claims": Format("claims.yaml", "yaml",
                     lambda: _shipped("studies", "vision_path", "metax_stage1", "host"),
                     read_claims, (("study", "FILE", "--help"),)),
    "serving": Format("served.yaml", "yaml", lambda: [_SERVED, _FROM_LOG], read_served,
                      (("serve-sim", "FILE", "--no-band", "--no-figures", "--json"),),
                      {"log.csv": lambda: _LOG}),
    "requests": Format("log.csv", "csv", lambda: [_LOG, _DATES], read_log,
                       (("serve-sim", "BESIDE/served.yaml", "--no-band", "--json"),),
                       {"served.yaml": lambda: _FROM_LOG}),
    "requests_json": Format("log.jsonl", "json", lambda: [_LINES, _LINES.splitlines()[0]],
                            read_log, ()),
    "model": Format("model.yaml", "yaml",
                    lambda: _shipped("models", "qwen3_8b", "deepseek_v3", "paddleocr_vl"),
                    read_model, _MODEL),
    "config": Format("config.json", "json", _configs, read_model, _MODEL),
    "lowering": Format("low.yaml", "yaml", _lowerings, read_lowering,
                       (("template", "qwen3_8b", "--phase", "decode", "--lowering", "FILE", "-o",
                         "OUT/m.parquet"),)),
    "results": Format("results.parquet", "parquet", lambda: [_swept()[0]], read_results,
                      (("compare", "FILE", "-o", "OUT/c.csv"), ("merge", "FILE", "-o", "OUT/m"))),
    "merged": Format("results.parquet", "parquet",
                     lambda: [_swept()[0], _parquet_of_all_types()], read_parts,
                     (("merge", "FILE", "-o", "OUT/m"),)),
    "block": Format("blocks/00000000.parquet", "parquet", lambda: [_swept()[2]], read_parts,
                    (("merge", "BESIDE", "-o", "OUT/m"),),
                    {"blocks/sweep.json": lambda: _swept()[1]}),
    "sweep_json": Format("blocks/sweep.json", "json", lambda: [_swept()[1]], read_parts,
                         (("merge", "BESIDE", "-o", "OUT/m"),),
                         {"blocks/00000000.parquet": lambda: _swept()[2]}),
    "captured": Format("provenance.json", "json",
                       lambda: [(catalog.folder("workloads") / "experiments"
                                 / "h200_fused_provenance.json").read_bytes()],
                       read_captured, ()),
}  # fmt: skip


@cache
def seeds(name: str) -> tuple[bytes, ...]:
    """Return the valid files of a format."""
    return tuple(FORMATS[name].seeds())


def packed(content: bytes) -> bytes:
    """Return bytes gzipped, the same each time."""
    return gzip.compress(content, 6, mtime=0)
