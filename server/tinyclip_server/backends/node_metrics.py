"""The metrics of replicas, which Ray's agent of each node exposes for Prometheus."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tinyclip.bounded_json import off_the_loop

from tinyclip_server.backends.ray_gateway import Ray, RayUnavailable
from tinyclip_server.backends.shared_reading import SharedReading

PREFIX = "ray_tinyclip_serve_"
NODES_AT_ONCE = 16
MAX_NODES = 500
SCRAPE_SECONDS = 3.0
"""Time of one reading of all nodes; those that have not answered then are unreachable."""
MAX_AGE_SECONDS = 2.0


@dataclass(frozen=True)
class ServeSnapshot:
    """Serve's status, and the metrics of the nodes with replicas."""

    status: dict[str, Any]
    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    """The metrics of replicas, by the id of their process."""
    unreachable: Mapping[str, str] = field(default_factory=dict)
    """The addresses of nodes that did not answer, by node."""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


class NodeMetrics:
    """Reads the nodes once for all callers of some seconds."""

    def __init__(self, ray: Ray) -> None:
        self._ray = ray
        self._snapshot = SharedReading(self._read, MAX_AGE_SECONDS)

    async def snapshot(self) -> ServeSnapshot:
        """Return what was read last. Raises RayUnavailable."""
        return await self._snapshot.get()

    async def _read(self) -> ServeSnapshot:
        status, nodes = await asyncio.gather(self._ray.serve_status(), self._ray.nodes())
        used = _nodes_with_replicas(status)
        addresses = {id: address for id, address in _addresses(nodes.get("summary") or ()) if id in used}
        texts: dict[str, str] = {}
        turns = asyncio.Semaphore(NODES_AT_ONCE)

        async def scrape(id: str, address: str) -> None:
            async with turns:
                texts[id] = await self._ray.node_metrics(address, PREFIX.encode())

        tasks = [asyncio.create_task(scrape(id, address)) for id, address in list(addresses.items())[:MAX_NODES]]
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=SCRAPE_SECONDS)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        _raise_bugs(ended)
        samples = await off_the_loop(sum(map(len, texts.values())), lambda: _by_worker(texts.values()))
        unreachable = {id: addresses.get(id) or used[id] for id in used if id not in texts}
        return ServeSnapshot(status, samples, unreachable)


def _raise_bugs(ended: Iterable[object]) -> None:
    for result in ended:
        if isinstance(result, Exception) and not isinstance(result, RayUnavailable):
            raise result


def _nodes_with_replicas(status: dict[str, Any]) -> dict[str, str]:
    """Return the addresses of nodes that have replicas of any application, by node."""
    return {
        replica["node_id"]: str(replica.get("node_ip") or replica["node_id"])
        for app in (status.get("applications") or {}).values()
        for deployment in (app.get("deployments") or {}).values()
        for replica in deployment.get("replicas") or ()
        if replica.get("node_id")
    }


def _addresses(nodes: Iterable[dict[str, Any]]) -> Iterable[tuple[str, str]]:
    """Yield id and address of the metrics of each node that is alive."""
    for node in nodes:
        raylet = node.get("raylet") or {}
        host, port = raylet.get("nodeManagerAddress") or node.get("ip") or "", raylet.get("metricsExportPort")
        if raylet.get("state") == "ALIVE" and raylet.get("nodeId") and host and port:
            yield raylet["nodeId"], f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _by_worker(texts: Iterable[str]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.labels.get("WorkerId", ""), []).append(sample)
    return found
