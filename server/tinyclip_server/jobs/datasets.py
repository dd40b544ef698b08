"""The data set of a job's spec: its version is resolved, and what belongs to it is taken from it."""

from typing import Any

from tinyclip.schemas import DatasetVersion, FieldError, JobSpec, ReinforcementState
from tinyclip.schemas.spec import TrainData
from tinyclip.validation import shown_value

from tinyclip_server.datasets import versions
from tinyclip_server.http.services import Services
from tinyclip_server.problems import ApiError, InvalidInput
from tinyclip_server.reinforcements import repository as reinforcements

POINTER = "/data/train"
OWNED = ("image_key", "caption_key", "languages", "distinct_key", "holdout")
"""Fields of `data.train` that belong to the data set; a spec may repeat its values."""


async def pin(services: Services, project: str, spec: JobSpec) -> tuple[JobSpec, DatasetVersion | None]:
    """Return the spec with the number of its data set's version and what belongs to it, and the version.

    Raises InvalidInput if there is no such version, or if the spec contradicts it.
    """
    train = spec.data.train
    if train.dataset is None:
        return spec, None
    name, _, which = train.dataset.partition("@")
    async with services.db.read() as session:
        try:
            version = versions.view(await versions.resolve(session, project, name, which), {})
        except ApiError as error:
            raise InvalidInput.field(f"{POINTER}/dataset", train.dataset, error.detail, code="unknown_dataset") from error
    if train.reinforcement is not None:
        await _expect_reinforcement(services, version, train.reinforcement)
    source = version.source
    owned = {"image_key": source.image_key, "caption_key": source.caption_key, "languages": source.languages,
             "distinct_key": source.distinct_key, "holdout": version.holdout}  # fmt: skip
    _expect_agreement(train, owned, version)
    pinned = train.model_copy(update={"dataset": f"{version.name}@{version.version}", **owned})
    return spec.model_copy(update={"data": spec.data.model_copy(update={"train": pinned})}), version


def without_owned(document: dict[str, Any]) -> None:
    """Remove from a stored spec what belongs to a data set: another one has values of its own."""
    for field in OWNED:
        document["data"]["train"].pop(field, None)


async def _expect_reinforcement(services: Services, version: DatasetVersion, id: str) -> None:
    """Raise InvalidInput unless a version has this reinforcement, and it is complete."""
    async with services.db.read() as session:
        known = {row.id: row for row in await reinforcements.of_version(session, version.name, version.version)}
    complete = [row.id for row in known.values() if row.state == ReinforcementState.SUCCEEDED]
    if id not in complete:
        state = f"is {known[id].state}" if id in known else f"is none of {version.name}@{version.version}"
        message = f"{state}; those that can be used are {', '.join(complete) or 'none yet'}"
        raise InvalidInput.field(f"{POINTER}/reinforcement", id, message, code="unknown_reinforcement")


def _expect_agreement(train: TrainData, owned: dict[str, Any], version: DatasetVersion) -> None:
    """Raise InvalidInput for each field that is given with another value than the data set's."""
    errors = []
    for field, value in owned.items():
        given = getattr(train, field)
        if field in train.model_fields_set and given != value:
            message = f"is {value!r} in data set {version.name}@{version.version}, to which it belongs; omit it"
            errors.append(FieldError(pointer=f"{POINTER}/{field}", value=shown_value(given), message=message))
    if errors:
        raise InvalidInput.of(errors, code="dataset_differs")
