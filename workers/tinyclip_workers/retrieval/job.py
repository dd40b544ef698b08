"""Builds and updates retrieval indexes: the work of the Ray jobs `tc-index-<name>-<job>`, started by `tinyclip_workers.jobs`.

What is to be done is in the index's `request.json`. Whatever is written counts for nothing until the next generation is
committed in one step, so an index is always the old one or the new one; a job that dies is simply started again. A build
goes on behind the parts that it has encoded. Progress goes up as events.
"""

from functools import partial

from pydantic import ValidationError
from tinyclip.artifacts.documents import IndexRequest
from tinyclip.artifacts.paths import index_request
from tinyclip.errors import MissingExtra

from tinyclip_workers.data.shards import DataError
from tinyclip_workers.engines.load import load_engine
from tinyclip_workers.retrieval.building import build_index
from tinyclip_workers.retrieval.updating import apply_updates
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.runtime.ray_job import JobFailed, RequestWithdrawn
from tinyclip_workers.runtime.store import Store


def build_or_update(store: Store, index: str, job: str, events: EventWriter) -> None:
    """Do what the index's request specifies. Raises RequestWithdrawn, JobFailed."""
    try:
        request = _request(store, index, job)
        load, still_wanted = partial(load_engine, request.model_uri), partial(_request, store, index, job)
        if request.updates is None:
            build_index(store, request, load, events, still_wanted)
        else:
            apply_updates(store, request, load, events, still_wanted)
    except DataError as error:
        raise JobFailed("unreadable_data", str(error)) from error
    except (ValueError, OSError, MissingExtra) as error:
        raise JobFailed("index_failed", str(error)) from error


def _request(store: Store, name: str, job: str) -> IndexRequest:
    """The request as it stands now. Raises RequestWithdrawn if it no longer asks for this job."""
    try:
        request = IndexRequest.model_validate_json(store.read_bytes(index_request(name)))
    except FileNotFoundError as error:
        raise RequestWithdrawn(f"index {name} was deleted") from error
    except ValidationError as error:
        raise ValueError(f"{store.uri(index_request(name))} is not a request for an index: {error}") from error
    if request.job != job:
        raise RequestWithdrawn(f"index {name} is now at job {request.job}, this is {job}")
    return request
