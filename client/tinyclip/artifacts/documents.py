"""What server and workers leave for each other in the artifacts store.

They meet nowhere else: the job document and the control file go down, numbered event segments come up. Every file is
written aside and renamed (or is one S3 object), so a reader sees all of it or none of it. Paths are relative to the store's root.
"""

from typing import Literal

from tinyclip.schemas._base import JSON, Response, Timestamp
from tinyclip.schemas.exports import ExportFormat
from tinyclip.schemas.indexes import IndexItem, IndexKind, IndexSource, IndexStore
from tinyclip.schemas.spec import EvaluationTask, JobSpec, TeacherSpec
from tinyclip.schemas.tokens import Scope


class JobDocument(Response):
    """`jobs/<job>/spec.json`: what a worker needs to know, written before the first attempt."""

    job: str
    name: str
    spec: JobSpec
    """Resolved: `registry:` teachers are already `local-dir:` URIs."""
    model_name: str
    model_version: int
    """Where a success is written: `models/<model_name>/<model_version>/`. Reserved by the server, one a job."""
    adopts: list[str] = []
    """Jobs whose finished students and checkpoints this one may go on from: a retry's."""


class Control(Response):
    """`jobs/<job>/control.json`: polled by the training loop."""

    fence: int
    """Number of the attempt that may write; a smaller attempt leaves at its next look."""
    desired: Literal["run", "pause", "cancel"] = "run"
    """What is wanted of just that attempt."""


class EvaluatedModel(Response):
    """A model of an evaluation: what results call it, and where a worker finds it."""

    name: str
    source: TeacherSpec
    """Resolved: a registered version is a `local-dir:` URI."""


class EvaluationRequest(Response):
    """`evaluations/<id>/request.json`: written before each attempt; gone once the evaluation is not wanted any more."""

    model: EvaluatedModel
    against: EvaluatedModel | None = None
    tasks: list[EvaluationTask]
    holdout: float = 0.0


class ExportRequest(Response):
    """`exports/<id>/request.json`: written before each attempt; gone once the export is not wanted any more."""

    name: str
    version: int
    """Of the registered model."""
    format: ExportFormat
    int8: bool = False
    tasks: list[EvaluationTask] = []
    """What the version was evaluated on, for pictures and texts to check the export on."""
    attempt: int
    """The only one that may write."""


class UpdateFile(Response):
    """One accepted update of an index, and its file."""

    number: int
    file: str
    """Below `indexes/<name>/updates/`: an `IndexUpdate`."""


class IndexUpdate(Response):
    """`indexes/<name>/updates/<file>`: written once, before the update is acknowledged; gone when it was applied."""

    items: list[IndexItem] = []
    removed: list[str] = []
    """Ids."""


class IndexRequest(Response):
    """`indexes/<name>/request.json`: what an index's job has to do, written before it is submitted; gone once nothing is."""

    name: str
    job: str
    """The job that this was written for; any other leaves."""
    build: int
    model: str
    model_uri: str
    embed_dim: int
    kind: IndexKind = "auto"
    store: IndexStore = "files"
    source: IndexSource | None = None
    applied: int = 0
    """Of a build: updates up to this one were made to what it replaces; later ones are for this build."""
    updates: list[UpdateFile] | None = None
    """null: build anew from `source`. Else: apply these to what build number `build` has become."""


class WorkerEvent(Response):
    """One line of a segment `…/events/<seq:08d>.jsonl` (seq counts from 1). Types and data:

    attempt.started   {}
    stage.started     {name, inherit, steps, student: StudentSummary}; an automatic stage has no student yet
    stage.pruned      the StudentSummary of what an automatic stage has left, at its prune step
    progress          {step, steps, samples_seen, pairs_per_second, eta_seconds, metrics: {loss: 1.2, lr: …}}
    checkpoint        {step, path, bytes}
    evaluation        {task, step, student: {top1: …}, teacher: {top1: …} | null}
    stage.evaluating  {}
    stage.finished    {}
    worker.restarted  {reason}
    log               {level, source}; the text is `message`
    model.exported    the `model.json` document of the version directory
    attempt.succeeded {}
    attempt.failed    {code, retryable, stage}; the text is `message`
    attempt.stopped   {desired: pause | cancel, step}
    index.progress    {done, total, phase: encoding | linking}
    index.finished    {build, count, kind, recall, skipped_samples, skipped_shards}
    index.updated     {applied, count, kind, recall, rejected: [RejectedItem], last: whether the job ends with it}
    index.failed      {code}
    evaluation.progress  {fraction}
    evaluation.finished  {results: {task: {student: {top1: …}, teacher: {top1: …} | null}}}
    evaluation.failed    {code, pointer, value}
    export.progress   {fraction}
    export.finished   the `export.json` document
    export.failed     {code}
    """

    type: str
    time: Timestamp
    attempt: int
    stage: int | None = None
    message: str = ""
    data: JSON = {}


class TokenDigest(Response):
    """One token that may ask deployments."""

    project: str
    scopes: list[Scope]
    expires_at: Timestamp | None = None


class TokenDigests(Response):
    """`access/tokens.json`: the tokens that deployments accept, so that they need not ask the server. All of them, each time."""

    tokens: dict[str, TokenDigest]
    """By the SHA-256 of the token, in hex."""
