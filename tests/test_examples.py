"""The examples match their pages: specs can be submitted, and the data has its counts, digests and licences."""

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tinyclip.schemas import DatasetPut, JobSpec, SearchPost
from tinyclip.specfile import load_dataset, load_search, load_spec

EXAMPLES = Path(__file__).parents[1] / "examples"
DATA = EXAMPLES / "emoji" / "data"
SPECS = sorted(file for file in EXAMPLES.glob("*/*.yaml") if file.stem not in ("dataset", "smallest"))


@pytest.fixture(scope="module")
def dataset() -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((DATA / "dataset.json").read_text())
    return facts


@pytest.fixture(scope="module")
def metadata() -> dict[str, list[dict[str, Any]]]:
    """Each picture's JSON, by split."""
    found: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
    for shard in sorted(DATA.glob("*.tar.gz")):
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if member.name.endswith(".json") and file is not None:
                    found[shard.name.partition("-")[0]].append(json.load(file))
    return found


def length(spec: JobSpec) -> dict[str, float]:
    """Return the training length of all stages together, by unit."""
    lengths = [stage.train.model_dump(exclude_none=True) for stage in spec.stages]
    return {unit: sum(each.get(unit, 0) for each in lengths) for unit in ("steps", "samples", "epochs")}


def test_the_data_set_can_be_registered_as_it_is_and_is_that_of_the_demo() -> None:
    put = DatasetPut.model_validate(load_dataset(EXAMPLES / "emoji" / "dataset.yaml", {}, []))
    train = JobSpec.model_validate(load_spec(EXAMPLES / "emoji" / "half.yaml")).data.train

    keys = ("shards", "caption_key", "distinct_key")
    assert [getattr(put.source, key) for key in keys] == [getattr(train, key) for key in keys]
    assert put.holdout == train.holdout


@pytest.mark.parametrize("file", SPECS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_spec_can_be_submitted_as_it_is(file: Path) -> None:
    spec = JobSpec.model_validate(load_spec(file))

    assert spec.stages
    for task in spec.evaluation.tasks:
        classes = getattr(task, "classes", None)
        files = classes.values() if isinstance(classes, dict) else [classes]
        assert all(file is None or Path(file).is_file() for file in files)


def test_the_search_can_begin_as_it_is_and_selects_by_pictures_that_training_does_not_see() -> None:
    search = SearchPost.model_validate(load_search(EXAMPLES / "emoji" / "smallest.yaml"))
    half = JobSpec.model_validate(load_spec(EXAMPLES / "emoji" / "half.yaml"))

    (task,) = search.spec.evaluation.tasks
    assert [constraint.task for constraint in search.constraints] == [task.name]
    assert task in half.evaluation.tasks
    assert getattr(task, "subset", None) == "holdout"
    assert search.spec.data == half.data


def test_from_scratch_means_as_many_steps_as_distilled() -> None:
    half, scratch = (JobSpec.model_validate(load_spec(EXAMPLES / "emoji" / f"{name}.yaml")) for name in ("half", "half-scratch"))

    assert length(half) == length(scratch)
    assert half.batch_size == scratch.batch_size
    assert half.data == scratch.data
    assert half.evaluation == scratch.evaluation


def test_the_shards_are_the_ones_that_are_announced(dataset: dict[str, Any], metadata: dict[str, list[dict[str, Any]]]) -> None:
    for split, facts in dataset["splits"].items():
        assert len(metadata[split]) == facts["samples"] == sum(shard["samples"] for shard in facts["shards"])
        for shard in facts["shards"]:
            assert hashlib.sha256((DATA / shard["file"]).read_bytes()).hexdigest() == shard["sha256"]


def test_labels_point_into_the_class_files(metadata: dict[str, list[dict[str, Any]]]) -> None:
    for label in ("group", "subgroup"):
        classes = (DATA / f"{label}s.txt").read_text().splitlines()
        for picture in metadata["train"] + metadata["val"]:
            assert classes[picture[label]] == picture[f"{label}_name"]


def test_no_training_picture_shows_a_held_out_concept(metadata: dict[str, list[dict[str, Any]]]) -> None:
    shown = {picture["label"] for picture in metadata["train"]}
    new = {picture["label"] for picture in metadata["val"] if not picture["seen_concept"]}

    assert new
    assert not shown & new


def test_every_picture_is_attributed(metadata: dict[str, list[dict[str, Any]]]) -> None:
    page = (DATA / "ATTRIBUTION.md").read_text()

    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    attributed = {(style, author, licence) for style, author, _, licence, _, _ in cells}
    made = {(picture["vendor"], picture["author"], picture["license"]) for split in metadata.values() for picture in split}
    assert made <= attributed
