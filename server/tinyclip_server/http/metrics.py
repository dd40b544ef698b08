"""Prometheus metrics: those of this process, and those of the database, which every server reports alike.

Labels have few values: route templates rather than paths, and names of running jobs only.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Scope
from tinyclip.schemas import DatasetState, DeploymentState, EvaluationState, ExportState, IndexState, JobState, ReinforcementState

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import (
    AttemptRow,
    DatasetRow,
    DeploymentRow,
    EvaluationRow,
    ExportRow,
    IndexRow,
    JobRow,
    ModelVersionRow,
    ReinforcementRow,
    SearchRow,
)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
MAX_JOB_SERIES = 100
"""Running jobs with series of their own; if there are more, the last to start."""


class Metrics:
    """The metrics of one server process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Histogram(
            "tinyclip_http_request_seconds", "Seconds until the response began, long polls included.",
            ["method", "route", "status"], buckets=SECONDS, registry=self.registry,
        )
        self.in_progress = Gauge(
            "tinyclip_http_requests_in_progress", "Requests in progress, event streams included.", registry=self.registry
        )
        self.round_seconds = Histogram(
            "tinyclip_loop_round_seconds", "Seconds that one round of a loop took; `jobs` is the scheduler.",
            ["loop"], buckets=SECONDS, registry=self.registry,
        )
        self.failures = Counter("tinyclip_loop_failures", "Rounds that failed.", ["loop"], registry=self.registry)
        self.lag = Gauge(
            "tinyclip_loop_lag_seconds", "Seconds since the last successful round of a loop.", ["loop"], registry=self.registry
        )
        self.lease_losses = Counter(
            "tinyclip_lease_losses", "Observations of a job that were dropped because another server holds its lease.",
            registry=self.registry,
        )
        self.dependency = Gauge(
            "tinyclip_dependency_up", "1 if the last check of a dependency succeeded, else 0.", ["dependency"],
            registry=self.registry,
        )
        self._ended: dict[str, float] = {}
        self._ended_well: dict[str, float] = {}

    def timed(self, loop: str, work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """Return a function that does the work and counts it as one round of the loop."""
        self._ended[loop] = self._ended_well[loop] = time.monotonic()
        # Series exist from the start: a rate over one that appears with its first round would miss that round.
        self.failures.labels(loop)
        self.round_seconds.labels(loop)

        async def round() -> None:
            began = time.monotonic()
            try:
                await work()
                self._ended_well[loop] = time.monotonic()
            except Exception:
                self.failures.labels(loop).inc()
                raise
            finally:
                self._ended[loop] = time.monotonic()
                self.round_seconds.labels(loop).observe(self._ended[loop] - began)

        return round

    def seconds_since_round(self, loop: str) -> float | None:
        """Return the seconds since a loop last ended a round, successfully or not; None if this server does not run it."""
        return None if loop not in self._ended else time.monotonic() - self._ended[loop]

    def refresh_lag(self) -> None:
        """Set the lag of every loop to the present time."""
        for loop, ended in self._ended_well.items():
            self.lag.labels(loop).set(time.monotonic() - ended)

    def request(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request that has been answered."""
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.requests.labels(method, route_of(scope), str(status)).observe(seconds)


def route_of(scope: Scope) -> str:
    """Return the template of the matched route; paths without a route share one name, since there is no limit to them."""
    template = getattr(scope.get("route"), "path", None)
    if template is None:
        return "unmatched"
    # A route knows its path inside its router, and all of those but health's are under /v1.
    return f"/v1{template}" if scope["path"].startswith("/v1/") and not template.startswith("/v1/") else str(template)


async def database_metrics(session: AsyncSession) -> CollectorRegistry:
    """Return gauges over the tables, for one scrape."""
    registry = CollectorRegistry()
    not_deleted = JobRow.deleted_at.is_(None)
    await _count(session, registry, "tinyclip_jobs", "Jobs by state.", "state", JobRow.state, JobState, not_deleted)
    await _count(session, registry, "tinyclip_attempts", "Attempts by outcome.", "outcome", AttemptRow.outcome, ("running",))
    await _count(session, registry, "tinyclip_deployments", "Deployments.", "state", DeploymentRow.state, DeploymentState)
    await _count(session, registry, "tinyclip_datasets", "Data sets.", "state", DatasetRow.state, DatasetState)
    column = ReinforcementRow.state
    await _count(session, registry, "tinyclip_reinforcements", "Reinforcements.", "state", column, ReinforcementState)
    await _count(session, registry, "tinyclip_indexes", "Indexes.", "state", IndexRow.state, IndexState)
    await _count(session, registry, "tinyclip_evaluations", "Evaluations.", "state", EvaluationRow.state, EvaluationState)
    await _count(session, registry, "tinyclip_exports", "Exports.", "state", ExportRow.state, ExportState)
    not_removed = SearchRow.deleted_at.is_(None)
    await _count(session, registry, "tinyclip_searches", "Searches.", "state", SearchRow.state, JobState, not_removed)
    versions = await session.scalar(select(func.count()).select_from(ModelVersionRow))
    Gauge("tinyclip_model_versions", "Registered model versions.", registry=registry).set(versions or 0)
    oldest = await session.scalar(select(func.min(JobRow.created_at)).where(JobRow.state == JobState.QUEUED))
    age = Gauge("tinyclip_queue_age_seconds", "Age of the oldest queued job; 0 if none is queued.", registry=registry)
    age.set((now() - oldest).total_seconds() if oldest else 0.0)
    await _running_jobs(session, registry)
    return registry


async def _count(
    session: AsyncSession,
    registry: CollectorRegistry,
    name: str,
    help: str,
    label: str,
    column: Any,
    always: Any,
    *where: Any,
) -> None:
    """Count the rows that match `where` by a column's value; the value NULL is reported as `running`.

    The values in `always` are reported even where there are no such rows.
    """
    gauge = Gauge(name, help, [label], registry=registry)
    for value in always:
        gauge.labels(str(value)).set(0)
    for value, count in await session.execute(select(column, func.count()).where(*where).group_by(column)):
        gauge.labels(str(value or "running")).set(count)


async def _running_jobs(session: AsyncSession, registry: CollectorRegistry) -> None:
    labels = ["job", "name"]
    speed = Gauge("tinyclip_job_pairs_per_second", "Image-text pairs a second of a running job.", labels, registry=registry)
    fraction = Gauge("tinyclip_job_progress_ratio", "How much of a running job is done, 0 to 1.", labels, registry=registry)
    running = select(JobRow.id, JobRow.name, JobRow.progress).where(JobRow.state == JobState.RUNNING)
    for job, name, progress in await session.execute(running.order_by(JobRow.started_at.desc()).limit(MAX_JOB_SERIES)):
        fraction.labels(job, name).set(progress.get("fraction") or 0.0)
        if progress.get("pairs_per_second") is not None:
            speed.labels(job, name).set(progress["pairs_per_second"])
