"""Specs on their way from the user to a worker: teachers and data set resolved, planned, changed by dotted paths."""

import contextlib
import copy
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from tinyclip.bounded_json import MAX_DEPTH
from tinyclip.schemas import DatasetVersion, JobSpec, Plan
from tinyclip.validation import pointer_of, shown_value

from tinyclip_server.http.services import Services
from tinyclip_server.jobs import datasets
from tinyclip_server.models.teachers import pin, pin_model
from tinyclip_server.problems import InvalidInput


@dataclass(frozen=True)
class PlannedJob:
    """A spec that can be submitted."""

    spec: JobSpec
    """With the versions of teachers and data set pinned."""
    plan: Plan
    dataset: DatasetVersion | None
    submitted: dict[str, Any]
    """As it was sent, without defaults."""


async def plan(
    services: Services, project: str, spec: JobSpec, submitted: dict[str, Any] | None = None
) -> PlannedJob:
    """Pin the versions of a spec, and plan it; `submitted` is what was sent if it is not the spec. Raises InvalidInput."""
    await services.addresses.expect_readable(project, services.settings.address_rules, spec)
    pinned, dataset = await datasets.pin(services, project, await _pin_teachers(services, project, spec))
    sent = submitted if submitted is not None else spec.model_dump(mode="json", exclude_unset=True)
    return PlannedJob(pinned, await services.planner.plan(project, pinned, dataset), dataset, sent)


async def _pin_teachers(services: Services, project: str, spec: JobSpec) -> JobSpec:
    """Return the spec with `registry:name@alias` as `registry:name@3`, in teachers and in `inherit_from`."""
    teacher = await pin(services, project, spec.teacher, "/teacher") if spec.teacher is not None else None
    teachers = [await pin(services, project, each, f"/teachers/{index}") for index, each in enumerate(spec.teachers)]
    first, *rest = spec.stages
    if first.inherit_from is not None:
        pinned = await pin_model(services, project, first.inherit_from, "/stages/0/inherit_from")
        first = first.model_copy(update={"inherit_from": pinned})
    return spec.model_copy(update={"teacher": teacher, "teachers": teachers, "stages": [first, *rest]})


def with_changes(spec: dict[str, Any], changes: dict[str, Any]) -> JobSpec:
    """Return a spec with values set at dotted paths, as `{"optimizer.lr": 1e-4, "stages.0.train.steps": 50}`.

    Raises InvalidInput.
    """
    document = _changed(spec, changes)
    try:
        return JobSpec.model_validate(document)
    except ValidationError as error:
        raise InvalidInput.document(error, document, JobSpec) from error


def submitted_with_changes(submitted: dict[str, Any] | None, changes: dict[str, Any], changed: JobSpec) -> dict[str, Any]:
    """Return what was sent with the same changes; without defaults the changed spec, if they do not fit what was sent."""
    if submitted is not None:
        with contextlib.suppress(InvalidInput, ValidationError):
            document = _changed(submitted, changes)
            JobSpec.model_validate(document)
            return document
    return without_defaults(changed.model_dump(mode="json"))


def without_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """Return a spec without the values that are defaults; the whole spec if that would be another one."""
    spec = JobSpec.model_validate(document)
    short = spec.model_dump(mode="json", exclude_defaults=True)
    with contextlib.suppress(ValidationError):
        if JobSpec.model_validate(short) == spec:
            return short
    return document


def _changed(spec: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    document = copy.deepcopy(spec)
    if changes.get("data.train.dataset") is not None:
        datasets.without_owned(document)
    for path, value in changes.items():
        _set(document, path, value)
    return document


def _set(document: Any, path: str, value: Any) -> None:
    """Set one value as the client's `--set` does: missing mappings are created, list entries must exist."""
    parts = path.split(".")
    if len(parts) > MAX_DEPTH:
        raise InvalidInput.field(_pointer(path), value, f"has {len(parts):,} parts, more than {MAX_DEPTH}")
    if not all(parts):
        raise InvalidInput.field(_pointer(path), value, "write the path as optimizer.lr or stages.0.train.steps")
    holder = document
    for depth, part in enumerate(parts[:-1]):
        if isinstance(holder, dict):
            if holder.get(part) is None:
                holder[part] = {}
            holder = holder[part]
        else:
            holder = holder[_entry(holder, parts, depth, value)]
    if isinstance(holder, dict):
        holder[parts[-1]] = value
    else:
        holder[_entry(holder, parts, len(parts) - 1, value)] = value


def _entry(holder: Any, parts: list[str], depth: int, value: Any) -> int:
    """Return the index of the list entry that `parts[depth]` names. Raises InvalidInput."""
    above, part = ".".join(parts[:depth]), parts[depth]
    if not isinstance(holder, list):
        message = f"{above} is {shown_value(holder)!r}, which has no fields; end the path there"
        raise InvalidInput.field(_pointer(".".join(parts)), value, message)
    if not part.isdecimal() or int(part) >= len(holder):
        known = f"entries 0 to {len(holder) - 1}" if holder else "no entries"
        raise InvalidInput.field(_pointer(".".join(parts)), value, f"{above} has {known}, not {part}")
    return int(part)


def _pointer(path: str) -> str:
    return pointer_of(["set", path])
