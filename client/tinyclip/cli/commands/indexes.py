"""`tinyclip-client indexes …`."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tinyclip._client import Client
from tinyclip._http.calls import Call
from tinyclip._resources import indexes as calls
from tinyclip._resources.images import encode
from tinyclip.cli.display.console import console, messages, new_table, print_next_page, print_table
from tinyclip.cli.display.progress import progress_bar
from tinyclip.cli.problems import FAILED
from tinyclip.cli.session import AsJson, NoWait, PageSize, PageToken, Timeout, connect, json_object, run, send
from tinyclip.schemas import Index, IndexItem, IndexState, Page
from tinyclip.schemas.indexes import MOST_ITEMS
from tinyclip.specfile import absolute

app = typer.Typer(help="Build, update and list indexes of images.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The index.")]

BODY_BYTES = 8 << 20
"""The most bytes of images in one request: half of a server's default limit."""


class Kind(StrEnum):
    AUTO = "auto"
    EXACT = "exact"
    HNSW = "hnsw"


class StoreKind(StrEnum):
    FILES = "files"
    PGVECTOR = "pgvector"


class Codes(StrEnum):
    FLOAT = "float"
    INT8 = "int8"
    BINARY = "binary"


@app.command()
def create(
    context: typer.Context,
    name: Name,
    model: Annotated[str, typer.Option(help="The model that embeds the images, for example emoji@best.")],
    shards: Annotated[
        list[str] | None, typer.Option(help="WebDataset shards: paths or URIs, with braces or globs; without: an empty index.")
    ] = None,
    metadata_key: Annotated[list[str] | None, typer.Option(help="A file of each sample to keep; by default json.")] = None,
    kind: Annotated[Kind, typer.Option(help="The search method; auto chooses by size.")] = Kind.AUTO,
    store: Annotated[StoreKind, typer.Option(help="Where vectors are kept; pgvector: in a PostgreSQL.")] = StoreKind.FILES,
    codes: Annotated[Codes, typer.Option(help="How vectors are kept: 4 bytes a number, 1, or 1 and a bit.")] = Codes.FLOAT,
    dimensions: Annotated[int | None, typer.Option(min=1, help="Numbers to keep of nested embeddings; all.")] = None,
    no_wait: NoWait = False,
    timeout: Timeout = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Build an index from shards, or create an empty one."""
    sources = [absolute(shard, Path.cwd()) for shard in shards or []]
    listed = (sources[0] if len(sources) == 1 else sources) if sources else None
    keys = metadata_key or ["json"]
    put = calls.put(
        name, model, listed, metadata_keys=keys, kind=kind.value, store=store.value, codes=codes.value, dimensions=dimensions
    )  # fmt: skip
    with connect(context) as client:
        if no_wait:
            send(client, put, _show, as_json)
            return
        client.send(put)
        settled = _wait(client, name, timeout)
        send(client, calls.get(name), _show, as_json)
        raise typer.Exit(0 if settled.state is IndexState.READY else FAILED)


@app.command()
def add(
    context: typer.Context,
    name: Name,
    files: Annotated[list[str] | None, typer.Argument(metavar="FILE...", help="Images.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text to add; may be repeated.")] = None,
    id: Annotated[str | None, typer.Option(help="A single item's id; by default the file's path as given, or the text.")] = None,
    metadata: Annotated[str | None, typer.Option(metavar="JSON", help="Metadata of all items, which hits show.")] = None,
    no_wait: NoWait = False,
    timeout: Timeout = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Add images or texts, replacing items with the same ids."""
    sources = [(file, "image") for file in files or []] + [(each, "text") for each in text or []]
    if not sources:
        raise typer.BadParameter("name at least one FILE or --text")
    if id is not None and len(sources) > 1:
        raise typer.BadParameter("--id names one item; give one FILE or --text")
    shared = {} if metadata is None else json_object("--metadata", metadata)
    _change(context, name, _batches(name, sources, id, shared), as_json, no_wait, timeout)


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
    """Delete an index and its files."""
    run(context, calls.delete(name), _show, as_json)


def _batches(name: str, sources: list[tuple[str, str]], id: str | None, shared: dict[str, Any]) -> Iterator[Call[Index]]:
    """Yield requests of as many items as the server accepts; a file is read when its request is due."""
    items: list[IndexItem] = []
    size = 0
    for source, kind in sources:
        value = encode(source) if kind == "image" else source
        metadata = {**({"file": source} if kind == "image" else {"text": source}), **shared}
        if items and (len(items) == MOST_ITEMS or size + len(value) > BODY_BYTES):
            yield calls.add(name, items)
            items, size = [], 0
        items.append(IndexItem.model_validate({"id": id or source, kind: value, "metadata": metadata}))
        size += len(value)
    yield calls.add(name, items)


def _change(
    context: typer.Context, name: str, changes: Iterable[Call[Index]], as_json: bool, no_wait: bool, timeout: float
) -> None:
    """Send changes, wait until searches see them, and print the index. Exits with 1 if an item was rejected."""
    with connect(context) as client:
        accepted = [client.send(change).updates for change in changes]
        if no_wait:
            send(client, calls.get(name), _show, as_json)
            return
        settled = _wait(client, name, timeout)
        send(client, calls.get(name), _show, as_json)
    rejected = [item for item in settled.rejected if item.update in accepted]
    for item in rejected:
        messages().print(f"not added: {item.id}: {item.reason}", style="red", markup=False)
    raise typer.Exit(FAILED if rejected or settled.state is not IndexState.READY else 0)


def _wait(client: Client, name: str, timeout: float) -> Index:
    with progress_bar(f"index {name}") as show:
        return client.indexes.wait(name, timeout=timeout, on_progress=lambda index: show(index.progress))


def _show(index: Index) -> None:
    message = f": {index.message}" if index.message else ""
    pending = f", {index.pending_updates} updates to be applied" if index.pending_updates else ""
    items = f"{index.count} items{pending}{_cost(index)}"
    console().print(f"{index.name} {index.model} {index.state}, {items}{message}", markup=False)


def _cost(index: Index) -> str:
    """Return what was measured when the index was built."""
    parts = [
        f"{index.bytes / 1e6:.1f} MB" if index.bytes is not None else "",
        f"{index.search_ms:.2f} ms a search" if index.search_ms is not None else "",
        f"recall {100 * index.recall:.1f}%" if index.recall is not None else "",
    ]
    return "".join(f", {part}" for part in parts if part)


def _show_page(page: Page[Index]) -> None:
    out = console()
    table = new_table(out, "name", "model", "state", "kind", "items", "done", "message", right=("items", "done"))
    for index in page.items:
        done = f"{100 * index.progress:.0f}%"
        table.add_row(index.name, index.model, index.state, index.kind, str(index.count), done, index.message)
    print_table(out, table)
    print_next_page(out, page.next_page_token)
