"""Models, their versions and comparisons of them."""

from typing import Any, Literal, TypeAlias

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


class InheritedBlocks(Response):
    """For each block of a model, the number of the block that it comes from, from 0."""

    image: list[int] | None = None
    """None for a ResNet."""
    text: list[int]


class KeptPredictions(Response):
    """The predictions of a version for each image of a task, which are kept beside its metrics."""

    images: int
    """Images that were evaluated."""
    kept: int
    """The first of them, with their predictions."""
    teacher: bool
    """True if the teacher's predictions are there, too."""
    evaluation: str | None = None
    """The evaluation that they are of, and are deleted with; None: they are of the end of the training."""
    sha256: str
    """Of the file."""
    images_sha256: str
    """Equal for two versions that were evaluated on the same images with the same classes."""


ModelAction = Literal["deploy", "evaluate", "export", "alias"]


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
    inherited_from: AnyLayout | None = None
    """The layout of the teacher that it inherits from, with what it takes of it: the most heads and MLP units of each block.
    None: it inherits from none, or an older version did not record it."""
    inherited_blocks: InheritedBlocks | None = None
    """The blocks of `inherited_from` that its own come from; None if they are not known."""
    evaluation: dict[str, Scores] = {}
    evaluated_by: dict[str, str] = {}
    """Tasks that were evaluated after training, and the id of the evaluation."""
    predictions: dict[str, KeptPredictions] = {}
    """By task: which tasks can be compared image by image."""
    teacher: str | None = None
    teacher_params: Params | None = None
    teacher_macs: int | None = None
    """As `macs`; None from an older version."""
    compatible_with: Compatibility | None = None
    """Its teacher, if their embeddings have one size; None: not measured."""
    job: str | None = None
    lineage: JSON = {}
    files: list[ModelFile] = []
    actions: list[ModelAction] = []
    """What the caller can do with it; `alias`: to set aliases to this version, and to remove them."""
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
    teacher_params: Params | None = None
    teacher_macs: int | None = None
    teacher_evaluation: dict[str, dict[str, Any]]
    teacher_latency_ms: float | None = None
    created_at: Timestamp


class Comparison(Response):
    """A comparison of models, in the requested order."""

    models: list[ComparedModel]


class Prediction(Response):
    """The most likely class of one image."""

    label: str
    score: float
    """Its share in a softmax over all classes, at the model's own temperature."""
    correct: bool


class PredictedImage(Response):
    """One image of a task, and what each model takes it for."""

    number: int
    """Among the images of the task, from 0; its thumbnail is found by it."""
    key: str
    label: str
    """The true class."""
    predictions: list[Prediction]
    """One of each compared model."""


class PredictionCounts(Response):
    """Images by whether the first and the second model are right. A single model is both."""

    images: int
    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    differ: int
    """Images that the two take for different classes."""


class ClassCounts(Response):
    """One class of a task, and how many of its images each model gets right."""

    label: str
    images: int
    correct: list[int]


PredictionFilter: TypeAlias = Literal["all", "differ", "only_first", "only_second", "both_wrong"]


class PredictionComparison(Response):
    """A page of the images of one task, with the predictions of several models."""

    models: list[str]
    """The compared models: NAME@VERSION, or the name of a teacher."""
    task: str
    tasks: list[str]
    """All tasks that the models can be compared on."""
    images: int
    """Images of the task; if there are more than `kept`, the first of them are compared."""
    kept: int
    counts: PredictionCounts
    """Of all that are compared, those with `label` if it is given."""
    classes: list[ClassCounts] = []
    """If asked for: the classes that occur, in the order of the task's."""
    items: list[PredictedImage]
    next_page_token: str | None = None


class AliasPut(Request):
    version: int = Field(ge=1)
