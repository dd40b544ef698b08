"""The work of the Ray job `tc-dataset-<name>-v<version>-a<attempt>`, started by `tinyclip_workers.jobs`.

The data set's `request.json` describes it. A job that was killed is started again as the next attempt, which uses the shards that
were scanned; files of a version count once its document is written.
"""

from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.errors import MissingExtra
from tinyclip.schemas import JSON

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.datasets.registration import register_version
from tinyclip_workers.datasets.requests import expect_wanted
from tinyclip_workers.evaluation.labels import task_pointer
from tinyclip_workers.model.files.errors import TeacherError
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.runtime.ray_job import JobFailed
from tinyclip_workers.runtime.ray_tasks import TaskLost


def register(store: ArtifactsStore, name: str, version: int, attempt: int, events: EventWriter) -> None:
    """Register the version and emit `dataset.finished`. Raises RequestWithdrawn, JobFailed."""
    request = expect_wanted(store, name, version, attempt)
    try:
        document = register_version(store, request, events)
        events.send("dataset.finished", message=_message(document), data=document)
    except DataError as error:
        pointer = task_pointer(request.request.tasks, error) or f"/{error.field.replace('.', '/')}"
        raise JobFailed("unreadable_data", str(error), pointer=pointer, value=error.value) from error
    except TeacherError as error:
        raise JobFailed("unreadable_model", error.message, pointer=error.pointer, value=error.value) from error
    except TaskLost as error:
        raise JobFailed("worker_lost", str(error)) from error
    except (ValueError, OSError, MissingExtra) as error:
        raise JobFailed("dataset_failed", str(error)) from error


def _message(document: JSON) -> str:
    if document.get("unchanged"):
        return "shards and settings equal those of the newest version, so there is no new one"
    return f"{document['samples']:,} samples in {document['shards']:,} shards, {document['pairs']:,} of them for training"
