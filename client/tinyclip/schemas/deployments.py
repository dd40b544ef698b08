"""Deployments as the API accepts and returns them."""

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from tinyclip.schemas._base import Request, Response, Timestamp


class ReplicaRange(Request):
    min: int = Field(default=1, ge=1)
    max: int = Field(default=1, ge=1)
    target_requests: int = Field(default=16, ge=1, le=64)
    """Requests under way at once that one replica is meant for: Ray Serve adds replicas above it and takes them away below."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError("max must be at least min")
        return self


class Canary(Request):
    """Another version of a deployment's model that answers a share of its queries."""

    model: str
    """Of the same name: `name@version`, `name@alias` or `name@latest`."""
    weight: float = Field(gt=0, lt=1)
    """The share that it answers, as 0.1."""


EngineName = Literal["auto", "torch", "torch-bf16", "openvino", "openvino-bf16", "openvino-int8"]
"""What computes a deployment's embeddings; `auto`: the fastest on the replica's hardware that is near enough to torch in fp32."""


class DeploymentPut(Request):
    model: str
    """`name@version`, `name@alias` or `name@latest`."""
    canary: Canary | None = None
    models: list[str] = Field(default=[], max_length=1000)
    """More models that the same replicas answer for, where a query names one as its `model`; loaded when first asked for."""
    resident: int = Field(default=4, ge=1)
    """How many of `models` a replica keeps in memory; the longest unused leaves for the next."""
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
    """With the version resolved."""
    state: DeploymentState
    endpoint: str
    canary: Canary | None = None
    models: list[str] = []
    """With their versions resolved."""
    serving: str | None = None
    """The version that answers: while an update is on its way, and after one that did not start, the one before it."""
    replicas: ReplicaRange
    engine: str
    message: str = ""
    created_at: Timestamp
    updated_at: Timestamp
