"""`tinyclip-client login`."""

import sys
from typing import Annotated

import typer

from tinyclip._client import Client
from tinyclip._http.retries import Retries
from tinyclip._profiles import DEFAULT_URL, Profile, store
from tinyclip._resources import tokens as calls
from tinyclip.cli._session import AsJson, Server, console, print_json
from tinyclip.errors import InputError


def login(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="The server.")] = DEFAULT_URL,
    name: Annotated[str, typer.Option("--name", help="Of the profile to write.")] = "default",
    as_json: AsJson = False,
) -> None:
    """Keep a server and a token in a profile of ~/.config/tinyclip/config.toml, which only you can read.

    The token is asked for, or read from standard input where that is no terminal. The server is asked whether it is good first.
    """
    server: Server = context.obj
    token = server.token or _read_token()

    with Client(url, token or None, retries=Retries(attempts=2)) as client:
        me, response = client.send_with_response(calls.me())
    where = store(Profile(url, token or None), name)
    if as_json:
        print_json(response.text)
        return
    scopes = ", ".join(scope.value for scope in me.scopes)
    console().print(f"{url}: project {me.project}, {scopes}; kept as profile {name} in {where}", markup=False)


def _read_token() -> str:
    """Raises `InputError` for more than one word. Nothing at all is fine: some servers ask for none."""
    if sys.stdin.isatty():
        said: str = typer.prompt("Token", default="", hide_input=True, show_default=False, err=True)
    else:
        said = sys.stdin.read()
    if len(said.split()) > 1:
        raise InputError("the token", "give one token and nothing else on standard input")
    return said.strip()
