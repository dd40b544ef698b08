"""The calls about jobs, each described once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tinyclip._calls import Call, as_model, nothing, once, path
from tinyclip.schemas import Checkpoint, Event, Job, JobClone, JobPatch, JobSpec, JobState, LogLine, Metrics, Page, Plan

Spec = JobSpec | Mapping[str, Any]
"""A spec as written: a mapping is sent as it is, so that the server can say what is wrong with it."""


def submit(spec: Spec, *, idempotency_key: str | None = None) -> Call[Job]:
    """Submits a spec. The same key and spec give the same job, however often they are sent; by default a fresh key is drawn."""
    return Call("POST", path("jobs"), as_model(Job), body=_document(spec), headers=once(idempotency_key))


def plan(spec: Spec) -> Call[Plan]:
    """What a spec would do, without doing it: resolved spec, students, steps, estimated device-hours."""
    return Call("POST", path("jobs"), as_model(Plan), query={"validate_only": "true"}, body=_document(spec))


def page(
    *,
    state: JobState | str | Sequence[JobState | str] | None = None,
    name: str | Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    page_size: int | None = None,
    page_token: str | None = None,
) -> Call[Page[Job]]:
    """One page of jobs, newest first: in any of the states, of any of the names, with all of the labels."""
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


def pause(job_id: str) -> Call[Job]:
    """Asks for the job to stop at a checkpoint, to be resumed from there."""
    return _transition(job_id, "pause")


def resume(job_id: str) -> Call[Job]:
    """Lets a paused job go on."""
    return _transition(job_id, "resume")


def retry(job_id: str) -> Call[Job]:
    """Lets a failed or cancelled job go on from its last checkpoint, as the new job that is returned."""
    return _transition(job_id, "retry")


def clone(job_id: str, changes: Mapping[str, Any] | None = None) -> Call[Job]:
    """Submits a job's spec again with changes by dotted place, as `{"optimizer.lr": 1e-4}`."""
    body = JobClone(set=dict(changes or {})).model_dump(mode="json")
    return Call("POST", path("jobs", job_id, "clone"), as_model(Job), body=body, headers=once())


def update(job_id: str, change: JobPatch | Mapping[str, Any], *, if_match: str | None = None) -> Call[Job]:
    """Changes a job's name, labels or priority; with `if_match` only if its etag is still that one (else `Conflict`)."""
    body = change.model_dump(mode="json", exclude_unset=True) if isinstance(change, JobPatch) else dict(change)
    return Call("PATCH", path("jobs", job_id), as_model(Job), body=body, headers=_only_if(if_match))


def delete(job_id: str, *, if_match: str | None = None) -> Call[None]:
    """Forgets a job that has ended, and its artifacts; its model versions stay."""
    return Call("DELETE", path("jobs", job_id), nothing, headers=_only_if(if_match))


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
    """Series of numbers by name (`loss`, `lr`, …), thinned to `max_points` a stage; peaks are kept."""
    query = {"names": ",".join(names) if names else None, "stage": stage, "max_points": max_points}
    return Call("GET", path("jobs", job_id, "metrics"), as_model(Metrics), query=query)


def checkpoints(job_id: str) -> Call[Page[Checkpoint]]:
    """The checkpoints that a job can go on from."""
    return Call("GET", path("jobs", job_id, "checkpoints"), as_model(Page[Checkpoint]))


def layout_picture(job_id: str, stage: int) -> Call[str]:
    """The picture (SVG) of what an automatic stage, counted from 0, has left of every block."""
    return Call("GET", path("jobs", job_id, "stages", stage, "layout.svg"), lambda response: response.text)


def _document(spec: Spec) -> Any:
    return spec.model_dump(mode="json", exclude_unset=True) if isinstance(spec, JobSpec) else dict(spec)


def _only_if(etag: str | None) -> dict[str, str]:
    return {} if etag is None else {"If-Match": etag if etag.endswith('"') else f'"{etag}"'}


def _transition(job_id: str, verb: str) -> Call[Job]:
    return Call("POST", path("jobs", job_id, verb), as_model(Job), headers=once())


def _snapshot(response: httpx.Response) -> Snapshot:
    job = Job.model_validate_json(response.content)
    return Snapshot(job, response.headers.get("etag", f'"{job.etag}"'))


def _newer_snapshot(response: httpx.Response) -> Snapshot | None:
    return None if response.status_code == 304 else _snapshot(response)
