"""Jobs, their history and their metrics."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from tinyclip.schemas._base import JSON, Labels, Line, Request, Response, Timestamp
from tinyclip.schemas.layouts import StudentSummary
from tinyclip.schemas.spec import JobSpec, Name


class JobState(StrEnum):
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class StageState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    EVALUATING = "evaluating"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Progress(Response):
    stage: int = 0
    stages: int = 0
    step: int = 0
    steps: int = 0
    fraction: float = 0.0
    """Share of the steps of all stages."""
    samples_seen: int = 0
    pairs_per_second: float | None = None
    eta_seconds: float | None = None
    waiting: str | None = None
    """The resources that the job waits for, such as `waiting for 2 CPUs, 0 free`; None while it does not wait."""


class Scores(Response):
    """Metrics of one task for the student and, on the same images, for its teacher."""

    student: dict[str, Any]
    teacher: dict[str, Any] | None = None


class StageView(Response):
    index: int
    name: str
    state: StageState
    inherit: str
    student: StudentSummary | None = None
    metrics: JSON = {}
    """`{"last": {"loss": …, "step": …}, "agreement": {"start_kl": …, "kl": …, "step": …}}`."""
    evaluation: dict[str, Scores] = {}


class JobError(Response):
    code: str
    message: str
    stage: int | None = None
    attempt: int | None = None
    retryable: bool = False


class ModelRef(Response):
    name: str
    version: int


class JobParent(Response):
    """The search that a job is a trial of."""

    search: str
    trial: int


JobAction = Literal["cancel", "pause", "resume", "retry", "clone", "edit", "delete"]


class Job(Response):
    id: str
    name: str
    labels: dict[str, str]
    project: str
    priority: int
    spec_version: int
    spec: JobSpec
    state: JobState
    progress: Progress
    stages: list[StageView]
    attempt: int
    ray_submission_id: str | None
    model: ModelRef | None
    retry_of: str | None = None
    """The failed or cancelled job from whose last checkpoint this one continues."""
    parent: JobParent | None = None
    error: JobError | None
    actions: list[JobAction] = []
    """What the job's state allows the caller to do now; none without the scope `write`. The ETag does not depend on it."""
    etag: str
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None


class JobSpecs(Response):
    """A job's spec, twice."""

    submitted: JSON
    """As it was sent, without defaults."""
    resolved: JSON
    """As the workers get it: with sizes, lengths and defaults."""


class Attempt(Response):
    """One attempt at a job: one Ray job."""

    number: int
    ray_submission_id: str
    outcome: str | None
    """`succeeded`, `failed`, `stopped`, `lost`, `stalled`, `timed_out`, `withdrawn` or `interrupted`; None while it runs."""
    cause: str
    """Why it ended; empty while it runs, and if it succeeded."""
    created_at: Timestamp
    finished_at: Timestamp | None


class PlannedStage(Response):
    index: int
    name: str
    inherit: str
    steps: int
    samples: int
    student: StudentSummary
    device_hours: float
    """With the calibration that selects what a student inherits, and the steps of the test if `lr` is `auto`."""
    lr: float | Literal["auto"] | None = None
    """None: the plan is from an older server."""
    select: Literal["importance", "leading"] | None = None
    """What a manual stage takes from its parent; None in other stages."""
    search: Literal["frozen", "importance", "joint"] | None = None
    """How an automatic stage selects what it keeps; None in other stages."""


class Plan(Response):
    """The plan of a spec: the response to `validate_only`."""

    spec: JobSpec
    """Resolved: with sizes, lengths and defaults."""
    teacher: StudentSummary | None
    """The first of several."""
    teachers: list[StudentSummary] = []
    """All, in the order of the spec."""
    stages: list[PlannedStage]
    steps: int
    samples_per_epoch: int
    device: Literal["cpu", "cuda"]
    device_hours: float
    saved_device_hours: float = 0.0
    """Device-hours of the teachers that `data.train.reinforcement` saves; they are not part of `device_hours`."""
    warnings: list[str] = []


class Event(Response):
    """One event of a job's history; `id` counts from 1 without gaps within the job."""

    id: int
    job: str
    type: str
    attempt: int | None = None
    stage: int | None = None
    message: str
    data: JSON = {}
    created_at: Timestamp


class LogLine(Response):
    id: int
    attempt: int
    level: str
    source: str
    message: str
    created_at: Timestamp


class MetricPoint(Response):
    stage: int
    step: int
    value: float


class NamedPoint(MetricPoint):
    """One message of the stream of a job's metrics."""

    name: str


class Metrics(Response):
    """Series by name, each thinned to at most `max_points` points per stage."""

    series: dict[str, list[MetricPoint]]
    last: int = 0
    """The number of the newest point that this covers: the stream from here on (`Last-Event-ID`) has those that follow."""


class Checkpoint(Response):
    """A committed checkpoint from which an attempt can continue."""

    stage: int
    step: int
    attempt: int
    """0: adopted from the job that this one retries."""
    path: str
    """Relative to the artifacts store's root."""
    bytes: int | None = None
    created_at: Timestamp


class JobPatch(Request):
    name: Name | None = None
    labels: Labels | None = None
    priority: int | None = Field(default=None, ge=-1000, le=1000)
    """Higher runs first."""

    @field_validator("*", mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("give a value, or omit the field to keep the current one")
        return value


class JobClone(Request):
    """Changes to an existing job's spec, by dotted path: `{"optimizer.lr": 1e-4, "stages.0.train.steps": 50}`."""

    set: Annotated[dict[Line, Any], Field(max_length=1000)] = {}


class Example(Response):
    """A job spec among the examples on the server's machine, ready to be submitted."""

    name: str
    """Its path below the examples, as `emoji/half.yaml`."""
    title: str
    """The first sentence of its comment."""
    spec: str
    """YAML with comments and absolute paths."""
