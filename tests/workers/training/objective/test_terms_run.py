"""A job on a real local Ray: two workers, two teachers, and terms that need a projection and clusters."""

from pathlib import Path

import pytest
import torch
from tinyclip_workers.model.architecture import build_model
from tinyclip_workers.training.clusters import make_clusters

from tests.workers.auto_stages import TEACHER, spec_of
from tests.workers.models import write_folder
from tests.workers.ray_jobs import RAY_MARKS, Artifacts
from tests.workers.shapes_data import write_shards

pytestmark = [*RAY_MARKS, pytest.mark.long]

OBJECTIVE = {"affinity": 1, "feature_mimicry": 100, "cluster_instance": 0.5}


def test_other_objectives_and_several_teachers_are_recorded_in_the_version(tmp_path: Path) -> None:
    torch.manual_seed(0)
    write_folder(tmp_path / "one", build_model(TEACHER), TEACHER)
    other = TEACHER.model_copy(update={"embed_dim": 24})
    write_folder(tmp_path / "two", build_model(other), other)
    clusters = str(tmp_path / "clusters.safetensors")
    spec = spec_of(
        write_shards(tmp_path / "data"),
        {"name": "narrow", "student": {"embed_dim": 12, "text": {}}, "train": {"steps": 3}},
        teacher=None,
        teachers=[{"model": f"local-dir:{tmp_path}/one", "weight": 3}, {"model": f"local-dir:{tmp_path}/two"}],
        objective={**OBJECTIVE, "clusters": clusters},
        resources={"workers": 2},
        micro_batch=3,
        precision="auto",
    )
    make_clusters(spec, clusters, clusters=5)
    artifacts = Artifacts(tmp_path / "artifacts", spec)

    assert artifacts.attempt(1)

    events = artifacts.events(1)
    loaded = next(event for event in events if event["type"] == "teacher.loaded")
    metrics = [event["data"]["metrics"] for event in events if event["type"] == "progress"][-1]
    version = next(event for event in events if event["type"] == "model.exported")["data"]
    card = artifacts.store.read_bytes("models/shapes/1/README.md").decode()
    assert sum(event["type"] == "precision.selected" for event in events) == 1
    assert [teacher["name"] for teacher in loaded["data"]["teachers"]] == ["one", "two"]
    assert OBJECTIVE.keys() <= metrics.keys()
    assert abs(sum(weight * metrics[name] for name, weight in OBJECTIVE.items()) - metrics["loss"]) < 1e-3 * metrics["loss"]
    assert version["teacher"] == "one"
    assert [teacher["share"] for teacher in version["lineage"]["teachers"]] == [0.75, 0.25]
    assert [file["url"] for file in version["lineage"]["clusters"]] == [clusters]
    assert "**one** (75%) and **two** (25%)" in card
    assert version["embed_dim"] == 12
    assert [name for name in artifacts.student() if "projection" in name] == ["text_projection"]
