"""Operations on deployments. Each function works in the caller's transaction and only flushes."""

from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import Deployment, DeploymentAction, DeploymentPut, DeploymentState, Scope

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import DeploymentRow
from tinyclip_server.deployments import repository
from tinyclip_server.deployments.target import last_known_good, requested_target
from tinyclip_server.http.callers import Caller
from tinyclip_server.http.resources import mark_deleting
from tinyclip_server.models import service as models
from tinyclip_server.problems import Conflict, InvalidInput, NotFound
from tinyclip_server.settings import Settings


async def put(session: AsyncSession, project: str, name: str, body: DeploymentPut) -> DeploymentRow:
    """Create a deployment, or update what it serves. Raises NotFound for a model, InvalidInput, Conflict."""
    versions = await _resolve(session, project, body)
    row = await session.get(DeploymentRow, name, with_for_update=True)
    spec = body.model_dump(mode="json")
    if row is None:
        row = DeploymentRow(name=name, project=project, spec=spec, **versions._asdict())
        session.add(row)
    elif row.project != project:
        raise Conflict(f"the name {name} is taken; choose another", code="name_taken")
    elif row.state == DeploymentState.DELETING:
        raise Conflict(f"deployment {name} is being deleted; wait until GET answers 404", code="deployment_deleting")
    elif _has_changes(row, spec, versions):
        is_serving = serving(row) is not None
        row.spec = spec
        for column, value in versions._asdict().items():
            setattr(row, column, value)
        row.state = DeploymentState.UPDATING if is_serving else DeploymentState.DEPLOYING
        row.message, row.updated_at = "", now()
        row.version += 1
    await session.flush()
    return row


async def get(session: AsyncSession, project: str, name: str, *, lock: bool = False) -> DeploymentRow:
    """Return a deployment. Raises NotFound."""
    row = await repository.find(session, project, name, lock=lock)
    if row is None:
        raise NotFound(f"there is no deployment {name}", code="no_such_deployment")
    return row


async def delete(session: AsyncSession, row: DeploymentRow) -> None:
    """Mark a deployment for deletion; its row is deleted once Serve has stopped its replicas."""
    mark_deleting(row)
    await session.flush()


def queryable(row: DeploymentRow) -> DeploymentRow:
    """Return the deployment if a version of it answers queries. Raises Conflict."""
    if serving(row) is None or row.state == DeploymentState.DELETING:
        reason = f" ({row.message})" if row.message else ""
        message = f"deployment {row.name} is {row.state} and answers no queries{reason}; wait until GET reports ready"
        raise Conflict(message, code="deployment_not_ready")
    return row


def endpoint(settings: Settings, name: str) -> str:
    """Return the URL of a deployment, at which this server reaches it too."""
    return f"{settings.serve_base_url}/{name}"


def view(settings: Settings, row: DeploymentRow, caller: Caller) -> Deployment:
    target = requested_target(row)
    return Deployment(
        name=row.name, model=target.model, canary=target.canary, models=target.models, resident=target.resident,
        state=DeploymentState(row.state), serving=serving(row), endpoint=endpoint(settings, row.name), replicas=target.replicas,
        engine=target.engine, message=row.message, actions=_actions(row, caller), created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _actions(row: DeploymentRow, caller: Caller) -> list[DeploymentAction]:
    if row.state == DeploymentState.DELETING:
        return []
    actions: list[DeploymentAction] = ["update", "delete"] if caller.may(Scope.WRITE) else []
    if serving(row) is not None and caller.may(Scope.INFER):
        actions.append("query")
    return actions


def serving(row: DeploymentRow) -> str | None:
    """Return the version that answers queries, as last observed; None if none does."""
    is_serving = row.state in (DeploymentState.READY, DeploymentState.UPDATING) or row.failed_version == row.version
    good = last_known_good(row)
    return good.model if good and is_serving else None


def etag(row: DeploymentRow) -> str:
    """Return the version of the request before the dot, which `If-Match` compares, and the state after it."""
    return f"{row.version}.{row.state}"


class _Versions(NamedTuple):
    """The resolved versions, by column of the row."""

    model_name: str
    model_version: int
    canary_version: int | None
    models: list[str]


async def _resolve(session: AsyncSession, project: str, body: DeploymentPut) -> _Versions:
    """Raises NotFound, InvalidInput."""
    name, version = await models.resolve(session, project, body.model)
    further = [await models.resolve(session, project, named, f"/models/{i}") for i, named in enumerate(body.models)]
    canary = None
    if body.canary is not None:
        other, canary = await models.resolve(session, project, body.canary.model, "/canary/model")
        if (other, canary) == (name, version) or other != name:
            message = f"a canary must be a version of {name} other than {version}, which the deployment serves"
            raise InvalidInput.field("/canary/model", body.canary.model, message)
    return _Versions(name, version, canary, [f"{name}@{version}" for name, version in further])


def _has_changes(row: DeploymentRow, spec: dict[str, object], versions: _Versions) -> bool:
    """Return whether Serve has anything to change; a target that failed to start counts as changed.

    An alias that still resolves to the same version is no change.
    """
    current = _Versions(row.model_name, row.model_version, row.canary_version, row.models)
    return row.failed_version == row.version or versions != current or _without_names(spec) != _without_names(row.spec)


def _without_names(spec: dict[str, Any]) -> dict[str, object]:
    """Return a spec without the names of models, which are compared by resolved version."""
    canary = spec.get("canary")
    rest = {key: value for key, value in spec.items() if key not in ("model", "models")}
    return DeploymentPut.model_validate({**rest, "model": "", "canary": canary and {**canary, "model": ""}}).model_dump()
