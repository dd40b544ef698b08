"""`tinyclip-client searches …`."""

from pathlib import Path
from typing import Annotated

import typer

from tinyclip._client import Client
from tinyclip._resources import searches as calls
from tinyclip.cli.display import searches as display
from tinyclip.cli.display.console import console, messages
from tinyclip.cli.display.front import front_chart, picture
from tinyclip.cli.problems import CANCELLED, FAILED
from tinyclip.cli.session import AsJson, PageSize, PageToken, connect, run, send
from tinyclip.cli.watch_search import watch_search
from tinyclip.errors import InputError
from tinyclip.schemas import JobState, Search
from tinyclip.specfile import load_search

app = typer.Typer(help="Search the smallest student that meets constraints, and vary settings.", no_args_is_help=True)

SearchId = Annotated[str, typer.Argument(metavar="SEARCH", help="The search's id, as sea_….")]
Patience = Annotated[float, typer.Option("--patience", help="Seconds that the server may be away.")]

_PATIENCE = 300.0


@app.command()
def create(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML or JSON: spec, constraints, vary, budget.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan without beginning.")] = False,
    watched: Annotated[bool, typer.Option("--watch", help="Follow the search until it ends.")] = False,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key and file return the same search.")] = None,
    patience: Patience = _PATIENCE,
    as_json: AsJson = False,
) -> None:
    """Begin a search. `spec` in the file is a job's spec, or the path of one."""
    search = load_search(file)
    with connect(context) as client:
        if dry_run:
            send(client, calls.plan(search), lambda plan: display.show_plan(plan, search), as_json)
            return
        call = calls.create(search, idempotency_key=idempotency_key)
        if not watched:
            send(client, call, display.show_search, as_json)
            return
        _watch(client, client.send(call).id, patience, as_json)


@app.command("list")
def list_(
    context: typer.Context,
    state: Annotated[list[str] | None, typer.Option(help="Only searches in this state; repeated: in any of these.")] = None,
    page_size: PageSize = 50,
    page_token: PageToken = None,
    as_json: AsJson = False,
) -> None:
    """List searches, newest first."""
    run(context, calls.page(state=state, page_size=page_size, page_token=page_token), display.show_searches, as_json)


@app.command()
def get(
    context: typer.Context,
    search: SearchId,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Also save the chart of quality over cost as a picture.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a search with its trials and its result."""
    if plot is not None and plot.suffix != ".svg":
        raise InputError(f"--plot {plot}", "name a file that ends in .svg")
    with connect(context) as client:
        shown = send(client, calls.get(search), display.show_search, as_json)
    if plot is not None:
        _save_chart(shown, plot)


@app.command()
def watch(context: typer.Context, search: SearchId, patience: Patience = _PATIENCE, as_json: AsJson = False) -> None:
    """Follow a search until it ends. Exits with 0 succeeded, 1 failed, 2 usage error, 3 cancelled, 4 server unreachable."""
    with connect(context) as client:
        _watch(client, search, patience, as_json)


@app.command()
def cancel(context: typer.Context, search: SearchId, as_json: AsJson = False) -> None:
    """Cancel a search and its jobs."""
    run(context, calls.cancel(search), display.show_search, as_json)


@app.command()
def pause(context: typer.Context, search: SearchId, as_json: AsJson = False) -> None:
    """Pause a search, and its jobs at a checkpoint."""
    run(context, calls.pause(search), display.show_search, as_json)


@app.command()
def resume(context: typer.Context, search: SearchId, as_json: AsJson = False) -> None:
    """Go on with a paused search and its jobs."""
    run(context, calls.resume(search), display.show_search, as_json)


@app.command()
def delete(context: typer.Context, search: SearchId) -> None:
    """Delete a search that has ended. Its jobs and their model versions stay."""
    with connect(context) as client:
        client.searches.delete(search)
    messages().print(f"deleted {search}", markup=False)


def _save_chart(search: Search, target: Path) -> None:
    chart = front_chart(search, plain=False)
    if chart is None:
        raise InputError(f"--plot {target}", f"{search.id} has no two finished trials of different costs yet")
    target.write_text(picture(chart, f"{search.id} {search.name}"), encoding="utf-8")
    messages().print(f"saved {target}", markup=False)


def _watch(client: Client, search: str, patience: float, as_json: bool) -> None:
    """Show a search's progress until it ends, then the search, and exit with its code."""
    try:
        watch_search(client, search, messages() if as_json else console(), patience)
    except KeyboardInterrupt:
        command = "tinyclip-client searches"
        messages().print(
            f"{search} is still running; `{command} watch {search}` follows it again, `{command} cancel {search}` ends it",
            markup=False,
        )
        raise typer.Exit(130) from None
    ended = send(client, calls.get(search), display.show_search, as_json)
    codes = {JobState.SUCCEEDED: 0, JobState.CANCELLED: CANCELLED}
    raise typer.Exit(codes.get(ended.state, FAILED))
