"""Bring a restored database up to the artifacts: `tinyclip-server reconcile`, and a part of `tinyclip-server restore`.

The database is the older copy of the two. What was written between the copies must not be taken for what is written next: an
update of an index that got a used number would count as applied, a job that got the number of an existing version would fail, and
an attempt with a used number would take over the events of the earlier one, while its driver exits at once.
"""

import re
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.paths import DATASETS, MODELS, attempts_folder
from tinyclip.schemas import IndexState

from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.database.engine import Database
from tinyclip_server.database.locks import DatabaseInUse, sole_server
from tinyclip_server.database.migrate import WrongRevision, expect_head
from tinyclip_server.database.tables import AttemptRow, DatasetNameRow, IndexRow, JobRow, ModelRow
from tinyclip_server.indexes.database import DatabaseUnavailable
from tinyclip_server.jobs.lifecycle import ENDED, ON_CLUSTER, AttemptOutcome, attempt_interrupted, end_attempt
from tinyclip_server.local.stored_files import Stored, StoredIndex, examine
from tinyclip_server.orchestration import installation
from tinyclip_server.settings import Settings

_VERSION = re.compile(r"([^/]+)/([^/]+)/(\d+)/.+")


@dataclass(frozen=True)
class Reconciled:
    """The outcome of a reconciliation, in lines for the operator."""

    changed: list[str]
    unknown: list[str]
    """Folders of versions whose model has no row. A job with that model's name would fail, so they have to be removed."""
    missing: list[str]


class CannotReconcile(Exception):
    """Database or artifacts that cannot be read; the message has the reason."""


async def reconcile_service(settings: Settings, *, take_over: bool = False) -> Reconciled:
    """Reconcile the database and artifacts of the settings. Raises CannotReconcile.

    An artifacts store of another database is refused, unless it is to `take_over`.
    """
    url = settings.async_database_url
    try:
        with sole_server(url):
            await expect_head(url)
            db = Database(url, statement_s=None)
            try:
                store = AsyncArtifactsStore(settings.artifacts_root)
                if take_over:
                    await installation.take_over(db, store)
                elif (problem := await installation.foreign_store(db, store)) is not None:
                    raise CannotReconcile(problem)
                return await reconcile(db, store, settings.index_database_url)
            finally:
                await db.close()
    except (DatabaseInUse, WrongRevision, DatabaseUnavailable, SQLAlchemyError, OSError, ValueError) as error:
        raise CannotReconcile(str(getattr(error, "orig", None) or error)) from error


async def reconcile(db: Database, store: AsyncArtifactsStore, index_database_url: str = "") -> Reconciled:
    """Raise the numbers of versions, index updates and attempts above those in the store.

    No server may run. Repeated, it is a no-op.
    """
    stored = await examine(db, store, index_database_url)
    numbers, attempts = _version_numbers(stored, MODELS), await _last_attempts(db, store)
    async with db.write() as session:
        changed = [*await _raise_versions(session, numbers), *await _raise_updates(session, stored.indexes)]
        changed += await _raise_dataset_versions(session, _version_numbers(stored, DATASETS))
        changed += await _raise_attempts(session, attempts)
        known = set(await session.scalars(select(ModelRow.name)))
    unknown = [f"{MODELS}/{name}/{number}" for name, found in numbers.items() if name not in known for number in sorted(found)]
    return Reconciled(changed, sorted(unknown), stored.missing)


def _version_numbers(stored: Stored, folder: str) -> dict[str, set[int]]:
    """Return the numbers of the versions in a folder of the store, by the name of the model or the data set."""
    numbers: dict[str, set[int]] = {}
    for path in stored.files:
        match = _VERSION.fullmatch(path)
        if match is not None and match[1] == folder:
            numbers.setdefault(match[2], set()).add(int(match[3]))
    return numbers


async def _raise_versions(session: AsyncSession, numbers: dict[str, set[int]]) -> list[str]:
    changed = []
    for row in await session.scalars(select(ModelRow).order_by(ModelRow.name)):
        free = max(numbers.get(row.name, {0})) + 1
        if free > row.next_version:
            changed.append(f"model {row.name}: the next version is {free}, because the artifacts have {free - 1}")
            row.next_version = free
    return changed


async def _raise_dataset_versions(session: AsyncSession, numbers: dict[str, set[int]]) -> list[str]:
    """Also of names without a row, which a later data set may get."""
    changed = []
    for name, found in sorted(numbers.items()):
        row = await session.get(DatasetNameRow, name) or DatasetNameRow(name=name, next_version=1)
        if max(found) >= row.next_version:
            changed.append(f"data set {name}: the next version is {max(found) + 1}, because the artifacts have {max(found)}")
            row.next_version = max(found) + 1
            session.add(row)
    return changed


async def _raise_updates(session: AsyncSession, indexes: dict[str, StoredIndex]) -> list[str]:
    changed = []
    for row in await session.scalars(select(IndexRow).order_by(IndexRow.name)):
        index = indexes.get(row.name)
        if index is None or index.applied <= row.updates:
            continue  # what the row calls pending and the index contains already is reported by the next job
        changed.append(f"index {row.name}: {index.applied - row.updates} updates that the database did not know are in it")
        row.updates = index.applied
        if row.state == IndexState.READY:
            row.applied, row.count = index.applied, index.count
    return changed


async def _last_attempts(db: Database, store: AsyncArtifactsStore) -> dict[str, int]:
    """Return the highest number of an attempt in the store by the id of the job, of all jobs that have not ended."""
    async with db.read() as session:
        jobs = (await session.scalars(select(JobRow.id).where(JobRow.state.not_in(ENDED)))).all()
    found = {job: [int(name) for name in await store.list(attempts_folder(job)) if name.isdecimal()] for job in jobs}
    return {job: max(numbers) for job, numbers in found.items() if numbers}


async def _raise_attempts(session: AsyncSession, last: dict[str, int]) -> list[str]:
    """Let the next attempt be one that no driver has begun; it continues from the checkpoints of all."""
    changed = []
    for job in await session.scalars(select(JobRow).where(JobRow.id.in_(last)).order_by(JobRow.id)):
        number = last[job.id]
        if number <= job.attempt:
            continue
        changed.append(f"job {job.id}: the next attempt is {number + 1}, because the artifacts have {number}")
        if job.state in ON_CLUSTER:
            attempt = await session.get_one(AttemptRow, (job.id, job.attempt))
            end_attempt(attempt, AttemptOutcome.INTERRUPTED, "the database was restored from a backup")
            attempt_interrupted(session, job, "restored from a backup; it continues from the last checkpoint")
            job.lease_owner, job.lease_until = "", None
        job.attempt = number
    return changed
