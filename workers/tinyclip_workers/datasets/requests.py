"""The request of a registration, which every attempt reads, and reads again before it writes."""

from pydantic import ValidationError
from tinyclip.artifacts.documents import DatasetRequest
from tinyclip.artifacts.paths import dataset_request
from tinyclip.artifacts.store import ArtifactsStore

from tinyclip_workers.runtime.ray_job import JobFailed, RequestWithdrawn


def expect_wanted(store: ArtifactsStore, name: str, version: int, attempt: int) -> DatasetRequest:
    """Return the request of an attempt. Raises RequestWithdrawn if it was removed or is for another one, and JobFailed."""
    try:
        request = DatasetRequest.model_validate_json(store.read_bytes(dataset_request(name)))
    except FileNotFoundError as error:
        raise RequestWithdrawn(f"data set {name} was deleted") from error
    except ValidationError as error:
        message = f"{store.uri(dataset_request(name))} is not a request for a data set: {error}"
        raise JobFailed("dataset_failed", message) from error
    if (request.version, request.attempt) != (version, attempt):
        now = f"version {request.version}, attempt {request.attempt}"
        raise RequestWithdrawn(f"data set {name} is now at {now}; this is version {version}, attempt {attempt}")
    return request
