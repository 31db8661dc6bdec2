"""The columns of a workload: what is known of every operation, declared once.

``origin`` says what of an operation was seen on a machine:

- ``measured``: it is as it was traced;
- ``rescaled``: it was traced, and a law has changed its shapes, FLOP or bytes;
- ``extrapolated``: the same, but beyond what confirms the law, or its kernel may be another one;
- ``generated``: it was never traced: made from hyperparameters, or put in by a transform.

Times are another matter: they stay those of the trace, whatever the mark.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from npusim.reuse import DATA

KINDS = (
    "gemv", "gemm", "grouped_gemm", "conv", "attention", "attention_combine", "splitk_reduce",
    "pointwise", "activation", "cast", "copy", "fill", "cat", "gather", "scatter", "reduction",
    "softmax", "norm", "rope", "scan", "sort", "topk", "memcpy", "memset", "setup", "collective",
    "fused", "unknown",
)  # fmt: skip
BASES = ("shape", "launch", "name", "none")
ORIGINS = ("measured", "rescaled", "extrapolated", "generated")


@dataclass(frozen=True)
class Column:
    """One attribute of every operation.

    Attributes
    ----------
    name : str
    type : str
        ``label``, ``count`` (integer >= 0), ``index`` (integer >= -1), ``amount`` (float >= 0)
        or ``flag``.
    unit : str
    meaning : str
    """

    name: str
    type: str
    unit: str
    meaning: str


COLUMNS: Mapping[str, Column] = MappingProxyType({c.name: c for c in (
    Column("kernel", "label", "1", "name of the kernel as the profiler gives it"),
    Column("operator", "label", "1", "innermost framework operator that launched it"),
    Column("library", "label", "1", "library the kernel comes from"),
    Column("routine", "label", "1",
           "which of the library's ways to do it (products: split, whole; collectives: which one), "
           "empty if unknown"),
    Column("kind", "label", "1", "what it does, one of KINDS"),
    Column("dtype", "label", "1", "type it computes in"),
    Column("phase", "label", "1", "prefill, decode, encode or unknown"),
    Column("basis", "label", "1",
           "where FLOP and bytes come from: operator shapes, launch grid, kernel name, nothing"),
    Column("origin", "label", "1",
           "what it is: measured, rescaled by a law, extrapolated beyond it, or generated"),
    Column("step", "count", "1", "step it belongs to, from 0"),
    Column("stream", "index", "1", "stream or queue"),
    Column("layer", "index", "1", "layer of the model, -1 where unknown"),
    Column("batch", "count", "1", "independent problems (bmm, attention batch), 0 if unknown"),
    Column("m", "count", "1", "rows of the result; query length of attention"),
    Column("n", "count", "1", "columns of the result; key length of attention"),
    Column("k", "count", "1",
           "reduction length; head size of attention; branches of a fused kernel; chips that take "
           "part in a collective"),
    Column("heads", "count", "1",
           "query heads of attention; special functions of a fused kernel, 0 elsewhere"),
    Column("kv_heads", "count", "1", "key and value heads of attention, 0 elsewhere"),
    Column("groups", "count", "1", "matrices of a grouped GEMM that it may read, 0 elsewhere"),
    Column("blocks", "count", "1", "thread blocks launched, 0 if unknown"),
    Column("threads", "count", "1", "threads a block, 0 if unknown"),
    Column("registers", "count", "1", "registers a thread, 0 if unknown"),
    Column("shared_memory", "amount", "B", "shared memory a block, 0 if unknown"),
    Column("flop", "amount", "FLOP", "arithmetic it needs (multiply and add are two)"),
    Column("read_weight", "amount", "B", "bytes of weights it reads"),
    Column("read_kv", "amount", "B", "bytes of KV cache it reads"),
    Column("read_activation", "amount", "B", "bytes of activations it reads"),
    Column("write_kv", "amount", "B", "bytes of KV cache it writes"),
    Column("write_activation", "amount", "B", "bytes of activations it writes"),
    Column("start_s", "amount", "s", "measured start, from the start of its step"),
    Column("duration_s", "amount", "s", "measured duration on the device"),
    Column("host_s", "amount", "s",
           "host work before its launch call, waits for the device taken out; the sum of the next "
           "four"),
    Column("interpreter_s", "amount", "s",
           "of host_s: outside every framework operator and runtime call of the launching thread"),
    Column("framework_s", "amount", "s",
           "of host_s: in framework operators, but for library_s and launch_s"),
    Column("library_s", "amount", "s",
           "of host_s: in operators that launch kernels of a library, outside what these call"),
    Column("launch_s", "amount", "s", "of host_s: in runtime and driver calls"),
    Column("sync", "flag", "1", "whether the host waits for it before it goes on"),
    Column("presync_s", "amount", "s", "host work between its launch call and that wait"),
    Column("thread", "index", "1",
           "host thread that launched it, from 0 by first launch, -1 if unknown"),
    Column("records", "count", "1",
           "operators that the profiler recorded on that thread since its launch before; those "
           "after its last launch of a step count for that one"),
)})  # fmt: skip

HOST_PARTS = ("interpreter_s", "framework_s", "library_s", "launch_s")  # of host_s
LABELS = tuple(name for name, column in COLUMNS.items() if column.type == "label")
BYTES = tuple(DATA)

# Bytes of a number of each type; what is not here has two.
BYTES_OF = MappingProxyType({
    "fp32": 4.0, "tf32": 4.0, "fp64": 8.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5,
})  # fmt: skip

# What a cost model may look at. Operations that agree in all of these cost the same.
COST_LABELS = ("kind", "dtype", "library", "routine")
COST_COLUMNS = (
    *COST_LABELS, "batch", "m", "n", "k", "heads", "kv_heads", "groups",
    "blocks", "threads", "flop", *BYTES,
)  # fmt: skip

# What a kernel asks of a compute unit beside its threads, which occupancy looks at. No other model
# does: operations that differ in these alone cost the same where a machine has no such limits.
LIMIT_COLUMNS = ("registers", "shared_memory")
