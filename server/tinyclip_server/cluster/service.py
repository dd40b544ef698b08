"""The state of the cluster for one project."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tinyclip.hosts import is_known_host
from tinyclip.schemas import Cluster, Workload

from tinyclip_server.backends.ray_gateway import LiveJob, Ray, RayUnavailable, works_in
from tinyclip_server.cluster import repository
from tinyclip_server.cluster.nodes import nodes_of
from tinyclip_server.cluster.repository import Resource
from tinyclip_server.deployments.replicas import ReplicaStatus, count_replicas, replicas_of
from tinyclip_server.http.services import Services
from tinyclip_server.settings import Settings

logger = logging.getLogger(__name__)

MAX_WORKLOADS = 1000


@dataclass(frozen=True)
class Report:
    """Ray's answers about the cluster, for all projects."""

    version: str
    nodes: dict[str, Any]
    serve: dict[str, Any]
    jobs: list[LiveJob]
    actors: dict[str, set[str]] = field(default_factory=dict)


async def cluster(services: Services, project: str) -> Cluster:
    """Return nodes and workloads. Raises RayUnavailable."""
    report = await _read(services.ray)
    own_jobs = [job for job in report.jobs if job.submission_id and works_in(job.entrypoint, services.store.root)]
    async with services.db.read() as session:
        resources = await repository.resources_of(session, project, [job.submission_id for job in own_jobs])
        deployments = await repository.deployments_of(session, project)
    replicas = [(row.name, one) for row in deployments for one in replicas_of(services, row, report.serve)]
    jobs = [(job, resources[job.submission_id]) for job in own_jobs if job.submission_id in resources]
    drivers = [job for job in report.jobs if job.submission_id]  # without Serve's controller and consoles
    workloads = [_job(job, resource, report.actors) for job, resource in jobs] + [_replica(*one) for one in replicas]
    return Cluster(
        ray_version=report.version,
        dashboard_url=dashboard_url(services.settings),
        nodes=await asyncio.to_thread(nodes_of, report.nodes),
        workloads=workloads[:MAX_WORKLOADS],
        others=len(drivers) - len(jobs) + count_replicas(report.serve) - len(replicas),
    )


def dashboard_url(settings: Settings) -> str | None:
    """Return where a browser opens Ray's dashboard, if that is known."""
    if settings.ray_dashboard_url:
        return settings.ray_dashboard_url.rstrip("/")
    is_here = all(is_known_host(host) for host in (settings.host, urlsplit(settings.ray_address).hostname or ""))
    return settings.ray_address if settings.embedded and is_here else None


async def _read(ray: Ray) -> Report:
    version, nodes, serve, jobs, actors = await asyncio.gather(
        ray.cluster_version(), ray.nodes(), ray.serve_status(), ray.live_jobs(), _actors(ray)
    )
    return Report(version, nodes, serve, jobs, actors)


async def _actors(ray: Ray) -> dict[str, set[str]]:
    """Return where actors run; nothing if Ray does not list them now, for its limit of requests."""
    try:
        return await ray.actor_nodes()
    except RayUnavailable as error:
        logger.info("the nodes of workers are not shown: %s", error)
        return {}


def _job(job: LiveJob, resource: Resource, actors: Mapping[str, set[str]]) -> Workload:
    nodes = actors.get(job.ray_id, set()) | ({job.driver_node} if job.driver_node else set())
    return Workload(
        kind=resource.kind, name=resource.name, id=resource.id, submission_id=job.submission_id, status=job.status,
        driver_node=job.driver_node, nodes=sorted(nodes), started_at=job.started_at,
    )  # fmt: skip


def _replica(deployment: str, replica: ReplicaStatus) -> Workload:
    nodes: Sequence[str] = [replica.node_id] if replica.node_id else []
    return Workload(
        kind="replica", name=deployment, id=deployment, replica=replica.id, status=replica.state, nodes=list(nodes),
        started_at=replica.started_at,
    )  # fmt: skip
