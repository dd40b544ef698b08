"""The profiles: ways to run the service, each with a real disk or object store, database and Ray cluster."""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tinyclip import Client

from bench.chaos.cluster import RayCluster
from bench.chaos.files import Files, LocalFiles, S3Files
from bench.chaos.machine import processes_of, small_disk, wait_until
from bench.chaos.nodes import BRIDGE, NETWORK, OWN_PROCESSES, Node, network
from bench.chaos.postgres import Postgres
from tests.e2e.service import Service
from tests.fault_proxy import FaultProxy, fault_proxy, s3_proxy
from tests.s3 import s3_server

DISK_MB = 1536
LEASE_SECONDS, UNKNOWN_GRACE_SECONDS, STATUS_SECONDS = 2.0, 3.0, 0.5
"""Settings of the control planes with PostgreSQL, below their defaults (30, 60 and 2 s) so that each fault takes seconds."""
STORE_TIMEOUTS = {"connect_timeout": 2, "read_timeout": 3}
"""Seconds, for all clients of the object store."""
RAY_TIME_LIMITS = {
    "RAY_health_check_initial_delay_ms": "2000", "RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_grpc_client_keepalive_time_ms": "5000", "RAY_grpc_client_keepalive_timeout_ms": "5000",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
}
"""Ray declares a node dead after about 4 s; by default, after about 65 s. A node without a head ends after about 20 s; by
default, after about 180 s."""
LEFT_SECONDS = 120.0
"""Time in which the processes of ended jobs exit."""


@dataclass
class Profile:
    """A running service. `planes` are its control planes; clients use the first."""

    name: str
    planes: list[Service]
    marker: str
    """Marker of the processes of its Ray cluster."""
    files: Files
    """Its artifacts."""
    disk: Path
    """The small disk with the artifacts, and for the embedded service with everything else."""
    client: Client
    cluster: RayCluster | None = None
    postgres: Postgres | None = None
    another_plane: Callable[[], Service] | None = None
    """Creates a further control plane, not started, if the profile allows several."""
    ray: FaultProxy | None = None
    """The proxy between the control planes and Ray."""
    stores: list[FaultProxy] = field(default_factory=list)
    """The proxies between an object store and the control planes, and between it and the nodes."""
    nodes: list[Node] = field(default_factory=list)
    """Nodes besides the head: one of them has joined the cluster, the other one can."""

    @property
    def plane(self) -> Service:
        return self.planes[0]

    def drivers(self, job: str = "") -> set[int]:
        """Return the ids of the drivers of one job, or of all."""
        drivers = processes_of(self.marker, "tinyclip_workers.training.driver")
        return drivers & processes_of(self.marker, job) if job else drivers

    def workers(self) -> set[int]:
        """Return the ids of the training processes."""
        return processes_of(self.marker, "RayTrainWorker")

    def controllers(self) -> set[int]:
        """Return the ids of Ray Train's processes that supervise the workers."""
        return processes_of(self.marker, "TrainController")

    def head(self) -> set[int]:
        """Return the ids of the head's GCS and raylet."""
        found = processes_of(self.marker, "gcs/gcs_server", "raylet/raylet")
        return found.difference(*(node.processes() for node in self.nodes))

    def readiness(self) -> dict[str, Any]:
        """Return the document of /readyz."""
        document: dict[str, Any] = httpx.get(f"{self.plane.url}/readyz", timeout=60, trust_env=False).json()
        return document

    def prepare(self, planes: int) -> None:
        """Start or stop control planes until `planes` run, and wait for the last jobs' processes to end."""
        while len(self.planes) < planes:
            assert self.another_plane is not None
            self.planes.append(self.another_plane())
        for plane in self.planes[:planes]:
            if not plane.runs():
                plane.start()
        for plane in self.planes[planes:]:
            if plane.runs():
                plane.stop()
        wait_until(lambda: not self.drivers() | self.workers() | self.controllers(), "all jobs' processes to end", LEFT_SECONDS)


@contextlib.contextmanager
def embedded(folder: Path) -> Iterator[Profile]:
    """Run `tinyclip-server up` with SQLite and an embedded Ray."""
    with _disk(folder):
        service = Service(folder)
        try:
            service.start()
            with Client(service.url) as client:
                yield Profile("SQLite", [service], str(service.data), LocalFiles(service.artifacts), folder, client)
        finally:
            if service.runs():
                service.stop()
            service.end_everything()


@contextlib.contextmanager
def production(folder: Path) -> Iterator[Profile]:
    """Run PostgreSQL, a separate Ray cluster and a control plane, to which others can be added."""
    with _production("PostgreSQL", folder, RayCluster(folder / "ray")) as profile:
        yield profile


@contextlib.contextmanager
def object_store(folder: Path) -> Iterator[Profile]:
    """Run the same with the artifacts on S3, which control planes and nodes reach through a proxy each."""
    with s3_server() as direct, s3_proxy(direct) as (plane_proxy, plane), s3_proxy(direct) as (node_proxy, node):
        timeouts = {"FSSPEC_S3": json.dumps({"config_kwargs": STORE_TIMEOUTS})}
        cluster = RayCluster(folder / "ray", environment={**node, **timeouts})
        with _production("S3", folder, cluster, files=S3Files(direct), environment={**plane, **timeouts}) as profile:
            profile.stores = [plane_proxy, node_proxy]
            yield profile


@contextlib.contextmanager
def two_nodes(folder: Path) -> Iterator[Profile]:
    """Run a head and a node that have CPUs for one training worker each; a second node can join."""
    with network(2, cpus=1) as nodes:
        head = RayCluster(folder / "ray", address=f"{NETWORK}.1", cpus=1, head_environment={"GLOO_SOCKET_IFNAME": BRIDGE})
        with _production("two nodes", folder, head) as profile:
            profile.nodes = nodes
            nodes[0].join(head, folder)
            yield profile


@contextlib.contextmanager
def drivers_on_nodes(folder: Path) -> Iterator[Profile]:
    """Run a head without CPUs, and one of two nodes with CPUs for the drivers and workers of several jobs."""
    with network(2, cpus=6) as nodes:
        head = RayCluster(folder / "ray", address=f"{NETWORK}.1", cpus=0, environment=RAY_TIME_LIMITS, inside=OWN_PROCESSES)
        with _production("drivers on nodes", folder, head, environment={"TINYCLIP_DRIVER_CPUS": "0.1"}) as profile:
            profile.nodes = nodes
            nodes[0].join(head, folder)
            yield profile


@contextlib.contextmanager
def _production(
    name: str, folder: Path, cluster: RayCluster, *, files: Files | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Profile]:
    """Run PostgreSQL, the cluster and a control plane. Without `files`, the artifacts are on a disk."""
    disk = folder / "artifacts"
    files = files or LocalFiles(disk)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_disk(disk))
        postgres = Postgres(folder / "pg")
        stack.callback(postgres.stop_if_running)
        postgres.start()
        stack.callback(cluster.end)
        cluster.start()
        ray = stack.enter_context(fault_proxy(cluster.url))
        settings = {**environment_of(postgres.url, ray.url, cluster.token, files.root), **(environment or {})}

        def control_plane() -> Service:
            place = Path(tempfile.mkdtemp(prefix="plane-", dir=folder))
            service = Service(place, settings)
            stack.callback(service.end_everything)
            return service

        plane = control_plane()
        plane.migrate()
        plane.start()
        client = stack.enter_context(Client(plane.url))
        yield Profile(name, [plane], cluster.marker, files, disk, client, cluster, postgres, control_plane, ray)


def environment_of(database_url: str, ray_url: str, ray_token: Path, artifacts: str) -> dict[str, str]:
    """Return the environment variables of a control plane in the production profile."""
    return {
        "TINYCLIP_DATABASE_URL": database_url, "TINYCLIP_RAY_ADDRESS": ray_url, "TINYCLIP_RAY_TOKEN_PATH": str(ray_token),
        "TINYCLIP_ARTIFACTS": artifacts, "TINYCLIP_LEASE_SECONDS": str(LEASE_SECONDS),
        "TINYCLIP_UNKNOWN_GRACE_SECONDS": str(UNKNOWN_GRACE_SECONDS), "TINYCLIP_STATUS_SECONDS": str(STATUS_SECONDS),
    }


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Mount a small disk at `folder` as root; else use a plain folder, for which cases that fill it are skipped."""
    folder.mkdir(exist_ok=True)
    with small_disk(folder, DISK_MB) if os.getuid() == 0 else contextlib.nullcontext():
        yield
