"""Trace formats: one file each, found by looking.

An importer is a module here with ``FORMAT`` (what people call it), ``sniff(path) -> bool`` (cheap,
never raises) and ``read(path, name) -> Workload``. One that takes whatever is left of a kind of
file (any Chrome trace, say) sets ``GENERIC = True`` and is asked last. What else `read` can be told
(``time_unit``, ``workers``, ``tick``) it has as further parameters.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from npusim.errors import InputError
from npusim.importers import files

if TYPE_CHECKING:
    from npusim.workload import Workload

_PYTORCH = re.compile(rb'\s*\{\s*"schemaVersion"\s*:')


class Importer(Protocol):
    """What a module must offer to be an importer."""

    FORMAT: str

    def sniff(self, path: Path) -> bool:
        """Return whether the file looks like this format."""

    def read(self, path: Path, name: str, **more: Any) -> Workload:
        """Read the file into a workload."""


def importers() -> Iterator[Importer]:
    """Yield every importer in this folder, those for one format alone before generic ones."""
    found = [import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)]
    for module in sorted(found, key=lambda m: getattr(m, "GENERIC", False)):
        if hasattr(module, "sniff"):
            yield cast(Importer, module)


def importer_of(path: Path) -> Importer | None:
    """Return the importer that reads a file, None if there is none.

    No other format begins as PyTorch's traces do. They may be large, and the other importers take
    longer to load than ten megabytes of them to read: so nobody else is asked.
    """
    if _PYTORCH.match(files.head(path, 256)):
        return cast(Importer, import_module(f"{__name__}.kineto"))
    return next((i for i in importers() if i.sniff(path)), None)


def import_trace(
    path: str | Path,
    name: str | None = None,
    time_unit: str | None = None,
    workers: int = 1,
    tick: Callable[[int, int], None] | None = None,
) -> Workload:
    """Read a trace in any supported format.

    Parameters
    ----------
    path : str or Path
        The trace.
    name : str, optional
        What to call the workload; by default the name of the file.
    time_unit : str, optional
        ``ns`` or ``us``, for formats that do not say (mcTracer); by default decided from the data.
    workers : int
        Processes that may decode a large trace. With more than one, a script must guard its entry
        point (``if __name__ == "__main__"``), as for any use of `multiprocessing`.
    tick : function, optional
        Called with bytes read and bytes in all (0 if not known) as a large trace is read.

    Returns
    -------
    Workload

    Raises
    ------
    InputError
        No such file, a format that is not supported, or a file that is damaged.
    """
    file = Path(path)
    try:
        if not file.is_file():
            raise InputError("no such file" if not file.exists() else "not a file", file=file)
        if file.stat().st_size == 0:
            raise InputError("file is empty", file=file)
        if (archive := files.archive(file)) is not None:
            raise InputError(f"a {archive} archive, not a trace", file=file,
                             hint="unpack it and import the files in it")  # fmt: skip
        chosen = importer_of(file)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or 'not a path'}",
                         file=str(file)[:200]) from None  # fmt: skip
    if chosen is None:
        raise InputError("not a supported trace", file=file,
                         allowed=", ".join(i.FORMAT for i in importers()))  # fmt: skip
    takes = inspect.signature(chosen.read).parameters
    if time_unit is not None and "time_unit" not in takes:
        raise InputError("the unit of time is fixed in this format", file=file, value=time_unit,
                         allowed=f"no time unit for {chosen.FORMAT}")  # fmt: skip
    asked = {"time_unit": time_unit, "workers": workers, "tick": tick}
    more = {option: value for option, value in asked.items() if option in takes}
    return chosen.read(file, name or _stem(file), **more)


def _stem(file: Path) -> str:
    """Return the name of a file without the endings that traces carry.

    Examples
    --------
    >>> _stem(Path("Qwen1.5-0.5B.pt.trace.json.gz"))
    'Qwen1.5-0.5B'
    >>> _stem(Path("decode.sqlite")), _stem(Path("kernel_details.csv.gz"))
    ('decode', 'kernel_details')
    """
    stem = file.name
    for ending in (".gz", ".ncu-rep", ".et", ".json", ".csv", ".sqlite", ".trace", ".pt"):
        stem = stem.removesuffix(ending)
    return stem or file.name
