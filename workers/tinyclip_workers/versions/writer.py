"""Write model versions: a folder in open_clip's layout, with the model's evaluation and lineage.

`model.json` is written last: a folder without it is not a version, and writing one again from the start is safe.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from tinyclip.artifacts.paths import MODEL_DOCUMENT, version_predictions
from tinyclip.artifacts.predictions import TaskPredictions
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import (
    JSON,
    Layout,
    ModelFile,
    ModelVersion,
    Params,
    Scores,
    StudentSummary,
    VocabularyChoice,
    VocabularyReport,
)
from tinyclip.schemas.layouts import AnyLayout
from tinyclip.schemas.models import Compatibility
from tinyclip.schemas.spec import DataSpec

from tinyclip_workers.engines.calibration import (
    CALIBRATION_FILE,
    MIN_CALIBRATION_IMAGES,
    encode_calibration,
    sample_calibration_images,
)
from tinyclip_workers.evaluation.predictions import describe
from tinyclip_workers.model.architecture import open_clip_config
from tinyclip_workers.model.files.folders import (
    CONFIG_FILE,
    LAYOUT_FILE,
    OWN_WEIGHTS_FILE,
    PREPROCESS_FILE,
    WEIGHTS_FILES,
    ModelSource,
    load_student,
)
from tinyclip_workers.model.files.sources import find_teacher, of_parent
from tinyclip_workers.model.layout_diagram import layout_svg
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD, Color
from tinyclip_workers.model.rotation import rotated_weights
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.model.tokenizers import TokenizerSource, config_of_tokenizer
from tinyclip_workers.runtime.attempt import AXES, FinishedStudent, JobAttempt
from tinyclip_workers.versions.ancestry import inherited_blocks, inherited_layout
from tinyclip_workers.versions.golden import GOLDEN_FILE, encode_golden
from tinyclip_workers.versions.lineage import student_lineage
from tinyclip_workers.versions.model_card import model_card
from tinyclip_workers.versions.reduction import reduce_student


def write_student_version(run: JobAttempt, finished: FinishedStudent) -> ModelVersion:
    """Write the version that the job has reserved, from its last stage's student.

    `open_clip.create_model_and_transforms("local-dir:…")` can open it, unless its blocks have different sizes after an automatic
    stage: only `layout.json` can express those. A complete version is returned unchanged.
    Raises FileExistsError if it belongs to another job, and as `reduce_student` if it has a reduced vocabulary.
    """
    folder = run.model_folder()
    if run.store.exists(f"{folder}/{MODEL_DOCUMENT}"):
        return _existing_version(run, folder)
    reduction = None
    if run.spec.vocabulary is VocabularyChoice.REDUCED:
        finished, reduction = reduce_student(run.store, run.spec, run.document.dataset, finished)
    sources = [find_teacher(at.spec, at.pointer) for at in run.spec.every_teacher()]
    source = of_parent(run.spec, find_teacher) or (sources[0] if sources else None)
    student = summarize(finished.layout)
    finished, axes = _on_axes(finished)
    document = _student_document(run, student, sources, source, finished, reduction)
    colors = (source.image_mean, source.image_std) if source else (OPENAI_MEAN, OPENAI_STD)
    files = {
        **model_files(finished.layout, finished.weights, *colors, source.layout if source else None, _tokenizer(finished)),
        **axes,
        "evaluation.json": json_bytes(finished.evaluation),
        **_serving_files(run.spec.data, finished, colors),
    }
    has_calibration = CALIBRATION_FILE in files
    for task, content in finished.predictions.items():
        run.store.write_bytes(version_predictions(run.document.model_name, run.document.model_version, task), content)
    card = model_card(document, student, summarize(source.layout) if source else None, run.spec, has_calibration=has_calibration)
    files["README.md"] = card.encode()
    write_version(run.store, folder, document, files)
    return _existing_version(run, folder)  # as others read it


def write_version(store: ArtifactsStore, folder: str, document: ModelVersion, files: Mapping[str, bytes]) -> ModelVersion:
    """Write a version's files, and last the document that makes them a version. Raises OSError."""
    for name, data in files.items():
        store.write_bytes(f"{folder}/{name}", data)
    document = document.model_copy(update={"files": [_file(name, data) for name, data in files.items()]})
    store.write_bytes(f"{folder}/{MODEL_DOCUMENT}", json_bytes(document.model_dump(mode="json")))
    return document


def model_files(
    layout: AnyLayout,
    weights: bytes,
    mean: Color,
    std: Color,
    original: AnyLayout | None,
    tokenizer: TokenizerSource | None = None,
) -> dict[str, bytes]:
    """Return weights, layout, preprocessing and tokenizer by file name, in open_clip's files if open_clip can build the model.

    `original` is shown in grey in the drawing of a pruned model.
    """
    preprocess = {"mean": list(mean), "std": list(std), "interpolation": "bicubic", "resize_mode": "shortest"}
    files = {LAYOUT_FILE: json_bytes(layout.model_dump(mode="json")), **(tokenizer.to_files() if tokenizer else {})}
    if isinstance(layout, Layout) and not layout.is_uniform:
        drawing = layout_svg(layout, original if isinstance(original, Layout) else None).encode()
        return {OWN_WEIGHTS_FILE: weights, **files, PREPROCESS_FILE: json_bytes(preprocess), "layout.svg": drawing}
    model_cfg = open_clip_config(layout)
    model_cfg["text_cfg"] |= config_of_tokenizer(tokenizer)
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess}
    return {WEIGHTS_FILES[0]: weights, **files, CONFIG_FILE: json_bytes(config)}


def version_document(name: str, version: int, summary: StudentSummary, **rest: Any) -> ModelVersion:
    """Return a version's document with the fields that follow from its layout; `rest`: lineage and evaluation."""
    layout = summary.layout
    return ModelVersion(
        name=name,
        version=version,
        params=params_of(summary),
        macs=summary.macs,
        embed_dim=layout.embed_dim,
        image_size=layout.image_size,
        context_length=layout.context_length,
        layout=layout,
        created_at=datetime.now(UTC),
        **rest,
    )


def params_of(summary: StudentSummary) -> Params:
    return Params(
        image=summary.image_params, text=summary.text_params, text_without_embedding=summary.text_params_without_embedding
    )


def _on_axes(finished: FinishedStudent) -> tuple[FinishedStudent, dict[str, bytes]]:
    """Return a student with nested embeddings on the principal axes of its teacher's, and the file with these axes."""
    if finished.axes_EE is None:
        return finished, {}
    weights = to_safetensors(rotated_weights(from_safetensors(finished.weights), finished.axes_EE))
    return replace(finished, weights=weights), {AXES: to_safetensors({"axes": finished.axes_EE.contiguous()})}


def _existing_version(run: JobAttempt, folder: str) -> ModelVersion:
    document = ModelVersion.model_validate_json(run.store.read_bytes(f"{folder}/{MODEL_DOCUMENT}"))
    if document.job != run.document.job:
        raise FileExistsError(f"{run.store.uri(folder)} belongs to job {document.job}; this is {run.document.job}")
    return document


def _serving_files(data: DataSpec, finished: FinishedStudent, colors: tuple[Color, Color]) -> dict[str, bytes]:
    """Return the calibration images and golden queries that replicas need; nothing if too few images can be read."""
    images = sample_calibration_images(data, finished.layout.image_size)
    if len(images) < MIN_CALIBRATION_IMAGES:
        return {}
    loaded = load_student(finished.layout, finished.weights, *colors, _tokenizer(finished))
    return {CALIBRATION_FILE: encode_calibration(images), GOLDEN_FILE: encode_golden(loaded, images)}


def _tokenizer(finished: FinishedStudent) -> TokenizerSource | None:
    return TokenizerSource.from_files(finished.tokenizer)


def _student_document(
    run: JobAttempt,
    student: StudentSummary,
    sources: Sequence[ModelSource],
    parent: ModelSource | None,
    finished: FinishedStudent,
    reduction: VocabularyReport | None,
) -> ModelVersion:
    vocabulary = {"vocabulary": reduction.model_dump(mode="json")} if reduction is not None else {}
    lineage = {**student_lineage(run, sources), **vocabulary}
    teacher = summarize(sources[0].layout) if sources else None
    return version_document(
        run.document.model_name,
        run.document.model_version,
        student,
        embedding_sizes=(run.spec.stages[-1].objective or run.spec.objective).nested_sizes(student.layout.embed_dim),
        evaluation={task: Scores.model_validate(scores) for task, scores in finished.evaluation.items()},
        inherited_from=inherited_layout(run, parent.layout) if parent else None,
        inherited_blocks=inherited_blocks(run, student.layout) if parent else None,
        predictions={task: describe(TaskPredictions.unpack(packed), packed) for task, packed in finished.predictions.items()},
        teacher=sources[0].name if sources else None,
        teacher_params=None if teacher is None else params_of(teacher),
        teacher_macs=None if teacher is None else teacher.macs,
        compatible_with=_compatibility(finished, lineage["teacher"]) if sources else None,
        job=run.document.job,
        lineage=lineage,
    )


def _compatibility(finished: FinishedStudent, teacher: JSON) -> Compatibility | None:
    """Return how well student and teacher search each other's images; None if no task has measured it."""
    scores = {task: scores["student"] for task, scores in finished.evaluation.items()}
    metrics = {task: found["with_teacher"] for task, found in scores.items() if "with_teacher" in found}
    shares = [across["share"] for found in metrics.values() for across in found.values() if across["share"] is not None]
    if not shares:
        return None
    axes = None if finished.axes_EE is None else AXES
    return Compatibility(teacher=teacher["name"], sha256=teacher["sha256"], axes=axes, share=min(shares), metrics=metrics)


def _file(name: str, data: bytes) -> ModelFile:
    return ModelFile(path=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def json_bytes(document: object) -> bytes:
    """Return a document's content in a version's files."""
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()
