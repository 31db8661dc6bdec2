"""Where the machines, workloads and studies that ship with npusim are, by name.

In a checkout they are the folders beside the package; an installed wheel carries copies.
"""

from __future__ import annotations

from pathlib import Path

from npusim.errors import InputError

_HERE = Path(__file__).resolve().parent
_SUFFIX = {
    "archs": ".yaml", "workloads": ".parquet", "studies": ".yaml", "models": ".yaml",
    "lowerings": ".yaml", "serving": ".yaml",
}  # fmt: skip
_ONE = {
    "archs": "arch", "workloads": "workload", "studies": "study", "models": "model",
    "lowerings": "lowering", "serving": "serving study",
}  # fmt: skip
# What a name of another collection is, and which command takes it.
_IS = {
    "archs": "a machine, see `npusim archs {}`", "workloads": "a workload, see `npusim workloads "
    "{}`", "studies": "a study, for `npusim sweep` or `npusim study`",
    "models": "a model, of which `npusim template {}` makes a workload",
    "serving": "a serving study, for `npusim serve-sim`",
}  # fmt: skip
_BELOW = {"models": "workloads", "lowerings": "workloads", "serving": "studies"}


def folder(collection: str) -> Path:
    """Return the folder of a collection.

    ``archs``, ``workloads`` or ``studies``; ``models`` and ``lowerings`` lie among the workloads,
    ``serving`` among the studies.
    """
    if collection in _BELOW:
        return folder(_BELOW[collection]) / collection
    installed = _HERE / "shipped" / collection
    return installed if installed.is_dir() else _HERE.parent / collection


def names(collection: str) -> list[str]:
    """Return the names that ship in a collection, sorted.

    Examples
    --------
    >>> "h200" in names("archs")
    True
    """
    return sorted(p.stem for p in folder(collection).glob("*" + _SUFFIX[collection]))


def find(collection: str, name: str | Path) -> Path:
    """Return the file of a path or of a name that ships.

    Raises
    ------
    InputError
        Neither a file nor a name that ships.
    """
    text = str(name)
    path = Path(text)
    try:
        if path.is_file():
            return path
    except (OSError, ValueError):
        raise InputError("not a path", value=text) from None
    looks_like_path = len(path.parts) > 1 or path.suffix != ""
    shipped = folder(collection) / (text + _SUFFIX[collection])
    if not looks_like_path and shipped.is_file():
        return shipped
    if looks_like_path:
        raise InputError("not a file" if path.exists() else "no such file", file=text[:200])
    raise InputError(
        f"no such {_ONE[collection]}",
        value=text,
        allowed="a path, or one of " + ", ".join(names(collection)),
        hint=_elsewhere(text),
    )


def _elsewhere(name: str) -> str | None:
    """Say that a name is one of another collection, and which command takes it."""
    known = (what.format(name) for other, what in _IS.items() if name in names(other))
    return next((f"that is {what}" for what in known), None)
