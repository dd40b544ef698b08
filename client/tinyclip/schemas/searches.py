"""Searches: the smallest student that meets constraints, and sweeps over settings of a spec."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tinyclip.schemas._base import JSON, Key, Request, Response, Timestamp
from tinyclip.schemas.deployments import NamedEngine
from tinyclip.schemas.jobs import JobState, ModelRef, Plan
from tinyclip.schemas.spec import JobSpec

Number = Annotated[float, Field(allow_inf_nan=False)]
Tower = Literal["image", "text"]
CostName = Literal["latency_ms", "bytes", "params", "macs"]


class Limit(Request):
    max: float = Field(gt=0, allow_inf_nan=False)


class Hardware(Request):
    """Where and how a latency is measured: as the student will serve."""

    engine: NamedEngine = "torch"
    batch: int = Field(default=1, ge=1, le=1024)
    tower: Tower = "image"
    threads: int = Field(default=1, ge=1, le=256)
    device: Literal["auto", "cpu", "cuda"] = "auto"


class Constraint(Request):
    """A limit of one cost, or a quality to keep: exactly one of `latency_ms`, `bytes`, `params`, `macs` and `task`."""

    latency_ms: Limit | None = None
    """Of one call of a tower, measured on the hardware that serves; with `engine`, `batch`, `tower`, `threads` and `device`."""
    engine: NamedEngine = "torch"
    batch: int = Field(default=1, ge=1, le=1024)
    tower: Tower = "image"
    threads: int = Field(default=1, ge=1, le=256)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    bytes: Limit | None = None
    """Of the file of the weights, embeddings included."""
    params: Limit | None = None
    """Of both towers, embeddings included."""
    macs: Limit | None = None
    """Of an image and a text of full context length."""
    task: Key | None = None
    """One of the spec's evaluation tasks."""
    metric: Key | None = None
    """None: `top1` of zero-shot tasks and linear probes, `text_to_image_r10` of retrieval tasks."""
    keep: float | None = Field(default=None, gt=0, le=2)
    """The share of the teacher's value that the student must reach."""
    min: float | None = Field(default=None, ge=0, le=1)
    """The value that the student must reach."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        kinds = ("latency_ms", "bytes", "params", "macs", "task")
        given = [name for name in kinds if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(kinds)}, not {' and '.join(given) or 'none'}")
        if self.latency_ms is None and (hardware := [name for name in Hardware.model_fields if self._differs(name)]):
            raise ValueError(f"{' and '.join(hardware)} belong to latency_ms, not to {given[0]}; remove them")
        if self.task is None and self.metric is not None:
            raise ValueError(f"metric belongs to task, not to {given[0]}; remove it")
        if (self.task is not None) != ((self.keep is not None) + (self.min is not None) == 1):
            raise ValueError("a task needs exactly one of keep, a share of the teacher's value, and min; others have neither")
        return self

    def _differs(self, name: str) -> bool:
        """Return whether a field has another value than its default; a stored search has all fields."""
        return bool(getattr(self, name) != type(self).model_fields[name].default)


class Range(Request):
    """Values between two numbers."""

    min: Number
    max: Number
    log: bool = False
    """True if ratios of values matter, not differences."""
    integer: bool = False
    steps: int | None = Field(default=None, ge=2, le=1000)
    """Values of a grid; None: 5."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min >= self.max:
            raise ValueError("min must be less than max")
        if self.log and self.min <= 0:
            raise ValueError("a logarithmic range needs a min above 0")
        return self


Choices = Annotated[list[Any], Field(min_length=1, max_length=1000)]


class Budget(Request):
    trials: int = Field(default=12, ge=1, le=1000)
    device_hours: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """No trial begins once the trials have used as much; None: no limit."""
    at_once: int = Field(default=1, ge=1, le=1000)
    """Trials that run at the same time."""


class SearchPost(Request):
    """A request for a search. Sizes are searched if there are constraints; settings if `vary` names some."""

    spec: JobSpec
    """The job that each trial is like. Sizes of its students are the search's to choose, if it has constraints."""
    constraints: Annotated[list[Constraint], Field(max_length=50)] = []
    minimize: CostName | None = None
    """What the recommended student has least of, if there is a quality to keep; None: the first cost that is constrained, or
    else `bytes`."""
    vary: Annotated[dict[Key, Range | Choices], Field(max_length=50)] = {}
    """Fields of the spec by dotted path, as `optimizer.lr`, and their values."""
    strategy: Literal["auto", "grid", "random"] = "auto"
    """How settings are chosen: `auto` learns from the trials before, `grid` tries all combinations."""
    budget: Budget = Budget()
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _searches_something(self) -> Self:
        if not self.constraints and not self.vary:
            raise ValueError("give constraints, to search sizes, or fields to vary")
        if self.strategy == "grid" and not self.vary:
            raise ValueError("strategy grid needs fields to vary")
        return self


class SearchPlan(Response):
    """The most that a search would do: the response to `validate_only`."""

    trials: int
    trials_by_rung: list[int] = []
    """Short trainings first."""
    steps: int | None = None
    """Of all trials."""
    device_hours: float
    """Of all trials, at most those of the budget."""
    hours: float | None = None
    """From the first trial's begin to the last one's end, if none waits for devices; latencies are measured before and after."""
    plan: Plan
    """Of the spec as it is."""
    warnings: list[str] = []


class SearchPhase(StrEnum):
    MEASURING = "measuring"
    """The speed of layouts, on the hardware that serves."""
    TRIALS = "trials"
    FINALISTS = "finalists"
    """The candidates are measured in every engine."""


class Measurement(Response):
    """A candidate in one engine."""

    engine: str
    latency_ms: dict[str, float] = {}
    """By tower and batch size, as `image:1`, and by threads if these are several, as `image:1:4`."""
    bytes: int | None = None
    """Of the weights, embeddings included: the version's file for torch, whatever it computes in; OpenVINO's converted weights of
    both towers for its engines, of which int8 has a smaller image tower."""
    quality: dict[str, dict[str, float]] = {}
    """By task and metric."""


class Trial(Response):
    """One job of a search."""

    number: int
    rung: int = 0
    """0: a short training; each following rung is longer."""
    job: str | None
    state: JobState
    settings: JSON = {}
    """What the search has chosen: sizes, and values by dotted path."""
    error: str = ""
    """Why it failed."""
    model: ModelRef | None = None
    params: int | None = None
    macs: int | None = None
    bytes: int | None = None
    quality: dict[str, dict[str, float]] = {}
    device_hours: float = 0.0
    measurements: list[Measurement] = []
    """Of a finalist."""


class Candidate(Response):
    """A model version on the front, with its measurements."""

    model: ModelRef
    trial: int
    params: int
    macs: int
    measurements: list[Measurement] = []
    is_feasible: bool
    violations: list[str] = []
    """Each constraint that it does not meet, with both numbers."""


SearchAction = Literal["cancel", "pause", "resume", "delete"]


class Search(Response):
    """A search. Lists show it without its trials."""

    id: str
    name: str
    project: str
    state: JobState
    phase: SearchPhase
    message: str = ""
    post: SearchPost
    trials: list[Trial] = []
    trials_begun: int = 0
    """Also in lists, as `trials_ended`."""
    trials_ended: int = 0
    teacher_quality: dict[str, dict[str, float]] = {}
    """By task and metric, once a trial has measured it; of this a constraint's `keep` is a share. Empty in lists."""
    front: list[Candidate] = []
    recommended: Candidate | None = None
    reason: str = ""
    importance: dict[str, float] = {}
    """The share of the variation between trials that each varied setting explains."""
    device_hours: float = 0.0
    """That the trials have used so far, those that run among them."""
    actions: list[SearchAction] = []
    """What the search's state allows the caller to do now; none without the scope `write`. The ETag does not depend on it."""
    etag: str
    created_at: Timestamp
    updated_at: Timestamp
    finished_at: Timestamp | None = None


class SearchEvent(Response):
    """One event of a search's history; `id` counts from 1 without gaps within the search."""

    id: int
    search: str
    type: str
    trial: int | None = None
    message: str
    data: JSON = {}
    created_at: Timestamp
