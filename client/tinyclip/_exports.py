"""Exports: a model version in the files of other libraries. They are methods of `client.models`."""

from collections.abc import Callable, Sequence

from tinyclip._calls import AsyncResource, Call, Resource, as_model, async_method, once, path, sync_method
from tinyclip._waiting import Deadline, poll, poll_async
from tinyclip.errors import InputError
from tinyclip.schemas import Export, ExportFormat, Page


def version_path(reference: str, *below: str | int) -> str:
    """The path of a version named as `emoji@3`, `emoji@best` or just `emoji` (its latest). Raises `InputError`."""
    name, _, which = reference.partition("@")
    if not name:
        raise InputError(f"model {reference!r}", "name it as NAME@VERSION, NAME@ALIAS or NAME")
    return path("models", name, "versions", which or "latest", *below)


def export(
    reference: str,
    formats: ExportFormat | str | Sequence[ExportFormat | str],
    *,
    int8: bool = False,
    idempotency_key: str | None = None,
) -> Call[Page[Export]]:
    """Asks for a version as `onnx`, `openvino`, `hf` or `open_clip`; `int8` is for the first two. The files are there later:
    `wait_for_exports`. One that is there already is not made again."""
    wanted = [formats] if isinstance(formats, str) else list(formats)
    body = {"formats": [str(each) for each in wanted], "int8": int8}
    where = version_path(reference, "exports")
    return Call("POST", where, as_model(Page[Export]), body=body, headers=once(idempotency_key))


def exports(reference: str) -> Call[Page[Export]]:
    """All exports of a version, by name."""
    return Call("GET", version_path(reference, "exports"), as_model(Page[Export]))


def get_export(reference: str, name: str) -> Call[Export]:
    """One export, as `onnx` or `onnx-int8`."""
    return Call("GET", version_path(reference, "exports", name), as_model(Export))


def delete_export(reference: str, name: str) -> Call[Export]:
    """Takes an export and its files away; one under way is stopped."""
    return Call("DELETE", version_path(reference, "exports", name), as_model(Export))


def _unseen(exports: list[Export]) -> None:
    """Nobody looks at the progress."""


class ExportMethods(Resource):
    """Of `client.models`."""

    export = sync_method(export)
    exports = sync_method(exports)
    get_export = sync_method(get_export)
    delete_export = sync_method(delete_export)

    def wait_for_exports(
        self,
        reference: str,
        names: Sequence[str] | None = None,
        *,
        timeout: float | None = None,
        on_progress: Callable[[list[Export]], object] = _unseen,
    ) -> list[Export]:
        """The version's exports (or those named) once each has its files or has failed. Raises `WaitTimeout`."""
        deadline = Deadline(f"the exports of {reference} are not done", timeout)
        return poll(lambda: _named(self.exports(reference), names), _all_settled, deadline, on_progress)


class AsyncExportMethods(AsyncResource):
    """Of `async_client.models`; see `ExportMethods`."""

    export = async_method(export)
    exports = async_method(exports)
    get_export = async_method(get_export)
    delete_export = async_method(delete_export)

    async def wait_for_exports(
        self,
        reference: str,
        names: Sequence[str] | None = None,
        *,
        timeout: float | None = None,
        on_progress: Callable[[list[Export]], object] = _unseen,
    ) -> list[Export]:
        """The version's exports (or those named) once each has its files or has failed; see `ExportMethods`."""
        deadline = Deadline(f"the exports of {reference} are not done", timeout)

        async def fetch() -> list[Export]:
            return _named(await self.exports(reference), names)

        return await poll_async(fetch, _all_settled, deadline, on_progress)


def _named(page: Page[Export], names: Sequence[str] | None) -> list[Export]:
    return [each for each in page.items if names is None or each.name in names]


def _all_settled(exports: list[Export]) -> bool:
    return all(each.state.settled for each in exports)
