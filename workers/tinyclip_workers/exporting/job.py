"""Exports a model version to one format: the work of the Ray job `tc-export-<id>-a<attempt>`, started by `tinyclip_workers.jobs`.

The export is made and checked in a folder of this machine. Its files are then written to the version's `exports/<name>/`, and
last of all `export.json`, which makes an export of them; an attempt that finds one only tells of it again.
"""

import logging
import tempfile
from pathlib import Path

from PIL import Image
from pydantic import ValidationError
from tinyclip.artifacts.documents import ExportRequest
from tinyclip.artifacts.paths import EXPORT_DOCUMENT, export_request, exported_files, model_document, model_version
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.errors import MissingExtra
from tinyclip.schemas import ExportDocument, JobSpec, ModelVersion

from tinyclip_workers.engines.calibration import read_calibration
from tinyclip_workers.exporting.check import ExportOff
from tinyclip_workers.exporting.formats import NotAvailable, make_export
from tinyclip_workers.exporting.samples import Samples, gather
from tinyclip_workers.model.architecture import ImpossibleStudent, UnsupportedArchitecture
from tinyclip_workers.model.folders import LoadedModel, load_folder
from tinyclip_workers.model.weights import WeightsError
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.runtime.ray_job import JobFailed, RequestWithdrawn
from tinyclip_workers.versions.writer import json_bytes

log = logging.getLogger(__name__)


def export(store: ArtifactsStore, id: str, attempt: int, events: EventWriter) -> None:
    """Export what the request names, and emit `export.finished`. Raises RequestWithdrawn, JobFailed."""
    document = _exported(store, id, attempt, events)
    events.send("export.finished", message=_summary(document), data=document.model_dump(mode="json"))


def _exported(store: ArtifactsStore, id: str, attempt: int, events: EventWriter) -> ExportDocument:
    """The document: of an export made now, or as an earlier attempt has written it. Raises RequestWithdrawn, JobFailed."""
    request = _request(store, id, attempt)
    target = exported_files(request.name, request.version, request.format, request.int8)
    if store.exists(f"{target}/{EXPORT_DOCUMENT}"):
        return ExportDocument.model_validate_json(store.read_bytes(f"{target}/{EXPORT_DOCUMENT}"))
    events.send("export.progress", message="reading the model", data={"fraction": 0.0})
    loaded, samples = _loaded(store, request)
    with tempfile.TemporaryDirectory(prefix="tinyclip-export-") as aside:
        document = _made(loaded, request, Path(aside), samples, events)
        _request(store, id, attempt)
        store.remove(target)  # what a killed attempt has left
        for file in document.files:
            store.write_bytes(f"{target}/{file.path}", (Path(aside) / file.path).read_bytes())
    _request(store, id, attempt)
    store.write_bytes(f"{target}/{EXPORT_DOCUMENT}", json_bytes(document.model_dump(mode="json")))
    return document


def _made(loaded: LoadedModel, request: ExportRequest, aside: Path, samples: Samples, events: EventWriter) -> ExportDocument:
    def tell(fraction: float, message: str) -> None:
        events.send("export.progress", message=message, data={"fraction": fraction})

    try:
        return make_export(loaded, request.format, aside, samples, int8=request.int8, tell=tell)
    except ExportOff as error:
        raise JobFailed("export_off", str(error)) from error
    except NotAvailable as error:
        raise JobFailed("format_not_available", str(error)) from error
    except MissingExtra as error:
        raise JobFailed("missing_extra", f"on the cluster: {error}") from error


def _loaded(store: ArtifactsStore, request: ExportRequest) -> tuple[LoadedModel, Samples]:
    """The model, and what its export is checked on. Raises JobFailed."""
    folder = model_version(request.name, request.version)
    try:
        version = ModelVersion.model_validate_json(store.read_bytes(model_document(request.name, request.version)))
        loaded = load_folder(store.uri(folder))
    except (OSError, WeightsError, UnsupportedArchitecture, ImpossibleStudent, ValidationError) as error:
        raise JobFailed("unreadable_model", f"{request.name}@{request.version}: {error}") from error
    try:
        spec = JobSpec.model_validate(version.lineage["spec"]) if "spec" in version.lineage else None
    except ValidationError as error:  # of an older TinyCLIP: its data is not looked for
        log.warning("the version's spec is not one of this TinyCLIP: %s", error)
        spec = None
    tasks = [*request.tasks, *(spec.evaluation.tasks if spec is not None else [])]
    kept_BSSC = read_calibration(store.uri(folder), loaded.layout.image.image_size)
    kept = [Image.fromarray(picture) for picture in kept_BSSC] if kept_BSSC is not None else []
    return loaded, gather(tasks, spec.data.train if spec is not None else None, kept)


def _request(store: ArtifactsStore, id: str, attempt: int) -> ExportRequest:
    """Raises RequestWithdrawn, JobFailed."""
    try:
        request = ExportRequest.model_validate_json(store.read_bytes(export_request(id)))
    except FileNotFoundError as error:
        raise RequestWithdrawn(f"export {id} was deleted") from error
    except ValidationError as error:
        raise JobFailed("export_failed", f"{store.uri(export_request(id))} is not a request for an export: {error}") from error
    if request.attempt != attempt:
        raise RequestWithdrawn(f"export {id} is at attempt {request.attempt}, this is {attempt}")
    return request


def _summary(document: ExportDocument) -> str:
    check = document.check
    return (f"checked on {check.pictures} pictures and {check.texts} texts ({check.data}): mean cosine to torch "
            f"{check.image.mean_cosine:.5f} of pictures, {check.text.mean_cosine:.5f} of texts")
