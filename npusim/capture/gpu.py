"""The GPU that is captured: PyTorch on first use, and one line when something is absent.

npusim does not depend on PyTorch: whoever captures has it for their own work. Modules of this
package get it as an argument, so importing them costs nothing and needs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from npusim.errors import NpusimError

Row = dict[str, Any]
"""One row of an output file."""

TORCH = "capture needs PyTorch built for your GPU (https://pytorch.org/get-started/locally)"
TRANSFORMERS = "a Hugging Face model needs transformers: pip install transformers"


class Unavailable(Exception):
    """What one measurement needs is not on this machine; the rest can be measured."""


def load(module: str, need: str) -> Any:
    """Import a package that npusim does not depend on.

    Parameters
    ----------
    module : str
    need : str
        What needs it and how to get it.

    Raises
    ------
    NpusimError
        It cannot be imported.

    Examples
    --------
    >>> load("no_such_package", "this needs it: pip install it")
    Traceback (most recent call last):
    npusim.errors.NpusimError: this needs it: pip install it (No module named 'no_such_package')
    """
    try:
        return import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library of it is missing
        raise NpusimError(f"{need} ({first_line(error)})") from None


def open_gpu() -> Any:
    """Return PyTorch, with a GPU that it can use.

    Raises
    ------
    NpusimError
        PyTorch is absent, or sees no GPU.
    """
    torch = load("torch", TORCH)
    if not torch.cuda.is_available():
        raise NpusimError(
            f"PyTorch {torch.__version__} sees no GPU: check the driver (nvidia-smi, rocm-smi) "
            "and that PyTorch is a CUDA or ROCm build"
        )
    torch.manual_seed(0)
    return torch


def device_row(torch: Any) -> Row:
    """Return what the driver says of the GPU: units, L2 [B], memory [B] and the PyTorch used."""
    device = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "axis": "device",
        "name": device.name,
        "sms": device.multi_processor_count,
        "l2": getattr(device, "L2_cache_size", None),
        "mem": device.total_memory,
        "torch": torch.__version__,
    }


def root_cause(error: BaseException) -> str:
    """Return kind and first line of the error that others followed from.

    Examples
    --------
    >>> try:
    ...     try:
    ...         raise ValueError("not while capturing")
    ...     finally:
    ...         raise RuntimeError("an earlier error")
    ... except RuntimeError as last:
    ...     print(root_cause(last))
    ValueError: not while capturing
    """
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error, or its kind where it says nothing.

    Examples
    --------
    >>> first_line(ValueError("too large\nat ..."))
    'too large'
    >>> first_line(MemoryError())
    'MemoryError'
    """
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
