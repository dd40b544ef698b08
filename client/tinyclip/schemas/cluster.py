"""The Ray cluster: its nodes, and what runs on them."""

from typing import Literal

from tinyclip.schemas._base import Response, Timestamp


class Amount(Response):
    """A resource of a node; `used` is None where it is not known."""

    total: float
    used: float | None = None


class Gpu(Response):
    name: str
    utilization: float | None = None
    """In percent."""
    memory: Amount | None = None
    """In bytes."""


class ClusterNode(Response):
    id: str
    hostname: str
    ip: str
    alive: bool
    is_head: bool
    joined_at: Timestamp | None = None
    cpus: Amount
    """`used`: what jobs and replicas reserve, which is not the load."""
    cpu_percent: float | None = None
    """The load of the whole machine."""
    gpus: Amount
    """As `cpus`."""
    devices: list[Gpu] = []
    memory: Amount
    """Of the machine, in bytes."""
    object_store: Amount
    """In bytes."""
    resources: dict[str, Amount] = {}
    """Other resources that can be reserved, as `tinyclip_serving_cpu`."""
    labels: dict[str, str] = {}


WorkloadKind = Literal["job", "dataset", "reinforcement", "index", "evaluation", "export", "search", "replica"]


class Workload(Response):
    """A Ray job of this project, or a replica of one of its deployments."""

    kind: WorkloadKind
    name: str
    """The resource's name."""
    id: str
    """The resource's id, or its name if it has none."""
    submission_id: str | None = None
    """Ray's id of the job."""
    replica: str | None = None
    status: str
    """Ray's: PENDING or RUNNING for a job, RUNNING and others for a replica."""
    driver_node: str | None = None
    """The node of a job's driver."""
    nodes: list[str] = []
    """Ids of the nodes that it runs on, as far as Ray reports them."""
    started_at: Timestamp | None = None


class Cluster(Response):
    ray_version: str
    dashboard_url: str | None = None
    """Where a browser opens Ray's dashboard; None: not known."""
    nodes: list[ClusterNode]
    workloads: list[Workload]
    others: int = 0
    """Jobs and replicas of other projects and of other programs on the same cluster."""
