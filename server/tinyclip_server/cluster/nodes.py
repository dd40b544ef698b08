"""Nodes, from the report of Ray's dashboard."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from tinyclip.schemas import Amount, ClusterNode, Gpu

MAX_NODES = 1000
"""Nodes that are shown; those that are alive come first."""
MIB = 1 << 20
RESERVED = re.compile(r"([\d.e+-]+)/([\d.e+-]+) (\S+)(?: \(.*\))?")
"""Ray's text about a resource, as `0.5/4.0 CPU (0.5 used of 2.0 reserved in placement groups)`; memory has units."""


def nodes_of(data: Mapping[str, Any]) -> list[ClusterNode]:
    """Return the nodes of the data of `GET /nodes?view=summary`: the head first, those that have left last."""
    reserved = data.get("nodeLogicalResources") or {}
    nodes = [_node(one, reserved) for one in data.get("summary") or () if (one.get("raylet") or {}).get("nodeId")]
    return sorted(nodes, key=lambda node: (not node.alive, not node.is_head, node.hostname, node.id))[:MAX_NODES]


def _node(one: Mapping[str, Any], reserved: Mapping[str, str]) -> ClusterNode:
    raylet = one["raylet"]
    totals, logical = raylet.get("resourcesTotal") or {}, _logical(reserved.get(raylet["nodeId"]) or "")
    memory = [*(one.get("mem") or ()), None, None][:2]
    started = int(raylet.get("startTimeMs") or 0)
    return ClusterNode(
        id=raylet["nodeId"],
        hostname=raylet.get("nodeManagerHostname") or one.get("hostname") or "",
        ip=raylet.get("nodeManagerAddress") or one.get("ip") or "",
        alive=raylet.get("state") == "ALIVE",
        is_head=bool(raylet.get("isHeadNode")),
        joined_at=datetime.fromtimestamp(started / 1000, UTC) if started else None,
        cpus=logical.pop("CPU", Amount(total=totals.get("CPU", 0))),
        cpu_percent=one.get("cpu"),
        gpus=logical.pop("GPU", Amount(total=totals.get("GPU", 0))),
        devices=[_gpu(gpu) for gpu in one.get("gpus") or ()],
        memory=Amount(total=memory[0] or totals.get("memory", 0), used=_difference(memory[0], memory[1])),
        object_store=Amount(total=totals.get("objectStoreMemory", 0), used=raylet.get("objectStoreUsedMemory")),
        resources=logical,
        labels={str(key): str(value) for key, value in (raylet.get("labels") or {}).items()},
    )


def _logical(text: str) -> dict[str, Amount]:
    """Return the resources that can be reserved, without those that have a unit."""
    lines: Iterable[re.Match[str] | None] = (RESERVED.fullmatch(line.strip()) for line in text.splitlines())
    found = {line[3]: Amount(total=float(line[2]), used=float(line[1])) for line in lines if line}
    return {name: amount for name, amount in found.items() if not name.startswith("node:")}


def _gpu(gpu: Mapping[str, Any]) -> Gpu:
    total, used = gpu.get("memoryTotal"), gpu.get("memoryUsed")
    memory = Amount(total=total * MIB, used=None if used is None else used * MIB) if total else None
    return Gpu(name=str(gpu.get("name") or "GPU"), utilization=gpu.get("utilizationGpu"), memory=memory)


def _difference(total: float | None, available: float | None) -> float | None:
    return None if total is None or available is None else total - available
