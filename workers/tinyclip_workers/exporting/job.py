"""Export a model version to one format: the work of the Ray job `tc-export-<id>-a<attempt>`, started by `tinyclip_workers.jobs`.

The export is created and checked in a temporary folder. Its files are then written to the version's `exports/<name>/`, with
`export.json` last, which completes the export; an attempt that finds a complete export only reports it again.
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
from tinyclip.schemas import ExportDocument, JobSpec, ModelVersion, VocabularyChoice, VocabularyReport
from tinyclip.schemas.exports import export_name

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.engines.calibration import read_calibration
from tinyclip_workers.exporting.check import ExportMismatch
from tinyclip_workers.exporting.exporter import FormatNotAvailable, create_export
from tinyclip_workers.exporting.samples import Samples, gather_samples
from tinyclip_workers.model.architecture import UnsupportedArchitecture
from tinyclip_workers.model.files.folders import LoadedModel, load_folder
from tinyclip_workers.model.files.headers import WeightsError
from tinyclip_workers.model.layouts import ImpossibleStudent
from tinyclip_workers.model.vocabularies.vocabulary import NotReducible, reduced_model, reducible_layout
from tinyclip_workers.runtime.addresses import ServiceAddress
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.runtime.ray_job import JobFailed, RequestWithdrawn
from tinyclip_workers.versions.lineage import training_dataset, training_spec
from tinyclip_workers.versions.reduction import reduced_vocabulary
from tinyclip_workers.versions.writer import json_bytes

log = logging.getLogger(__name__)


def export(store: ArtifactsStore, id: str, attempt: int, events: EventWriter) -> None:
    """Export the requested format, and emit `export.finished`. Raises RequestWithdrawn, JobFailed."""
    document = _existing_or_new(store, id, attempt, events)
    events.send("export.finished", message=_summary(document), data=document.model_dump(mode="json"))


def _existing_or_new(store: ArtifactsStore, id: str, attempt: int, events: EventWriter) -> ExportDocument:
    """Return the document of an earlier attempt's export, or else of a new one. Raises RequestWithdrawn, JobFailed."""
    request = _read_request(store, id, attempt)
    target = exported_files(request.name, request.version, export_name(request.format, request.options))
    if store.exists(f"{target}/{EXPORT_DOCUMENT}"):
        return ExportDocument.model_validate_json(store.read_bytes(f"{target}/{EXPORT_DOCUMENT}"))
    events.send("export.progress", message="reading the model", data={"fraction": 0.0})
    version, loaded = _load_model(store, request)
    spec = _spec_of(version)
    samples = _samples(store, request, spec, loaded)
    reduction = None
    if request.vocabulary is VocabularyChoice.REDUCED:
        events.send("export.progress", message="reading captions", data={"fraction": 0.05})
        loaded, reduction = _reduce(store, request, version, spec, loaded)
    with tempfile.TemporaryDirectory(prefix="tinyclip-export-") as folder:
        document = _create(loaded, request, Path(folder), samples, reduction, events)
        _read_request(store, id, attempt)
        store.remove(target)  # files of a killed attempt
        for file in document.files:
            store.write_bytes(f"{target}/{file.path}", (Path(folder) / file.path).read_bytes())
    _read_request(store, id, attempt)
    store.write_bytes(f"{target}/{EXPORT_DOCUMENT}", json_bytes(document.model_dump(mode="json")))
    return document


def _create(
    loaded: LoadedModel,
    request: ExportRequest,
    folder: Path,
    samples: Samples,
    reduction: VocabularyReport | None,
    events: EventWriter,
) -> ExportDocument:
    def report(fraction: float, message: str) -> None:
        events.send("export.progress", message=message, data={"fraction": fraction})

    try:
        return create_export(
            loaded, request.format, folder, samples, request.options, reduction=reduction, report=report
        )
    except ExportMismatch as error:
        raise JobFailed("export_off", str(error)) from error
    except FormatNotAvailable as error:
        raise JobFailed("format_not_available", str(error)) from error
    except MissingExtra as error:
        raise JobFailed("missing_extra", f"on the cluster: {error}") from error


def _load_model(store: ArtifactsStore, request: ExportRequest) -> tuple[ModelVersion, LoadedModel]:
    """Raises JobFailed."""
    try:
        version = ModelVersion.model_validate_json(store.read_bytes(model_document(request.name, request.version)))
        return version, load_folder(ServiceAddress(store.uri(model_version(request.name, request.version))))
    except (OSError, WeightsError, UnsupportedArchitecture, ImpossibleStudent, ValidationError) as error:
        raise JobFailed("unreadable_model", f"{request.name}@{request.version}: {error}") from error


def _spec_of(version: ModelVersion) -> JobSpec | None:
    try:
        return training_spec(version)
    except ValidationError as error:  # of an older TinyCLIP
        log.warning("cannot use the data of the version's spec: %s", error)
        return None


def _samples(store: ArtifactsStore, request: ExportRequest, spec: JobSpec | None, loaded: LoadedModel) -> Samples:
    tasks = [*request.tasks, *(spec.evaluation.tasks if spec is not None else [])]
    calibration_BSSC = read_calibration(store.uri(model_version(request.name, request.version)), loaded.layout.image_size)
    calibration = [Image.fromarray(image) for image in calibration_BSSC] if calibration_BSSC is not None else []
    return gather_samples(tasks, spec.data.train if spec is not None else None, calibration)


def _reduce(
    store: ArtifactsStore, request: ExportRequest, version: ModelVersion, spec: JobSpec | None, loaded: LoadedModel
) -> tuple[LoadedModel, VocabularyReport]:
    """Raises JobFailed."""
    if spec is None:
        message = f"{loaded.name} was imported, so there are no training captions whose tokens to keep; export it whole"
        raise JobFailed("no_training_data", message)
    try:
        layout = reducible_layout(loaded.layout, loaded.tokenizer_source)
        vocabulary, report = reduced_vocabulary(
            store, spec, training_dataset(version), layout, tasks=request.tasks, embedding=request.embedding
        )
        return reduced_model(loaded, vocabulary), report
    except NotReducible as error:
        raise JobFailed("format_not_available", f"{loaded.name}: {error}") from error
    except (DataError, OSError, ValueError) as error:
        message = f"the captions of {loaded.name} cannot be read: {error}; its vocabulary can be reduced only with them"
        raise JobFailed("unreadable_data", message) from error


def _read_request(store: ArtifactsStore, id: str, attempt: int) -> ExportRequest:
    """Raises RequestWithdrawn, JobFailed."""
    try:
        request = ExportRequest.model_validate_json(store.read_bytes(export_request(id)))
    except FileNotFoundError as error:
        raise RequestWithdrawn(f"export {id} was deleted") from error
    except ValidationError as error:
        raise JobFailed("export_failed", f"{store.uri(export_request(id))} is not a valid export request: {error}") from error
    if request.attempt != attempt:
        raise RequestWithdrawn(f"export {id} is at attempt {request.attempt}, this is {attempt}")
    return request


def _summary(document: ExportDocument) -> str:
    check = document.check
    reduced = ""
    if (reduction := document.reduction) is not None:
        reduced = f"{reduction.tokens:,} of {reduction.of:,} tokens, {reduction.bytes_saved / 1e6:.1f} MB saved; "
    return (f"{reduced}checked with {check.pictures} images and {check.texts} texts ({check.data}): mean cosine to torch "
            f"{check.image.mean_cosine:.5f} of images, {check.text.mean_cosine:.5f} of texts")
