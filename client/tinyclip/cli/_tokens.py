"""`tinyclip-client tokens …`."""

from typing import Annotated

import typer

from tinyclip._resources import tokens as calls
from tinyclip.cli._session import AsJson, PageSize, PageToken, console, messages, more, print_table, run, table
from tinyclip.schemas import NewToken, Page, Scope, Token

app = typer.Typer(help="Make, list and revoke tokens of your project.", no_args_is_help=True)


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for, or who gets it.")],
    scope: Annotated[list[Scope], typer.Option(help="May be repeated; none that your own token does not have.")],
    days: Annotated[int, typer.Option(min=0, help="How long it is valid; 0 for ever.")] = 90,
    as_json: AsJson = False,
) -> None:
    """Make a token. It is printed once, on standard output, and kept nowhere."""
    run(context, calls.create(name, [each.value for each in scope], expires_in_days=days or None), _show_new, as_json)


@app.command("list")
def list_(context: typer.Context, page_size: PageSize = 50, page_token: PageToken = None, as_json: AsJson = False) -> None:
    """List tokens, newest first."""
    run(context, calls.page(page_size=page_size, page_token=page_token), _show_page, as_json)


@app.command()
def revoke(
    context: typer.Context, token: Annotated[str, typer.Argument(metavar="ID", help="As tok_…")], as_json: AsJson = False
) -> None:
    """End a token for good."""
    run(context, calls.revoke(token), _show, as_json)


def _show_new(made: NewToken) -> None:
    messages().print(f"{made.id}, {_until(made)}; it is shown only now:", markup=False)
    console().print(made.token, markup=False)


def _show(token: Token) -> None:
    console().print(f"{token.id} ({token.name}) is {token.state}", markup=False)


def _show_page(page: Page[Token]) -> None:
    out = console()
    made = table(out, "id", "name", "begins", "scopes", "state", "valid")
    for token in page.items:
        made.add_row(token.id, token.name, token.hint, ", ".join(token.scopes), token.state, _until(token))
    print_table(out, made)
    more(out, page.next_page_token)


def _until(token: Token) -> str:
    return f"until {token.expires_at.astimezone():%Y-%m-%d}" if token.expires_at else "for ever"
