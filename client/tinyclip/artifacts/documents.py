"""The files through which server and workers communicate; `paths` has their places.

The server writes requests and control files, the workers write numbered event segments and results. Every file is written
whole, so a reader sees all of it or nothing.
"""

import re
from typing import Literal, Self

from pydantic import model_validator

from tinyclip.schemas._base import JSON, Response, Timestamp
from tinyclip.schemas.datasets import DatasetPut, DatasetVersion, ReinforcementPost
from tinyclip.schemas.exports import ExportFormat, ExportOptions
from tinyclip.schemas.indexes import IndexCodes, IndexItem, IndexKind, IndexSource, IndexStore
from tinyclip.schemas.spec import EvaluationTask, ImageAugmentation, JobSpec, TeacherSpec
from tinyclip.schemas.tokens import Scope
from tinyclip.schemas.vocabulary import EmbeddingType, VocabularyChoice


class JobDocument(Response):
    """`jobs/<job>/spec.json`: a training job for its workers, written before the first attempt."""

    job: str
    name: str
    spec: JobSpec
    """Resolved: `registry:` teachers and the data set have the number of their version."""
    dataset: DatasetVersion | None = None
    """The version that `spec.data.train.dataset` names."""
    model_name: str
    model_version: int
    """The version that a success creates, in `models/<model_name>/<model_version>/`. Reserved by the server, one a job."""
    adopts: list[str] = []
    """Jobs whose finished students and checkpoints a retry may continue from."""


class Control(Response):
    """`jobs/<job>/control.json`: polled by the training loop."""

    fence: int
    """Number of the attempt that may write; an attempt with a smaller number exits when it reads this."""
    desired: Literal["run", "pause", "cancel"] = "run"
    """The desired state of that attempt only."""


class EvaluatedModel(Response):
    """A model of an evaluation: its name in results, and its source."""

    name: str
    source: TeacherSpec
    """Pinned: a registered version is `registry:NAME@NUMBER`."""

    @model_validator(mode="after")
    def _registered_by_name(self) -> Self:
        """Convert a document of an older version, which has the address of a registered version in the place of its name."""
        if self.source.model.startswith("local-dir:") and re.fullmatch(r"[a-z0-9._-]+@[0-9]+", self.name):
            self.source = TeacherSpec(model=f"registry:{self.name}")
        return self


class EvaluationRequest(Response):
    """`evaluations/<id>/request.json`: written before each attempt, removed when the evaluation is deleted."""

    model: EvaluatedModel
    against: EvaluatedModel | None = None
    tasks: list[EvaluationTask]
    holdout: float = 0.0


class ExportRequest(Response):
    """`exports/<id>/request.json`: written before each attempt, removed when the export is deleted."""

    name: str
    version: int
    """The version of the registered model."""
    format: ExportFormat
    int8: bool = False
    vocabulary: VocabularyChoice = VocabularyChoice.WHOLE
    embedding: EmbeddingType = EmbeddingType.FP32
    tasks: list[EvaluationTask] = []
    """The tasks that the version was evaluated on; their images and texts check the export."""
    attempt: int
    """The only attempt that may write."""

    @property
    def options(self) -> ExportOptions:
        """The settings of the export beside its format."""
        return ExportOptions(self.int8, self.vocabulary, self.embedding)


class UpdateFile(Response):
    """One accepted update of an index, and its file."""

    number: int
    file: str
    """Below `indexes/<name>/updates/`: an `IndexUpdate`."""


class IndexUpdate(Response):
    """`indexes/<name>/updates/<file>`: written before the update is acknowledged, removed once it is applied."""

    items: list[IndexItem] = []
    removed: list[str] = []
    """Ids."""


class IndexRequest(Response):
    """`indexes/<name>/request.json`: the work of an index's job, written before it is submitted, removed with the index."""

    name: str
    job: str
    """The job that this was written for; any other exits."""
    build: int
    model: str
    model_uri: str
    embed_dim: int
    kind: IndexKind = "auto"
    store: IndexStore = "files"
    codes: IndexCodes = "float"
    dimensions: int | None = None
    source: IndexSource | None = None
    applied: int = 0
    """The last update that was applied to the build before this one; later ones are for this build."""
    updates: list[UpdateFile] | None = None
    """None: build from `source`. Else: apply these to the newest generation of build number `build`."""


class DatasetRequest(Response):
    """`datasets/<name>/request.json`: written before each attempt of a registration, removed with the data set."""

    name: str
    version: int
    """The version that a success creates; reserved by the server."""
    attempt: int
    """The only attempt that may write."""
    request: DatasetPut
    previous: str | None = None
    """Digest of the newest version: a job that finds the same data reports that nothing changed."""


class ReinforcementRequest(Response):
    """`…/reinforcements/<id>/request.json`: written before each attempt, removed with the reinforcement."""

    id: str
    dataset: str
    version: int
    attempt: int
    """The only attempt that may write."""
    request: ReinforcementPost


class StoredTeacher(Response):
    """A teacher whose embeddings a reinforcement has: what they depend on, and what training needs beside them."""

    name: str
    sha256: str
    """Of the weights file."""
    weight: float = 1.0
    """Its share of the mean of affinities; all shares add up to 1."""
    scale: float
    """Its own similarity multiplier."""
    bias: float | None = None
    """Its own bias; None for a teacher that was trained with a softmax loss."""
    embed_dim: int
    image_size: int
    interpolation: str = "bicubic"
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]


class ReinforcementDocument(Response):
    """`…/reinforcements/<id>/reinforcement.json`: a complete reinforcement, written last."""

    id: str
    dataset: str
    version: int
    digest: str
    """Of the data set's version."""
    teachers: list[StoredTeacher]
    context_length: int
    """Tokens of a text that the teachers have read, of CLIP's tokenizer."""
    augmentations: int
    augment: ImageAugmentation
    captions: Literal["all", "first"]
    dtype: Literal["bf16", "fp32", "int8"]
    precision: str
    """Of the computation: fp32 or bf16; `import`: the embeddings are from elsewhere."""
    shards: int
    samples: int
    """Samples with embeddings."""
    skipped: int
    """Training samples without, because they could not be read."""
    views: int
    texts: int
    """Distinct texts."""
    bytes: int


class WorkerEvent(Response):
    """One line of a segment `…/events/<seq:08d>.jsonl` (seq counts from 1). Types and data:

    attempt.started   {}
    stage.started     {name, inherit, steps, student: StudentSummary}; an automatic stage has no student yet
    stage.pruned      the StudentSummary of an automatic stage's folded model, at its prune step
    progress          {step, steps, samples_seen, pairs_per_second, eta_seconds, metrics: {loss: 1.2, lr: …}}
    checkpoint        {step, path, bytes}
    evaluation        {task, step, student: {top1: …}, teacher: {top1: …} | null}
    agreement.measured  {step, kl, start_kl, pairs, held_out}: the student's KL divergence from its teacher on fixed pairs
    agreement.worse   {step, kl, start_kl}: it is worse than at the start of the stage; the remedy is in `message`
    lr.selected       {lr, tested: [{lr, kl}], steps}: the rate of a stage with `optimizer.lr: auto`
    micro_batch.selected  {micro_batch, local_batch, peaks: {pairs: bytes}, budget}: the parts of a stage with `micro_batch: auto`
    precision.selected  {precision, seconds: {fp32, bf16}, pairs}: the precision of a stage with `precision: auto`
    average.compared  {kl, averaged_kl, exported: averaged | last}: the weights that agree better with the teacher
    stage.evaluating  {}
    stage.finished    {}
    worker.restarted  {reason}
    worker_group.sized    {workers, before, sizes}: an elastic group starts; `before` is the last size, 0 at first
    worker_group.waiting  {needed, free, total: {CPU: …, GPU: …}}; `message` is shown until the next event
    worker_group.placed   {needed}; only after a reported wait
    log               {level, source}; the text is `message`
    model.exported    the `model.json` document of the version directory
    attempt.succeeded {}
    attempt.failed    {code, retryable, stage}; the text is `message`
    attempt.stopped   {desired: pause | cancel, step}
    index.progress    {done, total, phase: encoding | linking}
    index.finished    {build, count, kind, recall, bytes, search_ms, skipped_samples, skipped_shards}
    index.updated     {applied, count, kind, recall, bytes, search_ms, rejected: [RejectedItem], last: is it the final one}
    index.failed      {code}
    evaluation.progress  {fraction}
    evaluation.finished  {results: {task: {student: {top1: …}, teacher: {top1: …} | null}}, models, predictions}
    evaluation.failed    {code, pointer, value}
    dataset.progress  {fraction}
    dataset.finished  the `dataset.json` document; `{unchanged: true}` if the shards equal the newest version's
    dataset.failed    {code, pointer, value}
    reinforcement.progress  {fraction}
    reinforcement.finished  the `reinforcement.json` document, and `seconds` that this attempt took
    reinforcement.failed    {code, pointer, value}
    costs.progress    {fraction}
    costs.finished    the `CostModel`
    costs.failed      {code, pointer, value}
    finalists.progress  {fraction}
    finalists.finished  the `Finalists`
    finalists.failed    {code, pointer, value}
    export.progress   {fraction}
    export.finished   the `export.json` document
    export.failed     {code}
    """

    type: str
    time: Timestamp
    attempt: int
    writer: str = ""
    """A random id of the writing process: equal segments are the same segment."""
    stage: int | None = None
    message: str = ""
    data: JSON = {}


class TokenDigest(Response):
    """One token that deployments accept."""

    project: str
    scopes: list[Scope]
    expires_at: Timestamp | None = None


class TokenDigests(Response):
    """`access/tokens.json`: all tokens that deployments accept, so that they work without the server."""

    tokens: dict[str, TokenDigest]
    """By the SHA-256 of the token, in hex."""
