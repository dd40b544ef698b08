"""The target of a deployment: its spec with every version resolved."""

from pydantic import BaseModel
from tinyclip.schemas import Canary, ReplicaRange

from tinyclip_server.database.tables import DeploymentRow


class Target(BaseModel):
    """The versions and settings that the replicas of a deployment serve."""

    model: str
    """`name@version`, like all models here."""
    canary: Canary | None
    models: list[str]
    resident: int
    engine: str
    replicas: ReplicaRange


def requested_target(row: DeploymentRow) -> Target:
    """Return the target of the newest request."""
    spec = row.spec
    canary = spec.get("canary") and Canary(model=f"{row.model_name}@{row.canary_version}", weight=spec["canary"]["weight"])
    return Target(
        model=f"{row.model_name}@{row.model_version}",
        canary=canary or None,
        models=row.models,
        resident=spec.get("resident", 1),  # rows from before deployments had several models
        engine=spec["engine"],
        replicas=ReplicaRange.model_validate(spec["replicas"]),
    )


def target_to_run(row: DeploymentRow) -> Target:
    """Return what Serve should run: the requested target, or the last known good one if that failed to start."""
    good = last_known_good(row)
    return good if good is not None and row.failed_version == row.version else requested_target(row)


def last_known_good(row: DeploymentRow) -> Target | None:
    """Return the target that was last ready, if any."""
    return Target.model_validate(row.good) if row.good else None
