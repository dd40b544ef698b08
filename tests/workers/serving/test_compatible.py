"""Deployments that search an index of their model's teacher or student: only if asked, and as far as it was measured."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import ModelFile
from tinyclip.schemas.models import Compatibility
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.runtime.attempt import AXES
from tinyclip_workers.serving.problems import ProblemError
from tinyclip_workers.serving.replica.indexes import Indexes
from tinyclip_workers.types import Matrix
from tinyclip_workers.versions.writer import version_document, write_version

from tests.workers.index_jobs import request_build, run_job, unit_vectors, update, vector_items
from tests.workers.models import tiny_layout

E = 24
WEIGHTS = b"the weights of the teacher"
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()


def rotation() -> Matrix:
    return np.linalg.qr(np.random.default_rng(2).standard_normal((E, E)))[0].astype(np.float32)


def write_models(root: Path, share: float | None, *, axes: bool = True, sha256: str = DIGEST) -> None:
    """Write the versions big@1 and small@2, its student if `share` was measured."""
    store, summary = ArtifactsStore(str(root)), summarize(tiny_layout())
    write_version(store, "models/big/1", version_document("big", 1, summary), {"weights.safetensors": WEIGHTS})
    found = None
    if share is not None:
        found = Compatibility(teacher="big@1", sha256=sha256, axes=AXES if axes else None, share=share)
    files = {AXES: save({"axes": rotation()})}
    version = write_version(store, "models/small/2", version_document("small", 2, summary, compatible_with=found), files)
    assert ModelFile(path=AXES, bytes=len(files[AXES]), sha256=hashlib.sha256(files[AXES]).hexdigest()) in version.files


@pytest.fixture
def vectors_NE() -> Matrix:
    """The items' vectors, in the coordinates of the index's model."""
    return unit_vectors(20, E)


def index_of(root: Path, folder: Path, vectors_NE: Matrix, model: str) -> Indexes:
    request_build(root, folder, None, model=model)
    assert run_job(root) == 0
    update(root, folder, 1, vector_items(vectors_NE), model=model)
    return Indexes(str(root))


async def test_a_student_searches_its_teachers_index_when_asked(tmp_path: Path, folder: Path, vectors_NE: Matrix) -> None:
    write_models(tmp_path, 0.98)
    indexes = index_of(tmp_path, folder, vectors_NE, "big@1")

    _, found = await indexes.nearest("gallery", "small@2", vectors_NE[7] @ rotation(), 1, compatible=True)

    assert [hit.id for hit in found.hits] == ["v7"]
    assert found.hits[0].score == pytest.approx(1, abs=1e-5)


async def test_a_teacher_searches_its_students_index_when_asked(tmp_path: Path, folder: Path, vectors_NE: Matrix) -> None:
    write_models(tmp_path, 0.98)
    indexes = index_of(tmp_path, folder, vectors_NE, "small@2")

    _, found = await indexes.nearest("gallery", "big@1", vectors_NE[7] @ rotation().T, 1, compatible=True)

    assert [hit.id for hit in found.hits] == ["v7"]
    assert found.hits[0].score == pytest.approx(1, abs=1e-5)


async def test_without_axes_the_coordinates_are_the_same(tmp_path: Path, folder: Path, vectors_NE: Matrix) -> None:
    write_models(tmp_path, 0.98, axes=False)
    indexes = index_of(tmp_path, folder, vectors_NE, "big@1")

    _, found = await indexes.nearest("gallery", "small@2", vectors_NE[7], 1, compatible=True)

    assert [hit.id for hit in found.hits] == ["v7"]


@pytest.mark.parametrize(
    ("share", "asked", "sha256", "reason"),
    [
        (0.98, False, DIGEST, '98.0% of what the teacher finds with its own (R@10); give "compatible": true'),
        (0.5, True, DIGEST, "50.0% of what the teacher finds with its own (R@10), and at least 90% is needed"),
        (None, True, DIGEST, "holds embeddings of big@1 and this deployment serves small@2; query a deployment of big@1"),
        (0.98, True, "ab" * 32, "holds embeddings of big@1 and this deployment serves small@2; query a deployment of big@1"),
    ],
)
async def test_otherwise_it_is_refused_with_the_reason(
    tmp_path: Path, folder: Path, vectors_NE: Matrix, share: float | None, asked: bool, sha256: str, reason: str
) -> None:
    write_models(tmp_path, share, sha256=sha256)
    indexes = index_of(tmp_path, folder, vectors_NE, "big@1")

    with pytest.raises(ProblemError) as refused:
        await indexes.open("gallery", "small@2", compatible=asked)

    assert (refused.value.problem.status, refused.value.problem.code) == (409, "index_of_another_model")
    assert reason in refused.value.problem.detail


async def test_a_damaged_version_is_not_compatible(tmp_path: Path, folder: Path, vectors_NE: Matrix) -> None:
    write_models(tmp_path, 0.98)
    (tmp_path / "models/small/2/axes.safetensors").write_bytes(b"damaged")
    indexes = index_of(tmp_path, folder, vectors_NE, "big@1")

    with pytest.raises(ProblemError, match="holds embeddings of big@1"):
        await indexes.open("gallery", "small@2", compatible=True)
