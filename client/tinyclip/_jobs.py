"""Jobs: submit a spec, follow it, end it."""

import asyncio
import collections
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from tinyclip import _job_calls as calls
from tinyclip._calls import AsyncResource, Resource, async_method, path, sync_method
from tinyclip._pages import every, every_async
from tinyclip._retry import Retries
from tinyclip._streams import Stream, follow, follow_async
from tinyclip._waiting import Deadline
from tinyclip.schemas import Event, Job, JobState, LogLine

_LONG_POLL_SECONDS = 25.0
_BETWEEN_SNAPSHOTS_SECONDS = 0.25
_SURVIVES_RESTART_SECONDS = 300.0


class Jobs(Resource):
    """`client.jobs`."""

    submit = sync_method(calls.submit)
    plan = sync_method(calls.plan)
    page = sync_method(calls.page)
    get = sync_method(calls.get)
    cancel = sync_method(calls.cancel)
    pause = sync_method(calls.pause)
    resume = sync_method(calls.resume)
    retry = sync_method(calls.retry)
    clone = sync_method(calls.clone)
    update = sync_method(calls.update)
    delete = sync_method(calls.delete)
    events_page = sync_method(calls.events_page)
    logs_page = sync_method(calls.logs_page)
    metrics = sync_method(calls.metrics)
    checkpoints = sync_method(calls.checkpoints)
    layout_picture = sync_method(calls.layout_picture)

    def list(
        self,
        *,
        state: JobState | str | Sequence[JobState | str] | None = None,
        name: str | Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Iterator[Job]:
        """All jobs, newest first."""
        return every(self._transport, lambda token: calls.page(state=state, name=name, labels=labels, page_token=token))

    def events(self, job_id: str, *, after: int = 0, patience: float = _SURVIVES_RESTART_SECONDS) -> Iterator[Event]:
        """A job's events as they happen, from the one after `after` until the job has ended.

        `patience` is how many seconds the server may be away."""
        stream = Stream(path("jobs", job_id, "events"), Event, after, self._transport.retries.lasting(patience))
        return follow(self._transport, stream, lambda: self.get(job_id).state.terminal)

    def logs(
        self, job_id: str, *, after: int = 0, tail: int | None = None, patience: float = _SURVIVES_RESTART_SECONDS
    ) -> Iterator[LogLine]:
        """A job's log lines as they come, until the job has ended: from the one after `after`, or from the last `tail`."""
        stream = Stream(path("jobs", job_id, "logs"), LogLine, after, self._transport.retries.lasting(patience), tail=tail)
        return follow(self._transport, stream, lambda: self.get(job_id).state.terminal)

    def watch(
        self, job_id: str, *, timeout: float | None = None, patience: float = _SURVIVES_RESTART_SECONDS
    ) -> Iterator[Job]:
        """The job now and after each change, until it has ended. Raises `WaitTimeout` after `timeout` seconds.

        `patience` is how many seconds the server may be away, once it has answered."""
        deadline, patient = Deadline(f"{job_id} has not ended", timeout), self._transport.retries.lasting(patience)
        seen = self._transport.send(calls.snapshot(job_id))
        while True:
            yield seen.job
            if seen.job.state.terminal:
                return
            seen = self._newer(seen, deadline, patient)

    def wait(self, job_id: str, *, timeout: float | None = None, patience: float = _SURVIVES_RESTART_SECONDS) -> Job:
        """The job once it has ended, well or not. Raises `WaitTimeout` after `timeout` seconds."""
        return collections.deque(self.watch(job_id, timeout=timeout, patience=patience), maxlen=1).pop()

    def _newer(self, seen: calls.Snapshot, deadline: Deadline, patient: Retries) -> calls.Snapshot:
        while True:
            time.sleep(deadline.left(_BETWEEN_SNAPSHOTS_SECONDS))
            newer = self._transport.send(calls.changed(seen, deadline.left(_LONG_POLL_SECONDS)), patient)
            if newer is not None:
                return newer


class AsyncJobs(AsyncResource):
    """`async_client.jobs`; see `Jobs`."""

    submit = async_method(calls.submit)
    plan = async_method(calls.plan)
    page = async_method(calls.page)
    get = async_method(calls.get)
    cancel = async_method(calls.cancel)
    pause = async_method(calls.pause)
    resume = async_method(calls.resume)
    retry = async_method(calls.retry)
    clone = async_method(calls.clone)
    update = async_method(calls.update)
    delete = async_method(calls.delete)
    events_page = async_method(calls.events_page)
    logs_page = async_method(calls.logs_page)
    metrics = async_method(calls.metrics)
    checkpoints = async_method(calls.checkpoints)
    layout_picture = async_method(calls.layout_picture)

    def list(
        self,
        *,
        state: JobState | str | Sequence[JobState | str] | None = None,
        name: str | Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Job]:
        """All jobs, newest first."""
        return every_async(self._transport, lambda token: calls.page(state=state, name=name, labels=labels, page_token=token))

    def events(self, job_id: str, *, after: int = 0, patience: float = _SURVIVES_RESTART_SECONDS) -> AsyncIterator[Event]:
        """A job's events as they happen; see `Jobs.events`."""
        stream = Stream(path("jobs", job_id, "events"), Event, after, self._transport.retries.lasting(patience))
        return follow_async(self._transport, stream, lambda: self._ended(job_id))

    def logs(
        self, job_id: str, *, after: int = 0, tail: int | None = None, patience: float = _SURVIVES_RESTART_SECONDS
    ) -> AsyncIterator[LogLine]:
        """A job's log lines as they come; see `Jobs.logs`."""
        stream = Stream(path("jobs", job_id, "logs"), LogLine, after, self._transport.retries.lasting(patience), tail=tail)
        return follow_async(self._transport, stream, lambda: self._ended(job_id))

    async def watch(
        self, job_id: str, *, timeout: float | None = None, patience: float = _SURVIVES_RESTART_SECONDS
    ) -> AsyncIterator[Job]:
        """The job now and after each change, until it has ended; see `Jobs.watch`."""
        deadline, patient = Deadline(f"{job_id} has not ended", timeout), self._transport.retries.lasting(patience)
        seen = await self._transport.send(calls.snapshot(job_id))
        while True:
            yield seen.job
            if seen.job.state.terminal:
                return
            seen = await self._newer(seen, deadline, patient)

    async def wait(
        self, job_id: str, *, timeout: float | None = None, patience: float = _SURVIVES_RESTART_SECONDS
    ) -> Job:
        """The job once it has ended, well or not; see `Jobs.wait`."""
        last: Job | None = None
        async for job in self.watch(job_id, timeout=timeout, patience=patience):
            last = job
        assert last is not None  # the first snapshot is always given
        return last

    async def _newer(self, seen: calls.Snapshot, deadline: Deadline, patient: Retries) -> calls.Snapshot:
        while True:
            await asyncio.sleep(deadline.left(_BETWEEN_SNAPSHOTS_SECONDS))
            newer = await self._transport.send(calls.changed(seen, deadline.left(_LONG_POLL_SECONDS)), patient)
            if newer is not None:
                return newer

    async def _ended(self, job_id: str) -> bool:
        return (await self.get(job_id)).state.terminal
