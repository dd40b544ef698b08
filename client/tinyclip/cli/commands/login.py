"""`tinyclip-client login`."""

import sys
from typing import Annotated

import typer

from tinyclip._client import Client
from tinyclip._http.retries import Retries
from tinyclip._profiles import DEFAULT_URL, Profile, store
from tinyclip._resources import tokens as calls
from tinyclip.cli.display.console import console, print_json
from tinyclip.cli.session import AsJson, Server
from tinyclip.errors import InputError


def login(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="The server.")] = DEFAULT_URL,
    name: Annotated[str, typer.Option("--name", help="The profile to write.")] = "default",
    as_json: AsJson = False,
) -> None:
    """Store a server and a token in a profile of ~/.config/tinyclip/config.toml, which only you can read.

    The token is prompted for, or read from standard input if that is not a terminal. The server must accept it.
    """
    server: Server = context.obj
    token = server.token or _read_token()

    with Client(url, token or None, retries=Retries(attempts=2)) as client:
        me, response = client.send_with_response(calls.me())
    file = store(Profile(url, token or None), name)
    if as_json:
        print_json(response.text)
        return
    scopes = ", ".join(scope.value for scope in me.scopes)
    console().print(f"{url}: project {me.project}, {scopes}; stored as profile {name} in {file}", markup=False)


def _read_token() -> str:
    """Read a token; it is empty for a server without tokens. Raises `InputError` if there are several."""
    if sys.stdin.isatty():
        text: str = typer.prompt("Token", default="", hide_input=True, show_default=False, err=True)
    else:
        text = sys.stdin.read()
    if len(text.split()) > 1:
        raise InputError("the token", "give one token and nothing else on standard input")
    return text.strip()
