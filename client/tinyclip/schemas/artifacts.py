"""What server and workers leave for each other in the artifacts store.

They meet nowhere else: the job document and the control file go down, numbered event segments come up. Every file is
written aside and renamed (or is one S3 object), so a reader sees all of it or none of it. Paths are relative to the store's root.
"""

from typing import Literal

from tinyclip.schemas._base import JSON, Response, Timestamp
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
    index.progress    {done, total}
    index.finished    {count}
    index.failed      {code}
    evaluation.progress  {fraction}
    evaluation.finished  {results: {task: {student: {top1: …}, teacher: {top1: …} | null}}}
    evaluation.failed    {code, pointer, value}
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


TOKEN_DIGESTS = "access/tokens.json"


def job_spec(job: str) -> str:
    return f"jobs/{job}/spec.json"


def job_control(job: str) -> str:
    return f"jobs/{job}/control.json"


def attempt_events(job: str, attempt: int) -> str:
    return f"jobs/{job}/attempts/{attempt}/events"


def attempt_driver(job: str, attempt: int) -> str:
    """Made by the attempt's driver when it begins, if it is not there: a second driver under the same number leaves."""
    return f"jobs/{job}/attempts/{attempt}/driver.json"


def attempt_logs(job: str, attempt: int) -> str:
    return f"jobs/{job}/attempts/{attempt}/logs"


def segment(folder: str, seq: int) -> str:
    return f"{folder}/{seq:08d}.jsonl"


def stage_checkpoints(job: str, index: int, name: str, attempt: int) -> str:
    return f"jobs/{job}/stages/{index}-{name}/a{attempt}"


def stage_picture(job: str, index: int, name: str) -> str:
    """What an automatic stage has left, drawn at its prune step."""
    return f"jobs/{job}/stages/{index}-{name}/layout.svg"


def model_version(name: str, version: int) -> str:
    return f"models/{name}/{version}"


IMPORTS = "imports"
"""One small document an import that is being written, `{"name", "version", "at"}`: what has to go if it never ends."""


def import_marker(name: str) -> str:
    return f"{IMPORTS}/{name}"


def index_folder(name: str) -> str:
    return f"indexes/{name}"


def index_build_events(name: str, build: int) -> str:
    return f"indexes/{name}/builds/{build}/events"


def evaluation_folder(id: str) -> str:
    return f"evaluations/{id}"


def evaluation_request(id: str) -> str:
    return f"evaluations/{id}/request.json"


def evaluation_results(id: str) -> str:
    return f"evaluations/{id}/results.json"


def evaluation_events(id: str, attempt: int) -> str:
    return f"evaluations/{id}/attempts/{attempt}/events"
