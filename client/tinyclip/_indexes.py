"""Indexes: sets of pictures, texts and vectors that a deployed student searches."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from tinyclip._calls import AsyncResource, Call, Resource, as_model, async_method, once, path, sync_method
from tinyclip._images import encode
from tinyclip._pages import every, every_async
from tinyclip._waiting import Deadline, poll, poll_async
from tinyclip.schemas import Index, IndexItem, IndexKind, IndexPut, IndexSource, IndexState, IndexStore, Page


def page(*, page_size: int | None = None, page_token: str | None = None) -> Call[Page[Index]]:
    """One page of indexes."""
    return Call("GET", path("indexes"), as_model(Page[Index]), query={"page_size": page_size, "page_token": page_token})


def get(name: str) -> Call[Index]:
    """One index as it is now."""
    return Call("GET", path("indexes", name), as_model(Index))


def put(
    name: str,
    model: str,
    shards: str | Sequence[str] | None = None,
    *,
    metadata_keys: Sequence[str] = ("json",),
    kind: IndexKind = "auto",
    store: IndexStore = "files",
) -> Call[Index]:
    """Creates an index of the pictures in `shards`, embedded by `model`, or builds it anew; without shards an empty one.

    It is ready later: `wait`. `kind`: search all items (`exact`), walk a graph (`hnsw`), or as fits the size. `store`: where the
    vectors live; `pgvector` is for an index that is larger than the memory of a replica."""
    source = None
    if shards is not None:
        source = IndexSource(shards=shards if isinstance(shards, str) else list(shards), metadata_keys=list(metadata_keys))
    body = IndexPut(model=model, source=source, kind=kind, store=store)
    return Call("PUT", path("indexes", name), as_model(Index), body=body.model_dump(mode="json"))


def add(name: str, items: Sequence[IndexItem | Mapping[str, Any]]) -> Call[Index]:
    """Adds items, or replaces those with the same ids: at most 1,000, each a picture, a text or a vector with an id and metadata.

    When this returns they are kept for good; searches see them once `applied_updates` is the `updates` of the answer: `wait`.
    """
    given = [item if isinstance(item, IndexItem) else _item(item) for item in items]
    body = {"items": [item.model_dump(mode="json", exclude_none=True) for item in given]}
    return Call("POST", path("indexes", name, "items"), as_model(Index), body=body, headers=once())


def remove(name: str, id: str) -> Call[Index]:
    """Removes the item with this id, if there is one. Searches see it as with `add`."""
    return Call("DELETE", path("indexes", name, "items", id), as_model(Index), headers=once())


def delete(name: str) -> Call[Index]:
    """Removes an index and its files; a build under way is stopped first."""
    return Call("DELETE", path("indexes", name), as_model(Index))


def _item(given: Mapping[str, Any]) -> IndexItem:
    """As the schema has it, but for a picture that may be a file or bytes."""
    image = given.get("image")
    return IndexItem.model_validate(given if image is None else {**given, "image": encode(image)})


def _unseen(index: Index) -> None:
    """Nobody looks at the progress."""


class Indexes(Resource):
    """`client.indexes`."""

    page = sync_method(page)
    get = sync_method(get)
    put = sync_method(put)
    add = sync_method(add)
    remove = sync_method(remove)
    delete = sync_method(delete)

    def list(self) -> Iterator[Index]:
        """All indexes."""
        return every(self._transport, lambda token: page(page_token=token))

    def wait(
        self, name: str, *, timeout: float | None = None, on_progress: Callable[[Index], object] = _unseen
    ) -> Index:
        """The index once nothing is under way, or it has failed; `on_progress` sees it on the way. Raises `WaitTimeout`."""
        return poll(lambda: self.get(name), is_settled, Deadline(f"index {name} is not ready", timeout), on_progress)


class AsyncIndexes(AsyncResource):
    """`async_client.indexes`; see `Indexes`."""

    page = async_method(page)
    get = async_method(get)
    put = async_method(put)
    add = async_method(add)
    remove = async_method(remove)
    delete = async_method(delete)

    def list(self) -> AsyncIterator[Index]:
        """All indexes."""
        return every_async(self._transport, lambda token: page(page_token=token))

    async def wait(
        self, name: str, *, timeout: float | None = None, on_progress: Callable[[Index], object] = _unseen
    ) -> Index:
        """The index once nothing is under way, or it has failed; see `Indexes.wait`."""
        deadline = Deadline(f"index {name} is not ready", timeout)
        return await poll_async(lambda: self.get(name), is_settled, deadline, on_progress)


def is_settled(index: Index) -> bool:
    """True when no build and no update is under way."""
    return index.state in (IndexState.READY, IndexState.FAILED)
