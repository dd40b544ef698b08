"""Models and deployments as the API shows them, and what deployments answer."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tinyclip.schemas._base import JSON, Request, Response, Timestamp
from tinyclip.schemas.jobs import Scores
from tinyclip.schemas.layouts import Layout, Params
from tinyclip.schemas.problems import FieldError


class ModelFile(Response):
    path: str
    bytes: int
    sha256: str


class ModelVersion(Response):
    name: str
    version: int
    aliases: list[str] = []
    params: Params
    macs: int
    embed_dim: int
    image_size: int
    context_length: int
    layout: Layout
    evaluation: dict[str, Scores] = {}
    evaluated_by: dict[str, str] = {}
    """Tasks that were measured after training, and the evaluation that did."""
    teacher: str | None = None
    job: str | None = None
    lineage: JSON = {}
    files: list[ModelFile] = []
    created_at: Timestamp


class Model(Response):
    name: str
    latest: int
    aliases: dict[str, int] = {}
    versions: list[int]
    created_at: Timestamp


class ComparedModel(Response):
    """One model's row, with the row of its teacher on the same images."""

    name: str
    version: int
    params: Params
    macs: int
    embed_dim: int
    image_size: int
    context_length: int
    evaluation: dict[str, dict[str, Any]]
    """By task."""
    latency_ms: float | None = None
    """Of the image tower, a picture, where the evaluation ran; null where none was timed."""
    teacher: str | None
    teacher_evaluation: dict[str, dict[str, Any]]
    teacher_latency_ms: float | None = None
    created_at: Timestamp


class Comparison(Response):
    """Models side by side, in the order asked for."""

    models: list[ComparedModel]


class AliasPut(Request):
    version: int = Field(ge=1)


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


class ZeroShotRequest(Request):
    model: str | None = None
    """Of several models of a deployment, the one to ask; without it, the deployment's own, or now and then its canary."""
    image: str | None = None
    images: Annotated[list[str], Field(min_length=1, max_length=256)] | None = None
    labels: Annotated[list[str], Field(min_length=1, max_length=10_000)] | None = None
    label_set: str | None = None
    """A registered set, instead of labels and templates."""
    templates: list[str] = Field(default=["{}"], min_length=1, max_length=200)
    top_k: int = Field(default=5, ge=1)
    on_error: Literal["fail", "skip"] = "fail"


class LabelScore(Response):
    label: str
    score: float


class ZeroShotResponse(Response):
    results: list[list[LabelScore] | None]
    """null for an image that was skipped."""
    model: str
    errors: list[FieldError] = []
    """Why images were skipped, with `on_error: skip`."""


_PART_SCHEMA: JSON = {"type": "object", "properties": {"text": {"type": "string"}, "image": {"type": "string"}}}
_INPUT_SCHEMA: JSON = {
    "anyOf": [
        {"type": "string"}, _PART_SCHEMA, {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, _PART_SCHEMA]}}
    ]
}  # fmt: skip


class EmbeddingPart(Request):
    """One input that says what it is: give one of the two."""

    text: str | None = None
    image: str | None = None


class EmbeddingsRequest(Request):
    """OpenAI's, with images: `modality` says what strings are, parts say it themselves, and messages are chat messages."""

    input: Annotated[Any, Field(json_schema_extra=_INPUT_SCHEMA)] = None
    """A text or an image, an `EmbeddingPart`, or a list of these."""
    messages: Annotated[list[JSON], Field(min_length=1)] | None = None
    """Instead of `input`; each `text` and `image_url` part of their content becomes an embedding, in order."""
    modality: Literal["text", "image"] = "text"
    encoding_format: Literal["float", "base64"] = "float"
    on_error: Literal["fail", "skip"] = "fail"
    dimensions: int | None = None
    """Only the model's own number."""
    model: str | None = None
    user: str | None = None
    """Of OpenAI's shape; not used."""


class Embedding(Response):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str | None
    """null for an image that was skipped; else L2-normalised; with `encoding_format: base64` its little-endian float32 bytes."""


class EmbeddingsUsage(Response):
    prompt_tokens: int = 0
    total_tokens: int = 0


class EmbeddingsResponse(Response):
    """The shape of OpenAI's answer."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage = EmbeddingsUsage()
    errors: list[FieldError] = []
    """Why images were skipped, with `on_error: skip`."""
