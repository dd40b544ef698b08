"""`tinyclip-client`: TinyCLIP's API on the command line."""

import sys
from typing import Annotated

import typer

from tinyclip.cli.commands import (
    cluster,
    datasets,
    deployments,
    indexes,
    jobs,
    label_sets,
    login,
    models,
    queries,
    searches,
    tokens,
)
from tinyclip.cli.display.console import messages
from tinyclip.cli.problems import exit_code, lines_of
from tinyclip.cli.session import Server
from tinyclip.errors import TinyClipError

app = typer.Typer(
    name="tinyclip-client", help="Distil, inspect, deploy and query CLIP models.",
    no_args_is_help=True, pretty_exceptions_enable=False,
)
app.add_typer(jobs.app, name="jobs")
app.add_typer(searches.app, name="searches")
app.add_typer(datasets.app, name="datasets")
app.add_typer(models.app, name="models")
app.add_typer(deployments.app, name="deployments")
app.add_typer(indexes.app, name="indexes")
app.add_typer(label_sets.app, name="label-sets")
app.add_typer(tokens.app, name="tokens")
app.command()(login.login)
app.command()(queries.classify)
app.command()(queries.embed)
app.command()(queries.search)
app.command()(cluster.cluster)


@app.callback()
def _root(
    context: typer.Context,
    url: Annotated[str | None, typer.Option(help="The server; by default TINYCLIP_URL, a profile, or this machine.")] = None,
    token: Annotated[str | None, typer.Option(help="Your token; better in TINYCLIP_TOKEN or in a profile.")] = None,
    profile: Annotated[str | None, typer.Option(help="A profile of ~/.config/tinyclip/config.toml.")] = None,
) -> None:
    context.obj = Server(url, token, profile)


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        app()
    except TinyClipError as error:
        for line in lines_of(error):
            messages().print(line, markup=False)
        sys.exit(exit_code(error))
