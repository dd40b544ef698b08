"""Standard output and standard error, for a terminal and for scripts."""

import sys

from rich import box
from rich.console import Console
from rich.table import Table

_PLAIN_WIDTH = 10_000
"""Without a terminal no line is wrapped."""


def console() -> Console:
    """Return a console for results. It is not a constant, since a console keeps the stdout of its creation."""
    return _console(stderr=False)


def messages() -> Console:
    """Return a console for errors and notes."""
    return _console(stderr=True)


def _console(stderr: bool) -> Console:
    terminal = Console(stderr=stderr, highlight=False)
    return terminal if terminal.is_terminal else Console(stderr=stderr, width=_PLAIN_WIDTH, soft_wrap=True, highlight=False)


def print_json(text: str) -> None:
    """Print a JSON document as it is, with one newline at its end."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def new_table(out: Console, *columns: str, right: tuple[str, ...] = ()) -> Table:
    """Return an empty table: ruled on a terminal, Markdown elsewhere."""
    table = Table(box=box.SIMPLE_HEAD if out.is_terminal else box.MARKDOWN)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


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
