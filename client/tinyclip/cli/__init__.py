"""`tinyclip-client`: the API at a shell."""

import sys
from typing import Annotated

import typer

from tinyclip.cli import _deployments, _indexes, _jobs, _label_sets, _login, _models, _queries, _tokens
from tinyclip.cli._problems import exit_code, lines_of
from tinyclip.cli._session import Server, messages
from tinyclip.errors import TinyClipError

app = typer.Typer(
    name="tinyclip-client", help="Distil CLIP models, look at them, serve them, ask them.",
    no_args_is_help=True, pretty_exceptions_enable=False,
)
app.add_typer(_jobs.app, name="jobs")
app.add_typer(_models.app, name="models")
app.add_typer(_deployments.app, name="deployments")
app.add_typer(_indexes.app, name="indexes")
app.add_typer(_label_sets.app, name="label-sets")
app.add_typer(_tokens.app, name="tokens")
app.command()(_login.login)
app.command()(_queries.classify)
app.command()(_queries.embed)
app.command()(_queries.search)


@app.callback()
def _root(
    context: typer.Context,
    url: Annotated[str | None, typer.Option(help="The server. Else TINYCLIP_URL, a profile, this machine.")] = None,
    token: Annotated[str | None, typer.Option(help="Your token; better in TINYCLIP_TOKEN or in a profile.")] = None,
    profile: Annotated[str | None, typer.Option(help="A profile of ~/.config/tinyclip/config.toml.")] = None,
) -> None:
    context.obj = Server(url, token, profile)


def main() -> None:
    """Runs the command line; ends the process with its exit code."""
    try:
        app()
    except TinyClipError as error:
        for line in lines_of(error):
            messages().print(line, markup=False)
        sys.exit(exit_code(error))
