"""The registry: models, their versions and aliases, and pulling a version's files."""

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from tinyclip._calls import Call, as_model, async_method, nothing, once, path, sync_method
from tinyclip._download import Download, exported, own_files
from tinyclip._exports import AsyncExportMethods, ExportMethods, version_path
from tinyclip._pages import every, every_async
from tinyclip._retry import Patience
from tinyclip._upload import OnProgress, Upload
from tinyclip.errors import CannotReachServer, ProblemError
from tinyclip.schemas import AliasPut, Comparison, Model, ModelFile, ModelImport, ModelVersion, Page

IMPORT_SECONDS = 900.0
"""How long the server may take to answer an import once it has the file."""


def page(*, page_size: int | None = None, page_token: str | None = None) -> Call[Page[Model]]:
    """One page of models, by name."""
    return Call("GET", path("models"), as_model(Page[Model]), query={"page_size": page_size, "page_token": page_token})


def get(name: str) -> Call[Model]:
    """One model: its versions and aliases."""
    return Call("GET", path("models", name), as_model(Model))


def version(reference: str) -> Call[ModelVersion]:
    """One version, named as `emoji@3`, `emoji@best` (an alias), `emoji@latest` or just `emoji` (its latest)."""
    return Call("GET", version_path(reference), as_model(ModelVersion))


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


def import_file(
    file: Path | str,
    *,
    name: str | None = None,
    alias: str | None = None,
    preset: str | None = None,
    quick_gelu: bool | None = None,
    origin: str | None = None,
    head_width: int | None = None,
    text_head_width: int | None = None,
    on_progress: OnProgress | None = None,
    idempotency_key: str | None = None,
) -> Call[ModelVersion]:
    """Uploads a model from elsewhere and makes a version of it: an official TinyCLIP checkpoint, an open_clip state dict or
    directory.

    `preset` is the architecture that the file is of (a directory says its own), `quick_gelu` or `origin` (`ViT-B-32@openai`)
    its activation where the file does not say it. `on_progress` is told of the bytes sent and of all there are.
    Raises `InvalidRequest` naming the field for a file that cannot be imported; then nothing has changed."""
    upload = Upload(file, on_progress)
    query = {
        "file": upload.name, "name": name, "alias": alias, "preset": preset, "quick_gelu": quick_gelu, "origin": origin,
        "head_width": head_width, "text_head_width": text_head_width,
    }
    return Call(
        "POST", path("models", "import"), as_model(ModelVersion), query=query, upload=upload,
        headers=once(idempotency_key), wait=IMPORT_SECONDS,
    )


def import_source(
    source: str,
    *,
    name: str | None = None,
    alias: str | None = None,
    preset: str | None = None,
    quick_gelu: bool | None = None,
    origin: str | None = None,
    head_width: int | None = None,
    text_head_width: int | None = None,
    idempotency_key: str | None = None,
) -> Call[ModelVersion]:
    """As `import_file`, for a path or URI (`s3://…`) that the server reads itself."""
    body = ModelImport.model_construct(
        source=source, name=name, alias=alias, preset=preset, quick_gelu=quick_gelu, origin=origin, head_width=head_width,
        text_head_width=text_head_width,
    )
    return Call(
        "POST", path("models", "import"), as_model(ModelVersion), body=body.model_dump(mode="json", exclude_none=True),
        headers=once(idempotency_key), wait=IMPORT_SECONDS,
    )


class Models(ExportMethods):
    """`client.models`."""

    page = sync_method(page)
    get = sync_method(get)
    version = sync_method(version)
    versions_page = sync_method(versions_page)
    put_alias = sync_method(put_alias)
    remove_alias = sync_method(remove_alias)
    compare = sync_method(compare)
    import_file = sync_method(import_file)
    import_source = sync_method(import_source)

    def list(self) -> Iterator[Model]:
        """All models, by name."""
        return every(self._transport, lambda token: page(page_token=token))

    def pull(self, reference: str, dest: Path | str, *, export: str | None = None) -> Path:
        """Downloads a version's directory to `dest`, which must not exist yet or hold just that; or that of an `export` of it,
        as `onnx` or `onnx-int8`.

        Every file is held to its sha256. What an interrupted pull left is gone on with; `dest` appears only when all is there.
        Raises `DigestMismatch` where a file is not what was announced, `InputError` where `dest` holds something else or there
        is no such export."""
        download = _download(self.version(reference), Path(dest), export)
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


class AsyncModels(AsyncExportMethods):
    """`async_client.models`; see `Models`."""

    page = async_method(page)
    get = async_method(get)
    version = async_method(version)
    versions_page = async_method(versions_page)
    put_alias = async_method(put_alias)
    remove_alias = async_method(remove_alias)
    compare = async_method(compare)
    import_file = async_method(import_file)
    import_source = async_method(import_source)

    def list(self) -> AsyncIterator[Model]:
        """All models, by name."""
        return every_async(self._transport, lambda token: page(page_token=token))

    async def pull(self, reference: str, dest: Path | str, *, export: str | None = None) -> Path:
        """Downloads a version's directory to `dest`; see `Models.pull`."""
        download = _download(await self.version(reference), Path(dest), export)
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


def _download(version: ModelVersion, dest: Path, export: str | None) -> Download:
    return Download(version, dest, own_files(version) if export is None else exported(version, export))
