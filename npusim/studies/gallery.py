"""The figures of studies as files: SVG with the data beside, and a page that shows them all.

The page asks no server and runs no script. Figures are files beside it, so that text in them can be
searched and taken out.

Left out: a dark scheme.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from npusim.atomic import whole_file, whole_folder
from npusim.studies.figures.picture import Picture
from npusim.studies.processes import processes

_FILES = Path(__file__).parent / "gallery_files"
FOLDER, PAGE = "figures", "gallery.html"


@dataclass(frozen=True)
class Shown:
    """A figure that was drawn.

    Attributes
    ----------
    picture : Picture
    name : str
        Of its files, without an ending.
    svg : str
    """

    picture: Picture
    name: str
    svg: str

    @property
    def file(self) -> str:
        """Its SVG, as seen from the folder of the gallery."""
        return f"{FOLDER}/{self.name}.svg"

    @property
    def data(self) -> str:
        """Its data, as seen from the folder of the gallery."""
        return f"{FOLDER}/{self.name}.csv"


def draw(pictures: Sequence[Picture], workers: int = 1) -> list[Shown]:
    """Draw pictures, each named by its study and kind.

    Parameters
    ----------
    pictures : sequence of Picture
    workers : int
        Processes. More than one needs a main program that is guarded.
    """
    named = zip(names(pictures), pictures, strict=True)
    if workers == 1 or len(pictures) < 2:
        return [Shown(picture, name, picture.svg()) for name, picture in named]
    with processes(workers) as pool:
        drawn = pool.map(Picture.svg, pictures, chunksize=4)
        return [
            Shown(picture, name, svg) for (name, picture), svg in zip(named, drawn, strict=True)
        ]


def names(pictures: Sequence[Picture]) -> list[str]:
    """Return what the files of pictures are called: study and kind, numbered from the second on.

    Examples
    --------
    >>> from types import SimpleNamespace as Figure
    >>> names([Figure(study="host", kind=kind) for kind in ("curve", "heat", "curve")])
    ['host_curve', 'host_heat', 'host_curve_2']
    """
    count: dict[str, int] = {}
    found = []
    for picture in pictures:
        name = f"{picture.study}_{picture.kind}"
        count[name] = count.get(name, 0) + 1
        found.append(name if count[name] == 1 else f"{name}_{count[name]}")
    return found


def save(
    pictures: Sequence[Picture], folder: Path, titles: Mapping[str, str] | None = None,
    workers: int = 1,
) -> list[Shown]:  # fmt: skip
    """Write figures and their data below a folder, and a page that shows them.

    Parameters
    ----------
    pictures : sequence of Picture
    folder : Path
        Gets ``gallery.html`` and ``figures/``. What is there under other names stays.
    titles : mapping of str to str, optional
        Title of each study; its name where there is none.
    workers : int
        Processes that draw.

    Returns
    -------
    list of Shown
        As drawn, for other pages.

    Raises
    ------
    InputError
        The folder cannot be written. Nothing is written then, or whole files.
    """
    shown = draw(pictures, workers)
    files = {f"{one.name}.svg": one.svg for one in shown}
    files |= {f"{one.name}.csv": one.picture.csv() for one in shown}
    with whole_folder(folder / FOLDER, list(files)) as made:
        for name, text in files.items():
            (made / name).write_text(text, encoding="utf-8")
    with whole_file(folder / PAGE) as temporary:
        temporary.write_text(page(shown, titles or {}), encoding="utf-8")
    return shown


def page(shown: Sequence[Shown], titles: Mapping[str, str]) -> str:
    """Return the page as text."""
    studies: dict[str, list[Shown]] = {}
    for one in shown:
        studies.setdefault(one.picture.study, []).append(one)
    environment = Environment(
        loader=FileSystemLoader(_FILES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style = (_FILES / "gallery.css").read_text(encoding="utf-8")
    return environment.get_template("gallery.html").render(
        studies=studies, titles=titles, style=style, count=len(shown)
    )
