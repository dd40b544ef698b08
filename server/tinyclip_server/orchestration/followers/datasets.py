"""Follows each data set from its registration to its version, and removes the files of deleted and of abandoned versions."""

import logging
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import DatasetRequest, WorkerEvent
from tinyclip.artifacts.paths import DATASETS, dataset_events, dataset_folder, dataset_request, dataset_version
from tinyclip.schemas import DatasetError, DatasetPut, DatasetState, DatasetVersion

from tinyclip_server.database.tables import DatasetRow, DatasetVersionRow
from tinyclip_server.datasets import repository, service, versions
from tinyclip_server.http.services import Services
from tinyclip_server.orchestration.followers.follower import MODULE, Follower
from tinyclip_server.orchestration.ray_jobs.observation import RayJob

logger = logging.getLogger(__name__)


async def reconcile(services: Services) -> None:
    """Run one round over all data sets that are being registered or deleted, and over deleted versions."""
    await DatasetFollower(services).reconcile()
    await remove_deleted_versions(services)


class DatasetFollower(Follower[DatasetRow]):
    noun = "registration"
    active = (DatasetState.REGISTERING,)
    deleting = DatasetState.DELETING
    reuses_names = True

    async def unsettled(self, session: AsyncSession) -> Sequence[DatasetRow]:
        return await repository.unsettled(session)

    async def job(self, session: AsyncSession, row: DatasetRow) -> RayJob:
        request = await _request(session, row)
        return RayJob(
            submission_id=row.ray_submission_id or "",
            name=f"data set {row.name}",
            metadata={"tinyclip_dataset": row.name},
            module=[MODULE, "dataset"],
            arguments=["--dataset", row.name, "--version", str(row.number), "--attempt", str(row.attempt)],
            request_path=dataset_request(row.name),
            request=lambda: request.model_dump_json().encode(),
            events=dataset_events(row.name, row.number, row.attempt),
        )

    def folders(self, row: DatasetRow) -> Sequence[str]:
        return [dataset_folder(row.name)]

    def retry(self, row: DatasetRow) -> bool:
        return service.begin_attempt(row)

    def fail(self, row: DatasetRow, code: str, message: str) -> None:
        remedy = ". PUT it again to continue" if code == "attempt_lost" else ""
        _fail(row, DatasetError(code=code, message=f"{message}{remedy}"))

    async def apply_event(self, session: AsyncSession, row: DatasetRow, event: WorkerEvent) -> None:
        if event.type == "dataset.progress":
            row.progress, row.message = min(0.99, float(event.data["fraction"])), event.message
        elif event.type == "dataset.failed":
            _fail(row, DatasetError.model_validate({**event.data, "message": event.message}))
        elif event.type == "dataset.finished":
            if event.data.get("unchanged") is not True:
                await versions.register(session, row, DatasetVersion.model_validate(event.data))
            row.state, row.progress, row.message = DatasetState.READY, 1.0, event.message


async def _request(session: AsyncSession, row: DatasetRow) -> DatasetRequest:
    newest, request = await repository.newest_version(session, row.name), DatasetPut.model_validate(row.spec)
    previous = None
    if newest is not None and _reported(DatasetPut.model_validate(newest.request)) == _reported(request):
        previous = newest.document["digest"]
    return DatasetRequest(name=row.name, version=row.number, attempt=row.attempt, request=request, previous=previous)


def _reported(request: DatasetPut) -> tuple[object, ...]:
    """Return what the report depends on beside the data: with another teacher, the same data gets a new version."""
    return request.teacher, request.tasks, request.image_size


def _fail(row: DatasetRow, error: DatasetError) -> None:
    row.state, row.error, row.message = DatasetState.FAILED, error.model_dump(mode="json"), error.message


async def remove_deleted_versions(services: Services) -> None:
    """Remove the files of deleted versions, then their rows. A round that is killed is repeated safely."""
    async with services.db.read() as session:
        found = await repository.deleted_versions(session)
    for row in found:
        try:
            await services.store.remove(dataset_version(row.dataset_name, row.version))
        except OSError as error:
            logger.warning("the files of %s@%d cannot be removed yet: %s", row.dataset_name, row.version, error)
            continue
        async with services.db.write() as session:
            deleted = await session.get(DatasetVersionRow, (row.dataset_name, row.version))
            if deleted is not None:  # unless another server has deleted it
                await session.delete(deleted)


async def remove_orphans(services: Services, changed_before: datetime) -> None:
    """Remove folders of versions without a row: of registrations that were superseded, failed for good, or found no change.

    The store is listed before the database is queried: a row is committed before the first file of its folder is written.
    """
    for name in await services.store.list(DATASETS):
        numbers = [int(entry) for entry in await services.store.list(dataset_folder(name)) if entry.isdecimal()]
        async with services.db.read() as session:
            known = await repository.used_numbers(session, name)
        for number in sorted(set(numbers) - known):
            files = await services.store.find(folder := dataset_version(name, number))
            if files and max(file.modified_at for file in files) < changed_before:
                logger.warning("removing %s: it belongs to no version and is old", folder)
                await services.store.remove(folder)
