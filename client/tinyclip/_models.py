"""The registry: models, their versions and aliases, and pulling a version's files."""

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from tinyclip._calls import AsyncResource, Call, Resource, as_model, async_method, nothing, path, sync_method
from tinyclip._download import Download
from tinyclip._pages import every, every_async
from tinyclip._retry import Patience
from tinyclip.errors import CannotReachServer, InputError, ProblemError
from tinyclip.schemas import AliasPut, Comparison, Model, ModelFile, ModelVersion, Page


def page(*, page_size: int | None = None, page_token: str | None = None) -> Call[Page[Model]]:
    """One page of models, by name."""
    return Call("GET", path("models"), as_model(Page[Model]), query={"page_size": page_size, "page_token": page_token})


def get(name: str) -> Call[Model]:
    """One model: its versions and aliases."""
    return Call("GET", path("models", name), as_model(Model))


def version(reference: str) -> Call[ModelVersion]:
    """One version, named as `emoji@3`, `emoji@best` (an alias), `emoji@latest` or just `emoji` (its latest)."""
    name, _, which = reference.partition("@")
    if not name:
        raise InputError(f"model {reference!r}", "name it as NAME@VERSION, NAME@ALIAS or NAME")
    return Call("GET", path("models", name, "versions", which or "latest"), as_model(ModelVersion))


def versions_page(name: str, *, page_size: int | None = None, page_token: str | None = None) -> Call[Page[ModelVersion]]:
    """One page of a model's versions, newest first."""
    query = {"page_size": page_size, "page_token": page_token}
    return Call("GET", path("models", name, "versions"), as_model(Page[ModelVersion]), query=query)


def put_alias(name: str, alias: str, version: int) -> Call[Model]:
    """Lets an alias name a version."""
    body = AliasPut(version=version).model_dump(mode="json")
    return Call("PUT", path("models", name, "aliases", alias), as_model(Model), body=body)


def remove_alias(name: str, alias: str) -> Call[None]:
    """Takes an alias away; the version stays."""
    return Call("DELETE", path("models", name, "aliases", alias), nothing)


def compare(references: Sequence[str]) -> Call[Comparison]:
    """Models side by side, each with its teacher's numbers on the same images."""
    return Call("GET", path("compare"), as_model(Comparison), query={"models": ",".join(references)})


class Models(Resource):
    """`client.models`."""

    page = sync_method(page)
    get = sync_method(get)
    version = sync_method(version)
    versions_page = sync_method(versions_page)
    put_alias = sync_method(put_alias)
    remove_alias = sync_method(remove_alias)
    compare = sync_method(compare)

    def list(self) -> Iterator[Model]:
        """All models, by name."""
        return every(self._transport, lambda token: page(page_token=token))

    def pull(self, reference: str, dest: Path | str) -> Path:
        """Downloads a version's directory to `dest`, which must not exist yet or hold just that.

        Every file is held to its sha256. What an interrupted pull left is gone on with; `dest` appears only when all is there.
        Raises `DigestMismatch` where a file is not what was announced, `InputError` where `dest` holds something else."""
        download = Download(self.version(reference), Path(dest))
        for file in download.missing():
            self._pull_file(download, file)
        return download.finish()

    def _pull_file(self, download: Download, file: ModelFile) -> None:
        patience = Patience(self._transport.retries)
        while (call := download.next_request(file)) is not None:
            try:
                with self._transport.stream(call) as response, download.appending(file, response) as part:
                    for chunk in response.iter_bytes():
                        part.write(chunk)
                        patience.renew()
            except (CannotReachServer, ProblemError) as failure:
                patience.sleep(failure)
        download.verify(file)


class AsyncModels(AsyncResource):
    """`async_client.models`; see `Models`."""

    page = async_method(page)
    get = async_method(get)
    version = async_method(version)
    versions_page = async_method(versions_page)
    put_alias = async_method(put_alias)
    remove_alias = async_method(remove_alias)
    compare = async_method(compare)

    def list(self) -> AsyncIterator[Model]:
        """All models, by name."""
        return every_async(self._transport, lambda token: page(page_token=token))

    async def pull(self, reference: str, dest: Path | str) -> Path:
        """Downloads a version's directory to `dest`; see `Models.pull`."""
        download = Download(await self.version(reference), Path(dest))
        for file in download.missing():
            await self._pull_file(download, file)
        return download.finish()

    async def _pull_file(self, download: Download, file: ModelFile) -> None:
        patience = Patience(self._transport.retries)
        while (call := download.next_request(file)) is not None:
            try:
                async with self._transport.stream(call) as response:
                    with download.appending(file, response) as part:
                        async for chunk in response.aiter_bytes():
                            part.write(chunk)
                            patience.renew()
            except (CannotReachServer, ProblemError) as failure:
                await patience.sleep_async(failure)
        download.verify(file)
