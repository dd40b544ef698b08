"""The documents of searches, which server and engine exchange.

What a search knows and the advice that follows from it, and the requests and results of its Ray jobs `costs` and `finalists`;
`paths` has the places of those that are files.
"""

import hashlib
from typing import Literal

from tinyclip.artifacts.documents import EvaluatedModel
from tinyclip.schemas._base import JSON, Response
from tinyclip.schemas.jobs import JobState, ModelRef
from tinyclip.schemas.layouts import Layout
from tinyclip.schemas.searches import Candidate, Hardware, Measurement, SearchPost
from tinyclip.schemas.spec import EvaluationTask, TeacherSpec

Quality = dict[str, dict[str, float]]
"""Values by task and metric."""


class EngineCost(Response):
    """A latency that was fitted to measured layouts: the sum of its terms (`costs/terms.py`), each times its coefficient."""

    family: Literal["vit", "resnet", "text"]
    coefficients: dict[str, float]
    """Milliseconds per unit, by term."""
    median_error: float
    """Relative error on layouts that were not fitted to, cross-validated."""
    p90_error: float
    """Its 90th percentile."""
    layouts: int
    """Layouts that were measured."""


class CostModel(Response):
    """`searches/<id>/costs.json`: latencies on the hardware that serves, written last by a search's `costs` job."""

    hardware: str
    """The processor or GPU that was measured."""
    engines: dict[str, EngineCost]
    """By `ENGINE:TOWER:BATCH:THREADS`."""
    teacher_ms: dict[str, float] = {}
    """The teacher's own latency, by the same keys; empty if its architecture has no layout."""


class CostsRequest(Response):
    """`searches/<id>/costs-request.json`: the work of a search's `costs` job, written before each attempt."""

    teacher: TeacherSpec
    """Pinned, as in `EvaluatedModel`."""
    largest: Layout | None = None
    """The largest layout to fit to; None: the teacher's."""
    hardware: list[Hardware]
    """The latencies to fit."""
    layouts: int | None = None
    """Layouts to measure; None: as many as each engine's errors need."""
    seed: int = 0
    attempt: int
    """The only attempt that may write."""


class MeasuredLayout(Response):
    """`searches/<id>/costs/measured/<number>.json`: one measured layout, kept for the next attempt."""

    layout: Layout
    hardware: str
    latencies_ms: dict[str, float]
    """By key of the cost model."""


class Finalist(Response):
    """A trial's model version that is to be measured."""

    trial: int
    model: EvaluatedModel


class FinalistsRequest(Response):
    """`searches/<id>/finalists-request.json`: the work of a search's `finalists` job, written before each attempt."""

    finalists: list[Finalist]
    hardware: list[Hardware]
    """The latencies to measure, each in torch and in the other engines that these name; none: one image and one text at a time,
    with one thread, in every engine."""
    tasks: list[EvaluationTask]
    attempt: int
    """The only attempt that may write."""

    def digest(self) -> str:
        """Return a digest of all that is to be measured."""
        return hashlib.sha256(self.model_dump_json(exclude={"attempt"}).encode()).hexdigest()


class MeasuredFinalist(Response):
    """`searches/<id>/finalists/measured/<trial>-<engine>.json`: a finalist in one engine, kept for the next attempt."""

    conditions: str
    """A digest of the version, the hardware and what was to be measured."""
    measurement: Measurement
    is_complete: bool = False
    """False while only the latencies are measured, which all finalists are together."""


class Finalists(Response):
    """`searches/<id>/finalists.json`: the measurements of each finalist, written last by a search's `finalists` job."""

    request: str = ""
    """The digest of the request: a search may measure other finalists later."""
    measurements: dict[int, list[Measurement]]
    """By the number of the trial."""
    left_out: dict[int, dict[str, str]] = {}
    """Why a finalist was not measured in an engine, by trial and engine."""


def latency_key(tower: str, batch: int, threads: int) -> str:
    """Return the key of a latency in a `Measurement`."""
    return f"{tower}:{batch}" if threads == 1 else f"{tower}:{batch}:{threads}"


class TrialRecord(Response):
    """A trial as its job and its model version have it."""

    number: int
    rung: int = 0
    settings: JSON = {}
    state: JobState
    model: ModelRef | None = None
    layout: Layout | None = None
    params: int | None = None
    macs: int | None = None
    bytes: int | None = None
    quality: Quality = {}
    teacher: Quality = {}
    device_hours: float = 0.0
    measurements: list[Measurement] = []


class SearchRecord(Response):
    """All that a search's next trials depend on."""

    id: str
    post: SearchPost
    costs: CostModel | None = None
    teacher: Layout | None = None
    teacher_quality: Quality = {}
    steps: int | None = None
    """Of the spec's stages, as planned."""
    device_hours: float | None = None
    """Of the spec, as planned."""
    trials: list[TrialRecord] = []
    """In order of number."""
    measured: list[int] = []
    """Trials whose versions were measured as finalists, with success or not."""


class BeginTrial(Response):
    """A trial to begin."""

    number: int
    rung: int
    settings: JSON
    spec: JSON
    """A complete `JobSpec`."""


class SearchResult(Response):
    """The result of a search."""

    front: list[Candidate]
    recommended: Candidate | None = None
    reason: str
    importance: dict[str, float] = {}


class Advice(Response):
    """The next things to do. Nothing to begin or to measure and no outcome: wait for the trials that run."""

    begin: list[BeginTrial] = []
    measure: list[int] | None = None
    finished: SearchResult | None = None
    message: str = ""


class Bound(Response):
    """A limit, and the smallest cost that a student of the teacher's family can have."""

    pointer: str
    """A JSON pointer into the request."""
    limit: float
    smallest: float
    is_possible: bool
    message: str = ""


class SearchEstimate(Response):
    """The length of a search, before it starts."""

    trials: int
    trials_by_rung: list[int]
    steps: int | None
    """Of all trials; None if the steps of the spec are unknown."""
    device_hours: float | None
    hours: float | None = None
    """From the begin of the first trial to the end of the last one, with as many at once as asked for."""
