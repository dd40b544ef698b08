"""Operations on reinforcements. Each function works in the caller's transaction and only flushes."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import DatasetVersion, Reinforcement, ReinforcementAction, ReinforcementPost, ReinforcementState
from tinyclip.schemas.spec import TeacherSpec

from tinyclip_server.database.tables import ReinforcementRow
from tinyclip_server.datasets import versions
from tinyclip_server.http.resources import begin_ray_job, mark_deleting, new_id
from tinyclip_server.http.services import Services
from tinyclip_server.models.teachers import pin
from tinyclip_server.problems import Conflict, NotFound
from tinyclip_server.reinforcements import repository
from tinyclip_server.reinforcements.actions import possible


async def check(services: Services, project: str, body: ReinforcementPost) -> ReinforcementPost:
    """Check the addresses of a request, and return it with the versions of its teachers resolved. Raises InvalidInput."""
    await services.addresses.expect_readable(project, services.settings.address_rules, body)
    teacher = await pin(services, project, body.teacher, "/teacher") if body.teacher is not None else None
    teachers = [await pin(services, project, each, f"/teachers/{index}") for index, each in enumerate(body.teachers)]
    return body.model_copy(update={"teacher": teacher, "teachers": teachers})


async def create(session: AsyncSession, project: str, version: DatasetVersion, body: ReinforcementPost) -> ReinforcementRow:
    """Queue a reinforcement of a version; its reconciler submits the Ray job.

    An equal one that exists or is in progress is returned; one that has failed continues with what is done. Raises Conflict.
    """
    await versions.lock(session, project, version, "reinforce", exclusive=True)  # one request at a time
    known = await repository.of_version(session, version.name, version.version)
    row = next((row for row in known if ReinforcementPost.model_validate(row.spec) == body), None)
    if row is None:
        row = ReinforcementRow(
            id=new_id("reinf"), project=project, dataset_name=version.name, dataset_version=version.version,
            spec=body.model_dump(mode="json"), state=ReinforcementState.QUEUED, version=0, attempt=0, lost=0,
        )
        session.add(row)
    elif row.state == ReinforcementState.DELETING:
        message = f"an equal reinforcement, {row.id}, is being deleted; wait until it is gone"
        raise Conflict(message, code="reinforcement_deleting")
    if row.version == 0 or "retry" in possible(row):
        row.lost, row.error, row.finished_at = 0, None, None
        begin_attempt(row)
    await session.flush()
    return row


def begin_attempt(row: ReinforcementRow) -> None:
    """Begin a reinforcement, or begin it again after its Ray job was lost."""
    row.attempt, row.progress = row.attempt + 1, 0.0
    begin_ray_job(row, f"tc-reinforcement-{row.id}-a{row.attempt}", ReinforcementState.QUEUED)


async def find_version(session: AsyncSession, project: str, dataset: str, which: str) -> DatasetVersion:
    """Return a version by number, alias or `latest`. Raises NotFound."""
    return versions.view(await versions.resolve(session, project, dataset, which), {})


async def get(
    session: AsyncSession, project: str, dataset: str, which: str, id: str, *, lock: bool = False
) -> ReinforcementRow:
    """Return a reinforcement. Raises NotFound."""
    version = await find_version(session, project, dataset, which)
    row = await repository.find(session, version.name, version.version, id, lock=lock)
    if row is None:
        known = ", ".join(each.id for each in await repository.of_version(session, version.name, version.version)) or "none"
        message = f"{version.name}@{version.version} has no reinforcement {id}; it has {known}"
        raise NotFound(message, code="no_such_reinforcement")
    return row


async def lock(session: AsyncSession, id: str) -> None:
    """Lock a reinforcement that a job is to train on against its deletion. Raises Conflict if it is deleted."""
    row = await repository.find_shared(session, id)
    if row is None or "train" not in possible(row):
        raise Conflict(f"reinforcement {id} is deleted; create it again, or omit it", code="reinforcement_deleted")


async def delete(session: AsyncSession, row: ReinforcementRow) -> None:
    """Mark a reinforcement for deletion; its row is deleted after its Ray job has ended and its files are removed.

    Raises Conflict while a job that has not ended trains on it.
    """
    jobs = await repository.jobs_using(session, row.id)
    if "delete" in possible(row, used=bool(jobs)):
        mark_deleting(row)
        await session.flush()
    elif jobs:
        message = f"{', '.join(jobs)} trains on {row.id}; cancel it, or wait until it has ended"
        raise Conflict(message, code="reinforcement_in_use")


def view(row: ReinforcementRow, actions: Sequence[ReinforcementAction] = ()) -> Reinforcement:
    post, document = ReinforcementPost.model_validate(row.spec), row.document or {}
    return Reinforcement.model_validate({
        "id": row.id, "dataset": row.dataset_name, "version": row.dataset_version, "state": row.state,
        "teachers": [_name(teacher) for teacher in post.every_teacher()], "augmentations": post.augmentations,
        "augment": post.augment, "captions": post.captions, "dtype": post.dtype, "views": document.get("views", 0),
        "texts": document.get("texts", 0), "bytes": document.get("bytes", 0), "progress": row.progress, "message": row.message,
        "error": row.error, "ray_submission_id": row.ray_submission_id, "actions": list(actions),
        "created_at": row.created_at, "updated_at": row.updated_at, "finished_at": row.finished_at,
    })


def etag(row: ReinforcementRow) -> str:
    """Return the version of the request before the dot, which `If-Match` compares, and its progress after it."""
    return f"{row.version}.{row.state}-{row.next_segment}"


def _name(teacher: TeacherSpec) -> str:
    return teacher.model if teacher.pretrained is None else f"{teacher.model}/{teacher.pretrained}"
