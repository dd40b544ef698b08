"""Data sets: registered shards, and the versions and reports that reading them made."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from tinyclip._http.calls import Call, as_model, no_content, path
from tinyclip._http.methods import AsyncResource, Resource, iteration, method, operation
from tinyclip._http.waiting import Deadline
from tinyclip._resources.reinforcements import ReinforcementMethods, version_path
from tinyclip.errors import InputError
from tinyclip.schemas import AliasPut, Dataset, DatasetReport, DatasetSample, DatasetVersion, Page, SampleUse


def page(*, page_size: int | None = None, page_token: str | None = None) -> Call[Page[Dataset]]:
    """Return one page of data sets, by name."""
    return Call("GET", path("datasets"), as_model(Page[Dataset]), query={"page_size": page_size, "page_token": page_token})


def get(name: str) -> Call[Dataset]:
    """Return one data set with its versions and aliases."""
    return Call("GET", path("datasets", name), as_model(Dataset))


def put(
    name: str,
    source: Mapping[str, Any] | str | Sequence[str],
    *,
    holdout: float | None = None,
    teacher: Mapping[str, Any] | None = None,
    tasks: Sequence[Mapping[str, Any]] | None = None,
    image_size: int | None = None,
) -> Call[Dataset]:
    """Register a data set, or register it again, which makes a new version if shards or settings have changed. Then `wait`.

    `source`: shards, or `{"shards": …, "image_key": …, "caption_key": …, "where": …, "captions": …}`. The report compares image
    sizes with `image_size`, pairs with a `teacher`, and images with those of evaluation `tasks`, both as in a job's spec.
    """
    given = {"holdout": holdout, "teacher": teacher, "tasks": tasks, "image_size": image_size}
    described = source if isinstance(source, Mapping) else {"shards": source if isinstance(source, str) else list(source)}
    options = {key: value for key, value in given.items() if value is not None}
    return put_document(name, {"source": dict(described), **options})


def put_document(name: str, document: Mapping[str, Any]) -> Call[Dataset]:
    """Register a data set described by a whole `DatasetPut`, sent as it is, so that the server reports what is wrong with it."""
    return Call("PUT", path("datasets", name), as_model(Dataset), body=dict(document), wait=60.0)


def delete(name: str) -> Call[Dataset]:
    """Delete a data set with all its versions, stopping a registration first if one is under way. The shards are kept."""
    return Call("DELETE", path("datasets", name), as_model(Dataset))


def version(reference: str) -> Call[DatasetVersion]:
    """Return one version, named as `emoji@3`, `emoji@best` (an alias), `emoji@latest` or just `emoji` (its latest)."""
    return Call("GET", version_path(reference), as_model(DatasetVersion))


def versions_page(name: str, *, page_size: int | None = None, page_token: str | None = None) -> Call[Page[DatasetVersion]]:
    """Return one page of a data set's versions, newest first."""
    query = {"page_size": page_size, "page_token": page_token}
    return Call("GET", path("datasets", name, "versions"), as_model(Page[DatasetVersion]), query=query)


def report(reference: str) -> Call[DatasetReport]:
    """Return the report of a version: findings with counts, examples and remedies."""
    return Call("GET", version_path(reference, "report"), as_model(DatasetReport))


def samples_page(
    reference: str, *, use: SampleUse | str | None = None, page_size: int | None = None, page_token: str | None = None
) -> Call[Page[DatasetSample]]:
    """Return one page of the samples of a version, with their captions; only those of a `use`, as `unusable`."""
    query = {"use": use, "page_size": page_size, "page_token": page_token}
    return Call("GET", version_path(reference, "samples"), as_model(Page[DatasetSample]), query=query, wait=120.0)


def thumbnail(reference: str, key: str, *, number: int | None = None, size: int | None = None) -> Call[bytes]:
    """Return a small JPEG of a sample's image; its `number` finds it at once."""
    query = {"number": number, "size": size}
    where = version_path(reference, "samples", key, "thumbnail")
    return Call("GET", where, lambda response: response.content, query=query, wait=120.0)


def delete_version(reference: str) -> Call[None]:
    """Delete a version, which must be named as `emoji@3`; its shards are kept. Raises `InputError`."""
    name, at, which = reference.partition("@")
    if not (name and at and which):
        raise InputError(f"version {reference!r}", "name it as NAME@VERSION")
    return Call("DELETE", version_path(reference), no_content)


def put_alias(name: str, alias: str, version: int) -> Call[Dataset]:
    """Point an alias at a version."""
    body = AliasPut(version=version).model_dump(mode="json")
    return Call("PUT", path("datasets", name, "aliases", alias), as_model(Dataset), body=body)


def remove_alias(name: str, alias: str) -> Call[None]:
    """Remove an alias; the version stays."""
    return Call("DELETE", path("datasets", name, "aliases", alias), no_content)


class DatasetMethods(ReinforcementMethods):
    page = method(page)
    get = method(get)
    put = method(put)
    put_document = method(put_document)
    delete = method(delete)
    version = method(version)
    versions_page = method(versions_page)
    report = method(report)
    samples_page = method(samples_page)
    thumbnail = method(thumbnail)
    delete_version = method(delete_version)
    put_alias = method(put_alias)
    remove_alias = method(remove_alias)

    @iteration
    def list(self) -> AsyncGenerator[Dataset, None]:
        """Iterate over all data sets, by name."""
        return self._items(lambda token: page(page_token=token))

    @iteration
    def versions(self, name: str) -> AsyncGenerator[DatasetVersion, None]:
        """Iterate over the versions of a data set, newest first."""
        return self._items(lambda token: versions_page(name, page_token=token))

    @iteration
    def samples(self, reference: str, *, use: SampleUse | str | None = None) -> AsyncGenerator[DatasetSample, None]:
        """Iterate over the samples of a version, in the order of its shards; only those of a `use`, as `unusable`."""
        return self._items(lambda token: samples_page(reference, use=use, page_token=token))

    @operation
    async def wait(
        self, name: str, *, timeout: float | None = None, on_progress: Callable[[Dataset], object] | None = None
    ) -> Dataset:
        """Wait until no registration is under way, and return the data set; `on_progress` receives it meanwhile.

        Raises `WaitTimeout` after `timeout` seconds."""
        deadline = Deadline(f"data set {name} is not ready", timeout)
        return await self._poll(get(name), lambda dataset: dataset.state.settled, deadline, on_progress)


class Datasets(DatasetMethods, Resource):
    """`client.datasets`."""


class AsyncDatasets(DatasetMethods, AsyncResource):
    """`async_client.datasets`."""
