"""Indexes: sets of images, texts and vectors that a deployed student searches."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from tinyclip._http.calls import Call, as_model, idempotency_header, path
from tinyclip._http.methods import AsyncResource, Resource, ResourceMethods, iteration, method, operation
from tinyclip._http.waiting import Deadline
from tinyclip._resources.images import encode
from tinyclip.schemas import Index, IndexedItem, IndexItem, IndexKind, IndexPut, IndexSource, IndexStore, Page
from tinyclip.schemas.indexes import IndexCodes


def page(*, page_size: int | None = None, page_token: str | None = None) -> Call[Page[Index]]:
    """Return one page of indexes."""
    return Call("GET", path("indexes"), as_model(Page[Index]), query={"page_size": page_size, "page_token": page_token})


def get(name: str) -> Call[Index]:
    """Return one index."""
    return Call("GET", path("indexes", name), as_model(Index))


def put(
    name: str,
    model: str,
    shards: str | Sequence[str] | None = None,
    *,
    metadata_keys: Sequence[str] = ("json",),
    kind: IndexKind = "auto",
    store: IndexStore = "files",
    codes: IndexCodes = "float",
    dimensions: int | None = None,
) -> Call[Index]:
    """Build or rebuild an index of the images in `shards`, embedded by `model`; without shards an empty one. Then `wait`.

    `kind`: search all items (`exact`), walk a graph (`hnsw`), or choose by size (`auto`). `store`: where vectors are kept;
    `pgvector` is for an index that is larger than the memory of a replica. `codes`: keep vectors in a quarter of the bytes
    (`int8`), or with bits that are compared first (`binary`). `dimensions`: the size of nested embeddings to keep."""
    source = None
    if shards is not None:
        source = IndexSource(shards=shards if isinstance(shards, str) else list(shards), metadata_keys=list(metadata_keys))
    body = IndexPut(model=model, source=source, kind=kind, store=store, codes=codes, dimensions=dimensions)
    return Call("PUT", path("indexes", name), as_model(Index), body=body.model_dump(mode="json"))


def add(name: str, items: Sequence[IndexItem | Mapping[str, Any]]) -> Call[Index]:
    """Add items, or replace those with the same ids: at most 1,000, each an image, a text or a vector with an id and metadata.

    The server has stored them when this returns. Searches find them once `applied_updates` reaches its `updates`: `wait`."""
    given = [item if isinstance(item, IndexItem) else _item(item) for item in items]
    body = {"items": [item.model_dump(mode="json", exclude_none=True) for item in given]}
    return Call("POST", path("indexes", name, "items"), as_model(Index), body=body, headers=idempotency_header())


def remove(name: str, id: str) -> Call[Index]:
    """Remove the item with this id, if there is one. It takes effect as with `add`."""
    return Call("DELETE", path("indexes", name, "items", id), as_model(Index), headers=idempotency_header())


def item(name: str, id: str) -> Call[IndexedItem]:
    """Return one item, as the newest generation of the index has it."""
    return Call("GET", path("indexes", name, "items", id), as_model(IndexedItem), wait=120.0)


def thumbnail(name: str, id: str, *, size: int | None = None) -> Call[bytes]:
    """Return a small JPEG of an item's image, at most `size` pixels a side (256)."""
    where = path("indexes", name, "items", id, "thumbnail")
    return Call("GET", where, lambda response: response.content, query={"size": size}, wait=120.0)


def delete(name: str) -> Call[Index]:
    """Delete an index and its files, stopping a build first if one is under way."""
    return Call("DELETE", path("indexes", name), as_model(Index))


def _item(given: Mapping[str, Any]) -> IndexItem:
    """Validate an item whose image may be a file or bytes."""
    image = given.get("image")
    return IndexItem.model_validate(given if image is None else {**given, "image": encode(image)})


class IndexMethods(ResourceMethods):
    page = method(page)
    get = method(get)
    put = method(put)
    add = method(add)
    remove = method(remove)
    item = method(item)
    thumbnail = method(thumbnail)
    delete = method(delete)

    @iteration
    def list(self) -> AsyncGenerator[Index, None]:
        """Iterate over all indexes."""
        return self._items(lambda token: page(page_token=token))

    @operation
    async def wait(
        self, name: str, *, timeout: float | None = None, on_progress: Callable[[Index], object] | None = None
    ) -> Index:
        """Wait until no build and no update is under way, or the index has failed; `on_progress` receives it meanwhile.

        Raises `WaitTimeout` after `timeout` seconds."""
        deadline = Deadline(f"index {name} is not ready", timeout)
        return await self._poll(get(name), lambda index: index.state.settled, deadline, on_progress)


class Indexes(IndexMethods, Resource):
    """`client.indexes`."""


class AsyncIndexes(IndexMethods, AsyncResource):
    """`async_client.indexes`."""
