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


EngineName = Literal["auto", "torch", "torch-bf16", "openvino", "openvino-bf16", "openvino-int8"]
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


class Deployment(Response):
    name: str
    model: str
    """With its version resolved."""
    state: DeploymentState
    endpoint: str
    canary: Canary | None = None
    models: list[str] = []
    """With their versions resolved."""
    serving: str | None = None
    """The version that answers queries: during an update, and after a failed one, the version before it."""
    replicas: ReplicaRange
    engine: str
    message: str = ""
    created_at: Timestamp
    updated_at: Timestamp
