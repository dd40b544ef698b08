"""What can be done with deployments. Each function works in the caller's transaction and only flushes."""

from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import Deployment, DeploymentPut, DeploymentState

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import DeploymentRow
from tinyclip_server.deployments import repository
from tinyclip_server.deployments.target import asked, known_good
from tinyclip_server.http.resources import ask_for_the_end
from tinyclip_server.models import service as models
from tinyclip_server.problems import Conflict, InvalidInput, NotFound
from tinyclip_server.settings import Settings


async def put(session: AsyncSession, project: str, name: str, body: DeploymentPut) -> DeploymentRow:
    """Make a deployment, or change what an existing one serves. Raises NotFound for the model, Conflict."""
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
    elif _asks_for_more(row, spec, versions):
        answers = serving(row) is not None
        row.spec = spec
        for column, value in versions._asdict().items():
            setattr(row, column, value)
        row.state = DeploymentState.UPDATING if answers else DeploymentState.DEPLOYING
        row.message, row.updated_at = "", now()
        row.version += 1
    await session.flush()
    return row


async def get(session: AsyncSession, project: str, name: str, *, lock: bool = False) -> DeploymentRow:
    """Raises NotFound."""
    row = await repository.find(session, project, name, lock=lock)
    if row is None:
        raise NotFound(f"there is no deployment {name}", code="no_such_deployment")
    return row


async def delete(session: AsyncSession, row: DeploymentRow) -> None:
    """Ask for the end; the row goes when Serve has let go of its replicas."""
    ask_for_the_end(row)
    await session.flush()


def view(settings: Settings, row: DeploymentRow) -> Deployment:
    target = asked(row)
    return Deployment(
        name=row.name, model=target.model, canary=target.canary, models=target.models, state=DeploymentState(row.state),
        serving=serving(row), endpoint=f"{settings.serve_base_url}/{row.name}", replicas=target.replicas, engine=target.engine,
        message=row.message, created_at=row.created_at, updated_at=row.updated_at,
    )


def serving(row: DeploymentRow) -> str | None:
    """The version that answers, as far as was last seen."""
    answers = row.state in (DeploymentState.READY, DeploymentState.UPDATING) or row.failed_version == row.version
    good = known_good(row)
    return good.model if good and answers else None


def etag(row: DeploymentRow) -> str:
    """Before the dot what a user decides, after it what became of that."""
    return f"{row.version}.{row.state}"


class _Versions(NamedTuple):
    """Columns of the row."""

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
            message = f"a canary is another version of {name}, the model of this deployment, than {version}"
            raise InvalidInput.field("/canary/model", body.canary.model, message)
    return _Versions(name, version, canary, [f"{name}@{version}" for name, version in further])


def _asks_for_more(row: DeploymentRow, spec: dict[str, object], versions: _Versions) -> bool:
    """Whether anything would run differently: an alias that still means the same version changes nothing.

    What did not start is tried again.
    """
    now_known = _Versions(row.model_name, row.model_version, row.canary_version, row.models)
    return row.failed_version == row.version or versions != now_known or _but_for_names(spec) != _but_for_names(row.spec)


def _but_for_names(spec: dict[str, Any]) -> dict[str, object]:
    """A spec without the names of models, which are compared by what they mean."""
    canary = spec.get("canary")
    rest = {key: value for key, value in spec.items() if key not in ("model", "models")}
    return DeploymentPut.model_validate({**rest, "model": "", "canary": canary and {**canary, "model": ""}}).model_dump()
