"""Indexes: sets of pictures that a deployed student searches."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from tinyclip._calls import AsyncResource, Call, Resource, as_model, async_method, path, sync_method
from tinyclip._pages import every, every_async
from tinyclip._waiting import Deadline, poll, poll_async
from tinyclip.schemas import Index, IndexPut, IndexSource, IndexState, Page


def page(*, page_size: int | None = None, page_token: str | None = None) -> Call[Page[Index]]:
    """One page of indexes."""
    return Call("GET", path("indexes"), as_model(Page[Index]), query={"page_size": page_size, "page_token": page_token})


def get(name: str) -> Call[Index]:
    """One index as it is now."""
    return Call("GET", path("indexes", name), as_model(Index))


def put(name: str, model: str, shards: str | Sequence[str], *, metadata_keys: Sequence[str] = ("json",)) -> Call[Index]:
    """Creates an index of the pictures in `shards`, embedded by `model`, or builds it anew. It is ready later: `wait`."""
    listed = shards if isinstance(shards, str) else list(shards)
    body = IndexPut(model=model, source=IndexSource(shards=listed, metadata_keys=list(metadata_keys)))
    return Call("PUT", path("indexes", name), as_model(Index), body=body.model_dump(mode="json"))


def delete(name: str) -> Call[Index]:
    """Removes an index and its files; a build under way is stopped first."""
    return Call("DELETE", path("indexes", name), as_model(Index))


def _unseen(index: Index) -> None:
    """Nobody looks at the progress."""


class Indexes(Resource):
    """`client.indexes`."""

    page = sync_method(page)
    get = sync_method(get)
    put = sync_method(put)
    delete = sync_method(delete)

    def list(self) -> Iterator[Index]:
        """All indexes."""
        return every(self._transport, lambda token: page(page_token=token))

    def wait(
        self, name: str, *, timeout: float | None = None, on_progress: Callable[[Index], object] = _unseen
    ) -> Index:
        """The index once it is built or its build has failed; `on_progress` sees it on the way. Raises `WaitTimeout`."""
        return poll(lambda: self.get(name), is_settled, Deadline(f"index {name} is not built", timeout), on_progress)


class AsyncIndexes(AsyncResource):
    """`async_client.indexes`; see `Indexes`."""

    page = async_method(page)
    get = async_method(get)
    put = async_method(put)
    delete = async_method(delete)

    def list(self) -> AsyncIterator[Index]:
        """All indexes."""
        return every_async(self._transport, lambda token: page(page_token=token))

    async def wait(
        self, name: str, *, timeout: float | None = None, on_progress: Callable[[Index], object] = _unseen
    ) -> Index:
        """The index once it is built or its build has failed; see `Indexes.wait`."""
        deadline = Deadline(f"index {name} is not built", timeout)
        return await poll_async(lambda: self.get(name), is_settled, deadline, on_progress)


def is_settled(index: Index) -> bool:
    """True when no build is under way."""
    return index.state in (IndexState.READY, IndexState.FAILED)
