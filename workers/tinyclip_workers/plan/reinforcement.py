"""Check of a reinforcement: it is complete, and has the embeddings of the job's teachers for the job's data; and its cost."""

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from tinyclip.addresses import ARTIFACTS_ROOT
from tinyclip.artifacts.documents import StoredTeacher
from tinyclip.artifacts.paths import reinforcement_folder
from tinyclip.schemas import DatasetVersion, JobSpec, Layout, PlannedStage
from tinyclip.schemas.datasets import ReinforcementPost

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.reinforcement.check import check_reinforcement
from tinyclip_workers.data.reinforcement.stored import StoredReinforcement
from tinyclip_workers.model.files.errors import TeacherError
from tinyclip_workers.model.files.folders import ModelSource
from tinyclip_workers.model.files.weights import file_digest
from tinyclip_workers.plan.diagnostics import Diagnostics
from tinyclip_workers.reinforcing.cost import estimate
from tinyclip_workers.runtime.filesystems import open_own_store

POINTER = "/data/train/reinforcement"


def check_stored(
    spec: JobSpec,
    dataset: DatasetVersion | None,
    teachers: Sequence[ModelSource | None],
    stages: Sequence[PlannedStage],
    diagnostics: Diagnostics,
) -> None:
    """Check `data.train.reinforcement`. Weights of teachers are compared if they are files of this machine."""
    id, root = spec.data.train.reinforcement, os.environ.get(ARTIFACTS_ROOT)
    if id is None:
        return
    if dataset is None or not root:
        diagnostics.error(POINTER, id, "only the server knows its reinforcements; submit the spec to it")
        return
    taught = [stage for stage in stages if (spec.stages[stage.index].objective or spec.objective).teacher_terms()]
    if not taught:
        diagnostics.warn(f"{POINTER}: no stage learns from a teacher, so the reinforcement is not used")
        return
    try:
        stored = StoredReinforcement.open(open_own_store(root), reinforcement_folder(dataset.name, dataset.version, id))
        found = [_describe(source, at.share) for source, at in zip(teachers, spec.every_teacher(), strict=True) if source]
        shared = any(source is not None and isinstance(source.layout, Layout) and source.tokenizer is None for source in teachers)
        lengths = [stage.student.layout.context_length for stage in taught] if shared else []
        check_reinforcement(stored.document, spec, dataset, found if len(found) == len(teachers) else [], lengths)
    except (DataError, OSError) as error:
        diagnostics.error(POINTER, id, str(error))


def cost_or_errors(request: Mapping[str, Any], diagnostics: Diagnostics) -> dict[str, Any]:
    """Return `{"cost": …}`, a `ReinforcementCost`, or `{"errors": […]}` for `{"dataset", "version", "request"}` as plain data.

    `request` is a `ReinforcementPost` whose `registry:` teachers are resolved. Loads the teachers, and encodes a few samples.
    """
    post, dataset = ReinforcementPost.model_validate(request["request"]), request["dataset"]
    diagnostics.begin("/teacher" if post.teacher else "/teachers", None, "encoding a few samples with the teachers")
    root = os.environ.get(ARTIFACTS_ROOT)
    try:
        if not root:
            raise DataError("only the server knows its data sets; ask it", field="dataset", value=dataset)
        return {"cost": estimate(open_own_store(root), dataset, request["version"], post).model_dump(mode="json")}
    except TeacherError as error:
        diagnostics.error(error.pointer, error.value, error.message)
    except DataError as error:
        diagnostics.error(f"/{error.field.replace('.', '/')}", error.value, str(error))
    except OSError as error:
        diagnostics.error("/dataset", dataset, str(error))
    return {"errors": [error.model_dump(mode="json") for error in diagnostics.errors]}


def _describe(source: ModelSource, share: float) -> StoredTeacher:
    return StoredTeacher(
        name=source.name,
        sha256="" if source.published else _digest_of(source.weights()),
        weight=share,
        scale=1.0,
        embed_dim=source.layout.embed_dim,
        image_size=source.layout.image_size,
        interpolation=source.interpolation,
        image_mean=source.image_mean,
        image_std=source.image_std,
    )


def _digest_of(path: str) -> str:
    """Return the digest of a file of this machine; "" for another one, which the job compares."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    return _digest(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(path: str, size: int, modified: int) -> str:
    return file_digest(path)
