"""The common part of all Ray jobs, training or not: submit one, get its status, read its events, judge its end.

Nothing here touches the database: an observation counts once its caller has applied it.
"""

import logging
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto

from tinyclip.artifacts.documents import WorkerEvent

from tinyclip_server.backends.ray_gateway import RayJobNote, RayJobStatus, RayRefused, RayUnavailable
from tinyclip_server.database.engine import now
from tinyclip_server.http.services import Services
from tinyclip_server.orchestration.ray_jobs.event_segments import read_segments

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RayJob:
    """One Ray job under a deterministic id, and the files through which it is reached."""

    submission_id: str
    name: str
    metadata: Mapping[str, str]
    module: Sequence[str]
    """Module of the engine, and its subcommand if it has any."""
    arguments: Sequence[str]
    """The arguments after `--artifacts ROOT`."""
    request_path: str
    """A file that the job reads when it starts."""
    request: Callable[[], bytes]
    events: str
    """Folder of its event segments."""


class Verdict(Enum):
    """The meaning of an observation for the job."""

    UNDECIDED = auto()
    """Ray did not answer, or events are left to read."""
    ALIVE = auto()
    REFUSED = auto()
    """Ray does not take the job."""
    UNKNOWN = auto()
    """Ray has no record of the job."""
    LOST = auto()
    """Ray reports that the job has ended. If none of its events was the final one, it is lost."""
    ABANDONED = auto()
    """The job is on another cluster, which has no servers any more."""
    STALLED = auto()
    """Ray reports that the job runs, and it has made no progress for too long."""


@dataclass
class Observation:
    """The results of one round; nothing of it is in the database yet."""

    submitted: bool = False
    refused: str | None = None
    answered: bool = False
    """True if Ray answered the request for the job's status."""
    status: RayJobStatus | None = None
    """None with `answered`: Ray does not know the job."""
    note: RayJobNote | None = None
    """Ray's explanation, for a job whose driver has not started or may never have."""
    not_taken: str | None = None
    """Ray's answer to a submission that failed, to be repeated; None if the job is submitted."""
    segments: list[list[WorkerEvent]] = field(default_factory=list)
    caught_up: bool = False
    """True if everything that the job had written by then was read."""
    stalled: bool = False
    """Set by `stalls.judge`, like the next one."""
    waits: bool = False
    """True if the time without progress begins anew: the job waits in Ray's queue."""
    abandoned: bool = False
    """True if the job is on another cluster, which has no servers any more."""
    control: str | None = None
    """The new content of a training job's control file; None if it did not change."""

    @property
    def verdict(self) -> Verdict:
        if self.refused is not None:
            return Verdict.REFUSED
        if self.abandoned and self.caught_up:
            return Verdict.ABANDONED
        if not (self.answered and self.caught_up):
            return Verdict.UNDECIDED
        if self.status is None:
            return Verdict.UNKNOWN
        if self.status.ended:
            return Verdict.LOST
        return Verdict.STALLED if self.stalled else Verdict.ALIVE

    @property
    def never_started(self) -> str | None:
        """Return Ray's message on a job that it gave up before it started, because the cluster had no room."""
        return self.note.message if self.note is not None and self.note.never_started else None

    def has_changes(self, *, submitted: bool) -> bool:
        """Return whether there is anything to apply to a job that was `submitted` or not before."""
        decided = self.verdict in (Verdict.REFUSED, Verdict.LOST, Verdict.ABANDONED, Verdict.STALLED)
        return bool(self.segments) or self.submitted != submitted or self.waits or decided

    def progressed_at(self, before: datetime | None, *, submitted: bool) -> datetime | None:
        """Return the time of the last sign of progress, given the one `before` this observation."""
        return now() if self.segments or self.waits or (self.submitted and not submitted) else before


async def observe(
    services: Services, job: RayJob, next_segment: int, *, submitted: bool, may_act: Callable[[], Awaitable[bool]],
    submit: bool = True, ask: bool = True, stop: bool = False,
) -> Observation:
    """Submit the job if it is not yet submitted, `ask` for its status, `stop` it if it is alive, and read its new events.

    `may_act` is awaited right before each write and each call that changes Ray: a server that was suspended since it read the
    row must do neither. Raises OSError if the request cannot be written.
    """
    seen = Observation(submitted=submitted)
    try:
        if submit and not submitted:
            seen.submitted = await _submit(services, job, may_act)
            ask = ask and seen.submitted  # without a submission, it means nothing that Ray does not know the job
        if ask:
            # The status before the segments: what is read after an end was seen is everything there will ever be.
            seen.status = await services.ray.job_status(job.submission_id)
            seen.answered = True
            if seen.status is RayJobStatus.PENDING or (seen.status is RayJobStatus.FAILED and next_segment == 1):
                seen.note = await services.ray.job_note(job.submission_id)
            if stop and seen.status is not None and not seen.status.ended and await may_act():
                await services.ray.stop_job(job.submission_id)
    except RayRefused as error:
        seen.refused = str(error)
    except RayUnavailable as error:
        logger.debug("%s: %s", job.submission_id, error)
        seen.not_taken = error.answer if submit and not seen.submitted else None
    seen.segments, seen.caught_up = await read_segments(services.store, job.events, next_segment)
    return seen


async def _submit(services: Services, job: RayJob, may_act: Callable[[], Awaitable[bool]]) -> bool:
    """Write the request, which the job reads at once, then submit. A job that exists already under this id is this one.

    Return False, with nothing submitted, if this server may no longer act.
    """
    request = job.request()
    if not await may_act():
        return False
    await services.store.write_bytes(job.request_path, request)
    if not await may_act():
        return False
    command = [services.settings.worker_python, "-m", *job.module, "--artifacts", services.store.root, *job.arguments]
    await services.ray.submit_job(job.submission_id, "exec " + shlex.join(command), {"job_name": job.name, **job.metadata})
    return True
