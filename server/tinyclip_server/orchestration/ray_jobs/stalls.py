"""Detects Ray jobs that Ray reports as running and that make no progress.

A sign of progress is a new event segment. Workers write segments without the control plane, so the time in which all servers
were down counts, but only after the events of that time were read, and after workers had time to write those that an outage of
the store had held back. A job that waits in Ray's queue makes no progress and is not stalled.
"""

from datetime import datetime

from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.database.engine import now
from tinyclip_server.http.services import Services
from tinyclip_server.orchestration.ray_jobs.observation import Observation

SETTLE_SECONDS = 120.0
"""Least time for which a server reads a job's events without interruption before it judges the job."""


def judge(services: Services, submission_id: str, seen: Observation, progressed_at: datetime | None, limit_s: float) -> None:
    """Set `seen.stalled` for a job without a new segment for `limit_s`, and `seen.waits` for one whose time begins anew."""
    if not seen.caught_up or seen.segments or not seen.answered:
        return
    read_for = services.readings.note(submission_id)
    if progressed_at is None:  # a row of an older version
        seen.waits = True
        return
    silent = (now() - progressed_at).total_seconds()
    if seen.status is RayJobStatus.PENDING:
        seen.waits = silent >= limit_s / 2
    elif seen.status is RayJobStatus.RUNNING:
        seen.stalled = silent >= limit_s and read_for >= min(limit_s, SETTLE_SECONDS)
