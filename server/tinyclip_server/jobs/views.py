"""Documents of the API from rows of the database."""

from tinyclip.schemas import Event, Job, JobError, JobSpec, JobState, LogLine, ModelRef, Progress, StageView

from tinyclip_server.database.tables import EventRow, JobRow, LogLineRow, StageRow


def job_view(job: JobRow, spec: JobSpec | None = None) -> Job:
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
        error=JobError.model_validate(job.error) if job.error else None,
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
