"""Deployments of models on Ray Serve."""

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from tinyclip.schemas._base import Line, Request, Response, Timestamp


class ReplicaRange(Request):
    min: int = Field(default=1, ge=1)
    max: int = Field(default=1, ge=1)
    target_requests: int = Field(default=16, ge=1, le=64)
    """Ongoing requests per replica that Ray Serve's autoscaling aims at."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError("max must be at least min")
        return self


class Canary(Request):
    """Another version of a deployment's model, which answers a share of its queries."""

    model: Line
    """A version of the same model: `name@version`, `name@alias` or `name@latest`."""
    weight: float = Field(gt=0, lt=1)
    """Its share of the queries, as 0.1."""


NamedEngine = Literal["torch", "torch-bf16", "openvino", "openvino-bf16", "openvino-int8"]
EngineName = Literal["auto", NamedEngine]
"""The inference engine; `auto`: the fastest on the replica's hardware whose embeddings are close enough to torch's in fp32."""


class DeploymentPut(Request):
    model: Line
    """`name@version`, `name@alias` or `name@latest`."""
    canary: Canary | None = None
    models: list[Line] = Field(default=[], max_length=1000)
    """Further models for the same replicas, chosen by a query's `model`; loaded at the first query."""
    resident: int = Field(default=4, ge=1)
    """How many of `models` a replica keeps in memory; the least recently used is evicted."""
    replicas: ReplicaRange = ReplicaRange()
    engine: EngineName = "auto"


class DeploymentState(StrEnum):
    DEPLOYING = "deploying"
    READY = "ready"
    UPDATING = "updating"
    UNHEALTHY = "unhealthy"
    DELETING = "deleting"

    @property
    def settled(self) -> bool:
        """True when no change is under way."""
        return self in (DeploymentState.READY, DeploymentState.UNHEALTHY)


DeploymentAction = Literal["update", "delete", "query"]
"""An operation on a deployment that its state and the caller's scopes allow."""


class Deployment(Response):
    name: str
    model: str
    """With its version resolved."""
    state: DeploymentState
    endpoint: str
    canary: Canary | None = None
    models: list[str] = []
    """With their versions resolved."""
    resident: int = 4
    """How many of `models` a replica keeps in memory."""
    serving: str | None = None
    """The version that answers queries: during an update, and after a failed one, the version before it."""
    replicas: ReplicaRange
    engine: str
    message: str = ""
    actions: list[DeploymentAction] = []
    """What the caller may do now."""
    created_at: Timestamp
    updated_at: Timestamp


class Latency(Response):
    """Times of requests, estimated from a histogram with 14 buckets from 1 ms to 30 s.

    Quantiles are interpolated within a bucket, as Prometheus does it; the mean takes the middle of each bucket.
    """

    count: int
    mean_ms: float | None = None
    """None, like the quantiles, without any request."""
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class RequestCount(Response):
    route: str
    status: int
    model: str
    """The version that answered: a canary has its own counts."""
    requests: int


class RouteLatency(Latency):
    route: str


class PhaseLatency(Latency):
    """Time of requests in one phase: body, fetch, decode, wait, encode, labels or search."""

    route: str
    phase: str


class ModelShare(Response):
    model: str
    requests: int
    share: float
    """Of all queries, 0 to 1."""


class Bucket(Response):
    up_to: float | None
    """None: any larger number."""
    count: int
    """Batches in this bucket alone."""


class BatchSizes(Response):
    """Items that were computed together."""

    kind: str
    """`images` or `texts`."""
    batches: int
    mean: float | None = None
    """Estimated from the buckets; exact for batches of one and two."""
    buckets: list[Bucket] = []


class CachedTexts(Response):
    """Texts whose embedding was known (hits) or was computed (misses)."""

    hits: int = 0
    misses: int = 0
    hit_rate: float | None = None


class ReplicaTraffic(Response):
    id: str
    state: str
    """Ray Serve's: STARTING, RUNNING, STOPPING and others."""
    node_id: str | None = None
    node_ip: str | None = None
    started_at: Timestamp | None = None
    requests: int | None = None
    """Queries since its start; None: its node does not answer, or nothing was measured yet."""
    mean_ms: float | None = None
    waiting_items: int | None = None


class Traffic(Response):
    """The traffic of a deployment since its present replicas started.

    `counts` and `routes` have all requests; `queries`, `latency`, `models` and the replicas have those that compute something.
    """

    deployment: str
    measured_at: Timestamp
    queries: int
    latency: Latency
    models: list[ModelShare] = []
    counts: list[RequestCount] = []
    routes: list[RouteLatency] = []
    phases: list[PhaseLatency] = []
    batches: list[BatchSizes] = []
    cached_texts: CachedTexts = CachedTexts()
    waiting: dict[str, int] = {}
    """Items admitted and not yet done, by kind."""
    replicas: list[ReplicaTraffic] = []
    unreachable: list[str] = []
    """Addresses of nodes whose replicas are missing from these numbers."""
