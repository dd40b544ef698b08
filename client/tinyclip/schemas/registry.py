"""Models, deployments and indexes as the API shows them."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tinyclip.schemas._base import JSON, Request, Response, Timestamp
from tinyclip.schemas.jobs import Scores
from tinyclip.schemas.layouts import Layout, Params


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

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError("max must be at least min")
        return self


EngineName = Literal["auto", "torch", "torch-bf16", "openvino", "openvino-bf16", "openvino-int8"]
"""What computes a deployment's embeddings; `auto`: the fastest on the replica's hardware that is near enough to torch in fp32."""


class DeploymentPut(Request):
    model: str
    """`name@version`, `name@alias` or `name@latest`."""
    replicas: ReplicaRange = ReplicaRange()
    engine: EngineName = "auto"


class DeploymentState(StrEnum):
    DEPLOYING = "deploying"
    READY = "ready"
    UPDATING = "updating"
    UNHEALTHY = "unhealthy"
    DELETING = "deleting"


class Deployment(Response):
    name: str
    model: str
    """With the version resolved."""
    state: DeploymentState
    endpoint: str
    replicas: ReplicaRange
    engine: str
    message: str = ""
    created_at: Timestamp
    updated_at: Timestamp


class IndexSource(Request):
    shards: str | list[str]
    image_key: list[str] = ["jpg", "png", "webp", "jpeg"]
    metadata_keys: list[str] = ["json"]


class IndexPut(Request):
    model: str
    source: IndexSource | None = None
    """null: an empty index, to be filled item by item."""


class IndexState(StrEnum):
    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"
    DELETING = "deleting"


class Index(Response):
    name: str
    model: str
    state: IndexState
    count: int = 0
    progress: float = 0.0
    message: str = ""
    created_at: Timestamp
    updated_at: Timestamp


class ZeroShotRequest(Request):
    image: str | None = None
    images: Annotated[list[str], Field(min_length=1, max_length=256)] | None = None
    labels: list[str] = Field(min_length=1, max_length=10_000)
    templates: list[str] = Field(default=["{}"], min_length=1, max_length=200)
    top_k: int = Field(default=5, ge=1)
    on_error: Literal["fail", "skip"] = "fail"


class LabelScore(Response):
    label: str
    score: float


class ZeroShotResponse(Response):
    results: list[list[LabelScore] | None]
    model: str


class EmbeddingsRequest(Request):
    input: str | list[str]
    modality: Literal["text", "image"] = "text"
    encoding_format: Literal["float", "base64"] = "float"
    model: str | None = None


class Embedding(Response):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str
    """L2-normalised; with `encoding_format: base64` its little-endian float32 bytes."""


class EmbeddingsUsage(Response):
    prompt_tokens: int = 0
    total_tokens: int = 0


class EmbeddingsResponse(Response):
    """The shape of OpenAI's answer."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage = EmbeddingsUsage()


class SearchRequest(Request):
    index: str
    text: str | None = None
    image: str | None = None
    top_k: int = Field(default=10, ge=1, le=1000)


class Hit(Response):
    id: str
    score: float
    metadata: JSON


class SearchResponse(Response):
    hits: list[Hit]
    model: str
