"""Kernels that calls run on a GPU, by PyTorch's profiler, for the programs beside this one."""

import json
import tempfile
from pathlib import Path


def kernels(torch, call, count):
    """Return name, grid and time [us] of each kernel that so many calls run, one call ahead."""
    call()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(count):
            call()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        profile.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
    found = sorted((e for e in events if e.get("cat") == "kernel"), key=lambda e: e["ts"])
    return [(e["name"], e["args"]["grid"], e["dur"]) for e in found]
