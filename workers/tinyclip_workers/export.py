"""A finished student becomes a model version: a folder in open_clip's layout, with its evaluation and where it comes from.

`model.json` is written last: a folder without it is not a version, and writing it again from the start is safe.
"""

import hashlib
import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version as installed
from typing import Any

from tinyclip.schemas import JSON, ModelFile, ModelVersion, Params, Scores, StudentSummary
from tinyclip.schemas.spec import JobSpec

from tinyclip_workers.architecture import is_uniform, open_clip_config, summarize
from tinyclip_workers.filesystems import open_filesystem
from tinyclip_workers.images import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.jobrun import FinishedStudent, JobRun
from tinyclip_workers.layout_picture import layout_svg
from tinyclip_workers.model_card import model_card
from tinyclip_workers.model_folder import CONFIG_FILE, OWN_WEIGHTS_FILE, PREPROCESS_FILE, ModelSource
from tinyclip_workers.shards import expand_shards
from tinyclip_workers.teacher import find_teacher
from tinyclip_workers.weights import file_digest

MAX_BYTES_TO_HASH = 4 << 30
"""Training data up to this size is hashed; of more, size and the store's own tag have to do."""


def export_model(run: JobRun, finished: FinishedStudent) -> ModelVersion:
    """Write the version that the job has reserved, from its last stage's student.

    Opens with `open_clip.create_model_and_transforms("local-dir:…")` as it is, unless an automatic stage has left blocks of
    different sizes: only `layout.json` can say those. A version that is already complete is returned as it stands.
    Raises FileExistsError if it belongs to another job.
    """
    folder = run.model_folder()
    if run.store.exists(f"{folder}/model.json"):
        return _already_there(run, folder)
    source = find_teacher(run.spec.teacher) if run.spec.teacher else None
    student = summarize(finished.layout)
    document = _document(run, student, source, finished.evaluation)
    files = {
        **_model_files(finished, source),
        "layout.json": _json(finished.layout.model_dump(mode="json")),
        "evaluation.json": _json(finished.evaluation),
        "README.md": model_card(document, student, summarize(source.layout) if source else None, run.spec).encode(),
    }
    for name, data in files.items():
        run.store.write_bytes(f"{folder}/{name}", data)
    document = document.model_copy(update={"files": [_file(name, data) for name, data in files.items()]})
    run.store.write_bytes(f"{folder}/model.json", _json(document.model_dump(mode="json")))
    return _already_there(run, folder)  # as everybody else will read it


def data_digests(shards: str | Sequence[str]) -> list[JSON]:
    """What identifies each shard: `url`, `bytes`, and `sha256` while all together are at most 4 GiB, else the store's `etag`.

    A shard that cannot be looked at has only its url.
    """
    found = [_shard_info(url) for url in expand_shards(shards)]
    small = sum(entry.get("bytes") or 0 for entry in found) <= MAX_BYTES_TO_HASH
    for entry in found:
        if small and entry.get("bytes"):
            entry["sha256"] = file_digest(entry["url"])
            entry.pop("etag", None)
    return found


def _already_there(run: JobRun, folder: str) -> ModelVersion:
    document = ModelVersion.model_validate_json(run.store.read_bytes(f"{folder}/model.json"))
    if document.job != run.document.job:
        raise FileExistsError(f"{run.store.uri(folder)} belongs to job {document.job}; this is {run.document.job}")
    return document


def _document(run: JobRun, student: StudentSummary, source: ModelSource | None, evaluation: JSON) -> ModelVersion:
    layout = student.layout
    return ModelVersion(
        name=run.document.model_name,
        version=run.document.model_version,
        params=Params(
            image=student.image_params,
            text=student.text_params,
            text_without_embedding=student.text_params_without_embedding,
        ),
        macs=student.macs,
        embed_dim=layout.embed_dim,
        image_size=layout.image.image_size,
        context_length=layout.text.context_length,
        layout=layout,
        evaluation={task: Scores.model_validate(scores) for task, scores in evaluation.items()},
        teacher=source.name if source else None,
        job=run.document.job,
        lineage=_lineage(run.spec, source),
        created_at=datetime.now(UTC),
    )


def _lineage(spec: JobSpec, source: ModelSource | None) -> JSON:
    teacher = {"name": source.name, "sha256": file_digest(source.weights())} if source else None
    packages = {name: installed(name) for name in ("tinyclip", "torch", "open_clip_torch")}
    return {
        "spec": spec.model_dump(mode="json"),
        "teacher": teacher,
        "data": data_digests(spec.data.train.shards),
        "code": {**packages, "python": platform.python_version()},
    }


def _model_files(student: FinishedStudent, source: ModelSource | None) -> dict[str, bytes]:
    """Weights and preprocessing, in open_clip's files where open_clip can build the model."""
    preprocess = {
        "mean": list(source.image_mean if source else OPENAI_MEAN),
        "std": list(source.image_std if source else OPENAI_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    if not is_uniform(student.layout):
        picture = layout_svg(student.layout, source.layout if source else None)
        return {OWN_WEIGHTS_FILE: student.weights, PREPROCESS_FILE: _json(preprocess), "layout.svg": picture.encode()}
    config = {"model_cfg": open_clip_config(student.layout), "preprocess_cfg": preprocess}
    return {"open_clip_model.safetensors": student.weights, CONFIG_FILE: _json(config)}


def _shard_info(url: str) -> dict[str, Any]:
    try:
        fs, path = open_filesystem(url)
        info = fs.info(path)
    except (OSError, ValueError):
        return {"url": url}
    etag = info.get("ETag") or info.get("etag")
    return {"url": url, "bytes": info.get("size"), **({"etag": str(etag)} if etag else {})}


def _file(name: str, data: bytes) -> ModelFile:
    return ModelFile(path=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def _json(document: object) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()
