"""A job with nested embeddings on a real local Ray: two workers, two stages, and a version in the teacher's space."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from tinyclip.artifacts.paths import stage_student
from tinyclip_workers.model.architecture import build_model
from tinyclip_workers.runtime.attempt import AXES

from tests.workers.auto_stages import TEACHER, spec_of
from tests.workers.models import write_folder
from tests.workers.ray_jobs import RAY_MARKS, Artifacts
from tests.workers.shapes_data import write_shards

pytestmark = [*RAY_MARKS, pytest.mark.long]


def test_sizes_are_evaluated_and_both_stages_share_the_axes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    write_folder(tmp_path / "one", build_model(TEACHER), TEACHER)
    shards = write_shards(tmp_path / "data")
    task = {"name": "r", "kind": "retrieval", "shards": shards, "caption_key": "json.captions"}
    stage = {"student": {"text": {}}, "train": {"steps": 3}}
    spec = spec_of(
        shards,
        {"name": "first", **stage},
        {"name": "second", **stage},
        teacher={"model": f"local-dir:{tmp_path}/one"},
        objective={"affinity": 1, "feature_mimicry": 1, "embedding_sizes": [4, 8]},
        evaluation={"tasks": [task]},
        resources={"workers": 2},
    )
    artifacts = Artifacts(tmp_path / "artifacts", spec)

    assert artifacts.attempt(1)

    version = next(event for event in artifacts.events(1) if event["type"] == "model.exported")["data"]
    folders = [stage_student(artifacts.job, 0, "first"), stage_student(artifacts.job, 1, "second"), "models/shapes/1"]
    first, second, exported = (load(artifacts.store.read_bytes(f"{folder}/{AXES}"))["axes"] for folder in folders)
    weights = load(artifacts.store.read_bytes(f"{folders[1]}/model.safetensors"))["text_projection"]
    assert version["embedding_sizes"] == [4, 8, 16]
    assert version["evaluation"]["r"]["student"]["by_size"].keys() == {"4", "8"}
    across = version["evaluation"]["r"]["student"]["with_teacher"]
    assert across.keys() == {"student_texts", "teacher_texts"}
    assert version["compatible_with"]["axes"] == AXES
    assert version["compatible_with"]["share"] == min(found["share"] for found in across.values())
    assert torch.equal(first, second)
    assert torch.equal(first, exported)
    torch.testing.assert_close(artifacts.student()["text_projection"], weights @ exported, atol=1e-6, rtol=1e-5)
