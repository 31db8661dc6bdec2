"""Trace formats: one file each, found by looking.

An importer is a module here with ``FORMAT`` (what people call it), ``sniff(path) -> bool`` (cheap,
never raises) and ``read(path, name) -> Workload``. One that takes whatever is left of a kind of
file (any Chrome trace, say) sets ``GENERIC = True`` and is asked last. What else `read` can be told
(``time_unit``, ``workers``, ``tick``) it has as further parameters. Endings of files that it alone
has (``.ncu-rep``) are its ``ENDINGS``. A file that two importers of a kind take is refused: nobody
could say which of them is right.
"""

from __future__ import annotations

import inspect
import json
import pkgutil
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from npusim.errors import InputError
from npusim.importers import files

if TYPE_CHECKING:
    from npusim.workload import Workload

_ENDINGS = (".gz", ".json", ".csv", ".trace", ".pt")  # of traces of any format
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

    Raises
    ------
    InputError
        Two importers take it.
    """
    if _PYTORCH.match(files.head(path, 256)):
        return cast(Importer, import_module(f"{__name__}.kineto"))
    every = list(importers())
    for generic in (False, True):
        takers = [i for i in every if getattr(i, "GENERIC", False) == generic and i.sniff(path)]
        if len(takers) > 1:
            formats = "; ".join(i.FORMAT for i in takers)
            raise InputError(f"taken by more than one importer: {formats}", file=path,
                             hint="a mistake in one of them: please report it, with the first "
                             "lines of the file")  # fmt: skip
        if takers:
            return takers[0]
    return None


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
    found = chosen.read(file, name or _stem(file, getattr(chosen, "ENDINGS", ())), **more)
    _check_texts(file, found)
    return found


def _check_texts(file: Path, w: Workload) -> None:
    """Refuse half of a surrogate pair, which JSON can say and no file of text can hold."""
    told = json.dumps(dict(w.meta), ensure_ascii=False, default=str)
    for place, texts in (*w.labels.items(), ("meta", [told])):
        try:
            "".join(texts).encode()
        except UnicodeEncodeError as error:
            raise InputError("not text: half of a surrogate pair", file=file, place=place,
                             value=repr(error.object[error.start])) from None  # fmt: skip


def _stem(file: Path, own: Sequence[str] = ()) -> str:
    """Return the name of a file without the endings that traces carry, of all and of its format.

    Examples
    --------
    >>> _stem(Path("Qwen1.5-0.5B.pt.trace.json.gz"))
    'Qwen1.5-0.5B'
    >>> _stem(Path("decode.sqlite"), [".sqlite"]), _stem(Path("kernel_details.csv.gz"))
    ('decode', 'kernel_details')
    """
    packed, *others = _ENDINGS
    stem = file.name
    for ending in (packed, *own, *others):
        stem = stem.removesuffix(ending)
    return stem or file.name
