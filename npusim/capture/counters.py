"""Hardware counters of one step: Nsight Compute around a child process that runs exactly that.

The child starts the CUDA profiler after its warm-up and stops it a step later, so the file holds
the kernels of one step in their order. Caches are left as they are and clocks are not locked.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import npusim
from npusim.atomic import check_folder
from npusim.capture.case import Case
from npusim.capture.environment import Origin, new_record
from npusim.capture.folder import PROVENANCE, Folder
from npusim.capture.gpu import Row, open_gpu
from npusim.capture.models import load_program
from npusim.capture.trace import Say, quiet, warm_step
from npusim.errors import InputError, NpusimError

_SECTIONS = (
    "SpeedOfLight", "SpeedOfLight_RooflineChart", "MemoryWorkloadAnalysis",
    "ComputeWorkloadAnalysis", "InstructionStats", "LaunchStats", "Occupancy",
)  # fmt: skip

METRICS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    # A dozen passes a kernel, its operands warm after the first: not for DRAM bytes.
    "counters": (
        *(part for section in _SECTIONS for part in ("--section", section)),
        "--metrics", "dram__bytes_read,dram__bytes_write,sm__inst_executed_pipe_tensor,"
                     "lts__t_sectors_op_read,lts__t_sectors_op_write",
    ),
    # Few counters, few passes: DRAM bytes are those of the first, in the step's own cache state.
    "dram": (
        "--section", "LaunchStats",
        "--metrics", "dram__bytes_read,dram__bytes_write,gpu__time_duration,"
                     "lts__t_sectors_op_read,lts__t_sectors_op_read_lookup_hit",
    ),
})  # fmt: skip
"""Options of ncu for each set of counters."""

_PLACES = ("/usr/local/cuda/bin/ncu", "/opt/nvidia/nsight-compute/*/ncu")
_TAIL = 1 << 16


@dataclass(frozen=True)
class Counted:
    """What a capture of counters made: files, and kernels that were profiled."""

    files: tuple[str, ...]
    kernels: int


def capture_counters(
    case: Case,
    folder: Path,
    origin: Origin = Origin(),  # noqa: B008  (frozen)
    metrics: str = "counters",
    kernels: int | None = None,
    ncu: str | None = None,
    say: Say = quiet,
) -> Counted:
    """Profile the kernels of one eager step with Nsight Compute.

    Parameters
    ----------
    case : Case
        Its `launch` and `steps` are not used: one eager step is profiled.
    folder : Path
        Where ``ncu_<case>.csv.gz`` or ``dram_<case>.csv.gz`` and ``provenance.json`` go.
    origin : Origin
    metrics : str
        ``counters`` (whole sections) or ``dram`` (few metrics).
    kernels : int, optional
        Profile no more than the first so many.
    ncu : str, optional
        Path of ncu; by default the one on the PATH, or where CUDA puts it.
    say : callable
        Told what runs.

    Raises
    ------
    NpusimError
        ncu is absent or not permitted, the child fails, or the folder cannot be written.
    """
    if metrics not in METRICS:
        raise InputError("no such set of counters", place="--metrics", value=metrics,
                         allowed=", ".join(METRICS))  # fmt: skip
    if kernels is not None and kernels < 1:
        raise InputError("out of bounds", place="--kernels", value=kernels, allowed="from 1")
    tool = find_ncu(ncu)
    check_folder(folder)
    files = Folder(folder)
    name = case.counter_file(metrics)
    record = new_record("counters", origin)
    with tempfile.TemporaryDirectory() as made:
        report, told = Path(made) / "step.ncu-rep", Path(made) / "environment.json"
        child = child_command(case, told)
        command = ncu_command(tool, report, metrics, kernels, child)
        say(f"running {' '.join(command[: -len(child)])} (child process)")
        output, status = _run(command, Path(made) / "output.txt")
        if status or not report.exists():  # a step that broke off is not the whole step
            raise NpusimError(failure(output))
        rows = 0

        def write(target: Path) -> None:
            nonlocal rows
            rows = _write_csv(tool, report, target)

        files.add_file(name, write)
        about: Row = json.loads(told.read_text())
    files.add_record({**record, **about, "case": asdict(case), "metrics": metrics,
                      "most_kernels": kernels, "files": [name], "notes": []})  # fmt: skip
    return Counted((name, PROVENANCE), rows)


def find_ncu(given: str | None) -> str:
    """Return the path of ncu.

    Raises
    ------
    NpusimError
        There is none.
    """
    found = shutil.which(given or "ncu")
    if found is None and given is None:
        root = Path("/")
        installed = [p for pattern in _PLACES for p in sorted(root.glob(pattern[1:]))]
        found = str(installed[-1]) if installed else None
    if found is None:
        raise NpusimError(
            f"{given or 'ncu'} is not installed: counters need NVIDIA Nsight Compute, part of the "
            "CUDA toolkit; put ncu on the PATH or give --ncu PATH"
        )
    return found


def ncu_command(
    ncu: str, report: Path, metrics: str, kernels: int | None, child: Sequence[str]
) -> list[str]:
    """Return the command that profiles a child from its profiler start to its stop."""
    limit = [] if kernels is None else ["--launch-count", str(kernels)]
    return [ncu, "--cache-control", "none", "--clock-control", "none",
            "--profile-from-start", "off", *METRICS[metrics], *limit,
            "--force-overwrite", "--export", str(report), *child]  # fmt: skip


def child_command(case: Case, told: Path) -> list[str]:
    """Return the command that runs one step of a case and writes its environment."""
    return [sys.executable, "-m", "npusim.capture", json.dumps(asdict(case)), str(told)]


def failure(output: str) -> str:
    r"""Return one line on why ncu made no report.

    Parameters
    ----------
    output : str
        What ncu and the child printed.

    Examples
    --------
    >>> failure("==PROF== Connected\nerror: config.json: no such file\n")
    'config.json: no such file'
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if "ERR_NVGPUCTRPERM" in output:
        return (
            "this user may not read the GPU's counters (ERR_NVGPUCTRPERM): run as root, or load "
            "the driver with NVreg_RestrictProfilingToAdminUsers=0 "
            "(https://developer.nvidia.com/ERR_NVGPUCTRPERM)"
        )
    own = [line for line in lines if line.startswith("error: ")]
    if own:
        return own[-1].removeprefix("error: ")
    if "No kernels were profiled" in output:
        return "ncu profiled no kernels: the step launched none, or its device is not supported"
    errors = [line for line in lines if line.startswith("==ERROR==")]
    told = (errors or lines or ["it printed nothing"])[-1]
    return f"ncu made no report: {told.removeprefix('==ERROR==').strip()[:300]}"


def run_step(case: Case, told: Path) -> None:
    """Run one step between the start and the stop of the CUDA profiler; the child's business."""
    from npusim.capture.environment import environment  # noqa: PLC0415

    torch = open_gpu()
    with torch.no_grad():
        program = load_program(torch, case)
        step = warm_step(torch, case, program, before=0)
        told.write_text(json.dumps({**environment(torch), "program": program.about}))
        torch.cuda.profiler.start()
        step.run()
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()


def _run(command: Sequence[str], log: Path) -> tuple[str, int]:
    """Run a command to its end; returns the last of what it printed, and its exit status."""
    root = str(Path(npusim.__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        with log.open("wb") as sink:
            done = subprocess.run(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
                check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )  # fmt: skip
    except OSError as error:
        raise NpusimError(f"ncu cannot be started: {error.strerror or error}") from None
    with log.open("rb") as printed:
        printed.seek(max(0, log.stat().st_size - _TAIL))
        return printed.read().decode(errors="replace"), done.returncode


def _write_csv(ncu: str, report: Path, target: Path) -> int:
    """Write the raw page of a report as gzipped CSV; returns how many kernels it has."""
    command = [ncu, "--import", str(report), "--csv", "--page", "raw"]
    lines = 0
    with (
        target.open("wb") as sink,
        gzip.GzipFile(filename="", fileobj=sink, mode="wb", mtime=0) as gz,
        subprocess.Popen(command, stdout=subprocess.PIPE) as reading,  # noqa: S603
    ):
        for line in reading.stdout or ():
            if not line.startswith(b"=="):
                gz.write(line)
                lines += 1
    if reading.returncode:
        raise NpusimError(f"ncu --import failed with status {reading.returncode}")
    if lines < 3:  # names, units, and at least one kernel
        raise NpusimError("ncu's report holds no kernels")
    return lines - 2
