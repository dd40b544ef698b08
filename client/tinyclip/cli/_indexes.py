"""`tinyclip-client indexes …`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn

from tinyclip import _indexes
from tinyclip._client import Client
from tinyclip.cli._problems import FAILED
from tinyclip.cli._session import AsJson, PageSize, PageToken, answer, connect, console, messages, more, print_table, run, table
from tinyclip.cli._specfile import absolute
from tinyclip.schemas import Index, IndexState, Page

app = typer.Typer(help="Sets of pictures to be searched.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The index.")]


@app.command()
def create(
    context: typer.Context,
    name: Name,
    model: Annotated[str, typer.Option(help="The model that embeds the pictures, as emoji@best.")],
    shards: Annotated[list[str], typer.Option(help="WebDataset shards: paths or URIs, with braces or globs.")],
    metadata_key: Annotated[list[str] | None, typer.Option(help="What to keep of a sample; by default json.")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is built.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.")] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Build an index from shards."""
    sources = [absolute(shard, Path.cwd()) for shard in shards]
    put = _indexes.put(name, model, sources[0] if len(sources) == 1 else sources, metadata_keys=metadata_key or ["json"])
    with connect(context) as client:
        if no_wait:
            answer(client, put, _show, as_json)
            return
        client._transport.send(put)
        settled = _wait(client, name, timeout)
        answer(client, _indexes.get(name), _show, as_json)
        raise typer.Exit(0 if settled.state is IndexState.READY else FAILED)


@app.command("list")
def list_(context: typer.Context, page_size: PageSize = 50, page_token: PageToken = None, as_json: AsJson = False) -> None:
    """List indexes."""
    run(context, _indexes.page(page_size=page_size, page_token=page_token), _show_page, as_json)


@app.command()
def delete(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Remove an index and its files."""
    run(context, _indexes.delete(name), _show, as_json)


def _wait(client: Client, name: str, timeout: float) -> Index:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), TextColumn("{task.percentage:.0f}%"))
    out = messages()
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bars:
        bar = bars.add_task(f"building {name}", total=1.0)
        return client.indexes.wait(name, timeout=timeout, on_progress=lambda index: bars.update(bar, completed=index.progress))


def _show(index: Index) -> None:
    message = f": {index.message}" if index.message else ""
    console().print(f"{index.name} {index.model} {index.state}, {index.count} items{message}", markup=False)


def _show_page(page: Page[Index]) -> None:
    out = console()
    made = table(out, "name", "model", "state", "items", "done", "message", right=("items", "done"))
    for index in page.items:
        made.add_row(index.name, index.model, index.state, str(index.count), f"{100 * index.progress:.0f}%", index.message)
    print_table(out, made)
    more(out, page.next_page_token)
