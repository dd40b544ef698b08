"""One look at a running attempt from outside the database: the files we leave for it, Ray's word, and what it wrote."""

import json
import logging
import re
import shlex
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import ValidationError
from tinyclip.artifacts.documents import Control, JobDocument, WorkerEvent
from tinyclip.artifacts.paths import attempt_events, event_segment, job_control, job_spec
from tinyclip.schemas import JSON, JobState

from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.backends.ray_gateway import RayJobStatus, RayRefused, RayUnavailable
from tinyclip_server.database.engine import now
from tinyclip_server.http.services import Services

logger = logging.getLogger(__name__)

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
MOST_SEGMENTS = 200
"""Read in one look; a server that was away for hours catches up over several."""


@dataclass(frozen=True)
class Claim:
    """A job as it was when we took or renewed our lease on it."""

    job_id: str
    lease_token: int
    state: JobState
    attempt: int
    submission_id: str
    submitted: bool
    next_segment: int
    control: str
    document: JSON
    """A `JobDocument`, not looked into until it is needed."""
    stop_requested_at: datetime | None
    lease_until: datetime
    unknown: bool
    """Whether Ray did not know the attempt when last asked."""

    @property
    def stopping(self) -> bool:
        return self.state in (JobState.PAUSING, JobState.CANCELLING)

    @property
    def desired(self) -> Literal["run", "pause", "cancel"]:
        return {JobState.PAUSING: "pause", JobState.CANCELLING: "cancel"}.get(self.state, "run")  # type: ignore[return-value]

    @property
    def wanted_control(self) -> str:
        return f"{self.attempt}:{self.desired}"


@dataclass
class Observation:
    """What was done and seen; nothing of it is in the database yet."""

    control: str = ""
    submitted: bool = False
    refused: str | None = None
    asked: bool = False
    """Whether Ray answered about the attempt's status."""
    status: RayJobStatus | None = None
    """With `asked`: null means that Ray does not know the attempt."""
    segments: list[list[WorkerEvent]] = field(default_factory=list)
    caught_up: bool = False
    """Whether all that the attempt had written by then was read."""

    def says_something(self, claim: Claim) -> bool:
        """Whether there is anything to write down: most looks at a running attempt find nothing new."""
        return bool(
            self.segments
            or self.control != claim.control
            or self.submitted != claim.submitted
            or self.refused is not None
            or (self.asked and claim.unknown)
            or (self.asked and self.status not in (RayJobStatus.PENDING, RayJobStatus.RUNNING))
        )


async def observe(services: Services, claim: Claim, *, ask_ray: bool) -> Observation:
    """Bring our files and Ray to what the claim wants, then look. Holds no transaction. Raises OSError: no room for our files."""
    seen = Observation(control=claim.control, submitted=claim.submitted)
    if now() >= claim.lease_until:  # held up since the claim: the job may be another's by now, and its files with it
        return seen
    await _write_control(services, claim, seen, again=ask_ray)
    try:
        if not claim.submitted and not claim.stopping:
            await _submit(services, claim, seen)
        if ask_ray or not claim.submitted or claim.stopping:
            # Ray's word before the segments: what is read after an end was seen is all there will be.
            seen.status = await services.ray.job_status(claim.submission_id)
            seen.asked = True
            if seen.status and not seen.status.ended and _grace_is_over(services, claim):
                await services.ray.stop_job(claim.submission_id)
    except RayRefused as error:
        seen.refused = str(error)
    except RayUnavailable as error:
        logger.debug("%s: %s", claim.submission_id, error)
    told = await read_segments(services, claim)
    seen.segments, seen.caught_up = told.segments, told.caught_up
    return seen


async def new_segments(store: AsyncArtifactsStore, folder: str, first: int) -> tuple[list[list[WorkerEvent]], bool]:
    """The events of the segments from number `first` on, and whether that is all there is by now."""
    segments: list[list[WorkerEvent]] = []
    while len(segments) < MOST_SEGMENTS:
        path = event_segment(folder, first + len(segments))
        data = await store.read_if_exists(path)
        if data is None:
            return segments, True
        segments.append(_events_in(data, path))
    return segments, False


async def read_segments(services: Services, claim: Claim) -> Observation:
    """Only what the attempt wrote since the read position."""
    seen = Observation(control=claim.control, submitted=claim.submitted)
    folder = attempt_events(claim.job_id, claim.attempt)
    seen.segments, seen.caught_up = await new_segments(services.store, folder, claim.next_segment)
    return seen


async def _write_control(services: Services, claim: Claim, seen: Observation, *, again: bool) -> None:
    """When it has changed, and `again` when the file is not as we left it: a scheduler that was held up may have written."""
    wanted = Control(fence=claim.attempt, desired=claim.desired).model_dump_json().encode()
    path = job_control(claim.job_id)
    if claim.control != claim.wanted_control or (again and await services.store.read_if_exists(path) != wanted):
        await services.store.write_bytes(path, wanted)
        seen.control = claim.wanted_control


async def _submit(services: Services, claim: Claim, seen: Observation) -> None:
    """The job document first: the driver reads it at once. A job that Ray has already under this id is ours."""
    document = JobDocument.model_validate(claim.document)
    await services.store.write_bytes(job_spec(claim.job_id), document.model_dump_json().encode())
    entrypoint = "exec " + shlex.join(
        [
            services.settings.worker_python, "-m", "tinyclip_workers.training.driver", "--artifacts", services.store.root,
            "--job", claim.job_id, "--attempt", str(claim.attempt),
        ]
    )
    metadata = {"job_name": document.name, "tinyclip_job": claim.job_id, "tinyclip_attempt": str(claim.attempt)}
    await services.ray.submit_job(claim.submission_id, entrypoint, metadata)
    seen.submitted = True


def _grace_is_over(services: Services, claim: Claim) -> bool:
    if claim.stop_requested_at is None:
        return False
    return now() - claim.stop_requested_at >= timedelta(seconds=services.settings.stop_grace_seconds)


def _events_in(data: bytes, path: str) -> list[WorkerEvent]:
    events = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            document = json.loads(line, parse_constant=lambda _: None)  # NaN and Infinity are no JSON: PostgreSQL refuses them
            events.append(WorkerEvent.model_validate(_storable(document)))
        except (ValueError, ValidationError) as error:  # skipped for good: reading it again would not make it readable
            logger.error("%s line %d is not an event: %s", path, number, error)
    return events


def _storable(value: Any) -> Any:
    """JSON whose texts a database can hold: JSON itself can spell a NUL and half a surrogate pair."""
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_storable(item) for item in value]
    return UNSTORABLE.sub("\ufffd", value) if isinstance(value, str) else value
