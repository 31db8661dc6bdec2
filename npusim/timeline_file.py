"""A Chrome trace of a prediction and of what was traced: for ui.perfetto.dev, chrome://tracing."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from npusim.arch import Arch
from npusim.atomic import whole_file
from npusim.load import traced_arch
from npusim.sides import after, before
from npusim.store import arch_id, model_version
from npusim.trace_events import events
from npusim.workload import Workload

_BUFFER = 1 << 20
_LEVEL = 3  # of compression: more takes longer than all the rest


def save_timeline(
    file: str | Path,
    workload: Workload,
    arch: Arch,
    launch: str = "eager",
    mode: str = "model",
    traced: Workload | None = None,
) -> None:
    """Write when everything happens in a prediction, beside the same in the trace.

    Parameters
    ----------
    file : str or Path
        What to write, gzipped if its name ends in ``.gz``; whole or not at all.
    workload : Workload
    arch : Arch
    launch : {"eager", "graph", "queue"}
    mode : {"model", "transfer"}
        See `npusim.durations.durations`.
    traced : Workload, optional
        The workload as it was before it was changed (`npusim.transforms`).

    Raises
    ------
    InputError
        As `npusim.predict.replay`; a file that cannot be written.

    Examples
    --------
    >>> import json, tempfile
    >>> import npusim as ns
    >>> file = Path(tempfile.mkdtemp()) / "queue.json"
    >>> w = ns.load_workload("paddleocr_vl_prefill")
    >>> ns.save_timeline(file, w, ns.load_arch("decode_npu"), launch="queue")
    >>> told = json.loads(file.read_text())
    >>> [e["args"]["name"] for e in told["traceEvents"] if e["name"] == "process_name"][0]
    'before: NVIDIA H200, eager, as traced: 21.53 ms a step'
    """
    sides = [side for side in (before(traced or workload), after(workload, arch, launch, mode))
             if side is not None]  # fmt: skip
    machine = traced_arch(workload)
    about = {
        "workload": workload.name, "arch": arch.name, "launch": launch, "mode": mode,
        "made_by": {"workload": workload.id, "arch": arch_id(arch), "model": model_version(),
                    "traced": arch_id(machine) if machine is not None else ""},
    }  # fmt: skip
    with _opened(Path(file)) as stream:
        _write(stream, events(sides), about)


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """Open a file that is there when the block ends well."""
    with whole_file(file) as temporary, temporary.open("wb", _BUFFER) as stream:
        if file.suffix != ".gz":
            yield stream
            return
        # Neither name nor date of the packing: the same trace is the same file.
        packed = gzip.GzipFile("", "wb", _LEVEL, stream, mtime=0)
        with packed, io.BufferedWriter(cast(io.RawIOBase, packed), _BUFFER) as buffer:
            yield buffer


def _write(stream: BinaryIO, found: Iterator[bytes], about: Mapping[str, Any]) -> None:
    """Write events one by one, each on a line of its own."""
    stream.write(b'{"displayTimeUnit": "ns", "traceEvents": [')
    separator = b"\n"
    for event in found:
        stream.write(separator + event)
        separator = b",\n"
    stream.write(b'\n], "otherData": ' + msgspec.json.encode(about) + b"}\n")
