"""Standard output and standard error, for a terminal and for scripts."""

import sys
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinyclip.cli.display.texts import one_line, printable, shortened

_PLAIN_WIDTH = 10_000
"""Without a terminal no line is wrapped."""
LONGEST_CELL = 400
"""Columns of a cell on a terminal, which wraps it; --json prints all."""
WHOLE = ("id", "state", "done", "stage", "kind", "created", "written")
"""Columns whose cells are short, or are copied: they are not wrapped."""
ROOMY = 120
"""Width of a terminal from which columns are set further apart, and times have their year."""


def console() -> Console:
    """Return a console for results. It is not a constant, since a console keeps the stdout of its creation."""
    return _console(stderr=False)


def messages() -> Console:
    """Return a console for errors and notes."""
    return _console(stderr=True)


def _console(stderr: bool) -> Console:
    plain: dict[str, Any] = {"stderr": stderr, "highlight": False, "markup": False, "emoji": False}
    terminal = _PrintableConsole(**plain)
    return terminal if terminal.is_terminal else _PrintableConsole(**plain, width=_PLAIN_WIDTH, soft_wrap=True)


class _PrintableConsole(Console):
    """A console that shows control characters instead of sending them: names and messages come from others."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


def print_json(text: str) -> None:
    """Print a JSON document as it is, with one newline at its end."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def new_table(out: Console, *columns: str, right: tuple[str, ...] = ()) -> Table:
    """Return an empty table: ruled on a terminal, whose width it fits, and Markdown elsewhere."""
    table = _Table(box=box.SIMPLE_HEAD if out.is_terminal else box.MARKDOWN)
    if out.is_terminal and out.width < ROOMY:
        table.padding = (0, 1, 0, 0)
    table.longest_cell = LONGEST_CELL if out.is_terminal else None
    for column in columns:
        whole = column in WHOLE
        table.add_column(
            Text(one_line(column)), justify="right" if column in right else "left", overflow="ellipsis" if whole else "fold",
            no_wrap=whole,
        )  # fmt: skip
    return table


def short_time(out: Console, time: datetime) -> str:
    """Return a time of this machine's zone to the minute; on a narrow terminal without the year."""
    return time.astimezone().strftime("%m-%d %H:%M" if out.is_terminal and out.width < ROOMY else "%Y-%m-%d %H:%M")


class _Table(Table):
    """A table of texts, each on one line until it is wrapped."""

    longest_cell: int | None = None

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*map(self._cell, cells), **options)

    def _cell(self, cell: Any) -> Any:
        if not isinstance(cell, str):
            return cell
        line = one_line(cell)
        return Text(line if self.longest_cell is None else shortened(line, self.longest_cell))


def print_table(out: Console, table: Table) -> None:
    """Print a table; without a terminal, without the blank lines around it."""
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:
        out.print(table)
    out.print("\n".join(line for line in captured.get().splitlines() if line.strip()), markup=False)


def print_next_page(out: Console, next_page_token: str | None) -> None:
    """Print how to see the rest of a list, if there is one."""
    if next_page_token is not None:
        out.print(f"more: --page-token {next_page_token}", style="dim", markup=False)
