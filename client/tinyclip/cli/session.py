"""The server that a command talks to, and the options that commands share."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

from tinyclip._client import Client
from tinyclip._http.calls import Call
from tinyclip._http.retries import Retries
from tinyclip._profiles import current
from tinyclip.cli.display.console import print_json

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print the API's object and nothing else.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return without waiting for the result.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait at most.")]
PageSize = Annotated[int, typer.Option("--page-size", min=1, help="How many to show.")]
PageToken = Annotated[str | None, typer.Option("--page-token", help="Continue where a list ended.")]


@dataclass(frozen=True)
class Server:
    """The root options that choose the server."""

    url: str | None
    token: str | None
    profile: str | None


@contextlib.contextmanager
def connect(context: typer.Context) -> Iterator[Client]:
    """Open a client for the server that options, environment or profile name."""
    server: Server = context.obj
    profile = current(url=server.url, token=server.token, name=server.profile)
    with Client(profile.url, profile.token, retries=Retries(attempts=4)) as client:
        yield client


def run(context: typer.Context, call: Call[T], show: Callable[[T], None], as_json: bool) -> None:
    """Connect, send one call and print its response."""
    with connect(context) as client:
        send(client, call, show, as_json)


def send(client: Client, call: Call[T], show: Callable[[T], None], as_json: bool) -> T:
    """Send a call, print its response, with `show` or as JSON as it came, and return it."""
    value, response = client.send_with_response(call)
    if not as_json:
        show(value)
    elif response.text:
        print_json(response.text)
    return value


def json_object(option: str, text: str) -> dict[str, Any]:
    """Parse an option's value that is a JSON object. Raises `typer.BadParameter`."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {text} is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise typer.BadParameter(f"{option}: {text} is not a JSON object")
    return document
