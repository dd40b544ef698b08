"""A data set: registered, reported, reinforced, trained on without a teacher, and named by the model."""

import json
from typing import Any

import pytest
import yaml
from tinyclip import Conflict
from tinyclip.schemas import JobState

from tests.e2e.world import World

pytestmark = [pytest.mark.timeout(1200), pytest.mark.ray]


def create(world: World, *options: str) -> dict[str, Any]:
    """Register the training shards, and return the data set."""
    arguments = ("--shards", f"{world.folder}/train/*.tar", "--holdout", "0.1", *options)
    ran = world.service.client("datasets", "create", "pairs", *arguments, "--json")
    assert ran.code == 0, ran.out + ran.err
    return json.loads(ran.out)


def spec(world: World, **train: str) -> dict[str, Any]:
    """Return a spec of one short stage that trains on these data."""
    document = yaml.safe_load(world.spec_file.read_text())
    del document["data"]["train"]["shards"], document["data"]["train"]["holdout"]
    document["data"]["train"] |= train
    document["teacher"]["model"] = f"local-dir:{world.folder}/teacher"
    document |= {"name": "stored", "evaluation": {}, "stages": document["stages"][:1]}
    document["stages"][0]["train"] = {"steps": 20}
    return document


def test_from_shards_to_a_model_that_names_its_data(world: World) -> None:
    client = world.client
    created = create(world, "--image-size", "32")

    report = client.datasets.report("pairs@1")
    samples = list(client.datasets.samples("pairs@1"))
    assert (created["versions"], created["state"]) == ([1], "ready")
    assert (report.samples, report.usable, len(samples)) == (300, 300, 300)
    assert client.datasets.thumbnail("pairs@1", samples[7].key, number=7).startswith(b"\xff\xd8")

    teacher = f"local-dir:{world.folder}/teacher"
    ran = world.service.client("datasets", "reinforce", "pairs@1", "--teacher", teacher, "--augmentations", "2", "--json")
    assert ran.code == 0, ran.out + ran.err
    reinforcement = json.loads(ran.out)
    version = client.datasets.version("pairs@1")
    assert (reinforcement["state"], reinforcement["views"]) == ("succeeded", 2 * version.pairs)

    job = client.jobs.submit(spec(world, dataset="pairs@latest", reinforcement=reinforcement["id"]))
    with pytest.raises(Conflict, match=f"{job.id} trains on pairs"):
        client.datasets.delete("pairs")
    job = client.jobs.wait(job.id, timeout=600)

    assert job.state is JobState.SUCCEEDED, job.error
    assert job.model is not None
    model = client.models.version(f"{job.model.name}@{job.model.version}")
    assert model.lineage["dataset"]["digest"] == version.digest
    assert model.lineage["spec"]["data"]["train"] | {"augment": None} == job.spec.data.train.model_dump() | {"augment": None}
    assert (job.spec.data.train.dataset, job.spec.data.train.holdout) == ("pairs@1", 0.1)


@pytest.mark.long  # the tests of datasets of workers, server and command line have the three parts of it
def test_what_cannot_be_read_is_refused_by_field(world: World) -> None:
    ran = world.service.client("datasets", "create", "broken", "--shards", f"{world.folder}/classes.txt")

    assert ran.code == 1
    assert "can be read" in ran.out
    assert "/source/shards" in ran.err
