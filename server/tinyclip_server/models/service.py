"""Operations on models. Each function works in the caller's transaction and only flushes."""

from collections.abc import Sequence
from typing import Any, get_args

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import ComparedModel, KeptPredictions, Model, ModelAction, ModelVersion, Scope, Scores

from tinyclip_server.database.tables import AliasRow, ModelRow, ModelVersionRow
from tinyclip_server.http.callers import Caller
from tinyclip_server.models import repository
from tinyclip_server.problems import Conflict, InvalidInput, NotFound

LATEST = "latest"

_models = ModelRow.__table__.c
OWNING_PROJECT = select(_models.project).where(_models.name == bindparam("model"))


async def resolve(session: AsyncSession, project: str, reference: str, pointer: str = "/model") -> tuple[str, int]:
    """Return name and version of `name@3`, `name@alias` or `name@latest` (also `name`). Raises NotFound, InvalidInput."""
    name, at, which = reference.partition("@")
    if not name or (at and not which):
        raise InvalidInput.field(pointer, reference, "name a model as name@version, name@alias or name@latest")
    await get(session, project, name)
    if not at or which == LATEST:
        version = await repository.latest(session, name)
    elif which.isdecimal():
        version = int(which) if len(which) < 10 and await repository.version(session, name, int(which)) else None
    else:
        version = (await repository.aliases(session, name)).get(which)
    if version is None:
        raise NotFound(f"model {name} has no version or alias {which}; {await _known(session, name)}", code="no_such_version")
    return name, version


async def get(session: AsyncSession, project: str, name: str) -> ModelRow:
    """Return a model that has a version. Raises NotFound."""
    model = await repository.find(session, project, name)
    if model is None:
        raise NotFound(f"there is no model {name}", code="no_such_model")
    return model


async def view(session: AsyncSession, model: ModelRow) -> Model:
    versions = list(await repository.version_numbers(session, model.name))
    return Model(
        name=model.name, latest=versions[-1], aliases=await repository.aliases(session, model.name), versions=versions,
        params=await repository.params(session, model.name, versions[-1]), created_at=model.created_at,
    )


def allowed(caller: Caller) -> list[ModelAction]:
    """Return what a caller can do with a version; versions have no states, and none is deleted."""
    return list(get_args(ModelAction)) if caller.may(Scope.WRITE) else []


async def get_version(
    session: AsyncSession, project: str, name: str, which: str, actions: Sequence[ModelAction] = ()
) -> ModelVersion:
    """Return a version by number, alias or `latest`. Raises NotFound."""
    name, version = await resolve(session, project, f"{name}@{which}")
    row = await session.get_one(ModelVersionRow, (name, version))
    return version_view(row, await repository.aliases(session, name), actions)


def version_view(row: ModelVersionRow, aliases: dict[str, int], actions: Sequence[ModelAction] = ()) -> ModelVersion:
    mine = [alias for alias, version in aliases.items() if version == row.version]
    return ModelVersion.model_validate({**row.document, "aliases": mine, "actions": list(actions)})


async def claim_name(session: AsyncSession, project: str, name: str) -> None:
    """Reserve a name for a project's model before it has a version. Raises Conflict if another project has it."""
    owner = await session.scalar(OWNING_PROJECT, {"model": name})
    if owner is None:
        insert = pg_insert if session.get_bind().dialect.name == "postgresql" else sqlite_insert
        new = insert(ModelRow).values(name=name, project=project, next_version=1)
        await session.execute(new.on_conflict_do_nothing())
        owner = await session.scalar(OWNING_PROJECT, {"model": name})
    if owner != project:
        raise Conflict(f"the name {name} is taken; choose another", code="name_taken")


async def reserve(session: AsyncSession, project: str, name: str) -> int:
    """Return the next version number of a model, each only once. Raises Conflict if another project has the name."""
    await claim_name(session, project, name)
    model = await session.scalar(select(ModelRow).where(ModelRow.name == name).with_for_update())
    assert model is not None
    number = model.next_version
    model.next_version += 1
    await session.flush()
    return number


async def register(session: AsyncSession, document: dict[str, Any], *, name: str, version: int, job_id: str | None) -> None:
    """Add a version under its reserved name and number. Repeated, it is a no-op."""
    if await repository.version(session, name, version) is not None:
        return
    checked = ModelVersion.model_validate({**document, "name": name, "version": version, "job": job_id})
    session.add(
        ModelVersionRow(
            model_name=name, version=version, document=checked.model_dump(mode="json"), job_id=job_id,
            created_at=checked.created_at,
        )
    )
    await session.flush()


async def add_evaluation(
    session: AsyncSession,
    name: str,
    version: int,
    evaluation: str,
    results: dict[str, Any],
    teacher_sha256: str | None,
    predictions: dict[str, KeptPredictions],
) -> list[str]:
    """Add an evaluation's metrics to a version, in place of those of an earlier evaluation of the same tasks.

    Metrics of the training run are kept; the names of these tasks are returned. Metrics of a model other than the version's
    teacher, which is recognised by its weights, are not added as the teacher's. The predictions for each image come with the
    metrics, and also complete those of a training run that kept none.
    """
    row = await session.get(ModelVersionRow, (name, version), with_for_update=True)
    if row is None:
        return []
    known = ModelVersion.model_validate(row.document)
    teacher = known.lineage.get("teacher")
    is_teacher = teacher_sha256 is not None and isinstance(teacher, dict) and teacher.get("sha256") == teacher_sha256
    kept = [task for task in results if task in known.evaluation and task not in known.evaluated_by]
    for task, scores in results.items():
        if task not in kept:
            known.evaluation[task] = Scores(student=scores["student"], teacher=scores["teacher"] if is_teacher else None)
            known.evaluated_by[task] = evaluation
            known.predictions.pop(task, None)
        elif not _on_as_many_images(known.evaluation[task].student, scores["student"]):
            continue
        if task in predictions and task not in known.predictions:
            of_teacher = predictions[task].teacher and is_teacher
            known.predictions[task] = predictions[task].model_copy(update={"teacher": of_teacher, "evaluation": evaluation})
    row.document = known.model_dump(mode="json")
    await session.flush()
    return kept


async def forget_predictions(session: AsyncSession, name: str, version: int, evaluation: str) -> None:
    """Remove the entries of an evaluation's predictions, whose files are deleted with it; its metrics stay."""
    row = await session.get(ModelVersionRow, (name, version), with_for_update=True)
    if row is None:
        return
    known = ModelVersion.model_validate(row.document)
    known.predictions = {task: kept for task, kept in known.predictions.items() if kept.evaluation != evaluation}
    row.document = known.model_dump(mode="json")
    await session.flush()


async def set_alias(session: AsyncSession, project: str, name: str, alias: str, version: int) -> None:
    """Set an alias to a version. Raises NotFound."""
    await resolve(session, project, f"{name}@{version}")
    await session.merge(AliasRow(model_name=name, alias=alias, version=version))
    await session.flush()


async def remove_alias(session: AsyncSession, project: str, name: str, alias: str) -> None:
    """Remove an alias. Raises NotFound."""
    await get(session, project, name)
    row = await session.get(AliasRow, (name, alias))
    if row is None:
        raise NotFound(f"model {name} has no alias {alias}; {await _known(session, name)}", code="no_such_alias")
    await session.delete(row)
    await session.flush()


def _on_as_many_images(known: dict[str, Any], now: dict[str, Any]) -> bool:
    return known.get("samples") is not None and known.get("samples") == now.get("samples")


def compared_model(version: ModelVersion, *, per_class: bool = True) -> ComparedModel:
    """Return a version as one row of a comparison, also without the numbers of each class."""
    left_out = () if per_class else ("per_class", "worst_classes")

    def shown(scores: dict[str, Any]) -> dict[str, Any]:
        return {metric: value for metric, value in scores.items() if metric not in left_out}

    student = {task: shown(scores.student) for task, scores in version.evaluation.items()}
    teacher = {task: shown(scores.teacher) for task, scores in version.evaluation.items() if scores.teacher}
    return ComparedModel(
        name=version.name, version=version.version, params=version.params, macs=version.macs, embed_dim=version.embed_dim,
        image_size=version.image_size, context_length=version.context_length, teacher=version.teacher,
        teacher_params=version.teacher_params, teacher_macs=version.teacher_macs,
        evaluation=student, latency_ms=_latency_ms(student), teacher_evaluation=teacher, teacher_latency_ms=_latency_ms(teacher),
        embedding_sizes=version.embedding_sizes,
        compatible_share=version.compatible_with.share if version.compatible_with is not None else None,
        created_at=version.created_at,
    )


def _latency_ms(evaluation: dict[str, dict[str, Any]]) -> float | None:
    timed = [scores["ms_per_image"] for scores in evaluation.values() if isinstance(scores.get("ms_per_image"), int | float)]
    return timed[0] if timed else None


async def _known(session: AsyncSession, name: str) -> str:
    versions = ", ".join(str(number) for number in await repository.version_numbers(session, name))
    aliases = ", ".join([LATEST, *await repository.aliases(session, name)])
    return f"it has versions {versions} and aliases {aliases}"
