"""What a deployment's replicas hold: the spec of its row with every version resolved."""

from pydantic import BaseModel
from tinyclip.schemas import Canary, ReplicaRange

from tinyclip_server.database.tables import DeploymentRow


class Target(BaseModel):
    model: str
    """`name@version`, as all of them."""
    canary: Canary | None
    models: list[str]
    resident: int
    engine: str
    replicas: ReplicaRange


def asked(row: DeploymentRow) -> Target:
    """As the row's newest version has it."""
    spec = row.spec
    canary = spec.get("canary") and Canary(model=f"{row.model_name}@{row.canary_version}", weight=spec["canary"]["weight"])
    return Target(
        model=f"{row.model_name}@{row.model_version}",
        canary=canary or None,
        models=row.models,
        resident=spec.get("resident", 1),  # rows from before there were several models
        engine=spec["engine"],
        replicas=ReplicaRange.model_validate(spec["replicas"]),
    )


def to_run(row: DeploymentRow) -> Target:
    """What Serve is to run: what was asked for, or what answered before it if that did not start."""
    before = known_good(row)
    return before if before is not None and row.failed_version == row.version else asked(row)


def known_good(row: DeploymentRow) -> Target | None:
    return Target.model_validate(row.good) if row.good else None
