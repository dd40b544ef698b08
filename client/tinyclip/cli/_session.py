"""What every command has: the server it talks to, and how it prints an answer."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from tinyclip._client import Client
from tinyclip._http.calls import Call
from tinyclip._http.retries import Retries
from tinyclip._profiles import current

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print the API's object and nothing else.")]
PageSize = Annotated[int, typer.Option("--page-size", min=1, help="How many to show.")]
PageToken = Annotated[str | None, typer.Option("--page-token", help="Go on where a list ended.")]

_PLAIN_WIDTH = 10_000
"""Where no terminal is, nothing is wrapped: a line is a line."""


@dataclass(frozen=True)
class Server:
    """What the root options say about the server."""

    url: str | None
    token: str | None
    profile: str | None


@contextlib.contextmanager
def connect(context: typer.Context) -> Iterator[Client]:
    """A client for the server that options, environment or profile name."""
    server: Server = context.obj
    profile = current(url=server.url, token=server.token, name=server.profile)
    with Client(profile.url, profile.token, retries=Retries(attempts=4)) as client:
        yield client


def run(context: typer.Context, call: Call[T], show: Callable[[T], None], as_json: bool) -> None:
    """Makes one call and prints its answer, for people or as it came."""
    with connect(context) as client:
        answer(client, call, show, as_json)


def answer(client: Client, call: Call[T], show: Callable[[T], None], as_json: bool) -> None:
    """Prints the answer to one call, for people or as it came."""
    value, response = client.send_with_response(call)
    if not as_json:
        show(value)
    elif response.text:
        print_json(response.text)


def print_json(text: str) -> None:
    sys.stdout.write(text.rstrip("\n") + "\n")


def console() -> Console:
    """Where answers go; made when it is needed, since it remembers what stdout was."""
    terminal = Console(highlight=False)
    return terminal if terminal.is_terminal else Console(width=_PLAIN_WIDTH, soft_wrap=True, highlight=False)


def messages() -> Console:
    """Where errors and asides go."""
    terminal = Console(stderr=True, highlight=False)
    return terminal if terminal.is_terminal else Console(stderr=True, width=_PLAIN_WIDTH, soft_wrap=True, highlight=False)


def table(out: Console, *columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table: ruled on a terminal, Markdown elsewhere."""
    made = Table(box=box.SIMPLE_HEAD if out.is_terminal else box.MARKDOWN)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def print_table(out: Console, made: Table) -> None:
    """Prints a table; where no terminal is, without the blank lines around it."""
    if out.is_terminal:
        out.print(made)
        return
    with out.capture() as captured:
        out.print(made)
    out.print("\n".join(line for line in captured.get().splitlines() if line.strip()), markup=False)


def json_object(option: str, text: str) -> dict[str, Any]:
    """An option's value that is a JSON object. Raises `typer.BadParameter`."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {text} is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise typer.BadParameter(f"{option}: {text} is not a JSON object")
    return document


def more(out: Console, next_page_token: str | None) -> None:
    """Says how to see the rest of a list."""
    if next_page_token is not None:
        out.print(f"more: --page-token {next_page_token}", style="dim", markup=False)
