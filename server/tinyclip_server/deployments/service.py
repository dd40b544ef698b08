"""What can be done with deployments. Each function works in the caller's transaction and only flushes."""

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import Deployment, DeploymentPut, DeploymentState, ReplicaRange

from tinyclip_server.db import now
from tinyclip_server.deployments import repository
from tinyclip_server.models import service as models
from tinyclip_server.problems import Conflict, NotFound
from tinyclip_server.resources import ask_for_the_end
from tinyclip_server.settings import Settings
from tinyclip_server.tables import DeploymentRow


async def put(session: AsyncSession, project: str, name: str, body: DeploymentPut) -> DeploymentRow:
    """Make a deployment, or change what an existing one serves. Raises NotFound for the model, Conflict."""
    model_name, model_version = await models.resolve(session, project, body.model)
    row = await session.get(DeploymentRow, name, with_for_update=True)
    spec = body.model_dump(mode="json")
    if row is None:
        row = DeploymentRow(name=name, project=project, spec=spec, model_name=model_name, model_version=model_version)
        session.add(row)
    elif row.project != project:
        raise Conflict(f"the name {name} is taken; choose another", code="name_taken")
    elif row.state == DeploymentState.DELETING:
        raise Conflict(f"deployment {name} is being deleted; wait until GET answers 404", code="deployment_deleting")
    elif _asks_for_more(row, spec, model_name, model_version):
        answers = row.state in (DeploymentState.READY, DeploymentState.UPDATING)
        row.spec, row.model_name, row.model_version = spec, model_name, model_version
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
    return Deployment(
        name=row.name, model=f"{row.model_name}@{row.model_version}", state=DeploymentState(row.state),
        endpoint=f"{settings.serve_base_url}/{row.name}", replicas=ReplicaRange.model_validate(row.spec["replicas"]),
        engine=row.spec["engine"], message=row.message, created_at=row.created_at, updated_at=row.updated_at,
    )


def etag(row: DeploymentRow) -> str:
    """Before the dot what a user decides, after it what became of that."""
    return f"{row.version}.{row.state}"


def _asks_for_more(row: DeploymentRow, spec: dict[str, object], model_name: str, model_version: int) -> bool:
    """Whether anything would run differently: an alias that still means the same version changes nothing."""
    same = {key: value for key, value in spec.items() if key != "model"} == {k: v for k, v in row.spec.items() if k != "model"}
    return not same or (row.model_name, row.model_version) != (model_name, model_version)
