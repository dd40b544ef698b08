"""A student measured again after its training, by a Ray job, beside its teacher."""

import json

import pytest

from tests.e2e.world import Undisturbed, World

pytestmark = [pytest.mark.timeout(900), pytest.mark.ray]


def test_an_evaluation_finds_what_training_has_measured(world: World, undisturbed: Undisturbed) -> None:
    assert undisturbed.job.model is not None
    model, teacher = f"shapes@{undisturbed.job.model.version}", f"local-dir:{world.folder}/teacher"

    ran = world.service.client("models", "evaluate", model, "--task", world.spec_file, "--against", teacher, "--json")

    assert ran.code == 0, ran.out + ran.err
    found = json.loads(ran.out)
    assert (found["state"], found["model"]) == ("succeeded", model)
    assert "keeps what its training has measured as colours, captions" in found["message"]
    for task, metric in (("colours", "top1"), ("captions", "text_to_image_r10")):
        trained = undisturbed.job.stages[-1].evaluation[task]
        assert trained.teacher is not None
        one_image = 1 / found["results"][task]["student"]["samples"] + 1e-6
        for role, scores in (("student", trained.student), ("teacher", trained.teacher)):
            assert found["results"][task][role][metric] == pytest.approx(scores[metric], abs=one_image)
    stored = world.service.artifacts / "evaluations" / found["id"] / "results.json"
    assert json.loads(stored.read_text())["results"] == found["results"]


def test_what_cannot_be_measured_is_refused_by_field_and_leaves_nothing(world: World) -> None:
    file = world.folder / "bad.yaml"
    file.write_text("{name: colours, kind: zero_shot, shards: 'val/*.tar', classes: [red], label_key: json.color}")

    ran = world.service.client("models", "evaluate", f"local-dir:{world.folder}/teacher", "--task", file)

    first, second = ran.err.splitlines()
    assert (ran.code, first) == (2, 'error: tasks.0.classes = "red"')
    assert "has 1 classes (0 to 0)" in second
    assert not list(world.client.evaluations.list(model=f"local-dir:{world.folder}/teacher"))
