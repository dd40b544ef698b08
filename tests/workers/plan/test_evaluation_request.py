"""Checks of an evaluation's request before it runs: models that cannot be found, tasks that do not fit their data."""

import json
from pathlib import Path
from typing import Any

import pytest
from tinyclip_workers.plan.specs import evaluation_errors

from tests.workers.models import tiny_layout, tiny_model, write_folder
from tests.workers.shards import COLORS, color_samples, write_shard

CLASSES = [*COLORS, "red"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = write_folder(tmp_path_factory.mktemp("model") / "tiny", tiny_model(), tiny_layout())
    return {"name": "m", "source": {"model": f"local-dir:{folder}"}}


@pytest.fixture(scope="module")
def classification(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in CLIP_benchmark's layout; two of its classes have the same name."""
    root = tmp_path_factory.mktemp("wds") / "wds_colors"
    (root / "test").mkdir(parents=True)
    (root / "test" / "nshards.txt").write_text("1\n")
    samples = [{**sample, "cls": str(index % len(CLASSES))} for index, sample in enumerate(color_samples(20))]
    write_shard(root / "test" / "0.tar", samples)
    (root / "classnames.txt").write_text("\n".join(CLASSES) + "\n")
    (root / "zeroshot_classification_templates.txt").write_text("{c}\n")
    return root


def test_a_valid_request_has_no_errors(model: dict[str, Any], classification: Path) -> None:
    tasks = [{"name": "a", "kind": "zero_shot", "shards": str(classification)}]

    found = evaluation_errors({"model": model, "tasks": tasks})

    assert found["errors"] == []
    assert "'red' names 2 classes" in found["warnings"][0]


def test_all_errors_are_reported_with_their_pointers(model: dict[str, Any], classification: Path) -> None:
    tasks: list[dict[str, Any]] = [
        {"name": "a", "kind": "zero_shot", "shards": str(classification), "classes": ["x", "y"]},
        {"name": "b", "kind": "retrieval", "shards": str(classification)},
        {"name": "c", "kind": "retrieval", "shards": "/nowhere/{0..1}.tar"},
        {"name": "d", "kind": "zero_shot", "shards": str(classification), "subset": "holdout"},
    ]
    against = {"name": "ViT-B-32/unknown", "source": {"model": "ViT-B-32", "pretrained": "unknown"}}

    found = evaluation_errors({"model": model, "tasks": tasks, "against": against})["errors"]

    messages = {(error["pointer"], json.dumps(error["value"])): error["message"] for error in found}
    assert "no such weights" in messages["/against", '"ViT-B-32/unknown"']
    assert "has 2 classes (0 to 1)" in messages["/tasks/0/classes", '"x, y"']
    assert "use kind: zero_shot" in messages["/tasks/1/kind", '"retrieval"']
    assert "is not there" in messages["/tasks/2/shards", '"/nowhere/0.tar"']
    assert "set holdout" in messages["/tasks/3/subset", '"holdout"']
