"""Models, their versions and comparisons of them."""

from typing import Any

from pydantic import Field

from tinyclip.schemas._base import JSON, Request, Response, Timestamp
from tinyclip.schemas.jobs import Scores
from tinyclip.schemas.layouts import AnyLayout, Params


class ModelFile(Response):
    path: str
    bytes: int
    sha256: str


class Compatibility(Response):
    """How well a version and its teacher search each other's images, in the retrieval tasks that the job evaluated."""

    teacher: str
    sha256: str
    """Of the teacher's weights."""
    axes: str | None = None
    """The version's file with the orthogonal matrix `axes` (E, E): an embedding of the teacher times it is in the version's
    coordinates. None: they are the same."""
    share: float
    """The lowest R@10 across the models, as a share of the teacher's own, of texts that search images."""
    metrics: dict[str, dict[str, dict[str, float | None]]] = {}
    """By task, `student_texts` (the student's texts search the teacher's images) and `teacher_texts`: R@1, R@5 and R@10, and
    `share`."""


class ModelVersion(Response):
    name: str
    version: int
    aliases: list[str] = []
    params: Params
    macs: int
    embed_dim: int
    embedding_sizes: list[int] = []
    """Sizes that its embeddings may be cut to (`dimensions`), the last of which is all; empty: it was not trained for any."""
    image_size: int
    context_length: int
    layout: AnyLayout
    evaluation: dict[str, Scores] = {}
    evaluated_by: dict[str, str] = {}
    """Tasks that were evaluated after training, and the id of the evaluation."""
    teacher: str | None = None
    compatible_with: Compatibility | None = None
    """Its teacher, if their embeddings have one size; None: not measured."""
    job: str | None = None
    lineage: JSON = {}
    files: list[ModelFile] = []
    created_at: Timestamp


class Model(Response):
    name: str
    latest: int
    aliases: dict[str, int] = {}
    versions: list[int]
    params: Params | None = None
    """Of the latest version; null from an older server."""
    created_at: Timestamp


class ComparedModel(Response):
    """One model's scores, and its teacher's on the same images."""

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
    """Milliseconds per image of the image tower, measured where the evaluation ran; None if not measured."""
    teacher: str | None
    embedding_sizes: list[int] = []
    compatible_share: float | None = None
    """`compatible_with.share`."""
    teacher_evaluation: dict[str, dict[str, Any]]
    teacher_latency_ms: float | None = None
    created_at: Timestamp


class Comparison(Response):
    """A comparison of models, in the requested order."""

    models: list[ComparedModel]


class AliasPut(Request):
    version: int = Field(ge=1)
