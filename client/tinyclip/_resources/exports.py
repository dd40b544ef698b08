"""Exports of model versions to the formats of other libraries: methods of `client.models`."""

from collections.abc import Callable, Sequence

from tinyclip._http.calls import Call, as_model, idempotency_header, path
from tinyclip._http.methods import ResourceMethods, method, operation
from tinyclip._http.waiting import Deadline
from tinyclip.errors import InputError
from tinyclip.schemas import EmbeddingType, Export, ExportFormat, Page, VocabularyChoice


def version_path(reference: str, *below: str | int) -> str:
    """Return the path of a version named as `emoji@3`, `emoji@best` or `emoji` (its latest). Raises `InputError`."""
    name, _, which = reference.partition("@")
    if not name:
        raise InputError(f"model {reference!r}", "name it as NAME@VERSION, NAME@ALIAS or NAME")
    return path("models", name, "versions", which or "latest", *below)


def export(
    reference: str,
    formats: ExportFormat | str | Sequence[ExportFormat | str],
    *,
    int8: bool = False,
    vocabulary: VocabularyChoice | str = VocabularyChoice.WHOLE,
    embedding: EmbeddingType | str = EmbeddingType.FP32,
    idempotency_key: str | None = None,
) -> Call[Page[Export]]:
    """Export a version as `onnx`, `openvino`, `hf`, `open_clip` or `tinyclip`; then `wait_for_exports`. An existing one is kept.

    `int8` quantises; it is for the first two. `vocabulary="reduced"` keeps only the tokens of the training captions and
    evaluation tasks. `embedding` is the type of the token embedding; `int8` is for `onnx`, `openvino` and `tinyclip`."""
    wanted = [formats] if isinstance(formats, str) else list(formats)
    body = {"formats": [str(each) for each in wanted], "int8": int8, "vocabulary": str(vocabulary), "embedding": str(embedding)}
    where, headers = version_path(reference, "exports"), idempotency_header(idempotency_key)
    return Call("POST", where, as_model(Page[Export]), body=body, headers=headers)


def exports(reference: str) -> Call[Page[Export]]:
    """Return all exports of a version, by name."""
    return Call("GET", version_path(reference, "exports"), as_model(Page[Export]))


def get_export(reference: str, name: str) -> Call[Export]:
    """Return one export, as `onnx` or `onnx-int8`."""
    return Call("GET", version_path(reference, "exports", name), as_model(Export))


def delete_export(reference: str, name: str) -> Call[Export]:
    """Delete an export and its files, stopping it first if it is under way."""
    return Call("DELETE", version_path(reference, "exports", name), as_model(Export))


class ExportMethods(ResourceMethods):
    export = method(export)
    exports = method(exports)
    get_export = method(get_export)
    delete_export = method(delete_export)

    @operation
    async def wait_for_exports(
        self,
        reference: str,
        names: Sequence[str] | None = None,
        *,
        timeout: float | None = None,
        on_progress: Callable[[list[Export]], object] | None = None,
    ) -> list[Export]:
        """Wait until the version's exports (or those named) have succeeded or failed, and return them.

        `on_progress` receives them meanwhile. Raises `WaitTimeout` after `timeout` seconds."""

        def wanted(page: Page[Export]) -> list[Export]:
            return [export for export in page.items if names is None or export.name in names]

        page = await self._poll(
            exports(reference),
            lambda page: all(export.state.terminal for export in wanted(page)),
            Deadline(f"the exports of {reference} are not done", timeout),
            lambda page: on_progress(wanted(page)) if on_progress is not None else None,
        )
        return wanted(page)
