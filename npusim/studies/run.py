"""Run studies: read, decide, draw, write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npusim import store
from npusim.atomic import check_folder, whole_folder
from npusim.errors import InputError
from npusim.studies import gallery, page
from npusim.studies.bench import Bench
from npusim.studies.claim import Question
from npusim.studies.content import content
from npusim.studies.decide import Answer, decide
from npusim.studies.draws import DRAWS
from npusim.studies.figures.drawing import pictures
from npusim.studies.record import of_answer, table

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Done:
    """Studies that have been run.

    Attributes
    ----------
    answers : tuple of Answer
    folder : Path or None
        Where page, gallery and data are.
    files : tuple of Path
    command : str
    """

    answers: tuple[Answer, ...]
    folder: Path | None
    files: tuple[Path, ...]
    command: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, SI units."""
        return {
            "studies": [of_answer(answer) for answer in self.answers],
            "model": store.model_version(),
            "command": self.command,
            "files": [str(file) for file in self.files],
        }


def run(
    questions: Sequence[Question],
    settings: Mapping[str, float] | None = None,
    folder: Path | None = None,
    *,
    draws: int | None = None,
    workers: int | None = 1,
    progress: Progress | None = None,
    figures: bool = True,
    command: str = "",
) -> Done:
    """Come to verdicts, and write page, gallery, figures and data into a folder, all or none.

    Parameters
    ----------
    questions : sequence of Question
    settings : mapping of str to float, optional
        What is set first, see `npusim.studies.decide.decide`.
    folder : Path, optional
        Nothing is written without one.
    draws : int, optional
        How often what is not known is drawn, 32 by default.
    workers : int, optional
        Processes; None for one a core. More than one needs a main program that is guarded
        (``if __name__ == "__main__":``).
    progress : callable, optional
        Called with (work done, work in all).
    figures : bool
        Whether to draw.
    command : str
        What was run, for the page.

    Raises
    ------
    InputError, InputErrors
        A claim that cannot be tested, two studies of one name, or a folder that cannot be written.
    """
    names = [q.name for q in questions]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError("two studies of one name", value=twice)
    if folder is not None:
        check_folder(folder)
    with Bench(workers, progress) as bench:
        answers = tuple(decide(questions, bench, settings, draws or DRAWS))
        if folder is None:
            return Done(answers, None, (), command)
        drawn = pictures(answers, bench) if figures else []
    figures_of = [f"{gallery.FOLDER}/{name}" for name in gallery.names(drawn)]
    wanted = [f"{one}.{ending}" for one in figures_of for ending in ("svg", "csv")]
    wanted += [gallery.PAGE, *(f"{name}.json" for name in names), "verdicts.csv", "index.html"]
    with whole_folder(folder, wanted) as made:
        shown = gallery.save(drawn, made, {q.name: q.title for q in questions}, bench.workers)
        written = [file.relative_to(made) for file in _written(answers, shown, made, command)]
    return Done(answers, folder, tuple(folder / file for file in written), command)


def _written(
    answers: Sequence[Answer], shown: Sequence[gallery.Shown], folder: Path, command: str
) -> Iterator[Path]:
    """Write the page and the data of some studies, yield every file."""
    figures: dict[str, list[dict[str, str]]] = {}
    files: dict[str, list[str]] = {}
    for one in shown:
        name = one.picture.study
        figure = {"title": one.picture.title, "svg": one.svg, "file": one.file}
        figures.setdefault(name, []).append(figure)
        files.setdefault(name, []).append(one.data)
        yield from (folder / one.file, folder / one.data)
    if shown:
        yield folder / gallery.PAGE
    for answer in answers:
        name = answer.question.name
        store.save_json(folder / f"{name}.json", of_answer(answer))
        files.setdefault(name, []).insert(0, f"{name}.json")
        yield folder / f"{name}.json"
    store.save_csv(folder / "verdicts.csv", table(answers))
    yield folder / "verdicts.csv"
    page.write(content(answers, figures, files, command), folder / "index.html")
    yield folder / "index.html"
