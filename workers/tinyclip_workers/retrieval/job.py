"""Build or update an index: the work of the Ray jobs `tc-index-<name>-<job>`, started by `tinyclip_workers.jobs`.

The index's `request.json` describes the work. Written files take effect only when the next generation is committed, which is
atomic; a job that was killed is started again, and a build resumes after the parts that it has encoded. Events report progress.
"""

from functools import partial

from pydantic import ValidationError
from tinyclip.artifacts.documents import IndexRequest
from tinyclip.artifacts.paths import index_request
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.errors import MissingExtra

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.retrieval.building import build_index
from tinyclip_workers.retrieval.updating import apply_updates
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.runtime.ray_job import JobFailed, RequestWithdrawn


def build_or_update(store: ArtifactsStore, index: str, job: str, events: EventWriter) -> None:
    """Do what the index's request specifies. Raises RequestWithdrawn, JobFailed."""
    try:
        request = _read_request(store, index, job)
        load, still_wanted = partial(_load_engine, request.model_uri), partial(_read_request, store, index, job)
        if request.updates is None:
            build_index(store, request, load, events, still_wanted)
        else:
            apply_updates(store, request, load, events, still_wanted)
    except DataError as error:
        raise JobFailed("unreadable_data", str(error)) from error
    except (ValueError, OSError, MissingExtra) as error:
        raise JobFailed("index_failed", str(error)) from error


def _load_engine(model_uri: str) -> Engine:
    # Imported here, which takes seconds, because changes without texts and images need no engine.
    from tinyclip_workers.engines.load import load_engine

    return load_engine(model_uri)


def _read_request(store: ArtifactsStore, name: str, job: str) -> IndexRequest:
    """Return the current request. Raises RequestWithdrawn if it belongs to another job by now."""
    try:
        request = IndexRequest.model_validate_json(store.read_bytes(index_request(name)))
    except FileNotFoundError as error:
        raise RequestWithdrawn(f"index {name} was deleted") from error
    except ValidationError as error:
        raise ValueError(f"{store.uri(index_request(name))} is not a valid index request: {error}") from error
    if request.job != job:
        raise RequestWithdrawn(f"index {name} is now at job {request.job}, this is {job}")
    return request
