"""Jobs: submit a spec, follow the job, end it."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tinyclip._http.calls import Call, as_model, idempotency_header, no_content, path
from tinyclip._http.methods import AsyncResource, Resource, ResourceMethods, iteration, method, operation
from tinyclip._http.streams import Stream, follow
from tinyclip._http.waiting import Deadline
from tinyclip.schemas import (
    Attempt,
    Checkpoint,
    Event,
    Job,
    JobClone,
    JobPatch,
    JobSpec,
    JobSpecs,
    JobState,
    LogLine,
    Metrics,
    NamedPoint,
    Page,
    Plan,
)

_LONG_POLL_SECONDS = 25.0
_BETWEEN_SNAPSHOTS_SECONDS = 0.25
_SURVIVES_RESTART_SECONDS = 300.0

Spec = JobSpec | Mapping[str, Any]
"""A mapping is sent as it is, so that the server reports what is wrong with it."""


def submit(spec: Spec, *, idempotency_key: str | None = None) -> Call[Job]:
    """Submit a spec. The same key and spec return the same job, however often they are sent; by default the key is random."""
    return Call("POST", path("jobs"), as_model(Job), body=_document(spec), headers=idempotency_header(idempotency_key))


def plan(spec: Spec) -> Call[Plan]:
    """Plan a spec without running it: resolved spec, students, steps, estimated device-hours."""
    return Call("POST", path("jobs"), as_model(Plan), query={"validate_only": "true"}, body=_document(spec))


def page(
    *,
    state: JobState | str | Sequence[JobState | str] | None = None,
    name: str | Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    search: str | None = None,
    parent: str | None = None,
    page_size: int | None = None,
    page_token: str | None = None,
) -> Call[Page[Job]]:
    """Return one page of jobs, newest first: in any of the states, with any of the names and all of the labels.

    `search` finds text in names, ids and values of labels, in any case. Its pages may be short while more follow.
    `parent` is the id of a search, of which the jobs are trials.
    """
    query = {
        "state": state, "name": name, "label": [f"{key}:{value}" for key, value in (labels or {}).items()] or None,
        "search": search, "parent": parent, "page_size": page_size, "page_token": page_token,
    }
    return Call("GET", path("jobs"), as_model(Page[Job]), query=query)


def get(job_id: str) -> Call[Job]:
    """Return one job."""
    return Call("GET", path("jobs", job_id), as_model(Job))


@dataclass(frozen=True)
class Snapshot:
    """A job and the entity tag of this state of it."""

    job: Job
    tag: str


def snapshot(job_id: str) -> Call[Snapshot]:
    """Return the job and its tag."""
    return Call("GET", path("jobs", job_id), _snapshot)


def changed(seen: Snapshot, wait: float) -> Call[Snapshot | None]:
    """Return the job once it differs from `seen`; None if nothing has changed within `wait` seconds."""
    return Call(
        "GET", path("jobs", seen.job.id), _newer_snapshot, query={"wait": max(1, int(wait))}, wait=wait,
        headers={"If-None-Match": seen.tag},
    )


def cancel(job_id: str) -> Call[Job]:
    """Cancel a job: it ends without a student."""
    return _transition(job_id, "cancel")


def pause(job_id: str) -> Call[Job]:
    """Pause a job: it stops at a checkpoint, from which it can be resumed."""
    return _transition(job_id, "pause")


def resume(job_id: str) -> Call[Job]:
    """Resume a paused job."""
    return _transition(job_id, "resume")


def retry(job_id: str) -> Call[Job]:
    """Retry a failed or cancelled job from its last checkpoint, as a new job, which is returned."""
    return _transition(job_id, "retry")


def clone(job_id: str, changes: Mapping[str, Any] | None = None) -> Call[Job]:
    """Submit a job's spec again with changes by dotted path, as `{"optimizer.lr": 1e-4}`."""
    body = JobClone(set=dict(changes or {})).model_dump(mode="json")
    return Call("POST", path("jobs", job_id, "clone"), as_model(Job), body=body, headers=idempotency_header())


def update(job_id: str, change: JobPatch | Mapping[str, Any], *, if_match: str | None = None) -> Call[Job]:
    """Change a job's name, labels or priority; with `if_match` only if its etag is still that one (else `Conflict`)."""
    body = change.model_dump(mode="json", exclude_unset=True) if isinstance(change, JobPatch) else dict(change)
    return Call("PATCH", path("jobs", job_id), as_model(Job), body=body, headers=_if_match(if_match))


def delete(job_id: str, *, if_match: str | None = None) -> Call[None]:
    """Delete a job that has ended, and its artifacts; its model versions stay."""
    return Call("DELETE", path("jobs", job_id), no_content, headers=_if_match(if_match))


def spec(job_id: str) -> Call[JobSpecs]:
    """Return a job's spec as it was sent, without defaults, and as the workers get it."""
    return Call("GET", path("jobs", job_id, "spec"), as_model(JobSpecs))


def attempts_page(job_id: str, *, page_size: int | None = None, page_token: str | None = None) -> Call[Page[Attempt]]:
    """Return one page of a job's attempts, oldest first."""
    query = {"page_size": page_size, "page_token": page_token}
    return Call("GET", path("jobs", job_id, "attempts"), as_model(Page[Attempt]), query=query)


def events_page(
    job_id: str, *, tail: int | None = None, page_size: int | None = None, page_token: str | None = None
) -> Call[Page[Event]]:
    """Return one page of a job's events, oldest first; with `tail` the last ones only."""
    query = {"tail": tail, "page_size": page_size, "page_token": page_token}
    return Call("GET", path("jobs", job_id, "events"), as_model(Page[Event]), query=query)


def logs_page(
    job_id: str,
    *,
    tail: int | None = None,
    search: str | None = None,
    level: str | Sequence[str] | None = None,
    page_size: int | None = None,
    page_token: str | None = None,
) -> Call[Page[LogLine]]:
    """Return one page of a job's log lines, oldest first; with `tail` the last ones only.

    `search` finds text in any case, `level` lines of any of these levels. Such a page may be short while more follow.
    """
    query = {"tail": tail, "search": search, "level": level, "page_size": page_size, "page_token": page_token}
    return Call("GET", path("jobs", job_id, "logs"), as_model(Page[LogLine]), query=query)


def metrics(
    job_id: str, *, names: Sequence[str] | None = None, stage: int | None = None, max_points: int | None = None
) -> Call[Metrics]:
    """Return series of numbers by name (`loss`, `lr`, …), thinned to `max_points` per stage; peaks are kept."""
    query = {**_selection(names, stage), "max_points": max_points}
    return Call("GET", path("jobs", job_id, "metrics"), as_model(Metrics), query=query)


def checkpoints(job_id: str) -> Call[Page[Checkpoint]]:
    """Return the checkpoints from which a job can continue."""
    return Call("GET", path("jobs", job_id, "checkpoints"), as_model(Page[Checkpoint]))


def layout_picture(job_id: str, stage: int) -> Call[str]:
    """Return a picture (SVG) of what an automatic stage, counted from 0, has kept of every block."""
    return Call("GET", path("jobs", job_id, "stages", stage, "layout.svg"), lambda response: response.text)


def _document(spec: Spec) -> Any:
    return spec.model_dump(mode="json", exclude_unset=True) if isinstance(spec, JobSpec) else dict(spec)


def _selection(names: Sequence[str] | None, stage: int | None) -> dict[str, str | int | None]:
    """Return the parameters of some series, of one stage or of all."""
    return {"names": ",".join(names) if names else None, "stage": stage}


def _if_match(etag: str | None) -> dict[str, str]:
    return {} if etag is None else {"If-Match": etag if etag.endswith('"') else f'"{etag}"'}


def _transition(job_id: str, verb: str) -> Call[Job]:
    return Call("POST", path("jobs", job_id, verb), as_model(Job), headers=idempotency_header())


def _snapshot(response: httpx.Response) -> Snapshot:
    job = Job.model_validate_json(response.content)
    return Snapshot(job, response.headers.get("etag", f'"{job.etag}"'))


def _newer_snapshot(response: httpx.Response) -> Snapshot | None:
    return None if response.status_code == 304 else _snapshot(response)


class JobMethods(ResourceMethods):
    submit = method(submit)
    plan = method(plan)
    page = method(page)
    get = method(get)
    cancel = method(cancel)
    pause = method(pause)
    resume = method(resume)
    retry = method(retry)
    clone = method(clone)
    update = method(update)
    delete = method(delete)
    spec = method(spec)
    attempts_page = method(attempts_page)
    events_page = method(events_page)
    logs_page = method(logs_page)
    metrics = method(metrics)
    checkpoints = method(checkpoints)
    layout_picture = method(layout_picture)

    @iteration
    def list(
        self,
        *,
        state: JobState | str | Sequence[JobState | str] | None = None,
        name: str | Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        search: str | None = None,
        parent: str | None = None,
    ) -> AsyncGenerator[Job, None]:
        """Iterate over all jobs, newest first; `search` finds text in names, ids and values of labels.

        `parent`: the id of a search, whose trials they are.
        """
        return self._items(
            lambda token: page(state=state, name=name, labels=labels, search=search, parent=parent, page_token=token)
        )

    @iteration
    def attempts(self, job_id: str) -> AsyncGenerator[Attempt, None]:
        """Iterate over a job's attempts, oldest first."""
        return self._items(lambda token: attempts_page(job_id, page_token=token))

    @iteration
    def events(
        self, job_id: str, *, after: int = 0, tail: int | None = None, patience: float = _SURVIVES_RESTART_SECONDS
    ) -> AsyncGenerator[Event, None]:
        """Iterate over a job's events as they happen until it has ended: from the one after `after`, or from the last `tail`.

        `patience` is how many seconds the server may be away."""
        stream = Stream(path("jobs", job_id, "events"), Event, after, self._transport.retries.lasting(patience), tail=tail)
        return follow(self._transport, stream, lambda: self._has_ended(job_id))

    @iteration
    def logs(
        self,
        job_id: str,
        *,
        after: int = 0,
        tail: int | None = None,
        search: str | None = None,
        level: str | Sequence[str] | None = None,
        patience: float = _SURVIVES_RESTART_SECONDS,
    ) -> AsyncGenerator[LogLine, None]:
        """Iterate over a job's log lines until the job has ended: from the one after `after`, or from the last `tail`.

        `search` and `level` select lines, as in `logs_page`.
        """
        stream = Stream(
            path("jobs", job_id, "logs"), LogLine, after, self._transport.retries.lasting(patience), tail=tail,
            query={"search": search, "level": level},
        )
        return follow(self._transport, stream, lambda: self._has_ended(job_id))

    @iteration
    def metric_points(
        self,
        job_id: str,
        *,
        names: Sequence[str] | None = None,
        stage: int | None = None,
        after: int = 0,
        patience: float = _SURVIVES_RESTART_SECONDS,
    ) -> AsyncGenerator[NamedPoint, None]:
        """Iterate over a job's metrics, point by point, until the job has ended; all of them, unless `after` is given.

        With the `last` of `metrics` as `after`, the points follow those of that answer. A step that is repeated after a failure
        has a new point, which replaces the earlier one.
        """
        stream = Stream(
            path("jobs", job_id, "metrics"), NamedPoint, after, self._transport.retries.lasting(patience),
            query=_selection(names, stage),
        )
        return follow(self._transport, stream, lambda: self._has_ended(job_id))

    @iteration
    def watch(
        self, job_id: str, *, timeout: float | None = None, patience: float = _SURVIVES_RESTART_SECONDS
    ) -> AsyncGenerator[Job, None]:
        """Iterate over a job's states: now and after each change, until it has ended.

        `patience` is how many seconds the server may be away, once it has answered. Raises `WaitTimeout` after `timeout` seconds.
        """
        return self._states(job_id, timeout, patience)

    @operation
    async def wait(
        self, job_id: str, *, timeout: float | None = None, patience: float = _SURVIVES_RESTART_SECONDS
    ) -> Job:
        """Wait until a job has ended, successfully or not, and return it. Raises `WaitTimeout` after `timeout` seconds."""
        states = self._states(job_id, timeout, patience)
        job = await anext(states)
        async for job in states:  # noqa: B007 -- the last one is returned
            pass
        return job

    async def _states(self, job_id: str, timeout: float | None, patience: float) -> AsyncGenerator[Job, None]:
        """Yield a job now and after each change; the last one is in a terminal state."""
        deadline, retries = Deadline(f"{job_id} has not ended", timeout), self._transport.retries.lasting(patience)
        seen = await self._transport.send(snapshot(job_id))
        yield seen.job
        while not seen.job.state.terminal:
            await self._transport.sleep(deadline.remaining(_BETWEEN_SNAPSHOTS_SECONDS))
            newer = await self._transport.send(changed(seen, deadline.remaining(_LONG_POLL_SECONDS)), retries)
            if newer is not None:
                seen = newer
                yield seen.job

    async def _has_ended(self, job_id: str) -> bool:
        return (await self._transport.send(get(job_id))).state.terminal


class Jobs(JobMethods, Resource):
    """`client.jobs`."""


class AsyncJobs(JobMethods, AsyncResource):
    """`async_client.jobs`."""
