"""`tinyclip-client indexes …`."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn

from tinyclip._client import Client
from tinyclip._http.calls import Call
from tinyclip._resources import indexes as calls
from tinyclip._resources.images import encode
from tinyclip.cli._problems import FAILED
from tinyclip.cli._session import (
    AsJson,
    PageSize,
    PageToken,
    answer,
    connect,
    console,
    json_object,
    messages,
    more,
    print_table,
    run,
    table,
)
from tinyclip.schemas import Index, IndexItem, IndexState, Page
from tinyclip.schemas.indexes import MOST_ITEMS
from tinyclip.specfile import absolute

app = typer.Typer(help="Sets of pictures to be searched.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The index.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until searches see it.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait at most.")]

BODY_BYTES = 8 << 20
"""Of pictures in one request: half of what a server takes that was not told otherwise."""


class Kind(StrEnum):
    AUTO = "auto"
    EXACT = "exact"
    HNSW = "hnsw"


class StoredIn(StrEnum):
    FILES = "files"
    PGVECTOR = "pgvector"


@app.command()
def create(
    context: typer.Context,
    name: Name,
    model: Annotated[str, typer.Option(help="The model that embeds the pictures, as emoji@best.")],
    shards: Annotated[
        list[str] | None, typer.Option(help="WebDataset shards: paths or URIs, with braces or globs; none: an empty index.")
    ] = None,
    metadata_key: Annotated[list[str] | None, typer.Option(help="What to keep of a sample; by default json.")] = None,
    kind: Annotated[Kind, typer.Option(help="How it is searched; auto: by its size.")] = Kind.AUTO,
    store: Annotated[StoredIn, typer.Option(help="Where its vectors live; pgvector: in a PostgreSQL.")] = StoredIn.FILES,
    no_wait: NoWait = False,
    timeout: Timeout = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Build an index from shards, or an empty one to be filled with `add`."""
    sources = [absolute(shard, Path.cwd()) for shard in shards or []]
    listed = (sources[0] if len(sources) == 1 else sources) if sources else None
    keys = metadata_key or ["json"]
    put = calls.put(name, model, listed, metadata_keys=keys, kind=kind.value, store=store.value)
    with connect(context) as client:
        if no_wait:
            answer(client, put, _show, as_json)
            return
        client.send(put)
        settled = _wait(client, name, timeout)
        answer(client, calls.get(name), _show, as_json)
        raise typer.Exit(0 if settled.state is IndexState.READY else FAILED)


@app.command()
def add(
    context: typer.Context,
    name: Name,
    files: Annotated[list[str] | None, typer.Argument(metavar="FILE...", help="Pictures.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text to add instead of a picture; may be repeated.")] = None,
    id: Annotated[str | None, typer.Option(help="Of a single item; by default the file's path as given, or the text.")] = None,
    metadata: Annotated[str | None, typer.Option(metavar="JSON", help="What hits show of all of them.")] = None,
    no_wait: NoWait = False,
    timeout: Timeout = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Add pictures or texts; those whose ids are there already are replaced."""
    named = [(file, "image") for file in files or []] + [(one, "text") for one in text or []]
    if not named:
        raise typer.BadParameter("name at least one FILE or --text")
    if id is not None and len(named) > 1:
        raise typer.BadParameter("--id names one item; give one FILE or --text")
    about = {} if metadata is None else json_object("--metadata", metadata)
    _change(context, name, _batches(name, named, id, about), as_json, no_wait, timeout)


@app.command()
def remove(
    context: typer.Context,
    name: Name,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The items.")],
    no_wait: NoWait = False,
    timeout: Timeout = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Remove items."""
    _change(context, name, [calls.remove(name, id) for id in ids], as_json, no_wait, timeout)


@app.command("list")
def list_(context: typer.Context, page_size: PageSize = 50, page_token: PageToken = None, as_json: AsJson = False) -> None:
    """List indexes."""
    run(context, calls.page(page_size=page_size, page_token=page_token), _show_page, as_json)


@app.command()
def delete(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Remove an index and its files."""
    run(context, calls.delete(name), _show, as_json)


def _batches(name: str, named: list[tuple[str, str]], id: str | None, about: dict[str, Any]) -> Iterator[Call[Index]]:
    """As many items in a request as the server takes; files are read when their turn comes."""
    items: list[IndexItem] = []
    size = 0
    for given, what in named:
        value = encode(given) if what == "image" else given
        metadata = {**({"file": given} if what == "image" else {"text": given}), **about}
        if items and (len(items) == MOST_ITEMS or size + len(value) > BODY_BYTES):
            yield calls.add(name, items)
            items, size = [], 0
        items.append(IndexItem.model_validate({"id": id or given, what: value, "metadata": metadata}))
        size += len(value)
    yield calls.add(name, items)


def _change(
    context: typer.Context, name: str, changes: Iterable[Call[Index]], as_json: bool, no_wait: bool, timeout: float
) -> None:
    """Make the calls, wait until searches see what they asked for, and print the index. Exits with 1 if that failed."""
    with connect(context) as client:
        accepted = [client.send(change).updates for change in changes]
        if no_wait:
            answer(client, calls.get(name), _show, as_json)
            return
        settled = _wait(client, name, timeout)
        answer(client, calls.get(name), _show, as_json)
    rejected = [item for item in settled.rejected if item.update in accepted]
    for item in rejected:
        messages().print(f"not added: {item.id}: {item.reason}", style="red", markup=False)
    raise typer.Exit(FAILED if rejected or settled.state is not IndexState.READY else 0)


def _wait(client: Client, name: str, timeout: float) -> Index:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), TextColumn("{task.percentage:.0f}%"))
    out = messages()
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bars:
        bar = bars.add_task(f"index {name}", total=1.0)
        return client.indexes.wait(name, timeout=timeout, on_progress=lambda index: bars.update(bar, completed=index.progress))


def _show(index: Index) -> None:
    message = f": {index.message}" if index.message else ""
    waiting = f", {index.pending_updates} updates to be applied" if index.pending_updates else ""
    console().print(f"{index.name} {index.model} {index.state}, {index.count} items{waiting}{message}", markup=False)


def _show_page(page: Page[Index]) -> None:
    out = console()
    made = table(out, "name", "model", "state", "kind", "items", "done", "message", right=("items", "done"))
    for index in page.items:
        done = f"{100 * index.progress:.0f}%"
        made.add_row(index.name, index.model, index.state, index.kind, str(index.count), done, index.message)
    print_table(out, made)
    more(out, page.next_page_token)
