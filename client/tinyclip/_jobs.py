"""Jobs: submit a spec, follow it, end it."""

import asyncio
import collections
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tinyclip._calls import AsyncResource, Call, Resource, as_model, async_method, once, path, sync_method
from tinyclip._pages import every, every_async
from tinyclip._retry import Retries
from tinyclip._streams import Stream, follow, follow_async
from tinyclip._waiting import Deadline
from tinyclip.schemas import Event, Job, JobSpec, JobState, LogLine, Metrics, Page, Plan

Spec = JobSpec | Mapping[str, Any]
"""A spec as written: a mapping is sent as it is, so that the server can say what is wrong with it."""

_LONG_POLL_SECONDS = 25.0
_BETWEEN_SNAPSHOTS_SECONDS = 0.25
_SURVIVES_RESTART_SECONDS = 300.0


def submit(spec: Spec, *, idempotency_key: str | None = None) -> Call[Job]:
    """Submits a spec. The same key and spec give the same job, however often they are sent; by default a fresh key is drawn."""
    return Call("POST", path("jobs"), as_model(Job), body=_document(spec), headers=once(idempotency_key))


def plan(spec: Spec) -> Call[Plan]:
    """What a spec would do, without doing it: resolved spec, students, steps, estimated device-hours."""
    return Call("POST", path("jobs"), as_model(Plan), query={"validate_only": "true"}, body=_document(spec))


def page(
    *,
    state: JobState | str | None = None,
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    page_size: int | None = None,
    page_token: str | None = None,
) -> Call[Page[Job]]:
    """One page of jobs, newest first."""
    query = {
        "state": state, "name": name, "label": [f"{key}:{value}" for key, value in (labels or {}).items()] or None,
        "page_size": page_size, "page_token": page_token,
    }
    return Call("GET", path("jobs"), as_model(Page[Job]), query=query)


def get(job_id: str) -> Call[Job]:
    """One job as it is now."""
    return Call("GET", path("jobs", job_id), as_model(Job))


@dataclass(frozen=True)
class Snapshot:
    """A job and the tag by which the server knows this state of it."""

    job: Job
    tag: str


def snapshot(job_id: str) -> Call[Snapshot]:
    """The job as it is now."""
    return Call("GET", path("jobs", job_id), _snapshot)


def changed(seen: Snapshot, wait: float) -> Call[Snapshot | None]:
    """The job once it is no longer as seen; None if nothing has changed within `wait` seconds."""
    return Call(
        "GET", path("jobs", seen.job.id), _newer_snapshot, query={"wait": max(1, int(wait))}, wait=wait,
        headers={"If-None-Match": seen.tag},
    )


def cancel(job_id: str) -> Call[Job]:
    """Asks for the job to end without a student."""
    return _transition(job_id, "cancel")


def events_page(job_id: str, *, page_size: int | None = None, page_token: str | None = None) -> Call[Page[Event]]:
    """One page of a job's history, oldest first."""
    query = {"page_size": page_size, "page_token": page_token}
    return Call("GET", path("jobs", job_id, "events"), as_model(Page[Event]), query=query)


def logs_page(
    job_id: str, *, tail: int | None = None, page_size: int | None = None, page_token: str | None = None
) -> Call[Page[LogLine]]:
    """One page of a job's log lines, oldest first; `tail` asks for the last ones only."""
    query = {"tail": tail, "page_size": page_size, "page_token": page_token}
    return Call("GET", path("jobs", job_id, "logs"), as_model(Page[LogLine]), query=query)


def metrics(
    job_id: str, *, names: Sequence[str] | None = None, stage: int | None = None, max_points: int | None = None
) -> Call[Metrics]:
    """Series of numbers by name (`loss`, `lr`, …), thinned to `max_points` a stage."""
    query = {"names": ",".join(names) if names else None, "stage": stage, "max_points": max_points}
    return Call("GET", path("jobs", job_id, "metrics"), as_model(Metrics), query=query)


class Jobs(Resource):
    """`client.jobs`."""

    submit = sync_method(submit)
    plan = sync_method(plan)
    page = sync_method(page)
    get = sync_method(get)
    cancel = sync_method(cancel)
    events_page = sync_method(events_page)
    logs_page = sync_method(logs_page)
    metrics = sync_method(metrics)

    def list(
        self, *, state: JobState | str | None = None, name: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Iterator[Job]:
        """All jobs, newest first."""
        return every(self._transport, lambda token: page(state=state, name=name, labels=labels, page_token=token))

    def events(self, job_id: str, *, after: int = 0, patience: float = _SURVIVES_RESTART_SECONDS) -> Iterator[Event]:
        """A job's events as they happen, from the one after `after` until the job has ended.

        `patience` is how many seconds the server may be away."""
        stream = Stream(path("jobs", job_id, "events"), Event, after, self._transport.retries.lasting(patience))
        return follow(self._transport, stream, lambda: self.get(job_id).state.terminal)

    def logs(self, job_id: str, *, after: int = 0, patience: float = _SURVIVES_RESTART_SECONDS) -> Iterator[LogLine]:
        """A job's log lines as they come, from the one after `after` until the job has ended."""
        stream = Stream(path("jobs", job_id, "logs"), LogLine, after, self._transport.retries.lasting(patience))
        return follow(self._transport, stream, lambda: self.get(job_id).state.terminal)

    def watch(
        self, job_id: str, *, timeout: float | None = None, patience: float = _SURVIVES_RESTART_SECONDS
    ) -> Iterator[Job]:
        """The job now and after each change, until it has ended. Raises `WaitTimeout` after `timeout` seconds.

        `patience` is how many seconds the server may be away, once it has answered."""
        deadline, patient = Deadline(f"{job_id} has not ended", timeout), self._transport.retries.lasting(patience)
        seen = self._transport.send(snapshot(job_id))
        while True:
            yield seen.job
            if seen.job.state.terminal:
                return
            seen = self._newer(seen, deadline, patient)

    def wait(self, job_id: str, *, timeout: float | None = None, patience: float = _SURVIVES_RESTART_SECONDS) -> Job:
        """The job once it has ended, well or not. Raises `WaitTimeout` after `timeout` seconds."""
        return collections.deque(self.watch(job_id, timeout=timeout, patience=patience), maxlen=1).pop()

    def _newer(self, seen: Snapshot, deadline: Deadline, patient: Retries) -> Snapshot:
        while True:
            time.sleep(deadline.left(_BETWEEN_SNAPSHOTS_SECONDS))
            newer = self._transport.send(changed(seen, deadline.left(_LONG_POLL_SECONDS)), patient)
            if newer is not None:
                return newer


class AsyncJobs(AsyncResource):
    """`async_client.jobs`; see `Jobs`."""

    submit = async_method(submit)
    plan = async_method(plan)
    page = async_method(page)
    get = async_method(get)
    cancel = async_method(cancel)
    events_page = async_method(events_page)
    logs_page = async_method(logs_page)
    metrics = async_method(metrics)

    def list(
        self, *, state: JobState | str | None = None, name: str | None = None, labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[Job]:
        """All jobs, newest first."""
        return every_async(self._transport, lambda token: page(state=state, name=name, labels=labels, page_token=token))

    def events(self, job_id: str, *, after: int = 0, patience: float = _SURVIVES_RESTART_SECONDS) -> AsyncIterator[Event]:
        """A job's events as they happen; see `Jobs.events`."""
        stream = Stream(path("jobs", job_id, "events"), Event, after, self._transport.retries.lasting(patience))
        return follow_async(self._transport, stream, lambda: self._ended(job_id))

    def logs(self, job_id: str, *, after: int = 0, patience: float = _SURVIVES_RESTART_SECONDS) -> AsyncIterator[LogLine]:
        """A job's log lines as they come; see `Jobs.logs`."""
        stream = Stream(path("jobs", job_id, "logs"), LogLine, after, self._transport.retries.lasting(patience))
        return follow_async(self._transport, stream, lambda: self._ended(job_id))

    async def watch(
        self, job_id: str, *, timeout: float | None = None, patience: float = _SURVIVES_RESTART_SECONDS
    ) -> AsyncIterator[Job]:
        """The job now and after each change, until it has ended; see `Jobs.watch`."""
        deadline, patient = Deadline(f"{job_id} has not ended", timeout), self._transport.retries.lasting(patience)
        seen = await self._transport.send(snapshot(job_id))
        while True:
            yield seen.job
            if seen.job.state.terminal:
                return
            seen = await self._newer(seen, deadline, patient)

    async def wait(
        self, job_id: str, *, timeout: float | None = None, patience: float = _SURVIVES_RESTART_SECONDS
    ) -> Job:
        """The job once it has ended, well or not; see `Jobs.wait`."""
        last = await self.get(job_id)
        async for job in self.watch(job_id, timeout=timeout, patience=patience):
            last = job
        return last

    async def _newer(self, seen: Snapshot, deadline: Deadline, patient: Retries) -> Snapshot:
        while True:
            await asyncio.sleep(deadline.left(_BETWEEN_SNAPSHOTS_SECONDS))
            newer = await self._transport.send(changed(seen, deadline.left(_LONG_POLL_SECONDS)), patient)
            if newer is not None:
                return newer

    async def _ended(self, job_id: str) -> bool:
        return (await self.get(job_id)).state.terminal


def _document(spec: Spec) -> Any:
    return spec.model_dump(mode="json", exclude_unset=True) if isinstance(spec, JobSpec) else dict(spec)


def _transition(job_id: str, verb: str) -> Call[Job]:
    return Call("POST", path("jobs", job_id, verb), as_model(Job), headers=once())


def _snapshot(response: httpx.Response) -> Snapshot:
    job = Job.model_validate_json(response.content)
    return Snapshot(job, response.headers.get("etag", f'"{job.etag}"'))


def _newer_snapshot(response: httpx.Response) -> Snapshot | None:
    return None if response.status_code == 304 else _snapshot(response)
