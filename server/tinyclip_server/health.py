"""Whether the process lives, whether it can serve, and its numbers for Prometheus."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError
from tinyclip.schemas import JobState

from tinyclip_server.problems import Unavailable
from tinyclip_server.services import ReadSession, Services, Uses
from tinyclip_server.tables import EventRow, JobRow, ModelVersionRow

router = APIRouter(tags=["health"])


@router.get("/livez")
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def ready(services: Uses) -> dict[str, str]:
    """The database has its tables, and the Ray cluster answers; else 503 saying which does not."""
    missing = [name for name, well in (await readiness(services)).items() if not well]
    if missing:
        raise Unavailable(f"not ready: {' and '.join(missing)} cannot be reached", code="not_ready", retry_after=1)
    return {"status": "ready", "database": "ok", "ray": "ok"}


@router.get("/metrics", response_class=Response)
async def metrics(session: ReadSession) -> Response:
    """Prometheus text: what the database holds, so that every replica says the same."""
    registry = CollectorRegistry()
    jobs = Gauge("tinyclip_jobs", "Jobs by state.", ["state"], registry=registry)
    for state in JobState:
        jobs.labels(state.value).set(0)
    for name, count in await session.execute(select(JobRow.state, func.count()).group_by(JobRow.state)):
        jobs.labels(name).set(count)
    for name, help, table in (
        ("tinyclip_model_versions", "Registered model versions.", ModelVersionRow),
        ("tinyclip_job_events", "Events of all jobs that are kept.", EventRow),
    ):
        total = await session.scalar(select(func.count()).select_from(table))
        Gauge(name, help, registry=registry).set(total or 0)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


async def readiness(services: Services) -> dict[str, bool]:
    """What the service needs, and whether it is there."""
    return {"database": await _database_works(services), "ray": await services.ray.ready()}


async def _database_works(services: Services) -> bool:
    try:
        async with services.db.read() as session:
            await session.execute(text("SELECT 1 FROM jobs LIMIT 1"))
    except (SQLAlchemyError, OSError):
        return False
    return True
