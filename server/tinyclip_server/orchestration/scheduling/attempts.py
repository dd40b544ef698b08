"""A leased claim on one training job, and one round of observing its attempt: the control file, then the Ray job."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from tinyclip.artifacts.documents import Control, JobDocument
from tinyclip.artifacts.paths import attempt_events, job_control, job_spec
from tinyclip.schemas import JSON, JobState
from tinyclip.schemas.spec import Timeouts

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import AttemptRow, JobRow
from tinyclip_server.http.services import Services
from tinyclip_server.orchestration.age import Age
from tinyclip_server.orchestration.ray_jobs.event_segments import read_segments
from tinyclip_server.orchestration.ray_jobs.observation import Observation, RayJob, observe
from tinyclip_server.orchestration.ray_jobs.stalls import judge


@dataclass(frozen=True)
class Claim:
    """A job as it was when this scheduler took or renewed its lease."""

    job_id: str
    lease_token: int
    state: JobState
    attempt: int
    submission_id: str
    submitted: bool
    next_segment: int
    control: str
    document: JSON
    """A `JobDocument`, validated when it is submitted."""
    stop_requested_at: datetime | None
    lease_until: datetime
    unknown: bool
    """True if Ray had no record of the attempt in the last observation."""
    abandoned: bool
    """True if the attempt belongs to another cluster, none of whose servers has renewed the lease for long."""
    progressed_at: datetime | None
    timeouts: Timeouts
    time_is_up: bool
    """True if the job has been on the cluster for longer than its spec allows."""
    lease_left_s: float
    """Seconds that the lease had left when this claim was made."""
    age: Age = field(default_factory=Age, compare=False)

    @classmethod
    def of(cls, job: JobRow, attempt: AttemptRow, cluster: str, on_cluster_s: float) -> "Claim":
        timeouts = timeouts_of(job)
        return cls(
            job_id=job.id,
            lease_token=job.lease_token,
            state=JobState(job.state),
            attempt=job.attempt,
            submission_id=attempt.ray_submission_id,
            submitted=attempt.submitted,
            next_segment=attempt.next_segment,
            control=job.control,
            document={
                "job": job.id, "name": job.name, "spec": {**job.resolved_spec, **_teachers(job)}, "dataset": job.dataset,
                "model_name": job.model_name, "model_version": job.model_version, "adopts": job.adopts or [],
            },
            stop_requested_at=job.stop_requested_at,
            lease_until=job.lease_until or now(),
            unknown=attempt.unknown_since is not None,
            abandoned=attempt.cluster != cluster,
            progressed_at=attempt.progressed_at,
            timeouts=timeouts,
            time_is_up=timeouts.total_seconds is not None and on_cluster_s >= timeouts.total_seconds,
            lease_left_s=(job.lease_until - now()).total_seconds() if job.lease_until is not None else 0.0,
        )

    @property
    def holds(self) -> bool:
        """Return whether no other server can have taken the lease since this claim."""
        return self.left_s > 0

    @property
    def left_s(self) -> float:
        """Return the seconds for which no other server can take the lease."""
        return min((self.lease_until - now()).total_seconds(), self.lease_left_s - self.age.seconds())

    async def still_holds(self) -> bool:
        return self.holds

    @property
    def stopping(self) -> bool:
        return self.state in (JobState.PAUSING, JobState.CANCELLING)

    @property
    def desired(self) -> Literal["run", "pause", "cancel"]:
        return {JobState.PAUSING: "pause", JobState.CANCELLING: "cancel"}.get(self.state, "run")  # type: ignore[return-value]

    @property
    def wanted_control(self) -> str:
        return f"{self.attempt}:{self.desired}"

    @property
    def ray_job(self) -> RayJob:
        return RayJob(
            submission_id=self.submission_id,
            name=self.document["name"],
            metadata={"tinyclip_job": self.job_id, "tinyclip_attempt": str(self.attempt)},
            module=["tinyclip_workers.training.driver"],
            arguments=["--job", self.job_id, "--attempt", str(self.attempt)],
            request_path=job_spec(self.job_id),
            request=lambda: JobDocument.model_validate(self.document).model_dump_json().encode(),
            events=attempt_events(self.job_id, self.attempt),
        )


def timeouts_of(job: JobRow) -> Timeouts:
    return Timeouts.model_validate(job.resolved_spec.get("timeouts", {}))  # jobs of older versions have none


def _teachers(job: JobRow) -> JSON:
    """Return the teachers of the pinned spec. Plans of version 0.1 have addresses in the place of `registry:` names."""
    return {key: job.spec[key] for key in ("teacher", "teachers") if key in job.spec}


async def observe_attempt(services: Services, claim: Claim, *, ask_ray: bool) -> Observation:
    """Bring the control file and Ray to what the claim wants, then observe. Raises OSError if a file cannot be written.

    A server that was suspended beyond its lease acts on nothing: another one may own the job and its files by now.
    """
    if not claim.holds:
        return Observation(submitted=claim.submitted)
    if claim.abandoned:  # its events are in the store, but only its own cluster knows its status
        seen = Observation(submitted=claim.submitted, abandoned=True)
        seen.segments, seen.caught_up = await read_segments(services.store, claim.ray_job.events, claim.next_segment)
        return seen
    control = await _write_control(services, claim, verify=ask_ray)
    submit = not claim.stopping and not claim.time_is_up
    seen = await observe(
        services, claim.ray_job, claim.next_segment, submitted=claim.submitted, submit=submit,
        ask=ask_ray or not claim.submitted or claim.stopping, stop=_grace_is_over(services, claim), may_act=claim.still_holds,
    )
    seen.control = control
    if claim.submitted:
        judge(services, claim.submission_id, seen, claim.progressed_at, claim.timeouts.progress_seconds)
    return seen


async def _write_control(services: Services, claim: Claim, *, verify: bool) -> str | None:
    """Write the file if it has changed; `verify` also repairs what a delayed scheduler has written."""
    wanted = Control(fence=claim.attempt, desired=claim.desired).model_dump_json().encode()
    path = job_control(claim.job_id)
    if claim.control != claim.wanted_control or (verify and await services.store.read_if_exists(path) != wanted):
        if not claim.holds:
            return None
        await services.store.write_bytes(path, wanted, within_s=claim.left_s)
        return claim.wanted_control
    return None


def _grace_is_over(services: Services, claim: Claim) -> bool:
    if claim.stop_requested_at is None:
        return False
    return now() - claim.stop_requested_at >= timedelta(seconds=services.settings.stop_grace_seconds)
