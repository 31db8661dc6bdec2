"""What tables and lines at a terminal are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from npusim import units

_WIDE = 500  # columns: wide enough that rich never cuts a cell


def plain() -> Console:
    """Return a console that wraps sentences at a terminal and nothing elsewhere."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)


def show(table: Table) -> None:
    """Print a table as wide as it is: a line that wraps is better than a number that is cut."""
    Console(highlight=False, width=_WIDE, soft_wrap=True).print(table)


def blank(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    """Return an empty table."""
    table = Table(
        title=Text(title),
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
        title_style="bold",
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    return table


def seconds(value: float) -> str:
    """Return a time with a unit that suits it."""
    return units.show(value, "s")


def add(table: Table, *cells: str) -> None:
    """Add a row of plain text: names from files may look like markup."""
    table.add_row(*(Text(cell) for cell in cells))


@contextmanager
def progress(
    what: str, quiet: bool, is_bytes: bool = False, rate: bool = False
) -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar on stderr, if that is a terminal.

    What it yields is called with what is done and how much there is in all, 0 if not known. With
    `rate` it also says how much is done a second.
    """
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    amount = DownloadColumn() if is_bytes else MofNCompleteColumn()
    columns: list[ProgressColumn] = [TextColumn(what), BarColumn(), amount, TimeRemainingColumn()]
    if rate:
        columns.insert(3, _Rate())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


class _Rate(ProgressColumn):
    """What is done a second."""

    def render(self, task: Task) -> Text:
        """Return the rate as text, empty before there is one."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")


def many(count: int, what: str) -> str:
    """Return a count with its noun.

    Examples
    --------
    >>> many(1, "wait"), many(3, "wait")
    ('1 wait', '3 waits')
    """
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
