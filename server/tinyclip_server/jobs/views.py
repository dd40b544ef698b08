"""Documents of the API from rows of the database."""

from collections.abc import Sequence

from tinyclip.schemas import (
    Attempt,
    Event,
    Job,
    JobAction,
    JobError,
    JobParent,
    JobSpec,
    JobSpecs,
    JobState,
    LogLine,
    ModelRef,
    NamedPoint,
    Progress,
    StageView,
)

from tinyclip_server.database.tables import AttemptRow, EventRow, JobRow, LogLineRow, MetricPointRow, StageRow
from tinyclip_server.jobs.specs import without_defaults


def job_view(job: JobRow, spec: JobSpec | None = None, actions: Sequence[JobAction] = ()) -> Job:
    """Return the document of a job; `spec` saves parsing the stored one."""
    succeeded = job.state == JobState.SUCCEEDED and job.model_version is not None
    return Job(
        id=job.id,
        name=job.name,
        labels=job.labels,
        project=job.project,
        priority=job.priority,
        spec_version=job.spec["spec_version"],
        spec=spec or JobSpec.model_validate(job.spec),
        state=JobState(job.state),
        progress=Progress.model_validate(job.progress),
        stages=[stage_view(stage) for stage in job.stages],
        attempt=job.attempt,
        ray_submission_id=f"tc-{job.id}-a{job.attempt}" if job.attempt else None,
        model=ModelRef(name=job.model_name, version=job.model_version) if succeeded and job.model_version else None,
        retry_of=job.adopts[0] if job.adopts else None,
        parent=JobParent(search=job.search_id, trial=job.trial) if job.search_id and job.trial is not None else None,
        error=JobError.model_validate(job.error) if job.error else None,
        actions=list(actions),
        etag=etag(job),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def etag(job: JobRow) -> str:
    """Return two counters: `If-Match` compares the first (state and edits), a long poll waits for a change of either."""
    return f"{job.revision}.{job.last_event}"


def stage_view(stage: StageRow) -> StageView:
    return StageView.model_validate(
        {
            "index": stage.index, "name": stage.name, "state": stage.state, "inherit": stage.inherit, "student": stage.student,
            "metrics": stage.metrics, "evaluation": stage.evaluation,
        }
    )


def specs_view(job: JobRow) -> JobSpecs:
    return JobSpecs(
        submitted=job.submitted_spec if job.submitted_spec is not None else without_defaults(job.spec), resolved=job.resolved_spec
    )


def attempt_view(attempt: AttemptRow) -> Attempt:
    return Attempt(
        number=attempt.number, ray_submission_id=attempt.ray_submission_id, outcome=attempt.outcome, cause=attempt.cause,
        created_at=attempt.created_at, finished_at=attempt.finished_at,
    )


def event_view(event: EventRow) -> Event:
    return Event(
        id=event.seq, job=event.job_id, type=event.type, attempt=event.attempt, stage=event.stage, message=event.message,
        data=event.data, created_at=event.created_at,
    )


def log_view(line: LogLineRow) -> LogLine:
    return LogLine(
        id=line.seq, attempt=line.attempt, level=line.level, source=line.source, message=line.message,
        created_at=line.created_at,
    )


def point_view(point: MetricPointRow) -> NamedPoint:
    return NamedPoint(name=point.name, stage=point.stage, step=point.step, value=point.value)
