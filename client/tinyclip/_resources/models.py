"""The model registry: models, their versions and aliases, imports, and downloads of a version's files."""

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from tinyclip._http.calls import Call, as_model, idempotency_header, no_content, path
from tinyclip._http.methods import AsyncResource, Resource, iteration, method, operation
from tinyclip._http.retries import Patience
from tinyclip._http.uploads import OnProgress, Upload
from tinyclip._resources.downloads import Download, files_of_export, own_files
from tinyclip._resources.exports import ExportMethods, version_path
from tinyclip.errors import CannotReachServer, ProblemError
from tinyclip.schemas import (
    AliasPut,
    Comparison,
    Model,
    ModelFile,
    ModelImport,
    ModelVersion,
    Page,
    PredictionComparison,
    PredictionFilter,
)

IMPORT_SECONDS = 900.0
"""The longest that the server may take to respond to an import once it has the file."""


def page(*, page_size: int | None = None, page_token: str | None = None) -> Call[Page[Model]]:
    """Return one page of models, by name."""
    return Call("GET", path("models"), as_model(Page[Model]), query={"page_size": page_size, "page_token": page_token})


def get(name: str) -> Call[Model]:
    """Return one model with its versions and aliases."""
    return Call("GET", path("models", name), as_model(Model))


def version(reference: str) -> Call[ModelVersion]:
    """Return one version, named as `emoji@3`, `emoji@best` (an alias), `emoji@latest` or just `emoji` (its latest)."""
    return Call("GET", version_path(reference), as_model(ModelVersion))


def versions_page(name: str, *, page_size: int | None = None, page_token: str | None = None) -> Call[Page[ModelVersion]]:
    """Return one page of a model's versions, newest first."""
    query = {"page_size": page_size, "page_token": page_token}
    return Call("GET", path("models", name, "versions"), as_model(Page[ModelVersion]), query=query)


def put_alias(name: str, alias: str, version: int) -> Call[Model]:
    """Point an alias at a version."""
    body = AliasPut(version=version).model_dump(mode="json")
    return Call("PUT", path("models", name, "aliases", alias), as_model(Model), body=body)


def remove_alias(name: str, alias: str) -> Call[None]:
    """Remove an alias; the version stays."""
    return Call("DELETE", path("models", name, "aliases", alias), no_content)


def compare(references: Sequence[str], *, per_class: bool | None = None) -> Call[Comparison]:
    """Compare up to 50 models, each with its teacher's scores on the same images; `per_class=False`: without those of classes."""
    query = {"models": ",".join(references), "per_class": per_class}
    return Call("GET", path("compare"), as_model(Comparison), query=query)


def compare_predictions(
    references: Sequence[str],
    *,
    task: str | None = None,
    show: PredictionFilter | None = None,
    label: str | None = None,
    classes: bool | None = None,
    page_size: int | None = None,
    page_token: str | None = None,
) -> Call[PredictionComparison]:
    """Return one page of the images of a zero-shot task, with what each of up to 8 models takes them for.

    `teacher` among the models is the teacher of the one before it. `show` selects images by the first two: `differ`, `only_first`
    or `only_second` is right, or `both_wrong`; `label` those of one class. `classes` counts the right ones of each class."""
    query = {
        "models": ",".join(references), "task": task, "show": show, "label": label, "classes": classes, "page_size": page_size,
        "page_token": page_token,
    }
    return Call("GET", path("compare", "predictions"), as_model(PredictionComparison), query=query, wait=60.0)


def task_thumbnail(reference: str, task: str, number: int, *, size: int | None = None) -> Call[bytes]:
    """Return a small JPEG of an image of a task, by its number in `compare_predictions`."""
    where = version_path(reference, "tasks", task, "images", str(number), "thumbnail")
    return Call("GET", where, lambda response: response.content, query={"size": size}, wait=120.0)


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
    """Upload a model and register it as a version: an official TinyCLIP checkpoint, an open_clip state dict or directory.

    `preset` names the file's architecture (a directory has its own), `quick_gelu` or `origin` (`ViT-B-32@openai`) its activation
    where the file does not define it. `on_progress` receives the bytes sent and the total.
    Raises `InvalidRequest` naming the field if the file cannot be imported; then nothing has changed."""
    upload = Upload(file, on_progress)
    query = {
        "file": upload.name, "name": name, "alias": alias, "preset": preset, "quick_gelu": quick_gelu, "origin": origin,
        "head_width": head_width, "text_head_width": text_head_width,
    }
    return Call(
        "POST", path("models", "import"), as_model(ModelVersion), query=query, upload=upload,
        headers=idempotency_header(idempotency_key), wait=IMPORT_SECONDS,
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
    """Register a model from a path or URI (`s3://…`) that the server reads itself; see `import_file`."""
    body = ModelImport.model_construct(
        source=source, name=name, alias=alias, preset=preset, quick_gelu=quick_gelu, origin=origin, head_width=head_width,
        text_head_width=text_head_width,
    )
    return Call(
        "POST", path("models", "import"), as_model(ModelVersion), body=body.model_dump(mode="json", exclude_none=True),
        headers=idempotency_header(idempotency_key), wait=IMPORT_SECONDS,
    )


class ModelMethods(ExportMethods):
    page = method(page)
    get = method(get)
    version = method(version)
    versions_page = method(versions_page)
    put_alias = method(put_alias)
    remove_alias = method(remove_alias)
    compare = method(compare)
    compare_predictions = method(compare_predictions)
    task_thumbnail = method(task_thumbnail)
    import_file = method(import_file)
    import_source = method(import_source)

    @iteration
    def list(self) -> AsyncGenerator[Model, None]:
        """Iterate over all models, by name."""
        return self._items(lambda token: page(page_token=token))

    @operation
    async def pull(self, reference: str, dest: Path | str, *, export: str | None = None) -> Path:
        """Download a version's directory to `dest`, or that of an `export` of it, as `onnx` or `onnx-int8`.

        `dest` must not exist, or hold that version already. It appears once every file has arrived with its announced sha256; an
        interrupted pull is continued by the next. Raises `DigestMismatch` if a file is not the one announced, `InputError` if
        `dest` holds something else or there is no such export."""
        found = await self._transport.send(version(reference))
        download = Download(found, Path(dest), own_files(found) if export is None else files_of_export(found, export))
        for file in download.missing():
            await self._pull_file(download, file)
        return download.finish()

    async def _pull_file(self, download: Download, file: ModelFile) -> None:
        patience = Patience(self._transport.retries)
        while (call := download.next_request(file)) is not None:
            try:
                async with self._transport.stream(call) as response:
                    with download.appending(file, response) as part:
                        async for chunk in self._transport.backend.chunks(response):
                            part.write(chunk)
                            patience.renew()
            except (CannotReachServer, ProblemError) as failure:
                await self._transport.sleep(patience.delay(failure))
        download.verify(file)


class Models(ModelMethods, Resource):
    """`client.models`."""


class AsyncModels(ModelMethods, AsyncResource):
    """`async_client.models`."""
