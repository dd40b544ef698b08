"""`tinyclip-client tokens …`."""

from typing import Annotated

import typer

from tinyclip._resources import tokens as calls
from tinyclip.cli.display.console import console, messages, new_table, print_next_page, print_table
from tinyclip.cli.session import AsJson, PageSize, PageToken, run
from tinyclip.schemas import NewToken, Page, Scope, Token

app = typer.Typer(help="Create, list and revoke tokens of your project.", no_args_is_help=True)


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its purpose or owner.")],
    scope: Annotated[list[Scope], typer.Option(help="A scope that your own token has; may be repeated.")],
    days: Annotated[int, typer.Option(min=0, help="Days until it expires; 0: never.")] = 90,
    as_json: AsJson = False,
) -> None:
    """Create a token and print it. It is not stored and cannot be shown again."""
    run(context, calls.create(name, [each.value for each in scope], expires_in_days=days or None), _show_new, as_json)


@app.command("list")
def list_(context: typer.Context, page_size: PageSize = 50, page_token: PageToken = None, as_json: AsJson = False) -> None:
    """List tokens, newest first."""
    run(context, calls.page(page_size=page_size, page_token=page_token), _show_page, as_json)


@app.command()
def revoke(
    context: typer.Context, token: Annotated[str, typer.Argument(metavar="ID", help="For example tok_…")], as_json: AsJson = False
) -> None:
    """Revoke a token."""
    run(context, calls.revoke(token), _show, as_json)


def _show_new(token: NewToken) -> None:
    messages().print(f"{token.id}, {_validity(token)}; it is shown only now:", markup=False)
    console().print(token.token, markup=False)


def _show(token: Token) -> None:
    console().print(f"{token.id} ({token.name}) is {token.state}", markup=False)


def _show_page(page: Page[Token]) -> None:
    out = console()
    table = new_table(out, "id", "name", "begins", "scopes", "state", "valid")
    for token in page.items:
        table.add_row(token.id, token.name, token.hint, ", ".join(token.scopes), token.state, _validity(token))
    print_table(out, table)
    print_next_page(out, page.next_page_token)


def _validity(token: Token) -> str:
    return f"until {token.expires_at.astimezone():%Y-%m-%d}" if token.expires_at else "for ever"
