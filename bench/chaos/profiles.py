"""The profiles: ways to run the service, each with a real disk, database and Ray cluster."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tinyclip import Client

from bench.chaos.cluster import RayCluster
from bench.chaos.machine import processes_of, small_disk, wait_until
from bench.chaos.nodes import BRIDGE, NETWORK, Node, network
from bench.chaos.postgres import Postgres
from tests.e2e.service import Service

DISK_MB = 768


@dataclass
class Profile:
    """A running service. `planes` are its control planes; clients use the first."""

    name: str
    planes: list[Service]
    marker: str
    """Marker of the processes of its Ray cluster."""
    artifacts: Path
    disk: Path
    """The small disk with the artifacts, and for the embedded service with everything else."""
    client: Client
    cluster: RayCluster | None = None
    postgres: Postgres | None = None
    another_plane: Callable[[], Service] | None = None
    """Creates a further control plane, not started, if the profile allows several."""

    nodes: list[Node] = field(default_factory=list)
    """Nodes besides the head: the first has joined the cluster, the second has not."""

    @property
    def plane(self) -> Service:
        return self.planes[0]

    def drivers(self) -> set[int]:
        return processes_of(self.marker, "tinyclip_workers.training.driver")

    def workers(self) -> set[int]:
        """Return the ids of the training processes."""
        return processes_of(self.marker, "RayTrainWorker")

    def head(self) -> set[int]:
        """Return the ids of the head's GCS and raylet."""
        return processes_of(self.marker, "gcs/gcs_server", "raylet/raylet")

    def readiness(self) -> dict[str, Any]:
        """Return the document of /readyz."""
        document: dict[str, Any] = httpx.get(f"{self.plane.url}/readyz", timeout=60, trust_env=False).json()
        return document

    def prepare(self, planes: int) -> None:
        """Start or stop control planes until `planes` run, and wait for the last job's processes to end."""
        while len(self.planes) < planes:
            assert self.another_plane is not None
            self.planes.append(self.another_plane())
        for plane in self.planes[:planes]:
            if not plane.runs():
                plane.start()
        for plane in self.planes[planes:]:
            if plane.runs():
                plane.stop()
        wait_until(lambda: not self.drivers() and not self.workers(), "the end of the last job's processes")


@contextlib.contextmanager
def embedded(folder: Path) -> Iterator[Profile]:
    """Run `tinyclip-server up` with SQLite and an embedded Ray."""
    with _disk(folder):
        service = Service(folder)
        try:
            service.start()
            with Client(service.url) as client:
                yield Profile("SQLite", [service], str(service.data), service.artifacts, folder, client)
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
def two_nodes(folder: Path) -> Iterator[Profile]:
    """Run the same with a head and a node that have CPUs for one training worker each; a second node can join."""
    with network(2) as nodes:
        head = RayCluster(folder / "ray", address=f"{NETWORK}.1", cpus=1, environment={"GLOO_SOCKET_IFNAME": BRIDGE})
        with _production("two nodes", folder, head) as profile:
            profile.nodes = nodes
            profile.nodes[0].join(head, folder / "n0")
            yield profile


@contextlib.contextmanager
def _production(name: str, folder: Path, cluster: RayCluster) -> Iterator[Profile]:
    artifacts = folder / "artifacts"
    with contextlib.ExitStack() as stack:
        stack.enter_context(_disk(artifacts))
        postgres = Postgres(folder / "pg")
        stack.callback(postgres.stop_if_running)
        postgres.start()
        stack.callback(cluster.end)
        cluster.start()

        def control_plane() -> Service:
            place = Path(tempfile.mkdtemp(prefix="plane-", dir=folder))
            service = Service(place, environment_of(postgres.url, cluster, artifacts))
            stack.callback(service.end_everything)
            return service

        plane = control_plane()
        plane.migrate()
        plane.start()
        client = stack.enter_context(Client(plane.url))
        yield Profile(name, [plane], cluster.marker, artifacts, artifacts, client, cluster, postgres, control_plane)


def environment_of(database_url: str, cluster: RayCluster, artifacts: Path) -> dict[str, str]:
    """Return the environment variables of a control plane in the production profile."""
    return {
        "TINYCLIP_DATABASE_URL": database_url, "TINYCLIP_RAY_ADDRESS": cluster.url,
        "TINYCLIP_RAY_TOKEN_PATH": str(cluster.token), "TINYCLIP_ARTIFACTS": str(artifacts),
    }


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Mount a small disk at `folder` as root; else use a plain folder, for which cases that fill it are skipped."""
    folder.mkdir(exist_ok=True)
    with small_disk(folder, DISK_MB) if os.getuid() == 0 else contextlib.nullcontext():
        yield
