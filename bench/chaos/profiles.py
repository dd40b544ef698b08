"""The two ways to run the service, each with its disk, its database and its Ray, started for real."""

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
from bench.chaos.machine import processes_of, small_disk, until
from bench.chaos.nodes import BRIDGE, NETWORK, Node, network
from bench.chaos.postgres import Postgres
from tests.e2e.service import Service

DISK_MB = 768


@dataclass
class Profile:
    """A running service. `planes` are its control planes; clients talk to the first."""

    name: str
    planes: list[Service]
    marker: str
    """Of every process of its Ray."""
    artifacts: Path
    disk: Path
    """The small disk that the artifacts are on; for the embedded service everything is."""
    client: Client
    cluster: RayCluster | None = None
    postgres: Postgres | None = None
    another_plane: Callable[[], Service] | None = None
    """Makes a further control plane, not started, where there may be several."""

    nodes: list[Node] = field(default_factory=list)
    """Beside the head: the first is in the cluster, the second is not yet."""

    @property
    def plane(self) -> Service:
        return self.planes[0]

    def drivers(self) -> set[int]:
        return processes_of(self.marker, "tinyclip_workers.training.driver")

    def workers(self) -> set[int]:
        """Processes that train."""
        return processes_of(self.marker, "RayTrainWorker")

    def head(self) -> set[int]:
        """What makes a node the head: the GCS, which has all records, and the raylet."""
        return processes_of(self.marker, "gcs/gcs_server", "raylet/raylet")

    def readiness(self) -> dict[str, Any]:
        """What /readyz says."""
        document: dict[str, Any] = httpx.get(f"{self.plane.url}/readyz", timeout=60, trust_env=False).json()
        return document

    def prepare(self, planes: int) -> None:
        """So many control planes run, and nothing trains any more."""
        while len(self.planes) < planes:
            assert self.another_plane is not None
            self.planes.append(self.another_plane())
        for plane in self.planes[:planes]:
            if not plane.runs():
                plane.start()
        for plane in self.planes[planes:]:
            if plane.runs():
                plane.stop()
        until(lambda: not self.drivers() and not self.workers(), "the end of the last job's processes")


@contextlib.contextmanager
def embedded(folder: Path) -> Iterator[Profile]:
    """`tinyclip-server up` with SQLite and a Ray of its own."""
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
    """PostgreSQL, a Ray cluster of its own, and a control plane, to which others can be added."""
    with _production("PostgreSQL", folder, RayCluster(folder / "ray")) as profile:
        yield profile


@contextlib.contextmanager
def two_nodes(folder: Path) -> Iterator[Profile]:
    """The same, of whose Ray the head has room for one training worker, a node beside it for another; a third is to join."""
    with network(2) as nodes:
        head = RayCluster(folder / "ray", address=f"{NETWORK}.1", cpus=1, environment={"GLOO_SOCKET_IFNAME": BRIDGE})
        with _production("two nodes", folder, head) as profile:
            profile.nodes = nodes
            profile.nodes[0].joins(head, folder / "n0")
            yield profile


@contextlib.contextmanager
def _production(name: str, folder: Path, cluster: RayCluster) -> Iterator[Profile]:
    artifacts = folder / "artifacts"
    with contextlib.ExitStack() as stack:
        stack.enter_context(_disk(artifacts))
        postgres = Postgres(folder / "pg")
        stack.callback(postgres.stop_if_it_runs)
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
    """What a control plane of the production profile is told."""
    return {
        "TINYCLIP_DATABASE_URL": database_url, "TINYCLIP_RAY_ADDRESS": cluster.url,
        "TINYCLIP_RAY_TOKEN_PATH": str(cluster.token), "TINYCLIP_ARTIFACTS": str(artifacts),
    }


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """A small disk of its own where we may mount one; else a plain folder, and cases that fill it are left out."""
    folder.mkdir(exist_ok=True)
    with small_disk(folder, DISK_MB) if os.getuid() == 0 else contextlib.nullcontext():
        yield
